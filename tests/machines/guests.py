"""Systems that do not stand on the metal: WSL, containers, and what a virtual machine's host does with a card."""

from __future__ import annotations

from tests.machines.cards import MICROSOFT, Card, Slot
from tests.machines.devices import pci
from tests.machines.hardware import Hardware
from tests.machines.synthetic import Recording
from tests.machines.ubuntu import GIB, apt, cpu_and_memory, people, release_file


def wsl(machine: Recording, hardware: Hardware, *, point: str) -> None:
    """Ubuntu 24.04 in WSL 2: Microsoft's kernel without modules, Windows' driver through /dev/dxg."""
    release = "6.6.87.2-microsoft-standard-WSL2"
    machine.seat, machine.release = False, release
    release_file(machine, point)
    _kernel(
        machine, release, "(root@439a258ad544) (gcc (GCC) 11.2.0, GNU ld (GNU Binutils) 2.37)", "#1 SMP PREEMPT_DYNAMIC"
    )
    machine.file(
        "/proc/cmdline", "initrd=\\initrd.img WSL_ROOT_INIT=1 panic=-1 nr_cpus=16 hv_utils.timesync_implicit=1\n"
    )
    machine.file("/proc/uptime", "8123.50 120311.10\n")
    cpu_and_memory(machine, hardware)
    people(machine, ())
    apt(machine)
    _python(machine)
    machine.package("ubuntu-wsl", "1.539.2")
    machine.package("unattended-upgrades", "2.9.1+nmu4ubuntu1", arch="all")
    machine.node("/dev/dxg", "char", 0o666)
    machine.listing("/usr/lib/wsl/lib", "libcuda.so", "libdxcore.so", "libd3d12.so", "nvidia-smi")
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        machine.node(f"/usr/lib/wsl/lib/{name}", "file", 0o555, size=250 << 10)
    pci(machine, MICROSOFT, Slot((), "2461:00:00.0", 0), None)
    machine.link("/usr/lib/systemd/system/default.target", "graphical.target")
    machine.listing("/run/systemd/units", "invocation:systemd-journald.service")
    space(machine, "/", 1006, 912, "ext4")
    space(machine, "/dev/shm", 15, 15, "tmpfs")


def container(machine: Recording, release: str, hardware: Hardware, *, memory: int | None = None) -> None:
    """The training image's own Ubuntu in Docker, as root: the host's kernel and bus, nothing of its packages.

    `memory`: the container's limit in GiB.
    """
    machine.seat, machine.release, machine.log_open = False, release, False
    release_file(machine, "24.04.4")
    _kernel(machine, release, "(buildd@lcy02-amd64-079) (x86_64-linux-gnu-gcc-13)", "#35-Ubuntu SMP PREEMPT_DYNAMIC")
    machine.file("/proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-{release} root=UUID=5f0c2b7a-9d1e-4c35 ro quiet splash\n")
    machine.file("/proc/uptime", "91234.10 1234567.89\n")
    machine.file("/.dockerenv", "")
    cpu_and_memory(machine, hardware)
    people(machine, ())
    machine.session = {
        "uid": 0, "user": "root", "gids": [0],
        "environ": {"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    }  # fmt: skip
    apt(machine)
    del machine.files["/etc/apt/apt.conf.d/20auto-upgrades"], machine.files["/etc/apt/apt.conf.d/50unattended-upgrades"]
    _python(machine)
    machine.file("/proc/self/cgroup", "0::/\n")
    machine.file("/sys/fs/cgroup/memory.max", f"{memory * GIB}\n" if memory else "max\n")
    machine.fails(("journalctl", "-k", "-b", "-o", "short-monotonic", "--no-pager", "-q"), problem="absent")
    machine.fails(("dmesg",), rc=1, stderr="dmesg: read kernel buffer failed: Operation not permitted\n")
    machine.fails(("mokutil", "--list-enrolled"), problem="absent")
    machine.fails(("mokutil", "--list-new"), problem="absent")
    space(machine, "/", 983, 700, "overlay")


def _kernel(machine: Recording, release: str, builder: str, banner: str) -> None:
    machine.file("/proc/sys/kernel/arch", "x86_64\n")
    machine.file("/proc/sys/kernel/osrelease", f"{release}\n")
    machine.file("/proc/sys/kernel/random/boot_id", "4e1f7c1e-2f64-4d38-9a51-6c0de1f2a3b4\n")
    machine.file("/proc/version", f"Linux version {release} {builder} {banner} Thu Jun  5 18:30:46 UTC 2026\n")


def _python(machine: Recording) -> None:
    for name, version in (("python3", "3.12.3-0ubuntu2.1"), ("python3.12", "3.12.3-1ubuntu0.13")):
        machine.package(name, version)
    machine.program("/usr/bin/python3", "python3.12", 8021824)
    machine.run(
        ("ldconfig", "-p"),
        "1 libs found in cache `/etc/ld.so.cache'\n\tlibc.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libc.so.6\n",
    )


def space(machine: Recording, path: str, total: int, free: int, fstype: str) -> None:
    machine.space[path] = {
        "free": free * GIB, "total": total * GIB, "inodes_free": total << 16, "fstype": fstype,
        "options": ["rw", "relatime"],
    }  # fmt: skip


def reserved(machine: Recording, card: Card, slot: Slot) -> None:
    """A card kept for a virtual machine: its ids stand in modprobe.d, vfio-pci holds it."""
    ids = f"{card.vendor}:{card.device}"
    pci(machine, card, slot, "vfio-pci", boot=False, connected=())
    machine.file("/etc/modprobe.d/vfio.conf", f"options vfio-pci ids={ids}\nsoftdep nvidia pre: vfio-pci\n")
    machine.modules += ["vfio_pci", "vfio_iommu_type1", "vfio"]
    machine.log += [
        "VFIO - User Level meta-driver version: 0.3",
        f"vfio_pci: add [{ids}[ffffffff:ffffffff]] class 0x000000/00000000",
        f"vfio-pci {slot.address}: vgaarb: deactivate vga console",
    ]
