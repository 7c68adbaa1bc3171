"""Variables and folders that change which GPU and which library a program finds."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, command, error, info, warning
from checks.rules.session import in_container, not_theirs

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
    needs=(needs.CARD,),
    causes=("runtime.start-files",),
)
def visible_devices(host: Host, catalogue: Catalogue) -> Verdict:
    findings: list[Finding] = []
    for name in dict.fromkeys((*_NVIDIAS, *_AMDS)):
        value = host.person.environ.get(name)
        shown = None if value is None else _left(host, catalogue, name, value)
        if value is not None and shown is not None:
            findings.append(_hides(name, value, shown))
    if findings:
        return tuple(findings)
    if (unseen := not_theirs(host, "The environment")) is not None:
        return unseen
    chosen = [f"{n}={host.person.environ[n]}" for n in dict.fromkeys((*_NVIDIAS, *_AMDS)) if n in host.person.environ]
    return Ok(f"{', '.join(chosen)} names cards that are there." if chosen else "No such variable is set.")


def _left(host: Host, catalogue: Catalogue, name: str, value: str) -> int | None:
    """How many cards this variable leaves, where it hides some of those that there are; else None."""
    for vendor, names in ((cards.NVIDIA, _NVIDIAS), (cards.AMD, _AMDS)):
        count = len(cards.training(host, catalogue, vendor))
        if name not in names or not count:
            continue
        listed = host.amd.nodes if vendor == cards.AMD else host.nvidia.nvml
        uuids = tuple(gpu.uuid for gpu in host.nvidia.nvml or () if gpu.uuid) if vendor == cards.NVIDIA else ()
        shown, of = _visible(value, max(count, len(listed or ())), uuids)
        if shown != of or not of:
            return shown
    return None


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
    needs=(needs.CARD,),
)
def ld_library_path(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
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
    if not folders and (unseen := not_theirs(host, "The environment")) is not None:
        return unseen
    return tuple(findings) or Ok("It holds no CUDA or ROCm folder." if folders else "It is not set.")


@check(
    "runtime.cuda-toolkit",
    "The CUDA toolkit is not newer than the driver",
    about="Code that nvcc builds with a newer CUDA major version than the driver's does not run: `CUDA driver "
    "version is insufficient`. Training through PyTorch needs no toolkit, so a mismatch is a note. Compares "
    "/usr/local/cuda-* with NVML.",
    by_hand="Install the toolkit of the driver's major version beside it (`cuda-toolkit-13-0`), or update the driver.",
    needs=(needs.NVIDIA_CARD,),
)
def cuda_toolkit(host: Host, catalogue: Catalogue) -> Verdict:
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


@check(
    "runtime.start-files",
    "No start file sets a variable that hides the card",
    about="Looks where a login gets its variables from: /etc/environment, /etc/profile.d, environment.d, your "
    "shell's start files and your own systemd units. A leftover *_VISIBLE_DEVICES there, an HSA override or a stubs "
    "folder in LD_LIBRARY_PATH comes back with every login, also where this session does not have it. Lines that a "
    "shell would compute, and indented ones, are not judged.",
    by_hand="Remove the line from the file and log in again; for units `systemctl --user daemon-reload` and restart "
    "them.",
    needs=(needs.CARD,),
)
def start_files(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.person.start_files is None:
        return Unknown("The start files were not read. Run the doctor as the user who trains.")
    amd = any(card.vendor == cards.AMD for card in ours)
    findings: list[Finding] = []
    for file, name, value in host.person.start_files:
        if name == "LD_LIBRARY_PATH":
            bad = "stubs" in re.split("[/:]", value)
            what = "puts the CUDA toolkit's stubs before the driver's libraries"
        elif name == "HSA_OVERRIDE_GFX_VERSION":
            bad, what = amd and bool(value), "makes ROCm take the card for another one"
        else:
            bad, what = _left(host, catalogue, name, value) is not None, "hides cards"
        if bad:
            findings.append(
                warning(
                    file,
                    f"{file} sets {name}={value!r}, which {what}.",
                    "Every login gets it anew, and so does every program that is started from there.",
                    [(file, f"{name}={value}")],
                    by_hand(f"Remove the line from {file}.", relogin=True),
                )
            )
    if findings:
        return tuple(findings)
    return not_theirs(host, "The start files") or Ok("None of your start files sets such a variable.")


@check(
    "runtime.libcuda",
    "The first libcuda that a program finds is the driver's",
    about="The driver brings libcuda.so.1 of its own version. A second one from a .run installer, a copied folder or a "
    "container's mount that comes first in the loader's order ends in `system has unsupported display driver / cuda "
    "driver combination` (803) or forward-compatibility errors (804). Compares the versions in the links' names with "
    "the loaded module.",
    by_hand="`ldconfig -p | grep libcuda.so.1` lists them in the loader's order; `dpkg -S FILE` tells which package, "
    "if any, owns one. Remove what no package owns, then run `sudo ldconfig`.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_MODULE),
    causes=("driver.mismatch", "driver.runfile"),
)
def libcuda(host: Host, catalogue: Catalogue) -> Verdict:
    loaded, found = host.nvidia.module_version, host.nvidia.libcuda_versions
    if in_container(host):
        return Skip("In a container the engine puts the driver's libraries in place.")
    if not found:
        return Skip("No libcuda.so.1 with a version was found; driver.nvml says whether the libraries are there.")
    if len({version for _, version in found}) == 1:
        # one version only: that it is another one than the module's is what driver.mismatch says
        return Ok(f"libcuda.so.1 is {found[0][1]}.")
    version = found[0][1]
    fix = by_hand("Remove the one that no package owns (dpkg -S FILE), then run sudo ldconfig.")
    return (
        (info if version == loaded else warning)(
            "libcuda.so.1",
            f"There are several libcuda.so.1; the first is {version}"
            + (", the driver's." if version == loaded else f", the driver is {loaded}."),
            "Programs that search in another order take the wrong one."
            if version == loaded
            else "CUDA refuses a library of another version: errors 803 and 804.",
            [*found, ("/sys/module/nvidia/version", loaded)],
            fix,
        ),
    )


@check(
    "runtime.cuda-compat",
    "The loader is not told of cuda-compat",
    about="The package cuda-compat brings a libcuda for newer CUDA under an older driver. It works on data-centre "
    "cards only; on a GeForce CUDA ends with error 804. Installed it does nothing, but a line in /etc/ld.so.conf.d "
    "puts it before the driver's own. LD_LIBRARY_PATH has a check of its own.",
    by_hand="`grep -rn compat /etc/ld.so.conf.d`, remove the line or file, run `sudo ldconfig`.",
    needs=(needs.NVIDIA_CARD,),
)
def cuda_compat(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    if host.nvidia.compat_folders is None:
        return Unknown("/etc/ld.so.conf.d could not be read; `ldconfig -p | grep libcuda` shows what the loader takes.")
    if in_container(host) or not host.nvidia.compat_folders:
        return Ok("The loader's configuration names no cuda-compat folder.")
    consumer = [card for card in ours if re.match(_CONSUMER, cards.name(card, catalogue))]
    folder = host.nvidia.compat_folders[0]
    return (
        (error if consumer else info)(
            cards.subject((consumer or ours)[0], catalogue),
            f"The loader takes libcuda from {folder}.",
            "Forward compatibility is for data-centre cards; a GeForce ends with CUDA error 804."
            if consumer
            else "Meant for data-centre cards under an older driver; remove it once the driver is newer.",
            [("/etc/ld.so.conf.d", folder)],
            command("Remove the package, then run ldconfig.", "apt-get", "remove", "cuda-compat-*", sudo=True),
        ),
    )
