"""The builds of torch: which one a stack may have, what is known of its wheels, and what a person has to accept."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from checks.catalogue import Stack, catalogue
from harness.environment.lock_file import load_lock, requirement_versions
from harness.environment.torch_build import TorchBuild, parse_torch_build, require_right_build, wrong_build
from harness.environment.torch_install import accept_unverified, torch_lock, unknown_builds, unverified_torch
from machine.errors import Refused
from machine.paths import paths
from tests.subjects import for_each

# torch/version.py of torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl, and of PyPI's
# torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl, whose METADATA says Version: 2.13.0 (both read on 2026-11-30)
CPU = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+cpu'
debug = False
cuda: Optional[str] = None
git_version = 'cf30153c4c131c8164ee7798e5022d810682e2cb'
hip: Optional[str] = None
rocm: Optional[str] = None
xpu: Optional[str] = None
"""
PYPI = CPU.replace("+cpu", "+cu130").replace("cuda: Optional[str] = None", "cuda: Optional[str] = '13.0'")
BUILDS = {
    "cpu": TorchBuild("2.13.0+cpu"),
    "cu130": TorchBuild("2.13.0+cu130", cuda="13.0"),
    "cu126": TorchBuild("2.13.0+cu126", cuda="12.6"),
    "rocm7.2": TorchBuild("2.13.0+rocm7.2", hip="7.2.53211"),
    "rocm10.0": TorchBuild("2.13.0+rocm10.0.0", hip="7.15.26333"),
}


def test_what_the_real_wheels_say() -> None:
    assert parse_torch_build(CPU) == BUILDS["cpu"]
    assert parse_torch_build(PYPI) == BUILDS["cu130"]


@pytest.mark.parametrize(
    "text", ["", "cuda = '13.0'\n", "__version__ = None\n", "\0\xff", "__version__ = '" + "9" * 5000]
)
def test_a_damaged_version_file_is_no_build(text: str) -> None:
    assert parse_torch_build(text) is None
    with pytest.raises(Refused, match="not the build for cpu"):
        require_right_build(catalogue().stack("cpu"), None, Path("/env"))


@for_each("row", catalogue().stacks)
def test_a_stack_takes_its_own_build_and_no_other(row: Stack) -> None:
    fitting = {name for name, build in BUILDS.items() if wrong_build(row, build) is None}
    # on a CPU each CUDA build runs too
    assert fitting == {row.name, *(("cu130", "cu126") if row.torch_fallback else ())}


@pytest.mark.parametrize(
    ("stack", "build", "said"),
    [
        ("cu130", TorchBuild("2.13.0+cpu"), "2.13.0+cpu"),
        ("cu126", TorchBuild("2.13.0+cu130", cuda="13.0"), "2.13.0+cu130"),
        ("cu126", TorchBuild("2.13.0+cu126", cuda="13.0"), "CUDA 13.0"),
        ("cu126", TorchBuild("2.13.0+cu126"), "CUDA no version"),
        ("cu130", TorchBuild("2.13.0", hip="7.2.1"), "CUDA no version"),
        ("cpu", TorchBuild("2.13.0+cpu", hip="7.2.1"), "HIP 7.2.1"),
        ("rocm7.2", TorchBuild("2.13.0+rocm7.2", hip="7.20.1"), "HIP 7.20.1"),
    ],
)
def test_a_wrong_build_is_named(stack: str, build: TorchBuild, said: str) -> None:
    row = catalogue().stack(stack)
    problem = wrong_build(row, build)
    assert problem is not None and said in problem
    with pytest.raises(Refused) as refused:
        require_right_build(row, build, Path("/env"))
    assert refused.value.code == "environment.wrong-torch"
    assert said in refused.value.why and "/env" in refused.value.next


@for_each("row", catalogue().stacks)
def test_each_build_has_a_lock_of_its_wheels_or_says_that_none_is_known(row: Stack) -> None:
    for version, lock in row.usable_builds.items():
        assert version.partition("+")[0] == row.torch.partition("+")[0]
        if not lock:
            continue
        text = torch_lock(lock)
        assert requirement_versions(text, "torch") == (version,)
        assert len(set(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", text))) >= len(row.pythons)
        assert re.search(r"# Source: .*?https://", text, re.DOTALL) and re.search(r"Date: 2026-\d\d-\d\d", text)


def test_the_larger_build_for_a_cpu_has_its_libraries_in_the_same_lock() -> None:
    row = catalogue().stack("cpu")
    assert wrong_build(row, BUILDS["cu130"]) is None
    (lock,) = row.torch_fallback.values()
    cuda = load_lock("cu130.txt", "3.12").packages.keys() - load_lock("common.txt", "3.12").packages.keys()
    assert len(cuda) > 10 and cuda <= load_lock(lock, "3.12").packages.keys()


def test_the_stacks_whose_torch_cannot_be_checked() -> None:
    assert [row.name for row in catalogue().stacks if unknown_builds(row)] == ["cu126", "rocm7.2", "rocm10.0"]


def test_a_stack_without_hashes_has_to_be_accepted_and_the_acceptance_is_for_one_torch(tmp_path: Path) -> None:
    home = paths({"GPU_SETUP_HOME": str(tmp_path)})
    stack = catalogue().stack("rocm7.2")
    assert unverified_torch(catalogue().stack("cpu"), home) is None
    refusal = unverified_torch(stack, home)
    assert refusal is not None and refusal.code == "environment.unverified"
    assert stack.torch_index in refusal.why and "--accept-unverified" in refusal.next
    accept_unverified(stack, home)
    assert unverified_torch(stack, home) is None
    for other in (
        msgspec.structs.replace(stack, torch_index="https://mirror.example/whl"),
        msgspec.structs.replace(stack, torch_builds={"2.14.0+rocm7.2": ""}),
        catalogue().stack("cu126"),
    ):
        assert unverified_torch(other, home) is not None, other
    (tmp_path / "data" / "env" / "accepted-rocm7.2.json").write_bytes(b"\xff{")
    assert unverified_torch(stack, home) is not None, "damage is no acceptance"
