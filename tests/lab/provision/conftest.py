"""Guests and repositories for tests of provisioning. Needs root, systemd-nspawn, mmdebstrap, gcc, gpg and ip.

How to use it:

    def test_something(hosts, shops):
        with hosts.guest("rtx3090") as guest:              # a fresh machine of hardware.COMPUTERS, switched on
            ended = guest.tool("apply", "--yes")           # gpu-setup apply --yes --json as `ada`: rc, document, stderr
            guest.reboot()                                 # systemctl reboot in it; another boot id afterwards
            guest.run("dpkg", "--audit", user="root")      # any program
            guest.write("/etc/motd", "hello")              # its disk from outside: path, read, write, copy
            snapshot = guest.snapshot()                    # hosts.guest(snapshot) starts another one from there
            guest.kill()                                   # a power cut; start() switches it on again
        shops.faults(f500=r"[.]deb$")                      # addresses that fail: see server.FAULTS
        shops.publish("nvidia.cuda", packages)             # also: archive, resign, serve_key, hush, answer
        hosts.fresh("rx7900xt", "10", change)              # the tool's data files edited (a key that is known then)
        state.of(guest); state.differences(one, two)       # dpkg, marks, holds, groups, units, files: what is compared

`hosts.guest(…, on=False)` leaves it off, to write files before its first start. `shops` is reset before each test. The
tool runs from /home/ada/gpu-setup, a copy of this checkout with this session's fingerprints; vendors' addresses are the
real ones. The base system is kept under GPU_SETUP_TEST_HOME where that is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.lab.provision import rootfs
from tests.lab.provision.hosts import Hosts
from tests.lab.provision.repositories import Repositories, repositories
from tests.lab.provision.routes import Arrivals

NEEDED = ("systemd-nspawn", "mmdebstrap", "gpg", "openssl", "ip", "nsenter", "mount")


@pytest.fixture(scope="session")
def below(session_folder: Path, persons_environ: Mapping[str, str]) -> rootfs.Base:
    """The small system that all guests stand on."""
    if os.geteuid() != 0:
        pytest.skip("guests need root")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    kept = persons_environ.get("GPU_SETUP_TEST_HOME")
    folder = (Path(kept) if kept else session_folder) / "provision"
    folder.mkdir(parents=True, exist_ok=True)
    return rootfs.base(folder)


@pytest.fixture(scope="session")
def session_shops(below: rootfs.Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repositories]:
    with repositories(tmp_path_factory.mktemp("shops") / "shops") as made:
        yield made


@pytest.fixture(scope="session")
def hosts(below: rootfs.Base, session_shops: Repositories, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    yield Hosts(below, session_shops, folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def arrivals(hosts: Hosts) -> Arrivals:
    return Arrivals(hosts)


@pytest.fixture
def shops(session_shops: Repositories) -> Iterator[Repositories]:
    """The vendors' repositories as they are on a good day, before and after each test."""
    session_shops.reset()
    yield session_shops
    session_shops.reset()
