"""NVIDIA's driver: keep one that works, else signed modules from Ubuntu's archive, or NVIDIA's packages on request."""

from __future__ import annotations

import re

import msgspec

from checks.catalogue import Catalogue, Repository
from checks.facts.host import Host
from checks.rules import next_boot
from checks.rules.installed import next_module
from provision.model import AptPreference, KernelModule, PlanPart, Refusal, Service, State, Step, WriteFile
from provision.plan import repositories, unattended
from provision.plan.driver.boot_guard import guard_step
from provision.plan.driver.dkms import module_step
from provision.plan.driver.driver_branch import BranchChoice, choose_branch, driver_floor
from provision.plan.driver.driver_set import (
    ORIGINS,
    NewDriver,
    foreign_packages,
    i386_packages,
    is_prebuilt,
    replaced_packages,
)
from provision.plan.driver.installed_driver import (
    ARCHIVE,
    DESKTOP,
    HEADLESS,
    VENDOR,
    InstalledDriver,
    installed_driver,
    mixture,
    replace_reason,
    unfinished_branch,
)
from provision.plan.driver.kernels import kernel_without_module, kernels_to_cover, next_release
from provision.plan.driver.module_loading import allow_steps, idle_cards, reboot_for
from provision.plan.driver.secure_boot import enrol_step, is_enforced, no_key_needed
from provision.plan.package_steps import first_names, found, install_step, names, reboot_step, sentence
from provision.plan.plan_cards import PlannedCard, card_list
from provision.target import Display, DriverSource, PlanTarget

MODULE = "nvidia"
FREE_DRIVERS = ("nouveau", "nova_core", "nova_drm")
BUILT_HERE = ("nvidia.archive.dkms.open", "nvidia.archive.dkms.proprietary")
FORBIDDEN = (*BUILT_HERE, "dkms")
BLACKLIST = "/etc/modprobe.d/gpu-setup-nouveau.conf"
BLACKLIST_STEP = "nouveau-blacklist"
KEEP_FREE_DRIVERS_OFF = "Keep nouveau and nova from binding the GPU first"
NO_FREE_DRIVERS = WriteFile(path=BLACKLIST, content="".join(f"blacklist {name}\n" for name in FREE_DRIVERS))
PERSISTENCE = Service(unit="nvidia-persistenced.service", change="enable")
# steps after which the next boot loads another module
LOADS_ANOTHER = ("nvidia-driver", "nvidia-module", "nvidia-next-kernel", BLACKLIST_STEP)
NOT_RUNNING = "the driver is complete and not running yet"
NO_KERNEL = "Neither the running nor the installed kernels could be read, so their packages cannot be named."


def plan(
    host: Host, catalogue: Catalogue, target: PlanTarget, cards: tuple[PlannedCard, ...], without: tuple[int, ...] = ()
) -> PlanPart:
    """Steps for the driver and its reboot, or why there are none."""
    if target.source not in (DriverSource.AUTO, DriverSource.ARCHIVE, DriverSource.NVIDIA):
        return PlanPart(
            refusals=(
                Refusal(
                    code="plan.source",
                    what=f"NVIDIA's driver is not available from the source {target.source.value}.",
                    why="It comes from Ubuntu's archive or from NVIDIA's repository.",
                    next="gpu-setup plan --source archive, or --source nvidia",
                ),
            )
        )
    lowest, _ = driver_floor(catalogue, cards)
    current = installed_driver(host, catalogue)
    reason = replace_reason(host, catalogue, target, cards, current, lowest)
    waits = reason is None and current.version is None
    if reason is None and (not waits or current.runfile):
        return _kept_part(host, catalogue, cards, current)
    if current.runfile:
        return PlanPart(
            refusals=(
                Refusal(
                    code="plan.runfile",
                    what="A driver from NVIDIA's .run file is installed and must be removed.",
                    why=f"{sentence(reason or NOT_RUNNING)} apt does not manage the files of that installer and would "
                    "overwrite them.",
                    next="sudo nvidia-uninstall, reboot, then gpu-setup plan",
                ),
            )
        )
    part = _new_driver(host, catalogue, target, cards, current, reason or NOT_RUNNING, without)
    if waits and (part.refusals or not _are_done(part.steps, "nvidia-driver")):
        # it is complete and only not running: what is missing around it is added, but it is not replaced
        return _kept_part(host, catalogue, cards, current)
    return part


