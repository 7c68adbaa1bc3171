"""The errors that a user sees: each says what, why and next, and has its exit status."""

from __future__ import annotations

FINE = 0
BAD_ANSWER = 1
USAGE = 2
REFUSED = 3
OUTSIDE_FAILED = 4
REBOOT_ARMED = 5
OUR_BUG = 70
INTERRUPTED = 130


class Problem(Exception):
    """Something that stops a command, described so that the user can continue.

    `code` is a stable dotted word for scripts (`recipe.unknown`), `exit_code` one of the constants above.
    """

    exit_code = OUTSIDE_FAILED

    def __init__(self, code: str, what: str, why: str = "", next: str = "") -> None:
        super().__init__(what)
        self.code, self.what, self.why, self.next = code, what, why, next

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.next) if part)


class BadAnswer(Problem):
    """The question was answered, and the answer is bad (exit 1)."""

    exit_code = BAD_ANSWER


class BadUsage(Problem):
    """The user asked for something that does not exist or does not parse (exit 2)."""

    exit_code = USAGE


class Refused(Problem):
    """Nothing was changed, on purpose (exit 3)."""

    exit_code = REFUSED


class OutsideFailed(Problem):
    """An outside command, service or disk failed (exit 4)."""

    exit_code = OUTSIDE_FAILED


class Interrupted(Problem):
    """The user pressed Ctrl-C (exit 130); finished work is kept."""

    exit_code = INTERRUPTED


def reason(error: Exception) -> str:
    """What the system or a parser says, without Python's `[Errno 2]` and without the path, which the sentence has."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
