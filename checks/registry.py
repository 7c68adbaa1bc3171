"""All checks: collected from the files of rules, in the order of `check_ids.IDS`."""

from __future__ import annotations

from types import ModuleType

from checks.check_ids import IDS
from checks.model import Check
from checks.rules import hub, os, resources, runtime, secureboot, wsl
from checks.rules.apt import driver_source, package_state, repositories, updates
from checks.rules.container import engine, rootless
from checks.rules.driver import binding, flavour, installation, kernel_module, nvml, suspend, version
from checks.rules.gpu import card, kernel_errors, link, memory_errors, slot, thermal, usage
from checks.rules.kernel import amdgpu, boot
from checks.rules.python import interpreter, packages
from checks.rules.rocm import amd_smi, device_access, host_install, override

MODULES: tuple[ModuleType, ...] = (
    *(os, wsl, card, link, slot, kernel_errors, memory_errors, thermal, usage),
    *(installation, kernel_module, binding, flavour, version, nvml, suspend, secureboot, boot, amdgpu),
    *(device_access, amd_smi, host_install, override, runtime, engine, rootless),
    *(interpreter, packages, hub, package_state, driver_source, repositories, updates, resources),
)


def checks_in(module: ModuleType) -> tuple[Check, ...]:
    """The checks that this module defines, in the order of the file."""
    return tuple(value for value in vars(module).values() if isinstance(value, Check))


_POSITION = {id: number for number, id in enumerate(IDS)}
# a check that is not in the list yet comes last
ALL: tuple[Check, ...] = tuple(
    sorted(
        (check for module in MODULES for check in checks_in(module)),
        key=lambda check: _POSITION.get(check.id, len(IDS)),
    )
)
