"""Causes that are known from the output of a failed training process."""

from __future__ import annotations

from machine.causes import Cause
from machine.errors import BadUsage

# in order: the first that matches wins. Each text was printed by the tool named, in the version of the cpu lock;
# those of a GPU are from PyTorch's sources (unverified here).
CAUSES: tuple[Cause, ...] = (
    Cause(
        r"No space left on device|Disk quota exceeded",
        "disk-full",
        "The disk is full.",
        "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk, and run the same command again.",
    ),
    Cause(
        r"(CUDA|HIP) out of memory|OutOfMemoryError",
        "out-of-memory-device",
        "The card's memory is full.",
        "Lower sequence_len, then micro_batch_size in the recipe; close other programs that use the card.",
    ),
    Cause(
        r"MemoryError|an't allocate memory|annot allocate memory|bad_alloc|failed to map segment|start new thread",
        "out-of-memory-host",
        "The computer's memory is full, or limited for this process.",
        "Close other programs, raise the limit (ulimit -v, the container's memory), or lower micro_batch_size.",
    ),
    Cause(
        r"One of the subprocesses has abruptly died",
        "helper-killed",
        "A helper process that prepares the data was killed, most often because memory was full.",
        "Close other programs, raise the limit (ulimit -v, the container's memory), or give less data at a time.",
    ),
    Cause(
        r"no kernel image is available|invalid device function",
        "no-kernel-image",
        "This build of PyTorch has no kernels for the card.",
        "Run `gpu-setup doctor`: it shows the stack that fits the card.",
    ),
    Cause(
        r"GPU is lost|off the bus|CUDA error: (unknown error|unspecified launch)|uncorrectable ECC|HSA_STATUS_ERROR",
        "gpu-failed",
        "The card stopped working.",
        "Run `gpu-setup doctor`: it reads what the driver reported; reboot if it says so.",
    ),
    Cause(
        r"remote-code: |trust_remote_code=True|to execute the (configuration|modeling|tokenizer)",
        "remote-code",
        "The model's repository contains code that the model needs to run.",
        "gpu-setup does not run a model's own code; choose a model that transformers supports by itself.",
    ),
    Cause(
        r"GatedRepoError|401 Client Error|403 Client Error|gated repo",
        "model-gated",
        "The model requires you to accept its licence and to log in.",
        "Accept the licence on the model's page and run `hf auth login`, or use --recipe smollm2-135m-qlora.",
    ),
    Cause(
        r"The dataset could not be loaded|DatasetNotFoundError",
        "data-missing",
        "The dataset cannot be found or downloaded.",
        "Check its name in the recipe's `datasets`, and the network; --data FILE trains on your own file.",
    ),
    Cause(
        r"couldn't connect to|an't load the (configuration|model|tokenizer)|(Repository|Entry)NotFound|OfflineMode",
        "model-missing",
        "The model cannot be found or downloaded.",
        "Check base_model in the recipe, and the network; --recipe smollm2-135m-qlora needs no hub.",
    ),
    Cause(
        r"ModuleNotFoundError: No module named|cannot open shared object file",
        "library-missing",
        "A library is missing in the training environment.",
        "Run `gpu-setup environment`, which repairs broken packages; packages outside the lock are not installed.",
    ),
    Cause(
        r"\bValidationError: |validation errors? for",
        "recipe-invalid",
        "Axolotl refuses the recipe.",
        "Correct the key in the message.",
        BadUsage,
    ),
)
