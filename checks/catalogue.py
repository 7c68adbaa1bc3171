"""What we know about cards, stacks and packages: data/*.toml loaded into frozen, validated types."""

from __future__ import annotations

import os
from binascii import crc32
from functools import cache, cached_property
from typing import Literal

import msgspec


class TableRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every row; an unknown key in a data file is an error. (msgspec does not inherit kw_only.)"""


VENDORS = {"10de": "nvidia", "1002": "amd"}
# the generation of a card that the tables do not have: every older one is in the PCI id database
NEWER = "newer"


class Card(TableRow, frozen=True, kw_only=True):
    """A card by PCI id; AMD boards with the same id differ in `revisions`. GB, GB/s, W, TFLOPS (dense).

    `target` empty: no CUDA or ROCm program ever ran on it, or (`unknown`) it is not known. `tflops_kind` is fp16 if the
    card has no BF16; `tflops_basis` memory: not confirmed by a source. Figures are for one PCI device, so half of a
    board that carries two. `supported`: some stack has kernels for it.
    """

    vendor: str
    name: str
    devices: tuple[str, ...]
    revisions: tuple[str, ...] = ()
    chip: str
    generation: str
    target: str
    vram_gb: float | None = None
    bandwidth_gbs: float | None = None
    tflops: float | None = None
    tflops_kind: Literal["bf16", "fp16"] | None = None
    tflops_basis: Literal["table", "computed", "memory"] | None = None
    power_w: float | None = None
    pcie: str | None = None
    integrated: bool = False
    supported: bool = True
    note: str = ""
    source: str
    date: str

    @property
    def unknown(self) -> bool:
        """Neither the tables nor a driver say what it is: it is newer than the tables."""
        return self.generation == NEWER and not self.target


class MemorySize(TableRow, frozen=True, kw_only=True):
    """The memory of cards that have no row of their own, by their names in the PCI id database. GB."""

    vram_gb: float
    names: tuple[str, ...]


class Chip(TableRow, frozen=True, kw_only=True):
    """What the chips are whose names begin like one of `chips`, and the PCI ids `devices`. See chips.toml.

    `unofficial`: AMD does not list it as supported by ROCm, although a stack has kernels for it.
    """

    vendor: str
    chips: tuple[str, ...]
    devices: tuple[str, ...] = ()
    generation: str
    target: str = ""
    integrated: bool = False
    supported: bool = True
    unofficial: bool = False
    note: str = ""
    source: str
    date: str


class Override(TableRow, frozen=True, kw_only=True):
    """GPUs that run as `runs_as` with HSA_OVERRIDE_GFX_VERSION=`value`; AMD does not support it officially."""

    targets: tuple[str, ...]
    runs_as: str
    value: str
    note: str = ""
    source: str
    date: str


class Stack(TableRow, frozen=True, kw_only=True):
    """A training stack: what torch needs, and what is installed with it. `targets` empty: any (cpu).

    `driver_branch` is the NVIDIA branch of `driver_floor`; `kernel_floors` maps an AMD target to the oldest kernel
    whose in-tree amdgpu supports it (absent: not known). `torch_builds`: the builds of torch that are right for this
    stack, the whole version → the lock of its wheels (empty: no sha256 is known). `torch_python`: the oldest Python
    that has wheels of it. `torch_fallback`: builds that run on it as well and are larger, their locks with their
    libraries. `torch_extras` belong to the requirement (`torch[device-gfx1100]`), {target} to fill in; `torch_brings`:
    torch's libraries come with it instead of from the lock. `hip`: the beginning of torch.version.hip. `base` is the
    row of `bases` that its image is built from.
    """

    name: str
    vendor: Literal["nvidia", "amd", "cpu"]
    runtime: str
    driver_floor: str | None = None
    driver_branch: int | None = None
    kernel_floor: str | None = None
    kernel_floors: dict[str, str] = {}
    torch: str
    torch_index: str
    torch_builds: dict[str, str]
    torch_python: str | None = None
    torch_fallback: dict[str, str] = {}
    torch_extras: tuple[str, ...] = ()
    torch_brings: bool = False
    hip: str | None = None
    base: str = "ubuntu:24.04"
    axolotl: str
    bitsandbytes: str
    pythons: tuple[str, ...]
    targets: tuple[str, ...] = ()
    lock: str | None = None
    verified: str = "unverified"
    note: str = ""
    source: str
    date: str

    def for_target(self, *targets: str) -> Stack:
        """The stack with the cards' targets filled into torch's extras, one of each kind a target."""
        extras = (extra.format(target=target) for extra in self.torch_extras for target in targets)
        return msgspec.structs.replace(self, torch_extras=tuple(dict.fromkeys(extras)))

    def runs(self, target: str) -> bool:
        """Whether its kernels run on this target. CUDA's run on later minor versions of their major version too."""
        if target in self.targets:
            return True
        major, _, minor = target.partition(".")
        own = [row.partition(".")[::2] for row in self.targets]
        return minor.isdecimal() and any(major == first and int(second) <= int(minor) for first, second in own)

    @property
    def usable_builds(self) -> dict[str, str]:
        """Every build of torch that an environment of this stack may have → its lock."""
        return {**self.torch_builds, **self.torch_fallback}

    @property
    def torch_requirement(self) -> str:
        """pip's requirement for the preferred build: `torch==2.13.0+cpu`, with extras if the stack has some."""
        return self.requirement_of(next(iter(self.torch_builds)))

    def requirement_of(self, build: str) -> str:
        """pip's requirement for this build and no other."""
        extras = f"[{','.join(self.torch_extras)}]" if self.torch_extras else ""
        # == 2.13.0 would take 2.13.0+cpu too
        return f"torch{extras}{'==' if '+' in build else '==='}{build}"


