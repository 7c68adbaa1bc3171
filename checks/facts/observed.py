"""Which facts a check reads: a view of a Host that notes each by its path (`kernel.release`, `cards.link.width`)."""

from __future__ import annotations

from typing import Any, cast

from checks.facts.host import Frozen, Host

_NONE = " is None"


def observe(host: Host, used: set[str]) -> Host:
    """The host's values, for reading only; the path of each that is read is added to `used`, and of None too."""
    return cast(Host, _Observed(host, "", used))


def uses(used: set[str], fact: str) -> bool:
    """Whether the fact or a part of it was read, or that the whole of which it is a part is None."""
    whole = {fact[:at] + _NONE for at, sign in enumerate(fact) if sign == "."}
    return fact in used or not whole.isdisjoint(used) or any(path.startswith(f"{fact}.") for path in used)


class _Observed:
    def __init__(self, value: Frozen, path: str, used: set[str]) -> None:
        self._value, self._path, self._used = value, path, used

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        value = getattr(self._value, name)
        self._used.update((path, path + _NONE) if value is None else (path,))
        # the next time the attribute is found without this method
        self.__dict__[name] = found = _view(value, path, self._used)
        return found

    def __eq__(self, other: object) -> bool:
        return self._value == (other._value if isinstance(other, _Observed) else other)

    def __hash__(self) -> int:
        return hash(self._value)


def _view(value: Any, path: str, used: set[str]) -> Any:
    if isinstance(value, Frozen):
        return _Observed(value, path, used)
    return tuple(_view(one, path, used) for one in value) if isinstance(value, tuple) else value
