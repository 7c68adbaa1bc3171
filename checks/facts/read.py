"""Read a machine once: every probe guarded separately, the slow ones in parallel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

from checks.allowed.engine import runtime
from checks.allowed.kernel import certificate, command_line, public_message
from checks.allowed.kernel import version as kernel_version
from checks.allowed.packages import public_pin, without_credentials
from checks.facts import (
    amd,
    apt,
    docker,
    firmware,
    hub,
    kernel,
    nvidia,
    pci,
    person,
    python,
    resources,
    wsl,
)
from checks.facts import os as system
from checks.facts.bindings import note_damage
from checks.facts.gaps import Gaps, run_probe
from checks.facts.host import (
    Amd,
    Apt,
    AptSource,
    Docker,
    Firmware,
    Host,
    Hub,
    Kernel,
    Nvidia,
    Os,
    Person,
    PythonFacts,
    Resources,
)
from checks.facts.kernel import parse_cmdline
from machine.identities import NOBODY
from machine.local import TIMED_OUT, Machine, Outcome

T = TypeVar("T")
# A probe's process gets this many seconds; ending it may take half a second more; the doctor promises five in total.
PATIENCE = 3.5
_GRACE = 0.7


def read_host(machine: Machine, patience: float = PATIENCE, beside: Callable[[], object] = lambda: None) -> Host:
    """What this machine is. Never raises because of the machine's state.

    A value that cannot be read is None, with its reason in `unread`. `beside` is done while slow programs answer.

    Takes at most `patience` + 0.7 seconds, even when NVML, docker or a network drive hang.
    """
    gaps = Gaps()
    nvml = _Slow("nvml", lambda: nvidia.ask(machine, patience, gaps), Outcome((), None, "", "", 0.0, TIMED_OUT), gaps)
    smi = _Slow("amdsmi", lambda: amd.ask(machine, patience, gaps), Outcome((), None, "", "", 0.0, TIMED_OUT), gaps)
    engine = _Slow("docker info", lambda: docker.ask(machine, patience), None, gaps)
    log = _Slow("kernel log", lambda: kernel.read_log(machine, gaps, patience), None, gaps)
    keys = _Slow("mokutil", lambda: firmware.read_keys(machine, gaps, patience), firmware.Keys(), gaps)
    disks = _Slow("disks", lambda: resources.read_disks(machine, gaps), resources.NO_DISKS, gaps)
    # the kernel takes 10 ms to show its locks (locks_start waits for every CPU)
    lock = _Slow("/proc/locks", lambda: apt.lock_holder(machine, gaps), None, gaps)
    slow = (nvml, smi, engine, log, keys, disks, lock)

    facts_apt = run_probe("apt", lambda: apt.read_apt(machine, gaps), Apt(), gaps)
    facts_os = run_probe("os", lambda: system.read_os(machine, gaps), Os(), gaps)
    facts_kernel = run_probe("kernel", lambda: kernel.read_kernel(machine, gaps), Kernel(), gaps)
    facts_firmware = run_probe("firmware", lambda: firmware.read_firmware(machine, gaps), Firmware(), gaps)
    cards = run_probe("pci", lambda: pci.read_cards(machine, gaps), None, gaps)
    # facts that matter only with a card are not read without one
    facts_wsl = run_probe("wsl", lambda: wsl.read_wsl(machine, gaps), None, gaps)
    trains = any(card.vendor in pci.TRAINERS for card in cards or ()) or bool(facts_wsl and facts_wsl.dxg)
    facts_nvidia = run_probe("nvidia", lambda: nvidia.read_nvidia(machine, gaps), Nvidia(), gaps)
    facts_amd = run_probe("amd", lambda: amd.read_amd(machine, gaps), Amd(), gaps)
    facts_python = run_probe("python", lambda: python.read_python(machine, gaps), PythonFacts(), gaps)
    facts_resources = run_probe("resources", lambda: resources.read_resources(machine, gaps), Resources(), gaps)
    facts_person = run_probe("person", lambda: person.read_person(machine, gaps, trains), Person(), gaps)
    facts_hub, dates = Hub(), None
    if trains:
        from checks.facts import environments

        found = run_probe("environments", lambda: environments.read_environments(machine, gaps), None, gaps)
        facts_python = msgspec.structs.replace(facts_python, environments=found)
        facts_hub = run_probe("hub", lambda: hub.read_hub(machine), Hub(), gaps)
        dates = run_probe("dates", lambda: kernel.read_dates(machine, facts_kernel, gaps), None, gaps)

    limit = time.monotonic() + patience + _GRACE
    beside()
    for probe in slow:
        probe.wait(limit)
    answer = engine.value
    found_nvml, found_smi = nvidia.parse_nvml(nvml.value), amd.parse_smi(smi.value)
    note_damage("nvml", found_nvml, gaps)
    note_damage("amdsmi", found_smi, gaps)
    packages = facts_apt.packages
    facts_docker = run_probe("docker", lambda: docker.read_docker(machine, gaps, answer, packages), Docker(), gaps)
    found_disks, shm = disks.value
    if facts_docker.root_dir and all(disk.path != facts_docker.root_dir for disk in found_disks):
        elsewhere = _Slow("disks", lambda: resources.docker_disk(machine, facts_docker.root_dir, gaps), None, gaps)
        elsewhere.wait(limit)
        if elsewhere.value is not None:
            found_disks = (*(disk for disk in found_disks if disk.purpose != "docker"), elsewhere.value)
    replace = msgspec.structs.replace
    return _text_only(
        Host(
            os=facts_os,
            kernel=_public_kernel(replace(facts_kernel, log=log.value, dates=dates)),
            firmware=_public_keys(replace(facts_firmware, **msgspec.structs.asdict(keys.value))),
            cards=pci.as_reported(
                wsl.with_windows_cards(cards, facts_wsl, found_nvml.gpus), found_nvml.gpus, facts_amd.nodes or ()
            ),
            nvidia=_with_nvml(facts_nvidia, found_nvml, facts_apt),
            amd=_with_smi(facts_amd, found_smi),
            apt=_public_packages(replace(facts_apt, lock_holder=lock.value)),
            docker=_public_engine(facts_docker),
            python=facts_python,
            resources=replace(facts_resources, disks=found_disks or None, shm_total=shm),
            person=facts_person,
            hub=facts_hub,
            wsl=facts_wsl,
            unread=gaps.all(),
            taken_at=getattr(machine, "taken_at", "") or datetime.now(UTC).isoformat(timespec="seconds"),
            machine=machine.name,
        )
    )


def _public_kernel(facts: Kernel) -> Kernel:
    """Without what only its owner may know: the host goes into documents."""
    line = tuple(parse_cmdline(command_line(" ".join(facts.cmdline)))) if facts.cmdline is not None else None
    version = kernel_version(facts.version) if facts.version is not None else None
    log = tuple(map(public_message, facts.log)) if facts.log is not None else None
    return msgspec.structs.replace(facts, cmdline=line, version=version, log=log)


def _public_keys(facts: Firmware) -> Firmware:
    enrolled = tuple(map(certificate, facts.mok_enrolled)) if facts.mok_enrolled is not None else None
    return msgspec.structs.replace(facts, mok_enrolled=enrolled)


def _public_packages(facts: Apt) -> Apt:
    def plain(found: tuple[AptSource, ...] | None) -> tuple[AptSource, ...] | None:
        return found and tuple(msgspec.structs.replace(row, uri=without_credentials(row.uri)) for row in found)

    pins = facts.pins and tuple(map(public_pin, facts.pins))
    return msgspec.structs.replace(facts, sources=plain(facts.sources), unfetched=plain(facts.unfetched), pins=pins)


def _public_engine(facts: Docker) -> Docker:
    def public(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and tuple(runtime(name, NOBODY) for name in names)

    return msgspec.structs.replace(
        facts, runtimes=public(facts.runtimes), daemon_json_runtimes=public(facts.daemon_json_runtimes)
    )


def _text_only(host: Host) -> Host:
    """The host without lone surrogates: a name that is not UTF-8 can be read, but not written as JSON."""
    try:
        msgspec.json.encode(host)
    except UnicodeEncodeError:
        return msgspec.convert(_without_surrogates(msgspec.to_builtins(host)), Host)
    return host


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(held) for key, held in value.items()}
    return [_without_surrogates(held) for held in value] if isinstance(value, (list, tuple)) else value


class _Slow(Generic[T]):
    """A probe in its own thread. After the time limit its result is given up: the thread may hang in the kernel."""

    def __init__(self, source: str, probe: Callable[[], T], otherwise: T, gaps: Gaps) -> None:
        self.source, self.value, self.gaps = source, otherwise, gaps
        self._probe, self._otherwise = probe, otherwise
        self._failed: AssertionError | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=source, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            value = run_probe(self.source, self._probe, self._otherwise, self.gaps)
        except AssertionError as error:
            self._failed = error
            return
        if not self._given_up:
            self.value = value

    def wait(self, limit: float) -> None:
        self._thread.join(max(0.0, limit - time.monotonic()))
        self._given_up = True
        if self._failed is not None:
            raise self._failed
        if self._thread.is_alive():
            self.gaps.note(self.source, TIMED_OUT)


def _with_nvml(facts: Nvidia, found: nvidia.Nvml, packages: Apt) -> Nvidia:
    toolkit = [p for p in packages.packages or () if p.name in nvidia.TOOLKIT_PACKAGES and p.state == "installed"]
    return msgspec.structs.replace(
        facts,
        # with some GPUs in it the list is correct even if a later one failed
        nvml=found.gpus if found.problem is None or found.gpus else None,
        nvml_driver=found.driver,
        nvml_cuda=found.cuda,
        nvml_problem=found.problem,
        container_toolkit=toolkit[0].version if toolkit else None,
        stub=found.stub,
    )


def _with_smi(facts: Amd, found: amd.Smi) -> Amd:
    return msgspec.structs.replace(
        facts,
        amdsmi_gpus=len(found.gpus) if found.problem is None else None,
        amdsmi_problem=found.problem,
        amdsmi_slots=tuple(gpu.slot for gpu in found.gpus if gpu.slot) if found.problem is None else None,
        amdsmi_detail=found.detail or None,
        stub=found.stub,
    )