class BaseImage(TableRow, frozen=True, kw_only=True):
    """The base of an image: its name as in a Dockerfile, the index's digest, its Python, and its apt packages.

    `packages` stay in the image, `build_packages` are only needed to build. Without a digest no stack uses it.
    """

    image: str
    digest: str | None = None
    python: str
    packages: tuple[str, ...]
    build_packages: tuple[str, ...] = ()
    note: str = ""
    source: str
    date: str

    @property
    def reference(self) -> str:
        return f"{self.image}@{self.digest}" if self.digest else self.image


class PackageRule(TableRow, frozen=True, kw_only=True):
    """Names of packages: `key` is our name, `names` are apt's, with words in braces ({branch}) to fill in.

    Rows may share a key where names changed: `since_branch` is the first NVIDIA branch of a row, `before_branch` the
    first that it no longer holds for. `version`: if all must have the same, the newest one known to a source;
    `at_least`: the oldest that has what is needed.
    """

    key: str
    names: tuple[str, ...]
    since_branch: int | None = None
    before_branch: int | None = None
    version: str | None = None
    at_least: str | None = None
    because: str
    source: str
    date: str

    def fill(self, **words: str | int) -> tuple[str, ...]:
        """The names with their words filled in; raises KeyError on a word that is missing."""
        return tuple(name.format(**words) for name in self.names)


class Repository(TableRow, frozen=True, kw_only=True):
    """A vendor's apt repository for Ubuntu 24.04 on amd64.

    `fingerprints` empty: no source gave one, so the key cannot be checked before it is trusted. `owner` is as in
    `AptSource.owner`. `origin` is the host that `Pin: origin` names; with `priority` and `packages` it is the pin
    that prevents it from replacing other packages. `key_bundle`: the key's file holds the same key twice (binary,
    then armoured); apt's gpgv refuses it as it is.
    """

    name: str
    vendor: str
    owner: str
    uris: tuple[str, ...]
    suite: str
    components: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("amd64",)
    file: str
    keyring: str
    key_url: str
    fingerprints: tuple[str, ...] = ()
    key_bundle: bool = False
    origin: str | None = None
    priority: int | None = None
    packages: tuple[str, ...] = ()
    note: str = ""
    verified: str = "unverified"
    source: str
    date: str


class Branch(TableRow, frozen=True, kw_only=True):
    """An NVIDIA driver branch.

    `drops`: generations that it no longer supports; `lacks`: those that are newer than it; `open_only`: those that it
    supports only with the open kernel module; `proprietary_only`: those that need the other one; `seen`: versions known
    to a source, oldest first.
    """

    number: int
    kind: Literal["production", "lts", "feature", "old"]
    drops: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    open_only: tuple[str, ...] = ()
    proprietary_only: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    note: str = ""
    source: str
    date: str

    def drives(self, generation: str) -> bool:
        return generation not in self.drops and generation not in self.lacks


class Library(TableRow, frozen=True, kw_only=True):
    """A Python library that must have at least the version `floor` where `backend` (cuda, rocm) is of `since` or newer.

    For rocm the number is HIP's, which torch carries.
    """

    name: str
    backend: Literal["cuda", "rocm"]
    since: str
    floor: str
    because: str
    source: str
    date: str


