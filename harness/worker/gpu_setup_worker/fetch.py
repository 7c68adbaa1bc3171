"""Downloads a model from the hub into a plain folder: resumable, every file checked, safetensors only.

`python -m gpu_setup_worker.fetch REPO OUT [--revision REV] [--sha256 NAME=HEX…]` prints one JSON object per line: plan
(with the size), progress, then done or failed {code, text}. OUT/source.json is written last: {repo, revision, licence,
files: {name: [bytes, digest]}}; with it the folder is complete. Large files are checked with the hub's sha256, all
other files with git's own sha1: both come from the same server as the file. A file that --sha256 names must have that
digest; where REV is a commit, every answer must be of that commit. HF_ENDPOINT selects a mirror. An interrupted
download stays in OUT and resumes, also within a file.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# plain HTTP can resume within a file and works with every mirror; read at import
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import httpx
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gpu_setup_worker.parent import end_with_parent

SOURCE = "source.json"
TRIES = 5
# files besides the weights: configuration, tokenizer, chat template, licence and model card; no code, no pickle files
_BESIDE = re.compile(r"[\w.-]+\.(json|txt|jinja|model)|tokenizer[\w.-]*|(LICENSE|LICENCE|NOTICE|README)[\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# copies of the same weights, for other programs
_OTHER_WEIGHTS = re.compile(r"consolidated.*|.*\.fp16\.safetensors|.*\.int8\.safetensors")


class RepoFile(NamedTuple):
    """A file of the repository. `sha256` is the digest of a large file (LFS), `blob` git's sha1 of any other file; both
    as the hub gives them. `known`: the sha256 that the file must have, from elsewhere.
    """

    name: str
    size: int
    sha256: str | None
    blob: str | None
    known: str | None = None


class DownloadFailed(Exception):
    """Why it cannot be downloaded: a stable code and a sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def print_event(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def choose_files(files: list[RepoFile], index: dict[str, Any] | None) -> list[RepoFile]:
    """The files to download: the safetensors (those in the index, if any) and the files that belong to them."""
    top = [file for file in files if "/" not in file.name]
    weights = [f for f in top if f.name.endswith(".safetensors") and not _OTHER_WEIGHTS.fullmatch(f.name)]
    if index is not None:
        named = set(index.get("weight_map", {}).values())
        weights = [file for file in weights if file.name in named]
    if not weights:
        raise DownloadFailed("no-safetensors", "it has no safetensors weights, only formats that can run code")
    others = [f for f in top if _BESIDE.fullmatch(f.name) and not f.name.endswith((".bin", ".safetensors", ".py"))]
    return [*others, *weights]


def is_correct(path: Path, wanted: RepoFile) -> bool:
    """Whether the file exists with the size and digest that the hub gives."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return False
    with path.open("rb") as file:
        if wanted.sha256 is not None:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256
        content = file.read()
    # git hashes a header before the content
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == wanted.blob


def fetch_file(repo: str, revision: str, wanted: RepoFile, out: Path) -> None:
    """Download one file and check it; lost connections are resumed, a wrong content is downloaded once again."""
    wrong = False
    for number in range(TRIES):
        try:
            answered = get_hf_file_metadata(hf_hub_url(repo, wanted.name, revision=revision)).commit_hash
            if answered != revision:
                raise other_revision(wanted.name, revision, answered)
            path = Path(hf_hub_download(repo, wanted.name, revision=revision, local_dir=out))
        except (httpx.TransportError, LocalEntryNotFoundError, OSError) as error:
            # the client's HTTP errors are OSErrors too; only server errors are worth another try
            status = getattr(getattr(error, "response", None), "status_code", 500)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            if full or status < 500 or number == TRIES - 1:
                raise
            time.sleep(min(8, 2**number) / 4)
            continue
        if is_correct(path, wanted):
            refuse_changed(path, wanted)
            return
        path.unlink(missing_ok=True)
        if wrong:
            break
        wrong = True
    raise DownloadFailed(
        "checksum", f"{wanted.name} does not have the digest that the hub gives, also after a second download"
    )


def other_revision(what: str, wanted: str, answered: str | None) -> DownloadFailed:
    return DownloadFailed("other-revision", f"{what} was asked for at {wanted}, and the answer is of {answered}")


def refuse_changed(path: Path, wanted: RepoFile) -> None:
    """Remove a file that does not have its known sha256, and fail."""
    if wanted.known is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.known:
        path.unlink()
        raise DownloadFailed("changed", f"{wanted.name} has sha256 {found}, and must have {wanted.known}")


def listed_files(info: Any, known: dict[str, str]) -> list[RepoFile]:
    """The repository's files; fails before any download if the hub lists another digest than the known one."""
    files = [
        RepoFile(f.rfilename, f.size or 0, f.lfs.sha256 if f.lfs else None, f.blob_id, known.get(f.rfilename))
        for f in info.siblings or []
    ]
    if missing := sorted(known.keys() - {file.name for file in files}):
        raise DownloadFailed("changed", f"{missing[0]} is missing there")
    for file in files:
        if file.known and file.sha256 and file.known != file.sha256:
            raise DownloadFailed("changed", f"{file.name} has sha256 {file.sha256} there, and must have {file.known}")
    return files


def fetch(repo: str, revision: str | None, out: Path, known: dict[str, str]) -> None:
    info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    if revision and _COMMIT.fullmatch(revision) and info.sha != revision:
        raise other_revision(repo, revision, info.sha)
    files = listed_files(info, known)
    index = next((file for file in files if file.name == "model.safetensors.index.json"), None)
    out.mkdir(parents=True, exist_ok=True)
    if index is not None:
        fetch_file(repo, info.sha, index, out)
    named = json.loads((out / index.name).read_text(encoding="utf-8")) if index else None
    todo = choose_files(files, named)
    total = sum(file.size for file in todo)
    left = sum(file.size for file in todo if not is_correct(out / file.name, file)) - partial_bytes(out)
    licence = licence_of(info)
    print_event("plan", repo=repo, revision=info.sha, licence=licence, bytes=total, left=max(left, 0), files=len(todo))
    free = shutil.disk_usage(out).free
    if free < left:
        raise DownloadFailed(
            "no-room", f"{left / 1e9:.1f} GB are still to download, and {free / 1e9:.1f} GB are free at {out}"
        )
    done = threading.Event()
    progress = threading.Thread(target=print_progress, args=(out, total, done), daemon=True)
    progress.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(fetch_file, repo, info.sha, file, out) for file in todo]:
                future.result()
    finally:
        done.set()
        progress.join()
    shutil.rmtree(out / ".cache", ignore_errors=True)
    document = {
        "repo": repo,
        "revision": info.sha,
        "licence": licence,
        "files": {file.name: [file.size, file.known or file.sha256 or file.blob] for file in todo},
    }
    partial = out / f"{SOURCE}.partial"
    partial.write_text(json.dumps(document), encoding="utf-8")
    os.replace(partial, out / SOURCE)


