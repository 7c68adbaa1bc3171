"""Disk and RAM: what the download, the image and loading the model need."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import by_hand, cannot_determine, command, error, hardware, info, warning
from checks.rules.gpu.card import GIB
from checks.rules.session import in_container

GB = 1e9
# Mistral 7B in safetensors, as downloaded; loading needs the same in RAM and swap
MODEL = 14.5 * GB
# training environment with CUDA or ROCm wheels
ENVIRONMENT = 10 * GB
# image, model and outputs
COMFORTABLE = 60 * GB
# the environment for the CPU and SmolLM2, with some space to work
WITHOUT_CARD = 6 * GB
FEW_INODES = 200_000
# a kernel with an initrd that contains the NVIDIA modules, twice
BOOT_ROOM = 0.3 * GB
FOREIGN = ("ntfs", "ntfs3", "fuseblk", "exfat", "vfat", "nfs", "nfs4", "cifs", "smb3")


@check(
    "resources.disk",
    "There is enough disk space for model, environment and runs",
    about="Mistral 7B is a download of 14.5 GB, the training environment needs about 10 GB, an image up to 40 GB, and "
    "outputs some more. Without a card only 6 GB for the small model are needed. Inodes count too: an environment has "
    "some hundred thousand files.",
    by_hand="Run `df -h ~ /var/lib/docker` and `docker system df`. Free space with `docker system prune` and `sudo "
    "apt-get clean`, or use another disk: GPU_SETUP_HOME=/big/disk/gpu-setup.",
)
def disk(host: Host, catalogue: Catalogue) -> Verdict:
    if host.resources.disks is None:
        return cannot_determine(
            host, "how much disk space is free", ("disk", "statvfs", "/proc/mounts"), "Run the doctor on the machine."
        )
    card = bool(cards.training(host, catalogue))
    needed, wanted = (MODEL + ENVIRONMENT, COMFORTABLE) if card else (WITHOUT_CARD, WITHOUT_CARD)
    findings: list[Finding] = []
    shown: list[str] = []
    seen_before: set[tuple[int, int | None]] = set()
    for row in host.resources.disks:
        if row.purpose not in ("home", "state", "cache", "docker") or row.free is None:
            continue
        if row.purpose == "docker" and (host.docker.kind is None or not card):
            continue
        # home and state are usually on one file system: report it once
        if (row.free, row.total) in seen_before:
            continue
        seen_before.add((row.free, row.total))
        shown.append(f"{row.path} {row.free / GB:.0f} GB")
        fix = by_hand("Free space, or put the tool's data on another disk: GPU_SETUP_HOME=/big/disk/gpu-setup.")
        if row.free < needed and row.purpose != "docker":
            why = f"Environment and model need {needed / GB:.0f} GB."
            seen = [(f"file system of {row.path}", f"{row.free / GB:.1f} GB free")]
            findings.append(error(row.path, f"Only {row.free / GB:.1f} GB are free for {row.path}.", why, seen, fix))
        elif row.free < (40 * GB if row.purpose == "docker" else wanted):
            why = "Image, model and the outputs of some runs need up to 60 GB."
            seen = [(f"file system of {row.path}", f"{row.free / GB:.1f} GB free")]
            findings.append(
                warning(
                    row.path, f"{row.free / GB:.0f} GB are free for {row.path}: this may not be enough.", why, seen, fix
                )
            )
        if row.inodes_free is not None and row.inodes_free < FEW_INODES and row.fstype not in ("btrfs", "overlay"):
            findings.append(
                warning(
                    row.path,
                    f"Only {row.inodes_free} inodes are free for {row.path}.",
                    "An environment has some hundred thousand files: `No space left on device` although space is free.",
                    [(f"file system of {row.path}", f"{row.inodes_free} inodes free")],
                    by_hand("Delete folders with many small files (caches, old environments, docker system prune)."),
                )
            )
    if findings:
        return tuple(findings)
    return Ok("Free: " + ", ".join(shown) + ".") if shown else Unknown("Cannot determine how much disk space is free.")


# by default WSL gets half of the computer's memory (learn.microsoft.com/windows/wsl/wsl-config)
_MEMORY_OF_WSL = (
    "WSL gets half of the computer's memory. In Windows write [wsl2] with lines `memory=24GB` and `swap=16GB` (as the "
    "computer has) to the file .wslconfig in your user folder, then run `wsl --shutdown`."
)


@check(
    "resources.memory",
    "RAM and swap are large enough to load the model",
    about="Loading Mistral 7B needs 14.5 GB (13.5 GiB) of memory; with less than 16 GB of RAM and swap together the "
    "kernel kills the run (`Killed`, exit status 137). In a container its memory limit counts. Without a card only 3 "
    "GB are needed.",
    by_hand="Add swap: `sudo fallocate -l 16G /swapfile2`, `sudo chmod 600 /swapfile2`, `sudo mkswap /swapfile2`, "
    "`sudo swapon /swapfile2`, and a line in /etc/fstab.",
)
def memory(host: Host, catalogue: Catalogue) -> Verdict:
    total = host.resources.memory_total
    if total is None:
        return cannot_determine(host, "how much memory there is", ("meminfo",), "Make /proc readable.")
    swap = host.resources.swap_total or 0
    limit = host.resources.cgroup_memory_max
    inside = limit is not None and limit < total
    room = min(total + swap, limit) if limit is not None and inside else total + swap
    card = bool(cards.training(host, catalogue))
    # 16 GB of memory are reported as 15.5 to 16.5; the kernel reserves the rest
    wanted, needed = (15.2 * GB, 8 * GB) if card else (3 * GB, 1.5 * GB)
    seen: list[tuple[str, object]] = [
        ("/proc/meminfo", f"MemTotal {total / GIB:.1f} GiB, SwapTotal {swap / GIB:.1f} GiB")
    ]
    if inside and limit is not None:
        seen.append(("memory.max", f"{limit / GIB:.1f} GiB"))
    if room >= wanted:
        return Ok(f"{total / GIB:.1f} GiB of RAM and {swap / GIB:.1f} GiB of swap.")
    return (
        (error if room < needed else warning)(
            "memory",
            f"RAM and swap together are {room / GIB:.1f} GiB; loading the model needs {wanted / GIB:.1f} GiB.",
            "The kernel kills the run while the model loads (`Killed`, exit status 137).",
            seen,
            by_hand("Give the container more memory (--memory).")
            if inside
            else by_hand(_MEMORY_OF_WSL)
            if host.wsl is not None
            else hardware("Add RAM or swap: gpu-setup doctor --explain resources.memory."),
        ),
    )


@check(
    "resources.oom-killer",
    "No user-space OOM killer threatens the training run",
    about="earlyoom and systemd-oomd kill large programs before the RAM is full. Ubuntu's desktop runs systemd-oomd, "
    "which reacts to memory pressure and swap and does not count here; earlyoom reacts when 10 % of the RAM is free, "
    "which loading a model reaches on machines with less than 32 GB.",
    by_hand="Run `sudo systemctl stop earlyoom` before the run, or start earlyoom with `--avoid python`.",
    needs=(needs.CARD,),
)
def oom_killer(host: Host, catalogue: Catalogue) -> Verdict:
    killers = host.resources.oom_killers
    if killers is None:
        return cannot_determine(
            host, "whether earlyoom or systemd-oomd is running", ("oom", "/run/systemd"), "Make /run/systemd readable."
        )
    total = host.resources.memory_total or 0
    early = [name for name in killers if "earlyoom" in name]
    if early and total < 32 * GB:
        return (
            warning(
                early[0],
                "earlyoom is running and may kill the training run.",
                "It kills the largest program when 10 % of the RAM is free, which loading the model reaches.",
                [("active units", ", ".join(killers)), ("/proc/meminfo", f"MemTotal {total / GIB:.1f} GiB")],
                command("Stop earlyoom for the run.", "systemctl", "stop", "earlyoom", sudo=True),
            ),
        )
    return Ok(
        f"{', '.join(killers)} is running; with this much RAM it does not react."
        if killers
        else "No OOM killer is running."
    )


@check(
    "resources.oom-kills",
    "The kernel has not killed a training program (out of memory)",
    about="`Out of memory: Killed process …` or `Memory cgroup out of memory` in the kernel log: a program was killed "
    "because the memory was full. Only Python and other likely training programs are reported.",
    by_hand="`sudo journalctl -k -b | grep -i 'killed process'`. Add swap or RAM, use a smaller batch, or raise the "
    "container's memory limit.",
    causes=("resources.memory",),
)
def oom_kills(host: Host, catalogue: Catalogue) -> Verdict:
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the kernel killed a program because the memory was full")
    pattern = (
        r"(?:[Oo]ut of memory|oom_reaper).*?(?:Killed|reaped) process \d+ \((python[\d.]*|pt_\w+|axolotl|accelerate)\)"
    )
    lines = kernel_log.matching_lines(host.kernel.log, "process", pattern)
    if not lines:
        return Ok("No training program was killed because the memory was full since boot.")
    return (
        warning(
            lines[-1][1][1],
            f"The kernel killed {lines[-1][1][1]} because the memory was full.",
            "While it is loaded, a model needs as much memory as its files are large.",
            kernel_log.quote(line for line, _ in lines),
            by_hand("Add swap or RAM, or use a smaller batch: gpu-setup doctor --explain resources.memory."),
        ),
    )


@check(
    "resources.shm",
    "The container has enough shared memory",
    about="PyTorch's data workers pass batches through /dev/shm; with a container's default of 64 MiB they fail with "
    "`Bus error`. Checked only inside a container.",
    by_hand="Start the container with `--ipc=host` or `--shm-size 8g`.",
)
def shm(host: Host, catalogue: Catalogue) -> Verdict:
    if not in_container(host):
        return Skip("Not a container.")
    size = host.resources.shm_total
    if size is None:
        return Unknown("Cannot determine the size of /dev/shm.")
    if size >= 1 * GB:
        return Ok(f"/dev/shm has {size / GIB:.1f} GiB.")
    return (
        (warning if cards.training(host, catalogue) else info)(
            "/dev/shm",
            f"/dev/shm has only {size / 2**20:.0f} MiB.",
            "Data workers fail with `Bus error` when a batch does not fit.",
            [("/dev/shm", f"{size / 2**20:.0f} MiB")],
            by_hand("Start the container with --ipc=host or --shm-size 8g."),
        ),
    )


@check(
    "resources.noexec",
    "No folder that training needs is mounted noexec",
    about="Triton compiles and loads libraries in the temporary folder and in its cache; pip builds there too. On a "
    "mount with noexec this fails with `failed to map segment from shared object`.",
    by_hand="Set `TMPDIR` to a folder on a disk without noexec, or remount: `sudo mount -o remount,exec /tmp`.",
)
def noexec(host: Host, catalogue: Catalogue) -> Verdict:
    if host.resources.disks is None:
        return cannot_determine(
            host, "how the temporary folder is mounted", ("/proc/mounts", "/tmp"), "Make /proc readable."
        )
    noexec_rows = [
        row for row in host.resources.disks if row.purpose in ("tmp", "home", "state", "cache") and row.noexec
    ]
    if not noexec_rows:
        return Ok("No folder that training needs is mounted noexec.")
    return tuple(
        warning(
            row.path,
            f"{row.path} is mounted noexec.",
            "Triton cannot load what it compiles there, and pip cannot build.",
            [("/proc/mounts", f"{row.path}: noexec")],
            by_hand("Set TMPDIR (and TRITON_CACHE_DIR, GPU_SETUP_HOME) to a folder on another disk."),
        )
        for row in noexec_rows
    )


@check(
    "resources.file-system",
    "The data are on a Linux file system",
    about="Environments need links and permissions, checkpoints need fast writes. NTFS, exFAT and network file systems "
    "do not offer all of these: environments break, or loading is very slow. From the mounts of the home and data "
    "folders.",
    by_hand="Set GPU_SETUP_HOME and HF_HOME to a folder on ext4, xfs or btrfs.",
)
def file_system(host: Host, catalogue: Catalogue) -> Verdict:
    rows = [row for row in host.resources.disks or () if row.purpose in ("home", "state", "cache") and row.fstype]
    if not rows:
        return Unknown("Cannot determine the file system of the home folder.")
    foreign = [row for row in rows if (row.fstype or "") in FOREIGN]
    if not foreign:
        return Ok(", ".join(dict.fromkeys(str(row.fstype) for row in rows)) + ".")
    return tuple(
        warning(
            row.path,
            f"{row.path} is on {row.fstype}.",
            "Environments and checkpoints need links, permissions and fast writes that it does not have.",
            [("/proc/mounts", f"{row.path}: {row.fstype}")],
            by_hand("Set GPU_SETUP_HOME to a folder on ext4, xfs or btrfs."),
        )
        for row in foreign
    )


@check(
    "resources.boot-space",
    "/boot has room for the next kernel",
    about="A separate /boot of 500 MB to 1 GB fills up with old kernels; the next update then installs a kernel "
    "without a complete initrd, which does not boot. At least twice the size of the largest initrd, and at least 300 "
    "MB, should be free. Checked only if /boot is a separate file system.",
    by_hand="`sudo apt-get autoremove` removes old kernels; keep the running kernel and one more.",
    needs=(needs.CARD,),
)
def boot_space(host: Host, catalogue: Catalogue) -> Verdict:
    boot = next((row for row in host.resources.disks or () if row.purpose == "boot"), None)
    if boot is None or boot.free is None or boot.total is None:
        return Unknown("Cannot determine the free space in /boot.")
    if boot.total > 8 * GB:
        return Ok("/boot is not a separate small file system.")
    largest = max((size for _, size in host.kernel.initrds or ()), default=0)
    wanted = max(2 * largest, BOOT_ROOM)
    if boot.free >= wanted:
        return Ok(f"{boot.free / 1e6:.0f} MB are free in /boot.")
    return (
        warning(
            "/boot",
            f"Only {boot.free / 1e6:.0f} MB are free in /boot.",
            "A kernel's initrd with GPU modules needs more than 100 MB, twice that while it is written.",
            [
                ("file system of /boot", f"{boot.free / 1e6:.0f} of {boot.total / 1e6:.0f} MB free"),
                ("largest /boot/initrd.img-*", f"{largest / 1e6:.0f} MB; needed {wanted / 1e6:.0f} MB"),
            ],
            command("Remove old kernels (read the list before you confirm).", "apt-get", "autoremove", sudo=True),
        ),
    )
