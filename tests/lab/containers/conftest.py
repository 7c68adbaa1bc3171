"""One engine and one real image for all tests of this folder: the image takes minutes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from filelock import FileLock

from containers.dockerfile import UID
from tests.lab.containers.engines import Engine, running, small_image
from tests.lab.containers.material import Distribution, as_root, distribution, root_file_system, wheels
from tests.lab.training import Ended, Training, tool


@pytest.fixture(scope="session")
def material(session_folder: Path, persons_environ: Mapping[str, str]) -> Path:
    """Where downloads lie: GPU_SETUP_TEST_HOME keeps them from one session to the next."""
    kept = persons_environ.get("GPU_SETUP_TEST_HOME")
    folder = (Path(kept) if kept else session_folder) / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def like_here() -> Distribution:
    as_root()
    return distribution()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory, like_here: Distribution) -> Iterator[Engine]:
    """This distribution's Docker (20.10 on Debian 12), with a runtime hook and cards that are stand-ins."""
    with running(tmp_path_factory.mktemp("engine"), hook=True, cards=True, disk_gb=40) as found:
        yield found


@pytest.fixture(scope="session")
def small(engine: Engine) -> str:
    return small_image(engine)


def copy_models(training: Training, home: Path) -> None:
    """The models of the runs outside, for the containers of root, which run as the image's user."""
    place = home / "cache" / "containers" / str(UID) / "models"
    shutil.copytree(training.paths.models, place, symlinks=True)
    for each in (place.parent, place, *place.rglob("*")):
        os.chown(each, UID, UID, follow_symlinks=False)


class Site(NamedTuple):
    """Where the image is built: the engine, a home of the tool, and what the build takes its parts from."""

    engine: Engine
    home: Path
    base: str
    system: Path
    wheels: Path
    certificates: Path
    pip_config: Path

    def tool(self, *arguments: str, timeout: float = 400) -> Ended:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.engine.environ.items():
                patch.setenv(name, value)
            return tool(self.home, *arguments, timeout=timeout)

    def build(self, *more: str) -> Ended:
        return self.tool(
            *("image", "build", "--vendor", "cpu", "--base", self.base, "--offline", "--wheels", str(self.wheels)),
            *("--ca", str(self.certificates), "--pip-config", str(self.pip_config), *more),
            timeout=1200,
        )


@pytest.fixture(scope="session")
def site(engine: Engine, like_here: Distribution, material: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    with FileLock(material / "lock"):
        system, packages = root_file_system(material, like_here), wheels(material, like_here)
    engine.checked("import", str(system), like_here.image)
    certificates, pip_config = folder / "ca.pem", folder / "pip.conf"
    certificates.write_text("-----BEGIN CERTIFICATE-----\nsecret-ca\n-----END CERTIFICATE-----\n")
    pip_config.write_text("[global]\ntimeout = 7\n# secret-pip\n")
    return Site(engine, folder / "home", like_here.image, system, packages, certificates, pip_config)


@pytest.fixture(scope="session")
def built(site: Site, session_folder: Path) -> Ended:
    """`gpu-setup image build` for the processor, from an empty cache."""
    ended = site.build()
    (session_folder / "image-build.json").write_bytes(msgspec.json.encode(ended))
    assert ended.rc == 0, json.dumps(ended.document)[-3000:] + ended.stderr[-3000:]
    return ended
