"""What everybody on the machine can read of its processes while a test runs: their arguments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def arguments_of_processes() -> Iterator[set[str]]:
    """The arguments of every process that is seen while this lasts, read every 50 ms."""
    seen, done = set[str](), threading.Event()

    def watch() -> None:
        read: set[tuple[str, int]] = set()
        while not done.wait(0.05):
            for place in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    # a process that starts another program is another one
                    key = (place.name, (place / "exe").stat().st_ino)
                    if key not in read:
                        seen.add((place / "cmdline").read_text(errors="replace").replace("\0", " "))
                        read.add(key)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
