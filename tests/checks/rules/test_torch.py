"""PyTorch in an environment: which GPUs a build has kernels for, and the command that installs another one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host, KfdNode, TrainingEnvironment
from checks.model import Finding, Status
from checks.registry import ALL
from checks.rules.python.torch_install import Wanted, install_torch
from checks.rules.python.torch_kernels import kernels_for
from checks.runner import judge
from tests.checks.rules.cases_training import env, has, rocm
from tests.checks.rules.hosts import amd_card, but, healthy_amd, healthy_nvidia, nvidia_card
from tests.subjects import for_each

CHECKS = {check.id: check for check in ALL}
YES, NO, UNKNOWN = True, False, None


def build(version: str, runtime: str, **facts: Any) -> TrainingEnvironment:
    """The active environment with this torch; `runtime` as torch/version.py has it: `cuda 12.1`, `hip 6.3.42134`."""
    kind, _, number = runtime.partition(" ")
    versions = {"torch_cuda": number if kind == "cuda" else None, "torch_hip": number if kind == "hip" else None}
    return env(torch=version, bitsandbytes=None, bitsandbytes_libraries=None, **versions, **facts)


# version, torch.version.cuda or .hip, the GPU, whether it has kernels for it; where that was reported
BUILDS = [
    # RTX 5090: HybridRobotics/berkeley-humanoid-lite#49
    ("2.5.1+cu121", "cuda 12.1", "12.0", NO),
    ("2.6.0+cu124", "cuda 12.4", "12.0", NO),
    ("2.6.0+cu126", "cuda 12.6", "12.0", NO),
    ("2.7.1+cu118", "cuda 11.8", "12.0", NO),
    ("2.7.0+cu128", "cuda 12.8", "12.0", YES),  # its release notes: Blackwell
    ("2.9.1+cu130", "cuda 13.0", "12.0", YES),
    ("2.9.1+cu128", "cuda 12.8", "12.1", YES),  # GB10 runs the code for 12.0
    ("2.13.0+cu126", "cuda 12.6", "10.0", NO),  # B200
    ("2.8.0+cu128", "cuda 12.8", "10.3", YES),  # B300
    # Ada, Ampere, Turing: get_arch_list() has no sm_89, and it runs (pytorch/pytorch#95648)
    ("2.1.2+cu121", "cuda 12.1", "8.9", YES),
    ("1.13.1+cu117", "cuda 11.7", "8.9", YES),
    ("1.13.1+cu117", "cuda 11.7", "9.0", NO),  # H100 needs CUDA 11.8
    ("1.12.1+cu102", "cuda 10.2", "8.6", NO),
    ("1.12.1+cu102", "cuda 10.2", "7.5", YES),
    ("2.13.0+cu132", "cuda 13.2", "7.5", YES),
    # Volta: left out of 2.7's cu128, back in 2.8 (pytorch/pytorch#157517), left out again in 2.11
    ("2.7.1+cu128", "cuda 12.8", "7.0", NO),
    ("2.8.0+cu128", "cuda 12.8", "7.0", YES),
    ("2.11.0+cu128", "cuda 12.8", "7.0", NO),
    ("2.13.0+cu126", "cuda 12.6", "7.0", YES),
    ("2.13.0+cu130", "cuda 13.0", "7.0", NO),
    # Pascal and Maxwell
    ("2.8.0+cu126", "cuda 12.6", "6.1", YES),
    ("2.8.0+cu128", "cuda 12.8", "6.1", NO),
    ("2.7.1+cu118", "cuda 11.8", "5.2", YES),
    ("2.9.0+cu130", "cuda 13.0", "5.2", NO),
    ("2.7.1+cu118", "cuda 11.8", "3.7", YES),  # Tesla K80
    ("2.1.0+cu121", "cuda 12.1", "3.5", NO),
    # nightly builds: what all releases around them agree on
    ("2.10.0.dev20251101+cu130", "cuda 13.0", "12.0", YES),
    ("2.10.0.dev20251101+cu130", "cuda 13.0", "7.0", NO),
    ("2.8.0.dev20250601+cu128", "cuda 12.8", "7.0", UNKNOWN),  # 2.7 has none, 2.8 has it
    ("2.15.0.dev20260901+cu134", "cuda 13.4", "8.6", UNKNOWN),  # newer than the table
    ("2.15.0.dev20260901+cu134", "cuda 13.4", "7.0", NO),  # no CUDA 13 compiles for Volta
    ("2.15.0+cu130", "cuda 13.0", "8.6", YES),
    # from source, conda-forge, NVIDIA's containers: only what CUDA cannot compile is sure
    ("2.7.0a0+git1341794", "cuda 12.8", "8.6", UNKNOWN),
    ("2.5.0a0+872d972e41.nv24.08", "cuda 12.6", "12.0", NO),
    ("2.9.0a0+gitunknown", "cuda 13.0", "6.1", NO),
    ("2.5.1", "cuda 12.6", "8.6", YES),
    ("2.8.0", "cuda 12.8", "6.1", UNKNOWN),  # conda-forge may have it
    ("2.4.1", "cuda 12.1", "12.0", NO),
    # RDNA4: ROCm/rocm-cli diagnose.rs fix-1-arch; pytorch/pytorch#148562
    ("2.3.1+rocm5.7", "hip 5.7.31921", "gfx1201", NO),
    ("2.6.0+rocm6.2.4", "hip 6.2.41134", "gfx1200", NO),
    ("2.7.1+rocm6.3", "hip 6.3.42131", "gfx1201", YES),  # get_arch_list() in astral-sh/uv#14086
    # rocBLAS has gfx12 from ROCm 6.3 on, and gfx900 and gfx906 until then (ROCm/legacy-rocm-build#4625, pytorch#179865)
    ("2.7.1+rocm6.2.4", "hip 6.2.41134", "gfx1201", NO),
    ("2.7.1+rocm6.3", "hip 6.3.42131", "gfx906", YES),
    ("2.9.1+rocm6.4", "hip 6.4.43484", "gfx906", NO),
    ("2.12.0.dev20260408+rocm7.2", "hip 7.2.53211", "gfx900", NO),
    # RDNA3
    ("2.0.1+rocm5.4.2", "hip 5.4.22803", "gfx1100", NO),
    ("2.1.2+rocm5.6", "hip 5.6.31061", "gfx1100", YES),
    ("2.5.1+rocm6.2", "hip 6.2.41133", "gfx1101", NO),  # pytorch/pytorch#141394 added it
    ("2.6.0+rocm6.2.4", "hip 6.2.41134", "gfx1101", YES),
    ("2.6.0+rocm6.1", "hip 6.1.40093", "gfx1102", NO),  # pytorch/pytorch#147761
    ("2.12.0+rocm7.2", "hip 7.2.53211", "gfx1103", NO),  # pytorch/pytorch#179653
    ("2.13.0+rocm7.2", "hip 7.2.53211", "gfx1103", YES),
    # RDNA3.5 and CDNA: pytorch/pytorch#167299
    ("2.9.1+rocm6.4", "hip 6.4.43484", "gfx1151", NO),
    ("2.10.0+rocm7.1", "hip 7.1.25424", "gfx1151", YES),
    ("2.3.0+rocm5.7", "hip 5.7.31921", "gfx942", NO),
    ("2.3.0+rocm6.0", "hip 6.0.32830", "gfx942", YES),
    ("2.9.1+rocm6.4", "hip 6.4.43484", "gfx950", NO),
    # RDNA2: gfx1030 since ROCm 4.3, its relatives never
    ("2.7.1+rocm6.3", "hip 6.3.42134", "gfx1030", YES),
    ("1.13.1+rocm5.2", "hip 5.2.21151", "gfx1030", YES),
    ("2.9.1+rocm6.4", "hip 6.4.43484", "gfx1031", NO),
    ("2.10.0.dev20251101+rocm7.1", "hip 7.1.25424", "gfx1036", NO),
    ("2.7.0.dev20250301+rocm6.2.4", "hip 6.2.41134", "gfx1102", UNKNOWN),  # 2.6 has none, 2.7 has it
    ("2.7.0.dev20250301+rocm6.2.4", "hip 6.2.41134", "gfx1100", YES),
    # AMD's own builds: their version does not say for which GPU
    ("2.10.0a0+rocm7.10.0a20251015", "hip 7.1.52802", "gfx1100", UNKNOWN),
    ("2.9.1+rocm7.11.0", "hip 7.11.26015", "gfx1100", UNKNOWN),
    ("2.6.0+rocm6.4.1.git1ded221d", "hip 6.4.43483", "gfx1201", UNKNOWN),
    ("2.5.0a0", "hip 6.3.42134", "gfx1151", UNKNOWN),  # Fedora
]


@for_each(("version", "runtime", "target", "expected"), BUILDS)
def test_which_builds_have_kernels_for_which_gpu(
    version: str, runtime: str, target: str, expected: bool | None
) -> None:
    found = kernels_for(build(version, runtime), target, "x86_64", catalogue())
    assert found.has is expected, (version, target, found)
    # a known answer has evidence, an unknown one a reason
    assert bool(found.seen) or (expected is UNKNOWN and bool(found.because))


@for_each(
    ("targets", "target", "expected"),
    [
        # names in AMD's wheels: ROCm/TheRock RELEASES.md
        (("gfx110X",), "gfx1101", YES),
        (("gfx110X",), "gfx1201", NO),
        (("gfx1201",), "gfx1201", YES),
        (("gfx94X",), "gfx942", YES),
        # rocBLAS of ROCm 6.4 has no gfx906 any more: ROCm/TheRock#1844
        (("gfx1030", "gfx1100", "gfx908"), "gfx906", NO),
    ],
)
def test_the_rocm_libraries_beside_torch_have_the_last_word(
    targets: tuple[str, ...], target: str, expected: bool
) -> None:
    one = build("2.10.0+rocm7.1", "hip 7.1.25424", rocm_targets=targets)
    assert kernels_for(one, target, "x86_64", catalogue()).has is expected


def test_an_environment_of_gpu_setups_own_has_what_its_stack_has() -> None:
    one = build("2.13.0+rocm10.0.0", "hip 7.15.26333", owner="gpu-setup", stack="rocm10.0")
    assert kernels_for(one, "gfx1031", "x86_64", catalogue()).has is YES
    assert kernels_for(one, "gfx1010", "x86_64", catalogue()).has is UNKNOWN


def test_the_wheels_of_aarch64_have_their_own_list() -> None:
    one = build("2.13.0+cu130", "cuda 13.0")
    assert [kernels_for(one, "7.5", machine, catalogue()).has for machine in ("x86_64", "aarch64")] == [YES, NO]
    assert kernels_for(one, "12.1", "aarch64", catalogue()).has is YES


def gpu(device: str, gfx: str, *environments: TrainingEnvironment, **environ: str) -> Host:
    """One AMD card that KFD reports as `gfx`, node 1."""
    host = but(
        healthy_amd(),
        cards=(amd_card(device=device, revision="c1", reported_target=gfx),),
        amd={"nodes": (KfdNode(index=1, gfx=gfx, slot="0000:03:00.0"),)},
    )
    return but(has(host, *environments), person={"environ": environ})


def findings(check: str, host: Host) -> tuple[Finding, ...]:
    return judge(CHECKS[check], host, catalogue()).findings


def status(check: str, host: Host) -> Status:
    return judge(CHECKS[check], host, catalogue()).status


FOR_ROCM = ("torch==2.13.0+rocm7.2", "--index-url", "https://download.pytorch.org/whl/rocm7.2")
PYTHON = "/home/alex/venv/bin/python"


@for_each(
    ("kind", "path", "start"),
    [
        ("venv", "/home/alex/venv", (PYTHON, "-m", "pip", "install", "--force-reinstall")),
        ("conda", "/home/alex/venv", (PYTHON, "-m", "pip", "install", "--force-reinstall")),
        # uv makes environments without pip
        ("uv", "/home/alex/venv", ("uv", "pip", "install", "--python", PYTHON, "--reinstall")),
        (
            "pipx",
            "/home/alex/.local/share/pipx/venvs/comfy",
            ("pipx", "runpip", "comfy", "install", "--force-reinstall"),
        ),
    ],
)
def test_the_command_is_one_that_runs_in_this_environment(kind: str, path: str, start: tuple[str, ...]) -> None:
    one = env(torch="2.4.1+cu121", torch_cuda="12.1", kind=kind, path=path, companions=())
    (found,) = findings("python.torch-build", has(healthy_amd(), one))
    assert found.fix is not None
    assert found.fix.argv == (*start, *FOR_ROCM)
    assert ("conda remove pytorch" in found.fix.text) is (kind == "conda")


@for_each(
    ("companions", "together", "says"),
    [
        ((("torchvision", "0.19.1+cu121"), ("torchaudio", "2.4.1+cu121")), ("torchvision", "torchaudio"), ""),
        ((("torchvision", "0.19.1+cu121"),), ("torchvision",), ""),
        ((), (), ""),
        # not known: a recording of an older release
        (None, ("torchvision", "torchaudio"), "Leave out those"),
        ((("xformers", "0.0.28"), ("flash_attn", "2.6.3")), (), "upgrade xformers and flash_attn"),
        ((("triton", "3.0.0"),), (), "First uninstall triton"),
    ],
)
def test_what_belongs_to_the_build_comes_along(
    companions: tuple[tuple[str, str], ...] | None, together: tuple[str, ...], says: str
) -> None:
    one = env(torch="2.4.1+cu121", torch_cuda="12.1", companions=companions)
    (found,) = findings("python.torch-build", has(healthy_amd(), one))
    assert found.fix is not None
    assert found.fix.argv[5:] == (FOR_ROCM[0], *together, *FOR_ROCM[1:])
    assert says in found.fix.text


def test_a_projects_lock_file_is_named() -> None:
    one = env(torch="2.4.1+cu121", torch_cuda="12.1", kind="uv", project_lock="/home/alex/p/uv.lock")
    (found,) = findings("python.torch-build", has(healthy_amd(), one))
    assert found.fix is not None
    assert "/home/alex/p/uv.lock pins the old build" in found.fix.text


def test_an_older_python_needs_another_environment() -> None:
    one = env(torch="2.4.1+cu121", torch_cuda="12.1", python="3.9")
    (found,) = findings("python.torch-build", has(healthy_amd(), one))
    assert found.fix is not None
    assert not found.fix.argv
    assert "Python 3.9" in found.fix.text


@for_each(
    ("driver", "target", "index", "says"),
    [
        ("595.84", "8.6", "cu130", ""),
        # CUDA 13 needs branch 580
        ("550.163.01", "8.6", "cu126", ""),
        ("570.133.07", "12.0", "cu130", "It needs driver 580.65.06 or newer"),
    ],
)
def test_the_build_is_one_that_the_driver_runs(driver: str, target: str, index: str, says: str) -> None:
    one = env(torch="2.13.0+cpu", torch_cuda=None)
    card = nvidia_card(reported_target=target)
    host = has(but(healthy_nvidia(), cards=(card,), nvidia={"module_version": driver}), one)
    (found,) = findings("python.torch-build", host)
    assert found.fix is not None
    assert found.fix.argv[-1].endswith(index)
    assert says in found.fix.text


@for_each(("target", "says"), [("5.2", "whl/cu126"), ("3.7", "whl/cu118"), ("2.0", "knows no build")])
def test_a_card_without_a_stack_gets_the_wheels_that_have_kernels_for_it(target: str, says: str) -> None:
    fix = install_torch(env(torch="2.9.1+cu130"), Wanted("10de", target), catalogue())
    assert says in fix.text


def test_outside_an_environment_the_advice_is_to_make_one() -> None:
    one = env(torch="2.4.1+cu121", torch_cuda="12.1", kind="user", path="/home/alex/.local")
    (found,) = findings("python.torch-build", has(healthy_amd(), one))
    assert found.fix is not None
    assert not found.fix.argv
    assert "python3 -m venv" in found.fix.text


def test_a_build_of_unknown_origin_is_unknown_and_not_a_pass() -> None:
    result = judge(CHECKS["python.torch-arch"], has(healthy_nvidia(), build("2.7.0a0+git13", "cuda 12.8")), catalogue())
    assert result.status is Status.UNKNOWN
    assert "get_arch_list" in result.reason


OLD = rocm(torch="2.9.1+rocm6.4", torch_hip="6.4.43484")
OLDER = rocm(torch="2.5.1+rocm6.2", torch_hip="6.2.41133")


@for_each(
    ("gfx", "environ", "environments", "expected", "says"),
    [
        # needed and right: Comfy-Org/ComfyUI#653
        ("gfx1031", {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}, (OLD,), Status.PASS, "gfx1031 needs it"),
        ("gfx1031", {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}, (), Status.PASS, "gfx1031 needs it"),
        ("gfx1034", {"HSA_OVERRIDE_GFX_VERSION_1": "10.3.0"}, (OLD,), Status.PASS, "gfx1034 needs it"),
        ("gfx1102", {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}, (OLDER,), Status.PASS, "gfx1102 needs it"),
        # needed and absent
        ("gfx1032", {}, (OLD,), Status.WARN, "needs HSA_OVERRIDE_GFX_VERSION=10.3.0, which is not set"),
        ("gfx1102", {}, (OLDER,), Status.PASS, "not set"),  # a newer PyTorch is the better way
        ("gfx1102", {}, (OLD,), Status.PASS, "not set"),  # torch 2.9 has kernels for it
        ("gfx1031", {}, (), Status.PASS, "not set"),
        # its own architecture, for which the wheels have no kernels
        ("gfx1031", {"HSA_OVERRIDE_GFX_VERSION": "10.3.1"}, (OLD,), Status.WARN, "does not help"),
        # the wrong generation: ROCm/rocm-systems#3461 (gfx1201 hangs)
        ("gfx1100", {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}, (OLD,), Status.WARN, "another architecture"),
        ("gfx1201", {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}, (OLD,), Status.WARN, "another architecture"),
        ("gfx1031", {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}, (OLD,), Status.WARN, "another architecture"),
        # needless
        ("gfx1100", {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}, (OLD,), Status.PASS, "is not needed"),
        ("gfx1101", {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}, (OLD,), Status.PASS, "not needed"),
        # AMD's wheel for this card alone
        (
            "gfx1031",
            {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"},
            (rocm(torch="2.9.1+rocm7.11.0", rocm_targets=("gfx1031",)),),
            Status.WARN,
            "none for gfx1030",
        ),
        # words, quotes, two numbers, nothing: libhsakmt's topology.c refuses them (ROCm/ROCR-Runtime#354)
        ("gfx1031", {"HSA_OVERRIDE_GFX_VERSION": "gfx1030"}, (OLD,), Status.FAIL, "no version of the form 10.3.0"),
        ("gfx1031", {"HSA_OVERRIDE_GFX_VERSION": '"10.3.0"'}, (OLD,), Status.FAIL, "no version of the form 10.3.0"),
        ("gfx1100", {"HSA_OVERRIDE_GFX_VERSION": "11.0"}, (OLD,), Status.FAIL, "no version of the form 10.3.0"),
        ("gfx1100", {"HSA_OVERRIDE_GFX_VERSION": ""}, (OLD,), Status.FAIL, "no version of the form 10.3.0"),
        # the number is that of a KFD node, and node 0 is the CPU
        ("gfx1031", {"HSA_OVERRIDE_GFX_VERSION_0": "10.3.0"}, (OLD,), Status.WARN, "the card is node 1"),
        ("gfx1100", {"HSA_OVERRIDE_GFX_VERSION_0": "10.3.0"}, (OLD,), Status.PASS, "has no effect"),
    ],
)
def test_an_override_is_judged_by_what_the_card_needs(
    gfx: str, environ: dict[str, str], environments: tuple[TrainingEnvironment, ...], expected: Status, says: str
) -> None:
    # the PCI id is that of a card that can train; what the driver says of it has the last word
    result = judge(CHECKS["rocm.override"], gpu("744c", gfx, *environments, **environ), catalogue())
    assert result.status is expected, result
    assert says in result.reason


def test_of_two_cards_only_the_one_that_needs_it_gets_it() -> None:
    """ROCm/legacy-rocm-build#5069: an RX 9060 XT beside an RX 6600."""
    host = but(
        gpu("744c", "gfx1200", OLD, HSA_OVERRIDE_GFX_VERSION="10.3.0"),
        cards=(
            amd_card(reported_target="gfx1200"),
            amd_card(slot="0000:08:00.0", reported_target="gfx1032"),
        ),
        amd={
            "nodes": (
                KfdNode(index=1, gfx="gfx1200", slot="0000:03:00.0"),
                KfdNode(index=2, gfx="gfx1032", slot="0000:08:00.0"),
            )
        },
    )
    (found,) = findings("rocm.override", host)
    assert "the card is gfx1200" in found.summary
    assert found.fix is not None
    assert "HSA_OVERRIDE_GFX_VERSION_2=10.3.0" in found.fix.text


