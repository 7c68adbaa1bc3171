"""NVIDIA's driver: keep one that works, else signed modules from Ubuntu's archive, or NVIDIA's own on request."""

from __future__ import annotations

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.model import PlanPart, Refusal, Service, State, Step, WriteFile
from provision.plan import repositories, unattended
from provision.plan.boot_guard import guard_step
from provision.plan.dkms import module_step
from provision.plan.driver_branch import BranchChoice, choose_branch, driver_floor
from provision.plan.driver_set import i386_packages, replaced_packages
from provision.plan.installed_driver import (
    ARCHIVE,
    DESKTOP,
    HEADLESS,
    VENDOR,
    InstalledDriver,
    installed_driver,
    replace_reason,
    unfinished_branch,
)
from provision.plan.kernels import kernel_without_module, kernels_to_cover
from provision.plan.package_steps import first_names, found, install_step, names, reboot_step, sentence
from provision.plan.plan_cards import PlannedCard, card_list
from provision.plan.secure_boot import enrol_step, no_key_needed
from provision.target import Display, DriverSource, Target

FREE_DRIVERS = ("nouveau", "nova_core", "nova_drm")
BUILT_HERE = ("nvidia.archive.dkms.open", "nvidia.archive.dkms.proprietary")
FORBIDDEN = (*BUILT_HERE, "dkms")
BLACKLIST = "/etc/modprobe.d/gpu-setup-nouveau.conf"
NO_FREE_DRIVERS = WriteFile(path=BLACKLIST, content="".join(f"blacklist {name}\n" for name in FREE_DRIVERS))
NO_KERNEL = "Neither the running nor the installed kernels could be read, so their packages cannot be named."


def plan(
    host: Host, catalogue: Catalogue, target: Target, cards: tuple[PlannedCard, ...], without: tuple[int, ...] = ()
) -> PlanPart:
    """Steps for the driver and the restart that it needs, or why there are none."""
    if target.source not in (DriverSource.AUTO, DriverSource.ARCHIVE, DriverSource.NVIDIA):
        return PlanPart(
            refusals=(
                Refusal(
                    code="plan.source",
                    what=f"NVIDIA's driver does not come from the source {target.source.value}.",
                    why="It comes from Ubuntu's archive or from NVIDIA's own repository.",
                    next="gpu-setup plan --source archive, or --source nvidia",
                ),
            )
        )
    lowest, _ = driver_floor(catalogue, cards)
    current = installed_driver(host, catalogue)
    wrong = replace_reason(host, catalogue, target, cards, current, lowest)
    if wrong is None:
        kept = _kept(host, catalogue, cards, current)
        steps = (*kept.steps, *_blacklisted(host), *unattended.plan(host, catalogue))
        return msgspec.structs.replace(kept, steps=steps)
    if current.runfile:
        return PlanPart(
            refusals=(
                Refusal(
                    code="plan.runfile",
                    what="A driver from NVIDIA's .run file is installed and cannot stay.",
                    why=f"{sentence(wrong)} apt does not know the files of that installer and would install over them.",
                    next="sudo nvidia-uninstall, restart, then gpu-setup plan",
                ),
            )
        )
    wish = target.branch or unfinished_branch(catalogue, cards, current, lowest)
    choice = choose_branch(catalogue, cards, wish, target.branch is None, without if wish is None else ())
    if isinstance(choice, Refusal):
        return PlanPart(refusals=(choice,))
    source = target.source if target.source is not DriverSource.AUTO else current.source or DriverSource.ARCHIVE
    if source is DriverSource.NVIDIA:
        steps = _vendor_route(host, catalogue, target, cards, choice, sentence(wrong))
    else:
        steps = _archive_route(host, catalogue, target, cards, choice, sentence(wrong), current.family)
    notes = _hybrid(host, cards)
    return PlanPart(
        steps=(*steps, *unattended.plan(host, catalogue)), restart=_restart(cards, steps), source=source, notes=notes
    )


