"""Stacks, driver branches, package names, repositories and Xids: that they fit together and can be filled in."""

import re
import string
from datetime import date
from itertools import pairwise

import msgspec
import pytest

from checks.catalogue import VENDORS, Branch, Catalogue, PackageRule, Repository, catalogue
from tests.subjects import for_each


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def stacks_of(vendor: str, device: str, revision: str | None = None) -> list[str]:
    card = catalogue().card(vendor, device, revision)
    assert card is not None
    return [stack.name for stack in catalogue().stacks_for(card)]


@pytest.mark.parametrize(
    ("vendor", "device", "revision", "stacks"),
    [
        ("10de", "2204", None, ["cu130", "cu126"]),  # RTX 3090
        ("10de", "2b85", None, ["cu130"]),  # RTX 5090: CUDA 12.6 has no Blackwell
        ("10de", "1db1", None, ["cu126"]),  # V100: CUDA 13 has no Volta
        ("1002", "744c", "cc", ["rocm7.2", "rocm10.0"]),  # RX 7900 XT
        ("1002", "73a3", None, ["rocm7.2", "rocm10.0"]),  # W6800
        ("1002", "66af", None, []),  # Radeon VII
        ("1002", "164e", None, []),  # Ryzen 7000's own graphics
    ],
)
def test_the_stacks_of_a_card_the_preferred_one_first(
    vendor: str, device: str, revision: str | None, stacks: list[str]
) -> None:
    assert stacks_of(vendor, device, revision) == stacks


def test_only_the_cpu_stack_claims_to_have_run() -> None:
    assert {stack.name for stack in catalogue().stacks if stack.verified != "unverified"} == {"cpu"}


def test_every_stack_pins_what_axolotl_allows() -> None:
    for stack in catalogue().stacks:
        assert (2, 11, 0) <= numbers(stack.torch.partition("+")[0]) <= (2, 13, 0), stack.name
        assert stack.pythons == ("3.11", "3.12", "3.13")
        assert stack.vendor in {*VENDORS.values(), "cpu"}
        assert bool(stack.targets) == (stack.vendor != "cpu")


def test_a_newer_cuda_needs_a_newer_driver() -> None:
    floors = sorted(
        (numbers(stack.runtime.split()[1]), numbers(stack.driver_floor), stack.driver_branch)
        for stack in catalogue().stacks
        if stack.driver_floor and stack.driver_branch
    )
    assert [row[1] for row in floors] == sorted(row[1] for row in floors)
    assert [row[2] for row in floors] == sorted(row[2] for row in floors)
    assert all(floor[0] == branch for _, floor, branch in floors)


def test_rdna4_needs_a_newer_kernel_than_rdna3() -> None:
    for name in ("rocm7.2", "rocm10.0"):
        floors = catalogue().stack(name).kernel_floors
        assert numbers(floors["gfx1100"]) < numbers(floors["gfx1201"])
        assert set(floors) <= set(catalogue().stack(name).targets)


def test_newer_branches_drop_more_generations() -> None:
    branches = catalogue().branches
    assert [branch.number for branch in branches] == sorted({branch.number for branch in branches})
    for older, newer in pairwise(branches):
        assert set(older.drops) <= set(newer.drops)
        assert set(older.open_only) <= set(newer.open_only)
        assert set(newer.lacks) <= set(older.lacks)


@pytest.mark.parametrize(
    ("number", "drives", "not_any_more"),
    [
        (570, {"volta", "blackwell"}, set()),
        (580, {"pascal", "blackwell"}, set()),
        (595, {"turing"}, {"volta", "maxwell"}),
    ],
)
def test_the_generations_that_a_branch_supports(number: int, drives: set[str], not_any_more: set[str]) -> None:
    branch = catalogue().branch(number)
    assert branch is not None
    assert all(branch.drives(generation) for generation in drives)
    assert not any(branch.drives(generation) for generation in not_any_more)


def test_blackwell_is_too_new_for_550_and_needs_the_open_module_from_570_on() -> None:
    old = catalogue().branch(550)
    assert old is not None
    assert not old.drives("blackwell")
    assert all("blackwell" in branch.open_only for branch in catalogue().branches if branch.number >= 570)


def test_the_floor_of_a_stack_is_a_version_of_its_branch() -> None:
    branch = catalogue().branch(580)
    assert branch is not None
    assert branch.seen[0] == catalogue().stack("cu130").driver_floor
    for row in catalogue().branches:
        assert [numbers(version) for version in row.seen] == sorted(numbers(version) for version in row.seen)
        assert all(numbers(version)[0] == row.number for version in row.seen)


