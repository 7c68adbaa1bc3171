"""From the facts to a plan: a pure function of host, catalogue and target. Nothing here reads or changes a machine."""

from __future__ import annotations

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision import access, amd, compiler, cuda_toolkit, engine, nvidia, refusals
from provision.cards import Seen, left_out, supported
from provision.model import AptInstall, Part, Plan, Refusal, State, sealed, sha256
from provision.packages import repair
from provision.target import Target, Vendor

NOTHING = "No supported GPU: nothing to install."
SIZE_UNKNOWN = "Sizes and versions are known once apt has been asked; these facts do not hold them."
NO_DOWNLOAD = "No package is to be fetched."


def plan(host: Host, catalogue: Catalogue, target: Target) -> Plan:
    """What would bring this machine to the target, each step with its reason; or refusals, and then no steps.

    Same facts, same plan: the digest says so. Raises nothing for what a machine can hold.
    """
    windows = refusals.under_windows(host)
    if windows:
        return _refused(host, target, None, (windows,))
    if host.cards is None:
        return _refused(host, target, None, (refusals.cards_unknown(),))
    cards, notes = supported(host, catalogue), left_out(host, catalogue)
    if not cards:
        return _sealed(host, target, None, Part(notes=(NOTHING, *notes)))
    free = tuple(seen for seen in cards if not seen.reserved)
    if not free:
        return _refused(host, target, None, (refusals.reserved(cards),), notes)
    chosen = _choose(target, free)
    if isinstance(chosen, Refusal):
        return _refused(host, target, None, (chosen,), notes)
    vendor = chosen[0].vendor
    if left_alone := refusals.machine(host, catalogue):
        return _refused(host, target, vendor, left_alone, notes)
    return _sealed(host, target, vendor, _joined(host, catalogue, target, chosen, (*notes, *_aside(cards, chosen))))


def _choose(target: Target, cards: tuple[Seen, ...]) -> tuple[Seen, ...] | Refusal:
    """The cards of one vendor; never a silent choice between two."""
    by_vendor = {
        vendor: tuple(seen for seen in cards if seen.vendor is vendor) for vendor in (Vendor.NVIDIA, Vendor.AMD)
    }
    present = [vendor for vendor, seen in by_vendor.items() if seen]
    if target.vendor is not Vendor.AUTO:
        return by_vendor[target.vendor] or refusals.vendor_absent(target, present[0])
    if len(present) > 1:
        return refusals.two_vendors(by_vendor[Vendor.NVIDIA], by_vendor[Vendor.AMD])
    return by_vendor[present[0]]


def _aside(cards: tuple[Seen, ...], chosen: tuple[Seen, ...]) -> tuple[str, ...]:
    return tuple(
        f"{seen} is reserved for a virtual machine (vfio-pci): it is left alone."
        if seen.reserved
        else f"{seen} is left as it is: this plan is for {chosen[0].vendor.value.upper()}."
        for seen in cards
        if seen not in chosen
    )


def _joined(host: Host, catalogue: Catalogue, target: Target, cards: tuple[Seen, ...], notes: tuple[str, ...]) -> Part:
    """Driver, access, containers, toolkit; the restart after all of them, so that there is one."""
    vendor = cards[0].vendor
    driver = (nvidia if vendor is Vendor.NVIDIA else amd).plan(host, catalogue, target, cards)
    if driver.refusals:
        return Part(refusals=driver.refusals, notes=notes)
    parts = [
        driver,
        access.plan(host, target, vendor),
        engine.plan(host, catalogue, target, vendor),
        compiler.plan(host, catalogue),
    ]
    if vendor is Vendor.NVIDIA:
        parts.append(cuda_toolkit.plan(host, catalogue, target, driver.source))
    steps = [step for part in parts for step in part.steps]
    steps += [part.restart for part in parts if part.restart][:1]
    firsts = {step.id: step for step in reversed(steps)}
    ordered = tuple(dict.fromkeys(firsts[step.id] for step in steps))
    return Part(steps=ordered, notes=(*notes, *_conditions(host), *(note for part in parts for note in part.notes)))


def _conditions(host: Host) -> tuple[str, ...]:
    """What stands in the way or is worth knowing before anything is applied."""
    notes = []
    if blocked := repair(host):
        notes.append(f"Nothing can be installed until this is mended: {blocked}.")
    if host.apt.reboot_required and host.kernel.release != host.kernel.next_boot:
        notes.append(
            f"A restart is already due: {host.kernel.release} runs, {host.kernel.next_boot or 'another'} comes "
            "next. Restart before applying, so that the plan is for the kernel that then runs."
        )
    if host.apt.lock_holder:
        notes.append(f"apt is in use by {host.apt.lock_holder}: apply waits until it has finished.")
    if host.os.virtualisation not in (None, "none"):
        notes.append(
            f"This is a virtual machine ({host.os.virtualisation}): the plan holds for a card that is passed through "
            "whole. Whether it is a slice of one (vGPU) cannot be told without a driver."
        )
    return tuple(notes)


def _refused(
    host: Host, target: Target, vendor: Vendor | None, why: tuple[Refusal, ...], notes: tuple[str, ...] = ()
) -> Plan:
    return _sealed(host, target, vendor, Part(refusals=why, notes=notes))


def _sealed(host: Host, target: Target, vendor: Vendor | None, part: Part) -> Plan:
    fetches = any(isinstance(step.action, AptInstall) and step.state is not State.DONE for step in part.steps)
    return sealed(
        Plan(
            machine=host.machine,
            vendor=vendor.value if vendor else None,
            target=target,
            steps=part.steps,
            reboots=sum(step.id == "reboot" and step.state is not State.DONE for step in part.steps),
            download_bytes=None if fetches else 0,
            download_note=SIZE_UNKNOWN if fetches else NO_DOWNLOAD,
            refusals=part.refusals,
            notes=part.notes,
            host_digest=host_digest(host),
        )
    )


def host_digest(host: Host) -> str:
    """Digest of the facts that a plan depends on; temperatures, logs and free memory are not among them."""
    facts: dict[str, object] = {
        "os": host.os,
        "kernel": {
            name: getattr(host.kernel, name)
            for name in ("release", "cmdline", "loaded", "installed", "next_boot", "modules", "blacklisted")
        },
        "firmware": host.firmware,
        "cards": None
        if host.cards is None
        else [
            (card.slot, card.vendor, card.device, card.revision, card.driver, bool(card.connectors_connected))
            for card in host.cards
        ],
        "nvidia": {
            name: getattr(host.nvidia, name)
            for name in ("module_version", "open_module", "nvml_problem", "runfile", "container_toolkit", "cdi_specs")
        },
        "nvml": [(gpu.slot, gpu.name, gpu.persistence) for gpu in host.nvidia.nvml or ()],
        "amd": (host.amd.loaded, host.amd.module_version, host.amd.rocm, host.amd.kfd, host.amd.render),
        "apt": (host.apt.packages, host.apt.sources, host.apt.pins, host.apt.interrupted, host.apt.broken),
        "docker": msgspec.structs.replace(host.docker, problem=None),
        "person": (host.person.uid, host.person.user, host.person.groups, host.person.database_groups),
    }
    return sha256(facts)