@pytest.mark.parametrize(("value", "expected"), [("10.3.0", Status.PASS), ("11.0.0", Status.WARN), ("", Status.WARN)])
def test_a_start_file_with_an_override_is_judged_alike(value: str, expected: Status) -> None:
    host = but(
        gpu("744c", "gfx1031", OLD), person={"start_files": (("/etc/environment", "HSA_OVERRIDE_GFX_VERSION", value),)}
    )
    assert status("runtime.start-files", host) is expected


@for_each(
    ("version", "gfx", "expected"),
    [
        ("0.48.2", "gfx1100", Status.PASS),
        ("0.48.2", "gfx1201", Status.WARN),
        ("0.49.2", "gfx1201", Status.PASS),
        ("0.49.2", "gfx1030", Status.WARN),
        ("0.50.2", "gfx1030", Status.PASS),
        # it runs as gfx1030 or gfx1100: the variable decides, see rocm.override
        ("0.50.2", "gfx1031", Status.PASS),
        ("0.49.2", "gfx1102", Status.PASS),
        # not in the table
        ("0.44.2.dev0", "gfx1201", Status.PASS),
    ],
)
def test_bitsandbytes_has_kernels_for_some_radeons_only(version: str, gfx: str, expected: Status) -> None:
    one = rocm(torch="2.9.1+rocm6.4", torch_hip="6.4.43484", bitsandbytes=version)
    assert status("python.bitsandbytes", gpu("744c", gfx, one)) is expected


