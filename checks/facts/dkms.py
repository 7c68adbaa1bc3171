"""What DKMS has built: the tree under /var/lib/dkms, without calling dkms (dkms(8) needs root for some of it)."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, names, target, text
from checks.facts.host import DkmsBuild, DkmsState
from machine.local import Machine, Unreadable
from machine.patterns import lazy_pattern

TREE = "/var/lib/dkms"
_TAIL_LINES = 15
# `DKMS make.log for nvidia-580.95.05 for kernel 6.8.0-31-generic (x86_64)`; later `DKMS (dkms-3.0.11) make.log …`
LOG_HEAD = lazy_pattern(r"DKMS .*make\.log for (\S+) for kernel (\S+) \((\S+)\)")
# the entries of a version's folder that are no kernel releases
_NO_KERNEL = ("build", "source")


def parse_make_log(content: str) -> tuple[str | None, str]:
    """The kernel that the build was for, and the log's last lines, preceded by earlier errors."""
    lines = [line.rstrip() for line in content.splitlines() if line.strip()]
    head = LOG_HEAD.search(lines[0]) if lines else None
    errors = [line for line in lines[:-_TAIL_LINES] if re.search(r"\berror:|\*\*\*|ERROR", line)][:5]
    return (head[2] if head else None), "\n".join([*errors, *lines[-_TAIL_LINES:]])


def read_dkms(machine: Machine, gaps: Gaps) -> tuple[DkmsBuild, ...] | None:
    """None when the tree cannot be listed, empty without DKMS."""
    modules = names(machine, TREE, gaps)
    if modules is None:
        return None
    found: list[DkmsBuild] = []
    for module in modules:
        # beside the modules' folders DKMS keeps its key and its own version in files
        inside = names(machine, f"{TREE}/{module}", gaps) or () if _is_folder(machine, f"{TREE}/{module}", gaps) else ()
        installed = {
            _installed_build(machine, f"{TREE}/{module}/{name}", gaps) for name in inside if name.startswith("kernel-")
        }
        for version in (name for name in inside if not name.startswith("kernel-") and name != "original_module"):
            found += _builds(machine, module, version, installed, gaps)
    return tuple(found)


def _is_folder(machine: Machine, path: str, gaps: Gaps) -> bool:
    try:
        return machine.stat(path).kind == "folder"
    except Unreadable as error:
        gaps.failed(error)
        return False


def _installed_build(machine: Machine, link: str, gaps: Gaps) -> tuple[str, str] | None:
    """kernel-RELEASE-ARCH is a link to VERSION/RELEASE/ARCH."""
    steps = (target(machine, link, gaps) or "").split("/")
    return (steps[-3], steps[-2]) if len(steps) >= 3 else None


def _builds(
    machine: Machine, module: str, version: str, installed: set[tuple[str, str] | None], gaps: Gaps
) -> list[DkmsBuild]:
    at = f"{TREE}/{module}/{version}"
    inside = names(machine, at, gaps)
    if not inside:
        return []
    found = []
    for kernel in (name for name in inside if name not in _NO_KERNEL):
        state: DkmsState = "installed" if (version, kernel) in installed else "built"
        found.append(DkmsBuild(module=module, version=version, kernel=kernel, state=state))
    # DKMS removes the build folder after a success, so a make.log in it belongs to a build that failed (or still runs)
    log = text(machine, f"{at}/build/make.log", gaps) if "build" in inside else None
    if log is not None:
        kernel_of_log, tail = parse_make_log(log)
        found.append(DkmsBuild(module=module, version=version, kernel=kernel_of_log, state="added", log_tail=tail))
    elif not found and "source" in inside:
        found.append(DkmsBuild(module=module, version=version, kernel=None, state="added"))
    return found
