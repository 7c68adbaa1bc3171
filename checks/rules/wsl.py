"""WSL, Linux under Windows: whether Windows gives it the card, and what ROCm needs there."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host, Wsl
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, by_hand, cannot_determine, command, error, warning
from checks.rules.installed import packages

LIBRARIES = "/usr/lib/wsl/lib"
_NVML = "libnvidia-ml.so.1"
# NVML_ERROR_OPERATING_SYSTEM (nvml.h)
_BLOCKED = "blocked by the operating system"
# from this release on librocdxg is used without the variable (ROCm/librocdxg#34, 2026-06-23)
_DETECTS_BY_ITSELF = (7, 13)
# the first release whose runtime loads librocdxg (its README; 6.4.2: ROCm/legacy-rocm-build#5106)
_FIRST_WITH_LIBRARY = (7, 2)
_DETECTION = "HSA_ENABLE_DXG_DETECTION"
# ROCm's way to the card up to 7.1, which replaced its runtime (ROCm/legacy-rocm-build discussion 5411)
_OLDER_WAY = ("hsa-runtime-rocr4wsl-amdgpu", "rocm-hsa-wsl")
# packages with libraries of NVIDIA's Linux driver, besides those of its kernel module
_DRIVER_LIBRARIES = r"(?:libnvidia-(?:compute|ml)|nvidia-utils|libcuda1)(?:-[0-9]{3}.*)?|cuda-drivers.*"

_RESTART = "run `wsl --update` and `wsl --shutdown`, and open WSL again"
UPDATE_WINDOWS = f"In Windows: install NVIDIA's current driver, {_RESTART}"


def linux_driver(host: Host) -> tuple[tuple[Seen, ...], tuple[str, ...]]:
    """A Linux driver's libraries in WSL, as evidence, and the packages to remove: they replace Windows' libraries."""
    found = [row.name for row in packages(host, "libnvidia-", "nvidia-utils", "libcuda1", "cuda-drivers")]
    names = tuple(name for name in found if re.fullmatch(_DRIVER_LIBRARIES, name.partition(":")[0]))
    files = [(path, version) for path, version in host.nvidia.libcuda_versions or () if not path.startswith(LIBRARIES)]
    packaged = [("/var/lib/dpkg/status", name) for name in names[:4]]
    return (*packaged, *((path, f"libcuda.so.{version}") for path, version in files)), names


def without_card(host: Host) -> str | None:
    """Why there is no card in WSL, as a sentence; None on every other system."""
    wsl = host.wsl
    if wsl is None:
        return None
    if wsl.generation == 1:
        return "No GPU: this is WSL 1, which has none (see wsl.gpu). The CPU trains small models."
    if not wsl.dxg:
        return "No GPU: this is WSL, and it has no /dev/dxg (see wsl.gpu). The CPU trains small models."
    if _has_nvidia(host, wsl):
        return "This is WSL: NVIDIA's library from Windows is here, but it reports no card (see wsl.gpu)."
    return (
        "This is WSL: Windows shares a GPU (/dev/dxg), but no NVIDIA driver. NVIDIA: install the driver in Windows, "
        "then `wsl --shutdown`. AMD: ROCm needs librocdxg (see --explain wsl.rocm); gpu-setup trains on the CPU there."
    )


@check(
    "wsl.gpu",
    "Windows gives WSL the NVIDIA card",
    about="WSL 2 reaches the card through /dev/dxg and the libraries in /usr/lib/wsl/lib, which belong to the driver "
    "in Windows. If NVML does not answer there, the fault is in Windows: the card is in TCC or data-centre mode (WSL "
    "needs WDDM), the driver or WSL is old, or Windows was updated and WSL still runs. WSL 1 has no GPU.",
    by_hand="In Windows: `nvidia-smi` must list the card with WDDM, not TCC (`nvidia-smi -g 0 -dm 0` as administrator "
    "changes it; needs a reboot). Install the current driver, then `wsl --update`, `wsl --shutdown`. WSL 1: `wsl "
    "--list --verbose` shows it, `wsl --set-version NAME 2` changes it. No /dev/dxg: Windows 11 or Windows 10 21H2, "
    "no `[gpu] enabled=false` in /etc/wsl.conf, Microsoft's kernel (no `kernel=` in .wslconfig); in a virtual machine "
    "the GPU must be passed to Windows first.",
    needs=(needs.WSL,),
    causes=("os.virtual",),
)
def gpu(host: Host, catalogue: Catalogue) -> Verdict:
    wsl = host.wsl
    assert wsl is not None
    if wsl.generation == 1:
        return (_first_generation(host),)
    if wsl.dxg is None:
        return cannot_determine(host, "whether WSL has a GPU", ("/dev",), "Make /dev readable.")
    if not wsl.dxg:
        return (_no_device(wsl),)
    if not _has_nvidia(host, wsl):
        return Skip("Windows shares a GPU, but provides no NVIDIA driver to WSL.")
    found = cards.training(host, catalogue, cards.NVIDIA)
    # NVML can list a card that it gets no handle for
    failed = [gpu.problem for gpu in host.nvidia.nvml or () if gpu.problem]
    problem = host.nvidia.nvml_problem or next(iter(failed), None)
    if found and problem is None:
        if host.nvidia.nvml_cuda is None:
            return (_no_cuda(host, wsl),)
        names = ", ".join(cards.subject(card, catalogue) for card in found)
        return Ok(f"NVML answers through Windows' driver {host.nvidia.nvml_driver or ''}: {names}.")
    if problem is None:
        return (_no_cards(wsl),)
    if problem in ("no-binding", "timed-out"):
        return Unknown(f"Cannot determine whether the card answers: NVML was not queried to its end ({problem}).")
    return (_no_answer(host, wsl, problem),)


def _has_nvidia(host: Host, wsl: Wsl) -> bool:
    return _NVML in (wsl.libraries or ()) and host.nvidia.nvml_problem != "absent"


def _evidence(wsl: Wsl, *more: Seen) -> list[Seen]:
    held = [name for name in wsl.libraries or () if name.startswith(("libdxcore", "libcuda.so.1", "libnvidia-ml"))]
    return [("/dev", "dxg" if wsl.dxg else "no dxg"), (LIBRARIES, ", ".join(held) or "no GPU libraries"), *more]


def _first_generation(host: Host) -> Finding:
    return error(
        "WSL 1",
        "This is WSL 1, which has no GPU.",
        "Only WSL 2 has a Linux kernel with /dev/dxg; WSL 1 translates system calls and reaches no card.",
        [("/proc/sys/kernel/osrelease", host.kernel.release)],
        by_hand("In Windows: `wsl --list --verbose` shows this system's NAME; then `wsl --set-version NAME 2`."),
    )


def _no_device(wsl: Wsl) -> Finding:
    if wsl.container:
        return warning(
            f"WSL, {wsl.container}",
            f"This {wsl.container} container in WSL has no /dev/dxg, so it has no GPU.",
            "A container gets the card only if it is started with it.",
            _evidence(wsl),
            by_hand("Start it with `--gpus all` (Docker), or with `--device /dev/dxg -v /usr/lib/wsl:/usr/lib/wsl`."),
        )
    return warning(
        "WSL",
        "This is WSL, and Windows gives it no GPU: /dev/dxg is missing.",
        "Windows has no GPU driver for WSL, WSL's GPU support is off, or WSL runs another kernel than Microsoft's.",
        _evidence(wsl),
        by_hand(
            f"In Windows: install the GPU vendor's current driver, {_RESTART}. If that is not enough: gpu-setup doctor "
            "--explain wsl.gpu."
        ),
    )


def _no_cards(wsl: Wsl) -> Finding:
    return error(
        "WSL",
        "NVML answers in WSL, but it lists no card.",
        "Windows' driver shows WSL only cards in WDDM mode that it supports.",
        _evidence(wsl, ("NVML", "0 cards")),
        by_hand(f"{UPDATE_WINDOWS}; `nvidia-smi` in Windows must list the card with WDDM, not TCC."),
    )


def _no_cuda(host: Host, wsl: Wsl) -> Finding:
    """nvidia-smi then shows `CUDA Version: ERR!` (microsoft/WSL#11589)."""
    shadowed, _ = linux_driver(host)
    return warning(
        "WSL",
        "NVML answers in WSL, but reports no CUDA version.",
        "The libcuda that is loaded does not fit the driver in Windows: CUDA programs find no card.",
        _evidence(wsl, ("NVML driver version", host.nvidia.nvml_driver), ("NVML CUDA version", "none"), *shadowed),
        by_hand(f"{UPDATE_WINDOWS}. Remove a Linux driver that is installed in WSL (see os.virtual)."),
    )


def _no_answer(host: Host, wsl: Wsl, problem: str) -> Finding:
    shadowed, _ = linux_driver(host)
    seen = _evidence(wsl, ("NVML", problem), *shadowed)
    if wsl.container:
        return error(
            f"WSL, {wsl.container}",
            f"NVML does not answer in this {wsl.container} container in WSL: {problem}.",
            "The container lacks a part of Windows' driver: /dev/dxg, or the libraries in /usr/lib/wsl.",
            seen,
            by_hand(
                "Outside, in WSL, `nvidia-smi` must work first, with a current NVIDIA container toolkit and without "
                "`no-cgroups = true` in /etc/nvidia-container-runtime/config.toml. Then start the container with "
                "`--gpus all`."
            ),
        )
    if shadowed:
        why = "A Linux driver's libraries are installed in WSL and are used instead of Windows' (see os.virtual)."
        fix: Fix = by_hand(
            "Remove them first (see os.virtual). If it remains: " + UPDATE_WINDOWS + ".", verify=("nvidia-smi",)
        )
    elif _BLOCKED in problem:
        why = (
            "Windows does not let WSL use the card: it is in TCC or data-centre mode (WSL needs WDDM), or the driver "
            "in Windows or WSL itself is too old."
        )
        fix = by_hand(
            f"{UPDATE_WINDOWS}. If `nvidia-smi` in Windows shows TCC for the card: `nvidia-smi -g 0 -dm 0` there as "
            "administrator, then reboot Windows; a data-centre driver that refuses this is replaced by NVIDIA's RTX "
            "Enterprise driver.",
            verify=("nvidia-smi",),
        )
    else:
        why = "In WSL the card's driver is the one in Windows; it does not answer, or does not fit the running WSL."
        fix = by_hand(UPDATE_WINDOWS + "; then reboot Windows.", verify=("nvidia-smi",))
    gpus = host.nvidia.nvml or ()
    of = f" for {sum(gpu.problem is not None for gpu in gpus)} of {len(gpus)} cards" if gpus else ""
    return error("WSL", f"This is WSL, and NVML does not answer{of}: {problem}.", why, seen, fix)


@check(
    "wsl.rocm",
    "ROCm in WSL reaches the AMD card",
    about="In WSL there is no amdgpu and no /dev/kfd. ROCm reaches the card through /dev/dxg with the library "
    "librocdxg, and up to 7.12 only if HSA_ENABLE_DXG_DETECTION=1 is set; the driver in Windows must support it. "
    "Checked where ROCm or PyTorch for ROCm is installed in WSL. gpu-setup cannot see an AMD card there (amd-smi "
    "does not work) and trains on the CPU.",
    by_hand="In Windows: AMD Software: Adrenalin Edition, current release, then `wsl --shutdown`. In WSL: ROCm 7.2 or "
    "newer, librocdxg (github.com/ROCm/librocdxg, package rocdxg-roct), `export HSA_ENABLE_DXG_DETECTION=1`, and no "
    "libhsa-runtime64-1 or libhsakmt1 from Ubuntu. Then `rocminfo` must list the card. AMD lists the cards for WSL "
    "at rocm.docs.amd.com, Radeon and Ryzen, WSL (an RX 6800 XT is not among them). If the card is not found, disable "
    "integrated graphics in Windows.",
    needs=(needs.WSL,),
)
def rocm(host: Host, catalogue: Catalogue) -> Verdict:
    wsl = host.wsl
    assert wsl is not None
    installed = [(row.path, row.version) for row in host.amd.rocm or ()]
    built = [(row.path, row.torch) for row in host.python.environments or () if row.torch_hip]
    if not (installed or built or wsl.rocdxg or host.person.environ.get(_DETECTION)):
        return Skip("No ROCm is installed in WSL.")
    if not wsl.dxg:
        return Skip("WSL has no /dev/dxg: see wsl.gpu.")
    seen: list[Seen] = [("/dev", "dxg"), *((path, version or "?") for path, version in installed)]
    seen += [(path, f"torch {version}") for path, version in built]
    older = packages(host, *_OLDER_WAY)
    if older:
        return Ok(f"ROCm reaches the card with {older[0].name}; gpu-setup cannot see it in WSL.")
    shadowing = packages(host, "libhsa-runtime64-1", "libhsakmt1")
    versions = [cards.numbers(version) for _, version in installed if version]
    by_itself = bool(versions) and min(versions) >= _DETECTS_BY_ITSELF
    switched_on = by_itself or host.person.environ.get(_DETECTION) == "1"
    seen.append(("environment", f"{_DETECTION}={host.person.environ.get(_DETECTION, '(not set)')}"))
    old = bool(versions) and max(versions) < _FIRST_WITH_LIBRARY
    missing = ["ROCm 7.2 or newer"] if old else []
    missing += [] if wsl.rocdxg else ["librocdxg"]
    missing += [] if switched_on else [f"{_DETECTION}=1"]
    seen.append(("librocdxg.so", "found" if wsl.rocdxg else "not found"))
    if missing:
        return (
            error(
                "ROCm in WSL",
                f"ROCm in WSL lacks {', '.join(missing)}, so it finds no card.",
                "This is WSL, with /dev/dxg, but no amdgpu and no /dev/kfd. ROCm reaches the card through /dev/dxg and "
                "librocdxg, with a driver in Windows that supports it.",
                seen,
                by_hand(
                    ("Install ROCm 7.2 or newer: not every release supports WSL. " if old else "")
                    + ("" if wsl.rocdxg else "Install librocdxg (github.com/ROCm/librocdxg, package rocdxg-roct). ")
                    + ("" if switched_on else f"Add `export {_DETECTION}=1` to ~/.bashrc and open a new shell. ")
                    + "In Windows: the current Adrenalin driver, then `wsl --shutdown`.",
                    verify=("rocminfo",),
                ),
            ),
        )
    if shadowing:
        return (
            error(
                "ROCm in WSL",
                f"Ubuntu's {shadowing[0].name} {shadowing[0].version} is loaded before ROCm's own runtime.",
                "Ubuntu's old runtime knows no WSL: `ROCk module is NOT loaded`.",
                [*seen, *(("/var/lib/dpkg/status", f"{row.name} {row.version}") for row in shadowing)],
                command(
                    "Remove Ubuntu's packages.",
                    *("apt-get", "remove", *(row.name for row in shadowing)),
                    sudo=True,
                    verify=("rocminfo",),
                ),
            ),
        )
    return Ok("ROCm and librocdxg are installed; gpu-setup cannot see an AMD card in WSL and trains on the CPU.")
