"""Ubuntu 24.04 as it is after the installer: release, kernels, packages, apt's configuration, people, disks."""

from __future__ import annotations

from tests.machines.hardware import HWE, Hardware, Kernel
from tests.machines.synthetic import Recording

RENDER = 992
DOCKER = 984
GIB = 1 << 30
SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def ubuntu(
    machine: Recording,
    *,
    point: str,
    kernels: tuple[Kernel, ...],
    hardware: Hardware,
    secure_boot: bool | None,
    desktop: bool = True,
    groups: tuple[str, ...] = (),
    cmdline: str = "quiet splash",
    encrypted: bool = False,
) -> None:
    """The kernels are oldest first; the last one runs, and GRUB takes it again. `secure_boot` None: a BIOS."""
    running = kernels[-1]
    machine.seat, machine.release = desktop, running.release
    release_file(machine, point)
    _kernels(machine, running, kernels, cmdline)
    _hardware(machine, hardware, secure_boot)
    apt(machine)
    people(machine, groups)
    _disks(machine, encrypted)
    for name, version in (
        ("linux-firmware", "20240318.git3b128b60-0ubuntu2.27"),
        ("libdrm-amdgpu1", "2.4.125-1ubuntu0.1~24.04.1"),
        ("mokutil", "0.6.0-2build3"),
        ("python3", "3.12.3-0ubuntu2.1"),
        ("python3.12", "3.12.3-1ubuntu0.13"),
        ("shim-signed", "1.58+15.8-0ubuntu1"),
        ("ubuntu-drivers-common", "1:0.9.7.6ubuntu3.4"),
        ("unattended-upgrades", "2.9.1+nmu4ubuntu1"),
    ):
        machine.package(name, version)
    machine.program("/usr/bin/python3", "python3.12", 8021824)
    machine.run(
        ("ldconfig", "-p"),
        "1 libs found in cache `/etc/ld.so.cache'\n\tlibc.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libc.so.6\n",
    )
    machine.listing(
        "/run/systemd/units", "invocation:systemd-journald.service", "invocation:unattended-upgrades.service"
    )
    if desktop:
        machine.link("/etc/systemd/system/display-manager.service", "/usr/lib/systemd/system/gdm3.service")
        machine.link("/usr/lib/systemd/system/default.target", "graphical.target")
        machine.listing("/run/systemd/units", "invocation:gdm.service", "invocation:systemd-oomd.service")
        machine.package("ubuntu-desktop-minimal", "1.539.2")
        machine.package("gdm3", "46.2-1ubuntu1~24.04.6")
    else:
        machine.link("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")
        machine.listing("/run/systemd/units", "invocation:ssh.service")
        machine.package("ubuntu-server", "1.539.2")
        machine.package("openssh-server", "1:9.6p1-3ubuntu13.14")


def release_file(machine: Recording, point: str) -> None:
    machine.file(
        "/etc/os-release",
        f'PRETTY_NAME="Ubuntu {point} LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\n'
        f'VERSION="{point} LTS (Noble Numbat)"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n'
        'HOME_URL="https://www.ubuntu.com/"\nUBUNTU_CODENAME=noble\nLOGO=ubuntu-logo\n',
    )


