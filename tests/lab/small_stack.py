"""A stack small enough to install in seconds, by the real pip: wheels made on the spot, on an index of the test's own.

The index speaks the simple API over loopback HTTP, and can be told to die in the middle of a download or to crawl.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import msgspec

from checks.catalogue import Stack, catalogue
from tests.lab.serving import serving

TORCH = "2.13.0"
PACKAGES = {
    "aardvark": ("1.0", {"aardvark.py": "answer = 42\n", "aardvark_more.py": "more = 1\n"}),
    "badger": ("2.1", {"badger/__init__.py": "answer = 7\n"}),
    "camel": ("0.3", {"camel/__init__.py": ""}),
}


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str], needs: str | None = None) -> Path:
    """Write a pure wheel, with a RECORD as the format asks for it; `needs`: another package, as a requirement."""
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    file.write_bytes(buffer.getvalue())
    return file


def torch_files(version: str = TORCH, cuda: str | None = None, hip: str | None = None) -> dict[str, str]:
    """The files of a torch that imports, with version.py as torch 2.13 has it."""
    text = f"__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = {hip!r}\n"
    return {
        "torch/__init__.py": "from torch.version import __version__\n",
        "torch/version.py": f"from typing import Optional\n\n{text}",
    }


def torch_lock(wheel: Path) -> str:
    """The lock of this one wheel of torch."""
    version = wheel.name.split("-")[1]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"torch{'==' if '+' in version else '==='}{version} \\\n    --hash=sha256:{digest}\n"


class SmallStack(NamedTuple):
    """A stack with its lock, and the folder of its wheels."""

    stack: Stack
    wheels: Path


def small_stack(folder: Path, index: str, parts: int = 20) -> SmallStack:
    """Wheels, lock and stack; `index` is where torch is asked for.

    With some thousand `parts` the installation of the last package can be caught in the middle.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    torch = wheel(wheels, "torch", TORCH, torch_files())
    (folder / "torch.txt").write_text(torch_lock(torch))
    lock = ""
    for name, (version, files) in PACKAGES.items():
        more = {f"{name}/part{number}.py": "x = 1\n" * 40 for number in range(parts)} if name == "camel" else {}
        digest = hashlib.sha256(wheel(wheels, name, version, {**files, **more}).read_bytes()).hexdigest()
        lock += f"{name}=={version} \\\n    --hash=sha256:{digest}\n"
    (folder / "small.txt").write_text(lock)
    cpu = catalogue().stack("cpu")
    stack = msgspec.structs.replace(
        cpu,
        name="small",
        torch=TORCH,
        torch_index=index,
        torch_builds={TORCH: str(folder / "torch.txt")},
        torch_fallback={},
        lock=str(folder / "small.txt"),
    )
    return SmallStack(stack, wheels)


class Index:
    """The index and its faults. `asked` lists the wheels that were fetched."""

    def __init__(self, wheels: Path) -> None:
        self.wheels = wheels
        self.asked: list[str] = []
        # the wheel in whose middle every connection ends, and nothing answers any more
        self.dies_at: str | None = None
        # the wheel that comes in crumbs, for `seconds`
        self.crawls_at: str | None = None
        self.seconds = 60.0
        self.crawling = threading.Event()
        self.dead = False
        self.url = ""


@contextmanager
def served(wheels: Path) -> Iterator[Index]:
    """Serve the folder as a package index on a loopback port until the block ends."""
    index = Index(wheels)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if index.dead:
                self.close_connection = True
                self.connection.close()
                return
            name = self.path.strip("/").rpartition("/")[2]
            if name.endswith(".whl"):
                self._wheel(name)
            else:
                self._listing(name)

        def _listing(self, name: str) -> None:
            links = "".join(
                f'<a href="/files/{file.name}">{file.name}</a>\n' for file in sorted(wheels.glob(f"{name}-*.whl"))
            )
            body = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
            self.send_response(200 if links else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _wheel(self, name: str) -> None:
            index.asked.append(name)
            body = (wheels / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if index.dies_at and name.startswith(index.dies_at):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                index.dead = True
                self.close_connection = True
                return
            if index.crawls_at and name.startswith(index.crawls_at):
                index.crawling.set()
                until = time.monotonic() + index.seconds
                for byte in body[:200]:
                    if time.monotonic() > until:
                        break
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.3)
                return
            self.wfile.write(body)

    with serving(Handler) as url:
        index.url = f"{url}/simple"
        yield index
