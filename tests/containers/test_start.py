"""From facts to a container: the image that is chosen, and what the container gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound
from msgspec.structs import replace

from checks.catalogue import catalogue
from containers.build import WORKER_LABEL
from containers.container import Container
from containers.container_setup import ContainerOptions, FoundImage, find_image, make_container
from containers.dockerfile import image_tag
from containers.model import Engine, ImageSpec
from containers.spec import image_spec
from machine.errors import BadUsage, Refused
from machine.local import LocalMachine, Session
from machine.paths import Paths
from tests.containers.hosts import host, rx_6700_xt

ENGINE = Engine("docker.io", "docker", "20.10.24", False, (), False, ("docker", "build"))


class Shelf(LocalMachine):
    """A machine, and an engine's API with images: name or id → labels. Nothing else is answered."""

    def __init__(self, environ: Mapping[str, str] | None = None, **images: dict[str, str]) -> None:
        self.environ = environ or {}
        self.held = {name.replace("__", ":"): labels for name, labels in images.items()}

    def session(self) -> Session:
        return super().session()._replace(environ=self.environ)

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.held:
            raise ImageNotFound(f"No such image: {name}")
        found = {"Id": f"sha256:{name}", "Size": 7, "Created": "2026-11-24T20:00:00Z", "RepoTags": [name]}
        return {**found, "Config": {"Labels": self.held[name]}}

    def images(self, quiet: bool, filters: Mapping[str, list[str]]) -> list[str]:
        wanted = set(filters["label"])
        return [name for name, have in self.held.items() if wanted <= {f"{key}={value}" for key, value in have.items()}]

    def containers(self, **_wanted: object) -> list[dict[str, Any]]:
        return []


def labels(spec: ImageSpec, worker: str) -> dict[str, str]:
    return {
        "gpu-setup.stack": spec.stack,
        "gpu-setup.lock": spec.lock_digest,
        "gpu-setup.requirement": spec.torch_requirement,
        WORKER_LABEL: worker,
    }


@pytest.fixture
def spec() -> ImageSpec:
    return image_spec(host("no-gpu"), catalogue())


def test_the_image_of_this_spec_is_taken_before_one_on_another_base(spec: ImageSpec) -> None:
    shelf = Shelf(**{image_tag(spec): labels(spec, "w"), "other__1": labels(spec, "w")})
    assert find_image(spec, "w", ENGINE, shelf).name == image_tag(spec)
    assert find_image(spec, "w", ENGINE, Shelf(other__1=labels(spec, "w"))).name == "other:1"


def test_when_it_was_made_is_known(spec: ImageSpec) -> None:
    assert (
        find_image(spec, "w", ENGINE, Shelf(**{image_tag(spec): labels(spec, "w")})).created == "2026-11-24T20:00:00Z"
    )


def test_an_image_with_other_training_code_is_refused_with_the_way_out(spec: ImageSpec) -> None:
    with pytest.raises(Refused) as caught:
        find_image(spec, "new", ENGINE, Shelf(**{image_tag(spec): labels(spec, "old")}))
    assert caught.value.code == "image.old-worker"


def test_an_image_of_the_same_stack_for_other_cards_is_another_one() -> None:
    """ROCm 10's torch brings kernels for the named cards only."""
    mine = image_spec(rx_6700_xt(), catalogue())
    other = replace(mine, torch_requirement=mine.torch_requirement.replace("gfx1031", "gfx908"))
    with pytest.raises(Refused) as caught:
        find_image(mine, "w", ENGINE, Shelf(other__1=labels(other, "w")))
    assert caught.value.code == "image.not-built"


def started(spec: ImageSpec, tmp_path: Path, network: bool, **environ: str) -> Container:
    places = Paths(tmp_path / "data", tmp_path / "cache", tmp_path / "state")
    image = FoundImage(spec, ENGINE, "gpu-setup:x", "sha256:x", {})
    wanted = ContainerOptions(network=network)
    return make_container(image, host("no-gpu"), catalogue(), Shelf(environ), Shelf(), places, wanted)


def test_with_a_network_it_gets_the_proxy_and_the_certificates(spec: ImageSpec, tmp_path: Path) -> None:
    bundle = tmp_path / "company.pem"
    bundle.write_text("x")
    environ = {
        "https_proxy": "http://me:secret@proxy.example:3128",
        "SSL_CERT_FILE": str(bundle),
        "REQUESTS_CA_BUNDLE": "/nonexistent",
        "HF_TOKEN": "hf_secret",
        "HF_ENDPOINT": "https://me:secret@hub.example",
    }
    made = started(spec, tmp_path, True, **environ)
    assert made.secrets == {
        "https_proxy": "http://me:secret@proxy.example:3128",
        "HF_ENDPOINT": "https://me:secret@hub.example",
    }
    assert made.env["SSL_CERT_FILE"] == str(bundle)
    assert bundle in {mount.path for mount in made.mounts}
    assert "secret" not in str(made.env) and "REQUESTS_CA_BUNDLE" not in made.env
    assert not made.host_network


def test_a_proxy_on_this_machine_is_reached_over_its_own_network(spec: ImageSpec, tmp_path: Path) -> None:
    assert started(spec, tmp_path, True, http_proxy="http://127.0.0.1:3128").host_network


def test_an_override_of_the_card_stays_outside(spec: ImageSpec, tmp_path: Path) -> None:
    made = started(spec, tmp_path, False, HSA_OVERRIDE_GFX_VERSION="10.3.0", HSA_XNACK="1")
    assert made.env["HSA_XNACK"] == "1"
    assert "HSA_OVERRIDE_GFX_VERSION" not in made.env


def test_without_a_network_it_gets_none_of_that(spec: ImageSpec, tmp_path: Path) -> None:
    made = started(spec, tmp_path, False, https_proxy="http://127.0.0.1:1", SSL_CERT_FILE=__file__)
    assert (made.network, made.host_network, made.secrets) == (False, False, {})
    assert "SSL_CERT_FILE" not in made.env
    assert all(mount.path.is_relative_to(tmp_path) for mount in made.mounts)


@pytest.mark.parametrize(("size", "number"), [("16g", 16 << 30), ("512m", 512 << 20), ("1024", 1024)])
def test_shared_memory_is_given_as_to_docker(size: str, number: int, spec: ImageSpec, tmp_path: Path) -> None:
    places = Paths(tmp_path / "data", tmp_path / "cache", tmp_path / "state")
    image = FoundImage(spec, ENGINE, "gpu-setup:x", "sha256:x", {})
    wanted = ContainerOptions(shm=size)
    made = make_container(image, host("no-gpu"), catalogue(), Shelf(), Shelf(), places, wanted)
    assert made.shm == number
    with pytest.raises(BadUsage):
        make_container(
            image, host("no-gpu"), catalogue(), Shelf(), Shelf(), places, replace(wanted, shm="much")
        )  # fmt: skip
