"""What prevents a reboot or a driver change."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.apply.blockers import gpu_users, locked_root_disk, reboot_blockers
from tests.provision.hosts import Folder
from tests.provision.plan.machines import RTX_3090_TI, ubuntu

SSH = {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}


@pytest.fixture
def encrypted(tmp_path: Path) -> Folder:
    """/ on LVM on LUKS, as Ubuntu's installer lays it out."""
    machine = Folder(tmp_path)
    machine.put("/proc/self/mounts", "/dev/mapper/ubuntu--vg-root / ext4 rw 0 0\n")
    (tmp_path / "dev/mapper").mkdir(parents=True)
    (tmp_path / "dev/mapper/ubuntu--vg-root").symlink_to("../dm-1")
    machine.put("/sys/class/block/dm-1/dm/uuid", "LVM-abc\n")
    machine.put("/sys/class/block/dm-1/slaves/dm-0", "")
    machine.put("/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc-luks\n")
    machine.put("/sys/class/block/dm-0/dm/name", "nvme0n1p3_crypt\n")
    machine.put("/etc/crypttab", "nvme0n1p3_crypt UUID=1 none luks,discard\n")
    return machine


def test_an_encrypted_disk_that_asks_at_the_console_forbids_a_restart_over_ssh(encrypted: Folder) -> None:
    (why,) = reboot_blockers(encrypted, SSH)
    assert "nvme0n1p3_crypt" in why
    assert reboot_blockers(encrypted, {}) == ()


@pytest.mark.parametrize("options", ["none luks,tpm2-device=auto", "/root/key luks"])
def test_one_that_unlocks_itself_does_not(encrypted: Folder, options: str) -> None:
    encrypted.put("/etc/crypttab", f"nvme0n1p3_crypt UUID=1 {options}\n")
    assert locked_root_disk(encrypted) is None


def test_nor_one_that_can_be_unlocked_over_the_network(encrypted: Folder) -> None:
    encrypted.put("/etc/dropbear/initramfs/authorized_keys", "ssh-ed25519 AAAA\n")
    assert locked_root_disk(encrypted) is None


def test_a_plain_disk_asks_for_nothing(tmp_path: Path) -> None:
    machine = Folder(tmp_path)
    machine.put("/proc/self/mounts", "/dev/nvme0n1p2 / ext4 rw 0 0\n")
    assert locked_root_disk(machine) is None


def test_others_containers_and_a_raid_at_work_are_named(tmp_path: Path) -> None:
    machine = Folder(tmp_path, who="bob pts/1 2026-11-24\n", docker="ab12\ncd34\n")
    machine.put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n")
    machine.put("/proc/mdstat", "md0 : active raid1\n      [=>...]  resync = 12.6% (1/2) finish=1min\n")
    said = " ".join(reboot_blockers(machine, {}))
    assert "bob" in said and "2 containers" in said and "12.6%" in said


def test_who_uses_the_card_and_who_only_draws_with_it(tmp_path: Path) -> None:
    machine = Folder(tmp_path)
    for pid, comm, node in (
        ("41", "python3", "/dev/nvidia0"),
        ("42", "Xorg", "/dev/nvidia0"),
        ("43", "vim", "/dev/null"),
    ):
        machine.put(f"/proc/{pid}/comm", f"{comm}\n")
        (tmp_path / f"proc/{pid}/fd").mkdir()
        (tmp_path / f"proc/{pid}/fd/3").symlink_to(node)
    found = gpu_users(machine, ubuntu(RTX_3090_TI))
    assert found.computing == ("python3 (41)",)
    assert found.displaying == ("Xorg (42)",)
