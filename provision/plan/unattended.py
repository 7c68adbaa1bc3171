"""Unattended upgrades and the driver: all packages of kernel and driver are excluded from them, or none."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.rules.apt.updates import still_upgraded
from provision.model import State, Step, WriteFile
from provision.plan.package_steps import names
from provision.plan.repositories import write_command

# apt reads apt.conf.d in order and adds to lists: after 50unattended-upgrades
FILE = "/etc/apt/apt.conf.d/52gpu-setup-unattended"


def plan(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    """The step that completes a person's blacklist from which part of the set is missing."""
    moving = still_upgraded(host) if host.apt.unattended else None
    if not moving:
        return ()
    return (
        Step(
            id="unattended-set",
            title="Exclude the rest of kernel and driver from unattended upgrades too",
            action=exclusion(catalogue),
            state=State.TODO,
            because=f"The blacklist here excludes a part of the set, but unattended upgrades would still change "
            f"{' and '.join(moving)}: module, libraries and kernel would then not match. Afterwards `gpu-setup update` "
            "upgrades kernels, security updates included, together with the driver.",
            commands=(write_command(FILE),),
            undo=f"removes {FILE}",
        ),
    )


def exclusion(catalogue: Catalogue) -> WriteFile:
    """apt's setting that excludes the whole set from unattended upgrades."""
    listed = "".join(f'    "{name}";\n' for name in names(catalogue, "nvidia.unattended-set"))
    return WriteFile(
        path=FILE,
        content="// written by gpu-setup: kernel and NVIDIA driver are one set; a part was already excluded\n"
        f"Unattended-Upgrade::Package-Blacklist {{\n{listed}}};\n",
    )
