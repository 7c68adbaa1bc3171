"""Verifies an image from inside: the worker's checks run in a container of it, without network and without root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from containers.container import Container, Mount
from containers.dockerfile import ENVIRONMENT
from containers.errors import last_error
from containers.model import ImageSpec
from containers.run import ContainerMachine
from machine.errors import OutsideFailed
from machine.events import Emit, Event
from machine.local import Machine

if TYPE_CHECKING:
    from docker import APIClient

STAGE = "verify"
# what the worker writes before its document (harness/worker/gpu_setup_worker/verify.py)
MARK = "gpu-setup-verify: "
CHECKS = 11

CheckStatus = Literal["pass", "fail", "skip", "stub"]
Verdict = Literal["pass", "fail", "stub"]
# cuda: also for ROCm
Device = Literal["cuda", "cpu", "stub", "none"]


class VerifyCheck(msgspec.Struct, frozen=True):
    """One check. skip: the reason says why; stub: the device is a stand-in, so nothing was verified."""

    id: str
    title: str
    status: CheckStatus
    reason: str
    values: dict[str, Any] = {}


class WorkerAnswer(msgspec.Struct, frozen=True):
    """What the worker prints."""

    device: Device
    python: str
    checks: tuple[VerifyCheck, ...]


class Verification(msgspec.Struct, frozen=True):
    """`verdict`: stub where a check verified nothing because the device is a stand-in."""

    image: str
    image_id: str
    stack: str
    device: Device
    python: str
    verdict: Verdict
    checks: tuple[VerifyCheck, ...]


def verify(
    spec: ImageSpec,
    client: APIClient,
    container: Container,
    image_id: str,
    recipes: tuple[Path, ...],
    machine: Machine,
    emit: Emit,
) -> Verification:
    """Run every check inside and return the results. Raises Problem when the container gives no answer."""
    emit(Event("start", STAGE, f"Verifying {container.image} from inside"))
    argv = [f"{ENVIRONMENT}/bin/python", "-m", "gpu_setup_worker.verify", "--torch", spec.torch]
    for word, value in (("--cuda", spec.cuda), ("--hip", spec.hip)):
        if value is not None:
            argv += [word, value]
    for target in spec.targets:
        argv += ["--target", target]
    for recipe in recipes:
        argv += ["--recipe", str(recipe)]
    argv += ["--network"] if container.network else []
    mounts = tuple(dict.fromkeys((*container.mounts, *(Mount(recipe) for recipe in recipes))))
    answer: list[str] = []
    said: list[str] = []

    def on_line(line: str) -> None:
        if line.startswith(MARK):
            answer.append(line.removeprefix(MARK))
        else:
            said.append(line)
            if line.startswith("verified "):
                done = sum(each.startswith("verified ") for each in said)
                emit(Event("progress", STAGE, line, done, CHECKS, "checks"))

    inside = ContainerMachine(machine, client, container._replace(mounts=mounts), ENVIRONMENT, frozenset())
    outcome = inside.stream(tuple(argv), on_line, env={"HF_HUB_OFFLINE": "1"})
    if not answer:
        text = "\n".join(said[-40:])
        raise OutsideFailed(
            "verify.no-answer",
            f"The checks inside {container.image} gave no answer (exit status {outcome.rc}).",
            last_error(text),
            "gpu-setup image build, then verify again",
        )
    found = msgspec.json.decode(answer[-1], type=WorkerAnswer)
    emit(Event("end", STAGE, f"{len(found.checks)} checks done inside"))
    return Verification(
        container.image, image_id, spec.stack, found.device, found.python, verdict(found.checks), found.checks
    )


def verdict(checks: tuple[VerifyCheck, ...]) -> Verdict:
    statuses = {proof.status for proof in checks}
    return "fail" if "fail" in statuses else "stub" if "stub" in statuses else "pass"
