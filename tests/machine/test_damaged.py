"""Real outputs damaged in every way that disks, drivers and strangers know: read or unknown, never a crash or a lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.read import read_host
from checks.model import DoctorReport, Status
from checks.registry import ALL
from checks.runner import run
from machine.errors import BadUsage
from machine.recording import RecordedMachine
from machine.recording_files import MemoryTree
from tests.cpu_time import at_most
from tests.recorded_machines import names, tree

pytestmark = pytest.mark.long

Damage = Callable[[bytes], bytes]


def damaged(name: str, changed: dict[str, bytes | None]) -> RecordedMachine:
    """The recording with these files changed, or gone (None)."""
    whole = tree(name)
    files = {path: data for path, data in (whole.files | changed).items() if data is not None}
    return RecordedMachine(MemoryTree(name, files, whole.links, ("sysroot",)))


def judged(host: Host) -> DoctorReport:
    report = run(host, catalogue(), ALL)
    crashed = [row.reason for row in report.results if "This check crashed" in row.reason]
    assert crashed == []
    assert [gap for gap in host.unread if gap.reason.startswith("crashed")] == []
    return report


def cut(at: float) -> Damage:
    return lambda data: data[: int(len(data) * at)]


def without(at: float, size: int) -> Damage:
    return lambda data: data[: int(len(data) * at)] + data[int(len(data) * at) + size :]


def twice(at: float, size: int) -> Damage:
    return lambda data: (
        data[: int(len(data) * at)]
        + data[int(len(data) * at) : int(len(data) * at) + size] * 2
        + data[int(len(data) * at) :]
    )


def flipped(at: float, bit: int) -> Damage:
    def flip(data: bytes) -> bytes:
        found = bytearray(data or b"\0")
        found[int((len(found) - 1) * at)] ^= 1 << bit
        return bytes(found)

    return flip


def with_piece(at: float, piece: bytes) -> Damage:
    return lambda data: data[: int(len(data) * at)] + piece + data[int(len(data) * at) :]


PLACE = st.floats(0, 1)
PIECES = st.sampled_from(
    (
        b"\0",
        b"\xff\xfe",
        b"\n\n",
        b"A" * 100_000,
        b" " * 50_000,
        b"9" * 5000,
        b"[" * 3000,
        b"\x1b[2J",
        b"-",
        b"\r",
        b":::",
        b"\\\n",
    )
)
DAMAGE = st.one_of(
    st.builds(cut, PLACE),
    st.builds(without, PLACE, st.integers(1, 200)),
    st.builds(twice, PLACE, st.integers(1, 400)),
    st.builds(flipped, PLACE, st.integers(0, 7)),
    st.builds(with_piece, PLACE, PIECES),
)


def everything(name: str) -> list[tuple[str, int]]:
    """Each file of sysroot and each document; of commands.json each command for itself."""
    found = [
        (path, -1) for path in tree(name).files if path.startswith("sysroot/") or path in ("nvml.json", "amdsmi.json")
    ]
    return found + [("commands.json", row) for row in range(len(json.loads(tree(name).files["commands.json"])))]


def hurt(name: str, source: tuple[str, int], damage: Damage) -> RecordedMachine:
    path, row = source
    data = tree(name).files[path]
    if row < 0:
        return damaged(name, {path: damage(data)})
    rows = json.loads(data)
    for stream in ("stdout", "stderr"):
        rows[row][stream] = damage(rows[row][stream].encode()).decode("utf-8", "replace")
    return damaged(name, {path: json.dumps(rows).encode()})


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_source_costs_its_own_facts_only(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names()))
    sources = data.draw(st.lists(st.sampled_from(everything(name)), min_size=1, max_size=1))
    try:
        machine = hurt(name, sources[0], data.draw(DAMAGE))
    except BadUsage:
        # a document of the recording itself that is no JSON any more is refused as a whole
        return
    judged(read_host(machine))


@pytest.mark.full
@pytest.mark.parametrize("name", names())
def test_every_source_of_every_machine_damaged(name: str) -> None:
    kinds = (
        cut(0),
        cut(0.5),
        without(0.3, 40),
        twice(0.2, 300),
        flipped(0.5, 3),
        with_piece(0.5, b"A" * 200_000),
        lambda _: b"\xff\0" * 900,
    )
    for source in everything(name):
        for damage in kinds:
            with at_most(5, source):
                try:
                    judged(read_host(hurt(name, source, damage)))
                except BadUsage:
                    # NVML's document is no text any more: the recording is refused
                    assert source[0].endswith(".json")


# ---- a signal that is gone may not become "fine"

LOG = ("journalctl", "dmesg")
SIGNALS: dict[str, tuple[str, tuple[str, ...]]] = {
    # signal: (recording, checks that pass on it and rest on the signal)
    "kernel log": (
        "rtx3090-healthy",
        ("gpu.xid", "gpu.fell-off-bus", "gpu.power-state", "resources.oom-kills"),
    ),
    "kernel log (AMD)": (
        "rx7900xtx-healthy",
        ("gpu.amdgpu-errors", "kernel.firmware", "kernel.pcie-atomics", "gpu.fell-off-bus"),
    ),
    "dpkg": ("rtx3090-healthy", ("apt.dpkg",)),
    "nvml": (
        "rtx3090-healthy",
        ("driver.nvml", "gpu.heat", "gpu.power-cap", "gpu.compute-mode", "gpu.busy-memory"),
    ),
}


def ways(signal: str) -> Iterator[tuple[str, RecordedMachine]]:
    """The signal's recording with the signal destroyed, each time in another way."""
    name = SIGNALS[signal][0]
    garbage = b"\xff\0\x80 \n" * 300
    if signal.startswith("kernel log"):
        rows = json.loads(tree(name).files["commands.json"])

        def said(**outcome: object) -> RecordedMachine:
            changed = [row | outcome if row["argv"][0] in LOG else row for row in rows]
            listed = {row["argv"][0] for row in rows}
            # the recording holds one of the two; the other is asked when that one fails
            more = [{"argv": ["dmesg"], "rc": 1, "stdout": "", "stderr": ""} | outcome] if "dmesg" not in listed else []
            return damaged(name, {"commands.json": json.dumps(changed + more).encode()})

        yield "denied", said(rc=1, stdout="", stderr="dmesg: read kernel buffer failed: Operation not permitted")
        yield "hangs", said(rc=None, stdout="", problem="timed-out")
        yield "not installed", said(rc=None, stdout="", problem="absent")
        yield "empty", said(rc=0, stdout="")
        yield "garbage", said(rc=0, stdout=garbage.decode("utf-8", "replace"))
        yield (
            "hint only",
            said(rc=0, stdout="Hint: You are currently not seeing messages from other users and the system.\n"),
        )
    elif signal == "dpkg":
        path = "sysroot/var/lib/dpkg/status"
        yield "absent", damaged(name, {path: None})
        yield "empty", damaged(name, {path: b""})
        yield "garbage", damaged(name, {path: garbage})
        paths = json.loads(tree(name).files["paths.json"])
        paths.setdefault("unreadable", {})["/var/lib/dpkg/status"] = {"reason": "denied", "detail": ""}
        yield "denied", damaged(name, {path: None, "paths.json": json.dumps(paths).encode()})
    else:
        for problem in ("timed-out", "crashed (signal 11)", "Unknown Error"):
            yield problem, damaged(name, {"nvml.json": json.dumps({"problem": problem, "gpus": []}).encode()})
        yield "absent", damaged(name, {"nvml.json": None})
        yield "empty", damaged(name, {"nvml.json": b""})
        yield "garbage", damaged(name, {"nvml.json": garbage.decode("utf-8", "replace").encode()})
        yield "cut", damaged(name, {"nvml.json": tree(name).files["nvml.json"][:200]})
        yield "nulls", damaged(name, {"nvml.json": b'{"problem": null, "gpus": [{"slot": null}]}'})


