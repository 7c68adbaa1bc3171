#!/usr/bin/python3 -I
"""What the firmware, the boot loader and the kernel would do: choose a kernel, load the GPU's module if there is one
that may be loaded, and show the hardware in /sys, /proc and /dev as it then looks.

/opt/lab/hardware/free is the machine with the kernel's own drivers, /opt/lab/hardware/nvidia or …/amdgpu the same one
driven by a module that came with a package. Runs once in each boot, before anything of the tests does.
"""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

LAB = Path("/opt/lab")
SHOWN = Path("/run/lab")


def release():
    """What a person chose in the menu, once; else the boot loader's choice, if it is there; else the newest."""
    by_hand = LAB / "chosen"
    if by_hand.exists():
        kernel = by_hand.read_text()
        by_hand.unlink()
        return kernel
    names = "".join(f"{path.name.removeprefix('vmlinuz-')}\n" for path in Path("/boot").glob("vmlinuz-*"))
    there = subprocess.run(["sort", "-V"], input=names, capture_output=True, text=True).stdout.split()
    try:
        chosen = Path("/boot/grub/grub.cfg").read_text().partition("# starts: ")[2].split()
    except OSError:
        chosen = []
    return chosen[0] if chosen and chosen[0] in there else there[-1]


def module(kernel, name):
    """What the module that modprobe would take says of itself; None for the kernel's own or none at all."""
    top = Path("/lib/modules") / kernel
    for folder in ("updates/dkms", "kernel/nvidia-*"):
        for file in sorted(top.glob(f"{folder}/{name}.ko")):
            facts = dict(line.split("=", 1) for line in file.read_text().splitlines())
            if secure_boot() and facts["signed"] == "machine" and not (LAB / "firmware/enrolled").exists():
                return None
            return facts
    return None


def secure_boot():
    try:
        return (LAB / "firmware/state").read_text().strip() == "SecureBoot enabled"
    except OSError:
        return False


def show(kernel):
    drivers = {name: facts for name in ("nvidia", "amdgpu") if (facts := module(kernel, name))}
    chosen = next((name for name in drivers if (LAB / "hardware" / name).is_dir()), "free")
    shutil.copytree(LAB / "hardware" / chosen, SHOWN, symlinks=True, dirs_exist_ok=True)
    facts = drivers.get(chosen, {})
    for file in ("sys/module/nvidia/version", "proc/driver/nvidia/version", "sys/module/amdgpu/version"):
        place = SHOWN / file
        if place.exists():
            place.write_text(place.read_text().replace("@VERSION@", facts.get("version", "")))
    (SHOWN / "proc/sys/kernel").mkdir(parents=True, exist_ok=True)
    (SHOWN / "proc/sys/kernel/osrelease").write_text(kernel + "\n")
    for file in ("proc/version", "proc/cmdline"):
        place = SHOWN / file
        if place.exists():
            place.write_text(place.read_text().replace("@RELEASE@", kernel))


def mount():
    for folder in sorted((SHOWN / "sys").iterdir()):
        if Path("/sys", folder.name).is_dir():
            subprocess.run(["mount", "--bind", folder, f"/sys/{folder.name}"], check=True)
    for file in ("sys/kernel/osrelease", "version", "cpuinfo", "cmdline", "modules", "driver"):
        source, place = SHOWN / "proc" / file, Path("/proc") / file
        if source.exists() and place.exists():
            subprocess.run(["mount", "--bind", source, place], check=True)


def nodes():
    for path, found in json.loads((SHOWN / "nodes.json").read_text()).items():
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            # the null device under the card's name
            os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.chmod(place, found["mode"])
        os.chown(place, 0, found["gid"])


def main():
    show(release())
    mount()
    nodes()
    # what the tool is to see is a machine, not a container
    Path("/run/systemd/container").unlink(missing_ok=True)


main()
