"""The base model's folder: made from a package or on the spot, or left to the hub."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from harness.document import disk_trouble
from harness.environment import Environment
from harness.recipe import SAMPLES, Recipe
from harness.trainer_log import cause, ended, last_error
from harness.worker_process import WORKER, worker_environment
from machine.door import Machine
from machine.errors import OutsideFailed
from machine.events import Emit, Event
from machine.paths import Paths, make

STAGE = "model"


def ensure_model(recipe: Recipe, environment: Environment, machine: Machine, paths: Paths, emit: Emit) -> str:
    """What base_model becomes: a local folder for `smollm2` and `tiny`, the recipe's own name for the hub.

    Made once per maker (its source's digest), aside and renamed: a killed making leaves nothing that looks whole.
    """
    from filelock import FileLock

    if recipe.traits.model == "hub":
        return str(recipe.config["base_model"])
    folder = paths.models / f"{recipe.traits.model}-{_maker_digest()[:12]}"
    if folder.exists():
        return str(folder)
    with disk_trouble(folder), FileLock(f"{make(paths.models) / folder.name}.lock"):
        # another gpu-setup may have made it while this one waited
        if not folder.exists():
            _make(recipe.traits.model, folder, environment, machine, emit)
    return str(folder)


def _make(name: str, folder: Path, environment: Environment, machine: Machine, emit: Emit) -> None:
    emit(Event("start", STAGE, f"Making the base model {name}: {folder}"))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    outcome = machine.stream(
        (
            str(environment.python), "-m", "gpu_setup_worker.models", name, str(partial),
            "--text", str(SAMPLES / "house-style.json"),
        ),
        lambda line: None,
        env=worker_environment(environment),
    )  # fmt: skip
    if not outcome.ok:
        known = cause(outcome.stdout)
        raise OutsideFailed(
            f"model.{known.code}" if known else "model.failed",
            f"The base model {name} could not be made ({ended(outcome.rc)}). {known.what if known else ''}".strip(),
            last_error(outcome.stdout),
            known.next if known else "Run the same command again; it starts over with the model only.",
        )
    os.replace(partial, folder)
    emit(Event("end", STAGE, f"Base model ready: {folder}"))


def _maker_digest() -> str:
    text = (WORKER / "gpu_setup_worker" / "models.py").read_bytes() + (SAMPLES / "house-style.json").read_bytes()
    return hashlib.sha256(text).hexdigest()