WORDS: dict[str, str | int] = {
    "branch": 580,
    "flavour": "generic-hwe-24.04",
    "kernel": "6.17.0-35-generic",
    "target": "gfx1100",
}


@for_each("rule", catalogue().packages, ids=lambda rule: f"{rule.key}-{rule.since_branch}")
def test_names_can_be_filled_in_and_are_package_names(rule: PackageRule) -> None:
    used = {word for name in rule.names for _, word, _, _ in string.Formatter().parse(name) if word}
    assert used <= set(WORDS)
    for name in rule.fill(**WORDS):
        assert re.fullmatch(r"([a-z0-9][a-z0-9+.-]+|[a-z0-9*+.-]+)(:i386)?", name)


@pytest.mark.parametrize(
    ("branch", "names"), [(580, ("nvidia-open-580",)), (595, ("nvidia-open",)), (620, ("nvidia-open",))]
)
def test_nvidias_repository_dropped_the_branch_from_its_names(branch: int, names: tuple[str, ...]) -> None:
    assert catalogue().package("nvidia.repo.desktop.open", branch).fill(branch=branch) == names


def test_620_has_no_proprietary_module() -> None:
    assert catalogue().package("nvidia.repo.desktop.proprietary", 615).names == ("cuda-drivers",)
    with pytest.raises(KeyError):
        catalogue().package("nvidia.repo.desktop.proprietary", 620)


def test_ubuntus_names_for_the_prebuilt_modules_of_a_kernel_flavour() -> None:
    rule = catalogue().package("nvidia.archive.modules.open")
    assert rule.fill(branch=595, flavour="generic-hwe-24.04") == ("linux-modules-nvidia-595-open-generic-hwe-24.04",)


def test_rows_that_share_a_key_never_overlap() -> None:
    for key in {rule.key for rule in catalogue().packages}:
        for branch in (row.number for row in catalogue().branches):
            rows = [
                rule
                for rule in catalogue().packages
                if rule.key == key and (rule.since_branch or 0) <= branch < (rule.before_branch or 9999)
            ]
            assert len(rows) <= 1, (key, branch)


@for_each("row", catalogue().repositories, ids=lambda row: row.name)
def test_a_repository_is_fetched_over_tls_and_signed_by_its_own_keyring(row: Repository) -> None:
    assert all(uri.startswith("https://") for uri in (*row.uris, row.key_url))
    assert row.keyring.startswith(("/usr/share/keyrings/", "/etc/apt/keyrings/"))
    assert row.file.startswith("/etc/apt/sources.list.d/")
    assert all(re.fullmatch("[0-9A-F]{40}", fingerprint) for fingerprint in row.fingerprints)
    assert row.fingerprints or "fingerprint" in row.note, "a key without a fingerprint is said to be one"
    assert bool(row.components) != (row.suite == "/")
    assert (row.priority is None) == (not row.packages)


def test_amds_driver_repository_is_never_pinned_as_a_whole() -> None:
    for row in catalogue().repositories:
        if row.vendor == "amd":
            assert "*" not in row.packages


@pytest.mark.parametrize(
    "table",
    [
        "cards",
        "stacks",
        "torch_builds",
        "bitsandbytes_builds",
        "packages",
        "repositories",
        "branches",
        "systems",
        "xids",
        "log_lines",
    ],
)
def test_every_row_has_a_source_and_a_date(table: str) -> None:
    for row in getattr(catalogue(), table):
        assert row.source.strip()
        assert date(2024, 1, 1) <= date.fromisoformat(row.date) <= date(2026, 12, 31)


def test_xids_that_mean_broken_hardware() -> None:
    xids = {row.number: row for row in catalogue().xids}
    assert len(xids) == len(catalogue().xids)
    assert {number for number, row in xids.items() if row.hardware} == {48, 64, 79, 95, 140, 171, 172}
    assert xids[79].action == "reboot"
    assert catalogue().xid(31) == xids[31]
    assert catalogue().xid(1) is None


def test_an_unknown_key_in_a_row_is_an_error() -> None:
    row = {"number": 1, "meaning": "", "action": "info", "source": "s", "date": "2026-01-01"}
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.convert({**row, "colour": "red"}, type(catalogue().xids[0]))
    with pytest.raises(msgspec.ValidationError, match="source"):
        msgspec.convert({"number": 1, "kind": "old", "date": "2026-01-01"}, Branch)


def test_the_catalogue_is_read_once() -> None:
    assert catalogue() is catalogue()
    assert isinstance(catalogue(), Catalogue)
