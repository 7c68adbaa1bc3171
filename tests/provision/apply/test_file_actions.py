"""Files change atomically, and are restored only if nobody else changed them."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.errors import OutsideFailed, Refused
from provision.apply import file_actions
from provision.apply.file_actions import ChangedFile
from provision.apply_context import ApplyContext
from provision.model import AptPreference, AptRepo, RestoreFile, WriteFile
from provision.system import system_files
from provision.system.system_files import (
    back_up,
    contains_json,
    difference,
    digest,
    merge_json,
    read_current,
    remove_empty,
    write,
)
from tests.provision.hosts import Nowhere

RUNTIME = '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}'


def context(place: Path) -> ApplyContext:
    return ApplyContext(Nowhere(), state=place)


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.conf"
    write(str(path), b"one\n", 0o640)
    write(str(path), b"two\n", 0o644)
    assert path.read_bytes() == b"two\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [place.name for place in path.parent.iterdir()] == ["b.conf"]


def test_what_a_power_cut_left_beside_it_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".b.conf.gpu-setup").write_text("half")
    write(str(tmp_path / "b.conf"), b"whole\n")
    assert [place.name for place in tmp_path.iterdir()] == ["b.conf"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "daemon.json").symlink_to("real.json")
    write(str(tmp_path / "daemon.json"), b"new")
    assert (tmp_path / "daemon.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideFailed) as failed:
        write(str(tmp_path / "file" / "below"), b"")
    assert failed.value.code == "file.failed"


def test_json_keys_are_set_and_the_rest_stays() -> None:
    before = b'{"data-root": "/big", "runtimes": {"kata": {"path": "kata"}}}'
    after = merge_json("daemon.json", before, RUNTIME)
    assert b'"/big"' in after and b"kata" in after and contains_json(after, RUNTIME)
    assert not contains_json(before, RUNTIME)
    assert merge_json("daemon.json", after, RUNTIME) == after


@pytest.mark.parametrize("broken", [b"{ bad", b"[1]", b"\xff"])
def test_broken_json_is_refused_and_not_overwritten(broken: bytes) -> None:
    with pytest.raises(Refused) as refused:
        merge_json("/etc/docker/daemon.json", broken, RUNTIME)
    assert refused.value.code == "file.broken"


def test_a_file_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{}\n")
    path.chmod(0o600)
    before = back_up(str(path), tmp_path / "backups")
    write(str(path), b"ours\n")
    action = RestoreFile(path=str(path), ours=digest(b"ours\n"), before=before.sha256, mode=before.mode)
    assert file_actions.restore(action, context(tmp_path)) is None
    assert path.read_text() == "{}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert file_actions.is_restored(action, context(tmp_path))


def test_a_file_that_somebody_changed_since_is_left_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    before = back_up(str(path), tmp_path / "backups")
    write(str(path), b"theirs\n")
    action = RestoreFile(path=str(path), ours=digest(b"ours\n"), before=before.sha256)
    left = file_actions.restore(action, context(tmp_path))
    assert isinstance(left, ChangedFile)
    assert "-theirs" in left.difference
    assert path.read_text() == "theirs\n"


def test_a_new_file_is_removed_with_the_folders_created_for_it(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "docker" / "daemon.json"
    before = back_up(str(path), tmp_path / "backups")
    assert before.made == str(tmp_path / "etc")
    write(str(path), b"ours\n")
    action = RestoreFile(path=str(path), ours=digest(b"ours\n"), made=before.made)
    file_actions.restore(action, context(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_folders_that_others_use_by_now_stay(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "other").write_text("")
    remove_empty(str(tmp_path / "docker"), str(tmp_path / "docker"))
    assert (tmp_path / "docker" / "other").exists()


def test_a_kept_copy_is_kept_once_and_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("same")
    first, second = back_up(str(path), tmp_path / "backups"), back_up(str(path), tmp_path / "backups")
    assert first == second
    assert [place.read_text() for place in (tmp_path / "backups").iterdir()] == ["same"]
    assert read_current(str(tmp_path / "nothing")) is None


def test_differences_are_unified_diffs() -> None:
    assert difference("/etc/a", None, b"x\n") == "--- /dev/null\n+++ /etc/a\n@@ -0,0 +1 @@\n+x\n"
    assert "binary" in difference("/etc/a", b"\xff\xfe", b"x")


def test_a_source_file_takes_the_form_of_its_name() -> None:
    source = AptRepo(
        file="/etc/apt/sources.list.d/x.list", uris=("https://a/",), suite="/", components=(),
        architectures=("amd64",), signed_by="/k.gpg",
    )  # fmt: skip
    assert "deb [arch=amd64 signed-by=/k.gpg] https://a/ /\n" in file_actions.source_text(source)
    deb822 = AptRepo(
        file="/etc/apt/sources.list.d/x.sources", uris=("https://a/",), suite="stable", components=("main",),
        architectures=("amd64",), signed_by="/k.gpg",
    )  # fmt: skip
    assert "URIs: https://a/\nSuites: stable\nComponents: main\n" in file_actions.source_text(deb822)


def test_a_pin_is_written_as_apt_reads_it() -> None:
    from checks.facts.apt import parse_pins

    pin = AptPreference(
        file="/etc/apt/preferences.d/p", packages=("rocm*", "hip*"), pin="origin repo.radeon.com", priority=600
    )
    (found,) = parse_pins(pin.file, file_actions.pin_text(pin))
    assert (found.packages, found.pin, found.priority) == ("rocm* hip*", "origin repo.radeon.com", 600)


def test_a_step_that_wrote_its_file_is_done_and_one_that_did_not_is_not(tmp_path: Path) -> None:
    action = WriteFile(path=str(tmp_path / "a.conf"), content="x\n")
    assert not file_actions.is_written(action, context(tmp_path))
    file_actions.write(action, context(tmp_path))
    assert file_actions.is_written(action, context(tmp_path))
    (tmp_path / "a.conf").write_text("y\n")
    assert not file_actions.is_written(action, context(tmp_path))
    assert system_files.digest(b"y\n") != system_files.digest(b"x\n")
