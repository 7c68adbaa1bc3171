"""Regular expressions that are compiled at their first use: of the doctor's, a start needs less than half."""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class _Pattern:
    def __init__(self, source: str | bytes, flags: int) -> None:
        self._source, self._flags = source, flags

    def __getattr__(self, name: str) -> Any:
        # Python asks here only for what the object does not have yet
        found = getattr(re.compile(self._source, self._flags), name)
        setattr(self, name, found)
        return found


def lazy_pattern(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """As re.compile, for constants of a module. Only its methods and attributes: re's functions do not take it."""
    return cast("re.Pattern[AnyStr]", _Pattern(source, flags))
