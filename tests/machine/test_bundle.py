"""`doctor --bundle FILE`, and `--machine FILE` on bundles that friends and strangers made."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.allowed import sources as allowed
from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.registry import ALL
from checks.runner import run
from gpu_setup import bundle
from machine import bundle as file_format
from machine.bundle import LARGEST, unpack
from machine.errors import BadUsage
from machine.local import Unreadable
from machine.open_recording import open_recording
from machine.recorder import RecordingMachine, identities_of, machine_file, write
from machine.recording import RecordedMachine
from machine.whole_file import BUNDLE, save
from tests.cpu_time import at_most
from tests.recorded_machines import FEW, load, machine_path, names
from tests.subjects import for_each
from tests.tool import Cli

pytestmark = pytest.mark.long

HEALTHY = machine_path("rtx3090-healthy")


def statuses(stdout: str) -> dict[str, str]:
    return {row["id"]: row["status"] for row in json.loads(stdout)["data"]["results"]}


def answers_the_same_as_a_bundle(name: str, file: Path) -> None:
    seen = RecordingMachine(load(name))
    report = run(read_host(seen), catalogue(), ALL)
    written = bundle.write(seen, report, catalogue(), str(file), force=False)
    again = run(read_host(open_recording(written.file)), catalogue(), ALL)
    assert [(row.id, row.status) for row in again.results] == [(row.id, row.status) for row in report.results]
    assert written.different == ()


@for_each("name", FEW)
def test_a_recording_answers_the_same_as_a_bundle(name: str, tmp_path: Path) -> None:
    answers_the_same_as_a_bundle(name, tmp_path / f"{name}.tar.gz")


@for_each("name", [name for name in names() if name not in FEW])
def test_every_recording_answers_the_same_as_a_bundle(name: str, tmp_path: Path) -> None:
    answers_the_same_as_a_bundle(name, tmp_path / f"{name}.tar.gz")


def test_this_machine_as_a_bundle(cli: Cli, tmp_path: Path) -> None:
    result = cli("doctor", "--bundle", "gpu.tar.gz")
    file = tmp_path / "gpu.tar.gz"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_size < 1_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.tar.gz"]
    assert "Bundle: gpu.tar.gz" in result.stdout and "review it before you send it" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80

    direct = cli("doctor", "--json")
    replayed = cli("doctor", "--json", "--machine", str(file))
    assert statuses(replayed.stdout) == statuses(direct.stdout)
    assert replayed.returncode == direct.returncode
    assert cli("facts", "--json", "--machine", str(file)).returncode == 0
    assert cli("plan", "--json", "--machine", str(file)).returncode in (0, 3)


def test_what_is_in_it_can_be_looked_through(cli: Cli, tmp_path: Path) -> None:
    cli("doctor", "--machine", HEALTHY, "--bundle", "b.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        found = {member.name: member for member in archive}
        assert all(member.isreg() or member.issym() for member in found.values())
        assert all((member.uid, member.uname, member.mtime) == (0, "", 0) for member in found.values())
        readme = archive.extractfile("gpu-setup-bundle/README.txt")
        doctor = archive.extractfile("gpu-setup-bundle/doctor.json")
        machine = archive.extractfile("gpu-setup-bundle/machine.json")
        assert readme and doctor and machine
        assert b"review it before you share it" in readme.read()
        assert json.loads(doctor.read())["schema"] == "gpu-setup/doctor/1"
        about = json.loads(machine.read())
    assert about["tool_version"] and about["synthetic"] == ["/"]


def test_as_json_stdout_is_the_document_alone(cli: Cli) -> None:
    result = cli("doctor", "--json", "--machine", HEALTHY, "--bundle", "b.tar.gz")
    assert json.loads(result.stdout)["schema"] == "gpu-setup/doctor/1"
    assert result.stderr.startswith("Bundle: b.tar.gz")


def test_nothing_is_overwritten_unless_allowed(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_text("mine")
    refused = cli("doctor", "--machine", HEALTHY, "--bundle", str(file))
    assert (refused.returncode, file.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    assert cli("doctor", "--machine", HEALTHY, "--bundle", str(file), "--force").returncode == 0
    assert file.read_bytes()[:2] == b"\x1f\x8b" and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_link_in_the_files_place_is_not_followed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "b.tar.gz").symlink_to("precious")
    assert cli("doctor", "--machine", HEALTHY, "--bundle", "b.tar.gz").returncode == 2
    assert cli("doctor", "--machine", HEALTHY, "--bundle", "b.tar.gz", "--force").returncode == 0
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "b.tar.gz").is_symlink()


@pytest.mark.parametrize(
    ("file", "code", "says"), [(".", 2, "is a folder"), ("none/b.tar.gz", 4, "could not be written")]
)
def test_a_place_that_cannot_be_written_is_an_error(cli: Cli, tmp_path: Path, file: str, code: int, says: str) -> None:
    result = cli("doctor", "--machine", HEALTHY, "--bundle", file)
    assert (result.returncode, says in result.stderr) == (code, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_during_the_work_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "b.tar.gz"
    fsync = os.fsync

    def slow_disk(handle: int) -> None:
        fsync(handle)
        place.write_text("theirs")

    monkeypatch.setattr(os, "fsync", slow_disk)
    with pytest.raises(BadUsage, match="exists already"):
        save(str(place), b"mine", False, BUNDLE)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("b.tar.gz", "theirs")]


def test_a_log_of_many_megabytes_still_fits(tmp_path: Path) -> None:
    machine = load("rtx3090-healthy")
    noise = "".join(
        f"[{n:>5}.000000] host kernel: NVRM: Xid (PCI:0000:01:00): 31, {zlib.crc32(b'%d' % n):x}\n"
        for n in range(90_000)
    )
    seen = RecordingMachine(machine)
    report = run(read_host(seen), catalogue(), ALL)
    for argv, outcome in list(seen.outcomes.items()):
        if argv[0] == "journalctl":
            seen.outcomes[argv] = outcome._replace(stdout=noise)
    with at_most(5):
        written = bundle.write(seen, report, catalogue(), str(tmp_path / "b.tar.gz"), force=False)
    assert written.size < 1_000_000
    host = read_host(open_recording(written.file))
    assert host.kernel.log is not None and "89999" in host.kernel.log[-1]


def test_names_that_are_not_utf8_are_kept_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "from/sysroot/etc/modprobe.d").mkdir(parents=True)
    (tmp_path / "from/sysroot/etc/modprobe.d/\udcff.conf").write_bytes(b"blacklist nvidia\n")
    (tmp_path / "from/paths.json").write_text(r'{"names": {"/etc/modprobe.d": ["\udcfe.conf"]}}')
    seen = RecordingMachine(RecordedMachine(tmp_path / "from"))
    report = run(read_host(seen), catalogue(), ALL)
    bundle.write(seen, report, catalogue(), str(tmp_path / "b.tar.gz"), force=False)
    write(seen, tmp_path / "folder", identities_of(seen), {}, allowed)
    (tmp_path / "b.machine").write_bytes(machine_file(seen, identities_of(seen), {}, allowed))
    for name in ("from", "b.tar.gz", "folder", "b.machine"):
        assert open_recording(str(tmp_path / name)).list("/etc/modprobe.d") == ("\udcfe.conf", "\udcff.conf"), name


# ---- made to do harm


def archive(*members: tuple[str, bytes | str] | tarfile.TarInfo, **settings: int) -> bytes:
    """A .tar.gz of files (bytes), links (text) and whatever else a TarInfo can say."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=settings.get("format", tarfile.PAX_FORMAT)) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return gzip.compress(data.getvalue())


