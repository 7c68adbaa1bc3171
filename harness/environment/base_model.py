"""The base model's folder: made from a package, generated, or downloaded from the hub."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from harness.atomic_files import disk_errors, write_atomic
from harness.environment.build import Environment
from harness.environment.model_download import check_model_folder, ensure_downloaded
from harness.environment.worker_process import WORKER, worker_environment
from harness.process.diagnosis import describe_exit, process_failure
from harness.recipe.loader import SAMPLES, SHIPPED, Recipe
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

STAGE = "model"
# traits.model "synthetic-NAME": a row of recipes/synthetic.toml
SYNTHETIC = "synthetic-"


def ensure_model(recipe: Recipe, environment: Environment, machine: Machine, paths: Paths, emit: Emit) -> str:
    """The value for base_model: a local folder, or with HF_HUB_OFFLINE the recipe's own name.

    A model that needs no hub is made once per version of its generator, in a temporary folder that is then renamed: a
    killed process leaves nothing that looks complete.
    """
    from filelock import FileLock

    if recipe.traits.model == "hub":
        name, revision = str(recipe.config["base_model"]), recipe.config.get("revision_of_model")
        if Path(name).is_dir():
            check_model_folder(Path(name))
            return str(Path(name).resolve())
        return ensure_downloaded(name, str(revision) if revision else None, environment, machine, paths, emit)
    folder = paths.models / f"{recipe.traits.model}-{_generator_digest()[:12]}"
    if folder.exists():
        return str(folder)
    with disk_errors(folder), FileLock(f"{make(paths.models) / folder.name}.lock"):
        # another gpu-setup may have made it while this one waited
        if not folder.exists():
            _make(recipe.traits.model, folder, environment, machine, emit)
    return str(folder)


def _make(name: str, folder: Path, environment: Environment, machine: Machine, emit: Emit) -> None:
    emit(Event("start", STAGE, f"Making the base model {name}: {folder}"))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    real_name = name.removeprefix(SYNTHETIC) if name.startswith(SYNTHETIC) else None
    argv = [
        str(environment.python),
        "-m",
        "gpu_setup_worker.models",
        SYNTHETIC.rstrip("-") if real_name else name,
        str(partial),
    ]
    argv += ["--text", str(SAMPLES / "house-style.json")]
    if real_name:
        real = write_atomic(folder.with_name(f"{folder.name}.json"), msgspec.json.encode(synthetic_model(real_name)))
        argv += ["--real", str(real)]
    outcome = machine.stream(argv, lambda line: None, env=worker_environment(environment))
    if not outcome.ok:
        raise process_failure(
            "model.failed",
            f"The base model {name} could not be made",
            outcome.stdout,
            describe_exit(outcome.rc),
            "Run the same command again; only this model is made again.",
        )
    os.replace(partial, folder)
    emit(Event("end", STAGE, f"Base model ready: {folder}"))


def synthetic_model(name: str) -> dict[str, Any]:
    """What random weights are made from: the real model's `config`, and its `spread` (a standard deviation by kind).

    A kind's normal distribution has the mean absolute value of the published Weibull distribution, lambda gamma(1 +
    1/k); "" (embedding and head) is the median of the kinds.
    """
    import tomllib
    from math import gamma, pi, sqrt
    from statistics import median

    row = tomllib.loads((SHIPPED / "synthetic.toml").read_text(encoding="utf-8"))[name]
    spread = {kind: fit["lambda"] * gamma(1 + 1 / fit["k"]) * sqrt(pi / 2) for kind, fit in row["spread"].items()}
    return {"config": row["config"], "spread": {**spread, "": median(spread.values())}}


def _generator_digest() -> str:
    files = (WORKER / "gpu_setup_worker" / "models.py", SAMPLES / "house-style.json", SHIPPED / "synthetic.toml")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
