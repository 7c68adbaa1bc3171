"""Downloads a model from the hub into a plain folder for venv and container: resumable, checked, without pickle files.

base_model ─▶ gpu_setup_worker.fetch in the training environment ─▶ models/ORG--NAME-REVISION/ + source.json
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from harness.atomic_files import disk_errors
from harness.environment.build import Environment
from harness.environment.worker_process import worker_environment
from harness.process.diagnosis import describe_exit, last_error
from harness.recipe.loader import SHIPPED
from machine.errors import OutsideFailed, Problem, Refused
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

STAGE = "model"
SOURCE = "source.json"
COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelSource(msgspec.Struct, frozen=True):
    """Where a model folder comes from. `files`: name → bytes, and the digest that the file was checked with."""

    repo: str
    revision: str
    licence: str | None = None
    files: dict[str, tuple[int, str | None]] = {}


class KnownModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sha256 of files of a model at one commit, by name (recipes/models.toml)."""

    revision: str
    sha256: dict[str, str]
    source: str
    date: str


@cache
def known_models() -> dict[str, KnownModel]:
    """The models whose files have a known sha256, by their name on the hub."""
    text = (SHIPPED / "models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, KnownModel])


def known_files(repo: str, revision: str | None) -> dict[str, str]:
    """name → sha256, for the files of this model at this commit that have a known one."""
    model = known_models().get(repo)
    return model.sha256 if model and model.revision == revision else {}


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
        _check_cache(repo, revision)
        return repo
    folder = model_folder(paths.models, repo, revision)
    with disk_errors(folder), FileLock(f"{make(paths.models) / folder.name}.lock"):
        source = read_source(folder)
        if source is None or not is_the_pinned(source, revision, folder):
            _fetch(repo, revision, folder, environment, machine, emit)
        else:
            emit(Event("end", STAGE, f"{repo} is downloaded (revision {source.revision[:12]}): {folder}"))
    return str(folder)


def is_the_pinned(source: ModelSource, revision: str | None, folder: Path) -> bool:
    """Whether a complete folder is of the commit that is pinned, with the files that are known for it."""
    if revision and COMMIT.fullmatch(revision) and source.revision != revision:
        return False
    return all(
        source.files.get(name, (0, None))[1] == digest or _sha256(folder / name) == digest
        for name, digest in known_files(source.repo, source.revision).items()
    )


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _check_cache(repo: str, revision: str | None) -> None:
    """Refuse a model in the libraries' own cache if one of its files does not have its known sha256."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    for name, digest in known_files(repo, revision).items():
        file = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / str(revision) / name
        if file.exists() and (found := _sha256(file)) != digest:
            raise _problem(repo, revision, _Failed("changed", f"{file} has sha256 {found}, and must have {digest}"))


def _fetch(
    repo: str, revision: str | None, folder: Path, environment: Environment, machine: Machine, emit: Emit
) -> None:
    emit(Event("start", STAGE, f"Asking the hub for {repo}"))
    known = known_files(repo, revision)
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
            emit(Event("note", STAGE, how_checked(known)))
        elif isinstance(event, _Progress):
            now = time.monotonic()
            first.append((now, event.done))
            rate = (event.done - first[0][1]) / (now - first[0][0]) if now > first[0][0] else 0.0
            left = (event.total - event.done) / rate if rate > 0 else None
            emit(Event("progress", STAGE, f"downloading {repo}", event.done, event.total, "bytes", left))
        else:
            failed.append(event)

    options = ["--revision", revision] if revision else []
    options += [word for name, digest in known.items() for word in ("--sha256", f"{name}={digest}")]
    outcome = machine.stream(
        (str(environment.python), "-m", "gpu_setup_worker.fetch", repo, str(folder), *options),
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


def how_checked(known: dict[str, str]) -> str:
    """What the files of a download are compared with, as a sentence."""
    hub = "with the digests that the hub itself gives: that shows a damaged download, not a changed model"
    if not known:
        return f"gpu-setup knows no sha256 of its files, so they are checked only {hub}."
    return f"{len(known)} of its files are checked with gpu-setup's own sha256, the others {hub}."


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
        case "other-revision":
            return OutsideFailed(
                "model.other-revision",
                f"{hub} does not give the revision of {repo} that the recipe pins: {failed.text}.",
                "A mirror is out of date, or changes models. Nothing of it is loaded.",
                "Unset HF_ENDPOINT or try another network; to train on another revision, change revision_of_model in a "
                "copy of the recipe.",
            )
        case "changed":
            return OutsideFailed(
                "model.changed",
                f"{repo} is not the model that gpu-setup knows at this revision: {failed.text}.",
                "A hub, mirror or proxy changed the file, or the disk fails. Nothing of it is loaded.",
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
