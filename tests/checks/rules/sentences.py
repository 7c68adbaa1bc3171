"""What a finding's sentences claim, compared with the facts: `untrue_sentences` lists what the machine contradicts.

Each claim reads a form of words that rules use (`X is missing`, `not in group X`, `N of M cards`) or a command that
they advise, and asks the facts for it. A claim that no finding makes any more is removed: test_sentences.py looks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from checks.catalogue import VENDORS, Catalogue
from checks.facts.host import Host
from checks.model import Finding
from checks.registry import ALL
from checks.rules import cards, kernel_log

# what a form of words matched, the finding, the machine → whether the facts contradict it
Contradiction = Callable[[re.Match[str], Finding, Host], object]


def _path(found: re.Match[str], finding: Finding, host: Host) -> object:
    if found[1] == "/dev/kfd":
        return host.amd.kfd is not None and host.amd.kfd.mode is not None
    known = {file.path for file in host.kernel.modules or ()} | set(host.nvidia.cdi_specs or ())
    return found[1] in known | set(host.nvidia.device_nodes or ())


def _listed(found: re.Match[str], finding: Finding, host: Host) -> object:
    """All cards, said of one that is not among them; or NVML's own words about it are left out."""
    about = next((gpu for gpu in host.nvidia.nvml or () if gpu.slot and gpu.slot in finding.subject), None)
    return int(found[1]) >= int(found[2]) or (about is not None and about.problem is None)


def _other_driver(found: re.Match[str], finding: Finding, host: Host) -> object:
    return any((card.driver or "no driver") != found[1] for card in host.cards or () if card.slot in finding.subject)


def _has_module(found: re.Match[str], finding: Finding, host: Host) -> object:
    return any((file.kernel, file.name) == (found[1], found[2]) for file in host.kernel.modules or ())


def _built(found: re.Match[str], finding: Finding, host: Host) -> object:
    return any((row.module, row.kernel, row.state) == (*found.groups(), "installed") for row in host.kernel.dkms or ())


def _versions(found: re.Match[str], finding: Finding, host: Host) -> object:
    return found[1] == found[2] or found[1] != host.nvidia.module_version


def _held(found: re.Match[str], finding: Finding, host: Host) -> object:
    return not any(row.name == found[1] and row.held for row in host.apt.packages or ())


def _noexec(found: re.Match[str], finding: Finding, host: Host) -> object:
    return not any(disk.path == found[1] and disk.noexec for disk in host.resources.disks or ())


