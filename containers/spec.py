"""Which image fits this machine. A pure decision: Host + Catalogue → ImageSpec, or Refused with what to do next.

GPUs ─▶ their targets ─▶ stacks with kernels for them ─▶ those whose minimum driver or kernel is met ─▶ the best one
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import NamedTuple

from checks.catalogue import BaseImage, Catalogue, Stack
from checks.facts.host import Host
from checks.rules import cards
from checks.rules.cards import AMD, NVIDIA, numbers
from containers.device_options import device_access
from containers.model import ImageSpec, ImageVendor
from machine.errors import BadUsage, Refused

VENDORS = {NVIDIA: ImageVendor.NVIDIA, AMD: ImageVendor.AMD}
# what Docker accepts as an image's name; anything else would be more than a name in a FROM line
REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?")
CPU_IMAGE = "For an image that trains on the CPU: gpu-setup image render --vendor cpu"


class ImageCard(NamedTuple):
    """A GPU that the image is for."""

    name: str
    vendor: ImageVendor
    target: str


def image_spec(
    host: Host,
    catalogue: Catalogue,
    vendor: ImageVendor = ImageVendor.AUTO,
    base: str | None = None,
    python: str | None = None,
) -> ImageSpec:
    """The image for this machine. Raises Refused where no stack fits, BadUsage for a base that cannot be used."""
    seen = () if vendor is ImageVendor.CPU else _cards(host, catalogue, vendor)
    if seen:
        stack, because, notes = _stack_for(seen, host, catalogue)
    else:
        stack = next(row for row in catalogue.stacks if row.vendor == "cpu")
        because = "requested" if vendor is ImageVendor.CPU else "no NVIDIA or AMD GPU that can train"
        notes = (stack.note,) if stack.note else ()
    foundation = _base(stack, catalogue, base, python)
    if stack.verified == "unverified":
        notes = (*notes, f"unverified: the stack {stack.name} has not been built and run for this project yet")
    locks = tuple(lock for lock in stack.torch_builds.values() if lock)
    if not locks:
        brought = " and the libraries that it brings" if stack.torch_brings else ""
        notes = (*notes, f"torch{brought} cannot be checked: no sha256 is known (unverified)")
    if foundation.image == stack.base and foundation.note:
        notes = (*notes, f"base: {foundation.note}")
    assert stack.lock is not None
    runtime, _, number = stack.runtime.partition(" ")
    return ImageSpec(
        stack=stack.name,
        vendor=stack.vendor,
        runtime=stack.runtime,
        base=base if base and "@" in base else foundation.reference,
        base_known=catalogue.base(foundation.image) is not None,
        python=foundation.python,
        packages=foundation.packages,
        build_packages=foundation.build_packages,
        torch=stack.torch,
        torch_requirement=stack.torch_requirement,
        torch_index=stack.torch_index,
        torch_locks=locks,
        torch_brings=stack.torch_brings,
        cuda=number if runtime == "cuda" else None,
        hip=stack.hip if runtime == "rocm" else None,
        axolotl=stack.axolotl,
        bitsandbytes=stack.bitsandbytes,
        lock=stack.lock,
        lock_digest=hashlib.sha256(lock_text(stack.lock)).hexdigest(),
        verified=stack.verified,
        because=because,
        targets=tuple(sorted({card.target for card in seen})),
        cards=tuple(dict.fromkeys(card.name for card in seen)),
        access=device_access(host, ImageVendor(stack.vendor)),
        notes=notes,
    )


def lock_text(name: str) -> bytes:
    return (resources.files("checks") / "data" / "locks" / name).read_bytes()


def _cards(host: Host, catalogue: Catalogue, vendor: ImageVendor) -> tuple[ImageCard, ...]:
    """The GPUs that the image is for; none if the machine has no GPU for training."""
    if host.cards is None:
        raise Refused(
            "image.cards-unknown",
            "The PCI devices could not be read, so it is not known whether there is a GPU.",
            "gpu-setup does not guess which image is right.",
            f"gpu-setup facts shows what could not be read. {CPU_IMAGE}",
        )
    found = _training_cards(host, catalogue)
    vendors = sorted({card.vendor for card in found})
    if vendor is ImageVendor.AUTO and len(vendors) > 1:
        names = {each: ", ".join(card.name for card in found if card.vendor is each) for each in vendors}
        raise Refused(
            "image.two-vendors",
            f"There are GPUs of both vendors: {' and '.join(names[each] for each in vendors)}.",
            "An image is for one vendor, and gpu-setup does not guess which one you mean.",
            "Choose one: gpu-setup image render --vendor nvidia, or --vendor amd",
        )
    if vendor is not ImageVendor.AUTO:
        found = tuple(card for card in found if card.vendor is vendor)
    if not found:
        _refuse_unusable_cards(host, catalogue, vendor)
    return found


def _training_cards(host: Host, catalogue: Catalogue) -> tuple[ImageCard, ...]:
    found = []
    for card in cards.training(host, catalogue):
        row = cards.row_of(card, catalogue)
        if row is None or row.unknown:
            raise Refused(
                "image.unknown-card",
                f"{cards.subject(card, catalogue)} is newer than gpu-setup's data, and no driver reports its compute "
                "capability.",
                "gpu-setup does not guess which stack has kernels for it.",
                f"Install its driver first: gpu-setup plan shows how. {CPU_IMAGE}",
            )
        found.append(ImageCard(row.name, VENDORS[card.vendor], row.target))
    return tuple(found)


def _refuse_unusable_cards(host: Host, catalogue: Catalogue, vendor: ImageVendor) -> None:
    """Refuse if the machine has a GPU that no image supports, or none of the requested vendor."""
    for card in host.cards or ():
        row = cards.row_of(card, catalogue)
        if card.vendor not in VENDORS or vendor not in (ImageVendor.AUTO, VENDORS[card.vendor]):
            continue
        if card.driver in cards.RESERVED:
            raise Refused(
                "image.reserved",
                f"{cards.subject(card, catalogue)} is reserved for a virtual machine ({card.driver}).",
                "A container on this machine cannot use it.",
                f"Remove the {card.driver} binding, then run the command again. {CPU_IMAGE}",
            )
        if row is not None and row.unknown:
            raise Refused(
                "image.unknown-card",
                f"{row.name} is newer than gpu-setup's data, and amdgpu does not report what it is.",
                "gpu-setup does not guess which stack has kernels for it.",
                f"Install a kernel whose amdgpu supports it, then run the command again. {CPU_IMAGE}",
            )
        if row is not None and not row.supported and not row.integrated:
            raise Refused(
                "image.no-stack",
                f"No training stack has kernels for {row.name} ({row.target or row.generation}).",
                f"{row.note or 'torch or bitsandbytes have none for it'}.",
                CPU_IMAGE,
            )
    if vendor is not ImageVendor.AUTO:
        raise Refused(
            "image.vendor-absent",
            f"This machine has no {vendor.value.upper()} GPU that can train.",
            "An image is made for the GPUs of the machine.",
            f"Run the command without --vendor. {CPU_IMAGE}",
        )


def _stack_for(seen: tuple[ImageCard, ...], host: Host, catalogue: Catalogue) -> tuple[Stack, str, tuple[str, ...]]:
    """The preferred stack that the driver supports, why, and notes about it."""
    vendor, names = seen[0].vendor, _card_names(seen)
    rows = [row for row in catalogue.stacks if row.vendor == vendor and row.lock]
    covering = [row for row in rows if all(row.runs(card.target) for card in seen)]
    notes: list[str] = []
    if not covering:
        most = max(rows, key=lambda row: sum(row.runs(card.target) for card in seen))
        uncovered = [card for card in seen if not most.runs(card.target)]
        if len(uncovered) == len(seen):
            raise Refused(
                "image.no-stack",
                f"No training stack has kernels for {names}.",
                "torch and bitsandbytes have none for it.",
                CPU_IMAGE,
            )
        covering = [most]
        notes.append(f"not for every GPU: {most.name} has no kernels for {_card_names(tuple(uncovered))}")
    fits = _fits_driver if vendor is ImageVendor.NVIDIA else _fits_kernel
    kept = [(row, fits(row, seen, host)) for row in covering]
    stack, floor = next(((row, floor) for row, floor in kept if floor.met), (None, kept[0][1]))
    if stack is None:
        lowest = min((floor for _, floor in kept), key=lambda floor: numbers(floor.wanted))
        raise Refused(lowest.code, lowest.what(names), lowest.why, lowest.next)
    if stack is not covering[0]:
        better = kept[0][1]
        notes.append(f"{covering[0].name} is preferred, but needs {better.wanted}: {better.next}")
    covered = sorted({card.target for card in seen if stack.runs(card.target)})
    return stack.for_target(*covered), f"{names}; {floor.said}", tuple(notes)


class Requirement(NamedTuple):
    """What a stack needs from the system: whether it is met, and what to do if not. `wanted` is a version."""

    met: bool
    wanted: str
    said: str
    code: str = ""
    why: str = ""
    next: str = ""
    here: str = ""

    def what(self, names: str) -> str:
        return f"{self.here} is too old for any image for {names}: it needs {self.wanted} or newer."


def _fits_driver(stack: Stack, seen: tuple[ImageCard, ...], host: Host) -> Requirement:
    wanted = stack.driver_floor or "0"
    driver = host.nvidia.module_version or host.nvidia.nvml_driver
    step = f"gpu-setup plan --branch {stack.driver_branch} shows the upgrade to driver {wanted} or newer"
    if driver is None:
        return Requirement(True, wanted, f"no driver is loaded yet; it must be {wanted} or newer (gpu-setup plan)")
    return Requirement(
        numbers(driver) >= numbers(wanted),
        wanted,
        f"driver {driver} meets the minimum {wanted}",
        "image.driver-too-old",
        f"{stack.runtime.upper()} needs driver {wanted} or newer, and an image cannot change the driver.",
        step,
        f"The NVIDIA driver {driver}",
    )


def _fits_kernel(stack: Stack, seen: tuple[ImageCard, ...], host: Host) -> Requirement:
    floors = [stack.kernel_floors.get(card.target, stack.kernel_floor or "0") for card in seen]
    wanted = max(floors, key=numbers)
    release = host.kernel.release
    if host.amd.module_version is not None:
        return Requirement(True, wanted, f"amdgpu {host.amd.module_version} by DKMS")
    if release is None:
        return Requirement(True, wanted, f"the kernel could not be read; it must be {wanted} or newer")
    return Requirement(
        numbers(release) >= numbers(wanted),
        wanted,
        f"kernel {release} meets the minimum {wanted}",
        "image.kernel-too-old",
        f"The amdgpu of an older kernel does not support {_card_names(seen)}.",
        "gpu-setup plan shows the upgrade of the kernel",
        f"Kernel {release}",
    )


def _base(stack: Stack, catalogue: Catalogue, image: str | None, python: str | None) -> BaseImage:
    """The catalogue's row for the named base image, or a new one; its Python must have a lock."""
    own = catalogue.base(stack.base)
    assert own is not None
    row = own
    if image is not None:
        if not REFERENCE.fullmatch(image):
            raise BadUsage(
                "image.base",
                f"{image[:100]!r} is not the name of an image.",
                "A name is like ubuntu:24.04 or registry.example/team/base:1, optionally with @sha256:… at its end.",
                "Correct --base.",
            )
        known = catalogue.base(image)
        if known is None and python is None:
            raise BadUsage(
                "image.base-python",
                f"The Python version of the base image {image} is not known.",
                f"Known base images: {', '.join(base.image for base in catalogue.bases)}.",
                f"Give it with --python, one of {', '.join(stack.pythons)}.",
            )
        row = known or BaseImage(
            image=image.partition("@")[0],
            python=python or "",
            packages=own.packages,
            build_packages=own.build_packages,
            source="named by --base",
            date="",
        )
    wanted = python or row.python
    if wanted not in stack.pythons or (python is not None and catalogue.base(row.image) and python != row.python):
        raise BadUsage(
            "image.python",
            f"The stack {stack.name} does not support {row.image} with Python {wanted}.",
            f"{row.image} has Python {row.python}, and the lock is for {', '.join(stack.pythons)}.",
            "Choose another --base, or omit --python.",
        )
    return row


def _card_names(seen: tuple[ImageCard, ...]) -> str:
    counted = dict.fromkeys(f"{card.name} ({card.target})" for card in seen)
    return ", ".join(counted)
