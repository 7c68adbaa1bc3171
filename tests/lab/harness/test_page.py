"""The report's page in a real browser: charts that are drawn, a verdict that is seen, and not one request."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from pathlib import Path

import pytest

from tests.lab.training import Ended

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no browser: apt install chromium")
    return found


def browse(chromium: str, folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    quiet = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-extensions", f"--user-data-dir={folder}"),
        # nothing reaches the network, whatever the page or the browser itself asks for
        "--host-resolver-rules=MAP * ~NOTFOUND",
    )
    return subprocess.run(
        [chromium, *quiet, *options, page.as_uri()], capture_output=True, text=True, timeout=90, check=True
    )


def pixels(png: Path) -> tuple[int, int, list[bytes]]:
    """Width, height and the rows of an 8-bit RGB or RGBA PNG, as RGB (PNG specification, sections 9 and 10)."""
    raw, place, data, size = png.read_bytes(), 8, b"", (0, 0, 0)
    while place < len(raw):
        (length,), kind = struct.unpack(">I", raw[place : place + 4]), raw[place + 4 : place + 8]
        body = raw[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert depth == 8 and colour in (2, 6)
            size = (width, height, 3 if colour == 2 else 4)
        elif kind == b"IDAT":
            data += body
        place += 12 + length
    width, height, channels = size
    plain, stride = zlib.decompress(data), width * channels
    rows, above = [], bytearray(stride)
    for number in range(height):
        start = number * (stride + 1)
        filtering, line = plain[start], bytearray(plain[start + 1 : start + 1 + stride])
        for at in range(stride) if filtering else ():
            left = line[at - channels] if at >= channels else 0
            corner = above[at - channels] if at >= channels else 0
            line[at] = (line[at] + _predicted(filtering, left, above[at], corner)) & 255
        above = line
        rows.append(bytes(line) if channels == 3 else bytes(b for i, b in enumerate(line) if i % 4 != 3))
    return width, height, rows


def _predicted(filtering: int, left: int, up: int, corner: int) -> int:
    if filtering == 1:
        return left
    if filtering == 2:
        return up
    if filtering == 3:
        return (left + up) // 2
    nearest = left + up - corner
    return min((abs(nearest - left), 0, left), (abs(nearest - up), 1, up), (abs(nearest - corner), 2, corner))[2]


def test_the_page_in_a_browser(chromium: str, tiny_run: Ended, tmp_path: Path) -> None:
    page = Path(tiny_run.data["folder"]) / "report.html"
    dom = browse(chromium, tmp_path / "one", page, "--dump-dom").stdout
    assert re.search(r'<span class="verdict pass" id="verdict">\s*pass\s*</span>', dom)
    charts = re.findall(r'<figure id="chart-(\w+)">(.*?)</figure>', dom, re.DOTALL)
    assert [name for name, _ in charts] == ["loss", "step", "tokens"]
    for name, chart in charts:
        drawn = [path for path in re.findall(r'<path d="([^"]*)"', chart) if path.count("L") >= 20]
        assert len(drawn) >= (3 if name == "tokens" else 1), f"the chart {name} has no line of 20 steps"
    assert 'id="smoke"' in dom and 'id="answers"' in dom and 'id="conditions"' in dom

    shot = tmp_path / "shot.png"
    browse(chromium, tmp_path / "two", page, f"--screenshot={shot}", "--window-size=1000,1400", "--hide-scrollbars")
    width, height, rows = pixels(shot)
    assert (width, height) == (1000, 1400)
    colours = Counter(row[at : at + 3] for row in rows[::4] for at in range(0, len(row), 12))
    total = sum(colours.values())
    assert colours.most_common(1)[0][0] == b"\xff\xff\xff" and colours[b"\xff\xff\xff"] < 0.97 * total
    assert any(green > 100 and red < 80 for (red, green, _) in colours), "the verdict's green is seen"
    assert len(colours) > 50, "text and lines, not one flat colour"

    assert asked(chromium, tmp_path, page.read_text()) == []
    control = page.read_text().replace("</body>", '<img src="https://example.invalid/x.png"></body>')
    assert asked(chromium, tmp_path, control) == ["https://example.invalid/x.png"], "the test sees requests at all"


WATCH = """
<script>addEventListener("load", () => {
  const names = performance.getEntriesByType("resource").map(entry => entry.name);
  document.body.setAttribute("data-asked", names.join(" "));
})</script>
"""


def asked(chromium: str, folder: Path, text: str) -> list[str]:
    """What the page asked for while it loaded, as the browser counts it (Resource Timing)."""
    file = folder / "watched.html"
    file.write_text(text.replace("<head>", "<head>" + WATCH))
    dom = browse(chromium, folder / "three", file, "--dump-dom").stdout
    found = re.search(r'data-asked="([^"]*)"', dom)
    assert found, "the page's own script ran"
    return found[1].split()
