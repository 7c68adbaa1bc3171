"""Every option and argument of every command gets every kind of nonsense: refused at once, with one clear error."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from gpu_setup.cli import run
from gpu_setup.envelope import Answer, encode
from harness.jobs.merge import is_four_bit
from machine.errors import BadUsage
from tests.cpu_time import at_most
from tests.harness.report.examples import card
from tests.recorded_machines import unpack

pytestmark = pytest.mark.long

BOMB = "a: &a [" + ",".join("x" * 8) + "]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)  # fmt: skip
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
assert len(BOMB) < 370
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "nul": b"\0" * 100,
    "not-utf8": b"base_model: \xff\xfe\n",
    "deep-json": b"[" * 100_000,
    "deep-object": b'{"a":' * 50_000,
    "deep-yaml": b"base_model: " + b"[" * 5000,
    "deep-blocks": b"".join(b" " * depth + b"a:\n" for depth in range(300)),
    "bomb": BOMB.encode(),
    "no-model": b"adapter: lora\n",
    "merges": MERGES.encode(),
    "cycle": b"base_model: &a [*a]\n",
    "digits": b'{"sequence_len": ' + b"9" * 4400 + b"}",
    "huge-number": b"base_model: x\nsequence_len: 99999999999999999999\n",
    "hexadecimal": b"base_model: x\nsequence_len: 0x" + b"F" * 20_000 + b"\n",
    "negative": b"base_model: x\nsequence_len: -5\n",
    "nan": b"base_model: x\nval_set_size: .nan\n",
    "infinite": b"base_model: x\nnum_epochs: .inf\n",
    "long-line": b"x" * 1_000_000,
}


class TooSlow(BaseException):
    """Not an Exception: nothing of the tool may take it for an error of its own."""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A path for each kind of nonsense, below a folder of its own and with the suffix that a recipe needs."""
    folder = tmp_path / "nonsense"
    folder.mkdir()
    found = {"zero": "/dev/zero", "folder": str(folder), "absent": str(folder / "absent.yaml")}
    for name, content in CONTENTS.items():
        (folder / f"{name}.yaml").write_bytes(content)
        found[name] = str(folder / f"{name}.yaml")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "link.yaml").symlink_to("pipe.yaml")
    with (folder / "sparse.yaml").open("wb") as file:
        file.truncate(100 << 30)
    for name in ("pipe", "loop", "link", "sparse"):
        found[name] = str(folder / f"{name}.yaml")
    found["long-name"] = str(folder / ("n" * 300 + ".yaml"))
    found["long-path"] = "/" + "n/" * 2300
    found["not-utf8-name"] = str(folder / "\udcff.yaml")
    found["nul-name"] = str(folder / "a\0b.yaml")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.yaml"))
        found["socket"] = str(folder / "s.yaml")
        yield found


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str]) -> Callable[..., int]:
    """Run the words with a time limit; returns the exit code, after one clear error was found."""

    def too_slow(_number: int, _frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, too_slow)

    def call(*words: str) -> int:
        capfd.readouterr()
        signal.alarm(20)
        with at_most(1.5, words):
            code = run([*words, "--json"])
        signal.alarm(0)
        document = json.loads(capfd.readouterr().out)
        assert document["exit_code"] == code
        if code in (1, 2, 3, 4) and document["errors"]:
            (error,) = document["errors"]
            assert error["code"] and error["what"] and len(error["what"]) < 5000, words
        assert code != 70, (words, document)
        return code

    yield call  # type: ignore[misc]
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# every place where a file of the person's is read, with what else the command needs
READ = (
    ("plan", "--machine"),
    ("doctor", "--machine"),
    ("facts", "--machine"),
    ("image", "render", "--machine"),
    ("fit", "--machine"),
    ("fit", "--recipe"),
    ("fit", "--model"),
    ("recipe",),
    ("smoke", "--recipe"),
    ("bench", "--recipe"),
    ("bench", "--baseline"),
    ("up", "--yes", "--recipe"),
    ("train", "rows.json", "--recipe"),
    ("train", "--recipe", "tiny"),
    ("train", "--resume"),
    ("data", "check"),
    ("data", "check", "rows.json", "--held-out"),
    ("data", "check", "rows.json", "--recipe"),
    ("data", "clean", "--dry-run"),
    ("data", "clean", "rows.json", "--yes", "--undo"),
    ("data", "clean", "rows.json", "--dry-run", "--held-out"),
    ("data", "split"),
    ("data", "import", "--out", "new.json"),
    ("data", "import", "rows.json", "--out", "new.json", "--format", "mbox", "--received"),
    ("report",),
    ("compare", "report.json"),
    ("try",),
    ("merge", "--out", "new"),
    ("apply", "--plan"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text('[{"instruction": "Why?", "input": "", "output": "Because."}]')
    (tmp_path / "report.json").write_bytes(encode(Answer("report", card(), 0, str)))
    return tmp_path


def refuse_all(commands: Iterable[tuple[str, ...]], places: dict[str, str], refusal: Callable[..., int]) -> None:
    wrong = []
    for words in commands:
        for kind, place in places.items():
            try:
                code = refusal(*words, place)
            except (TooSlow, Exception) as error:
                wrong.append((words, kind, repr(error)[:300]))
                continue
            # data whose rows are broken one by one are an answer, and `recipe` prints what it can read
            fine = words[0] == "data" or (words, kind) == (("recipe",), "no-model")
            if code not in ((0, 1, 2, 3) if fine else (1, 2, 3)):
                wrong.append((words, kind, code))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_pipe_and_a_device(places: dict[str, str], refusal: Callable[..., int], here: Path) -> None:
    refuse_all(READ, {kind: places[kind] for kind in ("pipe", "zero")}, refusal)


def test_recipes(places: dict[str, str], refusal: Callable[..., int], here: Path) -> None:
    refuse_all([("recipe",)], places, refusal)
    refuse_all([("fit", "--recipe")], {kind: places[kind] for kind in ("bomb", "huge-number", "no-model")}, refusal)


@pytest.mark.full
def test_every_kind_for_every_command(places: dict[str, str], refusal: Callable[..., int], here: Path) -> None:
    refuse_all(READ, places, refusal)


def test_documents_in_the_folder_of_a_run(places: dict[str, str], refusal: Callable[..., int], here: Path) -> None:
    for kind in ("pipe", "zero", "empty", "nul", "not-utf8", "deep-json", "deep-object", "digits", "sparse"):
        folder = here / kind
        folder.mkdir()
        for document in ("report.json", "run.json", "train.json"):
            (folder / document).symlink_to(places[kind])
        for words in ("report", "compare report.json", "try", "merge --out new", "train --resume"):
            assert refusal(*words.split(), kind) == 2, (words, kind)
        (folder / "config.yml").symlink_to(places[kind])
        with pytest.raises(BadUsage):
            is_four_bit(folder)


NUMBERS = (
    *(("fit", name) for name in ("--seq", "--batch", "--rank")),
    *(("bench", name) for name in ("--launches", "--steps", "--seed", "--tune")),
    *(("train", "rows.json", f"--{name}") for name in ("epochs", "steps", "seed", "patience", "save-steps")),
    *(("train", "rows.json", f"--{name}") for name in ("save-minutes", "hung-after")),
    *(("data", "split", "rows.json", name) for name in ("--share", "--rows")),
    ("report", "report.json", "--answers"),
    ("plan", "--branch"),
    ("try", "nowhere", "--tokens"),
)


def test_files_without_a_name(refusal: Callable[..., int], here: Path) -> None:
    for words in (("clean", ""), ("clean", "rows.json", "--yes", "--out", ""), ("import", ""), ("split", "")):
        assert refusal("data", *words) == 2, words


def test_numbers(refusal: Callable[..., int], here: Path) -> None:
    values = ("nan", "inf", "-inf", "-1", "1e999", "99999999999999999999", "9" * 4400, "", "many", "1\0", "٣" * 20)
    for words in NUMBERS:
        for value in values:
            assert refusal(*words, value) == 2, (words, value[:30])


DIGITS = "9" * 4400


def test_thousands_of_digits_in_a_machine(refusal: Callable[..., int], tmp_path: Path) -> None:
    unpack("rtx3090-healthy", tmp_path)
    sources = ("sysroot/etc/passwd", "sysroot/proc/meminfo", "sysroot/var/lib/dpkg/status", "nvml.json", "paths.json")
    for source in sources:
        file = tmp_path / source
        before = file.read_text()
        # the first number in each line; more would be hundreds of megabytes
        file.write_text(re.sub(r"(?m)^([^0-9\n]*)[0-9]+", rf"\g<1>{DIGITS}", before, count=30))
        assert file.read_text() != before, source
        for words in (("doctor",), ("facts",), ("plan",)):
            assert refusal(*words, "--machine", str(tmp_path)) in (0, 1, 2, 3), source
        file.write_text(before)


def test_enormous_numbers_in_a_report(refusal: Callable[..., int], here: Path) -> None:
    document = json.loads(encode(Answer("report", card(started_at="2026-11-25T10:00:00Z"), 0, str)))
    for holder, key in (
        (document["data"]["measurements"], "steps"),
        (document["data"]["conditions"], "cards"),
        (document["data"]["recipe"], "steps"),
    ):
        before = holder.get(key)
        for value in (int(DIGITS[:400]), 1e308):
            holder[key] = value
            (here / "other.json").write_text(json.dumps(document))
            for words in (("report", "other.json"), ("compare", "report.json", "other.json")):
                assert refusal(*words) in (0, 1, 2, 3)
        holder[key] = before
