"""Bounds on work: this process's CPU time, which a busy machine does not lengthen as it does the clock's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(seconds: float, subject: object = "") -> Iterator[None]:
    """The block computes no longer than that, in all its threads. What it waits for is not counted."""
    begin = time.process_time()
    yield
    spent = time.process_time() - begin
    assert spent < seconds, subject
