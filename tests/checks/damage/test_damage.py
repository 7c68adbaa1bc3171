"""Damage is unknown, never pass: each kind of it, on a machine on which the check fails or warns without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from checks.allowed import sources as allowed
from checks.catalogue import catalogue
from checks.facts.forms import damage
from checks.facts.read import read_host
from checks.facts.sources import facts_from
from checks.model import Status
from checks.registry import ALL
from checks.runner import run
from machine import recorder
from machine.local import FAILED, Unreadable
from machine.machine_file import read as read_file
from machine.recording import RecordedMachine
from tests.checks.damage.fuzz import BAD, Patient, cases, pairs, patient
from tests.checks.damage.hurt import Hurt, Source
from tests.recorded_machines import load, names
from tests.subjects import for_each

pytestmark = pytest.mark.long

DEVICE = "/sys/bus/pci/devices/0000:01:00.0"
LOG = ("journalctl", "-k", "-b", "-o", "short-monotonic", "--no-pager", "-q")
DOCKER = ("docker", "info", "--format", "{{json .}}")


def written(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def printed(change: Callable[[str], str]) -> Callable[[Any], Any]:
    return lambda outcome: outcome._replace(stdout=change(outcome.stdout))


def cut(content: Any) -> Any:
    return content[: len(content) * 2 // 3].rstrip("\n" if isinstance(content, str) else b"\n")


def unreadable(_: Any) -> Unreadable:
    return Unreadable("", FAILED, "Input/output error")


class Kind(NamedTuple):
    """`check` fails or warns on the machine with this fault (none: as recorded), until the source is changed."""

    check: str
    machine: str
    fault: str
    source: Source
    change: Callable[[Any], Any]
    called: str = ""


def file(path: str) -> Source:
    return Source("file", path)


KINDS = {
    "a class that is no number": Kind(
        "driver.bound", "rtx3090-secureboot-dkms-rejected", "", file(f"{DEVICE}/class"), lambda _: b"\xa7\x03q"
    ),
    "memory without its unit": Kind(
        "resources.memory", "rtx3090-healthy", "little-memory", file("/proc/meminfo"), written(b" kB\n", b"\n")
    ),
    "a shared memory of impossible size": Kind(
        "resources.shm", "rtx3090-healthy", "container-without-shared-memory", Source("space", "/dev/shm"),
        lambda space: space._replace(total=1 << 80), "file system of /dev/shm",
    ),
    "lanes that are a word": Kind(
        "gpu.link-width", "rtx3090-healthy", "few-lanes", file(f"{DEVICE}/current_link_width"), lambda _: b"many\n"
    ),
    "a table of errors without its sum": Kind(
        "gpu.aer", "rtx3090-healthy", "link-errors", file(f"{DEVICE}/aer_dev_correctable"), cut
    ),
    "a file with an input/output error": Kind(
        "container.cdi", "rtx4090-healthy", "cdi-stale", file("/run/cdi/nvidia.yaml"), unreadable
    ),
    "a folder that cannot be listed": Kind(
        "apt.auto-reboot", "rtx3090-healthy", "restarts-by-itself", Source("folder", "/etc/apt/apt.conf.d"), unreadable
    ),
    "an apt setting that ends in its list": Kind(
        "apt.auto-reboot", "rtx3090-healthy", "restarts-by-itself",
        file("/etc/apt/apt.conf.d/50unattended-upgrades"), lambda content: content[: content.index(b";")],
    ),
    "a repository without an address": Kind(
        "apt.amd-sources", "mi300x-server-healthy", "two-amd-repositories",
        file("/etc/apt/sources.list.d/rocm-latest.sources"), written(b"URIs", b"URLs"),
    ),
    "a package without its state": Kind(
        "apt.dpkg", "h100-server-healthy", "dpkg-interrupted", file("/var/lib/dpkg/status"),
        written(b"half-configured", b"half"),
    ),
    "a log without its end": Kind(
        "resources.oom-kills", "rtx3090-healthy", "trainer-killed-for-memory", Source("command", LOG), printed(cut),
        "journalctl",
    ),
    "a library that prints half a document": Kind(
        "gpu.busy-memory", "rtx3090-healthy", "memory-taken", Source("answer", "nvidia"), printed(cut), "nvml"
    ),
    "a library that does not answer": Kind(
        "gpu.vram", "rtx3090-healthy", "small-card", Source("answer", "nvidia"),
        lambda outcome: outcome._replace(rc=None, stdout="", problem="timed-out"), "nvml",
    ),
    "mokutil killed": Kind(
        "secureboot.mok-pending", "rtx3090-healthy", "key-waits", Source("command", ("mokutil", "--list-new")),
        lambda outcome: outcome._replace(rc=-9, stdout=""), "mokutil --list-new",
    ),
    "half of what docker prints": Kind(
        "container.rootless", "rtx3090ti-healthy", "rootless-with-rules", Source("command", DOCKER), printed(cut),
        "docker info",
    ),
    "a file system of impossible size": Kind(
        "resources.boot-space", "rtx3090-healthy", "boot-full", Source("space", "/boot"),
        lambda space: space._replace(total=-1), "file system of /boot",
    ),
    "a start-up file with zeros": Kind(
        "runtime.start-files", "rtx3090-healthy", "start-file-hides-card", file("/home/alex/.bashrc"),
        lambda content: b"\0" * len(content),
    ),
}  # fmt: skip


def patient_of(machine: str, fault: str) -> Patient:
    """The first pair of this machine and fault."""
    found = ((name, one.id if one else "") for name, one, _ in pairs())
    return patient(list(found).index((machine, fault)))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_makes_a_bad_check_unknown_and_is_named(kind: str) -> None:
    one = KINDS[kind]
    who = patient_of(one.machine, one.fault)
    assert who.verdicts[one.check] in BAD
    host = read_host(Hurt(who.machine, {one.source: one.change(who.seen[one.source])}))
    row = next(row for row in run(host, catalogue(), ALL).results if row.id == one.check)
    called = one.called or one.source.key
    assert called in {gap.source for gap in host.unread}
    assert (row.status, called in row.reason) == (Status.UNKNOWN, True), row.reason


@for_each("kind", KINDS)
def test_a_recording_of_a_damaged_machine_does_not_look_whole(kind: str) -> None:
    one = KINDS[kind]
    who = patient_of(one.machine, one.fault)
    seen = recorder.RecordingMachine(Hurt(who.machine, {one.source: one.change(who.seen[one.source])}))
    read_host(seen)
    document = recorder.machine_file(seen, recorder.identities_of(seen), {}, allowed)
    report = run(read_host(RecordedMachine(read_file(kind, document))), catalogue(), ALL)
    found = {row.id: row.status for row in report.results}
    assert found[one.check] in (*BAD, Status.UNKNOWN)


def test_a_kernel_release_without_its_end_hides_no_refused_module() -> None:
    who = patient_of("rtx3090-secureboot-dkms-rejected", "")
    source = file("/proc/sys/kernel/osrelease")
    for content in (who.seen[source][:5], b"", b"6.\xff\n"):
        host = read_host(Hurt(who.machine, {source: content}))
        assert host.kernel.release is None
        found = {row.id: row.status for row in run(host, catalogue(), ALL).results}
        assert found["secureboot.module"] in (*BAD, Status.UNKNOWN)


def test_a_check_that_did_not_read_what_is_damaged_keeps_its_verdict() -> None:
    who = patient_of("rtx3090-healthy", "")
    for source, content in ((file("/proc/uptime"), b"12"), (file(f"{DEVICE}/max_link_speed"), b"")):
        host = read_host(Hurt(who.machine, {source: content}))
        assert [gap.source for gap in host.unread] == [source.key]
        found = {row.id: row.status for row in run(host, catalogue(), ALL).results}
        changed = {id for id, status in found.items() if status is not who.verdicts[id]}
        assert changed <= {"os.clock", "gpu.link-speed"}
        assert {found[id] for id in changed} <= {Status.UNKNOWN}


@for_each("name", names())
def test_nothing_is_damaged_on_a_recorded_machine(name: str) -> None:
    assert {gap.source for gap in read_host(load(name)).unread} <= {"kernel log"}


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("/sys/bus/pci/devices/0000:01:00.0/aer_dev_correctable", b"RxErr 0\ndev_cor_errs_bit[9] 3\nTOTAL_ERR_COR 3\n"),
        ("/sys/bus/pci/devices/0000:01:00.0/ras/umc_err_count", b"Query currently inaccessible\n"),
        ("/sys/bus/pci/devices/0000:01:00.0/max_link_speed", b"Unknown\n"),
        ("/sys/class/dmi/id/product_name", b"Aspire\xae 5 \n"),
        (
            "/proc/modules",
            b"nvidia 9 2 nvidia_uvm,nvidia_modeset, Loading 0x0000000000000000 (POE+)\nloop 1 0 - Live 0x0\n",
        ),
        ("/proc/modules", b""),
        ("/proc/locks", b""),
        ("/proc/self/cgroup", b"9:name=systemd:/\n0::/../user.slice\n"),
        ("/proc/sys/kernel/osrelease", b"5.15.167.4-microsoft-standard-WSL2\n"),
        ("/etc/passwd", b"\nroot:x:0:0:root:/root:/bin/bash\nmueller:x:1000:1000:M\xfcller:/home/m:/bin/bash\n+::::::"),
        ("/etc/apt/sources.list", b"deb cdrom:[Ubuntu 24.04 _Noble_ - amd64]/ noble main\ndeb http://x/ ./"),
        ("/etc/modprobe.d/a.conf", b"options nvidia \\\n  NVreg_X=1\n\n# end"),
        ("/etc/os-release", b'ID=ubuntu\n\nVERSION="24.04 (Noble)"'),
    ],
)
def test_what_real_machines_write_is_no_damage(source: str, content: bytes) -> None:
    assert damage(source, content) is None


def test_every_source_that_is_read_is_known_to_lead_to_facts() -> None:
    asked = {source for number in range(0, len(pairs()), 40) for source in patient(number).seen}
    called = {"nvidia": "nvml", "amd": "amdsmi", "docker": "docker info"}
    sources = {f"file system of {one.key}" if one.kind == "space" else called.get(one.name, one.name) for one in asked}
    assert [source for source in sorted(sources) if not facts_from(source)] == []


def test_a_sample_of_the_fuzz() -> None:
    for case in cases(seed=0, first=0, count=100):
        assert (case.crashes, case.silent) == ((), ()), case.row()
        assert not (case.wrong and case.noticeable), case.row()
