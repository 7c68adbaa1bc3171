"""Variables and folders that change which GPU and which library a program finds."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards
from checks.rules.finding import by_hand, error, info, warning

# HIP honours CUDA's variable too
_NVIDIAS = ("CUDA_VISIBLE_DEVICES",)
_AMDS = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
# `RTX 4090` is one, `RTX 6000 Ada`, `RTX A6000` and `RTX PRO 6000` are not
_CONSUMER = r"(?:RTX|GTX) \d{3,4}\b(?! Ada)|TITAN"


@check(
    "runtime.visible-devices",
    "No variable hides the card",
    about="CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES choose cards. Empty or -1 hides all; "
    "an index or UUID that is not there hides everything from it on. Left over in shell files, /etc/environment or "
    "units they are a frequent reason for `no CUDA-capable device is detected`.",
    by_hand="`printenv | grep VISIBLE_DEVICES`, find it with `grep -rn VISIBLE_DEVICES ~/.bashrc ~/.profile "
    "/etc/environment /etc/profile.d ~/.config/environment.d`, remove it, and log in again.",
)
def visible_devices(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if not ours:
        return Skip(cards.none_of(host, catalogue))
    findings: list[Finding] = []
    seen: set[str] = set()
    for vendor, names in ((cards.NVIDIA, _NVIDIAS), (cards.AMD, _AMDS)):
        count = sum(card.vendor == vendor for card in ours)
        if vendor == cards.AMD and host.amd.nodes:
            count = max(count, len(host.amd.nodes))
        if vendor == cards.NVIDIA and host.nvidia.nvml:
            count = max(count, len(host.nvidia.nvml))
        if not any(card.vendor == vendor for card in ours):
            continue
        uuids = tuple(gpu.uuid for gpu in host.nvidia.nvml or () if gpu.uuid) if vendor == cards.NVIDIA else ()
        for name in names:
            value = host.person.environ.get(name)
            if value is None or name in seen:
                continue
            shown, of = _visible(value, count, uuids)
            if shown == of and of:
                continue
            seen.add(name)
            findings.append(_hides(name, value, shown))
    if findings:
        return tuple(findings)
    chosen = [f"{n}={host.person.environ[n]}" for n in dict.fromkeys((*_NVIDIAS, *_AMDS)) if n in host.person.environ]
    return Ok(f"{', '.join(chosen)} names cards that are there." if chosen else "No such variable is set.")


def _visible(value: str, count: int, uuids: tuple[str, ...]) -> tuple[int, int]:
    """How many of the entries count: the drivers stop at the first that is not a card."""
    entries = [entry.strip() for entry in value.split(",")] if value.strip() else []
    shown = 0
    for entry in entries:
        if not (_is_uuid(entry, uuids) if entry.startswith(("GPU-", "MIG-")) else _is_index(entry, count)):
            break
        shown += 1
    return shown, len(entries)


def _is_index(entry: str, count: int) -> bool:
    return entry.isdecimal() and int(entry) < count


def _is_uuid(entry: str, uuids: tuple[str, ...]) -> bool:
    """A UUID may be shortened. MIG instances, and AMD's UUIDs, cannot be compared with anything here."""
    return not uuids or entry.startswith("MIG-") or any(uuid.startswith(entry) for uuid in uuids)


def _hides(name: str, value: str, shown: int) -> Finding:
    return (warning if shown else error)(
        "environment",
        f"{name}={value!r} hides {'some cards' if shown else 'every card'}.",
        "Programs started from this session see only the cards named before the first entry that is not there.",
        [("environment", f"{name}={value}")],
        by_hand(f"Remove {name} from your shell's start files and /etc/environment; in this shell: unset {name}."),
    )


@check(
    "runtime.ld-library-path",
    "LD_LIBRARY_PATH leads to no wrong library",
    about="A folder `stubs` of the CUDA toolkit holds a libcuda.so that can only be linked against: found at run "
    "time, CUDA sees no device. cuda-compat's libcuda works on data-centre cards only and ends with error 804 on a "
    "GeForce. Other CUDA or ROCm folders there can shadow those that PyTorch brings; that is only said.",
    by_hand="`echo $LD_LIBRARY_PATH`, remove the folder from ~/.bashrc or /etc/environment. PyTorch's wheels need "
    "no LD_LIBRARY_PATH.",
)
def ld_library_path(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if not ours:
        return Skip(cards.none_of(host, catalogue))
    value = host.person.environ.get("LD_LIBRARY_PATH", "")
    folders = [folder for folder in value.split(":") if folder]
    seen: list[tuple[str, object]] = [("environment", f"LD_LIBRARY_PATH={value}")]
    fix = by_hand("Remove the folder from LD_LIBRARY_PATH in your shell's start files; in this shell: unset it.")
    findings: list[Finding] = []
    consumer = [card for card in ours if re.match(_CONSUMER, cards.name(card, catalogue))]
    for folder in folders:
        parts = folder.rstrip("/").split("/")
        if "stubs" in parts:
            summary = f"LD_LIBRARY_PATH holds the toolkit's stubs: {folder}."
            why = "The libcuda.so there is for linking only; with it CUDA finds no device."
            findings.append(error("environment", summary, why, seen, fix))
        elif parts[-1] == "compat" and consumer:
            summary = f"LD_LIBRARY_PATH holds cuda-compat: {folder}."
            why = "Forward compatibility is for data-centre cards; a GeForce ends with CUDA error 804."
            findings.append(error("environment", summary, why, seen, fix))
        elif any("cuda" in part or "rocm" in part for part in parts):
            summary = f"LD_LIBRARY_PATH holds {folder}."
            why = "It can shadow the libraries that PyTorch brings: `cannot open shared object`, `undefined symbol`."
            findings.append(info("environment", summary, why, seen, fix))
    return tuple(findings) or Ok("It holds no CUDA or ROCm folder." if folders else "It is not set.")


@check(
    "runtime.cuda-toolkit",
    "The CUDA toolkit is not newer than the driver",
    about="Code that nvcc builds with a newer CUDA major version than the driver's does not run: `CUDA driver "
    "version is insufficient`. Training through PyTorch needs no toolkit, so a mismatch is a note. Compares "
    "/usr/local/cuda-* with NVML.",
    by_hand="Install the toolkit of the driver's major version beside it (`cuda-toolkit-13-0`), or update the driver.",
)
def cuda_toolkit(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.NVIDIA):
        return Skip(cards.none_of(host, catalogue, cards.NVIDIA))
    if not host.nvidia.cuda_toolkits:
        return Skip("No CUDA toolkit is installed; training needs none.")
    able = cards.numbers(host.nvidia.nvml_cuda)
    if not able:
        return Unknown("Which CUDA the driver can run is not known: NVML does not answer. See driver.nvml.")
    versions = [text.rpartition("cuda-")[2] for text in host.nvidia.cuda_toolkits]
    newer = [version for version in versions if cards.numbers(version)[:1] > able[:1]]
    if not newer:
        return Ok(f"CUDA {', '.join(versions)} under a driver for {host.nvidia.nvml_cuda}.")
    return (
        info(
            "CUDA toolkit",
            f"The toolkit {', '.join(newer)} is newer than the driver's CUDA {host.nvidia.nvml_cuda}.",
            "What nvcc builds with it does not run on this driver; PyTorch's wheels are not affected.",
            [("/usr/local", ", ".join(host.nvidia.cuda_toolkits)), ("NVML CUDA version", host.nvidia.nvml_cuda)],
            by_hand("Use a toolkit of the driver's major version, or move the driver: gpu-setup plan."),
        ),
    )
