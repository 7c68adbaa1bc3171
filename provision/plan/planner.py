"""From the facts to a plan: a pure function of host, catalogue and target. Nothing here reads or changes a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.facts.kernel import module_name
from checks.rules.cards import row_of
from provision.model import AptInstall, Plan, PlanPart, Refusal, State, seal, sha256
from provision.plan import container_engine, cuda_toolkit, device_groups, refusals, repositories, training_needs
from provision.plan.driver import amd, nvidia
from provision.plan.driver.module_loading import switched_off_steps
from provision.plan.package_steps import with_repair
from provision.plan.plan_cards import VENDOR_IDS, PlannedCard, supported_cards, unplanned_cards
from provision.target import PlanTarget, PlanVendor

NOTHING = "No supported GPU: nothing to install."
NOTHING_YET = "No GPU that gpu-setup knows yet: nothing to install."
SIZE_UNKNOWN = "Sizes and versions are not known: these facts do not include apt's answers."
NO_DOWNLOAD = "No package to download."
_VENDOR_NAMES: Mapping[PlanVendor, Literal["nvidia", "amd"]] = {PlanVendor.NVIDIA: "nvidia", PlanVendor.AMD: "amd"}


def make_plan(host: Host, catalogue: Catalogue, target: PlanTarget, without: tuple[int, ...] = ()) -> Plan:
    """The steps that bring this machine to the target, each with its reason; or refusals, and then no steps.

    `without`: NVIDIA branches that apt has no packages for (see resolver.py). The same facts give the same plan, with
    the same digest. Raises nothing, whatever the machine is.
    """
    windows = refusals.under_windows(host)
    if windows and host.wsl is not None and host.nvidia.nvml and not refusals.machine(host, catalogue):
        return _new_plan(host, target, None, _plan_in_wsl(host, catalogue, target))
    if windows:
        return _refusal_plan(host, target, None, (windows,))
    if host.cards is None:
        return _refusal_plan(host, target, None, (refusals.cards_unknown(),))
    cards, notes = supported_cards(host, catalogue), unplanned_cards(host, catalogue)
    if not cards:
        known = all(row is None or not row.unknown for row in (row_of(pci, catalogue) for pci in host.cards))
        # a laptop's program may have removed the card from the bus
        off = switched_off_steps(host, nvidia.MODULE) if not _has_nvidia(host) else ()
        about = () if off else (NOTHING if known else NOTHING_YET,)
        return _new_plan(host, target, None, PlanPart(steps=off, notes=(*about, *notes)))
    free = tuple(seen for seen in cards if not seen.is_reserved)
    if not free:
        return _refusal_plan(host, target, None, (refusals.reserved_cards(cards),), notes)
    chosen = _choose(target, free)
    if isinstance(chosen, Refusal):
        return _refusal_plan(host, target, None, (chosen,), notes)
    vendor = chosen[0].vendor
    if refused := refusals.machine(host, catalogue):
        return _refusal_plan(host, target, vendor, refused, notes)
    part = _plan_cards(host, catalogue, target, chosen, (*notes, *_other_cards(cards, chosen)), without)
    return seal(msgspec.structs.replace(_new_plan(host, target, vendor, part), without=without))


def _plan_in_wsl(host: Host, catalogue: Catalogue, target: PlanTarget) -> PlanPart:
    """A card that works through Windows' driver: only what training needs besides it, and an engine that is here."""
    names = ", ".join(gpu.name or "NVIDIA GPU" for gpu in host.nvidia.nvml or ())
    driver = host.nvidia.nvml_driver
    note = f"This is WSL: {names} works through the driver in Windows ({driver}); no driver is installed here."
    parts = [training_needs.plan(host, catalogue)]
    if host.docker.kind not in (None, "desktop"):
        parts.insert(0, container_engine.plan(host, catalogue, target, PlanVendor.NVIDIA))
    return PlanPart(
        steps=tuple(step for part in parts for step in part.steps),
        notes=(note, *(words for part in parts for words in part.notes)),
    )