def _kept_part(host: Host, catalogue: Catalogue, cards: tuple[PlannedCard, ...], current: InstalledDriver) -> PlanPart:
    kept = _keep_driver(host, catalogue, cards, current)
    pins = _hold_back(host, catalogue) if current.source is DriverSource.ARCHIVE else ()
    held = _blacklist_holder(host, cards)
    steps = (*allow_steps(host, MODULE, cards), *pins, *kept.steps, *held, *unattended.plan(host, catalogue))
    return msgspec.structs.replace(kept, steps=steps, restart=kept.restart or _restart(host, cards, held))


def _new_driver(
    host: Host,
    catalogue: Catalogue,
    target: PlanTarget,
    cards: tuple[PlannedCard, ...],
    current: InstalledDriver,
    reason: str,
    without: tuple[int, ...],
) -> PlanPart:
    """The route to a suitable driver; its steps are done where that driver is installed already."""
    lowest, _ = driver_floor(catalogue, cards)
    mixed = bool(mixture(host))
    requested = target.branch or unfinished_branch(catalogue, cards, current, lowest, mixed)
    choice = choose_branch(catalogue, cards, requested, target.branch is None, without if requested is None else ())
    if isinstance(choice, Refusal):
        return PlanPart(refusals=(choice,))
    one = " The packages of one source replace the others, so that module and libraries have one version."
    choice = choice._replace(because=f"{sentence(reason)}{one if mixed else ''} {choice.because}")
    source = target.source if target.source is not DriverSource.AUTO else current.source or DriverSource.ARCHIVE
    refused = host.firmware.mok_key_enrolled and next_boot.refused_line(host, MODULE)
    if target.source is DriverSource.AUTO and (next_boot.failed_build(host, MODULE) or refused):
        # Canonical built and signed the prebuilt modules: they need no build and no key
        source = DriverSource.ARCHIVE
    if source is DriverSource.NVIDIA:
        steps = _vendor_route(host, catalogue, target, cards, choice)
    else:
        steps = _archive_route(host, catalogue, target, cards, choice, current.family)
    if not mixed and next_boot.nvidia_matches(host) is False and _are_done(steps, "nvidia-driver", "nvidia-module"):
        return PlanPart(refusals=(_foreign_libraries(host),))
    allow = allow_steps(host, MODULE, cards)
    notes = () if allow else _laptop_note(host, cards)
    steps = (*allow, *steps)
    return PlanPart(
        steps=(*steps, *unattended.plan(host, catalogue)),
        restart=_restart(host, cards, steps),
        source=source,
        notes=notes,
    )


def _are_done(steps: tuple[Step, ...], *ids: str) -> bool:
    return all(step.state is State.DONE for step in steps if step.id in ids)


def _foreign_libraries(host: Host) -> Refusal:
    return Refusal(
        code="plan.foreign-libraries",
        what=f"The driver's libraries on the disk are {host.nvidia.library_version}, and the installed packages have "
        f"version {next_boot.module_name(next_module(host))}.",
        why="All packages are complete, so these files are of no package: an installer wrote over them, or a package "
        "from elsewhere did. gpu-setup does not remove files that apt does not know.",
        next="dpkg -S libnvidia-ml.so.1 names the package; sudo apt-get install --reinstall libnvidia-compute-BRANCH "
        "restores its files; then gpu-setup plan",
    )


def display(host: Host, catalogue: Catalogue, target: PlanTarget, cards: tuple[PlannedCard, ...]) -> tuple[bool, str]:
    """True for desktop packages, and why; the installed kind is changed only on request."""
    if target.display is not Display.AUTO:
        return target.display is Display.DESKTOP, f"{target.display.value.capitalize()} packages, as requested."
    for desktop, keys in ((True, DESKTOP), (False, HEADLESS)):
        if there := found(host, first_names(catalogue, keys)):
            return desktop, f"Keeps the {'desktop' if desktop else 'headless'} packages: {there[0][0]} is installed."
    if lit := next((seen for seen in cards if seen.pci.connectors_connected), None):
        return True, f"Desktop packages, because a monitor is connected to {lit}."
    if host.os.graphical:
        return True, "Desktop packages, because this machine boots into a desktop."
    if host.os.graphical is None:
        return (
            True,
            "Desktop packages, because it could not be read whether there is a desktop; they work in both cases.",
        )
    return False, "Headless packages, because no desktop starts here and no monitor is connected to the GPU."


