"""Environment variables and folders that decide which GPU and which libraries a program uses."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Fix, Ok, Severity, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, command, error, info, warning
from checks.rules.rocm.override import is_override, problem_of
from checks.rules.session import hidden_by_sudo, in_container

# HIP also reads CUDA's variable
_NVIDIA_VARIABLES = ("CUDA_VISIBLE_DEVICES",)
_AMD_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
# ROCm's runtime applies it before HIP applies its own
_FIRST = "ROCR_VISIBLE_DEVICES"
# `RTX 4090` is one, `RTX 6000 Ada`, `RTX A6000` and `RTX PRO 6000` are not
_GEFORCE = r"(?:RTX|GTX) \d{3,4}\b(?! Ada)|TITAN"


@check(
    "runtime.visible-devices",
    "No environment variable hides the card",
    about="CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES select cards. Empty or -1 hides all "
    "cards; an index or UUID that does not exist hides itself and all entries after it. HIP_VISIBLE_DEVICES counts the "
    "cards that ROCR_VISIBLE_DEVICES leaves. Forgotten in shell files, /etc/environment or systemd units, these "
    "variables often cause `no CUDA-capable device is detected`.",
    by_hand="`printenv | grep VISIBLE_DEVICES`, find the line with `grep -rn VISIBLE_DEVICES ~/.bashrc ~/.profile "
    "/etc/environment /etc/profile.d ~/.config/environment.d`, remove it, and log in again.",
    needs=(needs.GPU,),
    causes=("runtime.start-files",),
)
def visible_devices(host: Host, catalogue: Catalogue) -> Verdict:
    findings: list[Finding] = []
    for name in dict.fromkeys((*_NVIDIA_VARIABLES, *_AMD_VARIABLES)):
        value = host.person.environ.get(name)
        visible = None if value is None else _cards_left(host, catalogue, name, value)
        if value is not None and visible is not None:
            findings.append(_hides(name, value, visible))
    if findings:
        return tuple(findings)
    if (hidden := hidden_by_sudo(host, "The environment")) is not None:
        return hidden
    chosen = [
        f"{n}={host.person.environ[n]}"
        for n in dict.fromkeys((*_NVIDIA_VARIABLES, *_AMD_VARIABLES))
        if n in host.person.environ
    ]
    return Ok(f"{', '.join(chosen)} selects cards that exist." if chosen else "No such variable is set.")


def _cards_left(host: Host, catalogue: Catalogue, name: str, value: str) -> int | None:
    """How many cards this variable leaves visible, if it hides some of them; otherwise None."""
    for vendor, names in ((cards.NVIDIA, _NVIDIA_VARIABLES), (cards.AMD, _AMD_VARIABLES)):
        count = len(cards.training(host, catalogue, vendor))
        if name not in names or not count:
            continue
        listed = host.amd.nodes if vendor == cards.AMD else host.nvidia.nvml
        uuids = tuple(gpu.uuid for gpu in host.nvidia.nvml or () if gpu.uuid) if vendor == cards.NVIDIA else ()
        most = max(count, len(listed or ()))
        if vendor == cards.AMD and name != _FIRST and _FIRST in host.person.environ:
            # HIP counts the cards that ROCR leaves: both set to 1 leave none
            most = min(most, _visible(host.person.environ[_FIRST], most, ())[0])
        shown, of = _visible(value, most, uuids)
        if shown != of or not of:
            return shown
    return None


def _visible(value: str, count: int, uuids: tuple[str, ...]) -> tuple[int, int]:
    """How many entries are used, and how many there are: drivers stop at the first entry that is not a card."""
    # a comma at the end is ignored
    entries = [entry.strip() for entry in value.rstrip(", ").split(",")] if value.strip(", ") else []
    shown = 0
    for entry in entries:
        if not (_is_uuid(entry, uuids) if entry.startswith(("GPU-", "MIG-")) else _is_index(entry, count)):
            break
        shown += 1
    return shown, len(entries)


def _is_index(entry: str, count: int) -> bool:
    return entry.isdecimal() and len(entry) < 10 and int(entry) < count


def _is_uuid(entry: str, uuids: tuple[str, ...]) -> bool:
    """A UUID may be shortened. MIG instances and AMD's UUIDs cannot be checked here."""
    return not uuids or entry.startswith("MIG-") or any(uuid.startswith(entry) for uuid in uuids)


def _hides(name: str, value: str, shown: int) -> Finding:
    return (warning if shown else error)(
        "environment",
        f"{name}={value!r} hides {'some cards' if shown else 'every card'}.",
        "Programs started from this session see only the cards before the first entry that does not exist.",
        [("environment", f"{name}={value}")],
        by_hand(f"Remove {name} from your shell's start-up files and /etc/environment; in this shell: unset {name}."),
    )


