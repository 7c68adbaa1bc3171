"""Stale files of killed tools: found when their process has ended, kept while it runs."""

from __future__ import annotations

from pathlib import Path

from provision.system.stale_files import account_files, apt_files


def etc(tmp_path: Path, alive: tuple[int, ...] = (), **found: str) -> tuple[str, ...]:
    """Names of what would go; `_` stands for the dot, `P` for plus and `D` for a hyphen."""
    for number in alive:
        (tmp_path / "proc" / str(number)).mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    for name, content in found.items():
        (tmp_path / "etc" / name.replace("_", ".").replace("P", "+").replace("D", "-")).write_text(content)
    return tuple(Path(path).name for path in account_files(str(tmp_path / "etc"), str(tmp_path / "proc")))


def test_a_killed_tools_number_lock_and_half_written_file_go(tmp_path: Path) -> None:
    assert etc(tmp_path, gshadow_87="87\0", group_lock="87\0", groupP="root:x:0:\n", group="root:x:0:\n") == (
        "group+",
        "group.lock",
        "gshadow.87",
    )


def test_what_a_living_process_holds_stays(tmp_path: Path) -> None:
    assert etc(tmp_path, alive=(87,), gshadow_87="87\0", group_lock="87\0", groupP="") == ()


def test_a_number_not_yet_written_is_taken_from_the_name(tmp_path: Path) -> None:
    assert etc(tmp_path, alive=(5,), passwd_5="", shadow_6="") == ("shadow.6",)


def test_the_account_files_their_copies_and_all_others_stay(tmp_path: Path) -> None:
    assert etc(tmp_path, passwd="", groupD="", hosts_1="1", passwd_bak="old", subuid_old="x") == ()


def test_a_lock_that_names_nobody_is_left_to_a_person(tmp_path: Path) -> None:
    assert etc(tmp_path, passwd_lock="vipw") == ()


def test_apts_temporary_files_are_removed_and_its_files_are_kept(tmp_path: Path) -> None:
    for name in ("extended_states", "extended_states.KYeDAx", "extended_states.save", "lists"):
        (tmp_path / name).write_text("")
    assert apt_files(str(tmp_path)) == (f"{tmp_path}/extended_states.KYeDAx",)
    assert apt_files(str(tmp_path / "absent")) == ()
