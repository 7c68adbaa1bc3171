"""Containers of root run as another user: what was there before keeps its owner, in every case."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from containers.container_setup import ContainerOptions, FoundImage, make_container
from containers.dockerfile import UID
from containers.ownership import container_paths, refuse_closed, refuse_unwritable
from containers.run import _open_log
from containers.spec import image_spec
from machine.errors import Refused
from machine.local import LocalMachine
from machine.paths import Owner, Paths, make
from tests.containers.hosts import host
from tests.containers.test_start import ENGINE, Shelf
from tests.gpu_setup.commands.test_train_out import states

ALEX = Owner(1234, 1235)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "data", tmp_path / "cache", tmp_path / "state")


@as_root
def test_a_new_folder_is_made_for_another_user_and_its_parents_are_not(tmp_path: Path) -> None:
    made = make(tmp_path / "new" / "deep", ALEX)
    assert (made.stat().st_uid, made.stat().st_gid) == ALEX
    assert made.parent.stat().st_uid == 0


@as_root
def test_a_folder_that_exists_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = states(tmp_path)
    assert make(tmp_path, ALEX) == tmp_path
    assert states(tmp_path) == before


@as_root
def test_containers_of_another_user_have_caches_of_their_own(places: Paths) -> None:
    """What was made for an environment of root's own, or by an earlier version, is not theirs."""
    make(places.models)
    before = states(places.models)
    theirs = container_paths(places, ALEX)
    assert theirs.owner == ALEX
    assert theirs.runs == places.runs
    assert not theirs.models.is_relative_to(places.models)
    assert (theirs.cache.stat().st_uid, theirs.cache.parent.stat().st_uid) == (ALEX.uid, 0)
    assert states(places.models) == before


def test_who_runs_containers_as_oneself_uses_the_same_folders_inside_and_outside(places: Paths) -> None:
    assert container_paths(places, Owner(os.geteuid(), os.getegid())) == places


@as_root
@pytest.mark.parametrize("owner", [0, UID], ids=["root's", "the container's user's"])
def test_a_persons_hub_folder_is_mounted_only_where_the_containers_user_may_write(
    owner: int, places: Paths, tmp_path: Path
) -> None:
    """Not its parent, which holds tokens; and nothing in it changes."""
    home, outside = tmp_path / "hf", tmp_path / "outside"
    (home / "hub" / "models").mkdir(parents=True)
    outside.write_text("x")
    (home / "token").write_text("hf_secret")
    (home / "hub" / "link").symlink_to(outside)
    os.link(outside, home / "hub" / "name")
    os.chown(home / "hub", owner, owner)
    before = states(home)
    image = FoundImage(image_spec(host("no-gpu"), catalogue()), ENGINE, "gpu-setup:x", "sha256:x", {})
    shelf = Shelf({"HF_HOME": str(home)})
    made = make_container(image, host("no-gpu"), catalogue(), shelf, shelf, places, ContainerOptions(network=True))
    assert states(home) == before
    of_hf = [mount.path for mount in made.mounts if mount.path.is_relative_to(home)]
    assert of_hf == ([home / "hub"] if owner else [])
    assert made.env.get("HF_HUB_CACHE") == (str(home / "hub") if owner else None)
    assert not Path(made.env["HF_HOME"]).is_relative_to(home)
    assert {mount.path.stat().st_uid for mount in made.mounts if mount.writable} == {UID}


@as_root
def test_a_folder_that_the_containers_user_cannot_write_is_refused_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    before = states(tmp_path)
    with pytest.raises(Refused) as caught:
        refuse_unwritable(folder, ALEX, LocalMachine())
    assert caught.value.code == "image.not-writable"
    assert str(ALEX.uid) in caught.value.why
    assert states(tmp_path) == before
    folder.chmod(0o777)
    refuse_unwritable(folder, ALEX, LocalMachine())
    folder.chmod(0o755)
    os.chown(folder, *ALEX)
    refuse_unwritable(folder, ALEX, LocalMachine())
    refuse_unwritable(tmp_path / "does-not-exist-yet", ALEX, LocalMachine())


@as_root
def test_a_folder_that_the_containers_user_cannot_enter_is_refused_and_stays(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    before = states(tmp_path)
    with pytest.raises(Refused) as caught:
        refuse_closed(tmp_path, ALEX, LocalMachine())
    assert caught.value.code == "image.folder-closed"
    assert states(tmp_path) == before
    tmp_path.chmod(0o711)
    refuse_closed(tmp_path, ALEX, LocalMachine())


@as_root
def test_a_log_in_a_containers_folder_is_its_users_and_follows_no_link_of_it(tmp_path: Path) -> None:
    """Root writes the log beside what the container writes."""
    folder, outside = make(tmp_path / "run", ALEX), tmp_path / "outside"
    os.close(_open_log(str(folder / "axolotl.log")))
    assert (folder / "axolotl.log").stat().st_uid == ALEX.uid
    outside.write_text("x")
    (folder / "examine.log").symlink_to(outside)
    with pytest.raises(OSError):
        _open_log(str(folder / "examine.log"))
    assert outside.read_text() == "x"
