"""Where a job runs: on this machine in a virtual environment, or in the image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host
from harness.environment.build import Environment
from harness.environment.runtime import Runtime
from harness.pipeline import Job
from machine.events import Emit
from machine.local import Machine
from machine.paths import Paths


class Workplace(NamedTuple):
    """`machine` starts the job's programs (this machine, or a container); `environment` None: a venv is made."""

    machine: Machine
    paths: Paths
    emit: Emit
    environment: Environment | None = None


def choose_workplace(
    job: Job, host: Host, catalogue: Catalogue, runtime: Runtime, here: Workplace, writable: tuple[Path, ...] = ()
) -> tuple[Job, Workplace]:
    """The job with the stack of its workplace, and that workplace; raises Problem where the image is missing.

    `writable`: the user's own folders that the training writes to, in addition to ours.
    """
    if runtime.runtime != "image" and runtime.image_name is None:
        return job, here
    from containers.container_setup import ContainerOptions
    from harness.jobs.image_runtime import image_runtime

    machine, paths, emit, _ = here
    wanted = ContainerOptions(image=runtime.image_name)
    job, machine, environment = image_runtime(
        job, host, catalogue, machine, paths, emit, os.environ, runtime.engine, wanted, writable
    )
    return job, Workplace(machine, paths, emit, environment)