class Build(TableRow, frozen=True, kw_only=True):
    """Published wheels: the GPUs that the versions `since` to `until` have kernels for, built for `runtimes`.

    `runtimes` are like `cuda 12.8`; `rocm` alone is any version. `targets` are compute capabilities or gfx names; newer
    NVIDIA GPUs compile the code for `ptx` at run time. `machine` is the CPU's architecture.
    """

    runtimes: tuple[str, ...]
    since: str
    until: str
    targets: tuple[str, ...]
    ptx: str | None = None
    machine: str = "x86_64"
    source: str
    date: str


class CudaCompiler(TableRow, frozen=True, kw_only=True):
    """The versions of CUDA that compile for a compute capability; `8` is all 8.x. `until` None: still."""

    capability: str
    since: str
    until: str | None = None
    source: str
    date: str


class Xid(TableRow, frozen=True, kw_only=True):
    """An NVRM Xid number: its meaning, and what NVIDIA recommends; `fix` where that is work on the hardware."""

    number: int
    meaning: str
    action: Literal["restart-app", "reset-gpu", "reboot", "ignore", "contact", "workflow", "watch", "info"]
    reading: str = ""
    program: bool = False
    hardware: bool = False
    fix: str = ""
    source: str
    date: str


class LogLine(TableRow, frozen=True, kw_only=True):
    """What a line of a GPU driver in the kernel log means; `words` are lower case, `*` is any text.

    It is `harmless` (and why), or another `check` judges it, or it `means` a fault: a clause about the card.
    """

    words: tuple[str, ...]
    driver: Literal["nvidia", "amdgpu", ""] = ""
    harmless: str = ""
    check: str = ""
    severity: Literal["error", "warning", ""] = ""
    means: str = ""
    why: str = ""
    kind: Literal["reboot", "hardware", "firmware", "docs", ""] = ""
    fix: str = ""
    source: str
    date: str


class System(TableRow, frozen=True, kw_only=True):
    """An operating system that the package names and repositories hold for."""

    id: str
    version_id: str
    architectures: tuple[str, ...]
    name: str
    source: str
    date: str


