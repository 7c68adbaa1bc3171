"""Modules that apt would build instead, that fail to build, or build only for the current kernel."""

from __future__ import annotations

import re

import pytest

from tests.lab.provision import state, vendor_packages
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import KERNELS, Repositories
from tests.machines.hardware import HWE_7_0, HWE_7_0_28

pytestmark = pytest.mark.lab

WITHOUT_THE_NEWEST = tuple(row for row in KERNELS if row is not HWE_7_0)
VENDOR = ("--source", "nvidia")


def _runs(guest: Guest) -> tuple[str, str | None]:
    """(kernel, version of NVIDIA's module in it)."""
    facts = guest.tool("facts").data
    return facts["kernel"]["release"], facts["nvidia"]["module_version"]


def test_the_modules_meta_only_provides_what_the_driver_asks_for(hosts: Hosts, shops: Repositories) -> None:
    """The trap that the archive route is about, as the archive has it: the driver alone brings DKMS."""
    with hosts.guest("rtx3090") as guest:
        guest.run("apt-get", "update", user="root", check=True)
        alone = guest.run("apt-get", "-s", "install", "nvidia-driver-595-open", user="root").stdout
        assert "Inst nvidia-dkms-595-open" in alone and "Inst dkms" in alone
        modules = f"linux-modules-nvidia-595-open-{HWE_7_0.meta}"
        both = guest.run("apt-get", "-s", "install", "nvidia-driver-595-open", modules, user="root").stdout
        assert f"Inst linux-modules-nvidia-595-open-{HWE_7_0.release}" in both and "dkms" not in both


def test_a_module_that_does_not_build_takes_its_driver_with_it(hosts: Hosts, shops: Repositories) -> None:
    """One message, dpkg in order, no driver without its module; once it builds, apply comes to the usual end."""
    shops.publish("nvidia.cuda", vendor_packages.nvidia_cuda(shops.stub, fails=".*"))
    with hosts.guest("rtx3090") as guest:
        failed = guest.tool("apply", "--yes", *VENDOR)
        assert failed.rc == 4
        assert "dkms" in str(failed.error).lower()
        assert not guest.run("dpkg", "--audit", user="root").stdout
        present = state.of(guest).packages
        assert not [name for name in present if name.startswith(("nvidia-open", "nvidia-dkms", "libnvidia-compute"))]
        guest.reboot()
        assert _runs(guest) == (HWE_7_0.release, None)
        shops.reset()
        # the same version with other bytes, which no vendor does: what was fetched of it before is forgotten
        guest.run("sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb", user="root", check=True)
        again = guest.tool("apply", "--yes", *VENDOR)
        assert again.rc == 5, again.document
        guest.reboot()
        assert guest.tool("resume").rc == 0
        assert _runs(guest) == (HWE_7_0.release, "595.84")


def test_a_module_that_fails_on_a_newer_kernel_leaves_the_older_one_to_start(hosts: Hosts, shops: Repositories) -> None:
    shops.archive(WITHOUT_THE_NEWEST)
    shops.publish("nvidia.cuda", vendor_packages.nvidia_cuda(shops.stub, fails=f"^{HWE_7_0.release}$"))
    with hosts.guest("rtx3090-behind") as guest:
        assert guest.tool("apply", "--yes", *VENDOR).rc == 5
        guest.reboot()
        assert guest.tool("resume").rc == 0
        shops.archive()
        guest.run("apt-get", "update", user="root", check=True)
        # the kernel's package is left half-configured, as on a real machine
        upgrade = ("apt-get", "install", "--yes", "--only-upgrade", f"linux-{HWE_7_0.meta}")
        assert guest.run(*upgrade, user="root").returncode != 0
        assert guest.path(f"/boot/vmlinuz-{HWE_7_0.release}").exists()
        started = re.search(r"# starts: (\S+)", guest.read("/boot/grub/grub.cfg"))
        assert started and started[1] == HWE_7_0_28.release
        guest.reboot()
        assert _runs(guest) == (HWE_7_0_28.release, "595.84")