def _laptop_note(host: Host, cards: tuple[PlannedCard, ...]) -> tuple[str, ...]:
    """Laptops whose desktop uses another GPU: this is not changed."""
    ours = {seen.pci.slot for seen in cards}
    other = next((pci for pci in host.cards or () if pci.boot_vga and pci.slot not in ours), None)
    if other is None or not host.os.graphical:
        return ()
    return (f"The desktop keeps running on another GPU ({other.slot}; PRIME, on-demand), so this GPU is free.",)


def _keep_driver(
    host: Host, catalogue: Catalogue, cards: tuple[PlannedCard, ...], current: InstalledDriver
) -> PlanPart:
    """A driver that works is kept, wherever it is from; only a module for the next kernel is added."""
    lowest, stack = driver_floor(catalogue, cards)
    over = f" and meets the minimum driver of the stack {stack} ({lowest})" if lowest else ""
    version, state = current.version or host.nvidia.library_version, "loaded" if current.version else "installed"
    because = f"Driver {version} is {state}, supports every GPU here{over}: it is kept."
    idle = idle_cards(cards, MODULE)
    problem = host.nvidia.nvml_problem
    if idle and current.version:
        because += f" {card_list(idle)} is not bound to it: see gpu-setup doctor."
    if current.version and problem not in (None, "mismatch"):
        because += f" NVML does not answer ({problem}): see gpu-setup doctor."
    title = f"NVIDIA driver {version}"
    steps = [install_step(host, "nvidia-driver", title, current.packages, because, done=True)]
    if release := kernel_without_module(host, "nvidia"):
        steps.append(_next_kernel(host, catalogue, current, release))
    restart = None
    if problem == "mismatch" and next_boot.nvidia_matches(host) is not False:
        module = next_boot.module_name(next_module(host))
        restart = reboot_step(
            f"The loaded module is {current.version}; the module on the disk ({module}) matches the libraries "
            f"({host.nvidia.library_version}): they match after a reboot."
            if module
            else "The libraries on disk are newer than the loaded module. A reboot loads the module on the disk."
        )
    return PlanPart(steps=tuple(steps), restart=restart, source=current.source)


def _next_kernel(host: Host, catalogue: Catalogue, current: InstalledDriver, release: str) -> Step:
    because = f"The kernel {release} boots next and has no nvidia module: the GPU would not work after a reboot."
    if current.source is DriverSource.ARCHIVE and current.branch is not None and not _built_here(host, catalogue):
        module = "proprietary" if current.open is False else "open"
        key = f"nvidia.archive.modules.kernel.{module}"
        wanted = names(catalogue, key, current.branch, current.family, kernel=release)
        because += " If the archive has none for it yet, boot an older kernel from GRUB's menu."
    elif release in (host.kernel.headers or ()):
        return Step(
            id="nvidia-next-kernel",
            title=f"Build the module for the kernel {release}",
            action=KernelModule(name=MODULE, change="build"),
            state=State.TODO,
            because=f"{because} DKMS has not tried to build it.",
            commands=(("dkms", "autoinstall", "--kernelver", release),),
            undo="DKMS removes its modules with its packages",
        )
    else:
        wanted = names(catalogue, "kernel.headers", flavour=release)
        because += " DKMS builds it once that kernel's headers are installed."
    return install_step(
        host, "nvidia-next-kernel", f"Install the module for the kernel {release}", wanted, because, done=False
    )


