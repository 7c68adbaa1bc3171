"""Fixes that a person can carry out on this system: the rules have Ubuntu's commands, the plan Ubuntu 24.04's."""

from __future__ import annotations

import re

import msgspec

from checks.catalogue import Catalogue, Distribution
from checks.facts.host import Host
from checks.model import Check, Finding, Fix, FixKind
from checks.rules.finding import by_hand, command, provision

_KERNEL = r"[0-9]+\.[0-9]+\.[0-9][\w.+~-]*"


def plan_supports(host: Host, catalogue: Catalogue) -> bool:
    """Whether `gpu-setup plan` has package names and repositories for this system."""
    return any(
        row.id == host.os.id
        and row.version_id == host.os.version_id
        and (host.os.arch is None or host.os.arch in row.architectures)
        for row in catalogue.systems
    )


def distribution(host: Host, catalogue: Catalogue) -> Distribution:
    """The row of this system; of one that has none only what follows from its package manager."""
    row = catalogue.distribution(host.os.id)
    if row is not None:
        return row
    base = catalogue.distribution("ubuntu" if host.os.id is None or host.apt.packages is not None else "nixos")
    assert base is not None
    name = host.os.pretty or host.os.id or "this system"
    note = "Use its own packages, or NVIDIA's driver installation guide."
    return msgspec.structs.replace(base, name=name, driver=(), driver_note=note)


def own_kernel(host: Host, catalogue: Catalogue) -> bool | None:
    """Whether the running kernel is one that the distribution builds; None: distribution or release not known."""
    row = catalogue.distribution(host.os.id)
    if row is None or host.kernel.release is None:
        return None
    return re.fullmatch(row.kernels, host.kernel.release) is not None


def install_driver(host: Host, catalogue: Catalogue, text: str, *, verify: tuple[str, ...] = ()) -> Fix:
    """NVIDIA's driver from the plan, or where that does not support the system from the distribution's packages."""
    if plan_supports(host, catalogue):
        return provision(text, reboot=True, verify=verify)
    row = distribution(host, catalogue)
    said, argv = f"Install NVIDIA's driver for {row.name}, then reboot. {row.driver_note}", row.driver
    if argv[:1] == ("ubuntu-drivers",) and host.os.graphical is False:
        # Ubuntu Server documentation, NVIDIA drivers installation
        said, argv = f"{said} On a server add nvidia-utils-BRANCH-server for nvidia-smi.", (*argv, "--gpgpu")
    return command(said, *argv, sudo=True, reboot=True, verify=verify) if argv else by_hand(said)


def without_parameters(host: Host, catalogue: Catalogue, parameters: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """What to edit so that the kernel gets these parameters no more, and the command after it (empty: not known)."""
    row = distribution(host, catalogue)
    words = " and ".join(f"`{word}`" for word in parameters)
    files = tuple(dict.fromkeys(file for file, word in host.kernel.boot_parameters if word in parameters))
    if not row.boot:
        return f"remove {words} from the kernel command line in the boot loader's settings", ()
    if row.boot_file:
        where = " and ".join(files) or f"the boot loader's settings ({row.boot_file} or a file in {row.boot_file}.d)"
        return f"remove {words} from {where}", row.boot
    return f"remove {words} from the kernel command line", tuple(
        part.replace("{word}", " ".join(parameters)) for part in row.boot
    )


def fit(finding: Finding, check: Check, host: Host, catalogue: Catalogue) -> Finding:
    """The finding with a fix that exists on this system."""
    if finding.fix is None or plan_supports(host, catalogue):
        return finding
    return msgspec.structs.replace(finding, fix=_fitting(finding.fix, check, distribution(host, catalogue)))


def _fitting(fix: Fix, check: Check, row: Distribution) -> Fix:
    has_apt = row.install[:1] == ("apt-get",)
    if fix.kind is FixKind.PROVISION:
        how = check.by_hand if has_apt else f"Follow the vendor's guide for {row.name}."
        text = f"gpu-setup apply does not support {row.name}. {how}"
        return msgspec.structs.replace(fix, kind=FixKind.DOCS, text=text, argv=())
    if fix.argv[:1] == ("update-initramfs",):
        return _with(fix, row.initramfs)
    if fix.argv[:1] == ("update-grub",):
        return _with(fix, row.boot if row.boot_file else ())
    if fix.argv[:2] == ("apt-get", "install") and not has_apt:
        return _with(fix, _installing(fix.argv[2:], row))
    if fix.argv[:1] in (("apt-get",), ("dpkg",)) and not has_apt:
        return _with(fix, ())
    return fix


def _with(fix: Fix, argv: tuple[str, ...]) -> Fix:
    """Without a command only the text is left."""
    return msgspec.structs.replace(fix, argv=argv, kind=fix.kind if argv else FixKind.DOCS)


def _installing(packages: tuple[str, ...], row: Distribution) -> tuple[str, ...]:
    """The command that installs Ubuntu's `packages`; empty where not all of their names are known."""
    names = []
    for name in (part for part in packages if not part.startswith("-")):
        kernel = (re.search(rf"(?<=-){_KERNEL}$", name) or [""])[0]
        pattern = name.removesuffix(kernel) + "{kernel}" * bool(kernel)
        names.append(dict(row.packages).get(pattern, "").replace("{kernel}", kernel))
    return (*row.install, *names) if row.install and all(names) else ()
