"""Training that outlives the terminal: a systemd service that saves a checkpoint before it stops; and a machine that
does not suspend during training.

Without systemd such a service cannot run: the error says so and suggests nohup.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.atomic_files import disk_errors
from machine.errors import OutsideFailed, Refused
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import make
from machine.whole_file import new_file

STAGE = "background"
# the time that a checkpoint may take when the service or the machine stops
STOP_SECONDS = 300
# settings that the service must have too; some hold a password or token, so they go by a file (ENVIRONMENT)
PASSED = (
    "GPU_SETUP_HOME", "HOME", "PATH", "LANG", "TMPDIR", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME",
    "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
# in the state folder, one file a service: only its owner can read it, and the service removes it when it ends
ENVIRONMENT = "background"
INHIBIT = ("systemd-inhibit", "--what=sleep:idle", "--who=gpu-setup", "--why=A model is being trained", "--mode=block")


class BackgroundSupport(NamedTuple):
    """What this machine offers: a service manager (`user`: the user's own), whether it survives logout (None: not
    known), and an inhibitor of suspend.
    """

    manager: bool
    user: bool
    lingers: bool | None
    inhibitor: bool


class BackgroundUnit(msgspec.Struct, frozen=True):
    """The systemd service that trains now: the commands to follow its log, and to stop it with a checkpoint."""

    unit: str
    follow: str
    stop: str


def read_support(machine: Machine, uid: int) -> BackgroundSupport:
    """Read from systemd itself; root uses the system's manager, which survives any logout."""
    user = uid != 0
    scope = ("--user",) if user else ()
    answer = machine.run(("systemctl", *scope, "is-system-running"), timeout=5)
    manager = answer.stdout.strip() in ("running", "degraded", "starting", "initializing")
    lingers: bool | None = True
    if user:
        answer = machine.run(("loginctl", "show-user", str(uid), "--property=Linger", "--value"), timeout=5)
        lingers = {"yes": True, "no": False}.get(answer.stdout.strip()) if answer.ok else None
    inhibitor = machine.run(("systemd-inhibit", "--list", "--no-legend"), timeout=5).ok
    return BackgroundSupport(manager, user, lingers, inhibitor)


def unit_argv(
    name: str, command: Sequence[str], folder: str, place: BackgroundSupport, awake: bool, settings: Path
) -> tuple[str, ...]:
    """The systemd-run command; the variables are in the file `settings`, because argv and units' properties are public.

    SIGTERM is sent to gpu-setup alone, which makes the training save a checkpoint.
    """
    return (
        "systemd-run", *(("--user",) if place.user else ()), "--quiet", "--collect", f"--unit={name}",
        f"--description=gpu-setup: training in {folder}", f"--working-directory={os.getcwd()}",
        "--property=KillMode=mixed", f"--property=TimeoutStopSec={STOP_SECONDS}",
        f"--property=EnvironmentFile={settings}", f"--property=ExecStopPost=/bin/rm -f {settings}",
        *(INHIBIT if awake and place.inhibitor else ()), *command,
    )  # fmt: skip


def environment_text(environ: Mapping[str, str]) -> str:
    """The variables of PASSED in the form of systemd.exec(5), EnvironmentFile=."""

    def quoted(value: str) -> str:
        return re.sub(r'([\\"$`])', r"\\\1", value)

    return "".join(f'{name}="{quoted(environ[name])}"\n' for name in PASSED if environ.get(name))


def start_unit(
    name: str, command: Sequence[str], folder: str, machine: Machine, awake: bool, state: Path
) -> tuple[BackgroundUnit, tuple[str, ...]]:
    """Start the command as a service; returns it with notes about what would end it. Raises Refused without systemd.

    `state` is the folder of the user's state, for the file with the service's variables.
    """
    session = machine.session()
    place = read_support(machine, session.uid)
    if not place.manager:
        raise Refused(
            "train.no-manager",
            "Training in the background needs systemd, which does not answer.",
            "The user's own systemd is not running (systemctl --user)." if place.user else "It is not running.",
            "Use tmux or screen, or: nohup gpu-setup train … > train.log 2>&1 &",
        )
    settings = make(state / ENVIRONMENT) / f"{name}.env"
    with disk_errors(settings), new_file(settings, 0o600) as out:
        out.write(environment_text(session.environ).encode("utf-8", "surrogateescape"))
    outcome = machine.run(unit_argv(name, command, folder, place, awake, settings), timeout=30)
    if not outcome.ok:
        settings.unlink()
        raise OutsideFailed(
            "train.unit",
            "systemd did not start the training.",
            (outcome.stderr.strip().splitlines() or ["It printed nothing."])[-1],
            "Run the training in tmux or screen instead.",
        )
    scope = " --user" if place.user else ""
    unit = BackgroundUnit(name, f"journalctl{scope} --unit {name} --follow", f"systemctl{scope} stop {name}")
    return unit, unit_notes(place, awake)


def unit_notes(place: BackgroundSupport, awake: bool) -> tuple[str, ...]:
    """What the user must know: whether logout or suspend ends the training."""
    found = []
    if place.lingers is False:
        found.append("It ends when you log out of your last session. To keep it running: loginctl enable-linger")
    elif place.lingers is None:
        found.append("Whether it continues after logout is not known; `loginctl show-user` shows it (Linger=yes).")
    if awake and not place.inhibitor:
        found.append("gpu-setup cannot keep the machine from suspending (systemd-inhibit does not answer).")
    return tuple(found)


@contextmanager
def keep_awake(wanted: bool, machine: Machine, emit: Emit) -> Iterator[None]:
    """Keep the machine from suspending inside this block; the lock is released when this process ends, in any way."""
    if not wanted:
        yield
        return
    done = threading.Event()

    def inhibit() -> None:
        outcome = machine.stream(
            (*INHIBIT, "tail", f"--pid={os.getpid()}", "--follow", "/dev/null"), lambda line: None, done
        )
        if not done.is_set():
            reason = (outcome.stdout.strip().splitlines() or [outcome.problem or "it ended"])[-1]
            emit(Event("warning", STAGE, f"The machine may suspend during training: systemd-inhibit: {reason}"))

    thread = threading.Thread(target=inhibit, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)