def _archive_route(
    host: Host,
    catalogue: Catalogue,
    target: PlanTarget,
    cards: tuple[PlannedCard, ...],
    choice: BranchChoice,
    family: str = "",
) -> tuple[Step, ...]:
    """`family`: never changed silently, because Ubuntu's -server packages have separate updates."""
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
        why += " Steam or Wine is installed: the 32-bit libraries are installed in the same transaction."
    if family:
        why += f" Keeps Ubuntu's {family} packages, which are installed."
    wanted = (*names(catalogue, key, number, family), *modules, *more)
    remove = replaced_packages(
        host, catalogue, NewDriver(DriverSource.ARCHIVE, tag, wanted, choice.open), (*VENDOR, *BUILT_HERE, *ARCHIVE)
    )
    moved = _moved(host, catalogue, DriverSource.ARCHIVE, remove)
    driver_step = install_step(
        host,
        "nvidia-driver",
        f"Install NVIDIA driver {number} ({choice.module} modules) from Ubuntu's archive",
        tuple(dict.fromkeys((*wanted, *moved))),
        f"{choice.because} {why} Prebuilt modules for {' and '.join(kernels) or 'your kernel'} are installed "
        f"in the same transaction, or apt would choose the DKMS package instead. {no_key_needed(host)}".rstrip(),
        remove=remove,
        done=False if moved else None,
        one_source="ubuntu" if moved else None,
        forbid=tuple(name for key in FORBIDDEN for name in catalogue.package(key).fill(branch="*")),
    )
    steps = [*_hold_back(host, catalogue), *_one_source(host, DriverSource.ARCHIVE, moved), *_with_guard(driver_step)]
    if driver_step.state is State.DONE and (release := kernel_without_module(host, "nvidia")):
        steps.append(
            _next_kernel(
                host,
                catalogue,
                InstalledDriver(DriverSource.ARCHIVE, number, (), None, choice.open, False, family),
                release,
            )
        )
    # a new driver's packages blacklist nouveau themselves
    if driver_step.state is State.DONE or _free_holders(host, cards) - {"nouveau"}:
        steps += _blacklist_holder(host, cards)
    if not desktop:
        steps.append(_persistence(host))
    if not kernels:
        return repositories.block_steps(tuple(steps), NO_KERNEL)
    other = _other_kernel(host, catalogue)
    return tuple(_blocked(step, other) for step in steps) if other else tuple(steps)


def _blocked(step: Step, because: str) -> Step:
    """The driver's step with the reason, the others without saying it again."""
    (blocked,) = repositories.block_steps((step,), because if step.id == "nvidia-driver" else "")
    return blocked


def _other_kernel(host: Host, catalogue: Catalogue) -> str:
    """Why the archive has no module for the kernel that boots next, where that kernel is not Ubuntu's; else empty."""
    row, release = catalogue.distribution(host.os.id), next_release(host)
    if row is None or release is None or re.fullmatch(row.kernels, release):
        return ""
    newest = names(catalogue, "kernel.hwe")[0]
    # Secure Boot may refuse what is built here, and such kernels do not trust enrolled keys
    build = "" if is_enforced(host) else "; or gpu-setup plan --source nvidia, which builds the module here"
    return (
        f"The kernel {release} is not Ubuntu's, so Ubuntu has no module for it. Install Ubuntu's (sudo apt-get install "
        f"{newest}) and choose it in GRUB's menu, then run gpu-setup plan again{build}."
    )


def _vendor_route(
    host: Host,
    catalogue: Catalogue,
    target: PlanTarget,
    cards: tuple[PlannedCard, ...],
    choice: BranchChoice,
) -> tuple[Step, ...]:
    number, (desktop, why) = choice.branch.number, display(host, catalogue, target, cards)
    kernels = kernels_to_cover(host, catalogue)
    row = catalogue.repository("nvidia.cuda")
    asked = (
        "You asked for NVIDIA's packages."
        if target.source is DriverSource.NVIDIA
        else "The installed driver is from NVIDIA's repository."
    )
    added = repositories.repository_steps(host, catalogue, row, asked)
    lead = repositories.pin_step(
        host,
        "pin-nvidia.cuda",
        "Prefer NVIDIA's packages over Ubuntu's",
        lead_pin(row),
        "Both archives have packages with the same names, and a mixture of the two does not work.",
    )
    lock = install_step(
        host,
        "nvidia-branch-lock",
        f"Lock the driver to branch {number}, before the driver is installed",
        names(catalogue, "nvidia.repo.pinning", branch=number),
        "NVIDIA's newer packages have no branch in their names and follow the newest one, even beyond the last that "
        "supports this GPU. The lock has no effect when it is installed in the driver's transaction.",
    )
    headers = tuple(name for flavour in kernels for name in names(catalogue, "kernel.headers", flavour=flavour))
    key = f"nvidia.repo.{'desktop' if desktop else 'headless'}.{choice.module}"
    wanted = (*headers, *names(catalogue, key, branch=number))
    new = NewDriver(DriverSource.NVIDIA, str(number), wanted, choice.open)
    remove = replaced_packages(host, catalogue, new, ARCHIVE)
    moved = _moved(host, catalogue, DriverSource.NVIDIA, remove)
    driver_step = install_step(
        host,
        "nvidia-driver",
        f"Install NVIDIA driver {number} ({choice.module} modules) from NVIDIA's repository",
        tuple(dict.fromkeys((*wanted, *moved))),
        f"{choice.because} {why} DKMS builds the module on this machine, which needs the headers of "
        f"{' and '.join(kernels) or 'your kernel'}.",
        remove=remove,
        done=False if moved else None,
        one_source="nvidia" if moved else None,
    )
    pins = (lead, *_one_source(host, DriverSource.NVIDIA, moved))
    steps = [
        *added,
        *pins,
        lock,
        *_with_guard(driver_step),
        module_step(host, "nvidia", "NVIDIA's module", driver_step),
    ]
    steps += _blacklist(host, cards)
    if enrolment := enrol_step(host, "NVIDIA's module", "nvidia"):
        steps.append(enrolment)
    return tuple(steps) if kernels else repositories.block_steps(tuple(steps), NO_KERNEL)