CLAIMS: dict[str, Contradiction] = {
    r"(?<!\S)(/[\w./-]+) is missing": _path,
    r"(\d+) of (\d+) cards": _listed,
    r"bound to (no driver|\w+)(?:;|, not)": _other_driver,
    r"[Kk]ernel (\S+)(?: has|, which has) no (\w+) module": _has_module,
    r"DKMS has not built (\w+) for kernel (\S+)\.$": _built,
    r"loaded driver has version ([\d.]+), its libraries ([\d.]+)\.": _versions,
    r"^([\w.-]+) on hold,": _held,
    r"^(\S+) is mounted noexec": _noexec,
    r"next boot uses kernel (\S+?),": lambda found, finding, host: host.kernel.next_boot != found[1],
    r"key that signed it is not enrolled": lambda found, finding, host: host.firmware.mok_key_enrolled,
    r"not in group (\w+)": lambda found, finding, host: found[1] in (host.person.groups or ()),
    r"already in (\w+): log out": lambda found, finding, host: found[1] not in (host.person.database_groups or ()),
    r"^python3-venv is not installed": lambda found, finding, host: host.python.venv,
    r"^No C compiler is installed": lambda found, finding, host: host.python.compiler,
    r"^Python\.h is missing": lambda found, finding, host: host.python.headers,
    r"toolkit is not installed": lambda found, finding, host: host.nvidia.container_toolkit,
    r"^No NVIDIA driver is installed": lambda found, finding, host: host.nvidia.nvml or host.nvidia.module_version,
    r"kernel module is not loaded": lambda found, finding, host: host.nvidia.module_version,
    r"^Not fully installed: (.*)\.$": lambda found, finding, host: (
        set(found[1].split(", ")) - set(host.apt.broken or ())
    ),
    r"^dpkg was interrupted": lambda found, finding, host: not host.apt.interrupted,
    r"^([A-Z][A-Z0-9_]+)=": lambda found, finding, host: (
        found[1] not in host.person.environ and found[1] not in (host.hub.offline or "")
    ),
    r"although the key is enrolled": lambda found, finding, host: host.firmware.mok_key_enrolled is False,
    r"^Secure Boot (?:is on|refuses)": lambda found, finding, host: host.firmware.secure_boot is False,
    r"is in (\w+), but this session is older": lambda found, finding, host: found[1] in (host.person.groups or ()),
    r"^(/\S+) sets (\w+)=": lambda found, finding, host: (
        (found[1], found[2]) not in {(file, name) for file, name, _ in host.person.start_files or ()}
    ),
    r"^(/\S+) is on (\w+)\.$": lambda found, finding, host: (
        found.groups() not in {(disk.path, disk.fstype) for disk in host.resources.disks or ()}
    ),
    r"^A reboot is pending\b": lambda found, finding, host: (
        not (host.apt.reboot_required or host.kernel.release != host.kernel.next_boot)
    ),
}
# forms of words in which one number or version is smaller than the other
SMALLER = (
    r"runs on (?P<less>\d+) of (?P<more>\d+) PCI Express lanes",
    r"power limit is (?P<less>[\d.]+) W; the default is (?P<more>[\d.]+) W",
    r"together are (?P<less>[\d.]+) GiB; loading the model needs (?P<more>[\d.]+) GiB",
    r"^(?P<less>\d+) GiB of memory: .* needs a card with (?P<more>\d+) GiB",
    r"^Driver (?P<less>\S+) is too old: \S+ needs (?P<more>[\d.]+)\.$",
    r"^Kernel (?P<less>\S+) is too old for the card: its amdgpu needs (?P<more>[\d.]+)\.$",
    r"supports kernels up to (?P<less>\S+); (?P<more>\S+) is newer",
    r"clock says (?P<less>\S+), but the running kernel was built on (?P<more>\S+)\.$",
    r"toolkit (?P<more>[\d.]+) is newer than the driver's CUDA (?P<less>[\d.]+)\.$",
)
# versions, power states, device files and Xid numbers: a summary names only those of the machine or the catalogue
_NAMES = r"\b\d+\.\d+\.[\w.+~-]*\w|\bD3\w+|/dev/[\w/-]+(?![\w/*-]| is missing)|(?<=Xid )\d+"
# words that only a machine with a card of this vendor can have a use for
_NVIDIA_WORDS = r"\b(?:NVIDIA|NVML|NVRM|nvidia-smi|CUDA|GSP)\b"
_AMD_WORDS = r"\b(?:AMD|ROCm|amdgpu|KFD|kfd|Radeon)\b"
_BUILD_FAILED = r"\berror: |GPL-incompatible module|ERROR: modpost: "


def untrue_sentences(finding: Finding, host: Host, catalogue: Catalogue) -> list[str]:
    """Each sentence, name or command of this finding that the machine's facts or its own evidence contradict."""
    return [
        *(f"contradicted by the facts: {words}" for words in _against_facts(finding, host)),
        *(f"contradicted by its evidence: {words}" for words in _against_evidence(finding, host)),
        *(f"names {name}, which the machine does not have" for name in _made_up_names(finding, host, catalogue)),
        *(f"of another vendor: {word}" for word in _foreign_words(finding, host)),
        *(f"command that cannot help: {why}" for why in _idle_command(finding, host)),
        *(f"verified today already: {program}" for program in _verified_already(finding, host)),
    ]


def sentences(finding: Finding) -> tuple[str, ...]:
    """Summary, why, evidence and fix, each a text of its own."""
    seen = (f"{row.source}: {row.value}" for row in finding.evidence)
    return (finding.summary, finding.why, *seen, *((finding.fix.text,) if finding.fix else ()))


def _against_facts(finding: Finding, host: Host) -> Iterator[str]:
    for text in sentences(finding):
        for words, contradicts in CLAIMS.items():
            found = re.search(words, text)
            if found and contradicts(found, finding, host):
                yield found[0]
        for words in SMALLER:
            found = re.search(words, text)
            if found and cards.numbers(found["less"]) >= cards.numbers(found["more"]):
                yield found[0]