def _has_nvidia(host: Host) -> bool:
    return any(VENDOR_IDS.get(pci.vendor) is PlanVendor.NVIDIA for pci in host.cards or ())


def _choose(target: PlanTarget, cards: tuple[PlannedCard, ...]) -> tuple[PlannedCard, ...] | Refusal:
    """The cards of one vendor; never a silent choice between two vendors."""
    by_vendor = {
        vendor: tuple(seen for seen in cards if seen.vendor is vendor) for vendor in (PlanVendor.NVIDIA, PlanVendor.AMD)
    }
    present = [vendor for vendor, seen in by_vendor.items() if seen]
    if target.vendor is not PlanVendor.AUTO:
        return by_vendor[target.vendor] or refusals.vendor_absent(target, present[0])
    if len(present) > 1:
        return refusals.two_vendors(by_vendor[PlanVendor.NVIDIA], by_vendor[PlanVendor.AMD])
    return by_vendor[present[0]]


def _other_cards(cards: tuple[PlannedCard, ...], chosen: tuple[PlannedCard, ...]) -> tuple[str, ...]:
    return tuple(
        f"{seen} is reserved for a virtual machine (vfio-pci): it is not changed."
        if seen.is_reserved
        else f"{seen} is not changed: this plan is for {chosen[0].vendor.value.upper()}."
        for seen in cards
        if seen not in chosen
    )


def _plan_cards(
    host: Host,
    catalogue: Catalogue,
    target: PlanTarget,
    cards: tuple[PlannedCard, ...],
    notes: tuple[str, ...],
    without: tuple[int, ...],
) -> PlanPart:
    """Driver, access, containers, toolkit; one reboot, after all of them."""
    vendor = cards[0].vendor
    if vendor is PlanVendor.NVIDIA:
        driver = nvidia.plan(host, catalogue, target, cards, without)
    else:
        driver = amd.plan(host, catalogue, target, cards)
    if driver.refusals:
        return PlanPart(refusals=driver.refusals, notes=notes)
    parts = [
        PlanPart(steps=repositories.missing_key_steps(host, catalogue)),
        driver,
        device_groups.plan(host, target, vendor),
        container_engine.plan(host, catalogue, target, vendor),
        training_needs.plan(host, catalogue),
    ]
    if vendor is PlanVendor.NVIDIA:
        parts.append(cuda_toolkit.plan(host, catalogue, target, driver.source))
    steps = with_repair(host, tuple(step for part in parts for step in part.steps))
    steps += tuple(part.restart for part in parts if part.restart)[:1]
    firsts = {step.id: step for step in reversed(steps)}
    ordered = tuple(dict.fromkeys(firsts[step.id] for step in steps))
    return PlanPart(steps=ordered, notes=(*notes, *_conditions(host), *(note for part in parts for note in part.notes)))


def _conditions(host: Host) -> tuple[str, ...]:
    """What a person should know before applying the plan."""
    notes = []
    if host.apt.reboot_required and host.kernel.release != host.kernel.next_boot:
        notes.append(
            f"A reboot is already pending: {host.kernel.release} is running, {host.kernel.next_boot or 'another'} "
            "boots next. Reboot before applying, so that the plan is for the kernel that runs then."
        )
    if host.apt.lock_holder:
        notes.append(f"apt is in use by {host.apt.lock_holder}: apply waits until it has finished.")
    if host.os.virtualisation not in (None, "none"):
        notes.append(
            f"This is a virtual machine ({host.os.virtualisation}): the plan is for a GPU that is passed through "
            "whole. Whether it is a vGPU (a slice of a GPU) is not known until a driver is installed."
        )
    return tuple(notes)


