"""Which image fits this machine. A pure decision: Host + Catalogue → ImageSpec, or Refused with the way out.

cards ─▶ their targets ─▶ stacks with kernels for them ─▶ those whose driver or kernel floor is met ─▶ the preferred one
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import NamedTuple

from checks.catalogue import Base, Catalogue, Stack
from checks.facts.host import Host
from checks.rules import cards
from checks.rules.cards import AMD, NVIDIA, numbers
from containers.device_options import access
from containers.model import ImageSpec, Vendor
from machine.errors import BadUsage, Refused

VENDORS = {NVIDIA: Vendor.NVIDIA, AMD: Vendor.AMD}
# what Docker takes as an image's name; anything else would be more than a name in a FROM line
REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?")
ON_THE_PROCESSOR = "For an image that trains on the processor: gpu-setup image render --vendor cpu"


class Seen(NamedTuple):
    """A card that the image is for."""

    name: str
    vendor: Vendor
    target: str


def image_spec(
    host: Host,
    catalogue: Catalogue,
    vendor: Vendor = Vendor.AUTO,
    base: str | None = None,
    python: str | None = None,
) -> ImageSpec:
    """The image for this machine. Raises Refused where no stack fits, BadUsage for a base that cannot be used."""
    seen = () if vendor is Vendor.CPU else _cards(host, catalogue, vendor)
    if seen:
        stack, because, notes = _stack_for(seen, host, catalogue)
    else:
        stack = next(row for row in catalogue.stacks if row.vendor == "cpu")
        because = "asked for" if vendor is Vendor.CPU else "no NVIDIA or AMD card that can train"
        notes = (stack.note,) if stack.note else ()
    foundation = _base(stack, catalogue, base, python)
    if stack.verified == "unverified":
        notes = (*notes, f"unverified: nobody has built and run the stack {stack.name} for this project yet")
    if stack.torch_brings:
        notes = (*notes, "torch's own libraries come from its index and are not checked by hash (unverified)")
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
        access=access(host, Vendor(stack.vendor)),
        notes=notes,
    )


def lock_text(name: str) -> bytes:
    return (resources.files("checks") / "data" / "locks" / name).read_bytes()


def _cards(host: Host, catalogue: Catalogue, vendor: Vendor) -> tuple[Seen, ...]:
    """The cards that the image is for; none where the machine has no card that is meant for training."""
    if host.cards is None:
        raise Refused(
            "image.cards-unknown",
            "The PCI devices could not be read, so it is not known whether there is a card.",
            "An image is not chosen on a guess.",
            f"gpu-setup facts shows what could not be read. {ON_THE_PROCESSOR}",
        )
    found = _training(host, catalogue)
    vendors = sorted({card.vendor for card in found})
    if vendor is Vendor.AUTO and len(vendors) > 1:
        names = {each: ", ".join(card.name for card in found if card.vendor is each) for each in vendors}
        raise Refused(
            "image.two-vendors",
            f"There are cards of both vendors: {' and '.join(names[each] for each in vendors)}.",
            "An image is for one vendor, and which one is meant is not guessed.",
            "Say which: gpu-setup image render --vendor nvidia, or --vendor amd",
        )
    if vendor is not Vendor.AUTO:
        found = tuple(card for card in found if card.vendor is vendor)
    if not found:
        _refuse_what_is_there(host, catalogue, vendor)
    return found


def _training(host: Host, catalogue: Catalogue) -> tuple[Seen, ...]:
    found = []
    for card in cards.training(host, catalogue):
        row, gpu = cards.known(card, catalogue), cards.nvml_of(card, host)
        # a card that the catalogue does not know may still tell what it computes with
        target = row.target if row else gpu.compute_capability if gpu else None
        name = row.name if row else (gpu.name if gpu and gpu.name else cards.name(card, catalogue))
        if target is None:
            raise Refused(
                "image.unknown-card",
                f"{name} at {card.slot} is not known, and what it computes with could not be asked.",
                "Which stack has kernels for it is not guessed.",
                f"Install its driver first, or add it to the catalogue (docs/adding.md). {ON_THE_PROCESSOR}",
            )
        found.append(Seen(name, VENDORS[card.vendor], target))
    if not found:
        # under Windows (WSL) the card is not on the bus, but NVML answers
        found = [
            Seen(gpu.name or "NVIDIA GPU", Vendor.NVIDIA, gpu.compute_capability)
            for gpu in host.nvidia.nvml or ()
            if gpu.compute_capability and host.os.virtualisation == "wsl"
        ]
    return tuple(found)


def _refuse_what_is_there(host: Host, catalogue: Catalogue, vendor: Vendor) -> None:
    """Refuse where a card is there that no image can be for, or where the asked vendor has none."""
    for card in host.cards or ():
        row = cards.known(card, catalogue)
        if card.vendor not in VENDORS or vendor not in (Vendor.AUTO, VENDORS[card.vendor]):
            continue
        if card.driver in cards.RESERVED:
            raise Refused(
                "image.reserved",
                f"{cards.subject(card, catalogue)} is reserved for a virtual machine ({card.driver}).",
                "A container on this machine cannot use it.",
                f"Take the {card.driver} binding back, then ask again. {ON_THE_PROCESSOR}",
            )
        if row is not None and not row.supported and not row.integrated:
            raise Refused(
                "image.no-stack",
                f"No training stack has kernels for {row.name} ({row.target}).",
                f"{row.note or 'torch or bitsandbytes dropped it'}.",
                ON_THE_PROCESSOR,
            )
    if vendor is not Vendor.AUTO:
        raise Refused(
            "image.vendor-absent",
            f"There is no {vendor.value.upper()} card in this machine that can train.",
            "An image is made for the cards that are there.",
            f"Leave --vendor out. {ON_THE_PROCESSOR}",
        )


def _stack_for(seen: tuple[Seen, ...], host: Host, catalogue: Catalogue) -> tuple[Stack, str, tuple[str, ...]]:
    """The preferred stack that the driver lets run, why, and what is to be known about it."""
    vendor, names = seen[0].vendor, _listed(seen)
    rows = [row for row in catalogue.stacks if row.vendor == vendor and row.lock]
    covering = [row for row in rows if all(card.target in row.targets for card in seen)]
    notes: list[str] = []
    if not covering:
        most = max(rows, key=lambda row: sum(card.target in row.targets for card in seen))
        left = [card for card in seen if card.target not in most.targets]
        if len(left) == len(seen):
            raise Refused(
                "image.no-stack",
                f"No training stack has kernels for {names}.",
                "torch and bitsandbytes carry none for it.",
                ON_THE_PROCESSOR,
            )
        covering = [most]
        notes.append(f"not for every card: {most.name} has no kernels for {_listed(tuple(left))}")
    fits = _fits_driver if vendor is Vendor.NVIDIA else _fits_kernel
    kept = [(row, fits(row, seen, host)) for row in covering]
    stack, floor = next(((row, floor) for row, floor in kept if floor.met), (None, kept[0][1]))
    if stack is None:
        lowest = min((floor for _, floor in kept), key=lambda floor: numbers(floor.wanted))
        raise Refused(lowest.code, lowest.what(names), lowest.why, lowest.next)
    if stack is not covering[0]:
        better = kept[0][1]
        notes.append(f"{covering[0].name} would be preferred, but {better.wanted} is needed for it: {better.next}")
    covered = sorted({card.target for card in seen if card.target in stack.targets})
    return stack.for_target(*covered), f"{names}; {floor.said}", tuple(notes)


class Floor(NamedTuple):
    """What a stack asks of the system under it: is it there, and what to do if not. `wanted` is a version."""

    met: bool
    wanted: str
    said: str
    code: str = ""
    why: str = ""
    next: str = ""
    here: str = ""

    def what(self, names: str) -> str:
        return f"{self.here} is too old for any image for {names}: it needs {self.wanted} or newer."


def _fits_driver(stack: Stack, seen: tuple[Seen, ...], host: Host) -> Floor:
    wanted = stack.driver_floor or "0"
    driver = host.nvidia.module_version or host.nvidia.nvml_driver
    step = f"gpu-setup plan --branch {stack.driver_branch} shows the upgrade to driver {wanted} or newer"
    if driver is None:
        return Floor(True, wanted, f"no driver is loaded yet, and it must be {wanted} or newer (gpu-setup plan)")
    return Floor(
        numbers(driver) >= numbers(wanted),
        wanted,
        f"driver {driver} is not below {wanted}",
        "image.driver-too-old",
        f"{stack.runtime.upper()} runs on driver {wanted} or newer only, and nothing in an image changes the driver.",
        step,
        f"The NVIDIA driver {driver}",
    )


def _fits_kernel(stack: Stack, seen: tuple[Seen, ...], host: Host) -> Floor:
    floors = [stack.kernel_floors.get(card.target, stack.kernel_floor or "0") for card in seen]
    wanted = max(floors, key=numbers)
    release = host.kernel.release
    if host.amd.module_version is not None:
        return Floor(True, wanted, f"amdgpu {host.amd.module_version} by DKMS")
    if release is None:
        return Floor(True, wanted, f"the kernel could not be read; it must be {wanted} or newer")
    return Floor(
        numbers(release) >= numbers(wanted),
        wanted,
        f"kernel {release} is not below {wanted}",
        "image.kernel-too-old",
        f"The amdgpu of an older kernel does not drive {_listed(seen)}.",
        "gpu-setup plan shows the upgrade of the kernel",
        f"Kernel {release}",
    )


def _base(stack: Stack, catalogue: Catalogue, image: str | None, python: str | None) -> Base:
    """The row for the base that was named, or one like it; its Python must have a lock."""
    own = catalogue.base(stack.base)
    assert own is not None
    row = own
    if image is not None:
        if not REFERENCE.fullmatch(image):
            raise BadUsage(
                "image.base",
                f"{image[:100]!r} is no name of an image.",
                "A name is like ubuntu:24.04 or registry.example/team/base:1, with @sha256:… behind it or not.",
                "Give --base such a name.",
            )
        known = catalogue.base(image)
        if known is None and python is None:
            raise BadUsage(
                "image.base-python",
                f"Which Python the base {image} has is not known.",
                f"Known are {', '.join(base.image for base in catalogue.bases)}.",
                f"Say it with --python, one of {', '.join(stack.pythons)}.",
            )
        row = known or Base(
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
            f"The stack {stack.name} cannot stand on {row.image} with Python {wanted}.",
            f"{row.image} has Python {row.python}, and the lock is for {', '.join(stack.pythons)}.",
            "Choose another --base, or leave --python out.",
        )
    return row


def _listed(seen: tuple[Seen, ...]) -> str:
    counted = dict.fromkeys(f"{card.name} ({card.target})" for card in seen)
    return ", ".join(counted)
