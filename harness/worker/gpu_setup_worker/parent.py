"""Ends this process when the gpu-setup that started it ends: a killed tool must not leave an orphaned training."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

# prctl(2), include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Request SIGTERM from the kernel when the parent ends; end at once if the parent ended before this call.

    GPU_SETUP_PARENT is the tool's process id; without it this process has no parent to watch, and nothing is done.
    """
    parent = os.environ.get("GPU_SETUP_PARENT")
    if parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if not Path(f"/proc/{parent}").exists():
        os.kill(os.getpid(), signal.SIGTERM)
