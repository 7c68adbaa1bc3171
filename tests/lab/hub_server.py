"""A model hub of the test's own: the few answers of its API that huggingface_hub asks for, over loopback HTTP.

As the real one it gives each file's size and hash (sha256 for large files, git's sha1 for the others), redirects
nothing, takes Range, refuses a gated repository without a token with the header that names the cause, and can be told
to cut a connection in the middle of a file or to send wrong bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.lab.serving import serving

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1 << 20


class Hub:
    """Its models by name (a folder each) and its faults. `ranges` lists the Range headers that came."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.models = models
        self.url = ""
        self.gated: set[str] = set()
        self.token = "hf_test"
        self.asked: list[str] = []
        self.ranges: list[str] = []
        # (file, bytes): the first answers for this file end after so many bytes, so often
        self.cut: tuple[str, int] | None = None
        self.cuts = 0
        # the file whose bytes come wrong, so often
        self.wrong: str | None = None
        self.wrongs = 0
        self.down = False
        # the commit that it answers with, whatever was asked for: for the model, for its files
        self.commit = REVISION
        self.file_commit = REVISION
        # whether a cut is the last that the hub does
        self.dies = False


def sibling(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found: dict[str, object] = {"rfilename": file.name, "size": len(content), "blobId": blob}
    if len(content) >= LARGE:
        found["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return found


@contextmanager
def served(models: dict[str, Path]) -> Iterator[Hub]:
    hub = Hub(models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            if hub.down:
                self.close_connection = True
                self.connection.close()
                return
            hub.asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            api = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([\w.-]+))?", path)
            file = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)", path)
            match = api or file
            if match is None or match[1] not in hub.models:
                self._refuse(404, "RepoNotFound", "Repository not found")
            elif match[2] not in (None, "main", REVISION):
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {match[2]}")
            elif file and match[1] in hub.gated and self.headers["Authorization"] != f"Bearer {hub.token}":
                self._refuse(401, "GatedRepo", f"Access to model {match[1]} is restricted. Please log in.")
            elif api:
                self._info(match[1])
            else:
                assert file is not None
                self._file(hub.models[file[1]] / file[3], body)

        def _refuse(self, status: int, code: str, message: str) -> None:
            content = json.dumps({"error": message}).encode()
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self._end(content)

        def _end(self, content: bytes) -> None:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _info(self, name: str) -> None:
            folder = hub.models[name]
            content = json.dumps(
                {
                    "id": name,
                    "modelId": name,
                    "sha": hub.commit,
                    "gated": "auto" if name in hub.gated else False,
                    "tags": ["safetensors", "license:apache-2.0"],
                    "cardData": {"license": "apache-2.0"},
                    "siblings": [sibling(file) for file in sorted(folder.iterdir()) if file.is_file()],
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self._end(content)

        def _file(self, file: Path, body: bool) -> None:
            if not file.is_file():
                self._refuse(404, "EntryNotFound", "Entry not found")
                return
            content = file.read_bytes()
            known = sibling(file)
            lfs = known.get("lfs")
            etag = lfs["sha256"] if isinstance(lfs, dict) else known["blobId"]
            if body and hub.wrong == file.name and hub.wrongs:
                hub.wrongs -= 1
                content = bytes(len(content))
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            begin = int(asked[1]) if asked else 0
            if asked:
                hub.ranges.append(f"{file.name} {begin}")
            self.send_response(206 if asked else 200)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", hub.file_commit)
            self.send_header("Accept-Ranges", "bytes")
            if asked:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            if body and hub.cut and hub.cut[0] == file.name and hub.cuts:
                hub.cuts -= 1
                self.send_header("Content-Length", str(len(content) - begin))
                self.end_headers()
                self.wfile.write(content[begin : begin + hub.cut[1]])
                self.wfile.flush()
                hub.down = hub.dies
                self.close_connection = True
                return
            self._end(content[begin:])

    with serving(Handler) as url:
        hub.url = url
        yield hub
