"""Training in the image: the same job, with the environment's programs in containers instead of a venv.

image_spec(host) ─▶ the built image ─▶ a machine that runs the environment's programs in it + the image's Environment
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from containers.build import TORCH_LABEL, worker_digest
from containers.connection import connect
from containers.container import Mount, container_user
from containers.container_setup import ContainerOptions, find_image, make_container
from containers.dockerfile import ENVIRONMENT
from containers.engine import choose_engine
from containers.model import ImageVendor
from containers.ownership import container_owner, container_paths, refuse_closed, refuse_unwritable
from containers.run import ContainerMachine
from containers.spec import image_spec
from containers.user_mounts import check_folder
from harness.environment.build import Environment
from harness.environment.runtime import Runtime
from harness.environment.worker_process import WORKER
from harness.measure.workload import DOCUMENTS
from harness.pipeline import Job, Workplace
from harness.recipe.axolotl_config import local_inputs
from harness.recipe.loader import SAMPLES, SHIPPED
from machine.events import Event
from machine.paths import make

# how the worker in a container notices that gpu-setup has ended (gpu_setup_worker/parent.py)
INSIDE = {"GPU_SETUP_PARENT": "stdin"}
# these name paths and processes of this machine; the image has its own
OUTSIDE_ONLY = frozenset({"PATH", "PYTHONPATH", "GPU_SETUP_PARENT", "CUDA_VISIBLE_DEVICES"})


def image_runtime(
    job: Job, host: Host, catalogue: Catalogue, runtime: Runtime, here: Workplace, writable: tuple[Path, ...] = ()
) -> tuple[Job, Workplace]:
    """The job on the image's stack, and the image as its workplace; raises Problem without an image.

    `writable`: the user's own folders that the training writes to, in addition to ours.
    """
    machine = here.machine
    chosen = choose_engine(host, machine, runtime.engine)
    spec = image_spec(host, catalogue, ImageVendor(job.stack.vendor))
    client = connect(chosen, machine)
    image = find_image(spec, worker_digest(WORKER), chosen, client, runtime.image_name)
    owner = container_owner(container_user(machine.session(), chosen), chosen)
    for folder in writable:
        check_folder(folder)
        refuse_unwritable(folder, owner, machine)
    paths = container_paths(here.paths, owner)
    notes = make(paths.cache / "image", paths.owner) / image.id.removeprefix("sha256:")[:12]
    # of the person's own files only those that the training reads, never the folders that they are in
    read = (SAMPLES, SHIPPED, *local_inputs(job.recipe), *((job.data,) if job.data else ()))
    mounts = [Mount(place) for place in dict.fromkeys(read)]
    # runs/ itself stays as it is: each new run's folder is made for the container's user
    for folder in (paths.runs, paths.state / "tune"):
        refuse_closed(make(folder), owner, machine)
        mounts.append(Mount(folder, writable=True))
    written = (paths.models, paths.cache / DOCUMENTS, notes, *writable)
    mounts += [Mount(make(folder, paths.owner), writable=True) for folder in written]
    hub = job.recipe.traits.model == "hub"
    # the container gets only this card, so no variable is needed inside to select it
    gpus = (job.device,) if job.device is not None else ()
    wanted = ContainerOptions(gpus, network=hub, image=runtime.image_name, mounts=tuple(mounts))
    made = make_container(image, host, catalogue, machine, client, here.paths, wanted)
    made = made._replace(env={**made.env, **INSIDE})
    here.emit(
        Event("note", "environment", f"Using the image {image.name} ({chosen.kind} {chosen.version or ''})".rstrip())
    )
    environment = Environment(
        stack=spec.stack,
        folder=ENVIRONMENT,
        lock_digest=image.labels.get("gpu-setup.lock", spec.lock_digest),
        python_version=image.labels.get("gpu-setup.python", spec.python),
        torch=image.labels.get("gpu-setup.torch", spec.torch),
        torch_from="image",
        torch_verified="sha256" if image.labels.get(TORCH_LABEL) == "sha256" else "unverified",
        built_at=image.created,
        seconds=0.0,
        image=image.id,
        notes=str(notes),
    )
    stack = catalogue.stack(spec.stack)
    place = here._replace(
        machine=ContainerMachine(machine, client, made, ENVIRONMENT, OUTSIDE_ONLY), environment=environment, paths=paths
    )  # fmt: skip
    return msgspec.structs.replace(job, stack=stack), place
