"""A model of what a plan does to a machine's facts: each action, then the reboot. For the tests of its promises.

Packages get the versions that their source has; what DKMS builds for the next kernel succeeds once its headers exist.
A reboot loads what the next boot finds: the module's file, if nothing keeps it off and it fits card and libraries.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import (
    AptPreference as Pin,
)
from checks.facts.host import AptSource, DeviceNode, DkmsBuild, Docker, Host, KfdNode, ModuleFile, NvmlGpu, Package
from checks.rules import next_boot
from checks.rules.installed import origin
from provision.model import (
    AptInstall,
    AptKey,
    AptPreference,
    AptRemove,
    AptRepo,
    DpkgRepair,
    KernelModule,
    Plan,
    Service,
    State,
    UserGroup,
    WriteFile,
)
from provision.plan import container_engine
from provision.plan.driver.kernels import version_numbers
from provision.plan.plan_cards import supported_cards

replace = msgspec.structs.replace
KFD = DeviceNode(path="/dev/kfd", mode=0o660, group=992, group_name="render", usable=True)
NEWEST_KERNEL = "6.17.0-35-generic"
_META = re.compile(r"(?:nvidia-driver|nvidia-headless-no-dkms)-([0-9]{3})(-server)?(-open)?")
_LIBRARIES = re.compile(r"(?:nvidia-driver|nvidia-utils|libnvidia-compute|nvidia-open|cuda-drivers)(?:-[0-9]{3}.*)?")
_PREBUILT = re.compile(r"linux-modules-nvidia-([0-9]{3})((?:-server)?(?:-open)?)-(.+)")


def after(host: Host, plan: Plan, catalogue: Catalogue) -> Host:
    """The facts after every step that gpu-setup carries out by itself, and after the reboot if the plan has one."""
    done = _Machine(host, catalogue)
    for step in plan.steps:
        if step.state is State.TODO:
            done.apply(step.action)
    return reboot(done.host(), catalogue) if plan.reboots else done.host()


class _Machine:
    """Facts in a form that changes: packages, pins, sources and module files."""

    def __init__(self, host: Host, catalogue: Catalogue) -> None:
        self._host, self._catalogue = host, catalogue
        self._packages = {package.name: package for package in host.apt.packages or ()}
        self._broken = list(host.apt.broken or ())

    def host(self) -> Host:
        here = self._host
        broken = tuple(name for name in self._broken if name in self._packages)
        apt = replace(here.apt, packages=tuple(self._packages.values()), broken=broken)
        return replace(here, apt=apt)

    def apply(self, action: Any) -> None:
        match action:
            case AptKey(keyring=path):
                self._apt(missing_keys=tuple(key for key in self._host.apt.missing_keys or () if key != path))
            case AptRepo(file=file, uris=uris, suite=suite, signed_by=key):
                rows = [row for row in self._catalogue.repositories if row.uris == uris]
                source = AptSource(file=file, uri=uris[0], suite=suite, signed_by=key, owner=rows[0].owner)
                self._apt(sources=(*(self._host.apt.sources or ()), source))
            case AptPreference(file=file, packages=packages, pin=pin, priority=priority):
                row = Pin(file=file, packages=" ".join(packages), pin=pin, priority=priority)
                self._apt(pins=(*(self._host.apt.pins or ()), row))
            case DpkgRepair(leaving=leaving):
                self._broken = [name for name in self._broken if name in leaving]
                self._apt(interrupted=False)
                for name, package in self._packages.items():
                    if name not in leaving and package.state in ("half-configured", "unpacked", "triggers-pending"):
                        self._packages[name] = replace(package, state="installed")
            case AptRemove(packages=packages):
                self._remove(packages)
            case AptInstall(packages=packages, remove=remove, one_source=source):
                self._remove(remove)
                for wanted in packages:
                    self._install(wanted.name, source)
            case WriteFile(path=path, content=content):
                self._write(path, content)
            case Service(unit=container_engine.CDI_REFRESH):
                older = tuple((path, "0.5.0") for path, _ in self._host.nvidia.cdi_schemas or ())
                self._nvidia(cdi_schemas=older)
            case KernelModule(change="build", name=name):
                self._build(name)
            case UserGroup(groups=groups):
                person = self._host.person
                both = tuple(dict.fromkeys((*(person.database_groups or ()), *groups)))
                # the person logs in again, as the step says
                self._host = replace(self._host, person=replace(person, database_groups=both, groups=both))
                amd = self._host.amd
                nodes = tuple(_opened(node, both) for node in amd.render or ())
                kfd = _opened(amd.kfd, both) if amd.kfd else None
                self._host = replace(self._host, amd=replace(amd, kfd=kfd, render=nodes))

    def _apt(self, **fields: Any) -> None:
        self._host = replace(self._host, apt=replace(self._host.apt, **fields))

    def _kernel(self, **fields: Any) -> None:
        self._host = replace(self._host, kernel=replace(self._host.kernel, **fields))

    def _nvidia(self, **fields: Any) -> None:
        self._host = replace(self._host, nvidia=replace(self._host.nvidia, **fields))

    def _remove(self, names: tuple[str, ...]) -> None:
        kernel = self._host.kernel
        modules, builds = list(kernel.modules or ()), list(kernel.dkms or ())
        for name in names:
            self._packages.pop(name, None)
            vendor = "amdgpu" if name.startswith("amdgpu-dkms") else "nvidia"
            if "dkms" in name:
                modules = [row for row in modules if not (row.name.startswith(vendor) and row.origin == "dkms")]
                builds = [row for row in builds if not row.module.startswith(vendor)]
            if match := _PREBUILT.fullmatch(name):
                folder = f"/{_folder(match)}/"
                modules = [row for row in modules if folder not in row.path]
        self._kernel(modules=tuple(modules), dkms=tuple(builds))

    def _install(self, name: str, source: str | None) -> None:
        known = self._packages.get(name)
        if known is None or known.state != "installed" or (source and not _is_from(known, source)):
            self._packages[name] = Package(name=name, version=self._version(name, known, source), state="installed")
        kernel, release = self._host.kernel, self._host.kernel.next_boot or self._host.kernel.release or ""
        if match := _PREBUILT.fullmatch(name):
            kernels = [match[3]] if match[3][:1].isdigit() else [release]
            folder = _folder(match)
            self._add_modules(*(_module("nvidia", one, folder, "prebuilt") for one in kernels))
        elif match := _META.fullmatch(name):
            off = ("nouveau", "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf")
            self._kernel(blacklisted=tuple(dict.fromkeys((*(kernel.blacklisted or ()), off))))
            self._packages[f"libnvidia-compute-{match[1]}{match[2] or ''}"] = replace(
                self._packages[name], name=f"libnvidia-compute-{match[1]}{match[2] or ''}"
            )
        if _LIBRARIES.fullmatch(name):
            version = _upstream(self._packages[name].version)
            firmware = tuple(dict.fromkeys((*(self._host.nvidia.firmware or ()), version)))
            problem = self._host.nvidia.nvml_problem
            problem = "not-loaded" if problem == "absent" and not self._host.nvidia.module_version else problem
            self._nvidia(library_version=version, firmware=firmware, nvml_problem=problem)
        if name.startswith(("linux-headers-", "nvidia-dkms", "nvidia-open", "cuda-drivers")):
            self._kernel(headers=tuple(dict.fromkeys((*(kernel.headers or ()), release))))
            if any(row.module == "nvidia" for row in kernel.dkms or ()):
                self._build("nvidia")
        if name.startswith(("nvidia-dkms", "nvidia-open", "cuda-drivers", "amdgpu-dkms")):
            self._build("amdgpu" if name.startswith("amdgpu") else "nvidia")
        if name.startswith("linux-modules-extra-"):
            self._add_modules(_module("amdgpu", name.removeprefix("linux-modules-extra-"), "kernel", "in-tree"))
        if re.fullmatch(r"linux-(?:image-)?generic-hwe-24\.04", name) and known is None:
            installed = tuple(dict.fromkeys((*(kernel.installed or ()), NEWEST_KERNEL)))
            self._kernel(installed=installed, next_boot=NEWEST_KERNEL)
            self._add_modules(_module("amdgpu", NEWEST_KERNEL, "kernel", "in-tree"))
        python, docker = self._host.python, self._host.docker
        if name == "build-essential":
            self._host = replace(self._host, python=replace(python, compiler="/usr/bin/cc"))
        if name == "python3-dev":
            self._host = replace(self._host, python=replace(python, headers=True))
        if name == "python3-venv":
            self._host = replace(self._host, python=replace(python, venv=True))
        if name == "docker.io":
            new = Docker(kind="docker.io", version="28.2.2", answers=True, runtimes=("runc",))
            self._host = replace(self._host, docker=new if docker.kind is None else docker)
        if name == "nvidia-container-toolkit":
            self._nvidia(container_toolkit=self._packages[name].version.partition("-")[0])

    def _version(self, name: str, known: Package | None, source: str | None) -> str:
        branch = next(iter(re.findall(r"-([0-9]{3})(?:-|$)", name)), "")
        if known is not None and known.version[:3] == branch:
            last = "1ubuntu1" if source == "nvidia" else "0ubuntu0.24.04.1"
            return f"{_upstream(known.version)}-{last}"
        archive = any(_META.fullmatch(one) for one in self._packages)
        last = "0ubuntu0.24.04.1" if (branch and archive) or _META.fullmatch(name) else "1ubuntu1"
        return f"{branch or '595'}.201.01-{last}" if "nvidia" in name or name == "cuda-drivers" else "1.0-1build1"

    def _build(self, module: str) -> None:
        release = self._host.kernel.next_boot or ""
        version = self._host.nvidia.library_version if module == "nvidia" else "6.16.13"
        build = DkmsBuild(module=module, version=version or "595.201.01", kernel=release, state="installed")
        builds = [row for row in self._host.kernel.dkms or () if (row.module, row.kernel) != (module, release)]
        self._kernel(dkms=(*builds, build))
        self._add_modules(_module(module, release, "updates/dkms", "dkms"))

    def _add_modules(self, *files: ModuleFile) -> None:
        self._kernel(modules=tuple(dict.fromkeys((*(self._host.kernel.modules or ()), *files))))

    def _write(self, path: str, content: str) -> None:
        if "/modprobe.d/" in path:
            names = tuple(line.split()[1] for line in content.splitlines() if line.startswith("blacklist "))
            pairs = (*(self._host.kernel.blacklisted or ()), *((name, path) for name in names))
            self._kernel(blacklisted=pairs)
        if "/apt.conf.d/" in path:
            blocks = (*(self._host.apt.unattended_blocks or ()), *re.findall(r'"(.+)"', content))
            self._apt(unattended_blocks=blocks)
        if path == "/etc/docker/daemon.json":
            docker = self._host.docker
            runtimes = tuple(dict.fromkeys((*(docker.runtimes or ()), "nvidia")))
            self._host = replace(self._host, docker=replace(docker, runtimes=runtimes))


def reboot(host: Host, catalogue: Catalogue) -> Host:
    """The facts of the next boot: its kernel, an empty log, and each card with its driver if that can take it."""
    kernel = replace(host.kernel, release=host.kernel.next_boot or host.kernel.release, log=())
    host = replace(host, kernel=kernel, apt=replace(host.apt, reboot_required=False, reboot_packages=()))
    ours = {seen.pci.slot: seen for seen in supported_cards(host, catalogue)}
    cards = []
    for card in host.cards or ():
        module = {"10de": "nvidia", "1002": "amdgpu"}.get(card.vendor)
        takes = (
            module is not None
            and card.slot in ours
            and _takes(host, module, ours[card.slot].card.generation, catalogue)
        )
        cards.append(replace(card, driver=module) if takes else card)
    host = replace(host, cards=tuple(cards))
    loaded = {card.driver for card in cards if card.driver}
    host = replace(host, kernel=replace(host.kernel, loaded=tuple(loaded | set(host.kernel.loaded or ()))))
    file = next_boot.module_file(host, "nvidia")
    if "nvidia" in loaded and file is not None:
        version = host.nvidia.library_version if next_boot.nvidia_matches(host) is not False else "1.0"
        gpus = tuple(NvmlGpu(slot=card.slot, name="GPU") for card in cards if card.driver == "nvidia")
        right = next_boot.nvidia_matches(host) is not False
        nvidia = replace(
            host.nvidia,
            module_version=version,
            open_module=_is_open(host, file),
            nvml=gpus if right else None,
            nvml_driver=version if right else None,
            nvml_problem=None if right else "mismatch",
        )
        host = replace(host, nvidia=nvidia)
    file = next_boot.module_file(host, "amdgpu")
    if "amdgpu" in loaded and file is not None:
        version = "6.16.13" if file.origin == "dkms" else None
        nodes = tuple(KfdNode(index=1, gfx=ours[c.slot].card.target, slot=c.slot) for c in cards if c.slot in ours)
        host = replace(
            host, amd=replace(host.amd, loaded=True, module_version=version, nodes=nodes, kfd=host.amd.kfd or KFD)
        )
    return host


def _takes(host: Host, module: str, generation: str, catalogue: Catalogue) -> bool:
    """Whether the module of the next boot takes a card of this generation."""
    file = next_boot.module_file(host, module)
    if file is None or next_boot.blocks(host, module):
        return False
    if module == "amdgpu":
        return True
    off = {name for name, _ in host.kernel.blacklisted or ()}
    if any(name in (host.kernel.loaded or ()) and name not in off for name in ("nouveau", "nova_core")):
        return False
    version = host.nvidia.library_version
    row = catalogue.branch(version_numbers(version)[0]) if version else None
    kinds = (row.proprietary_only if _is_open(host, file) else row.open_only) if row else ()
    return row is None or (row.drives(generation) and generation not in kinds)


def _is_open(host: Host, file: ModuleFile) -> bool:
    built = [name for name in _names(host) if re.fullmatch(r"nvidia-(?:dkms-[0-9]{3}-open|dkms-open|open.*)", name)]
    return "-open" in file.path if file.origin == "prebuilt" else bool(built)


def _opened(node: DeviceNode, groups: tuple[str, ...]) -> DeviceNode:
    return replace(node, usable=True) if node.group_name in groups else node


def _names(host: Host) -> tuple[str, ...]:
    return tuple(package.name for package in host.apt.packages or () if package.state == "installed")


def _folder(match: re.Match[str]) -> str:
    """Where Ubuntu's packages of the module put it: nvidia-580-open, nvidia-580srv-open."""
    return f"kernel/nvidia-{match[1]}{match[2].replace('-server', 'srv')}"


def _module(name: str, kernel: str, folder: str, origin: Any) -> ModuleFile:
    return ModuleFile(name=name, kernel=kernel, path=f"/lib/modules/{kernel}/{folder}/{name}.ko.zst", origin=origin)


def _is_from(package: Package, source: str) -> bool:
    return origin(package, "ubuntu") in (None, {"ubuntu": "Ubuntu", "nvidia": "NVIDIA"}[source])


def _upstream(version: str) -> str:
    return re.sub(r"^[0-9]+:", "", version).partition("-")[0]
