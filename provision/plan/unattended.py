"""Unattended upgrades and the driver: the whole set of kernel and driver is kept from them, or nothing of it."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.rules.apt.updates import still_moving
from provision.model import State, Step, WriteFile
from provision.plan.package_steps import names
from provision.plan.repositories import write_command

# apt reads apt.conf.d in order and adds to lists: after 50unattended-upgrades
FILE = "/etc/apt/apt.conf.d/52gpu-setup-unattended"


def plan(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    """The step that completes a blacklist of somebody's that leaves a part of the set to move by itself."""
    moving = still_moving(host) if host.apt.unattended else None
    if not moving:
        return ()
    listed = "".join(f'    "{name}";\n' for name in names(catalogue, "nvidia.unattended-set"))
    return (
        Step(
            id="unattended-set",
            title="Keep the rest of kernel and driver from unattended upgrades too",
            action=WriteFile(
                path=FILE,
                content="// written by gpu-setup: kernel and NVIDIA driver are one set, of which a part was kept back\n"
                f"Unattended-Upgrade::Package-Blacklist {{\n{listed}}};\n",
            ),
            state=State.TODO,
            because=f"Somebody keeps a part of it back here, and {' and '.join(moving)} would move by night: then "
            "module, library and kernel no longer fit. All of the set or none of it. Kernels, security updates "
            "included, then come by gpu-setup update, which moves both together.",
            commands=(write_command(FILE),),
            undo=f"removes {FILE}",
        ),
    )
