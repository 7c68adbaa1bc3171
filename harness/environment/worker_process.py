"""How a process in the training environment is started: which variables it gets, and where the worker's code lies."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from harness.environment.build import Environment

WORKER = Path(str(resources.files("harness"))) / "worker"


def worker_environment(
    environment: Environment, run: Path | None = None, offline: bool = True, device: str | None = None
) -> dict[str, str]:
    """Variables for the child: only the worker's folder is importable beside the environment, nothing is phoned home.

    It ends when this process is gone. `run` is the folder that the plugin writes to; `offline` forbids the model hub;
    where it is allowed the person's token goes along. `device`: the only card that the child sees, unless the person
    has chosen one.
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
        # a container gets these variables and no others of this process's
        variables |= {name: os.environ[name] for name in ("HF_TOKEN", "HF_ENDPOINT") if os.environ.get(name)}
    if environment.stack.startswith("rocm"):
        # on RDNA torch's own attention kernels want to be asked for by name
        name = "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"
        variables[name] = os.environ.get(name, "1")
    if device is not None and "CUDA_VISIBLE_DEVICES" not in os.environ:
        variables["CUDA_VISIBLE_DEVICES"] = device
    if run is not None:
        variables["GPU_SETUP_WORKER_LOG"] = str(run / "worker.jsonl")
        variables["GPU_SETUP_HELD_OUT"] = str(run / "held-out-tokens.json")
    return variables
