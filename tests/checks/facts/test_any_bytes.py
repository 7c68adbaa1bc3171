"""Every parser survives every text: files of /proc, /sys and /etc are written by strangers, and disks rot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.facts import amd as radeon
from checks.facts import (
    apt,
    apt_sources,
    deb822,
    dkms,
    docker,
    environments,
    firmware,
    grub,
    kernel,
    login_environment,
    login_screen,
    nvidia,
    pci,
    person,
    python,
    resources,
)
from checks.facts import os as system
from machine.local import Outcome

pytestmark = pytest.mark.long


def outcome(text: str) -> Outcome:
    return Outcome(("x",), 0, text, text, 0.0)


TEXT: dict[str, Callable[[str], object]] = {
    "os-release": system.parse_os_release,
    "virtualisation": lambda text: system.parse_virtualisation(text, "", text, text),
    "cmdline": kernel.parse_cmdline,
    "modules": kernel.parse_modules,
    "blacklist": kernel.parse_blacklist,
    "log": kernel.parse_log,
    "version": kernel.version_key,
    "module name": kernel.module_name,
    "make.log": dkms.parse_make_log,
    "grub": grub.parse_defaults,
    "grubenv": grub.parse_environment,
    "grub entry": lambda text: grub.choose(text, ("6.8.0-31-generic", "6.8.0-40-generic"), True),
    "lockdown": firmware.parse_lockdown,
    "enrolled": firmware.parse_enrolled,
    "test-key": firmware.parse_test_key,
    "pci id": lambda text: pci.parse_hex(text, 4),
    "pci speed": pci.parse_speed,
    "pci resource": pci.parse_bars,
    "pci aer": pci.parse_aer,
    "nvidia version": nvidia.parse_proc_version,
    "nvidia library": nvidia.parse_library,
    "cdi": nvidia.parse_cdi,
    "nvml": lambda text: nvidia.parse_nvml(outcome(text)),
    "kfd": lambda text: radeon.parse_node(1, text),
    "amdsmi": lambda text: radeon.parse_smi(outcome(text)),
    "deb822": lambda text: list(deb822.paragraphs(text)),
    "list": lambda text: apt_sources.parse_list("f", text),
    "sources": lambda text: apt_sources.parse_sources("f", text),
    "pins": lambda text: apt.parse_pins("f", text),
    "apt.conf": apt.parse_settings,
    "locks": lambda text: apt.parse_lock_pids(text, 7),
    "docker info": docker.parse_info,
    "docker problem": lambda text: docker.parse_problem(outcome(text), docker.parse_info(text)),
    "group": person.parse_group,
    "passwd": lambda text: person.parse_primary(text, "alex"),
    "python link": python.parse_minor,
    "patchlevel": python.parse_patchlevel,
    "meminfo": resources.parse_meminfo,
    "cpuinfo": resources.parse_cpuinfo,
    "cgroup": resources.parse_cgroup,
    "limit": resources.parse_limit,
    "module options": kernel.parse_options,
    "dates": kernel.parse_dates,
    "way": pci.parse_bridges,
    "ras": radeon.parse_ras,
    "compat": nvidia.parse_compat,
    "no-cgroups": nvidia.parse_no_cgroups,
    "torch": environments.parse_torch,
    "stack": environments.parse_stack,
    "login power": login_screen.parse_power,
    "login schema": login_screen.parse_schema,
    "start file": login_environment.parse_start_file,
}
BYTES: dict[str, Callable[[bytes], object]] = {
    "dpkg status": apt.parse_status,
    "dpkg status, reduced": apt.reduce_status,
    "efi flag": firmware.parse_efi_flag,
    "daemon.json": docker.parse_daemon_json,
    "log, reduced": kernel.reduce_log,
}
# pieces that lead into the parsers, and anything else
PIECES = st.sampled_from(
    (
        *(
            "Package: nvidia-x",
            "Status: install ok installed",
            "Version: ",
            "Types: deb",
            "URIs: ",
            "Pin: ",
            "deb [",
            "]",
        ),
        *(
            "\n",
            "\n\n",
            " ",
            ":",
            "=",
            ">",
            "1>",
            '"',
            "'",
            "{",
            "}",
            "//",
            "/*",
            "*/",
            "[",
            "0x",
            "9" * 30,
            "\0",
            "\\",
        ),
        *(
            "simd_count 1",
            "location_id ",
            "gfx_target_version ",
            "NVRM version: ",
            "Kernel Module",
            "kind: nvidia.com/gpu",
        ),
        *(
            '{"gpus": [{"slot": ',
            '{"ServerVersion": ',
            "GRUB_DEFAULT=",
            "blacklist nouveau",
            "x:x:",
            "[    1.5] nvidia",
        ),
        *("Unattended-Upgrade::Package-Blacklist {", "TOTAL_ERR_COR ", "MemTotal: ", "0::/", " kB", "6.8.0-31-generic"),
    )
)
CONTENT = st.lists(st.one_of(PIECES, st.binary(max_size=12).map(lambda b: b.decode("utf-8", "replace"))), max_size=14)


@pytest.mark.parametrize("name", TEXT)
@settings(max_examples=60, deadline=None)
@given(content=CONTENT.map("".join))
def test_text(name: str, content: str) -> None:
    TEXT[name](content)


@pytest.mark.parametrize("name", BYTES)
@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=200), CONTENT.map("".join).map(str.encode)))
def test_bytes(name: str, content: bytes) -> None:
    BYTES[name](content)
