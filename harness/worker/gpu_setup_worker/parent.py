"""Ends this process when the gpu-setup that started it is gone: a killed tool must leave no training behind."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

# prctl(2), include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM at the parent's death; end at once when it died before this call.

    GPU_SETUP_PARENT is the tool's process id; without it nobody waits for this process, and nothing is done.
    """
    parent = os.environ.get("GPU_SETUP_PARENT")
    if parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if not Path(f"/proc/{parent}").exists():
        os.kill(os.getpid(), signal.SIGTERM)