@pytest.mark.parametrize("signal", SIGNALS)
def test_what_rests_on_a_destroyed_signal_does_not_pass(signal: str) -> None:
    name, resting = SIGNALS[signal]
    healthy = {row.id: row.status for row in judged(read_host(damaged(name, {}))).results}
    assert {healthy[id] for id in resting} == {Status.PASS}
    for way, machine in ways(signal):
        found = {row.id: (row.status, row.reason) for row in judged(read_host(machine)).results}
        passed = {id: found[id][1] for id in resting if found[id][0] is Status.PASS}
        assert passed == {}, way


# ---- whole recordings


def test_a_file_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    sysroot = tmp_path / "sysroot"
    for path in ("proc/cmdline", "var/lib/dpkg/status", "etc/os-release", "proc/cpuinfo"):
        (sysroot / path).parent.mkdir(parents=True, exist_ok=True)
        with (sysroot / path).open("wb") as file:
            file.truncate(1 << 30)
    with at_most(5):
        host = judged_host(RecordedMachine(tmp_path))
    assert any(gap.source == "/var/lib/dpkg/status" and "too-large" in gap.reason for gap in host.unread)


def judged_host(machine: RecordedMachine) -> Host:
    host = read_host(machine)
    judged(host)
    return host


@pytest.mark.parametrize("document", ["paths.json", "commands.json", "session.json", "machine.json"])
def test_a_document_of_a_gigabyte_is_refused(tmp_path: Path, document: str) -> None:
    (tmp_path / "sysroot").mkdir()
    with (tmp_path / document).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BadUsage, match="larger than"):
        RecordedMachine(tmp_path)


def test_an_empty_sysroot_is_a_machine_of_which_nothing_is_known() -> None:
    report = judged(read_host(RecordedMachine(MemoryTree("empty", {}, {}, ("sysroot",)))))
    assert report.summary.fail == 0


def test_hostile_links_and_names_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("MACHINE_SECRET")
    sysroot = tmp_path / "m/sysroot"
    for folder in ("etc/modprobe.d", "etc/apt/sources.list.d", "boot", "proc", "opt"):
        (sysroot / folder).mkdir(parents=True)
    (sysroot / "etc/os-release").symlink_to("../../../secret")
    (sysroot / "etc/modprobe.d/a.conf").symlink_to("/../../../../secret")
    (sysroot / "etc/modprobe.d/\x1b[2J.conf").write_text("blacklist nvidia\n")
    (sysroot / "etc/apt/sources.list.d/x.list").symlink_to("x.list")
    os.mkfifo(sysroot / "proc/cmdline")
    (sysroot / "boot/vmlinuz-..").write_text("")
    (sysroot / "opt/rocm").symlink_to("..")
    host = judged_host(RecordedMachine(tmp_path / "m"))
    assert "MACHINE_SECRET" not in repr(host)