def licence_of(info: Any) -> str | None:
    """The licence in the model's card, or its tag."""
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    tags = [tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")]
    return licence if isinstance(licence, str) else next(iter(tags), None)


def partial_bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in (out / ".cache").rglob("*.incomplete"))


def print_progress(out: Path, total: int, done: threading.Event) -> None:
    while not done.wait(0.5):
        size = partial_bytes(out) + sum(path.stat().st_size for path in out.glob("*") if path.is_file())
        print_event("progress", done=min(size, total), total=total)


def failure_of(error: Exception) -> DownloadFailed:
    """The hub client's error as one of our codes."""
    text = " ".join(str(error).split())[:300]
    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case DownloadFailed():
            return error
        case GatedRepoError():
            return DownloadFailed("gated", text)
        case RevisionNotFoundError():
            return DownloadFailed("no-revision", text)
        case LocalEntryNotFoundError() | OfflineModeIsEnabled() | httpx.TransportError():
            return DownloadFailed("unreachable", f"{type(error).__name__}: {text}")
        case RepositoryNotFoundError():
            return DownloadFailed("missing", text)
        case EntryNotFoundError():
            return DownloadFailed("incomplete-on-hub", text)
        case HfHubHTTPError() if status in (401, 403):
            return DownloadFailed("gated", text)
        case HfHubHTTPError():
            return DownloadFailed("hub-failed", f"HTTP {status}: {text}")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DownloadFailed("no-room", text)
    return DownloadFailed("failed", f"{type(error).__name__}: {text}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.fetch")
    parser.add_argument("repo")
    parser.add_argument("out", type=Path)
    parser.add_argument("--revision")
    parser.add_argument("--sha256", action="append", default=[], metavar="NAME=HEX")
    given = parser.parse_args()
    end_with_parent()
    try:
        fetch(given.repo, given.revision, given.out, dict(word.rsplit("=", 1) for word in given.sha256))
    except Exception as error:
        failed = failure_of(error)
        print_event("failed", code=failed.code, text=failed.text)
        sys.exit(1)
    print_event("done")


if __name__ == "__main__":
    main()
