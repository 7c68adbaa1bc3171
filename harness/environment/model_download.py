"""A model from the hub in a plain folder that venv and container share: size first, resumable, checked, no pickles.

base_model ─▶ gpu_setup_worker.fetch in the training environment ─▶ models/ORG--NAME-REVISION/ + source.json
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import msgspec

from harness.atomic_files import disk_errors
from harness.environment.build import Environment
from harness.environment.worker_process import worker_environment
from harness.process.diagnosis import ended, last_error
from machine.errors import OutsideFailed, Problem, Refused
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

STAGE = "model"
SOURCE = "source.json"


class ModelSource(msgspec.Struct, frozen=True):
    """Where a model folder comes from. `files`: name → bytes and the digest that it was checked by."""

    repo: str
    revision: str
    licence: str | None = None
    files: dict[str, tuple[int, str | None]] = {}


class _Plan(msgspec.Struct, frozen=True, tag_field="event", tag="plan"):
    repo: str
    revision: str
    licence: str | None
    bytes: int
    left: int
    files: int


class _Progress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    done: int
    total: int


class _Failed(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    code: str
    text: str


_LINE = msgspec.json.Decoder(_Plan | _Progress | _Failed)


def read_source(folder: Path) -> ModelSource | None:
    """What the folder's source.json says, when every file of it is there with its size; else None."""
    try:
        source = msgspec.json.decode((folder / SOURCE).read_bytes(), type=ModelSource)
        if all((folder / name).stat().st_size == size for name, (size, _) in source.files.items()):
            return source
    except (OSError, msgspec.MsgspecError):
        pass
    return None


def model_folder(models: Path, repo: str, revision: str | None) -> Path:
    """One folder for a model and the revision that was asked for; `main` stays what it was when it was fetched."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", repo.replace("/", "--"))
    return models / f"{name}-{re.sub('[^A-Za-z0-9._-]', '-', revision or 'main')[:12]}"


def ensure_downloaded(
    repo: str, revision: str | None, environment: Environment, machine: Machine, paths: Paths, emit: Emit
) -> str:
    """The model's folder, fetched where it is not whole; raises Problem with what to do.

    A person's HF_HUB_OFFLINE leaves the model to the libraries' own cache; then the name is returned as it is.
    """
    from filelock import FileLock

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return repo
    folder = model_folder(paths.models, repo, revision)
    with disk_errors(folder), FileLock(f"{make(paths.models) / folder.name}.lock"):
        source = read_source(folder)
        if source is None:
            _fetch(repo, revision, folder, environment, machine, emit)
        else:
            emit(Event("end", STAGE, f"{repo} is there (revision {source.revision[:12]}): {folder}"))
    return str(folder)


def _fetch(
    repo: str, revision: str | None, folder: Path, environment: Environment, machine: Machine, emit: Emit
) -> None:
    emit(Event("start", STAGE, f"Asking the hub for {repo}"))
    failed: list[_Failed] = []
    first: list[tuple[float, int]] = []

    def on_line(line: str) -> None:
        try:
            event: Any = _LINE.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if isinstance(event, _Plan):
            there = f", {(event.bytes - event.left) / 1e9:.1f} GB of it are there" if event.left < event.bytes else ""
            words = f"licence {event.licence or 'not stated'}, {event.bytes / 1e9:.1f} GB in {event.files} files{there}"
            emit(Event("note", STAGE, f"Fetching {event.repo} (revision {event.revision[:12]}): {words}"))
        elif isinstance(event, _Progress):
            now = time.monotonic()
            first.append((now, event.done))
            rate = (event.done - first[0][1]) / (now - first[0][0]) if now > first[0][0] else 0.0
            left = (event.total - event.done) / rate if rate > 0 else None
            emit(Event("progress", STAGE, f"fetching {repo}", event.done, event.total, "bytes", left))
        else:
            failed.append(event)

    revised = ("--revision", revision) if revision else ()
    outcome = machine.stream(
        (str(environment.python), "-m", "gpu_setup_worker.fetch", repo, str(folder), *revised),
        on_line,
        env=worker_environment(environment, offline=False),
    )
    if failed:
        raise _problem(repo, revision, failed[-1])
    if not outcome.ok:
        raise OutsideFailed(
            "model.failed",
            f"{repo} could not be fetched ({ended(outcome.rc)}).",
            last_error(outcome.stdout),
            "Run the same command again: it goes on where this one ended.",
        )
    emit(Event("end", STAGE, f"Fetched and checked: {folder}"))


def _problem(repo: str, revision: str | None, failed: _Failed) -> Problem:
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    page = f"{hub}/{repo}"
    match failed.code:
        case "gated":
            return OutsideFailed(
                "model.gated",
                f"{repo} asks for a licence click and a token.",
                failed.text,
                f"Accept the licence at {page}, run `hf auth login` or set HF_TOKEN, and run the same command again; "
                "--recipe smollm2-135m-qlora needs neither.",
            )
        case "missing" | "no-revision":
            what = f"{repo} has no revision {revision}" if failed.code == "no-revision" else f"There is no model {repo}"
            return OutsideFailed(
                "model.missing",
                f"{what} at {hub}, or it is private.",
                failed.text,
                "Correct base_model (and revision_of_model) in the recipe; for a private model set HF_TOKEN.",
            )
        case "unreachable":
            return OutsideFailed(
                "model.unreachable",
                f"{hub} does not answer, and {repo} is not here yet.",
                failed.text,
                "Check the network and run the same command again: what was fetched stays. HF_ENDPOINT names a mirror; "
                "--recipe smollm2-135m-qlora needs no hub.",
            )
        case "no-room":
            return OutsideFailed(
                "model.no-room",
                f"The disk has no room for {repo}.",
                failed.text + ".",
                "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk; what was fetched stays.",
            )
        case "checksum":
            return OutsideFailed(
                "model.checksum",
                f"{repo} does not arrive whole: {failed.text}.",
                "A proxy or mirror changes it, or the disk fails.",
                "Unset HF_ENDPOINT or try another network, then run the same command again.",
            )
        case "no-safetensors":
            return Refused(
                "model.no-safetensors",
                f"{repo} is not fetched: {failed.text}.",
                "A pickled file can run any code while it is loaded.",
                "Choose a model with safetensors; many have a converted copy on the hub.",
            )
    return OutsideFailed(
        f"model.{failed.code}", f"{repo} could not be fetched.", failed.text + ".", "Run the same command again later."
    )


def check_model_folder(folder: Path) -> None:
    """A person's own model folder must hold safetensors; pickles are not loaded."""
    if list(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
        return
    raise Refused(
        "model.no-safetensors",
        f"The model in {folder} has no safetensors.",
        "A pickled file (pytorch_model.bin) can run any code while it is loaded.",
        "Convert it with transformers' save_pretrained, or choose another base_model.",
    )
