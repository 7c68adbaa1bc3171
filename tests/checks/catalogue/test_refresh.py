"""The script that keeps the stacks: what it calls a fault, and what it takes over from a registry."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from urllib.parse import quote, unquote

import pytest
from msgspec.structs import replace

from checks.catalogue import Stack, catalogue
from tests.lab.serving import serving
from tests.tool import ROOT

SCRIPT = ROOT / "checks" / "data" / "locks" / "refresh.py"
NEW = "sha256:" + "1" * 64


@pytest.fixture
def refresh() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refresh", SCRIPT)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def stacks(vendor: str) -> list[Stack]:
    return [stack for stack in catalogue().stacks if stack.vendor == vendor]


def test_the_stacks_have_no_problems(refresh: ModuleType) -> None:
    assert refresh.problems() == []


def test_a_newer_runtime_on_an_older_driver_is_a_fault(refresh: ModuleType) -> None:
    newer, older = stacks("nvidia")
    assert refresh.floors_that_fall([newer, older]) == []
    (said,) = refresh.floors_that_fall([replace(newer, driver_floor="520.61.05"), older])
    assert said.startswith("cu130: its floor 520.61.05 is below 525.60.13 of cu126")


def test_a_newer_rocm_on_an_older_kernel_is_a_fault_for_each_card(refresh: ModuleType) -> None:
    older, newer = stacks("amd")
    lower = replace(newer, kernel_floors={**newer.kernel_floors, "gfx1201": "6.8"})
    (said,) = refresh.floors_that_fall([older, lower])
    assert "gfx1201 6.8 is below 6.14" in said


def test_a_lock_for_another_axolotl_is_a_fault(refresh: ModuleType) -> None:
    cpu = catalogue().stack("cpu")
    assert refresh.wrong_lock(cpu) == []
    assert refresh.wrong_lock(replace(cpu, axolotl="0.20.0")) == ["cpu: its lock does not pin axolotl 0.20.0"]
    assert refresh.wrong_lock(replace(cpu, lock="none.txt")) == ["cpu: no lock"]


def test_every_lock_is_somebodys_and_no_two_are_the_same() -> None:
    texts = {file.name: file.read_bytes() for file in SCRIPT.parent.glob("*.txt")}
    rows = catalogue().stacks
    assert set(texts) == {lock for row in rows for lock in (row.lock, *row.usable_builds.values()) if lock}
    assert len(set(texts.values())) == len(texts)


ANSWERS = {
    "/pypi/axolotl/json": {"info": {"version": "0.20.0"}},
    "/pypi/axolotl/0.19.0/json": {"info": {"requires_dist": ["torch<=2.13.0,>=2.11.0", "peft==0.20.0"]}},
    "/token": {"token": "t"},
}
PAGE = (
    '<a href="torch-2.13.0%2Bcu130-cp312-cp312-manylinux_2_28_x86_64.whl">torch-2.13.0+cu130-cp312-cp312-x.whl</a>\n'
    '<a href="torch-2.9.1">torch-2.9.1+cu130-cp312-cp312-x.whl</a>\n'
)


@pytest.fixture
def registry(refresh: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry and a package index on a loopback port, as the real ones answer."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            asked = self.path == "/v2/library/ubuntu/manifests/24.04" and self.headers["Authorization"] == "Bearer t"
            self.send_response(200 if asked else 404)
            self.send_header("Docker-Content-Digest", NEW)
            self.end_headers()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            body = PAGE.encode() if path == "/whl/torch/" else json.dumps(ANSWERS.get(path)).encode()
            self.send_response(200 if body != b"null" else 404)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    for name in ("PYPI", "HUB", "HUB_LOGIN"):
        monkeypatch.setattr(refresh, name, url)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_new_digest_of_a_base_changes_only_its_digest_and_date(
    refresh: ModuleType, registry: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "stacks.toml"
    copy.write_bytes(refresh.STACKS.read_bytes())
    monkeypatch.setattr(refresh, "STACKS", copy)
    base = catalogue().base("ubuntu:24.04")
    assert refresh.digest_now("ubuntu:24.04") == NEW
    refresh.write_digest(base, NEW, "2026-12-01")
    before, after = (tomllib.loads(file.read_text()) for file in (refresh.HERE.parent / "stacks.toml", copy))
    changed = {"digest": NEW, "date": "2026-12-01"}
    assert {key: after["bases"][0][key] for key in changed} == changed
    assert after["bases"][0]["source"].startswith(registry)
    assert after["bases"][1:] == before["bases"][1:]
    assert {key: value for key, value in after.items() if key != "bases"} == {
        key: value for key, value in before.items() if key != "bases"
    }


def test_axolotls_requirements_are_compared_with_the_stacks(
    refresh: ModuleType, registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new = replace(catalogue().stack("cpu"), name="new", torch="2.14.0")
    refresh.report_package("axolotl", (*catalogue().stacks, new))
    said = capsys.readouterr().out
    assert "axolotl: newest 0.20.0, pinned 0.19.0" in said
    assert "requires torch <=2.13.0,>=2.11.0; not met by: new" in said


@pytest.mark.parametrize(("torch", "word"), [("2.13.0", "is offered"), ("2.14.0", "is NOT OFFERED")])
def test_an_index_is_queried_for_the_torch_of_its_stack(
    refresh: ModuleType, registry: str, capsys: pytest.CaptureFixture[str], torch: str, word: str
) -> None:
    refresh.report_torch(replace(catalogue().stack("cu130"), torch=torch, torch_index=f"{registry}/whl"))
    said = capsys.readouterr().out
    assert word in said and "newest 2.13.0+cu130" in said


def test_a_registry_that_does_not_respond_is_reported_and_changes_nothing(
    refresh: ModuleType, registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refresh.digest_now("other:1") is None
    assert "no response" in capsys.readouterr().err


def test_torchs_lock_has_the_hashes_of_its_index_and_the_libraries_that_only_it_has(
    refresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real uv, from an index that lists sha256 as download.pytorch.org does."""
    needs = "Requires-Dist: triton-rocm==3.7.1\nRequires-Dist: filelock\n"
    files = {
        name: wheel_bytes(name, needs if name.startswith("torch-") else "")
        for name in (
            "torch-2.13.0+rocm7.2-cp311-cp311-manylinux_2_28_x86_64.whl",
            "torch-2.13.0+rocm7.2-cp312-cp312-manylinux_2_28_x86_64.whl",
            "torch-2.13.0+rocm7.1-cp312-cp312-manylinux_2_28_x86_64.whl",
            "triton_rocm-3.7.1-cp312-cp312-linux_x86_64.whl",
            "filelock-3.20.0-py3-none-any.whl",
        )
    }
    monkeypatch.setattr(refresh, "COMPILE", (str(Path(sys.prefix) / "bin" / "uv"), *refresh.COMPILE[1:], "--no-config"))
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in [name for name in os.environ if name.startswith(("UV_INDEX", "UV_FIND", "UV_EXTRA"))]:
        monkeypatch.delenv(name)
    with index_of(files) as url:
        stack = replace(catalogue().stack("rocm7.2"), torch_index=url)
        text = refresh.torch_lock(stack, "2.13.0+rocm7.2")
    assert text is not None
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    found = {name for name, digest in hashes.items() if digest in text}
    assert found == {name for name in files if "+rocm7.1" not in name and not name.startswith("filelock")}, text
    assert "torch==2.13.0+rocm7.2 " in text and "triton-rocm==3.7.1 " in text and f"# Source: {url}/torch/" in text
    assert refresh.torch_lock(stack, "2.13.0+rocm7.2") is None, "the index is gone"


def wheel_bytes(name: str, needs: str) -> bytes:
    package, version = name.split("-")[:2]
    info = f"{package}-{version}.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {name[:-4].split('-', 2)[2]}\n# {name}\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


@contextmanager
def index_of(files: dict[str, bytes]) -> Iterator[str]:
    """A simple index (PEP 503) of these files, with each one's sha256."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            name = unquote(self.path).strip("/")
            links = [
                f'<a href="/{quote(file)}#sha256={hashlib.sha256(content).hexdigest()}">{file}</a>'
                for file, content in files.items()
                if file.startswith(f"{name.rpartition('/')[2].replace('-', '_')}-")
            ]
            body = files.get(name) or "\n".join(links).encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

    with serving(Handler) as url:
        yield f"{url}/whl"
