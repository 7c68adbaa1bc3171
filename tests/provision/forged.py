"""Plans that the planner did not make: an honest one, and steps that somebody smuggles into it."""

from __future__ import annotations

import msgspec

from checks.catalogue import catalogue
from checks.facts.read import read_host
from provision.model import (
    AnyAction,
    AptHold,
    AptInstall,
    AptMark,
    AptRemove,
    DpkgRepair,
    KernelModule,
    MokEnroll,
    Plan,
    RestoreFile,
    Service,
    State,
    Step,
    UserGroup,
    WriteFile,
    seal,
)
from provision.plan import container_engine, repositories, unattended
from provision.plan.driver import boot_guard, nvidia
from provision.plan.planner import make_plan
from provision.target import DriverSource, PlanTarget
from tests.recorded_machines import load

_replace = msgspec.structs.replace
_ROW = catalogue().repository("nvidia.cuda")
_KEY, _SOURCE = repositories.key_action(_ROW), repositories.source_action(_ROW)
_PIN, _HOOK = nvidia.lead_pin(_ROW), boot_guard.hook_action("nvidia")
_ROOT_FOR_ALL = "ALL ALL=(ALL) NOPASSWD: ALL\n"


def _install(name: str, **more: object) -> AptInstall:
    return msgspec.convert({"packages": [{"name": name}], **more}, AptInstall)


