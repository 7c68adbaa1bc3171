"""Repositories' keys and lists, pins and holds, restarts, clock, sleep, engines without root."""

from __future__ import annotations

from typing import Any

from checks.facts.host import AptPreference, Docker, Host, Package, Unread
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.hosts import (
    NVIDIA_PACKAGES,
    TOOLKIT,
    UBUNTU,
    but,
    healthy_amd,
    healthy_nvidia,
    no_gpu,
    package,
    source,
)

N, A, NONE = healthy_nvidia(), healthy_amd(), no_gpu()
KEY = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"
ROCM = source("rocm.list", "https://repo.radeon.com/rocm/apt/7.2.4", "noble", "amd-rocm", "/etc/apt/keyrings/rocm.gpg")
TEN = source(
    "amdrocm-stable.sources", "https://stable.repo.amd.com/rocm/core/packages/ubuntu2404/", "stable", "amd-rocm"
)
PIN = AptPreference(
    file="/etc/apt/preferences.d/rocm-pin-600", packages="rocm* hip*", pin="release o=repo.radeon.com", priority=600
)
KERNEL_META = package("linux-image-generic-hwe-24.04", "6.17.0-35.35~24.04.1")
SET = (KERNEL_META, *NVIDIA_PACKAGES)
DKMS = (KERNEL_META, package("nvidia-dkms-595-open", "595.84-0ubuntu0.24.04.1"))


def held(packages: tuple[Package, ...], *names: str) -> Host:
    rows = tuple(
        Package(name=row.name, version=row.version, state=row.state, held=row.name.startswith(names))
        for row in packages
    )
    return but(N, apt={"packages": rows})


def engine(host: Host, **facts: Any) -> Host:
    return but(host, docker=facts)


def rootless(host: Host, **nvidia: Any) -> Host:
    return but(host, docker={"kind": "docker-ce", "rootless": True, "answers": True}, nvidia=nvidia)


def kit(path: str, *profiles: str, **docker: Any) -> Host:
    facts = {"answers": False, "problem": "not-running", "rootless_kit": path, "userns_profiles": profiles}
    return but(N, docker=facts | docker)


def asleep(seconds: int | None, **person: Any) -> Host:
    return but(N, os={"login_sleep": seconds, "login_sleep_source": "/etc/gdm3/greeter.dconf-defaults"}, person=person)


FAULTS = (
    Fault("apt.keys", but(N, apt={"missing_keys": (KEY,)}), FAIL, f"{KEY} is missing"),
    Fault("apt.fetched", but(N, apt={"unfetched": (TOOLKIT,)}), WARN, "no list of this repository"),
    Fault("apt.amd-pin", but(A, apt={"sources": (UBUNTU, ROCM)}), WARN, "take priority over AMD's"),
    Fault("apt.auto-reboot", but(N, apt={"unattended_reboot": True}), WARN, "may reboot the machine"),
    Fault(
        "apt.holds",
        held(SET, "nvidia-driver", "libnvidia", "nvidia-utils"),
        WARN,
        "kernel and prebuilt modules can be upgraded",
    ),
    Fault("apt.holds", held(SET, "linux-image"), WARN, "prebuilt modules and driver can be upgraded"),
    Fault("apt.holds", held(DKMS, "nvidia-dkms"), PASS, "kernel can be upgraded"),
    Fault("apt.holds", held(SET, "linux-", "nvidia-", "libnvidia-"), PASS, "no updates, security updates included"),
    # an empty board battery
    Fault("os.clock", but(N, taken_at="2020-01-01T00:03:12Z"), FAIL, "2026-10-15"),
    Fault("os.clock", but(N, os={"clock_synchronised": False}), PASS, "No time server has set the clock"),
    Fault("os.sleep", asleep(900, ssh=True), WARN, "after 15 idle minutes"),
    Fault("os.sleep", asleep(1200), PASS, "after 20 idle minutes"),
    Fault(
        "container.runtime",
        but(N, docker={"runtimes": ("io.containerd.runc.v2", "runc")}, nvidia={"cdi_specs": ()}),
        WARN,
        "the running engine does not use it",
    ),
    # docker 24 has no CDI, so a description does not help
    Fault("container.runtime", engine(N, runtimes=("runc",), cdi_dirs=()), WARN, "running engine does not use it"),
    Fault(
        "container.runtime",
        but(N, docker=Docker(kind="podman", path="/usr/bin/podman"), nvidia={"cdi_specs": (), "cdi_versions": ()}),
        WARN,
        "running engine does not use it",
    ),
    Fault("container.rootless", rootless(N, cdi_specs=(), cdi_versions=()), WARN, "tries to write device rules"),
    Fault("container.rootless", rootless(A), PASS, "AMD's container toolkit does not support"),
    # Docker's rootless guide: the binaries of get.docker.com/rootless lie in ~/bin
    Fault("container.userns", kit("/home/alex/bin/rootlesskit", "rootlesskit", "podman"), WARN, "no profile"),
    Fault("container.userns", kit("/usr/bin/rootlesskit", "podman"), WARN, "no profile"),
)

