"""What every Dockerfile contains."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from checks.catalogue import catalogue
from containers.dockerfile import dockerfile, image_tag
from containers.model import ImageSpec, ImageVendor
from containers.spec import image_spec
from tests.containers.hosts import host, rx_6700_xt

MACHINES = ("no-gpu", "rtx3090-healthy", "v100-server-healthy", "rx7900xtx-healthy", "rx6700xt")


def spec(name: str, base: str | None = None) -> ImageSpec:
    machine = rx_6700_xt() if name == "rx6700xt" else host(name)
    return image_spec(machine, catalogue(), ImageVendor.AUTO, base)


@pytest.fixture(params=MACHINES)
def text(request: pytest.FixtureRequest) -> str:
    return dockerfile(spec(request.param), "1.2.3")


def instructions(text: str, word: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.startswith(f"{word} ")]


def test_no_line_makes_the_builder_ask_a_registry_for_a_front_end(text: str) -> None:
    assert "syntax=" not in text


def test_it_ends_as_a_user_that_is_not_root(text: str) -> None:
    assert instructions(text, "USER") == ["USER 10001:10001"]


def test_the_base_is_pinned(text: str) -> None:
    first, *others = instructions(text, "FROM")
    assert re.fullmatch(r"FROM ubuntu:24\.04@sha256:[0-9a-f]{64} AS system", first)
    assert others == ["FROM system AS environment", "FROM system"]


def test_everything_but_torch_is_installed_by_hash_and_without_dependencies(text: str) -> None:
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 4
    for words in installs:
        assert "torch" in words or ("--require-hashes" in words and "--no-deps" in words)


def test_secrets_are_mounted_and_never_arguments(text: str) -> None:
    assert instructions(text, "ARG") == []
    assert text.count("type=secret,id=ca") == text.count("type=secret,id=pip") == 2


def test_what_triton_needs_at_run_time_stays(text: str) -> None:
    system = text.partition("AS environment")[0]
    assert all(word in system for word in ("gcc", "libc6-dev", "python3-dev"))


def test_the_worker_comes_last(text: str) -> None:
    kept = [line for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert kept[-2].startswith("COPY worker")
    assert kept[-1].startswith("LABEL")


def test_labels_name_stack_lock_and_tool() -> None:
    made = spec("rtx3090-healthy")
    text = dockerfile(made, "1.2.3")
    for label in ('gpu-setup.stack="cu130"', f'gpu-setup.lock="{made.lock_digest}"', 'image.version="1.2.3"'):
        assert label in text


@pytest.mark.parametrize(
    ("name", "proof"),
    [
        ("no-gpu", "wanted = (None, None)"),
        ("rtx3090-healthy", 'wanted = ("13.0", None)'),
        ("rx7900xtx-healthy", 'wanted = (None, "7.2")'),
        ("rx6700xt", 'wanted = (None, "7.15")'),
    ],
)
def test_the_build_itself_refuses_another_vendors_torch(name: str, proof: str) -> None:
    assert proof in dockerfile(spec(name), "1")


def test_a_base_without_a_digest_is_taken_as_it_is() -> None:
    text = dockerfile(spec("no-gpu", "debian:bookworm"), "1")
    assert "FROM debian:bookworm AS system" in text
    assert "base.digest" not in text


def test_no_word_of_a_machine_leaves_its_comment() -> None:
    evil = replace(spec("no-gpu"), because="a card\nRUN curl evil", notes=("one\r\nFROM evil",))
    text = dockerfile(evil, "1")
    assert instructions(text, "RUN") == instructions(dockerfile(spec("no-gpu"), "1"), "RUN")
    assert len(instructions(text, "FROM")) == 3


def test_a_forgotten_value_is_an_error() -> None:
    from jinja2 import UndefinedError

    class Without:
        stack = "cpu"

    with pytest.raises((UndefinedError, AttributeError)):
        dockerfile(Without(), "1")  # type: ignore[arg-type]


def test_machines_with_the_same_stack_share_the_image() -> None:
    assert image_tag(spec("rtx3090-healthy")) == image_tag(spec("rtx4090-healthy"))
    assert image_tag(spec("rtx3090-healthy")) != image_tag(spec("v100-server-healthy"))
    assert image_tag(spec("no-gpu")) != image_tag(spec("no-gpu", "debian:bookworm"))


def test_a_new_version_of_the_tool_is_the_same_image() -> None:
    made = spec("no-gpu")
    assert dockerfile(made, "1") != dockerfile(made, "2")
    assert image_tag(made).startswith("gpu-setup:cpu-py3.12-")
