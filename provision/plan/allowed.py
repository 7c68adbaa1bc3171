"""Everything that a plan may change: an action that is not in this list is refused by whoever carries plans out.

A new action of the planner is added here: to `_fixed_actions` if the facts do not change it, else as a case of
`AllowList.problem`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from checks.catalogue import Catalogue
from checks.rules.apt.repositories import KEY_FILE
from machine.errors import Refused
from provision.model import (
    AnyAction,
    AptInstall,
    AptKey,
    AptPreference,
    AptRemove,
    DpkgRepair,
    KernelModule,
    MokEnroll,
    Plan,
    Reboot,
    State,
    Step,
    UserGroup,
    WriteFile,
)
from provision.plan import container_engine, device_groups, repositories, unattended
from provision.plan.driver import amd, boot_guard, nvidia
from provision.plan.package_steps import names

MODULES = ("nvidia", amd.MODULE)
REPOSITORIES = ("nvidia.cuda", "nvidia.container-toolkit", "amd.driver")
GROUPS = (device_groups.AMD_GROUPS, (device_groups.DOCKER_GROUP,))

# Debian Policy 5.6.1, with an architecture, and 5.6.12
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+~:-]*")
# the packages that follow a kernel's flavour
_KERNEL_META = re.compile(r"linux-(?:image-|headers-)?[a-z][a-z0-9.+-]*")
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.+${}:@-]+)+")
_APT_SOURCE = re.compile(r"/etc/apt/sources\.list(?:\.d/[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(?:list|sources))?")
# as a directory service may name a login: never an option, a path, a list or a field of /etc/passwd
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,255}\$?")
# what the words in the catalogue's package names stand for
_WORDS = {
    "branch": r"[0-9]{3}(?:-server)?",
    "flavour": r"[a-z0-9][a-z0-9.+~-]*",
    "kernel": r"[0-9][a-z0-9.+~-]*",
    "target": r"gfx[0-9a-f]+",
}


def check_actions(plan: Plan, catalogue: Catalogue, where: str) -> None:
    """Refuse a plan with a step that gpu-setup's planner makes on no machine. `where`: what the plan was read from."""
    allowed = allow_list(catalogue)
    for step in plan.steps:
        if problem := allowed.problem(step):
            raise Refused(
                "plan.not-allowed",
                f"The plan in {where} has a step that gpu-setup never makes: {shown(step.id)}.",
                f"{problem}. Such a step is not carried out, whoever wrote it.",
                "gpu-setup plan makes a new one, gpu-setup apply carries it out.",
            )


def is_user_name(name: str) -> bool:
    return _USER.fullmatch(name) is not None


def shown(value: str) -> str:
    """A value of a plan that is not trusted, for a message: escaped and short."""
    text = value if value.isprintable() and value else ascii(value)
    return text if len(text) <= 160 else f"{text[:159]}…"


