"""`doctor --bundle FILE`: the machine's recording and the doctor's report in one file, for whoever helps."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from checks.allowed import sources as allowed
from checks.catalogue import Catalogue
from checks.facts.read import read_host
from checks.model import DoctorReport
from checks.registry import ALL
from checks.runner import exit_code, run
from gpu_setup.envelope import Answer, encode
from gpu_setup.version import version
from machine import bundle
from machine.local import Machine
from machine.recorder import RecordingMachine, identities_of, tree
from machine.recording import RecordedMachine
from machine.recording_files import MemoryTree
from machine.whole_file import BUNDLE, save

README = """\
A machine as gpu-setup {version} saw it, made by `gpu-setup doctor --bundle`.

doctor.json     the doctor's report: every check, computed from this folder
sysroot/        the parts of files that the checks read
commands.json   the outputs of commands that they read (kernel log, docker info, mokutil …)
paths.json      which files exist or could not be read, their permissions, free disk space
session.json    user number, groups, and the variables that change how a GPU is found
nvml.json, amdsmi.json   the output of the vendors' libraries, if they are installed

Names of people and of the machine, addresses, serial numbers, disk ids, passwords, tokens and keys have been replaced.
No program knows every secret: review it before you share it.

Read it with: gpu-setup doctor --machine FILE
"""
# how much of one file or output goes in, tried in turn until the whole is small enough
_PORTIONS = (256 << 10, 64 << 10, 16 << 10, 4 << 10)


class WrittenBundle(NamedTuple):
    """`size` in bytes; `different`: checks with another result on the copy, because something is left out."""

    file: str
    size: int
    files: int
    different: tuple[str, ...]


def write(seen: RecordingMachine, report: DoctorReport, known: Catalogue, file: str, force: bool) -> WrittenBundle:
    """Pack what `seen` remembers into the file, with the doctor's answer to that copy."""
    made, data, copy = _pack_smallest(seen, known)
    save(file, data, force, BUNDLE)
    on_copy = {row.id: row.status for row in copy.results}
    different = tuple(row.id for row in report.results if on_copy.get(row.id) != row.status)
    return WrittenBundle(file, len(data), len(made.files) + len(made.links) + 2, different)


def _pack_smallest(seen: RecordingMachine, known: Catalogue) -> tuple[MemoryTree, bytes, DoctorReport]:
    who = identities_of(seen.machine)
    about = {"name": "bundle", "tool_version": version(), "note": "", "synthetic": _synthetic_paths(seen.machine)}
    for most in _PORTIONS:
        made = tree(seen, bundle.TOP, who, about, allowed, most)
        copy = run(read_host(RecordedMachine(made)), known, ALL)
        more = {
            "doctor.json": encode(Answer("doctor", copy, exit_code(copy), str)),
            "README.txt": README.format(version=version()).encode(),
        }
        data = bundle.pack(made, more)
        if len(data) <= bundle.MOST:
            break
    return made, data, copy


def _synthetic_paths(machine: Machine) -> list[str]:
    """A bundle of a recording is no better than the recording."""
    return ["/"] if isinstance(machine, RecordedMachine) else []


def bundle_text(found: WrittenBundle) -> str:
    """What was written."""
    lines = [
        f"Bundle: {found.file} ({found.size / 1000:.0f} kB, {found.files} files)",
        "  It holds this report and what the checks read. Names, addresses, serial",
        "  numbers, passwords and tokens have been replaced; no program knows every",
        f"  secret, so review it before you send it: tar -xOzf {shlex.quote(found.file)} | less",
    ]
    if found.different:
        lines.append(f"  Checks with another result on the copy: {', '.join(found.different)}")
    return "\n".join(lines) + "\n"
