"""AMD: the kernel's amdgpu, new enough for the GPU; ROCm in the training environment, on the host only on request."""

from __future__ import annotations

from fnmatch import fnmatchcase

from checks.catalogue import Catalogue, Repository
from checks.facts.host import Host
from checks.rules import next_boot
from checks.rules.apt.repositories import is_rocm_pin, legacy_rocm_sources, ubuntus_rocm
from provision.model import AptPreference, AptRemove, PlanPart, Refusal, State, Step, WriteFile
from provision.plan import repositories
from provision.plan.driver.boot_guard import guard_step
from provision.plan.driver.dkms import module_step
from provision.plan.driver.kernels import (
    at_least,
    flavours,
    kernel_without_module,
    kernels_to_cover,
    next_release,
    version_numbers,
)
from provision.plan.driver.module_loading import allow_steps, idle_cards, reboot_for
from provision.plan.driver.secure_boot import enrol_step
from provision.plan.package_steps import (
    explain,
    install_step,
    installed_package,
    names,
    reboot_step,
    state_of,
)
from provision.plan.plan_cards import PlannedCard
from provision.target import DriverSource, PlanTarget, Rocm

MODULE = "amdgpu"
LAYOUT = "amd.rocm."
# the packages of each layout by their keys in the catalogue; apt's own patterns for a row that names none
OTHER_ROCM = ("rocm.legacy", "rocm.legacy.runtime", "rocm.legacy.core", "rocm.7.14", "rocm.10")
ROCM_NAMES = ("amdrocm*",)
DKMS = ("amdgpu.dkms", "amdgpu.dkms.firmware")
REMOVE_DKMS = "amdgpu-dkms-remove"
# Ubuntu 24.04's packages that have names of AMD's: AMD's depend on exactly their own version of each
UBUNTU_ROCM = "rocm.ubuntu-names"
REMOVED = (*DKMS, *OTHER_ROCM, UBUNTU_ROCM)
EMPTIED = "# emptied by gpu-setup: ROCm is installed from another repository now\n"


def plan(host: Host, catalogue: Catalogue, target: PlanTarget, cards: tuple[PlannedCard, ...]) -> PlanPart:
    """Steps for kernel, module and ROCm, and their reboot, or why there are none."""
    if target.source not in (DriverSource.AUTO, DriverSource.IN_TREE, DriverSource.DKMS):
        return PlanPart(
            refusals=(
                Refusal(
                    code="plan.source",
                    what=f"AMD's driver is not available from the source {target.source.value}.",
                    why="amdgpu is part of the kernel; AMD's build of it is the package amdgpu-dkms.",
                    next="gpu-setup plan --source in-tree, or --source dkms",
                ),
            )
        )
    source = target.source if target.source is not DriverSource.AUTO else _present_source(host, catalogue)
    part = _dkms_route(host, catalogue) if source is DriverSource.DKMS else _in_tree_route(host, catalogue, cards)
    if part.refusals:
        return part
    restart = part.restart or _restart(host, cards, part.steps)
    steps = (*allow_steps(host, MODULE, cards), *part.steps)
    if target.rocm is Rocm.HOST:
        steps = (*steps, *_rocm_on_host(host, catalogue, cards))
    else:
        steps = (*steps, *_amd_before_ubuntu(host, catalogue))
    notes = (*_kernel_note(host, part.steps), *(() if target.rocm is Rocm.HOST else (_no_rocm_note(host),)))
    return PlanPart(steps=steps, restart=restart, notes=notes, source=source)


def floor(catalogue: Catalogue, cards: tuple[PlannedCard, ...]) -> tuple[str | None, str]:
    """The oldest kernel whose amdgpu supports every GPU, and the GPU that needs it; None: not known."""
    asked = [
        (wanted, seen.card.target)
        for seen in cards
        for stack in catalogue.stacks_for(seen.card)[:1]
        if (wanted := stack.kernel_floors.get(seen.card.target) or stack.kernel_floor)
    ]
    return max(asked, key=lambda pair: version_numbers(pair[0]), default=(None, ""))