def test_the_file_that_sets_an_override_is_shown() -> None:
    host = gpu("744c", "gfx1201", OLD, HSA_OVERRIDE_GFX_VERSION="10.3.0")
    host = but(host, person={"start_files": (("/home/alex/.bashrc", "HSA_OVERRIDE_GFX_VERSION", "10.3.0"),)})
    (found,) = findings("rocm.override", host)
    assert any(row.source == "/home/alex/.bashrc" for row in found.evidence)


def test_where_the_override_is_set_the_build_is_one_that_it_runs() -> None:
    """AMD's wheel for gfx1031 alone has none of the kernels that the variable makes ROCm load."""
    wrong = build("2.3.1+cu121", "cuda 12.1")
    (without,) = findings("python.torch-build", gpu("744c", "gfx1031", wrong))
    (found,) = findings("python.torch-build", gpu("744c", "gfx1031", wrong, HSA_OVERRIDE_GFX_VERSION="10.3.0"))
    assert without.fix is not None
    assert found.fix is not None
    assert {"torch[device-gfx1031]==2.13.0+rocm10.0.0", "torchvision[device-gfx1031]"} <= set(without.fix.argv)
    assert not any("gfx1031" in word for word in found.fix.argv)
    assert "HSA_OVERRIDE_GFX_VERSION=10.3.0: keep that variable set" in found.fix.text