LOOK_ALIKES = (
    LookAlike("apt.keys", N, "all there"),
    LookAlike("apt.keys", but(NONE, apt={"missing_keys": (KEY,)}), "nothing is installed from it without a card"),
    LookAlike("apt.fetched", but(N, apt={"unfetched": None}), "apt has no lists at all: a fresh machine"),
    LookAlike("apt.fetched", N, "all fetched"),
    LookAlike("apt.amd-pin", but(A, apt={"sources": (UBUNTU, ROCM), "pins": (PIN,)}), "pinned"),
    LookAlike("apt.amd-pin", but(A, apt={"sources": (UBUNTU, TEN)}), "ROCm 10's packages have names of their own"),
    LookAlike("apt.auto-reboot", but(N, apt={"unattended": False, "unattended_reboot": True}), "set, but nothing runs"),
    LookAlike("apt.holds", N, "nothing is held"),
    LookAlike("apt.holds", but(N, apt={"packages": None}), "a system without dpkg"),
    LookAlike("apt.holds", held((*SET, package("docker.io", "28.2.2")), "docker.io"), "another package"),
    LookAlike("os.clock", N, "later than the kernel"),
    LookAlike(
        "os.clock", but(N, os={"clock_synchronised": False}, kernel={"uptime_seconds": 40.0}), "it has just started"
    ),
    LookAlike(
        "os.clock", but(N, kernel={"version": "Linux version 6.6.87.2-microsoft-standard-WSL2 (root@x)"}), "no date"
    ),
    LookAlike("os.sleep", asleep(0, ssh=True), "never: Ubuntu's default"),
    LookAlike("os.sleep", but(asleep(900), os={"graphical": False}), "no login screen"),
    LookAlike("container.runtime", N, "the runtime nvidia"),
    LookAlike("container.runtime", engine(N, runtimes=("runc",)), "CDI describes the card, and the engine reads it"),
    LookAlike(
        "container.runtime", engine(N, answers=False, runtimes=None, problem="permission-denied"), "it was not asked"
    ),
    LookAlike("container.rootless", N, "not rootless"),
    LookAlike("container.rootless", rootless(N, cdi_specs=(), no_cgroups=True), "no-cgroups"),
    LookAlike("container.userns", kit("/usr/bin/rootlesskit", "rootlesskit"), "Ubuntu's profile is for /usr/bin"),
    LookAlike("container.userns", kit("/home/alex/bin/rootlesskit", "home.alex.bin.rootlesskit"), "its own profile"),
    LookAlike("container.userns", kit("/home/alex/bin/rootlesskit", answers=True, problem=None), "it works"),
    LookAlike("container.userns", N, "no rootless engine"),
)

APT = (Unread(source="/etc/apt/sources.list.d", reason="denied"),)
BLIND = (
    Blind("apt.keys", but(N, apt={"missing_keys": None}, unread=APT), "denied"),
    Blind("apt.fetched", but(N, apt={"sources": None}, unread=APT), "denied"),
    Blind("apt.amd-pin", but(A, apt={"pins": None}, unread=APT), "denied"),
    Blind("apt.auto-reboot", but(N, apt={"unattended_reboot": None}), "/etc/apt"),
    Blind(
        "apt.holds",
        but(N, apt={"packages": None}, unread=(Unread(source="/var/lib/dpkg/status", reason="denied"),)),
        "/var/lib/dpkg/status",
    ),
    Blind("os.sleep", but(N, os={"graphical": None}), "login screen"),
    Blind("container.runtime", but(engine(N, runtimes=("runc",)), nvidia={"cdi_specs": None}), "/etc/cdi"),
    Blind("container.userns", engine(kit("/usr/bin/rootlesskit"), userns_profiles=None), "/etc/apparmor.d"),
)