def _kernels(machine: Recording, running: Kernel, kernels: tuple[Kernel, ...], cmdline: str) -> None:
    machine.file("/proc/sys/kernel/arch", "x86_64\n")
    machine.file("/proc/sys/kernel/osrelease", running.release + "\n")
    machine.file("/proc/sys/kernel/version", f"{running.banner} Thu Oct 15 12:00:00 UTC 2026\n")
    machine.file("/proc/sys/kernel/random/boot_id", "0b5a7c1e-2f64-4d38-9a51-6c0de1f2a3b4\n")
    machine.file(
        "/proc/version",
        f"Linux version {running.release} (buildd@lcy02-amd64-079) (x86_64-linux-gnu-gcc-13 "
        f"(Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0, GNU ld (GNU Binutils for Ubuntu) 2.42) "
        f"{running.banner} Thu Oct 15 12:00:00 UTC 2026\n",
    )
    root = "root=UUID=5f0c2b7a-9d1e-4c35-8a64-2e7f1b903c58 ro"
    machine.file("/proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-{running.release} {root} {cmdline} vt.handoff=7\n")
    machine.file("/proc/uptime", "5423.17 81234.05\n")
    machine.file(
        "/etc/default/grub", 'GRUB_DEFAULT=0\nGRUB_TIMEOUT_STYLE=hidden\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX=""\n'
    )
    machine.unreadable["/boot/grub/grub.cfg"] = {"reason": "denied", "detail": "Permission denied"}
    for kernel in kernels:
        release = kernel.release
        machine.node(f"/boot/vmlinuz-{release}", "file", 0o600, size=15 << 20)
        machine.node(f"/boot/initrd.img-{release}", "file", 0o644, size=76 << 20)
        machine.listing("/boot", f"System.map-{release}", f"config-{release}", "grub")
        machine.listing("/lib/modules", release)
        machine.listing(f"/lib/modules/{release}", "build", "kernel", "modules.dep")
        machine.listing(f"/lib/modules/{release}/kernel", "drivers")
        for driver in ("amd/amdgpu/amdgpu", "nouveau/nouveau"):
            path = f"/lib/modules/{release}/kernel/drivers/gpu/drm/{driver}.ko.zst".rsplit("/", 1)
            machine.listing(path[0], path[1])
        base = release.removesuffix(f"-{kernel.kind}")
        series = f"hwe-{release[: release.index('.', 2)]}" if kernel.meta == HWE else kernel.kind
        headers = f"linux-{'' if series == 'generic' else series + '-'}headers-{base}"
        machine.listing("/usr/src", f"linux-headers-{release}", headers)
        for name in ("image", "modules", "modules-extra", "headers"):
            machine.package(f"linux-{name}-{release}", kernel.version)
    machine.link("/boot/vmlinuz", f"vmlinuz-{kernels[-1].release}")
    machine.link("/boot/initrd.img", f"initrd.img-{kernels[-1].release}")
    newest = kernels[-1]
    for name in ("linux", "linux-image", "linux-headers"):
        machine.package(f"{name}-{newest.meta}", newest.version)


def _hardware(machine: Recording, hardware: Hardware, secure_boot: bool | None) -> None:
    for name, value in (
        ("sys_vendor", hardware.vendor),
        ("product_name", hardware.product),
        ("board_vendor", hardware.vendor),
        ("board_name", hardware.board),
        ("bios_vendor", hardware.bios),
    ):
        machine.file(f"/sys/class/dmi/id/{name}", value + "\n")
    cpu_and_memory(machine, hardware)
    if secure_boot is not None:
        _secure_boot(machine, secure_boot)


def cpu_and_memory(machine: Recording, hardware: Hardware) -> None:
    """CPU and memory, as /proc shows them."""
    maker = "AuthenticAMD" if "AMD" in hardware.cpu else "GenuineIntel"
    flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr sse sse2 avx avx2"
    flags += " hypervisor" if hardware.virtual else ""
    machine.file(
        "/proc/cpuinfo",
        "\n".join(
            f"processor\t: {n}\nvendor_id\t: {maker}\nmodel name\t: {hardware.cpu}\nflags\t\t: {flags}\n"
            for n in range(hardware.cores)
        ),
    )
    total = hardware.memory * (GIB >> 10) - (700 << 10)
    machine.file(
        "/proc/meminfo",
        f"MemTotal:       {total} kB\nMemFree:        {total * 7 // 10} kB\nMemAvailable:   {total * 8 // 10} kB\n"
        f"SwapTotal:      {hardware.swap * GIB >> 10} kB\nSwapFree:       {hardware.swap * GIB >> 10} kB\n",
    )


def _secure_boot(machine: Recording, secure_boot: bool) -> None:
    # an EFI variable's file begins with four bytes of attributes (here: boot service and runtime access)
    machine.file(f"/sys/firmware/efi/efivars/{SECURE_BOOT}", b"\x06\x00\x00\x00" + bytes([secure_boot]))
    machine.file(
        "/sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n" if secure_boot else "[none] integrity confidentiality\n",
    )
    if secure_boot:
        machine.run(
            ("mokutil", "--list-enrolled"),
            "[key 1]\nSHA1 Fingerprint: 76:a0:92:06:58:00:bf:37:69:01:c3:72:cd:55:a9:0e:1f:de:d2:e0\nCertificate:\n"
            "        Subject: C=GB, ST=Isle of Man, L=Douglas, O=Canonical Ltd., "
            "CN=Canonical Ltd. Master Certificate Authority\n",
        )
        machine.run(("mokutil", "--list-new"), "")