@check(
    "runtime.ld-library-path",
    "LD_LIBRARY_PATH does not load wrong libraries",
    about="The folder `stubs` of the CUDA toolkit contains a libcuda.so for linking only: if a program loads it at run "
    "time, CUDA finds no device. The libcuda of cuda-compat works only on data-centre cards and fails with error 804 "
    "on a GeForce. Other CUDA or ROCm folders can override the libraries that PyTorch includes; that is informational "
    "only.",
    by_hand="Run `echo $LD_LIBRARY_PATH`, and remove the folder from ~/.bashrc or /etc/environment. PyTorch's wheels "
    "need no LD_LIBRARY_PATH.",
    needs=(needs.GPU,),
)
def ld_library_path(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    value = host.person.environ.get("LD_LIBRARY_PATH", "")
    folders = [folder for folder in value.split(":") if folder]
    seen: list[tuple[str, object]] = [("environment", f"LD_LIBRARY_PATH={value}")]
    fix = by_hand("Remove the folder from LD_LIBRARY_PATH in your shell's start-up files, and unset it in this shell.")
    findings: list[Finding] = []
    consumer = [card for card in ours if re.match(_GEFORCE, cards.name(card, catalogue))]
    for folder in folders:
        parts = folder.rstrip("/").split("/")
        if "stubs" in parts:
            summary = f"LD_LIBRARY_PATH contains the CUDA toolkit's stubs: {folder}."
            why = "The libcuda.so in it is for linking only; with it CUDA finds no device."
            findings.append(error("environment", summary, why, seen, fix))
        elif parts[-1] == "compat" and consumer:
            summary = f"LD_LIBRARY_PATH contains cuda-compat: {folder}."
            why = "Forward compatibility works only on data-centre cards; a GeForce fails with CUDA error 804."
            findings.append(error("environment", summary, why, seen, fix))
        elif any("cuda" in part or "rocm" in part for part in parts):
            summary = f"LD_LIBRARY_PATH contains {folder}."
            why = (
                "It can override the libraries that PyTorch includes: `cannot open shared object`, `undefined symbol`."
            )
            findings.append(info("environment", summary, why, seen, fix))
    if not folders and (hidden := hidden_by_sudo(host, "The environment")) is not None:
        return hidden
    return tuple(findings) or Ok("It contains no CUDA or ROCm folder." if folders else "It is not set.")


@check(
    "runtime.cuda-toolkit",
    "The CUDA toolkit is not newer than the driver",
    about="Programs built with a newer CUDA major version than the driver's do not run: `CUDA driver version is "
    "insufficient`. Training with PyTorch needs no toolkit, so a mismatch is informational only. Compares "
    "/usr/local/cuda-* with NVML.",
    by_hand="Also install the toolkit of the driver's major version (`cuda-toolkit-13-0`), or update the driver.",
    needs=(needs.NVIDIA_GPU,),
)
def cuda_toolkit(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.nvidia.cuda_toolkits:
        return Skip("No CUDA toolkit is installed; training needs none.")
    able = cards.numbers(host.nvidia.nvml_cuda)
    if not able:
        return Unknown(
            "Cannot determine which CUDA version the driver supports: NVML does not respond. See driver.nvml."
        )
    versions = [text.rpartition("cuda-")[2] for text in host.nvidia.cuda_toolkits]
    newer = [version for version in versions if cards.numbers(version)[:1] > able[:1]]
    if not newer:
        return Ok(f"CUDA {', '.join(versions)}; the driver supports {host.nvidia.nvml_cuda}.")
    return (
        info(
            "CUDA toolkit",
            f"The toolkit {', '.join(newer)} is newer than the driver's CUDA {host.nvidia.nvml_cuda}.",
            "Programs that nvcc builds with it do not run on this driver; PyTorch's wheels are not affected.",
            [("/usr/local", ", ".join(host.nvidia.cuda_toolkits)), ("NVML CUDA version", host.nvidia.nvml_cuda)],
            by_hand("Use a toolkit of the driver's major version, or update the driver: gpu-setup plan."),
        ),
    )


@check(
    "runtime.start-files",
    "No start-up file sets a variable that hides the card",
    about="Reads the files that set variables at login: /etc/environment, /etc/profile.d, environment.d, your shell's "
    "start-up files and your own systemd units. A forgotten *_VISIBLE_DEVICES, an HSA override or a stubs folder in "
    "LD_LIBRARY_PATH there is set again at every login, even if this session does not have it. Lines with shell "
    "expressions and indented lines are ignored.",
    by_hand="Remove the line from the file and log in again; for units run `systemctl --user daemon-reload` and "
    "restart them.",
    needs=(needs.GPU,),
)
def start_files(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.person.start_files is None:
        return Unknown("The start-up files were not read. Run the doctor as the user who trains.")
    amd = any(card.vendor == cards.AMD for card in ours)
    findings: list[Finding] = []
    for file, name, value in host.person.start_files:
        if name == "LD_LIBRARY_PATH":
            bad = "stubs" in re.split("[/:]", value)
            what = "puts the CUDA toolkit's stubs before the driver's libraries"
        elif is_override(name):
            problem = problem_of(name, value, host, catalogue) if amd else None
            bad, what = problem is not None and problem.severity != Severity.INFO, problem.what if problem else ""
        else:
            bad, what = _cards_left(host, catalogue, name, value) is not None, "hides cards"
        if bad:
            findings.append(
                warning(
                    file,
                    f"{file} sets {name}={value!r}, which {what.rstrip('.')}.",
                    "Every new login, and every program started from it, gets this variable.",
                    [(file, f"{name}={value}")],
                    by_hand(f"Remove the line from {file}.", relogin=True),
                )
            )
    if findings:
        return tuple(findings)
    return hidden_by_sudo(host, "The start-up files") or Ok("No start-up file sets such a variable.")


@check(
    "runtime.libcuda",
    "Programs load the driver's own libcuda",
    about="The driver includes libcuda.so.1 in its own version. If the loader finds another one first, from a .run "
    "installer, a copied folder or a container's mount, CUDA fails with `system has unsupported display driver / cuda "
    "driver combination` (803) or a forward-compatibility error (804). Compares the versions in the file names with "
    "the loaded module.",
    by_hand="`ldconfig -p | grep libcuda.so.1` lists them in the loader's order; `dpkg -S FILE` shows which package "
    "owns a file. Remove files that no package owns, then run `sudo ldconfig`.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_MODULE),
    causes=("driver.mismatch", "driver.runfile"),
)
def libcuda(host: Host, catalogue: Catalogue) -> Verdict:
    loaded, found = host.nvidia.module_version, host.nvidia.libcuda_versions
    if in_container(host):
        return Skip("In a container the engine provides the driver's libraries.")
    if not found:
        return Skip("No libcuda.so.1 with a version was found; driver.nvml shows whether the libraries are installed.")
    if len({version for _, version in found}) == 1:
        # one version only: if it differs from the module's, driver.mismatch reports it
        return Ok(f"libcuda.so.1 is {found[0][1]}.")
    version = found[0][1]
    fix = by_hand("Remove the file that no package owns (dpkg -S FILE), then run sudo ldconfig.")
    return (
        (info if version == loaded else warning)(
            "libcuda.so.1",
            f"There are several libcuda.so.1; the first has version {version}"
            + (", like the driver." if version == loaded else f", the driver {loaded}."),
            "Programs with another search order load the wrong one."
            if version == loaded
            else "CUDA does not work with a library of another version: errors 803 and 804.",
            [*found, ("/sys/module/nvidia/version", loaded)],
            fix,
        ),
    )


@check(
    "runtime.cuda-compat",
    "cuda-compat is not on the dynamic linker's search path",
    about="The package cuda-compat contains a libcuda for newer CUDA with an older driver. It works only on "
    "data-centre cards; on a GeForce CUDA fails with error 804. The package alone has no effect, but a line in "
    "/etc/ld.so.conf.d puts it before the driver's own libcuda. LD_LIBRARY_PATH has its own check "
    "(runtime.ld-library-path).",
    by_hand="Run `grep -rn compat /etc/ld.so.conf.d`, remove the line or file, then run `sudo ldconfig`.",
    needs=(needs.NVIDIA_GPU,),
)
def cuda_compat(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    if host.nvidia.compat_folders is None:
        return Unknown(
            "/etc/ld.so.conf.d could not be read; `ldconfig -p | grep libcuda` shows what the dynamic linker loads."
        )
    if in_container(host) or not host.nvidia.compat_folders:
        return Ok("The dynamic linker's configuration has no cuda-compat folder.")
    consumer = [card for card in ours if re.match(_GEFORCE, cards.name(card, catalogue))]
    folder = host.nvidia.compat_folders[0]
    return (
        (error if consumer else info)(
            cards.subject((consumer or ours)[0], catalogue),
            f"The dynamic linker loads libcuda from {folder}.",
            "Forward compatibility works only on data-centre cards; a GeForce fails with CUDA error 804."
            if consumer
            else "It is meant for data-centre cards with an older driver; remove it when the driver is newer.",
            [("/etc/ld.so.conf.d", folder)],
            _without_compat(host, folder),
        ),
    )


def _without_compat(host: Host, folder: str) -> Fix:
    installed = [
        row.name for row in host.apt.packages or () if row.name.startswith("cuda-compat-") and row.state == "installed"
    ]
    if installed:
        return command("Remove the package, then run ldconfig.", "apt-get", "remove", *installed, sudo=True)
    return by_hand(f"Remove the line for {folder} from the file in /etc/ld.so.conf.d, then run `sudo ldconfig`.")