def _against_evidence(finding: Finding, host: Host) -> Iterator[str]:
    """`not enrolled` above `mokutil --test-key: enrolled`, `is missing` above `exists`, lines that nobody logged."""
    values = [row.value.lower() for row in finding.evidence]
    for state in re.findall(r"\b(?:is|are|was) not (\w+)", finding.summary):
        yield from (f"not {state}" for value in values if value == state or value.endswith(f": {state}"))
    log = {row.value for row in finding.evidence if row.source == kernel_log.SOURCE}
    # a message of several lines is quoted as one
    known = {word for line in host.kernel.log or () for word in line.split()}
    yield from (
        f"not in the log: {line}"
        for line in log
        if not line.endswith("such lines)") and not known.issuperset(line.split())
    )
    if "is missing" in finding.summary:
        yield from ("is missing" for value in values if value in ("exists", "installed", "found"))


def _made_up_names(finding: Finding, host: Host, catalogue: Catalogue) -> list[str]:
    names = re.findall(_NAMES, finding.summary)
    if not names:
        return []
    seen = " ".join(f"{row.source} {row.value}" for row in finding.evidence)
    known = seen + msgspec.json.encode(host).decode() + msgspec.json.encode(catalogue).decode()
    return [name for name in names if name not in known]


def _foreign_words(finding: Finding, host: Host) -> list[str]:
    """Where all cards are of one vendor, a card's finding has no word of the other; but of a PyTorch built for it."""
    vendors = {VENDORS[card.vendor] for card in host.cards or () if card.vendor in VENDORS}
    about_a_card = any(card.slot in finding.subject for card in host.cards or ())
    if len(vendors) != 1 or not about_a_card or finding.check.startswith("python.torch"):
        return []
    foreign = _AMD_WORDS if vendors == {"nvidia"} else _NVIDIA_WORDS
    said = " ".join((finding.summary, finding.why, finding.fix.text if finding.fix else ""))
    return re.findall(foreign, said)


def _idle_command(finding: Finding, host: Host) -> Iterator[str]:
    """Why the command of the fix changes nothing, fails, or has failed already."""
    argv = finding.fix.argv if finding.fix else ()
    installed = {row.name for row in host.apt.packages or () if row.state != "config-files"}
    failed = [row for row in host.kernel.dkms or () if re.search(_BUILD_FAILED, row.log_tail or "")]
    match argv:
        case ("sudo", *_):
            yield "sudo is a property of the fix"
        case ("apt-get" | "apt-mark" | "dpkg", *_) if host.apt.packages is host.apt.broken is host.apt.sources is None:
            yield "this machine has no dpkg"
        case ("apt-get", "install", *names) if set(names) <= installed:
            yield "its packages are installed"
        case ("apt-get", "remove", *names) if host.apt.packages is not None and not set(names) & installed:
            yield "no such package is installed"
        case ("modprobe", name) if name in (host.kernel.loaded or ()):
            yield "the module is loaded"
        case ("modprobe", name) if any(
            re.search(rf"probe with driver {name} failed|{name}: .*is rejected", line) for line in host.kernel.log or ()
        ):
            yield "the module gave up at this boot"
        case ("dkms", "autoinstall" | "build" | "install", *words) if any(
            row.kernel in words or row.module in finding.subject for row in failed
        ):
            yield "the build failed, and would again"
        case ("dpkg", "--configure", *_) if any(
            f"{row.module}-dkms" in name for row in failed for name in host.apt.broken or ()
        ):
            yield "the build that stopped dpkg failed, and would again"
        case ("usermod", _, groups, _) if set(groups.split(",")) <= set(host.person.database_groups or ()):
            yield "the person is in these groups"
        case ("gpu-setup", "doctor", *words):
            known = {check.id for check in ALL}
            yield from (f"there is no check {word}" for word in words if "." in word and word not in known)


def _verified_already(finding: Finding, host: Host) -> Iterator[str]:
    """The command that is to show that the fix worked, if it would say so today."""
    slots = {card.slot for card in host.cards or () if card.vendor == cards.NVIDIA}
    gpus = host.nvidia.nvml or ()
    match finding.fix.verify if finding.fix else ():
        case ("nvidia-smi",):
            fine = host.nvidia.nvml_problem is None and slots <= {gpu.slot for gpu in gpus if gpu.problem is None}
        case ("cc", *_):
            fine = host.python.compiler is not None
        case ("mokutil", "--test-key", _):
            fine = host.firmware.mok_key_enrolled is True
        case ("modinfo", name):
            fine = any((file.name, file.kernel) == (name, host.kernel.release) for file in host.kernel.modules or ())
        case _:
            return
    if fine and finding.fix:
        yield finding.fix.verify[0]