def _present_source(host: Host, catalogue: Catalogue) -> DriverSource:
    """AMD's DKMS driver is kept where it works or will at the next boot; otherwise the kernel's driver."""
    return DriverSource.DKMS if keeps_dkms(host, catalogue) else DriverSource.IN_TREE


def keeps_dkms(host: Host, catalogue: Catalogue) -> bool:
    """Whether amdgpu-dkms is complete, and its module is loaded or is the one of the next boot: not running yet, or
    loaded by hand, is not broken.

    Also where the modules could not be read: nothing is removed on a guess.
    """
    there = [installed_package(host, name) for name in names(catalogue, "amdgpu.dkms")]
    file = next_boot.module_file(host, MODULE)
    works = bool(host.amd.loaded and host.amd.module_version) or host.kernel.modules is None
    return all(there) and (works or (file is not None and file.origin == "dkms"))


def _in_tree_route(host: Host, catalogue: Catalogue, cards: tuple[PlannedCard, ...]) -> PlanPart:
    lowest, gfx = floor(catalogue, cards)
    steps = [*_remove_dkms(host, catalogue), _kernel(host, catalogue, lowest, gfx)]
    enough = steps[-1].state is State.DONE
    if enough and (release := kernel_without_module(host, MODULE)):
        steps.append(
            install_step(
                host,
                "amdgpu-module",
                f"Install the amdgpu module for the kernel {release}",
                names(catalogue, "kernel.modules-extra", kernel=release),
                f"The kernel {release} boots next and has no amdgpu: minimal and cloud kernels do not include it.",
                done=False,
            )
        )
    running = host.kernel.release
    if enough and lowest and running and not at_least(running, lowest):
        because = (
            f"The kernel {next_release(host)} is installed; the running {running} is older than {lowest}, which {gfx} "
            "needs."
        )
        return PlanPart(steps=tuple(steps), restart=reboot_step(because))
    return PlanPart(steps=tuple(steps))


def _kernel(host: Host, catalogue: Catalogue, lowest: str | None, gfx: str) -> Step:
    """The kernel is part of the driver here: new enough now or at the next boot, or Ubuntu's HWE kernel."""
    release = next_release(host)
    wanted = names(catalogue, "kernel.hwe")
    why = "amdgpu is part of the kernel and signed by Canonical, so Secure Boot needs no key. "
    if lowest is None:
        because = f"{why}No minimum kernel is known for this GPU, so the kernel is kept."
        return install_step(host, "kernel", "Kernel with amdgpu", (), because, done=True)
    if release is None:
        because = f"{why}{gfx} needs {lowest} or newer, and the kernel could not be read."
        return install_step(host, "kernel", f"Install a kernel of at least {lowest}", wanted, because)
    if at_least(release, lowest):
        because = f"{why}{gfx} needs {lowest} or newer, and {release} is new enough."
        return install_step(host, "kernel", f"Kernel {release}", (), because, done=True)
    because = (
        f"{why}{gfx} needs {lowest} or newer, and {release} is older. Ubuntu's HWE kernel is newer and gets updates; "
        "the older kernel is kept in GRUB's menu."
    )
    return install_step(host, "kernel", f"Install Ubuntu's HWE kernel ({lowest} or newer)", wanted, because, done=False)


