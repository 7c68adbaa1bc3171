"""Records on disk, partitioned by key, so that a million rows need the memory of a few thousand.

add(keys, rows) ─▶ PARTS files by the key's upper bits ─▶ equal(): the rows that share a key, part by part
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# records that `equal()` returns together
AT_ONCE = 50_000


class ExternalSort:
    """Pairs of key and value (unsigned, 64 and 32 bits), optionally with a second 64-bit value."""

    def __init__(self, folder: Path, name: str, parts: int, second: bool = False) -> None:
        import numpy as np

        fields: list[tuple[str, type]] = [("key", np.uint64), ("row", np.uint32)]
        self._dtype = np.dtype([*fields, ("also", np.uint64)] if second else fields)
        self._shift = np.uint64(64 - (parts.bit_length() - 1))
        self._parts = parts
        # many small appends to few files: a buffer per file keeps the number of writes low
        self._files: list[BinaryIO] = [
            (folder / f"{name}-{part}").open("w+b", buffering=64 << 10) for part in range(parts)
        ]

    def add(self, keys: Array, rows: Array, also: Array | None = None) -> None:
        import numpy as np

        if not len(keys):
            return
        records = np.empty(len(keys), dtype=self._dtype)
        records["key"], records["row"] = keys, rows
        if also is not None:
            records["also"] = also
        if self._parts == 1:
            self._files[0].write(records.tobytes())
            return
        part = (keys >> self._shift).astype(np.intp)
        order = np.argsort(part, kind="stable")
        records = records[order]
        bounds = np.searchsorted(part[order], np.arange(self._parts + 1))
        for number, file in enumerate(self._files):
            if bounds[number] < bounds[number + 1]:
                file.write(records[bounds[number] : bounds[number + 1]].tobytes())

    def parts(self) -> Iterator[Array]:
        """Each part once, sorted by key and then by row; its file is deleted."""
        import numpy as np

        for file in self._files:
            file.seek(0)
            records = np.frombuffer(file.read(), dtype=self._dtype)
            file.close()
            Path(file.name).unlink()
            yield records[np.lexsort((records["row"], records["key"]))]

    def equal(self) -> Iterator[tuple[Array, Array]]:
        """`(records, starts)`: records that share their key, and where each group of them begins.

        A limited number at a time, so that memory does not grow with the file; a group is never split.
        """
        import numpy as np

        for records in self.parts():
            if len(records) < 2:
                continue
            keys = records["key"]
            same = keys[1:] == keys[:-1]
            grouped = np.zeros(len(keys), dtype=bool)
            grouped[1:] |= same
            grouped[:-1] |= same
            kept = records[grouped]
            del records, keys, same, grouped
            if not len(kept):
                continue
            starts = np.flatnonzero(np.concatenate(([True], kept["key"][1:] != kept["key"][:-1])))
            first = 0
            while first < len(starts):
                behind = max(int(np.searchsorted(starts, starts[first] + AT_ONCE)), first + 1)
                end = int(starts[behind]) if behind < len(starts) else len(kept)
                yield kept[starts[first] : end], starts[first:behind] - starts[first]
                first = behind

    def close(self) -> None:
        for file in self._files:
            file.close()


def groups(records: Array, starts: Array) -> Iterator[Array]:
    """The groups of `equal()`, one by one."""
    ends = [*starts[1:].tolist(), len(records)]
    for start, end in zip(starts.tolist(), ends, strict=True):
        yield records[start:end]
