"""The one way to stdout and stderr: what is written is clean, and an answer that cannot be written is an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from errno import EBADF
from fcntl import F_GETFL, fcntl
from typing import Any, TextIO

import click

from machine.errors import OutsideFailed, reason
from machine.plain_text import clean

# marks our own escape sequences with a number that no text from outside can know
_OURS = f"\x1b[{int.from_bytes(os.urandom(3))};"


class OutputFailed(OutsideFailed):
    """The answer could not be written to standard output."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            "output.unwritable",
            "The answer could not be written to standard output.",
            f"The system says: {reason(error)}.",
            "Send the output to a terminal, a pipe or a disk with free space; then run the same command again.",
        )


def style(text: str, **how: Any) -> str:
    """click.style for text from anywhere; `echo` shows no other escape sequences than those made here."""
    return click.style(clean(text), **how).replace("\x1b[", _OURS)


def as_shown(text: str) -> str:
    """What a terminal gets: our own escape sequences, and no control character of anybody else."""
    return "\x1b[".join(map(clean, text.split(_OURS)))


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Write the text, cleaned; with colours where the stream shows them. Raises OutputFailed, for stdout only."""
    stream = sys.stderr if err else sys.stdout
    click.echo(as_shown(text), stream, nl=nl, color=_colour(stream.isatty()))


def confirm(question: str, *, default: bool = False, abort: bool = False) -> bool:
    """Ask on stderr. Raises click.Abort where nobody answers, and for "no" with `abort`."""
    return click.confirm(clean(question), default=default, abort=abort, err=True)


def _colour(terminal: bool) -> bool:
    """Whether to colour: https://no-color.org, FORCE_COLOR, then whether the terminal can."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return terminal and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def guarded_streams() -> Iterator[None]:
    """While inside, a stdout that cannot be written raises OutputFailed, and stderr never fails."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal that cannot show a character shows a question mark instead of ending the run
            stream.reconfigure(errors="replace")
    try:
        with redirect_stdout(_Answer(sys.stdout)), redirect_stderr(_Progress(sys.stderr)):
            yield
    finally:
        _empty(sys.stdout)
        _empty(sys.stderr)


def require_stdout() -> None:
    """Before any work: raises OutputFailed where stdout is closed (entry.py opens one for reading in its place)."""
    if fcntl(1, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OutputFailed(OSError(EBADF, "it is closed"))


def write_document(descriptor: int, document: bytes) -> None:
    """Write the whole document. Raises OutputFailed; a reader that has closed the pipe is no error."""
    left = memoryview(document)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except BrokenPipeError:
        pass
    except OSError as error:
        raise OutputFailed(error) from error


class _Stream:
    """A text stream; what `_failed` does when it cannot be written differs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        raise NotImplementedError


class _Answer(_Stream):
    """stdout: a reader (head, less) that closes the pipe has what it wanted; everything else is an error."""

    def _failed(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            raise OutputFailed(error) from error


class _Progress(_Stream):
    """stderr: the work continues though nobody can read its progress."""

    def _failed(self, error: OSError) -> None:
        pass


def _empty(stream: TextIO) -> None:
    """Drop what the stream holds and cannot write: the interpreter's last flush would end with exit status 120."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