def _with_guard(driver_step: Step) -> tuple[Step, ...]:
    """The driver's step, after the step of the hook that checks new kernels."""
    return (driver_step,) if driver_step.state is State.DONE else (guard_step("nvidia"), driver_step)


def _moved(host: Host, catalogue: Catalogue, source: DriverSource, removed: tuple[str, ...]) -> tuple[str, ...]:
    """Packages that both sources have under one name, and that are here from the other one."""
    there = foreign_packages(host, catalogue, source)
    return tuple(package.name for package in there if package.name not in removed and not is_prebuilt(package.name))


def _one_source(host: Host, source: DriverSource, moved: tuple[str, ...]) -> tuple[Step, ...]:
    if not moved:
        return ()
    return (
        repositories.pin_step(
            host,
            "pin-nvidia.one-source",
            f"Take the mixed driver packages from {ORIGINS[source]} only",
            one_source_pin(source, moved),
            f"{', '.join(moved[:4])}{' …' if len(moved) > 4 else ''} came from another source. apt replaces an "
            "installed package by a lower version of another source only above priority 1000.",
        ),
    )


def one_source_pin(source: DriverSource, packages: tuple[str, ...]) -> AptPreference:
    pin = "release o=Ubuntu" if source is DriverSource.ARCHIVE else "origin developer.download.nvidia.com"
    return AptPreference(file="/etc/apt/preferences.d/gpu-setup-one-source", packages=packages, pin=pin, priority=1001)


def one_source_pins(packages: tuple[str, ...]) -> tuple[AptPreference, ...]:
    """The pins that a plan may write for these packages."""
    return tuple(one_source_pin(source, packages) for source in ORIGINS)


def _hold_back(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    """With NVIDIA's repository enabled besides an archive driver, its higher priority would replace the driver."""
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
        drivers_pin(catalogue),
        f"Its priority {row.priority} is above Ubuntu's: the next upgrade would replace the driver from the archive.",
    )


def lead_pin(row: Repository) -> AptPreference:
    return repositories.origin_pin(row, row.packages, row.priority or 600, "cuda-repository-pin-600")


def drivers_pin(catalogue: Catalogue) -> AptPreference:
    row, drivers = catalogue.repository("nvidia.cuda"), names(catalogue, "nvidia.repo.drivers")
    return repositories.origin_pin(row, drivers, -1, "gpu-setup-nvidia-drivers")


def _built_here(host: Host, catalogue: Catalogue) -> bool:
    return bool(found(host, first_names(catalogue, BUILT_HERE)))


def _persistence(host: Host) -> Step:
    gpus = host.nvidia.nvml
    on = bool(gpus) and all(gpu.persistence for gpu in gpus or ())
    return Step(
        id="nvidia-persistence",
        title="Keep the GPU initialised without a desktop",
        action=PERSISTENCE,
        state=State.DONE if on else State.TODO,
        because="No desktop keeps the GPU open here, so each program would take seconds longer to start.",
        commands=() if on else (("systemctl", "enable", "nvidia-persistenced.service"),),
        undo="" if on else "disables the service if it was not enabled before",
    )


