"""Fetches a model from the hub into a plain folder: size first, resumable, every file checked, safetensors only.

`python -m gpu_setup_worker.fetch REPO OUT [--revision REV]` prints one JSON object a line: plan, progress, then done or
failed {code, text}. OUT/source.json is written last: {repo, revision, licence, files: {name: [bytes, digest]}}; with it
the folder is whole. Large files are checked by the sha256 that the hub gives for them, the others by git's own sha1.
HF_ENDPOINT names a mirror. What was fetched before a cut stays in OUT and is gone on with, in mid-file too.
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

# plain HTTP goes on in the middle of a file and works with every mirror; read at import
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import httpx
from huggingface_hub import HfApi, hf_hub_download
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
# beside weights: configuration, tokenizer, chat template, licence and the model's card; no code, no pickles
_BESIDE = re.compile(r"[\w.-]+\.(json|txt|jinja|model)|tokenizer[\w.-]*|(LICENSE|LICENCE|NOTICE|README)[\w.-]*")
# the same weights once more, for other programs
_OTHER_WEIGHTS = re.compile(r"consolidated.*|.*\.fp16\.safetensors|.*\.int8\.safetensors")


class Wanted(NamedTuple):
    """A file of the repository: what it must be. `sha256` for large files (LFS), `blob` is git's sha1 of the others."""

    name: str
    size: int
    sha256: str | None
    blob: str | None


class Failed(Exception):
    """Why it cannot be fetched: a stable word and a sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def chosen(files: list[Wanted], index: dict[str, Any] | None) -> list[Wanted]:
    """The files of a plain model folder: safetensors (the index's where there is one) and what belongs to them."""
    top = [file for file in files if "/" not in file.name]
    weights = [f for f in top if f.name.endswith(".safetensors") and not _OTHER_WEIGHTS.fullmatch(f.name)]
    if index is not None:
        named = set(index.get("weight_map", {}).values())
        weights = [file for file in weights if file.name in named]
    if not weights:
        raise Failed("no-safetensors", "it has no weights as safetensors, only in formats that can run code")
    others = [f for f in top if _BESIDE.fullmatch(f.name) and not f.name.endswith((".bin", ".safetensors", ".py"))]
    return [*others, *weights]


def is_right(path: Path, wanted: Wanted) -> bool:
    """Whether the file is there and is what the hub says that it is."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return False
    with path.open("rb") as file:
        if wanted.sha256 is not None:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256
        content = file.read()
    # git hashes a header before the content
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == wanted.blob


def fetch_file(repo: str, revision: str, wanted: Wanted, out: Path) -> None:
    """Fetch one file and check it; cut connections are gone on with, a wrong content is fetched once more."""
    wrong = False
    for number in range(TRIES):
        try:
            path = Path(hf_hub_download(repo, wanted.name, revision=revision, local_dir=out))
        except (httpx.TransportError, LocalEntryNotFoundError, OSError) as error:
            # the client's HTTP errors are OSErrors too; only the server's own trouble may pass
            status = getattr(getattr(error, "response", None), "status_code", 500)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            if full or status < 500 or number == TRIES - 1:
                raise
            time.sleep(min(8, 2**number) / 4)
            continue
        if is_right(path, wanted):
            return
        path.unlink(missing_ok=True)
        if wrong:
            break
        wrong = True
    raise Failed("checksum", f"{wanted.name} is not what the hub says that it is, also when fetched once more")


def fetch(repo: str, revision: str | None, out: Path) -> None:
    info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    files = [Wanted(f.rfilename, f.size or 0, f.lfs.sha256 if f.lfs else None, f.blob_id) for f in info.siblings or []]
    index = next((file for file in files if file.name == "model.safetensors.index.json"), None)
    out.mkdir(parents=True, exist_ok=True)
    if index is not None:
        fetch_file(repo, info.sha, index, out)
    named = json.loads((out / index.name).read_text(encoding="utf-8")) if index else None
    todo = chosen(files, named)
    total = sum(file.size for file in todo)
    left = sum(file.size for file in todo if not is_right(out / file.name, file)) - partly(out)
    licence = licence_of(info)
    say("plan", repo=repo, revision=info.sha, licence=licence, bytes=total, left=max(left, 0), files=len(todo))
    free = shutil.disk_usage(out).free
    if free < left:
        raise Failed("no-room", f"{left / 1e9:.1f} GB are still to come, and {free / 1e9:.1f} GB are free at {out}")
    done = threading.Event()
    teller = threading.Thread(target=tell, args=(out, total, done), daemon=True)
    teller.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(fetch_file, repo, info.sha, file, out) for file in todo]:
                future.result()
    finally:
        done.set()
        teller.join()
    shutil.rmtree(out / ".cache", ignore_errors=True)
    document = {
        "repo": repo,
        "revision": info.sha,
        "licence": licence,
        "files": {file.name: [file.size, file.sha256 or file.blob] for file in todo},
    }
    partial = out / f"{SOURCE}.partial"
    partial.write_text(json.dumps(document), encoding="utf-8")
    os.replace(partial, out / SOURCE)


def licence_of(info: Any) -> str | None:
    """As the model's card says it, or its tag."""
    said = getattr(info.card_data, "license", None) if info.card_data else None
    tags = [tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")]
    return said if isinstance(said, str) else next(iter(tags), None)


def partly(out: Path) -> int:
    return sum(path.stat().st_size for path in (out / ".cache").rglob("*.incomplete"))


def tell(out: Path, total: int, done: threading.Event) -> None:
    while not done.wait(0.5):
        there = partly(out) + sum(path.stat().st_size for path in out.glob("*") if path.is_file())
        say("progress", done=min(there, total), total=total)


def reason(error: Exception) -> Failed:
    """The hub client's error as one of our words."""
    text = " ".join(str(error).split())[:300]
    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case Failed():
            return error
        case GatedRepoError():
            return Failed("gated", text)
        case RevisionNotFoundError():
            return Failed("no-revision", text)
        case LocalEntryNotFoundError() | OfflineModeIsEnabled() | httpx.TransportError():
            return Failed("unreachable", f"{type(error).__name__}: {text}")
        case RepositoryNotFoundError():
            return Failed("missing", text)
        case EntryNotFoundError():
            return Failed("incomplete-on-hub", text)
        case HfHubHTTPError() if status in (401, 403):
            return Failed("gated", text)
        case HfHubHTTPError():
            return Failed("hub-failed", f"HTTP {status}: {text}")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Failed("no-room", text)
    return Failed("failed", f"{type(error).__name__}: {text}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.fetch")
    parser.add_argument("repo")
    parser.add_argument("out", type=Path)
    parser.add_argument("--revision")
    given = parser.parse_args()
    end_with_parent()
    try:
        fetch(given.repo, given.revision, given.out)
    except Exception as error:
        failed = reason(error)
        say("failed", code=failed.code, text=failed.text)
        sys.exit(1)
    say("done")


if __name__ == "__main__":
    main()