def test_where_a_newer_torch_has_kernels_that_is_the_advice_and_the_override_the_other_way() -> None:
    """pytorch/pytorch#147626: torch 2.6 on an RX 7600 XT."""
    host = gpu("744c", "gfx1102", rocm(torch="2.6.0+rocm6.2", torch_hip="6.2.41133"))
    (found,) = findings("python.torch-arch", host)
    assert found.fix is not None
    assert "torch==2.13.0+rocm7.2" in found.fix.argv
    assert "HSA_OVERRIDE_GFX_VERSION=11.0.0" in found.fix.text
    assert status("rocm.override", host) is Status.PASS


def test_a_missing_override_is_one_finding_and_not_also_a_missing_kernel() -> None:
    host = gpu("744c", "gfx1031", OLD)
    assert status("python.torch-arch", host) is Status.PASS
    assert status("rocm.override", host) is Status.WARN


def test_no_sentence_contradicts_its_evidence() -> None:
    """What the summary says of a build is what the evidence lists."""
    for version, runtime, target, expected in BUILDS:
        if target.startswith("gfx"):
            host = gpu("744c", target, build(version, runtime))
        else:
            card = nvidia_card(reported_target=target)
            host = has(but(healthy_nvidia(), cards=(card,)), build(version, runtime))
        for found in findings("python.torch-arch", host):
            assert expected is NO, version
            assert target in found.summary
            assert target not in found.evidence[-1].value.split(", ")


def test_every_row_has_targets_in_order_and_releases_that_exist() -> None:
    for row in catalogue().torch_builds:
        assert row.targets, row
        assert len(set(row.targets)) == len(row.targets)
        assert [int(part) for part in row.since.split(".")] <= [int(part) for part in row.until.split(".")]
        assert all(target.startswith("gfx") is row.runtimes[0].startswith("rocm") for target in row.targets)
    rows = [msgspec.structs.asdict(row) for row in catalogue().cuda_compilers]
    assert len({row["capability"] for row in rows}) == len(rows)