class AllowList(NamedTuple):
    """`fixed`: whole actions; `packages`: every name in the catalogue; `removable`: those that a step may remove.

    The rest are patterns of the driver's packages.
    """

    fixed: frozenset[AnyAction]
    packages: re.Pattern[str]
    removable: re.Pattern[str]
    driver_set: tuple[str, ...]
    outside_driver_set: tuple[str, ...]
    forbidden: frozenset[str]

    def problem(self, step: Step) -> str | None:
        """What the planner never makes of this, as the beginning of a sentence; None for a step that it can make."""
        if not (step.id.isprintable() and step.title.isprintable()):
            return "Its name is not one line of text"
        match step.action:
            case action if action in self.fixed:
                return None
            case AptInstall() as action:
                return self._install_problem(action, step.state)
            case AptRemove(packages=packages, removes=removes):
                return _unlike(
                    "package to remove", packages, lambda name: self.removable.fullmatch(name) is not None
                ) or _unlike("package", removes, _is_package)
            case DpkgRepair(leaving=leaving):
                return _unlike("package", leaving, _is_package)
            case UserGroup(change="add", user=user, groups=groups) if groups in GROUPS:
                return _unlike("user name", (user,), is_user_name)
            case MokEnroll(certificate=path, module=module) if module in MODULES:
                return _unlike("path", (path,), _is_path)
            case KernelModule(change="allow", name=name, file=path) if step.state is State.MANUAL and name in MODULES:
                return _unlike("path", (path,), _is_path)
            case AptKey(keyring=path) as action if self._is_known_key(action):
                return _unlike("key file", (path,), lambda text: re.fullmatch(KEY_FILE, text) is not None)
            case AptPreference(packages=packages) as action if action in nvidia.one_source_pins(packages):
                return _unlike("package of the driver", packages, self._is_in_driver_set)
            case container_engine.ROOTLESS_RUNTIME if step.state is State.MANUAL:
                return None
            case WriteFile(path=path, content=amd.EMPTIED, mode=0o644, merge=False):
                return _unlike("source file of apt", (path,), lambda text: _APT_SOURCE.fullmatch(text) is not None)
        return f"It would do this: {shown(msgspec.json.encode(step.action).decode())}"

    def _install_problem(self, action: AptInstall, state: State) -> str | None:
        """An update, and a driver that is installed and kept, name whatever exists of driver and kernel."""
        any_member = action.upgrade or action.one_source is not None or state is State.DONE

        def may_install(name: str) -> bool:
            if self._is_in_driver_set(name):
                return any_member or name.endswith(":i386") or self._is_listed(name)
            return self._is_listed(name) or (action.upgrade and _KERNEL_META.fullmatch(name) is not None)

        if action.files:
            return f"It would install the package file {shown(action.files[0])}"
        named = (*action.packages, *action.brings)
        versions = [version for one in named for version in (one.version, one.installed, one.at_least) if version]
        return (
            _unlike("package to install", (one.name for one in action.packages), may_install)
            or _unlike("package to remove", action.remove, self._is_in_driver_set)
            or _unlike("package", (*(one.name for one in action.brings), *action.removes), _is_package)
            or _unlike("version", versions, lambda text: _VERSION.fullmatch(text) is not None)
            or _unlike("package to forbid", action.forbid, self.forbidden.__contains__)
        )

    def _is_known_key(self, action: AptKey) -> bool:
        """The key of a repository, in another file than usual."""
        bare = msgspec.structs.replace(action, keyring="")
        return any(isinstance(k, AptKey) and msgspec.structs.replace(k, keyring="") == bare for k in self.fixed)

    def _is_listed(self, name: str) -> bool:
        return self.packages.fullmatch(name) is not None

    def _is_in_driver_set(self, name: str) -> bool:
        plain = name.partition(":")[0]
        return (
            _is_package(name)
            and any(fnmatchcase(plain, pattern) for pattern in self.driver_set)
            and not any(fnmatchcase(plain, pattern) for pattern in self.outside_driver_set)
        )


def allow_list(catalogue: Catalogue) -> AllowList:
    return AllowList(
        fixed=_fixed_actions(catalogue),
        packages=_names_of(catalogue, tuple(row.key for row in catalogue.packages)),
        removable=_names_of(catalogue, amd.REMOVED),
        driver_set=names(catalogue, "nvidia.driver-set"),
        outside_driver_set=names(catalogue, "nvidia.driver-set.not"),
        forbidden=frozenset(name for key in nvidia.FORBIDDEN for name in catalogue.package(key).fill(branch="*")),
    )


def _fixed_actions(catalogue: Catalogue) -> frozenset[AnyAction]:
    rows = [row for row in catalogue.repositories if row.name in REPOSITORIES or row.name.startswith(amd.LAYOUT)]
    return frozenset(
        (
            *(repositories.key_action(row) for row in rows),
            *(repositories.source_action(row) for row in rows),
            nvidia.lead_pin(catalogue.repository("nvidia.cuda")),
            nvidia.drivers_pin(catalogue),
            amd.driver_pin(catalogue.repository("amd.driver")),
            *(amd.rocm_pin(row) for row in rows if row.name.startswith(amd.LAYOUT)),
            nvidia.NO_FREE_DRIVERS,
            nvidia.PERSISTENCE,
            unattended.exclusion(catalogue),
            container_engine.RUNTIME,
            container_engine.RELOAD,
            container_engine.CDI,
            container_engine.OLDER_CDI,
            container_engine.REFRESH_CDI,
            *(boot_guard.hook_action(module) for module in MODULES),
            *(boot_guard.choice_action(module) for module in MODULES),
            *(KernelModule(name=module, change="build") for module in MODULES),
            Reboot(),
        )
    )


def _names_of(catalogue: Catalogue, keys: tuple[str, ...]) -> re.Pattern[str]:
    """Every name of these rows, each with its words (`linux-image-{flavour}`) as an expression; no shell patterns."""
    found = {name for row in catalogue.packages if row.key in keys for name in row.names if "*" not in name}
    parts = (re.split(r"\{(\w+)\}", name) for name in sorted(found))
    return re.compile(
        "|".join("".join(_WORDS[p] if i % 2 else re.escape(p) for i, p in enumerate(split)) for split in parts)
    )


def _is_package(name: str) -> bool:
    return _PACKAGE.fullmatch(name) is not None


def _is_path(text: str) -> bool:
    return _PATH.fullmatch(text) is not None


def _unlike(kind: str, values: Iterable[str], allowed: Callable[[str], bool]) -> str | None:
    wrong = next((value for value in values if not allowed(value)), None)
    return None if wrong is None else f"{shown(wrong)} is not a {kind} of any plan"