class Distribution(TableRow, frozen=True, kw_only=True):
    """How a person changes drivers, packages and boot parameters on a distribution, by the ids of /etc/os-release.

    `kernels` is a pattern for the releases of its own kernels. `install` is the beginning of the command that installs
    packages, `packages` pairs Ubuntu's name of a package with its name here ({kernel} is a kernel's release).
    `driver` installs NVIDIA's driver, after `driver_note`; `module` builds its module for a kernel. `boot` applies a
    changed kernel command line, which is in `boot_file`; where that is empty, `boot` itself removes a parameter
    ({word}).
    """

    ids: tuple[str, ...]
    name: str
    kernels: str = ".*"
    install: tuple[str, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()
    driver: tuple[str, ...] = ()
    driver_note: str
    module: tuple[str, ...] = ()
    initramfs: tuple[str, ...] = ()
    boot: tuple[str, ...] = ()
    boot_file: str = ""
    source: str
    date: str


class CdiReader(TableRow, frozen=True, kw_only=True):
    """From `since` on, this engine reads CDI files of the version `schema`; older ones refuse the whole file.

    The rows of an engine are in the order of age; before its first it has no CDI.
    """

    engine: Literal["docker", "podman"]
    schema: str
    since: str
    source: str
    date: str


class Catalogue(TableRow, frozen=True, kw_only=True, dict=True):
    """Every table. `stacks` are in order of preference; `repositories` and `branches` in order of age."""

    cards: tuple[Card, ...]
    memory: tuple[MemorySize, ...] = ()
    chips: tuple[Chip, ...] = ()
    overrides: tuple[Override, ...] = ()
    stacks: tuple[Stack, ...]
    bases: tuple[BaseImage, ...] = ()
    packages: tuple[PackageRule, ...]
    repositories: tuple[Repository, ...] = ()
    branches: tuple[Branch, ...]
    xids: tuple[Xid, ...]
    log_lines: tuple[LogLine, ...] = ()
    systems: tuple[System, ...] = ()
    libraries: tuple[Library, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    cdi_readers: tuple[CdiReader, ...] = ()
    torch_builds: tuple[Build, ...] = ()
    bitsandbytes_builds: tuple[Build, ...] = ()
    cuda_compilers: tuple[CudaCompiler, ...] = ()

    def card(
        self, vendor: str, device: str, revision: str | None, target: str | None = None, name: str | None = None
    ) -> Card | None:
        """What a card is: its row here, or what the PCI id database and the chip say; None: of another vendor.

        A row that names revisions matches only those, and wins over one that does not. `target` and `name` are the
        driver's own: its target has the last word, its name is taken where none is known.
        """
        if vendor not in VENDORS:
            return None
        key = (vendor, device, revision, target, name)
        if key not in self._found:
            card = self._row(vendor, device, revision) or self._from_database(vendor, device, revision)
            self._found[key] = self._as_reported(card, target, name)
        return self._found[key]

    @cached_property
    def _found(self) -> dict[tuple[str | None, ...], Card]:
        return {}

    def _row(self, vendor: str, device: str, revision: str | None) -> Card | None:
        rows = self._cards_by_id.get((vendor, device), ())
        exact = [row for row in rows if revision in row.revisions]
        return next(iter(exact or [row for row in rows if not row.revisions]), None)

    @cached_property
    def _cards_by_id(self) -> dict[tuple[str, str], list[Card]]:
        found: dict[tuple[str, str], list[Card]] = {}
        for row in self.cards:
            for device in row.devices:
                found.setdefault((row.vendor, device), []).append(row)
        return found

    def _from_database(self, vendor: str, device: str, revision: str | None) -> Card:
        from checks.devices import find_device, source

        found = find_device(vendor, device, revision)
        chip = self.chip(vendor, device, found.chip) if found else None
        label, name = found.chip if found else "", found.name if found else ""
        note = chip.note if chip else ""
        if found and found.of_several:
            note = "; ".join(filter(None, (note, f"one of {name}: only the revision byte shows which")))
            name = ""
        if not name:
            brand = "NVIDIA" if vendor == "10de" else "AMD"
            name = (
                f"{label or f'{brand} GPU {vendor}:{device}'} ({'board not known' if chip else 'unknown to gpu-setup'})"
            )
        target = chip.target if chip else ""
        return Card(
            vendor=vendor,
            name=name,
            devices=(device,),
            chip=label,
            generation=chip.generation if chip else NEWER,
            target=target,
            vram_gb=self._memory_by_name.get(name) or _size_in(name),
            integrated=chip.integrated if chip else False,
            supported=bool(chip and chip.supported and self._stacks_with(vendor, target)),
            note=note,
            source=f"{source()}; {chip.source}" if chip else source(),
            date=chip.date if chip else "",
        )

    @cached_property
    def _memory_by_name(self) -> dict[str, float]:
        return {name: row.vram_gb for row in self.memory for name in row.names}

    def chip(self, vendor: str, device: str, chip: str) -> Chip | None:
        """The row for this PCI id, or the one with the longest beginning of this chip's name."""
        rows = [row for row in self.chips if row.vendor == vendor]
        named = ((len(start), row) for row in rows for start in row.chips if start and chip.startswith(start))
        exact = next((row for row in rows if device in row.devices), None)
        return exact or max(named, key=lambda pair: pair[0], default=(0, None))[1]

    def _as_reported(self, card: Card, target: str | None, name: str | None) -> Card:
        """The card as its driver describes it, where that differs. Of a known card, an unheard-of target is damage."""
        if card.generation == NEWER and name:
            card = msgspec.structs.replace(card, name=name.removeprefix("NVIDIA "))
        if not target or target == card.target:
            return card
        same = [row for row in self.chips if row.vendor == card.vendor and row.target == target]
        if not same and card.generation != NEWER:
            return card
        return msgspec.structs.replace(
            card,
            target=target,
            generation=same[0].generation if same else self._generation(card.vendor, target),
            integrated=all(row.integrated for row in same) if same else card.integrated,
            supported=all(row.supported for row in same) and bool(self._stacks_with(card.vendor, target)),
            note="" if card.generation == NEWER else card.note,
        )

    def _generation(self, vendor: str, target: str) -> str:
        """Of a target that no chip here has: that of the next older one of the same major version, or a newer one."""
        major, _, minor = target.partition(".")
        older = [
            (int(second), row.generation)
            for row in self.chips
            for first, _, second in (row.target.partition("."),)
            if row.vendor == vendor and first == major and second.isdecimal() and minor.isdecimal()
            if int(second) <= int(minor)
        ]
        return max(older)[1] if older else NEWER

    def stacks_for(self, card: Card) -> tuple[Stack, ...]:
        """The stacks that have kernels for this card, the preferred one first."""
        return self._stacks_with(card.vendor, card.target) if card.supported else ()

    def _stacks_with(self, vendor: str, target: str) -> tuple[Stack, ...]:
        return tuple(row for row in self.stacks if row.vendor == VENDORS.get(vendor) and row.runs(target))

    def override(self, target: str) -> Override | None:
        """As which other GPU this one can run; None: it cannot, or need not."""
        return next((row for row in self.overrides if target in row.targets), None)

    def stack(self, name: str) -> Stack:
        return next(row for row in self.stacks if row.name == name)

    def base(self, image: str) -> BaseImage | None:
        """The row for an image by its name, with or without a digest."""
        return next((row for row in self.bases if row.image == image.partition("@")[0]), None)

    def package(self, key: str, branch: int | None = None) -> PackageRule:
        """The rule of this key, for this NVIDIA branch where names depend on it; raises KeyError if there is none."""
        for row in self.packages:
            if row.key == key and (
                branch is None or (row.since_branch or 0) <= branch < (row.before_branch or branch + 1)
            ):
                return row
        raise KeyError(f"{key} for branch {branch}")

    def repository(self, name: str) -> Repository:
        return next(row for row in self.repositories if row.name == name)

    def branch(self, number: int) -> Branch | None:
        return next((row for row in self.branches if row.number == number), None)

    def distribution(self, id: str | None) -> Distribution | None:
        return next((row for row in self.distributions if id in row.ids), None)

    def xid(self, number: int) -> Xid | None:
        return next((row for row in self.xids if row.number == number), None)


def _size_in(name: str) -> float | None:
    """The one size in a name like `T1000 8GB`, in GB."""
    words = name.replace(" GB", "GB").split()
    sizes = [float(word[:-2]) for word in words if word.endswith("GB") and word[:-2].isdecimal()]
    return sizes[0] if len(sizes) == 1 else None


TABLES = ("cards", "chips", "stacks", "torch", "packages", "systems", "xid", "kernel_log")
ALLOWED = "allowed"
COMPILED = "catalogue.json"
_DATA = os.path.join(os.path.dirname(__file__), "data")


def _bytes(name: str) -> bytes:
    # pathlib would cost the doctor 3 ms
    with open(os.path.join(_DATA, name), "rb") as file:  # noqa: PTH123
        return file.read()


class Compiled(msgspec.Struct, frozen=True):
    """The tables and the lists of allowed.toml as one JSON file, and the check sums of the TOML files of both."""

    sums: dict[str, int]
    catalogue: Catalogue
    allowed: dict[str, tuple[str, ...]]


def catalogue() -> Catalogue:
    """The data files of this package; raises msgspec.ValidationError on a row that is wrong."""
    return compiled().catalogue


@cache
def compiled() -> Compiled:
    """The catalogue and the lists.

    Reading TOML takes 30 ms of every command, so `python -m checks.catalogue` writes the same as JSON, which is
    used as long as it matches the TOML files.
    """
    sources = _sources()
    try:
        found = msgspec.json.decode(_bytes(COMPILED), type=Compiled)
    except (OSError, msgspec.MsgspecError):
        found = None
    return found if found is not None and found.sums == _sums(sources) else parse(sources)


def parse(sources: dict[str, bytes]) -> Compiled:
    """The catalogue and the lists in these TOML files."""
    import tomllib

    tables = {name: tomllib.loads(content.decode("utf-8")) for name, content in sources.items()}
    allowed = tables.pop(ALLOWED)
    rows: dict[str, object] = {}
    for table in tables.values():
        rows.update(table)
    return Compiled(
        _sums(sources), msgspec.convert(rows, Catalogue), msgspec.convert(allowed, dict[str, tuple[str, ...]])
    )


def compiled_json() -> bytes:
    """The content of the JSON file for the current tables."""
    return msgspec.json.encode(parse(_sources())) + b"\n"


def _sources() -> dict[str, bytes]:
    return {name: _bytes(f"{name}.toml") for name in (*TABLES, ALLOWED)}


def _sums(sources: dict[str, bytes]) -> dict[str, int]:
    return {name: crc32(content) for name, content in sources.items()}


if __name__ == "__main__":
    with open(os.path.join(_DATA, COMPILED), "wb") as file:  # noqa: PTH123
        file.write(compiled_json())