# each under the title and the id of a harmless step
FORGED: dict[str, AnyAction] = {
    "a sudoers file": WriteFile(path="/etc/sudoers.d/gpu-setup", content=_ROOT_FOR_ALL, mode=0o440),
    "a cron entry": WriteFile(path="/etc/cron.d/gpu-setup", content="* * * * * root /tmp/x\n"),
    "a systemd unit": WriteFile(path="/etc/systemd/system/x.service", content="[Service]\nExecStart=/tmp/x\n"),
    "a shell for every login": WriteFile(path="/etc/profile.d/gpu-setup.sh", content="/tmp/x\n"),
    "a library for every program": WriteFile(path="/etc/ld.so.preload", content="/tmp/x.so\n"),
    "a key for root": WriteFile(path="/root/.ssh/authorized_keys", content="ssh-ed25519 A\n", mode=0o600),
    "a hook of apt": WriteFile(path="/etc/apt/apt.conf.d/99x", content='DPkg::Post-Invoke {"/tmp/x";};\n'),
    "an install line of modprobe": WriteFile(path="/etc/modprobe.d/x.conf", content="install nvidia /tmp/x\n"),
    "another content of our blacklist": WriteFile(path=nvidia.BLACKLIST, content="install nvidia /tmp/x\n"),
    "another script as our hook": _replace(_HOOK, content="#!/bin/sh\n/tmp/x\n"),
    "our hook with setuid": _replace(_HOOK, mode=0o4755),
    "our hook for everyone to write": _replace(_HOOK, mode=0o777),
    "our hook elsewhere": _replace(_HOOK, path="/etc/kernel/postinst.d/aa-x"),
    "a path with ..": _replace(nvidia.NO_FREE_DRIVERS, path="/etc/modprobe.d/../sudoers.d/x"),
    "a relative path": _replace(nvidia.NO_FREE_DRIVERS, path="etc/modprobe.d/gpu-setup-nouveau.conf"),
    "a path through a link": _replace(nvidia.NO_FREE_DRIVERS, path="/proc/self/root/etc/sudoers.d/x"),
    "a runtime of Docker": _replace(container_engine.RUNTIME, content='{"runtimes": {"runc": {"path": "/tmp/x"}}}'),
    "daemon.json without what was there": _replace(container_engine.RUNTIME, merge=False),
    "root writes into a home": container_engine.ROOTLESS_RUNTIME,
    "unattended upgrades without any": WriteFile(path=unattended.FILE, content='APT::Periodic::Enable "0";\n'),
    "an emptied file that is no source": WriteFile(
        path="/etc/passwd", content="# emptied by gpu-setup: ROCm is installed from another repository now\n"
    ),
    "a file of another owner": RestoreFile(path="/etc/sudoers.d/x", ours="", before="0" * 64, uid=1000, mode=0o4755),
    "a file is removed": RestoreFile(path="/etc/shadow", ours="0" * 64),
    "a newline in a source": _replace(_SOURCE, suite="/\ndeb [trusted=yes] http://evil.invalid ./"),
    "a source that trusts everything": _replace(_SOURCE, architectures=("amd64 trusted=yes",)),
    "another address in a source": _replace(_SOURCE, uris=("http://evil.invalid/",)),
    "another keyring for a source": _replace(_SOURCE, signed_by="/tmp/x.gpg"),
    "a source over another file": _replace(_SOURCE, file="/etc/apt/sources.list.d/ubuntu.sources"),
    "a key from a file": _replace(_KEY, url="file:///tmp/x.gpg"),
    "a key of somebody else": _replace(_KEY, fingerprints=("A" * 40,)),
    "a key for every repository": _replace(_KEY, keyring="/etc/apt/trusted.gpg.d/x.gpg"),
    "a pin on all packages": _replace(_PIN, pin="origin evil.invalid", priority=1001),
    "a newline in a pin": _replace(_PIN, packages=("*\nPin-Priority: 1001\n\nPackage: *",)),
    "a pin over another file": _replace(_PIN, file="/etc/apt/preferences.d/x"),
    "a pin of the driver on all packages": nvidia.one_source_pin(DriverSource.ARCHIVE, ("*",)),
    "a pin of the driver on another package": nvidia.one_source_pin(DriverSource.NVIDIA, ("sudo",)),
    "another package from one source": _install("netcat-openbsd", one_source="ubuntu"),
    "another package": _install("netcat-openbsd"),
    "a package that is an option": _install("-oAPT::Update::Pre-Invoke::=/tmp/x"),
    "a package that is a file": _install("./x.deb"),
    "a package from a file": _install("nvidia-open", files=("/tmp/x.deb",)),
    "a package at any version": _install("nvidia-open", brings=[{"name": "x", "version": "1 -oDir=/tmp"}]),
    "another package goes": _install("nvidia-open", remove=("ufw",)),
    "an option among removals": _install("nvidia-open", removes=("--purge",)),
    "the kernel goes": AptRemove(packages=("linux-image-generic",)),
    "an option is removed": AptRemove(packages=("-oDir=/tmp",)),
    "security updates held": AptHold(packages=("openssh-server",)),
    "packages for autoremove": AptMark(auto=("ubuntu-desktop",)),
    "an option for the repair": DpkgRepair(leaving=("--force-all",)),
    "another unit": Service(unit="ssh.service", change="stop"),
    "a unit with a path": Service(unit="/tmp/x.service", change="enable"),
    "our unit disabled": Service(unit="nvidia-persistenced.service", change="disable"),
    "Docker restarted": Service(unit="docker.service", change="restart"),
    "the group sudo": UserGroup(user="ada", groups=("sudo",)),
    "the group docker beside ours": UserGroup(user="ada", groups=("render", "video", "docker")),
    "a user that is an option": UserGroup(user="-R/tmp", groups=("render", "video")),
    "a user with a colon": UserGroup(user="ada:0", groups=("render", "video")),
    "a group is deleted": UserGroup(user="", groups=("sudo",), change="delete"),
    "another module": KernelModule(name="../../tmp/x", change="build"),
    "a choice of kernel elsewhere": KernelModule(name="nvidia", change="choose", file="/etc/default/grub"),
    "a blacklist that root edits": KernelModule(name="amdgpu", change="allow", file="/etc/modprobe.d/x.conf"),
    "another certificate": MokEnroll(certificate="/tmp/../x.der", module="nvidia"),
    "a key for another module": MokEnroll(certificate="/var/lib/shim-signed/mok/MOK.der", module="rootkit"),
}


def honest(name: str = "rtx3090ti-fresh", **target: object) -> Plan:
    """The plan of a recorded machine."""
    return make_plan(read_host(load(name)), catalogue(), msgspec.convert(target, PlanTarget))


def with_step(
    plan: Plan, action: AnyAction, id: str = "nvidia-persistence", title: str = "Keep the driver loaded"
) -> Plan:
    """The plan with one step more, and a digest that is right."""
    step = Step(id=id, title=title, action=action, state=State.TODO, because="No desktop keeps the GPU open here.")
    return seal(_replace(plan, steps=(*plan.steps, step)))


def with_change(plan: Plan, id: str, **changes: object) -> Plan:
    """The plan with one step changed, and a digest that is right."""
    steps = tuple(_replace(step, **changes) if step.id == id else step for step in plan.steps)
    assert steps != plan.steps
    return seal(_replace(plan, steps=steps))
