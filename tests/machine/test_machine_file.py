"""Recorded machines in one text file: the same machine as a folder, easy to change by hand, and safe from strangers."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machine import machine_file
from machine.errors import BadUsage
from machine.local import Unreadable
from machine.machine_file_writer import RecordingParts, parts_of, text
from machine.open_recording import open_recording
from machine.recording import RecordedMachine
from machine.recording_files import FolderTree, MemoryTree
from machine.words import quote, words
from tests.cpu_time import at_most
from tests.recorded_machines import machine_path, names
from tests.tool import Cli

pytestmark = pytest.mark.long

HEALTHY = Path(machine_path("rtx3090-healthy")).read_bytes()
TOP = machine_file.MAGIC + b"\n"
END = b"=== end\n"


def whole(machine: RecordedMachine) -> dict[str, Any]:
    """Everything that a recorded machine can answer."""
    found = {key: value for key, value in vars(machine).items() if key != "tree"}
    parts = parts_of(machine.tree)
    return {**found, "files": parts.files, "links": parts.links, "folders": sorted(parts.folders)}


# ---- a folder becomes a file

CHARACTERS = st.characters(exclude_categories=["Cs"])
SPECIAL = st.sampled_from(
    ("=== end", "=== file /x", "a b", '"', '""', "\\", "->", "\u202e", "\xa0", "\x85", "\r", "\x1b[2J", "é", "'")
)
WORD = st.one_of(SPECIAL, st.text(CHARACTERS, max_size=8))
LINES = st.lists(st.one_of(SPECIAL, WORD), max_size=4).map("\n".join)
NUMBER = st.integers(-(1 << 63), (1 << 64) - 1)
NAME = st.one_of(SPECIAL, st.text(CHARACTERS, max_size=6), st.just("\udcff")).filter(
    lambda name: name not in ("", ".", "..") and "/" not in name and "\0" not in name
)
PLAIN_NAME = NAME.filter(lambda name: "\udcff" not in name)
PATH = st.lists(PLAIN_NAME, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
CONTENT = st.one_of(
    st.binary(max_size=20),
    LINES.map(str.encode),
    LINES.map(lambda lines: f"{lines}\n".encode()),
    st.just(b""),
    st.just(b"\n=== end\n"),
)
LEAF = st.one_of(
    st.tuples(st.just("file"), CONTENT),
    st.tuples(st.just("link"), WORD.filter(lambda target: target != "" and "\0" not in target)),
)
TREE = st.recursive(
    st.dictionaries(NAME, LEAF, max_size=3), lambda inner: st.dictionaries(NAME, st.one_of(LEAF, inner), max_size=3)
)
ENTRY = st.fixed_dictionaries(
    {"kind": WORD, "mode": st.integers(0, 0o7777)},
    optional={"uid": NUMBER, "gid": NUMBER, "size": NUMBER, "inode": NUMBER},
)
SPACE = st.fixed_dictionaries(
    {"free": NUMBER, "total": NUMBER, "options": st.lists(WORD, max_size=3)},
    optional={"inodes_free": st.none() | NUMBER, "fstype": WORD},
)
PATHS = st.fixed_dictionaries(
    {},
    optional={
        "stat": st.dictionaries(PATH, ENTRY, max_size=3),
        "space": st.dictionaries(PATH | st.just("/"), SPACE, max_size=2),
        "access": st.dictionaries(PATH, st.dictionaries(st.sampled_from("rwx"), st.booleans()), max_size=2),
        "names": st.dictionaries(PATH | st.just("/"), st.lists(PLAIN_NAME, max_size=3), max_size=2),
        "unreadable": st.dictionaries(
            PATH, st.fixed_dictionaries({"reason": WORD}, optional={"detail": WORD}), max_size=2
        ),
    },
)
COMMAND = st.fixed_dictionaries(
    {"argv": st.lists(WORD, max_size=3)},
    optional={
        "rc": st.none() | NUMBER,
        "stdout": LINES,
        "stderr": LINES,
        "seconds": st.floats(allow_nan=False, allow_infinity=False),
        "problem": WORD,
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "paths.json": PATHS,
        "commands.json": st.lists(COMMAND, max_size=3),
        "session.json": st.fixed_dictionaries({}, optional={"uid": NUMBER, "user": WORD, "gids": st.lists(NUMBER)}),
        "machine.json": st.fixed_dictionaries({}, optional={"name": WORD, "taken_at": WORD, "more": WORD}),
        "nvml.json": st.dictionaries(WORD, WORD, max_size=2),
    },
)


def write_folder(folder: str, tree: dict[str, Any]) -> None:
    Path(folder).mkdir()
    for name, held in tree.items():
        place = f"{folder}/{name}"
        if isinstance(held, dict):
            write_folder(place, held)
        elif held[0] == "link":
            os.symlink(held[1], place)
        else:
            with open(place, "wb") as file:  # noqa: PTH123
                file.write(held[1])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREE, DOCUMENTS)
def test_a_folder_and_its_file_are_the_same_machine(tree: dict[str, Any], documents: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_folder(f"{folder}/sysroot", tree)
        for name, document in documents.items():
            Path(folder, name).write_text(json.dumps(document), encoding="utf-8")
        before = RecordedMachine(folder)
        data = text(parts_of(FolderTree(Path(folder))))
        after = RecordedMachine(machine_file.read(folder, data))
        assert whole(after) == whole(before)
    assert text(parts_of(after.tree)) == data, "a file that is read and written again is the same"


@given(st.lists(st.one_of(WORD, st.just("a\udcffb"), st.just("\udc80"))))
def test_words_are_read_back(found: list[str]) -> None:
    line = " ".join(map(quote, found))
    assert words(line) == found
    assert line.isprintable()


@pytest.mark.parametrize("name", names())
def test_every_recorded_machine_is_written_as_it_is_read(name: str) -> None:
    assert text(parts_of(open_recording(machine_path(name)).tree)) == Path(machine_path(name)).read_bytes()


def test_plain_files_are_in_it_as_they_are_and_others_escaped() -> None:
    files = {
        "sysroot/etc/plain": b"one\n\ttwo \xc3\xa9\n\n",
        "sysroot/etc/empty": b"",
        "sysroot/etc/open": b"no line end",
        "sysroot/etc/bytes": b"\x06\x00\\\n\xff",
        "sysroot/etc/marks": b"=== end\n",
    }
    data = text(parts_of(MemoryTree("x", files, {"sysroot/a": "b c"}, ("sysroot", "sysroot/opt"))))
    assert data.decode() == (
        "gpu-setup recorded machine, format 1\n"
        '=== link /a -> "b c"\n'
        "=== escaped file /etc/bytes\n\\x06\\x00\\\\\n\\xff\\\n"
        "=== file /etc/empty\n"
        "=== escaped file /etc/marks\n\\x3d== end\n"
        "=== escaped file /etc/open\nno line end\\\n"
        "=== file /etc/plain\none\n\ttwo é\n\n"
        "=== folder /opt\n"
        "=== end\n"
    )


def test_a_folder_with_a_hundred_thousand_names_is_read() -> None:
    names = tuple(f"lib{number:06}.so" for number in range(100_000))
    paths = {"names": {"/usr/lib": names}}
    data = text(RecordingParts({}, {}, (), {}, paths, ()))
    assert RecordedMachine(machine_file.read("x", data)).list("/usr/lib") == names


# ---- changed by hand


def test_one_line_changed_by_hand_changes_the_machine() -> None:
    data = HEALTHY.replace(b"/boot/vmlinuz-6.17.0-35-generic file 600", b"/boot/vmlinuz-6.17.0-35-generic   file 644")
    data = data.replace(
        b"\n6.17.0-35-generic\n=== file /proc/sys/kernel/random", b"\n7.0\n=== file /proc/sys/kernel/random"
    )
    machine = RecordedMachine(machine_file.read("x", data))
    assert machine.read("/proc/sys/kernel/osrelease") == b"7.0\n"
    assert machine.stat("/boot/vmlinuz-6.17.0-35-generic").mode == 0o644


# what is wrong with two lines together is found at the other one, a missing comma on the line after it
SEEN_AT = {
    "a folder and also a file": "=== file /proc/cpuinfo",
    "listed twice under stat": "/dev/nvidia0 char 666 0:0 0",
    "not JSON": ' "user": "alex"',
}


@pytest.mark.parametrize(
    ("line", "instead", "says"),
    [
        ("gpu-setup recorded machine, format 1", "gpu-setup recorded machine, format 2", "first line must be"),
        ("gpu-setup recorded machine, format 1", "\ufeffgpu-setup recorded machine, format 1", "first line must be"),
        ("=== file /proc/cmdline", "=== fill /proc/cmdline", "not the header of a section"),
        ("=== stat", "=== stat of things", "not the header of a section"),
        ("=== file /proc/cmdline", "=== file proc/cmdline", "not a plain absolute path"),
        ("=== file /proc/cmdline", "=== file /proc/../cmdline", "not a plain absolute path"),
        ("=== file /proc/cmdline", "=== file /proc/locks", "recorded twice"),
        ("=== file /proc/cmdline", "=== file /", "always recorded"),
        ("=== file /proc/cmdline", "=== file /proc/cpuinfo/cmdline", "a folder and also a file"),
        ("=== file /proc/cmdline", "=== file /proc/a b", "one word is expected"),
        ("=== file /proc/cmdline", '=== file "/proc/a', "quotes are not closed"),
        ("=== file /proc/cmdline", '=== file "/proc/\\q"', "not a JSON string"),
        ("=== file /proc/cmdline", '=== file "/proc/\\ud800"', "not a JSON string"),
        ("=== file /proc/cmdline", '=== file "/proc/\\u0000"', "not a plain absolute path"),
        ("=== names /boot", "=== names /boot/..", "not a plain absolute path"),
        ("gcc-13", "../gcc-13", "not a file's name"),
        ("=== link /usr/bin/gcc -> gcc-13", "=== link /usr/bin/gcc gcc-13", "link PATH -> TARGET"),
        ("=== link /usr/bin/gcc -> gcc-13", "=== link /usr/bin/gcc -> gcc 13", "link PATH -> TARGET"),
        ("/dev/dri/card1 char 660 0:44 0", "/dev/dri/card1 char 680 0:44 0", "a number is expected instead of '680'"),
        ("/dev/dri/card1 char 660 0:44 0", "/dev/dri/card1 char 660 0:44", "PATH KIND MODE UID:GID SIZE"),
        ("/dev/dri/card1 char 660 0:44 0", "dev/dri/card1 char 660 0:44 0", "not a plain absolute path"),
        ("/dev/dri/card1 char 660 0:44 0", "/dev/nvidia0 char 660 0:44 0", "listed twice under stat"),
        ("/dev/dri/card1 +r +w", "/dev/dri/card1 rw", r"PATH \+r -w \+x"),
        ('/boot/grub/grub.cfg denied "Permission denied"', "/boot/grub/grub.cfg denied Permission denied", "in quotes"),
        (r"\x06\x00\x00\x00\x01" + "\\", r"\x06\x00\x00\x0 \x01" + "\\", "a backslash in an escaped section"),
        ("=== command exit 0, 0.02 s $ ldconfig -p", "=== command exit zero, 0.02 s $ ldconfig -p", "command exit N"),
        ("=== command exit 0, 0.02 s $ ldconfig -p", "=== command exit 0, fast s $ ldconfig -p", "command exit N"),
        ("=== command exit 0, 0.02 s $ ldconfig -p", "=== command exit 0, 1.2.3 s $ ldconfig -p", "to float"),
        ("=== command exit 0, 0.02 s $ ldconfig -p", "=== stderr of it", "must follow the command"),
        ("=== file /proc/cmdline", "=== stderr", "must follow the command"),
        ("=== command exit 0, 0.02 s $ ldconfig -p", "=== command exit 0, 0.02 s $ mokutil --list-new", "listed twice"),
        ("=== document nvml.json", "=== document ../nvml.json", "no document may be called"),
        ("=== document nvml.json", "=== document commands.json", "no document may be called"),
        ("=== document nvml.json", "=== document session.json", "is listed twice"),
        (' "uid": 1000,', ' "uid": 1000', "not JSON"),
        (' "uid": 1000,', ' "uid": 1000,\r', "Windows line ends"),
        (' "uid": 1000,', ' "uid": 1000,\x1b', "control character"),
        ("=== end", "=== fin", "incomplete"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_line(line: str, instead: str, says: str) -> None:
    lines = HEALTHY.decode().split("\n")
    number = lines.index(line)
    lines[number] = instead
    with pytest.raises(BadUsage, match=f"(?i){says}") as failed:
        RecordedMachine(machine_file.read("my.machine", "\n".join(lines).encode()))
    found = re.search(r"my\.machine cannot be used: line (\d+) is damaged", failed.value.what)
    last = max(at for at, other in enumerate(lines, 1) if other == SEEN_AT.get(says, instead))
    assert found and int(found[1]) == last


def test_a_value_of_the_wrong_kind_is_reported_with_its_document() -> None:
    with pytest.raises(BadUsage, match=r"my\.machine, line 16 \(session\.json\) cannot be used"):
        RecordedMachine(machine_file.read("my.machine", HEALTHY.replace(b'"uid": 1000', b'"uid": true')))


def test_bytes_that_are_no_text_are_reported_with_their_line() -> None:
    data = HEALTHY.replace(b'NAME="Ubuntu"', b'NAME="Ub\xffntu"')
    line = data[: data.index(b"\xff")].count(b"\n") + 1
    with pytest.raises(BadUsage, match=f"line {line} is damaged"):
        machine_file.read("x", data)


# ---- made to do harm, or damaged on the way


def test_an_incomplete_file_is_never_a_machine() -> None:
    for at in range(0, len(HEALTHY) - 1, 487):
        with pytest.raises(BadUsage):
            machine_file.read("x", HEALTHY[:at])
    for number in range(HEALTHY.count(b"\n") - 1):
        with pytest.raises(BadUsage, match=r"incomplete|first line"):
            machine_file.read("x", b"".join(HEALTHY.splitlines(keepends=True)[: number + 1]))


PIECES = st.sampled_from(
    (
        b"\n=== ",
        b"=== end\n",
        b"\0",
        b"\xff",
        b"\r\n",
        b'"',
        b"\\",
        b"escaped ",
        b" $ ",
        b"/..",
        b"[" * 3000,
        b"9" * 5000,
    )
)


def framed(section: bytes) -> bytes:
    return TOP + section + END


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(HEALTHY)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.sampled_from((0, 0, 1, 7, 300)))
        data[at:end] = draw(st.one_of(PIECES, st.binary(max_size=4)))
    return bytes(data)


@settings(max_examples=200, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(damaged(), st.binary(), st.binary().map(TOP.__add__), st.binary().map(b"=== %s\n".__mod__).map(framed))
)
def test_arbitrary_bytes_are_a_machine_or_one_clear_error(data: bytes) -> None:
    try:
        machine = RecordedMachine(machine_file.read("my.machine", data))
    except BadUsage as error:
        assert re.search(r"my\.machine(?: cannot be used: line \d+ |, line \d+ \(\w+\.json\)|/)", error.what), (
            error.what
        )
        return
    # what is read can be written and read again
    again = RecordedMachine(machine_file.read("my.machine", text(parts_of(machine.tree))))
    assert whole(again) == whole(machine)


@pytest.mark.parametrize("target", ["../../../../../../etc/passwd", "/etc/passwd", "/../../etc/passwd", "passwd"])
def test_links_lead_nowhere_outside(target: str) -> None:
    data = TOP + f"=== link /etc/passwd -> {target}\n".encode() + END
    with pytest.raises(Unreadable):
        RecordedMachine(machine_file.read("x", data)).read("/etc/passwd")


@pytest.mark.parametrize(
    "section",
    [
        b"".join(b"=== file /%d\n" % n for n in range(20_001)),
        b"=== escaped file /a\n" + b"\\\\" * (8 << 20) + b"\n",
        b"=== names /" + b"a/" * 500_000 + b"\n",
        b'=== file "' + b"\\u0041" * 1_000_000 + b"\n",
        b"=== document session.json\n" + b"[" * 1_000_000 + b"\n",
        b"=== command exit 0, " + b"1" * 1_000_000 + b" s $ x\n",
        b"=== file " + b"/a" * 100_000 + b"\n",
        b"=== stat\n" + b"".join(b"/%d%s file 644 0:0 0\n" % (n, b"/a" * 60) for n in range(20_000)),
    ],
    ids=["sections", "escapes", "names", "quotes", "nested", "digits", "deep", "rows"],
)
def test_what_is_made_to_take_long_is_quick(section: bytes) -> None:
    with at_most(5), suppress(BadUsage):
        RecordedMachine(machine_file.read("x", framed(section)))


def test_a_file_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.machine").open("wb") as file:
        file.write(TOP)
        file.truncate(1 << 30)
    with pytest.raises(BadUsage, match="larger than"):
        open_recording(str(tmp_path / "huge.machine"))


# ---- recognised by their content


def test_folder_bundle_and_file_are_recognised_by_their_content(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "looks-like.tar.gz").write_bytes(HEALTHY)
    assert cli("doctor", "--machine", machine_path("rtx3090-healthy"), "--bundle", "looks-like.machine").returncode == 0
    answers = [
        json.loads(cli("doctor", "--json", "--machine", file).stdout)["data"]["summary"]
        for file in (machine_path("rtx3090-healthy"), "looks-like.tar.gz", "looks-like.machine")
    ]
    assert answers[0] == answers[1] == answers[2]


def test_something_else_is_refused_with_what_is_expected(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes.machine").write_text("hello\n")
    result = cli("doctor", "--machine", "notes.machine")
    assert (result.returncode, result.stdout) == (2, "")
    assert "neither a bundle" in result.stderr and "gpu-setup recorded machine" in result.stderr


# ---- facts record --one-file


def test_this_machine_as_one_file(cli: Cli, tmp_path: Path) -> None:
    recorded = cli("facts", "record", "--one-file", "mine.machine", "--note", "a test's own machine")
    assert recorded.returncode == 0, recorded.stderr
    file = tmp_path / "mine.machine"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["mine.machine"]
    assert "a test's own machine" in file.read_text()

    here = json.loads(cli("doctor", "--json").stdout)["data"]
    there = json.loads(cli("doctor", "--json", "--machine", "mine.machine").stdout)["data"]
    assert there["machine"] == "mine"
    assert {row["id"]: row["status"] for row in there["results"]} == {
        row["id"]: row["status"] for row in here["results"]
    }


def test_an_existing_file_is_replaced_only_with_force(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.machine").write_text("mine")
    refused = cli("facts", "record", "--one-file", "mine.machine")
    assert (refused.returncode, (tmp_path / "mine.machine").read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    assert cli("facts", "record", "--one-file", "mine.machine", "--force").returncode == 0
    assert (tmp_path / "mine.machine").read_bytes().startswith(TOP)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "Name either DIR or --one-file FILE"),
        (("folder", "--one-file", "file"), 2, "Name either DIR or --one-file FILE"),
        (("folder", "--force"), 2, "--force is for --one-file"),
        (("--one-file", "."), 2, "is a folder"),
        (("--one-file", "none/mine.machine"), 4, "could not be written"),
    ],
)
def test_what_cannot_be_written_is_refused(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = cli("facts", "record", *arguments)
    assert (result.returncode, says in result.stderr) == (code, True), result.stderr
    assert list(tmp_path.iterdir()) == []
