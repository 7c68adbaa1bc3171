"""From facts to a container that can be started: the built image, the GPUs, its user, its caches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.rules import cards
from containers.build import WORKER_LABEL, inspect_image
from containers.connection import engine_errors
from containers.container import Container, Mount, container_user
from containers.device_options import device_access, device_options, has_amd_cdi
from containers.dockerfile import image_tag
from containers.engine import host_for_engine
from containers.model import Engine, ImageSpec, ImageVendor
from containers.orphans import remove_orphans
from containers.ownership import container_owner, container_paths
from containers.proxies import is_proxy_local
from containers.run_secrets import secret_variables
from machine.errors import BadUsage, Refused
from machine.local import Machine
from machine.paths import Owner, Paths, make

if TYPE_CHECKING:
    from docker import APIClient

PCI_VENDORS = {ImageVendor.NVIDIA: cards.NVIDIA, ImageVendor.AMD: cards.AMD}
# compilers' caches: kept, because an empty one costs minutes at each start on a GPU
JIT_FOLDERS = {
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "NUMBA_CACHE_DIR": "numba",
    "CUDA_CACHE_PATH": "cuda",
    "MIOPEN_USER_DB_PATH": "miopen",
    "MIOPEN_CUSTOM_CACHE_DIR": "miopen",
}
# the number of threads is a setting of the machine; it must be the same inside. Not HSA_OVERRIDE_GFX_VERSION: the image
# has kernels for the card itself
PASSED_PREFIXES = ("OMP_", "MKL_", "OPENBLAS_", "HSA_")
# where a person, or their company, names certificates for Python's programs
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class ContainerOptions(msgspec.Struct, frozen=True):
    """Options for a container. `image`: another image than the one that was built for this spec; `mounts`: in addition
    to its caches.
    """

    gpus: tuple[str, ...] = ()
    network: bool = False
    image: str | None = None
    shm: str | None = None
    writable_root: bool = False
    mounts: tuple[Mount, ...] = ()


class FoundImage(msgspec.Struct, frozen=True):
    """A built image of `spec` on `engine`, with its labels. `created` as the engine writes it, ISO 8601."""

    spec: ImageSpec
    engine: Engine
    name: str
    id: str
    labels: dict[str, str]
    created: str = ""


def find_image(spec: ImageSpec, worker: str, engine: Engine, client: APIClient, name: str | None = None) -> FoundImage:
    """The named image, or the newest one for this stack and lock, on any base.

    Raises Refused if there is none, or if its training code is not from this gpu-setup.
    """
    names = (name,) if name else (image_tag(spec), *_by_labels(spec, client))
    outdated = None
    for each in names:
        found = inspect_image(client, each)
        if found is None:
            continue
        image = FoundImage(spec, engine, found.name or each, found.id, found.labels, found.created)
        if image.labels.get(WORKER_LABEL) == worker:
            return image
        outdated = outdated or image
    if outdated is None:
        raise Refused(
            "image.not-built",
            f"There is no image {name or f'for the stack {spec.stack}'} on this engine.",
            "It is built once for each stack and lock.",
            "gpu-setup image build",
        )
    raise Refused(
        "image.old-worker",
        f"The image {outdated.name} has the training code of another gpu-setup version, or was not made by gpu-setup.",
        "It would record and measure differently.",
        "gpu-setup image build with the same options as before (seconds: only the last layer is new)",
    )


def _by_labels(spec: ImageSpec, client: APIClient) -> tuple[str, ...]:
    labels = (("stack", spec.stack), ("lock", spec.lock_digest), ("requirement", spec.torch_requirement))
    with engine_errors("The engine cannot list its images"):
        found = client.images(quiet=True, filters={"label": [f"gpu-setup.{key}={value}" for key, value in labels]})
    return tuple(dict.fromkeys(found))


def make_container(
    image: FoundImage,
    host: Host,
    catalogue: Catalogue,
    machine: Machine,
    client: APIClient,
    paths: Paths,
    wanted: ContainerOptions,
) -> Container:
    """How this image's containers start on this machine. Orphaned containers are removed first."""
    spec, engine, session = image.spec, image.engine, machine.session()
    environ = session.environ
    private = make(paths.state)
    remove_orphans(client, private)
    host = host_for_engine(host, engine)
    vendor = ImageVendor(spec.vendor)
    slots = tuple(card.slot for card in cards.training(host, catalogue, PCI_VENDORS.get(vendor)))
    way = device_access(host, vendor, vendor is ImageVendor.AMD and has_amd_cdi(machine, engine.cdi))
    user = container_user(session, engine)
    paths = container_paths(paths, container_owner(user, engine))
    jit = make(make(paths.cache / "jit", paths.owner) / spec.stack, paths.owner)
    env = {name: str(make(jit / folder, paths.owner)) for name, folder in JIT_FOLDERS.items()}
    env.update(
        {
            name: value
            for name, value in environ.items()
            if name.startswith(PASSED_PREFIXES) and not name.startswith("HSA_OVERRIDE_GFX_VERSION")
        }
    )
    kept = [Mount(jit, writable=True)]
    if wanted.network:
        hub = make(paths.cache / "hub", paths.owner)
        env["HF_HOME"] = str(hub)
        kept.append(Mount(hub, writable=True))
        if own := _persons_models(environ, paths.owner):
            env["HF_HUB_CACHE"] = str(own)
            kept.append(Mount(own, writable=True))
        # behind a proxy that decrypts TLS the image's certificates are not enough
        for name in _CERTIFICATES:
            file = Path(environ.get(name, ""))
            if file.is_absolute() and file.is_file():
                env[name] = str(file)
                kept.append(Mount(file))
    made = Container(
        engine=engine,
        image=image.name,
        user=user,
        devices=device_options(host, vendor, way, slots, wanted.gpus),
        mounts=tuple(dict.fromkeys((*wanted.mounts, *kept))),
        env=env,
        secrets=secret_variables(environ) if wanted.network else {},
        network=wanted.network,
        host_network=wanted.network and is_proxy_local(environ),
        writable_root=wanted.writable_root,
        private=private,
    )
    return made._replace(shm=_bytes(wanted.shm)) if wanted.shm else made


def _bytes(size: str) -> int:
    from docker.errors import DockerException
    from docker.utils import parse_bytes

    try:
        return int(parse_bytes(size))
    except DockerException as error:
        raise BadUsage(
            "image.shm-size", f"--shm-size: {size[:40]!r} is no size.", "", "Give a number with k, m or g, such as 16g."
        ) from error


def _persons_models(environ: Mapping[str, str], owner: Owner | None) -> Path | None:
    """The folder of models in the person's own HF_HOME, which also holds tokens: only where containers may write to it.

    `owner`: the container's user where it is another one.
    """
    named = environ.get("HF_HUB_CACHE") or (environ.get("HF_HOME") and f"{environ['HF_HOME']}/hub")
    if not named:
        return None
    folder = Path(named).expanduser().absolute()
    if owner is None:
        return make(folder)
    return folder if folder.is_dir() and folder.stat().st_uid == owner.uid else None