def display(host: Host, catalogue: Catalogue, target: Target, cards: tuple[PlannedCard, ...]) -> tuple[bool, str]:
    """True for desktop packages, and why; packages that are there are never changed to the other kind unasked."""
    if target.display is not Display.AUTO:
        return target.display is Display.DESKTOP, f"{target.display.value.capitalize()} packages, as asked for."
    for desktop, keys in ((True, DESKTOP), (False, HEADLESS)):
        if there := found(host, first_names(catalogue, keys)):
            return desktop, f"{'Desktop' if desktop else 'Headless'} packages, as {there[0][0]} that is here already."
    if lit := next((seen for seen in cards if seen.pci.connectors_connected), None):
        return True, f"Desktop packages, since a monitor is connected to {lit}."
    if host.os.graphical:
        return True, "Desktop packages, since this machine starts into a desktop."
    if host.os.graphical is None:
        return True, "Desktop packages, since it could not be read whether there is a desktop; they serve both."
    return False, "Headless packages, since no desktop starts here and no monitor is connected to the card."


def _hybrid(host: Host, cards: tuple[PlannedCard, ...]) -> tuple[str, ...]:
    """Laptops that draw with another GPU: nothing of that is changed."""
    ours = {seen.pci.slot for seen in cards}
    other = next((pci for pci in host.cards or () if pci.boot_vga and pci.slot not in ours), None)
    if other is None or not host.os.graphical:
        return ()
    said = (
        f"The desktop runs on another GPU ({other.slot}): that stays so (PRIME, on-demand), which leaves the card free."
    )
    return (said,)


def _kept(host: Host, catalogue: Catalogue, cards: tuple[PlannedCard, ...], current: InstalledDriver) -> PlanPart:
    """A driver that serves stays, whatever brought it; only what the next start would miss is added."""
    lowest, stack = driver_floor(catalogue, cards)
    over = f" and is over the floor {lowest} of the stack {stack}" if lowest else ""
    because = f"Driver {current.version} is loaded, suits every card here{over}: it stays as it is."
    if idle := tuple(seen for seen in cards if seen.pci.driver != "nvidia"):
        because += f" {card_list(idle)} is not bound to it: see gpu-setup doctor."
    problem = host.nvidia.nvml_problem
    if problem not in (None, "mismatch"):
        because += f" NVML could not be asked ({problem}): see gpu-setup doctor."
    title = f"NVIDIA driver {current.version}"
    steps = [install_step(host, "nvidia-driver", title, current.packages, because, done=True)]
    if release := kernel_without_module(host, "nvidia"):
        steps.append(_next_kernel(host, catalogue, current, release))
    restart = None
    if problem == "mismatch":
        restart = reboot_step("The libraries on disk are newer than the loaded module: they match after a restart.")
    return PlanPart(steps=tuple(steps), restart=restart, source=current.source)


def _next_kernel(host: Host, catalogue: Catalogue, current: InstalledDriver, release: str) -> Step:
    because = f"The kernel {release} starts next and has no nvidia module: the card would not work after a restart."
    if current.source is DriverSource.ARCHIVE and current.branch is not None and not _built_here(host, catalogue):
        module = "proprietary" if current.open is False else "open"
        key = f"nvidia.archive.modules.kernel.{module}"
        wanted = names(catalogue, key, current.branch, current.family, kernel=release)
        because += " Where the archive has none for it yet, an older kernel from GRUB's menu is the way."
    else:
        wanted = names(catalogue, "kernel.headers", flavour=release)
        because += " DKMS builds it once that kernel's headers are there."
    return install_step(
        host, "nvidia-next-kernel", f"Give the kernel {release} its module", wanted, because, done=False
    )


