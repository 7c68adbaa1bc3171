"""What we know about cards, stacks and packages: data/*.toml loaded into frozen, validated types."""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every row; an unknown key in a data file is an error."""


class Card(Frozen):
    """A card by PCI id; AMD boards that share an id are told apart by `revisions`. GB, GB/s, W, TFLOPS (dense)."""

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
    tflops_kind: str | None = None
    power_w: float | None = None
    pcie: str | None = None
    integrated: bool = False
    supported: bool = True
    note: str = ""
    source: str
    date: str


class Stack(Frozen):
    """A training stack: what must lie under torch and what is installed over it. `targets` empty: any (cpu)."""

    name: str
    vendor: str
    runtime: str
    driver_floor: str | None = None
    kernel_floor: str | None = None
    torch: str
    torch_index: str
    axolotl: str
    pythons: tuple[str, ...]
    targets: tuple[str, ...] = ()
    lock: str | None = None
    verified: str = "unverified"
    source: str
    date: str


class PackageRule(Frozen):
    """How packages are called: `key` is our word, `names` apt's, with {branch} and {flavour} to fill in."""

    key: str
    names: tuple[str, ...]
    because: str
    source: str
    date: str


class Branch(Frozen):
    """An NVIDIA driver branch: `kind` production, lts, feature or old; generations that it no longer drives in `drops`."""

    number: int
    kind: str
    drops: tuple[str, ...] = ()
    open_only: tuple[str, ...] = ()
    source: str
    date: str


class Xid(Frozen):
    number: int
    meaning: str
    action: str
    hardware: bool = False
    source: str
    date: str


class Catalogue(Frozen):
    cards: tuple[Card, ...]
    stacks: tuple[Stack, ...]
    packages: tuple[PackageRule, ...]
    branches: tuple[Branch, ...]
    xids: tuple[Xid, ...]

    def card(self, vendor: str, device: str, revision: str | None) -> Card | None:
        """The card with this PCI id; a row that names revisions matches only those, and wins over one that does not."""
        rows = [row for row in self.cards if row.vendor == vendor and device in row.devices]
        exact = [row for row in rows if revision in row.revisions]
        return next(iter(exact or [row for row in rows if not row.revisions]), None)


@cache
def catalogue() -> Catalogue:
    """Load the data files of this package; raises msgspec.ValidationError on a row that is wrong."""
    import tomllib

    folder = resources.files("checks") / "data"
    tables = {}
    for name in ("cards", "stacks", "packages", "xid"):
        tables.update(tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")))
    return msgspec.convert(tables, Catalogue)