def _remove_dkms(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    wanted = tuple(name for key in DKMS for name in names(catalogue, key))
    # half-configured ones too: a failed build leaves amdgpu-dkms in that state
    there = tuple(
        found.name for found in host.apt.packages or () if found.name in wanted and found.state != "config-files"
    )
    if not there:
        return ()
    state = state_of(host, True)
    unfinished = any(name in (host.apt.broken or ()) for name in there)
    release = next_release(host)
    because = (
        f"{'dpkg could not finish amdgpu-dkms' if unfinished else 'amdgpu-dkms has no module'} for the kernel "
        f"{release or 'that boots next'}: it supports few kernels, and building it again fails again. The kernel's own "
        "amdgpu is used instead; the firmware package is removed too."
    )
    return (
        Step(
            id=REMOVE_DKMS,
            title="Remove amdgpu-dkms",
            action=AptRemove(packages=there),
            state=state,
            because=explain(host, because, state),
            commands=(("apt-get", "remove", "--yes", *there),),
            undo=f"installs {', '.join(there)} again",
        ),
    )


def _dkms_route(host: Host, catalogue: Catalogue) -> PlanPart:
    kernels = flavours(host, catalogue)
    newest, oldest = names(catalogue, "kernel.hwe"), names(catalogue, "kernel.ga")
    if keeps_dkms(host, catalogue):
        because = (
            f"amdgpu-dkms {host.amd.module_version} is loaded: it is kept."
            if host.amd.loaded and host.amd.module_version
            else f"amdgpu-dkms is complete and has a module for the kernel {next_release(host)}: it is kept."
        )
        kept = install_step(host, "amdgpu", "AMD's amdgpu-dkms", names(catalogue, "amdgpu.dkms"), because, done=True)
        key = None if host.amd.module_version else enrol_step(host, "amdgpu-dkms", MODULE)
        if key is None or key.state is State.DONE:
            return PlanPart(steps=(kept,))
        answered = reboot_step("MokManager enrols the key during the reboot, with your answer.")
        return PlanPart(steps=(kept, key), restart=answered)
    image = names(catalogue, "kernel.image", flavour="")[0]
    ga = {name.removeprefix("linux-") for name in oldest}
    if host.apt.packages is not None and (other := [flavour for flavour in kernels if flavour not in ga]):
        return PlanPart(
            refusals=(
                Refusal(
                    code="plan.dkms-kernel",
                    what=f"amdgpu-dkms does not support the kernel {image}{other[0]}.",
                    why="AMD supports the first kernel of this Ubuntu release; with a newer one the build often fails "
                    "and leaves dpkg half-configured.",
                    next=f"gpu-setup plan --source in-tree, or move to {oldest[0]} (and remove {newest[0]}) first",
                ),
            )
        )
    added = repositories.repository_steps(
        host, catalogue, row := catalogue.repository("amd.driver"), "You asked for AMD's build of amdgpu."
    )
    lead = repositories.pin_step(
        host,
        f"pin-{row.name}",
        "Install only the driver from AMD's repository",
        driver_pin(row),
        "It also has AMD's Mesa and libdrm, which would replace the desktop's.",
    )
    headers = tuple(
        name
        for flavour in kernels_to_cover(host, catalogue)
        for name in names(catalogue, "kernel.headers", flavour=flavour)
    )
    wanted = (*headers, *names(catalogue, "amdgpu.dkms"))
    driver = install_step(
        host,
        "amdgpu",
        "Install amdgpu-dkms from AMD's repository",
        wanted,
        "You asked for AMD's build. DKMS builds it on this machine, which needs the kernel's headers.",
    )
    steps = (*added, lead, *(() if driver.state is State.DONE else (guard_step(MODULE),)), driver)
    steps = (*steps, module_step(host, MODULE, "AMD's module", driver))
    if enrolment := enrol_step(host, "amdgpu-dkms", MODULE):
        steps = (*steps, enrolment)
    restart = (
        reboot_step("AMD's module replaces the kernel's module at the next boot.")
        if driver.state is not State.DONE
        else None
    )
    return PlanPart(steps=steps, restart=restart)


def _restart(host: Host, cards: tuple[PlannedCard, ...], steps: tuple[Step, ...]) -> Step | None:
    idle = idle_cards(cards, MODULE)
    changed = [step for step in steps if step.state is not State.DONE]
    # the kernel's module takes over from AMD's at some next boot; one that is not loaded leaves no trace
    if all(step.id == REMOVE_DKMS for step in changed) and not idle and not _replaces_loaded(host):
        return None
    if changed:
        return reboot_step("The kernel and its amdgpu change at the next boot.")
    return reboot_for(host, MODULE, idle) if idle and host.amd.loaded is not None else None


def _kernel_note(host: Host, steps: tuple[Step, ...]) -> tuple[str, ...]:
    removes = any(step.id == REMOVE_DKMS for step in steps)
    if not (removes and host.amd.module_version and next_boot.older_kernel_is_chosen(host)):
        return ()
    note = (
        f"AMD's module stays loaded until the next boot. GRUB boots {host.kernel.next_boot} unless you choose "
        f"{host.kernel.release} in its menu (Advanced options); both have the kernel's own amdgpu."
    )
    return (note,)


def _replaces_loaded(host: Host) -> bool:
    """Whether AMD's module runs now and the next boot is of the same kernel, so that only a reboot replaces it."""
    return host.amd.module_version is not None and not next_boot.older_kernel_is_chosen(host)


def _amd_before_ubuntu(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    """A person's repository of ROCm up to 7.2 gets its pin, and Ubuntu's packages of the same names are removed."""
    row = catalogue.repository(f"{LAYOUT}legacy")
    theirs = legacy_rocm_sources(host)
    if not theirs or host.apt.pins is None:
        return ()
    steps = []
    if not any(map(is_rocm_pin, host.apt.pins)):
        steps.append(
            repositories.pin_step(
                host,
                f"pin-{row.name}",
                "Prefer AMD's packages, for ROCm only",
                rocm_pin(row),
                f"{theirs[0].file} enables AMD's repository, and Ubuntu has packages of the same names with higher "
                "version numbers: without the pin apt mixes both.",
            )
        )
    return (*steps, *_remove_ubuntus(host, catalogue))


def _remove_ubuntus(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    there = ubuntus_rocm(host, catalogue)
    if not there:
        return ()
    which = ", ".join(f"{package.name} {package.version}" for package in there)
    wanted = tuple(package.name for package in there)
    return (
        Step(
            id="rocm-remove-ubuntus",
            title="Remove Ubuntu's packages that stand in for AMD's",
            action=AptRemove(packages=wanted),
            state=State.TODO,
            because=f"{which} of Ubuntu outranks AMD's package of the same name, which AMD's other packages need in "
            "exactly their version: apt reports unmet dependencies. A pin does not replace what is installed.",
            commands=(("apt-get", "remove", "--yes", *wanted),),
            undo=f"installs {', '.join(wanted)} again",
        ),
    )


def _no_rocm_note(host: Host) -> str:
    there = ", ".join(found.path for found in host.amd.rocm or ())
    also = f" {there} is kept and not used." if there else ""
    return f"ROCm is not installed on the host: the training environment and images include their own.{also}"


def driver_pin(row: Repository) -> AptPreference:
    return repositories.origin_pin(row, row.packages, row.priority or 600, "gpu-setup-amdgpu")


def rocm_pin(row: Repository) -> AptPreference:
    return repositories.origin_pin(row, row.packages or ROCM_NAMES, row.priority or 600, "gpu-setup-rocm")


def layout(catalogue: Catalogue, cards: tuple[PlannedCard, ...]) -> tuple[Repository, str]:
    """AMD's repository with the ROCm of the GPUs' stack, and the key of its packages: names changed with 7.14 and 10.

    The newest layout that is not newer than the stack's release; the oldest (`legacy`) before the first numbered one.
    """
    stacks = [stack for seen in cards for stack in catalogue.stacks_for(seen.card)[:1]]
    wanted = max((version_numbers(stack.runtime)[:2] for stack in stacks), default=())
    rows = [row for row in catalogue.repositories if row.name.startswith(LAYOUT)]
    fitting = [row for row in rows if version_numbers(_word(row)) and version_numbers(_word(row)) <= wanted]
    chosen = max(fitting, key=lambda row: version_numbers(_word(row)), default=None)
    chosen = chosen or next(row for row in rows if not version_numbers(_word(row)))
    return chosen, f"rocm.{_word(chosen)}"


def _word(row: Repository) -> str:
    return row.name.removeprefix(LAYOUT)


def _rocm_on_host(host: Host, catalogue: Catalogue, cards: tuple[PlannedCard, ...]) -> tuple[Step, ...]:
    row, key = layout(catalogue, cards)
    targets = tuple(dict.fromkeys(seen.card.target for seen in cards))
    stale = _old_sources(host, catalogue, row)
    added = repositories.repository_steps(
        host, catalogue, row, "You asked for ROCm on the host; Ubuntu's packages of it are old."
    )
    lead = repositories.pin_step(
        host,
        f"pin-{row.name}",
        "Prefer AMD's packages, for ROCm only",
        rocm_pin(row),
        "A pin on all packages would replace the desktop's Mesa and libdrm.",
    )
    named = tuple(dict.fromkeys(name for target in targets for name in names(catalogue, key, target=target)))
    rocm = install_step(
        host,
        "rocm",
        f"Install ROCm for {' and '.join(targets)}",
        (*named, *names(catalogue, "rocm.10.libraries")),
        "You asked for it; training does not need it. This is the release that the training stack of these GPUs is "
        "built for, from AMD's repository of that release.",
    )
    if not row.fingerprints and added[0].state is not State.DONE:
        lead, rocm = repositories.block_steps(
            (lead, rocm), "The repository's key cannot be checked, so nothing is installed from it."
        )
        stale = repositories.block_steps(stale, "")
    ubuntus = _remove_ubuntus(host, catalogue) if key == OTHER_ROCM[0] else ()
    return (*_remove_old(host, catalogue, key), *ubuntus, *stale, *added, lead, rocm)


def _remove_old(host: Host, catalogue: Catalogue, key: str) -> tuple[Step, ...]:
    """ROCm of another layout is removed first: the packages conflict, and both would own the links in /opt/rocm."""
    patterns = [
        pattern
        for rule in catalogue.packages
        if rule.key in OTHER_ROCM and not (rule.key == key or rule.key.startswith(f"{key}."))
        for pattern in rule.fill(target="*")
    ]
    old = tuple(
        package.name
        for package in host.apt.packages or ()
        if package.state == "installed" and any(fnmatchcase(package.name, pattern) for pattern in patterns)
    )
    if not old:
        return ()
    state = state_of(host, True)
    return (
        Step(
            id="rocm-remove-old",
            title="Remove the other ROCm",
            action=AptRemove(packages=old),
            state=state,
            because=explain(host, "ROCm of another release conflicts with this one and must be removed first.", state),
            commands=(("apt-get", "remove", "--yes", *old),),
            undo=f"installs {', '.join(old)} again",
        ),
    )


def _old_sources(host: Host, catalogue: Catalogue, row: Repository) -> tuple[Step, ...]:
    """Source files of the other layouts are emptied: the next upgrade would install their packages again."""
    others = [other for other in catalogue.repositories if other.name.startswith(LAYOUT) and other is not row]
    found = {
        source.file
        for source in host.apt.sources or ()
        for other in others
        if source.uri.rstrip("/").startswith(tuple(uri.rstrip("/") for uri in other.uris)) and source.file != row.file
    }
    return tuple(
        Step(
            id=f"rocm-old-source-{file.rpartition('/')[2]}",
            title=f"Remove the other ROCm's repository from {file}",
            action=WriteFile(path=file, content=EMPTIED),
            state=State.TODO,
            because="apt would install the other release again with the next upgrade.",
            commands=(repositories.write_command(file),),
            undo=f"restores {file}",
        )
        for file in sorted(found)
    )