def _archive_route(
    host: Host,
    catalogue: Catalogue,
    target: Target,
    cards: tuple[PlannedCard, ...],
    choice: BranchChoice,
    wrong: str,
    family: str = "",
) -> tuple[Step, ...]:
    """`family`: never changed silently, since Ubuntu's -server packages have updates of their own."""
    number, (desktop, why) = choice.branch.number, display(host, catalogue, target, cards)
    kernels, tag = kernels_to_cover(host, catalogue), f"{choice.branch.number}{family}"
    modules = tuple(
        name
        for flavour in kernels
        for name in names(catalogue, f"nvidia.archive.modules.{choice.module}", number, family, flavour=flavour)
    )
    key = f"nvidia.archive.{'desktop' if desktop else 'headless'}.{choice.module}"
    more = i386_packages(host, catalogue, tag) if desktop else ()
    if more:
        why += " Steam or Wine is here: its 32-bit libraries come in the same transaction."
    if family:
        why += f" Ubuntu's {family} packages are here, and it stays with them."
    wanted = (*names(catalogue, key, number, family), *modules, *more)
    driver_step = install_step(
        host,
        "nvidia-driver",
        f"Install NVIDIA driver {number} ({choice.module} modules) from Ubuntu's archive",
        wanted,
        f"{wrong} {choice.because} {why} The modules come prebuilt for {' and '.join(kernels) or 'your kernel'}, in "
        f"the driver's own transaction, or apt would take the DKMS package instead. {no_key_needed(host)}".rstrip(),
        remove=replaced_packages(
            host, catalogue, DriverSource.ARCHIVE, tag, wanted, (*VENDOR, *BUILT_HERE, *ARCHIVE), choice.open
        ),
        forbid=tuple(name for key in FORBIDDEN for name in catalogue.package(key).fill(branch="*")),
    )
    steps = [*_hold_back(host, catalogue), *_guarded(driver_step)]
    if driver_step.state is State.DONE and (release := kernel_without_module(host, "nvidia")):
        steps.append(
            _next_kernel(
                host,
                catalogue,
                InstalledDriver(DriverSource.ARCHIVE, number, (), None, choice.open, False, family),
                release,
            )
        )
    if not desktop:
        steps.append(_persistence(host))
    return tuple(steps) if kernels else repositories.block_steps(tuple(steps), NO_KERNEL)


def _vendor_route(
    host: Host, catalogue: Catalogue, target: Target, cards: tuple[PlannedCard, ...], choice: BranchChoice, wrong: str
) -> tuple[Step, ...]:
    number, (desktop, why) = choice.branch.number, display(host, catalogue, target, cards)
    kernels = kernels_to_cover(host, catalogue)
    row = catalogue.repository("nvidia.cuda")
    asked = (
        "You asked for NVIDIA's own packages."
        if target.source is DriverSource.NVIDIA
        else "The driver here is NVIDIA's own."
    )
    added = repositories.repository_steps(host, catalogue, row, asked)
    lead = repositories.pin_step(
        host,
        "pin-nvidia.cuda",
        "Let NVIDIA's packages lead over Ubuntu's",
        repositories.origin_pin(row, row.packages, row.priority or 600, "cuda-repository-pin-600"),
        "Both archives have packages of the same names, and a mixture of the two does not work.",
    )
    lock = install_step(
        host,
        "nvidia-branch-lock",
        f"Lock the driver to branch {number}, first and alone",
        names(catalogue, "nvidia.repo.pinning", branch=number),
        "NVIDIA's newer packages carry no branch in their names and follow the newest one, even past the last that "
        "drives this card. The lock has no effect when it is installed in the driver's own transaction.",
    )
    headers = tuple(name for flavour in kernels for name in names(catalogue, "kernel.headers", flavour=flavour))
    key = f"nvidia.repo.{'desktop' if desktop else 'headless'}.{choice.module}"
    wanted = (*headers, *names(catalogue, key, branch=number))
    driver_step = install_step(
        host,
        "nvidia-driver",
        f"Install NVIDIA driver {number} ({choice.module} modules) from NVIDIA's repository",
        wanted,
        f"{wrong} {choice.because} {why} DKMS builds the module on this machine, so the headers of "
        f"{' and '.join(kernels) or 'your kernel'} come first.",
        remove=replaced_packages(host, catalogue, DriverSource.NVIDIA, str(number), wanted, ARCHIVE, choice.open),
    )
    steps = [*added, lead, lock, *_guarded(driver_step), module_step(host, "nvidia", "NVIDIA's module", driver_step)]
    steps += _blacklist(host, cards)
    if enrolment := enrol_step(host, "NVIDIA's module", "nvidia"):
        steps.append(enrolment)
    return tuple(steps) if kernels else repositories.block_steps(tuple(steps), NO_KERNEL)


