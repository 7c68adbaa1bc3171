"""The user who runs the tool: groups of this process and of a new login, variables that change how a GPU is found."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, text
from checks.facts.host import Person
from checks.facts.login_environment import read_start_files
from machine.local import Machine
from machine.patterns import lazy_pattern

_VARIABLES = lazy_pattern(
    r"(?:CUDA|HIP|ROCR|NVIDIA)_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|CUDA_HOME|CUDA_PATH|GPU_DEVICE_ORDINAL|HSA_\w+|"
    r"ROCM_PATH|ROCM_HOME|HIP_PATH|LD_LIBRARY_PATH|LD_PRELOAD|PYTORCH_ROCM_ARCH|BNB_(?:CUDA|ROCM)_VERSION|"
    r"TORCH_BLAS_PREFER_HIPBLASLT|TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL|GPU_SETUP_STUB|VIRTUAL_ENV|CONDA_PREFIX"
)


def parse_group(content: str) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    """(name, gid, members) of /etc/group; broken lines are left out, as the C library does."""
    found = []
    for line in content.splitlines():
        fields = line.split(":")
        if len(fields) == 4 and fields[0] and re.fullmatch(r"[0-9]{1,10}", fields[2]):
            found.append((fields[0], int(fields[2]), tuple(m for m in fields[3].split(",") if m)))
    return tuple(found)


def parse_primary(content: str, user: str) -> int | None:
    """The user's primary group in /etc/passwd; None for one who is not in it (LDAP, SSSD)."""
    for line in content.splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[0] == user and re.fullmatch(r"[0-9]{1,10}", fields[3]):
            return int(fields[3])
    return None


def database_groups(user: str, group: str, passwd: str) -> tuple[str, ...] | None:
    """Names of the groups of a new login; None if the user is not in the local files."""
    primary = parse_primary(passwd, user)
    if primary is None:
        return None
    return tuple(sorted({name for name, gid, members in parse_group(group) if gid == primary or user in members}))


def read_person(machine: Machine, gaps: Gaps, start_files: bool = False) -> Person:
    """`start_files`: also read the variables that a login would set."""
    session = machine.session()
    group, passwd = text(machine, "/etc/group", gaps), text(machine, "/etc/passwd", gaps)
    called = {gid: name for name, gid, _ in reversed(parse_group(group or ""))}
    known = group is not None and passwd is not None
    caller = session.environ.get("SUDO_USER") if session.uid == 0 else None
    return Person(
        uid=session.uid,
        user=session.user,
        groups=tuple(sorted(called.get(gid, str(gid)) for gid in session.gids)) if group is not None else None,
        database_groups=database_groups(session.user, group or "", passwd or "") if known else None,
        environ={name: value for name, value in sorted(session.environ.items()) if _VARIABLES.fullmatch(name)},
        ssh=bool(session.environ.get("SSH_CONNECTION")),
        start_files=read_start_files(machine, gaps) if start_files else None,
        sudo_user=caller,
        sudo_groups=database_groups(caller, group or "", passwd or "") if caller and known else None,
    )