def apt(machine: Recording) -> None:
    machine.file(
        "/etc/apt/sources.list.d/ubuntu.sources",
        "Types: deb\nURIs: http://archive.ubuntu.com/ubuntu/\nSuites: noble noble-updates noble-backports\n"
        "Components: main restricted universe multiverse\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n\n"
        "Types: deb\nURIs: http://security.ubuntu.com/ubuntu/\nSuites: noble-security\n"
        "Components: main restricted universe multiverse\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n",
    )
    machine.file("/etc/apt/sources.list", "# Ubuntu sources have moved to /etc/apt/sources.list.d/ubuntu.sources\n")
    machine.file(
        "/etc/apt/preferences.d/ubuntu-pro-esm-apps",
        "# Written by ubuntu-advantage-tools\n\nPackage: *\n"
        "Pin: release o=UbuntuESMApps, n=noble-apps-updates\nPin-Priority: never\n",
    )
    machine.file(
        "/etc/apt/apt.conf.d/20auto-upgrades",
        'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n',
    )
    machine.file(
        "/etc/apt/apt.conf.d/50unattended-upgrades",
        'Unattended-Upgrade::Allowed-Origins {\n\t"${distro_id}:${distro_codename}";\n'
        '\t"${distro_id}:${distro_codename}-security";\n};\n\n'
        'Unattended-Upgrade::Package-Blacklist {\n\t// "linux-";\n};\n',
    )
    machine.file("/proc/locks", "1: POSIX  ADVISORY  WRITE 1189 00:1a:1423 0 EOF\n")
    for lock in ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock"):
        machine.node(lock, "file", 0o640)
    machine.listing("/var/lib/dpkg/updates")


def people(machine: Recording, groups: tuple[str, ...]) -> None:
    numbers = {
        "adm": 4, "cdrom": 24, "sudo": 27, "audio": 29, "dip": 30, "video": 44, "plugdev": 46, "users": 100,
        "lpadmin": 114, "docker": DOCKER, "render": RENDER, "alex": 1000,
    }  # fmt: skip
    belongs = ("adm", "cdrom", "sudo", "dip", "plugdev", "users", "lpadmin", *groups)
    machine.file(
        "/etc/group",
        "root:x:0:\n"
        + "".join(
            f"{name}:x:{number}:{'alex' if name in belongs else ''}\n"
            for name, number in numbers.items()
            if name != "docker" or "docker" in groups
        ),
    )
    machine.file("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nalex:x:1000:1000:Alex:/home/alex:/bin/bash\n")
    machine.session = {
        "uid": 1000,
        "user": "alex",
        "gids": sorted({1000, *(numbers[name] for name in belongs)}),
        "environ": {
            "HOME": "/home/alex",
            "LANG": "en_GB.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "USER": "alex",
        },
    }


def _disks(machine: Recording, encrypted: bool) -> None:
    def space(path: str, total: int, free: int, fstype: str, *options: str) -> None:
        machine.space[path] = {
            "free": free,
            "total": total,
            "inodes_free": 0 if fstype == "vfat" else total >> 14,
            "fstype": fstype,
            "options": list(options),
        }

    space("/", 983 * GIB, 871 * GIB, "ext4", "rw", "relatime")
    space("/boot/efi", GIB, GIB - (7 << 20), "vfat", "rw", "relatime")
    space("/dev/shm", 16 * GIB, 16 * GIB, "tmpfs", "rw", "nosuid", "nodev")
    if encrypted:
        space("/boot", 1792 << 20, 1400 << 20, "ext4", "rw", "relatime")
        machine.file("/etc/crypttab", "dm_crypt-0 UUID=e4b1c0de-17aa-4f6b-9c22-7d5508ab31f0 none luks\n")