def _guarded(driver_step: Step) -> tuple[Step, ...]:
    """A driver that comes is preceded by the hook that looks after the kernels to come."""
    return (driver_step,) if driver_step.state is State.DONE else (guard_step("nvidia"), driver_step)


def _hold_back(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    """Where NVIDIA's repository is enabled beside an archive driver, its higher priority would swap the driver."""
    row = catalogue.repository("nvidia.cuda")
    if not repositories.is_enabled(host, catalogue, row):
        return ()
    return (pin_drivers(host, catalogue),)


def pin_drivers(host: Host, catalogue: Catalogue) -> Step:
    row = catalogue.repository("nvidia.cuda")
    return repositories.pin_step(
        host,
        "pin-nvidia.drivers",
        "Keep NVIDIA's repository from replacing the driver",
        repositories.origin_pin(row, names(catalogue, "nvidia.repo.drivers"), -1, "gpu-setup-nvidia-drivers"),
        f"Its priority {row.priority} is above Ubuntu's: the next upgrade would swap the archive's driver for its own.",
    )


def _built_here(host: Host, catalogue: Catalogue) -> bool:
    return bool(found(host, first_names(catalogue, BUILT_HERE)))


def _persistence(host: Host) -> Step:
    gpus = host.nvidia.nvml
    on = bool(gpus) and all(gpu.persistence for gpu in gpus or ())
    return Step(
        id="nvidia-persistence",
        title="Keep the card initialised without a desktop",
        action=Service(unit="nvidia-persistenced.service", change="enable"),
        state=State.DONE if on else State.TODO,
        because="Nothing holds the card open on a headless machine, and each start would cost seconds without it.",
        commands=() if on else (("systemctl", "enable", "nvidia-persistenced.service"),),
        undo="" if on else "disables the service if it was not enabled before",
    )


def _blacklist(host: Host, cards: tuple[PlannedCard, ...]) -> tuple[Step, ...]:
    """Outside the archive nobody keeps nouveau away; last, so that the card is not left without any driver."""
    holders = {seen.pci.driver for seen in cards} | set(host.kernel.loaded or ())
    free = [name for name in FREE_DRIVERS if name in holders]
    if not free:
        return _blacklisted(host)
    # the packages may keep one of them away, and the next kernel bring another
    done = all(name in {module for module, _ in host.kernel.blacklisted or ()} for name in FREE_DRIVERS)
    return (
        Step(
            id="nouveau-blacklist",
            title=f"Keep {' and '.join(free)} from taking the card first",
            action=NO_FREE_DRIVERS,
            state=State.DONE if done else State.TODO,
            because=f"{' and '.join(free)} is loaded and would bind the card before NVIDIA's module. Written after "
            "that module is built: with neither of them a new card shows only a plain framebuffer.",
            commands=() if done else (repositories.write_command(BLACKLIST), ("update-initramfs", "-u", "-k", "all")),
            undo="" if done else f"removes {BLACKLIST} and rebuilds every initramfs",
        ),
    )


def _blacklisted(host: Host) -> tuple[Step, ...]:
    """Our file where it is, as done: a run that was cut off before every initramfs had it can be finished."""
    if all(file != BLACKLIST for _, file in host.kernel.blacklisted or ()):
        return ()
    return (
        Step(
            id="nouveau-blacklist",
            title="Keep the free drivers from taking the card first",
            action=NO_FREE_DRIVERS,
            state=State.DONE,
            because=f"{BLACKLIST} keeps them away.",
        ),
    )


def _restart(cards: tuple[PlannedCard, ...], steps: tuple[Step, ...]) -> Step | None:
    """A restart where a driver is to be installed, or is there but does not hold the cards yet."""
    idle = tuple(seen for seen in cards if seen.pci.driver != "nvidia")
    holders = sorted({seen.pci.driver for seen in idle if seen.pci.driver})
    now = f" Until then {' and '.join(holders)} has the card." if holders else ""
    if any(step.state is not State.DONE for step in steps):
        return reboot_step(
            f"The new module takes over at the next start: it is never swapped under a running display.{now}"
        )
    if idle:
        return reboot_step(f"The driver's packages are complete, but {card_list(idle)} is not driven by it yet.{now}")
    return None
