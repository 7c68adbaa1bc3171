"""The one document that --json prints: the same envelope for success and failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from gpu_setup.version import version
from machine.errors import Problem
from machine.plain_text import hide_in_strings

T = TypeVar("T")
# documents about a person's own texts, where an address says nothing about this machine
ABOUT_TEXTS = ("data", "recipe", "train", "try")


class ErrorEntry(msgspec.Struct, frozen=True):
    """One error: a stable code for scripts, and the three sentences for a person."""

    code: str
    what: str
    why: str
    next: str


class Envelope(msgspec.Struct, Generic[T], frozen=True):
    """The envelope of every document. `schema` is gpu-setup/NAME/1; `exit_code` is the process's exit status."""

    schema: str
    tool_version: str
    exit_code: int
    data: T
    errors: tuple[ErrorEntry, ...] = ()


class Answer(NamedTuple):
    """What a command returns: its document's name and data, the exit code, and the text for a person.

    `text` is called only when a person reads, and ends with a newline. `problems` go into `errors`.
    """

    schema: str
    data: Any
    exit_code: int
    text: Callable[[], str]
    problems: tuple[Problem, ...] = ()


def error_entry(problem: Problem) -> ErrorEntry:
    return ErrorEntry(problem.code, problem.what, problem.why, problem.next)


def encode(answer: Answer) -> bytes:
    """The answer as its JSON document, indented and without secrets."""
    from machine import secrets

    return _json(
        Envelope(
            f"gpu-setup/{answer.schema}/1",
            version(),
            answer.exit_code,
            answer.data,
            tuple(error_entry(problem) for problem in answer.problems),
        ),
        secrets.redact if answer.schema in ABOUT_TEXTS else _here(),
    )


def encode_problem(problem: Problem) -> bytes:
    """The problem as a document of its own: schema gpu-setup/error/1, no data."""
    return _json(Envelope("gpu-setup/error/1", version(), problem.exit_code, None, (error_entry(problem),)), _here())


def _here() -> Callable[[str], str]:
    """Also without the values of variables that are named like secrets."""
    from machine import scrub, secrets

    return partial(scrub.here, hidden=secrets.literals(os.environ))


def _json(document: object, hide: Callable[[str], str]) -> bytes:
    """Every document passes here: no string of it steers a terminal or holds a secret, wherever it came from."""
    shown = hide_in_strings(msgspec.to_builtins(document, enc_hook=_plain), hide)
    return msgspec.json.format(msgspec.json.encode(shown), indent=2) + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


@contextmanager
def only_documents() -> Iterator[int]:
    """Keep stdout for the document: while inside, whatever a library or a child prints goes to stderr.

    Yields the file descriptor that still leads to stdout.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield kept
    finally:
        os.dup2(kept, 1)
        os.close(kept)