def _refusal_plan(
    host: Host, target: PlanTarget, vendor: PlanVendor | None, why: tuple[Refusal, ...], notes: tuple[str, ...] = ()
) -> Plan:
    return _new_plan(host, target, vendor, PlanPart(refusals=why, notes=notes))


def _new_plan(host: Host, target: PlanTarget, vendor: PlanVendor | None, part: PlanPart) -> Plan:
    fetches = any(isinstance(step.action, AptInstall) and step.state is not State.DONE for step in part.steps)
    return seal(
        Plan(
            machine=host.machine,
            vendor=_VENDOR_NAMES[vendor] if vendor else None,
            target=target,
            steps=part.steps,
            reboots=sum(step.id == "reboot" and step.state is not State.DONE for step in part.steps),
            download_bytes=None if fetches else 0,
            download_note=SIZE_UNKNOWN if fetches else NO_DOWNLOAD,
            refusals=part.refusals,
            notes=part.notes,
            host_digest=host_digest(host),
            facts=host_facts(host),
        )
    )


def host_digest(host: Host) -> str:
    """Digest of the facts that a plan depends on, which exclude temperatures, logs and free memory."""
    return sha256(host_facts(host))


def host_facts(host: Host) -> dict[str, str]:
    """The facts that a plan depends on, by name, so that a change can be named. Mostly the same for root and users."""
    kernel, nvidia, amd, docker, person = host.kernel, host.nvidia, host.amd, host.docker, host.person
    found: dict[str, object] = {
        "system": (host.os.id, host.os.version_id, host.os.arch, host.os.virtualisation, host.os.graphical),
        "kernel": kernel.release,
        "kernel command line": kernel.cmdline,
        "kernels": kernel.installed,
        "next kernel": kernel.next_boot,
        "loaded modules": [name for name in kernel.loaded or () if module_name(f"{name}.ko")],
        "module files": [(file.name, file.kernel, file.origin) for file in kernel.modules or ()],
        "blacklist": kernel.blacklisted,
        "boot loader's parameters": kernel.boot_parameters,
        "firmware": (host.firmware.uefi, host.firmware.secure_boot, host.firmware.mok_key_enrolled),
        "NVIDIA driver": (nvidia.module_version, nvidia.open_module, nvidia.nvml_problem, nvidia.runfile),
        "NVIDIA cards' settings": [(gpu.slot, gpu.name, gpu.persistence) for gpu in nvidia.nvml or ()],
        "container toolkit": (nvidia.container_toolkit, nvidia.cdi_specs, nvidia.cdi_schemas),
        "amdgpu": (amd.loaded, amd.module_version),
        "ROCm": [(install.path, install.version) for install in amd.rocm or ()],
        "apt sources": [(source.file, source.uri, source.suite) for source in host.apt.sources or ()],
        "apt's missing keys": host.apt.missing_keys,
        "apt pins": [(pin.file, pin.packages, pin.pin, pin.priority) for pin in host.apt.pins or ()],
        "dpkg": (host.apt.interrupted, host.apt.broken),
        "docker": (docker.kind, docker.version, docker.runtimes, docker.cdi_dirs, docker.rootless, docker.installed),
        "docker's settings": docker.daemon_json_valid,
        "person": (person.user, person.database_groups),
    }
    found |= {
        f"card {card.slot}": (card.vendor, card.device, card.revision, card.driver, bool(card.connectors_connected))
        for card in host.cards or ()
    }
    found |= {
        f"package {package.name}": (package.version, package.state, package.held) for package in host.apt.packages or ()
    }
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def changed_facts(made: Plan, fresh: Plan) -> tuple[str, ...]:
    """The facts of the plan that have changed since; empty when the machine is the same."""
    before, after = made.facts, fresh.facts
    names = sorted(before.keys() | after.keys())
    return tuple(
        f"{name}: {before.get(name) or 'nothing'} before, {after.get(name) or 'nothing'} now"
        for name in names
        if before.get(name) != after.get(name)
    )