def _blacklist(host: Host, cards: tuple[PlannedCard, ...]) -> tuple[Step, ...]:
    """NVIDIA's own packages do not blacklist nouveau; the last step, so that the GPU is never without any driver."""
    holders = _free_holders(host, cards) | set(host.kernel.loaded or ())
    free = [name for name in FREE_DRIVERS if name in holders]
    if not free:
        return _existing_blacklist(host)
    # the packages may blacklist one of them, and the next kernel may have another
    done = all(name in {module for module, _ in host.kernel.blacklisted or ()} for name in FREE_DRIVERS)
    because = (
        f"{' and '.join(free)} is loaded and would bind the GPU before NVIDIA's module. Written after "
        "that module is built: with neither of them a new GPU shows only a simple framebuffer."
    )
    return (blacklist_step(f"Keep {' and '.join(free)} from binding the GPU first", because, done),)


def _blacklist_holder(host: Host, cards: tuple[PlannedCard, ...]) -> tuple[Step, ...]:
    """For a driver that is installed already: only where nouveau or nova has a card and would take it again."""
    off = {module for module, _ in host.kernel.blacklisted or ()}
    return _blacklist(host, cards) if _free_holders(host, cards) - off else _existing_blacklist(host)


def _free_holders(host: Host, cards: tuple[PlannedCard, ...]) -> set[str]:
    """The modules of nouveau and nova that have one of these cards; Nova's driver has another name than its module."""
    names = {"NovaCore": "nova_core", "nova-core": "nova_core", "nova": "nova_core"}
    held = {names.get(seen.pci.driver or "", seen.pci.driver) for seen in cards}
    return {name for name in FREE_DRIVERS if name in held}


def blacklist_step(title: str, because: str, done: bool) -> Step:
    return Step(
        id=BLACKLIST_STEP,
        title=title,
        action=NO_FREE_DRIVERS,
        state=State.DONE if done else State.TODO,
        because=because,
        commands=() if done else (repositories.write_command(BLACKLIST), ("update-initramfs", "-u", "-k", "all")),
        undo="" if done else f"removes {BLACKLIST} and rebuilds every initramfs",
    )


def _existing_blacklist(host: Host) -> tuple[Step, ...]:
    """Our file, if it exists, as done: so a run that was interrupted before every initramfs had it can be finished."""
    if all(file != BLACKLIST for _, file in host.kernel.blacklisted or ()):
        return ()
    return (blacklist_step(KEEP_FREE_DRIVERS_OFF, f"{BLACKLIST} blacklists them.", done=True),)


def _restart(host: Host, cards: tuple[PlannedCard, ...], steps: tuple[Step, ...]) -> Step | None:
    """A reboot if a driver will be installed, or is installed and takes the GPUs at the next boot."""
    idle = idle_cards(cards, MODULE)
    holders = sorted({seen.pci.driver for seen in idle if seen.pci.driver})
    now = f" Until then {' and '.join(holders)} controls the GPU." if holders else ""
    again = " If it still does then, rebuild the initramfs: sudo update-initramfs -u -k all." if holders else ""
    if any(step.id in LOADS_ANOTHER and step.state not in (State.DONE, State.BLOCKED) for step in steps):
        return reboot_step(
            f"The next boot loads the module of these packages: it is never replaced under a running display.{now}"
        )
    if any(step.id == "enrol-key" and step.state is not State.DONE for step in steps):
        return reboot_step(f"MokManager enrols the key during the reboot, with your answer.{now}")
    if host.nvidia.module_version and not next_boot.blocks(host, MODULE) and _differs_on_disk(host):
        return reboot_step(
            f"The loaded module ({host.nvidia.module_version}) is not the one on the disk, which the next boot loads."
        )
    restart = reboot_for(host, MODULE, idle) if idle else None
    return restart and msgspec.structs.replace(restart, because=f"{restart.because}{now}{again}")


def _differs_on_disk(host: Host) -> bool:
    """Whether the next boot loads a module of another version or kind than the one that is loaded."""
    file, version = next_boot.module_file(host, MODULE), next_boot.module_name(next_module(host))
    if file is None or version is None:
        return False
    kind = "-open" in file.path if file.origin == "prebuilt" else host.nvidia.open_module
    return not f"{host.nvidia.module_version}.".startswith(f"{version}.") or kind != host.nvidia.open_module
