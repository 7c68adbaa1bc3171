"""Options besides the driver, and modules that fail to build: the GPU keeps a working driver."""

from __future__ import annotations

import pytest

from provision.system import dpkg
from tests.lab.provision import state, vendor_packages
from tests.lab.provision.hosts import Hosts
from tests.lab.provision.repositories import Repositories
from tests.machines import hardware
from tests.provision.hosts import Folder

pytestmark = pytest.mark.lab

BLACKLIST = "/etc/modprobe.d/gpu-setup-nouveau.conf"


def test_the_cuda_compiler_does_not_swap_the_driver(hosts: Hosts, shops: Repositories) -> None:
    """NVIDIA's repository has a newer driver, and its priority is above Ubuntu's."""
    with hosts.guest("rtx3090") as guest:
        assert guest.tool("apply", "--yes", "--toolkit").rc == 5
        database = dpkg.read(Folder(guest.root))
        assert database.version("cuda-toolkit-13-0") and database.version("nvidia-driver-595-open")
        upgrade = guest.run("apt-get", "-s", "dist-upgrade", user="root")
        assert upgrade.returncode == 0
        moved = [line.split()[1] for line in upgrade.stdout.splitlines() if line.startswith(("Inst ", "Remv "))]
        assert [name for name in moved if "nvidia" in name or "cuda" in name] == []
        # and by name it would come from Ubuntu as well
        policy = guest.run("apt-cache", "policy", "nvidia-open").stdout
        assert "Candidate: (none)" in policy


@pytest.mark.parametrize("fails", [hardware.HWE_7_0.release, "."])
def test_a_module_that_does_not_build_leaves_the_old_driver_at_work(
    fails: str, hosts: Hosts, shops: Repositories
) -> None:
    """For the newest kernel only, or for all: the transaction is taken back and nouveau not blacklisted."""
    shops.publish(
        "nvidia.cuda", vendor_packages.nvidia_cuda(shops.stub, fails.replace(".", "[.]") if fails != "." else fails)
    )
    with hosts.guest("rtx3090-two-kernels") as guest:
        ended = guest.tool("apply", "--yes", "--source", "nvidia")
        assert ended.rc == 4, ended.document
        assert ended.error["code"].startswith("dpkg."), ended.error
        assert "nvidia-dkms-open" in ended.error["why"]
        assert guest.run("dpkg", "--audit", user="root").stdout == ""
        assert not guest.path(BLACKLIST).exists()
        assert "nvidia-open" not in state.of(guest).packages
        # the way out that the message names works: the archive's signed modules
        assert guest.tool("apply", "--yes", "--source", "archive").rc == 5
        guest.reboot()
        assert guest.tool("resume").rc == 0


def test_a_kernel_that_dkms_left_out_without_a_word_is_seen(hosts: Hosts, shops: Repositories) -> None:
    """Its headers are gone: DKMS builds for the others and says nothing."""
    release = hardware.HWE_7_0.release
    packages = [
        package._replace(files={path: file for path, file in package.files.items() if not path.endswith("/build")})
        if package.name == f"linux-headers-{release}"
        else package
        for package in shops.packages("ubuntu")
    ]
    shops.publish("ubuntu", packages)
    with hosts.guest("rtx3090-two-kernels") as guest:
        guest.path(f"/usr/lib/modules/{release}/build").unlink(missing_ok=True)
        ended = guest.tool("apply", "--yes", "--source", "nvidia")
        assert (ended.rc, ended.error["code"]) == (4, "module.not-built"), ended.document
        assert release in ended.error["what"] and "linux-headers" in ended.error["next"]
        assert not guest.path(BLACKLIST).exists()
