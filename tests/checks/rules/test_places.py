"""What the doctor and the plan say where the card is Windows', another engine's or another group's."""

from __future__ import annotations

import pytest
from msgspec import structs

from checks.catalogue import catalogue
from checks.facts.host import Docker, Host
from checks.model import Finding, FixKind
from checks.registry import ALL
from checks.runner import run
from containers.device_options import device_access, no_access_problem
from containers.model import Access, ImageVendor
from gpu_setup.render.facts import facts_text
from harness.environment.stack_choice import choose_stack
from provision.model import Plan, State
from provision.plan.container_engine import OLDER_CDI, REFRESH_CDI
from provision.plan.planner import make_plan
from provision.target import PlanTarget
from tests.checks.rules.cases_places import SNAP, both, inside, podman, rocm, working, wsl
from tests.checks.rules.hosts import but, healthy_nvidia, package


def findings(host: Host) -> dict[str, Finding]:
    return {found.check: found for result in run(host, catalogue(), ALL).results for found in result.findings}


def plan(host: Host) -> Plan:
    return make_plan(host, catalogue(), PlanTarget())


@pytest.mark.parametrize(
    "host",
    [wsl(), wsl("GPU access blocked by the operating system"), wsl(dxg=False), wsl(generation=1), rocm(), working()],
)
def test_no_sentence_about_wsl_names_a_pci_bus(host: Host) -> None:
    (present,) = (row for row in run(host, catalogue(), ALL).results if row.id == "gpu.present")
    assert "PCI bus" not in present.reason
    assert "WSL" in present.reason or "RTX 3080" in present.reason


def test_a_working_card_in_wsl_is_checked_like_any_other() -> None:
    by_id = {row.id: row for row in run(working(), catalogue(), ALL).results}
    assert not [row.id for row in by_id.values() if row.status in ("fail", "warn")]
    assert by_id["python.compiler"].status == "pass"
    assert by_id["gpu.vram"].status == by_id["driver.too-old"].status == "pass"
    assert "WSL" in by_id["driver.bound"].reason and by_id["driver.bound"].status == "skip"


def test_the_plan_for_a_working_card_in_wsl_installs_no_driver() -> None:
    found = plan(but(working(), python={"venv": False}))
    assert not found.refusals and any("driver in Windows" in note for note in found.notes)
    assert [step.id for step in found.steps if step.state is State.TODO] == ["python-venv"]


def test_the_plan_in_wsl_configures_an_installed_engine_and_installs_none() -> None:
    engine = Docker(kind="docker-ce", answers=True, runtimes=("runc",), version="28.5.1", installed=("docker-ce",))
    host = but(working(), docker=engine)
    assert "container.toolkit" in findings(host)
    assert {"container-toolkit", "docker-runtime"} <= {step.id for step in plan(host).open_steps()}
    for other in (Docker(), Docker(kind="desktop", answers=True)):
        assert not [step.id for step in plan(but(host, docker=other)).steps if "docker" in step.id or "cdi" in step.id]


def test_no_fix_in_a_container_passes_the_overflow_group() -> None:
    for virtualisation in ("podman", "docker", "lxc", "container-other"):
        fix = findings(inside(virtualisation, 65534, "nogroup"))["rocm.kfd-access"].fix
        assert fix is not None and "65534" not in fix.text
    podman_fix = findings(inside("podman", 65534, "nogroup"))["rocm.kfd-access"].fix
    assert podman_fix is not None and "--group-add keep-groups" in podman_fix.text and "crun" in podman_fix.text
    # a container with the host's number keeps today's advice, and SELinux is named where the group is there
    docker_fix = findings(inside("docker", 992, None))["rocm.kfd-access"].fix
    assert docker_fix is not None and "--group-add 992" in docker_fix.text
    fedora = findings(inside("podman", 105, "render", ("render", "root")))["rocm.kfd-access"].fix
    assert fedora is not None and "container_use_devices" in fedora.text


def test_the_plan_keeps_the_toolkit_to_what_an_old_podman_reads() -> None:
    steps = {step.id: step for step in plan(podman("4.9.3+ds1-1ubuntu0.2", "0.7.0")).steps}
    assert steps["cdi-version"].action == OLDER_CDI and steps["cdi-refresh"].action == REFRESH_CDI
    assert "no-additional-gids-for-device-nodes" in OLDER_CDI.content
    fix = findings(podman("4.9.3+ds1-1ubuntu0.2", "0.7.0"))["container.cdi"].fix
    assert fix is not None and fix.kind is FixKind.PROVISION
    # a file that a person wrote, and a system that the plan does not support
    for other in (
        podman("4.9.3", "0.7.0", "/etc/cdi/nvidia.yaml"),
        but(podman("4.9.3", "0.7.0"), os={"version_id": "26.04"}),
    ):
        fix = findings(other)["container.cdi"].fix
        assert fix is not None and "--feature-flag=no-additional-gids-for-device-nodes" in fix.argv
    # before the toolkit is installed, and nothing to write again
    host = but(podman("4.9.3", "0.7.0"), nvidia={"cdi_specs": (), "cdi_versions": (), "cdi_schemas": ()})
    fresh = [step.id for step in plan(host).steps]
    assert fresh.index("cdi-version") < fresh.index("container-toolkit") and "cdi-refresh" not in fresh
    for fine in (podman("5.7.0", "0.7.0"), podman("4.9.3", "0.5.0")):
        assert not {"cdi-version", "cdi-refresh"} & {step.id for step in plan(fine).steps}


