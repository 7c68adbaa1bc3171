"""Going on after a restart: a unit that runs once, from root's own copy, and takes itself away."""

from __future__ import annotations

from pathlib import Path

import msgspec

from machine.errors import OutsideFailed
from provision.apply.journal import ApplyRun
from provision.apply_context import ApplyContext
from provision.model import PlanStruct
from provision.system import system_files
from provision.system.apt import ENVIRONMENT

UNIT = "/etc/systemd/system/gpu-setup-resume.service"
WANTED = "/etc/systemd/system/multi-user.target.wants/gpu-setup-resume.service"
MESSAGE = "/run/motd.d/gpu-setup"
ATTEMPTS = 3

# Nothing at boot waits for it: it is wanted by the target, ordered after it, and simple, so it holds nobody up.
TEXT = """\
# written by gpu-setup apply --reboot; takes itself away after it has run
[Unit]
Description=gpu-setup goes on after the restart
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
    """`boot_id` of the boot in which it was armed: only a later one counts. `attempts` made so far."""

    boot_id: str | None
    attempts: int = 0


def read_armed(context: ApplyContext) -> ArmedResume | None:
    try:
        return msgspec.json.decode((context.state / "armed.json").read_bytes(), type=ArmedResume)
    except (OSError, msgspec.MsgspecError):
        return None


def arm(context: ApplyContext, command: tuple[str, ...], boot_id: str | None, attempts: int = 0) -> None:
    """Write the unit and what it goes by. `command` runs from root's copy: no home, no network needed."""
    place = context.state / "armed.json"
    system_files.write(str(place), msgspec.json.encode(ArmedResume(boot_id=boot_id, attempts=attempts)), 0o600)
    text = TEXT.format(armed=place, command=" ".join(command))
    system_files.write(UNIT, text.encode(), 0o644)
    outcome = context.machine.run(("systemctl", "enable", Path(UNIT).name), timeout=30, env=ENVIRONMENT)
    if not outcome.ok:
        disarm(context)
        raise OutsideFailed(
            "resume.unit", "The unit that goes on after the restart could not be enabled.", outcome.stderr.strip(), ""
        )


def disarm(context: ApplyContext) -> None:
    """Take the unit away again; nothing happens when there is none."""
    system_files.remove(WANTED)
    system_files.remove(UNIT)
    system_files.remove(str(context.state / "armed.json"))
    if context.systemd:
        context.machine.run(("systemctl", "daemon-reload"), timeout=30, env=ENVIRONMENT)


def write_login_message(run: ApplyRun) -> None:
    """Two lines for the next login on a console or over SSH (pam_motd(8)); gone with the next restart."""
    said = {
        "done": "everything is in place. Next: gpu-setup up",
        "person": f"it waits for you. {run.next}",
        "restart": f"another restart is needed. {run.next}",
    }.get(run.standing, f"{run.problem.what if run.problem else 'stopped'} Next: {run.next or 'gpu-setup status'}")
    system_files.write(
        MESSAGE, f"gpu-setup went on after the restart: {said}\n  gpu-setup status tells more.\n".encode(), 0o644
    )