def info(name: str, type: bytes, **more: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = type
    for key, value in more.items():
        setattr(found, key, value)
    return found


OS = ("r/sysroot/etc/os-release", b'ID=ubuntu\nVERSION_ID="24.04"\n')
NOT_A_BUNDLE: dict[str, Callable[[], bytes]] = {
    "dots": lambda: archive(OS, ("r/sysroot/../../../../tmp/evil", b"x")),
    "absolute": lambda: archive(OS, ("/etc/cron.d/evil", b"x")),
    "twice": lambda: archive(OS, OS),
    "link and below it": lambda: archive(OS, ("r/sysroot/a", "/etc"), ("r/sysroot/a/passwd", b"x")),
    "hard link": lambda: archive(OS, info("r/sysroot/b", tarfile.LNKTYPE, linkname="/etc/shadow")),
    "device": lambda: archive(OS, info("r/sysroot/dev", tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "pipe": lambda: archive(OS, info("r/sysroot/pipe", tarfile.FIFOTYPE)),
    "no recording": lambda: archive(("a.txt", b"x"), ("b.txt", b"y")),
    "one file": lambda: archive(("a.txt", b"x")),
    "empty": lambda: b"",
    "empty archive": lambda: archive(),
    "text": lambda: b"hello, this is no archive at all\n" * 50,
    "zip": lambda: b"PK\x03\x04" + b"\0" * 600,
    "cut": lambda: archive(OS, ("r/sysroot/etc/x", os.urandom(9000)))[:-5000],
    "cut inside": lambda: gzip.compress(gzip.decompress(archive(OS, ("r/sysroot/etc/x", b"y" * 9000)))[:-12000]),
    "flipped": lambda: archive(OS)[:40] + b"\xff\xff" + archive(OS)[42:],
    "bomb": lambda: gzip.compress(b"\0" * (LARGEST + 5), compresslevel=1),
    "bombs in a row": lambda: gzip.compress(b"\0" * (LARGEST // 8), compresslevel=1) * 9,
    "many": lambda: archive(*((f"r/sysroot/{n}", b"") for n in range(20_001))),
    "huge file": lambda: os.urandom(file_format.LARGEST_FILE + 1),
    "wrong size": lambda: _wrong_size(),
}  # fmt: skip


def _wrong_size() -> bytes:
    header = info("r/sysroot/etc/huge", tarfile.REGTYPE, size=1 << 40)
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)


@pytest.mark.parametrize("kind", NOT_A_BUNDLE)
def test_what_is_no_plain_bundle_is_refused_quickly(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(NOT_A_BUNDLE[kind]())
    with at_most(2), pytest.raises(BadUsage):
        open_recording(str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar.gz"]


def test_a_refusal_says_why_and_what_next(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(NOT_A_BUNDLE["zip"]())
    result = cli("doctor", "--machine", "b.zip")
    assert (result.returncode, result.stdout) == (2, "")
    assert "ZIP archive" in result.stderr and "Unpack it" in result.stderr
    document = json.loads(cli("doctor", "--json", "--machine", "b.zip").stdout)
    assert document["errors"][0]["code"] == "bundle.broken"


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(
        archive(OS, ("r/sysroot/etc/passwd", "../../../../../../etc/passwd"), ("r/sysroot/etc/group", "/etc/group"))
    )
    machine = open_recording(str(file))
    for path in ("/etc/passwd", "/etc/group"):
        with pytest.raises(Unreadable):
            machine.read(path)


@pytest.mark.parametrize("top", ["", "./", "folder/"])
def test_an_archive_packed_by_hand_is_read_too(tmp_path: Path, top: str) -> None:
    (tmp_path / "b.tar.gz").write_bytes(archive((f"{top}sysroot/etc/os-release", OS[1]), (f"{top}session.json", b"{}")))
    assert read_host(open_recording(str(tmp_path / "b.tar.gz"))).os.id == "ubuntu"


def test_names_and_contents_cannot_steer_the_terminal(cli: Cli, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    files = (
        ("r/sysroot/etc/os-release", f'ID=ubuntu\nPRETTY_NAME="Ubuntu {evil}"\n'.encode()),
        (f"r/sysroot/etc/modprobe.d/{evil}.conf", b"blacklist nvidia\n"),
        (f"r/sysroot/etc/apt/sources.list.d/{evil}\n.list", b"deb x y\n"),
        # a name that is not UTF-8
        ("r/sysroot/etc/modprobe.d/\udcff.conf", b"blacklist amdgpu\n"),
        ("r/machine.json", json.dumps({"name": f"box{evil}"}).encode()),
    )  # fmt: skip
    (tmp_path / "b.tar.gz").write_bytes(archive(*files))
    for command in (("doctor", "-v"), ("facts",), ("plan",), ("doctor", "--json"), ("facts", "--json")):
        result = cli(*command, "--machine", "b.tar.gz")
        assert result.returncode in (0, 1, 3), result.stderr
        assert "\x1b" not in result.stdout + result.stderr
        assert "\x07" not in result.stdout + result.stderr


def test_every_byte_may_be_wrong(tmp_path: Path) -> None:
    """One flipped bit anywhere: read or refused, nothing else."""
    whole = gzip.decompress(
        archive(
            OS, ("r/paths.json", b'{"names": {"/opt": ["rocm"]}}'), ("r/sysroot/link", "etc"), ("r/" + "n" * 150, b"")
        )
    )
    file = tmp_path / "b.tar.gz"
    for at in range(0, len(whole), 47):
        broken = bytearray(whole)
        broken[at] ^= 1 << at % 8
        file.write_bytes(gzip.compress(bytes(broken), compresslevel=1))
        try:
            read_host(open_recording(str(file)))
        except BadUsage:
            continue


def test_a_pax_header_made_to_take_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    header = info("x", tarfile.XHDTYPE, size=1 << 20)
    file.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + b"1" * (1 << 20) + b"\0" * 1024))
    with at_most(2), pytest.raises(BadUsage):
        unpack(str(file))
