"""Reading a whole machine: one probe's trouble costs its own facts only, and nothing hangs for long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from checks.allowed import sources as allowed
from checks.facts import pci
from checks.facts.read import read_host
from machine import recorder
from machine.errors import BadUsage
from machine.local import DENIED, SMALL_FILE, TIMED_OUT, LocalMachine, Outcome, Space, Unreadable
from machine.recording import RecordedMachine
from tests.machine.test_recording import recording

HANGS = (sys.executable, "-c", "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")


class Hanging(LocalMachine):
    """This machine, except that NVML, amdsmi, docker, the journal and a network drive never answer."""

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        return super().run(HANGS, timeout)

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        return super().run(HANGS, timeout, env)

    def access(self, path: str, wanted: int) -> bool | None:
        return True if path.endswith(("/docker", "/docker.sock")) else super().access(path, wanted)

    def space(self, path: str) -> Space | None:
        time.sleep(60)
        return None


@pytest.mark.long
def test_a_probe_that_hangs_is_given_up() -> None:
    begin = time.monotonic()
    host = read_host(Hanging(), patience=0.6)
    assert time.monotonic() - begin < 30, "each of them hangs for a minute; benchmarks/doctor_hanging.py says how soon"
    assert (host.nvidia.nvml_problem, host.amd.amdsmi_problem) == (TIMED_OUT, TIMED_OUT)
    assert (host.docker.answers, host.docker.problem) == (False, TIMED_OUT)
    assert host.kernel.log is None and host.resources.disks is None
    assert {"kernel log", "disks"} <= {gap.source for gap in host.unread}
    assert host.os.id and host.kernel.release


def test_a_probe_that_crashes_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(pci, "read_cards", crash)
    host = read_host(LocalMachine())
    assert host.cards is None
    assert host.os.id is not None
    assert [gap.reason for gap in host.unread if gap.source == "pci"] == ["crashed: ZeroDivisionError: a bug of ours"]


class Denied(LocalMachine):
    """This machine with a file that may not be read."""

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        if path == "/etc/os-release":
            raise Unreadable(path, DENIED, "Permission denied")
        return super().read(path, limit)


def test_an_unreadable_value_is_unknown_and_reported() -> None:
    host = read_host(Denied())
    assert host.os.id is None
    assert ("/etc/os-release", "denied: Permission denied") in {(gap.source, gap.reason) for gap in host.unread}


def test_absence_is_no_gap(tmp_path: Path) -> None:
    place = recording(tmp_path / "r", commands=[{"argv": ["dmesg"], "rc": 0, "stdout": "[    0.0] x\n"}])
    host = read_host(RecordedMachine(place))
    assert host.cards == () and host.kernel.modules == () and host.apt.packages is None
    assert (host.nvidia.nvml_problem, host.amd.amdsmi_problem) == ("absent", "absent")
    assert [gap.source for gap in host.unread] == []


def test_the_files_beside_the_modules_of_dkms_are_no_gap(tmp_path: Path) -> None:
    files = {f"/var/lib/dkms/{name}": b"x" for name in ("mok.key", "mok.pub", "dkms_dbversion")}
    place = recording(tmp_path / "r", files, commands=[{"argv": ["dmesg"], "rc": 0, "stdout": "[    0.0] x\n"}])
    host = read_host(RecordedMachine(place))
    assert host.kernel.dkms == ()
    assert host.unread == ()


def test_a_strict_recording_fails_the_test_that_asks_for_more(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="journalctl"):
        read_host(RecordedMachine(recording(tmp_path / "r"), strict=True))


def test_a_card_in_d3cold_is_not_woken(tmp_path: Path) -> None:
    at = "/sys/bus/pci/devices/0000:01:00.0"
    values = {"class": "0x030000", "vendor": "0x10de", "device": "0x2684", "power_state": "D3cold"}
    values |= {"current_link_speed": "2.5 GT/s PCIe", "max_link_speed": "16.0 GT/s PCIe"}
    files = {f"{at}/{name}": f"{value}\n".encode() for name, value in values.items()}
    seen = recorder.RecordingMachine(RecordedMachine(recording(tmp_path / "r", files)))
    (card,) = read_host(seen).cards or ()
    assert (card.power_state, card.link) == ("D3cold", None)
    assert not [path for path in seen.files if "link" in path or path.endswith("config")]


def test_this_machine_recorded_and_replayed_is_the_same_machine(tmp_path: Path) -> None:
    seen = recorder.RecordingMachine(LocalMachine())
    live = read_host(seen)
    who = recorder.identities_of(seen)
    recorder.write(seen, tmp_path / "r", who, {"name": "this machine", "synthetic": []}, allowed)
    replayed = read_host(RecordedMachine(tmp_path / "r", strict=True))
    for part in ("cards", "firmware", "nvidia", "amd", "docker", "python", "os"):
        assert getattr(replayed, part) == getattr(live, part), part
    assert replayed.apt.packages == live.apt.packages
    assert [(row.owner, row.suite) for row in replayed.apt.sources or ()] == [
        (row.owner, row.suite) for row in live.apt.sources or ()
    ]
    # what recordings hide: ids of boots and disks, addresses; what they keep: everything that is compared below
    changed = {"release", "version", "cmdline", "boot_id", "log"}
    assert str(replayed.kernel.release).split("-")[0] == str(live.kernel.release).split("-")[0]
    for name in set(msgspec.structs.asdict(live.kernel)) - changed:
        assert getattr(replayed.kernel, name) == getattr(live.kernel, name), name
    assert len(replayed.kernel.cmdline or ()) == len(live.kernel.cmdline or ())
    assert len(replayed.kernel.log or ()) == len(live.kernel.log or ())
    assert replayed.resources.memory_total == live.resources.memory_total
    assert [d.total for d in replayed.resources.disks or ()] == [d.total for d in live.resources.disks or ()]
    assert replayed.person.groups == live.person.groups
    assert replayed.unread == live.unread


def test_a_recording_holds_no_more_than_was_read_and_nothing_that_identifies(tmp_path: Path) -> None:
    files = {
        "/etc/os-release": b"ID=ubuntu\n",
        "/etc/passwd": b"alice:x:1000:1000:Alice Smith:/home/alice:/bin/bash\n",
        "/etc/group": b"render:x:992:alice\n",
        "/proc/sys/kernel/hostname": b"rechenknecht\n",
        "/proc/cmdline": b"root=UUID=2f6d1c1e-7b52-4f4e-9f6a-0a1b2c3d4e5f ro quiet\n",
        "/etc/apt/sources.list": b"deb https://alice:geheim@apt.corp/ubuntu noble main\n",
        "/etc/shadow": b"never read",
    }
    session = {"uid": 1000, "user": "alice", "gids": [1000], "environ": {"HOME": "/home/alice", "TOKEN": "x"}}
    seen = recorder.RecordingMachine(RecordedMachine(recording(tmp_path / "from", files, session=session)))
    read_host(seen)
    recorder.write(seen, tmp_path / "to", recorder.identities_of(seen), {"name": "x"}, allowed)
    written = {path: path.read_bytes() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    everything = b"\n".join([*written.values(), *(str(path).encode() for path in written)])
    for secret in (b"alice", b"Smith", b"rechenknecht", b"2f6d1c1e", b"geheim", b"never read", b"TOKEN"):
        assert secret not in everything
    person = read_host(RecordedMachine(tmp_path / "to")).person
    assert (person.user, person.database_groups) == ("user", ("render",))


def test_links_are_recorded_with_their_targets(tmp_path: Path) -> None:
    place = recording(tmp_path / "from", {"/sys/devices/pci0/0000:01:00.0/vendor": b"0x10de\n"})
    bus = place / "sysroot/sys/bus/pci"
    bus.mkdir(parents=True)
    (bus / "card").symlink_to("../../devices/pci0/0000:01:00.0")
    (place / "sysroot/opt").symlink_to("/sys")
    seen = recorder.RecordingMachine(RecordedMachine(place))
    assert (seen.read("/sys/bus/pci/card/vendor"), seen.link("/sys/bus/pci/card")) == (
        b"0x10de\n",
        "../../devices/pci0/0000:01:00.0",
    )
    assert (seen.link("/opt"), seen.list("/opt/bus/pci")) == ("/sys", ("card",))
    recorder.write(seen, tmp_path / "to", recorder.identities_of(seen), {}, allowed)
    again = RecordedMachine(tmp_path / "to")
    assert (again.read("/sys/bus/pci/card/vendor"), again.link("/sys/bus/pci/card")) == (
        b"0x10de\n",
        "../../devices/pci0/0000:01:00.0",
    )
    assert (again.link("/opt"), again.list("/opt/bus/pci")) == ("/sys", ("card",))


def test_a_recording_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seen = recorder.RecordingMachine(LocalMachine())
    with pytest.raises(BadUsage, match="not empty"):
        recorder.write(seen, tmp_path, recorder.identities_of(seen), {}, allowed)


def test_a_binding_that_hangs_is_recorded_as_timed_out(tmp_path: Path) -> None:
    seen = recorder.RecordingMachine(Hanging())
    seen.binding("nvidia", 0.2)
    recorder.write(seen, tmp_path / "r", recorder.identities_of(LocalMachine()), {}, allowed)
    assert read_host(RecordedMachine(tmp_path / "r")).nvidia.nvml_problem == TIMED_OUT


def test_permissions_from_an_access_list_are_kept(tmp_path: Path) -> None:
    class Listed(LocalMachine):
        def access(self, path: str, wanted: int) -> bool | None:
            return wanted == os.R_OK

    seen = recorder.RecordingMachine(Listed())
    seen.access("/dev/null", os.R_OK | os.W_OK)
    recorder.write(seen, tmp_path / "r", recorder.identities_of(LocalMachine()), {}, allowed)
    again = RecordedMachine(tmp_path / "r")
    assert (again.access("/dev/null", os.R_OK), again.access("/dev/null", os.W_OK)) == (True, False)
