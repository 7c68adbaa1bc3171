"""Downloads a model from the hub into a plain folder for venv and container: resumable, checked, without pickle files.

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
from harness.process.diagnosis import describe_exit, last_error
from machine.errors import OutsideFailed, Problem, Refused
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

STAGE = "model"
SOURCE = "source.json"


class ModelSource(msgspec.Struct, frozen=True):
    """Where a model folder comes from. `files`: name → bytes, and the digest that the file was checked with."""

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
    """The folder's source.json, if every file listed in it exists with its size; else None."""
    try:
        source = msgspec.json.decode((folder / SOURCE).read_bytes(), type=ModelSource)
        if all((folder / name).stat().st_size == size for name, (size, _) in source.files.items()):
            return source
    except (OSError, msgspec.MsgspecError):
        pass
    return None


def model_folder(models: Path, repo: str, revision: str | None) -> Path:
    """One folder per model and requested revision; `main` is the state at the time of the download."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", repo.replace("/", "--"))
    return models / f"{name}-{re.sub('[^A-Za-z0-9._-]', '-', revision or 'main')[:12]}"


def ensure_downloaded(
    repo: str, revision: str | None, environment: Environment, machine: Machine, paths: Paths, emit: Emit
) -> str:
    """The model's folder, downloaded unless it is complete; raises Problem with what to do next.

    With HF_HUB_OFFLINE the model must be in the libraries' own cache, and `repo` is returned unchanged.
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
            emit(Event("end", STAGE, f"{repo} is downloaded (revision {source.revision[:12]}): {folder}"))
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
            done = (event.bytes - event.left) / 1e9
            part = f", {done:.1f} GB of it already downloaded" if event.left < event.bytes else ""
            words = f"licence {event.licence or 'not stated'}, {event.bytes / 1e9:.1f} GB in {event.files} files{part}"
            emit(Event("note", STAGE, f"Downloading {event.repo} (revision {event.revision[:12]}): {words}"))
        elif isinstance(event, _Progress):
            now = time.monotonic()
            first.append((now, event.done))
            rate = (event.done - first[0][1]) / (now - first[0][0]) if now > first[0][0] else 0.0
            left = (event.total - event.done) / rate if rate > 0 else None
            emit(Event("progress", STAGE, f"downloading {repo}", event.done, event.total, "bytes", left))
        else:
            failed.append(event)

    option = ("--revision", revision) if revision else ()
    outcome = machine.stream(
        (str(environment.python), "-m", "gpu_setup_worker.fetch", repo, str(folder), *option),
        on_line,
        env=worker_environment(environment, offline=False),
    )
    if failed:
        raise _problem(repo, revision, failed[-1])
    if not outcome.ok:
        raise OutsideFailed(
            "model.failed",
            f"{repo} could not be downloaded ({describe_exit(outcome.rc)}).",
            last_error(outcome.stdout),
            "Run the same command again: it continues this download.",
        )
    emit(Event("end", STAGE, f"Downloaded and checked: {folder}"))


def _problem(repo: str, revision: str | None, failed: _Failed) -> Problem:
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    page = f"{hub}/{repo}"
    match failed.code:
        case "gated":
            return OutsideFailed(
                "model.gated",
                f"{repo} requires you to accept its licence and to log in.",
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
                f"{hub} does not answer, and {repo} is not downloaded yet.",
                failed.text,
                "Check the network and run the same command again: what was downloaded is kept. HF_ENDPOINT selects a "
                "mirror; --recipe smollm2-135m-qlora needs no hub.",
            )
        case "no-room":
            return OutsideFailed(
                "model.no-room",
                f"The disk has no space for {repo}.",
                failed.text + ".",
                "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk; what was downloaded is kept.",
            )
        case "checksum":
            return OutsideFailed(
                "model.checksum",
                f"The download of {repo} is not correct: {failed.text}.",
                "A proxy or mirror changes the file, or the disk fails.",
                "Unset HF_ENDPOINT or try another network, then run the same command again.",
            )
        case "no-safetensors":
            return Refused(
                "model.no-safetensors",
                f"{repo} is not downloaded: {failed.text}.",
                "A pickle file can run any code while it is loaded.",
                "Choose a model with safetensors; many models have a converted copy on the hub.",
            )
    return OutsideFailed(
        f"model.{failed.code}",
        f"{repo} could not be downloaded.",
        failed.text + ".",
        "Run the same command again later.",
    )


def check_model_folder(folder: Path) -> None:
    """Refuse a user's model folder without safetensors: pickle files are not loaded."""
    if list(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
        return
    raise Refused(
        "model.no-safetensors",
        f"The model in {folder} has no safetensors.",
        "A pickle file (pytorch_model.bin) can run any code while it is loaded.",
        "Convert it with transformers' save_pretrained, or choose another base_model.",
    )
