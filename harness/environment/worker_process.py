"""How a process in the training environment is started: its environment variables, and the folder of the worker."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from harness.environment.build import Environment
from machine.events import Emit
from machine.local import Machine

WORKER = Path(str(resources.files("harness"))) / "worker"


class WorkerContext(NamedTuple):
    """What a process of the worker runs in: the environment, the machine that starts it (this one, or a container), and
    `device`, the only card that it sees.
    """

    environment: Environment
    machine: Machine
    emit: Emit
    device: str | None = None

    @property
    def python(self) -> str:
        return str(self.environment.python)

    def variables(self, run: Path | None = None, offline: bool = True) -> dict[str, str]:
        return worker_environment(self.environment, run, offline, self.device)


def worker_environment(
    environment: Environment, run: Path | None = None, offline: bool = True, device: str | None = None
) -> dict[str, str]:
    """Environment variables for the child: it can import only the environment and the worker's folder, and sends no
    telemetry.

    The child ends when this process ends. `run` is the folder that the plugin writes to. `offline` forbids the model
    hub; otherwise the user's token is passed on. `device`: the only card that the child sees, unless the user has set
    CUDA_VISIBLE_DEVICES.
    """
    bin_folder = str(environment.python.parent)
    variables = {
        # the axolotl command looks for its helpers on PATH
        "PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(WORKER),
        "GPU_SETUP_PARENT": str(os.getpid()),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "WANDB_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if offline:
        variables["HF_HUB_OFFLINE"] = "1"
    else:
        # a container gets these variables of this process and no others
        variables |= {name: os.environ[name] for name in ("HF_TOKEN", "HF_ENDPOINT") if os.environ.get(name)}
    if environment.stack.startswith("rocm"):
        # on RDNA, PyTorch's own attention kernels must be switched on
        name = "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"
        variables[name] = os.environ.get(name, "1")
    if device is not None and "CUDA_VISIBLE_DEVICES" not in os.environ:
        variables["CUDA_VISIBLE_DEVICES"] = device
    if run is not None:
        variables["GPU_SETUP_WORKER_LOG"] = str(run / "worker.jsonl")
        variables["GPU_SETUP_HELD_OUT"] = str(run / "held-out-tokens.json")
    return variables
