"""Ends this process when the gpu-setup that started it ends: a killed tool must not leave an orphaned training."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

# prctl(2), include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Request SIGTERM from the kernel when the parent ends; end at once if the parent ended before this call.

    GPU_SETUP_PARENT is the tool's process id; without it this process has no parent to watch, and nothing is done. In a
    container, where the tool is no process, it is "stdin": the tool holds its other end, which the kernel closes.
    """
    parent = os.environ.get("GPU_SETUP_PARENT")
    if parent is None:
        return
    if parent == "stdin":
        threading.Thread(target=_end_with, args=(os.dup(0),), daemon=True).start()
        # whoever asks the person something gets no answer, as without a container
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if not Path(f"/proc/{parent}").exists():
        os.kill(os.getpid(), signal.SIGTERM)


def _end_with(handle: int) -> None:
    while os.read(handle, 1 << 12):
        pass
    # not by SIGTERM: the first process of a container does not get its own
    os._exit(128 + signal.SIGTERM)
