"""Writes devices.txt: every NVIDIA and AMD GPU of pci.ids, and AMD's boards by revision from libdrm's amdgpu.ids.

`python checks/data/devices/refresh.py PCI.IDS AMDGPU.IDS`, each a file or an https address (by default upstream's). Run
it from the checkout. It prints the chips that chips.toml does not have: add them there, or a running driver must say
what they are. Nothing is written if a source is not what it should be.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

PCI_IDS = "https://pci-ids.ucw.cz/v2.2/pci.ids"
AMDGPU_IDS = "https://gitlab.freedesktop.org/mesa/libdrm/-/raw/main/data/amdgpu.ids"
PATIENCE = 60
VENDORS = ("10de", "1002")

# functions of the same chips, and other devices, that are no GPU
_OTHER = re.compile(
    r"\b(?:Audio|USB|UCSI|SATA|IDE|AC'?97|SMBus|SMU|PMU|NPU|MCI|HBIU|DAIO|LPC|Modem|Ethernet|Firewire|PCI|PCIe|Bridge|"
    r"Host|Port|Switch|Controller|Co-?processor|Tegra|Theater|TV Wonder|HDMI|Root Complex|Endpoint|RAID|absent|Azalia|"
    r"IOMMU|RP x[0-9]+)\b",
    re.IGNORECASE,
)
# NVIDIA's letters for a workstation board (GL) and a laptop (M) at the end of a chip's name
_BOARD = re.compile(r"(?<=[0-9A-FX])(?:GL)?M?$")


def read_source(place: str) -> str:
    """The text of a file or an address; raises OSError, or ValueError if it is not UTF-8."""
    if place.startswith("https://"):
        with urllib.request.urlopen(place, timeout=PATIENCE) as answer:
            return str(answer.read().decode("utf-8"))
    return Path(place).read_text(encoding="utf-8")


def gpus(text: str) -> Iterator[tuple[str, str, str]]:
    """(`vendor:device`, chip, name) of each GPU in pci.ids; the name is empty where it has none."""
    vendor = ""
    for line in text.splitlines():
        if re.match(r"[0-9a-f]{4}  ", line):
            vendor = line[:4]
        elif vendor in VENDORS and (found := re.fullmatch(r"\t([0-9a-f]{4})  (.+)", line)):
            device, words = found.groups()
            chip, _, rest = words.partition(" [")
            if not _OTHER.search(chip) and "NVSwitch" not in rest:
                chip = chip.partition(" /")[0].strip()
                yield f"{vendor}:{device}", _plain_chip(vendor, chip), _plain_name(rest.rstrip("]"))


def _plain_chip(vendor: str, chip: str) -> str:
    return _BOARD.sub("", chip) if vendor == "10de" else chip


def _plain_name(name: str) -> str:
    """As people write it: `RTX 4070 Laptop GPU` for `GeForce RTX 4070 Max-Q / Mobile`."""
    name = re.sub(r"^(?:Ge[Ff]orce (?=[RG]TX)|AMD (?=Radeon|Instinct|FirePro))", "", name.replace("(TM)", ""))
    name = re.sub(r"^(?:Reserved Dev|Initial Dev|INT SKU).*| Lite Hash Rate", "", name)
    return re.sub(r" (?:Max-Q / Mobile|Mobile / Max-Q)\b", " Laptop GPU", name).strip()


def boards(text: str) -> Iterator[tuple[str, str]]:
    """(`1002:device:revision`, name) of each board in amdgpu.ids."""
    for line in text.splitlines():
        if found := re.fullmatch(r"([0-9A-Fa-f]{4}),\s*([0-9A-Fa-f]{1,2}),\s*(.+)", line):
            device, revision, name = found.groups()
            yield f"1002:{device.lower()}:{revision.lower().rjust(2, '0')}", _plain_name(name)


def devices(pci_ids: str, amdgpu_ids: str) -> str:
    """The content of devices.txt; raises ValueError where a source is not what it should be."""
    version = re.search(r"^#\s+Version: ([0-9.]+)$", pci_ids, re.MULTILINE)
    rows = {key: (chip, name) for key, chip, name in gpus(pci_ids)}
    revisions = dict(boards(amdgpu_ids))
    if version is None or len(rows) < 1500 or len(revisions) < 600:
        raise ValueError(f"pci.ids has {len(rows)} GPUs and amdgpu.ids {len(revisions)} boards: not these files")
    # a board whose device pci.ids does not have
    for key in revisions:
        rows.setdefault(key[:9], ("", ""))
    lines = [f"{key}\t{chip}\t{name}" for key, (chip, name) in rows.items()]
    lines += [f"{key}\t\t{name}" for key, name in revisions.items()]
    return (
        f"# pci.ids {version[1]} (pci-ids.ucw.cz; BSD 3-clause) and amdgpu.ids of libdrm (MIT).\n"
        "# Written by refresh.py, sorted: id, chip, name. An id with a revision names a board of AMD.\n"
        + "\n".join(sorted(lines))
        + "\n"
    )


def unknown_chips(text: str) -> list[str]:
    """Chips of devices.txt that chips.toml does not have."""
    from checks.catalogue import catalogue

    known = catalogue()
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return sorted({f"{key} {chip}" for key, chip, _ in rows if chip and known.chip(key[:4], key[5:9], chip) is None})


if __name__ == "__main__":
    first, second = sys.argv[1:] or (PCI_IDS, AMDGPU_IDS)
    written = devices(read_source(first), read_source(second))
    (HERE / "devices.txt").write_text(written, encoding="utf-8")
    for row in unknown_chips(written):
        sys.stdout.write(f"no row in chips.toml: {row}\n")
