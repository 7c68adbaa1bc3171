"""Where a job runs: on this machine in a virtual environment, or in the image."""

from __future__ import annotations

from pathlib import Path

from checks.catalogue import Catalogue
from checks.facts.host import Host
from harness.environment.runtime import Runtime
from harness.pipeline import Job, Workplace


def choose_workplace(
    job: Job, host: Host, catalogue: Catalogue, runtime: Runtime, here: Workplace, writable: tuple[Path, ...] = ()
) -> tuple[Job, Workplace]:
    """The job with the stack of its workplace, and that workplace; raises Problem where the image is missing.

    `writable`: the user's own folders that the training writes to, in addition to ours.
    """
    if not runtime.is_image:
        return job, here
    from harness.jobs.image_runtime import image_runtime

    return image_runtime(job, host, catalogue, runtime, here, writable)
