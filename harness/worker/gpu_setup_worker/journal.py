"""The worker's log: one JSON object per line, flushed at once, so that measurements survive a kill."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

SCHEMA = 1


class EventLog:
    """Appends events to the file named by GPU_SETUP_WORKER_LOG. A float that JSON cannot express becomes a string."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
        with Path(path).open("rb") as before:
            # a line that a kill left incomplete must not swallow our first line
            if before.seek(0, os.SEEK_END) and before.seek(-1, os.SEEK_END) >= 0 and before.read(1) != b"\n":
                self._file.write("\n")

    @classmethod
    def from_environment(cls) -> EventLog:
        return cls(os.environ["GPU_SETUP_WORKER_LOG"])

    def write(self, event: str, **fields: Any) -> None:
        line = {"event": event, **{name: _plain(value) for name, value in fields.items()}}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
