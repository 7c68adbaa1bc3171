"""Resuming after a reboot: a systemd unit that runs once, from root's own copy of the tool, and removes itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

from machine.errors import OutsideFailed
from provision.apply.journal import ApplyRun
from provision.apply_context import ApplyContext
from provision.model import NOT_DECODABLE, PlanStruct
from provision.system import system_files
from provision.system.apt import ENVIRONMENT

UNIT = "/etc/systemd/system/gpu-setup-resume.service"
WANTED = "/etc/systemd/system/multi-user.target.wants/gpu-setup-resume.service"
MESSAGE = "/run/motd.d/gpu-setup"
ATTEMPTS = 3

# Nothing at boot waits for it: it is wanted by the target, ordered after it, and of type simple.
TEXT = """\
# written by gpu-setup apply --reboot; removes itself after it has run
[Unit]
Description=gpu-setup resumes after the reboot
After=multi-user.target
ConditionPathExists={armed}

[Service]
Type=simple
ExecStart={command}
KillMode=mixed
TimeoutStopSec=15min
StandardOutput=null

[Install]
WantedBy=multi-user.target
"""


class ArmedResume(PlanStruct, frozen=True, kw_only=True):
    """`boot_id`: the boot in which it was armed; only a later boot counts. `attempts`: how many were made so far."""

    boot_id: str | None
    attempts: int = 0


def read_armed(context: ApplyContext) -> ArmedResume | None:
    try:
        return msgspec.json.decode((context.state / "armed.json").read_bytes(), type=ArmedResume)
    except (OSError, *NOT_DECODABLE):
        return None


def arm(context: ApplyContext, command: tuple[str, ...], boot_id: str | None, attempts: int = 0) -> None:
    """Write the unit and its state file. `command` runs from root's copy: it needs no home and no network."""
    place = context.state / "armed.json"
    system_files.write(str(place), msgspec.json.encode(ArmedResume(boot_id=boot_id, attempts=attempts)), 0o600)
    text = TEXT.format(armed=place, command=" ".join(command))
    system_files.write(UNIT, text.encode(), 0o644)
    outcome = context.machine.run(("systemctl", "enable", Path(UNIT).name), timeout=30, env=ENVIRONMENT)
    if not outcome.ok:
        disarm(context)
        raise OutsideFailed(
            "resume.unit",
            "The systemd unit that resumes after the reboot could not be enabled.",
            outcome.stderr.strip(),
            "",
        )


def disarm(context: ApplyContext) -> None:
    """Remove the unit; nothing happens when there is none."""
    system_files.remove(WANTED)
    system_files.remove(UNIT)
    system_files.remove(str(context.state / "armed.json"))
    if context.systemd:
        context.machine.run(("systemctl", "daemon-reload"), timeout=30, env=ENVIRONMENT)


def write_login_message(run: ApplyRun) -> None:
    """Two lines for the next login on a console or over SSH (pam_motd(8)); the next reboot removes them."""
    said = {
        "done": "everything is installed. Next: gpu-setup up",
        "person": f"it waits for you. {run.next}",
        "restart": f"another reboot is needed. {run.next}",
    }.get(run.standing, f"{run.problem.what if run.problem else 'stopped'} Next: {run.next or 'gpu-setup status'}")
    system_files.write(
        MESSAGE, f"gpu-setup resumed after the reboot: {said}\n  gpu-setup status shows more.\n".encode(), 0o644
    )
