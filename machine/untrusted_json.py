"""JSON files from strangers: each wrong shape is a BadUsage that names the file and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from machine.errors import BadUsage
from machine.input_file import check_numbers
from machine.recording_files import RecordingTree

LARGEST = 64 << 20
_NO_NAMES = frozenset({"", ".", ".."})
# no machine has longer or deeper paths; a stranger's file may, to fill the memory
_LONGEST_PATH, _DEEPEST_PATH = 1024, 64
Row = TypeVar("Row")


class JsonObject:
    """A JSON object, read key by key with the type that each key must have."""

    def __init__(self, path: str, value: object) -> None:
        self.path = path
        if not isinstance(value, dict):
            raise bad(path, "an object `{…}` is expected")
        self.value: dict[str, Any] = value

    @classmethod
    def read(cls, tree: RecordingTree, name: str) -> JsonObject:
        """The file's object; an absent file is an empty one."""
        return cls(tree.label(name), value_of(tree, name, {}))

    def text(self, key: str, default: str | None = None) -> str:
        value = self.value.get(key, default)
        if not isinstance(value, str):
            raise bad(self.path, f"`{key}` must be a text")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        value = self.value.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad(self.path, f"`{key}` must be a whole number")
        return value

    def amount(self, key: str, default: float) -> float:
        value = self.value.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise bad(self.path, f"`{key}` must be a number")
        return float(value)

    def flag(self, key: str) -> bool:
        if not isinstance(value := self.value.get(key), bool):
            raise bad(self.path, f"`{key}` must be true or false")
        return value

    def list(self, key: str) -> list[Any]:
        if not isinstance(value := self.value.get(key, []), list):
            raise bad(self.path, f"`{key}` must be a list")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.list(key)
        if not all(isinstance(value, str) for value in found):
            raise bad(self.path, f"`{key}` must be a list of texts")
        return tuple(found)

    def by_path(self, key: str, make: Callable[[JsonObject], Row]) -> dict[str, Row]:
        """A table whose keys are absolute paths."""
        return {path: make(JsonObject(self.path, value)) for path, value in self._table(key).items()}

    def names(self, key: str) -> dict[str, tuple[str, ...]]:
        """A table from absolute path to names that a folder may hold."""
        found = {path: JsonObject(self.path, {key: value}).texts(key) for path, value in self._table(key).items()}
        for names in found.values():
            if not all(map(is_name, names)):
                raise bad(self.path, f"`{key}` holds something that is not a file's name")
        return found

    def _table(self, key: str) -> dict[str, Any]:
        table = JsonObject(self.path, self.value.get(key, {})).value
        for path in table:
            if not is_plain_path(path):
                raise bad(self.path, f"`{key}` holds {path[:80]!r}, which is not a plain absolute path")
        return table


def rows(tree: RecordingTree, name: str) -> list[JsonObject]:
    """A file that holds a list of objects; an absent one is an empty list."""
    found = value_of(tree, name, [])
    if not isinstance(found, list):
        raise bad(tree.label(name), "a list `[…]` is expected")
    return [JsonObject(tree.label(name), row) for row in found]


def value_of(tree: RecordingTree, name: str, absent: Any) -> Any:
    """What the JSON file holds, `absent` when there is no such file."""
    if name in tree.decoded:
        return tree.decoded[name]
    text = contents(tree, name)
    return absent if text is None else decode(tree.label(name), text)


def contents(tree: RecordingTree, name: str) -> str | None:
    """The text of a plain file, None when it is absent. Links, pipes and huge files are refused."""
    path = tree.label(name)
    if tree.mode(name) == 0:
        return None
    try:
        data = tree.data(name, LARGEST)
    except OSError as error:
        raise bad(path, f"it cannot be read: {error.strerror or error}") from error
    if len(data) > LARGEST:
        raise bad(path, f"it is larger than {LARGEST >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad(path, f"it is not UTF-8 at byte {error.start}") from error


def decode(path: str, text: str) -> Any:
    try:
        return decode_json(text)
    except ValueError as error:
        raise bad(path, f"it is not JSON: {error}") from error


def decode_json(text: str) -> Any:
    """The text's value; every kind of bad JSON is a ValueError."""
    try:
        # an escaped surrogate is a byte of a name that is not UTF-8 (os.fsencode); any other lone one is no text at all
        json.dumps(value := json.loads(text), ensure_ascii=False).encode("utf-8", "surrogateescape")
        check_numbers(value)
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character (a lone surrogate)") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def is_plain_path(path: str) -> bool:
    """An absolute path without empty, `.` or `..` parts, of a length that machines have."""
    if path[:1] != "/" or "\0" in path or len(path) > _LONGEST_PATH or path.count("/") > _DEEPEST_PATH:
        return False
    return path == "/" or not _NO_NAMES & set(path[1:].split("/"))


def is_name(name: str) -> bool:
    """What a file in a folder may be called."""
    return name not in _NO_NAMES and "/" not in name and "\0" not in name


def bad(path: str, why: str) -> BadUsage:
    return BadUsage(
        "recording.broken",
        f"{path} cannot be used.",
        f"In this file of the recording, {why}." if not why.startswith("it ") else f"I{why[1:]}.",
        "Record the machine again with: gpu-setup facts record DIR.",
    )