def test_the_plan_never_removes_a_snap_nor_promises_its_runtime() -> None:
    steps = {step.id: step for step in plan(but(both(**SNAP), docker={"daemon_json_valid": None})).steps}
    assert steps["docker"].state is State.MANUAL and ("snap", "remove", "docker") in steps["docker"].commands
    assert steps["docker-runtime"].state is State.BLOCKED


def test_a_linux_driver_in_wsl_is_removed_by_its_packages() -> None:
    host = but(wsl("not-loaded"), apt={"packages": (package("libnvidia-compute-535", "535.183.01-0ubuntu0"),)})
    found = findings(host)
    fix = found["os.virtual"].fix
    assert fix is not None and fix.argv == ("apt-get", "remove", "libnvidia-compute-535")
    assert found["wsl.gpu"].caused_by == "os.virtual"


@pytest.mark.parametrize("device", ["2206", ""])
def test_a_card_in_wsl_trains_on_its_stack(device: str) -> None:
    """NVML's compute capability is enough, also where it reports no PCI id."""
    host = working()
    host = but(host, cards=tuple(structs.replace(card, device=device) for card in host.cards or ()))
    choice = choose_stack(host, catalogue())
    assert choice.gpu and choice.target == "8.6" and choice.stack.vendor == "nvidia"
    assert device_access(but(working(), docker=Docker(kind="desktop", answers=True)), ImageVendor.NVIDIA) is Access.GPUS


def test_an_image_is_not_run_with_a_description_that_the_engine_refuses() -> None:
    host = podman("4.9.3+ds1-1ubuntu0.2", "0.7.0")
    assert device_access(host, ImageVendor.NVIDIA) is None
    problem = no_access_problem(host, ImageVendor.NVIDIA)
    assert problem.code == "image.cdi-version" and "4.9.3" in problem.what
    assert device_access(podman("5.7.0", "0.7.0"), ImageVendor.NVIDIA) is Access.CDI
    # Docker 25 has NVIDIA's runtime besides
    old = but(host, docker=healthy_nvidia().docker)
    assert device_access(but(old, docker={"version": "25.0.5"}), ImageVendor.NVIDIA) is Access.GPUS


def test_a_driver_that_is_too_old_in_wsl_is_updated_in_windows() -> None:
    fix = findings(working("NVIDIA GeForce RTX 3080", "516.94"))["driver.too-old"].fix
    assert fix is not None and fix.text.startswith("In Windows:") and not fix.argv


def test_little_memory_in_wsl_is_a_setting_of_windows() -> None:
    fix = findings(but(working(), resources={"memory_total": 8 * 10**9, "swap_total": 2 * 10**9}))[
        "resources.memory"
    ].fix
    assert fix is not None and ".wslconfig" in fix.text


def test_every_fix_for_podman_4_writes_a_description_that_it_reads() -> None:
    host, path = podman("4.9.3+ds1-1ubuntu0.2", "0.5.0"), "/run/cdi/nvidia.yaml"
    cases = {
        "container.runtime": but(host, nvidia={"cdi_specs": (), "cdi_versions": (), "cdi_schemas": ()}),
        "container.cdi": but(host, nvidia={"cdi_versions": ((path, "570.169"),)}),
    }
    flag = "--feature-flag=no-additional-gids-for-device-nodes"
    for id, broken in cases.items():
        fix = findings(broken)[id].fix
        assert fix is not None and flag in fix.argv
        newer = findings(but(broken, docker={"version": "5.4.2"}))[id].fix
        assert newer is not None and flag not in newer.argv


def test_no_sentence_says_that_a_docker_answers_where_docker_desktop_does() -> None:
    found = findings(both(kind="desktop", running=("docker-ce", "snap")))
    assert "container.desktop" in found and "container.snap" not in found


def test_the_facts_say_what_windows_gives() -> None:
    text = " ".join(facts_text(working(), catalogue()).split())
    assert "WSL 2, /dev/dxg; from Windows: libcuda.so.1" in text
    assert "WSL" not in facts_text(healthy_nvidia(), catalogue())
