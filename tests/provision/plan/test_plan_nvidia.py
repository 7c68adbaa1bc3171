"""NVIDIA: from a machine to the driver's packages and the steps around them."""

from __future__ import annotations

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.host import AptSource, Docker, Firmware, Kernel, ModuleFile, Nvidia, NvmlGpu, Person
from provision.model import AptInstall, AptPreference, AptRepo, State
from provision.plan.planner import make_plan
from provision.target import Display, DriverSource, PlanTarget
from tests.provision.plan.answers import install, planned, states, step
from tests.provision.plan.machines import (
    GA,
    HWE,
    RTX_3090_TI,
    RTX_5090,
    RTX_6000_ADA,
    V100,
    card,
    healthy_3090,
    packages,
    ubuntu,
)


def test_a_fresh_rtx_3090_ti_desktop_takes_signed_modules_from_the_archive() -> None:
    found = planned(ubuntu(RTX_3090_TI, secure_boot=True))
    assert install(found) == ["nvidia-driver-595-open", "linux-modules-nvidia-595-open-generic-hwe-24.04"]
    assert "signed by Canonical" in step(found, "nvidia-driver").because
    assert "enrol-key" not in states(found)
    assert found.reboots == 1
    assert [step.id for step in found.steps][-1] == "reboot"
    assert "nouveau" in found.steps[-1].because


def test_the_archive_route_stops_if_apt_would_build_the_module_after_all() -> None:
    action = step(planned(ubuntu(RTX_3090_TI)), "nvidia-driver").action
    assert isinstance(action, AptInstall)
    assert action.forbid == ("nvidia-dkms-*-open", "nvidia-dkms-*", "dkms")


def test_nvidias_own_repository_locks_the_branch_first_and_needs_a_person_under_secure_boot() -> None:
    found = planned(ubuntu(RTX_3090_TI, secure_boot=True), source="nvidia")
    order = [step.id for step in found.steps]
    assert order[:6] == [
        "key-nvidia.cuda",
        "repository-nvidia.cuda",
        "pin-nvidia.cuda",
        "nvidia-branch-lock",
        "next-boot-guard",
        "nvidia-driver",
    ]
    assert install(found, "nvidia-branch-lock") == ["nvidia-driver-pinning-595"]
    # from 590 on NVIDIA's packages carry no branch number
    assert install(found) == ["linux-headers-generic-hwe-24.04", "nvidia-open"]
    assert step(found, "enrol-key").state is State.MANUAL
    assert step(found, "nouveau-blacklist").state is State.TODO
    assert order.index("nouveau-blacklist") > order.index("nvidia-driver")
    repository = step(found, "repository-nvidia.cuda").action
    assert isinstance(repository, AptRepo)
    assert repository.signed_by == "/usr/share/keyrings/cuda-archive-keyring.gpg"


def test_nvidias_repository_before_the_renaming() -> None:
    found = planned(ubuntu(RTX_3090_TI), source="nvidia", branch=580)
    assert install(found) == ["linux-headers-generic-hwe-24.04", "nvidia-open-580"]


@pytest.mark.parametrize(
    ("firmware", "state"),
    [
        (Firmware(uefi=True, secure_boot=False), None),
        (Firmware(uefi=False), None),
        (Firmware(uefi=True, secure_boot=True, shim_validation_disabled=True), None),
        (Firmware(uefi=True, secure_boot=True, mok_key_enrolled=True), "done"),
        (Firmware(uefi=True, secure_boot=True), "manual"),
        (Firmware(), "manual"),
    ],
)
def test_a_key_is_enrolled_only_where_the_firmware_checks_modules(firmware: Firmware, state: str | None) -> None:
    host = msgspec.structs.replace(ubuntu(RTX_3090_TI), firmware=firmware)
    assert states(planned(host, source="nvidia")).get("enrol-key") == state


def test_a_headless_rtx_6000_ada_gets_no_display_packages_and_stays_awake() -> None:
    found = planned(ubuntu(RTX_6000_ADA, desktop=False, release=GA, flavour="generic"))
    assert install(found) == [
        "nvidia-headless-no-dkms-595-open",
        "nvidia-utils-595",
        "nvidia-compute-utils-595",
        "linux-modules-nvidia-595-open-generic",
    ]
    assert states(found)["nvidia-persistence"] == "todo"


def test_a_monitor_on_the_card_means_desktop_packages_also_without_a_desktop() -> None:
    found = planned(ubuntu(RTX_3090_TI, desktop=False))
    assert install(found)[0] == "nvidia-driver-595-open"


def test_headless_on_request() -> None:
    found = planned(ubuntu(RTX_3090_TI), display=Display.HEADLESS)
    assert install(found)[0] == "nvidia-headless-no-dkms-595-open"


def test_a_v100_stays_on_580_with_the_proprietary_module() -> None:
    found = planned(ubuntu(V100, desktop=False))
    assert install(found) == [
        "nvidia-headless-no-dkms-580",
        "nvidia-utils-580",
        "nvidia-compute-utils-580",
        "linux-modules-nvidia-580-generic-hwe-24.04",
    ]
    assert "branch 595 no longer supports Volta" in step(found, "nvidia-driver").because


def test_an_rtx_5090_works_only_with_the_open_module() -> None:
    found = planned(ubuntu(RTX_5090))
    assert install(found)[0] == "nvidia-driver-595-open"
    assert "the only kind that supports them" in step(found, "nvidia-driver").because


def test_a_5090_under_the_proprietary_module_gets_the_open_one() -> None:
    host = ubuntu(
        card("10de", "2b85", driver="nvidia"),
        installed=packages("nvidia-driver-580", "linux-modules-nvidia-580-generic-hwe-24.04"),
        nvidia=Nvidia(module_version="580.173.02", open_module=False, nvml=(), runfile=False),
    )
    found = planned(host)
    assert install(found)[0] == "nvidia-driver-595-open"
    action = step(found, "nvidia-driver").action
    assert isinstance(action, AptInstall)
    # the meta alone would leave the modules of the other kind
    assert action.remove == ("nvidia-driver-580", "linux-modules-nvidia-580-generic-hwe-24.04")
    assert "only with the open kernel module" in step(found, "nvidia-driver").because


def test_a_v100_beside_a_5090_has_no_common_driver() -> None:
    found = planned(ubuntu(V100, card("10de", "2b85", slot="0000:02:00.0")))
    assert [refusal.code for refusal in found.refusals] == ["plan.no-branch"]
    assert found.steps == ()


def test_both_installed_kernel_lines_get_modules() -> None:
    host = ubuntu(RTX_3090_TI)
    both = msgspec.structs.replace(
        host.apt, packages=(*(host.apt.packages or ()), *packages("linux-image-generic", version="6.8.0-88.89"))
    )
    found = planned(msgspec.structs.replace(host, apt=both))
    assert install(found)[1:] == [
        "linux-modules-nvidia-595-open-generic-hwe-24.04",
        "linux-modules-nvidia-595-open-generic",
    ]


def test_a_running_kernel_that_no_meta_follows_gets_its_own_modules() -> None:
    host = ubuntu(RTX_3090_TI)
    kernel = msgspec.structs.replace(host.kernel, release="6.11.0-29-generic")
    found = planned(msgspec.structs.replace(host, kernel=kernel))
    assert "linux-modules-nvidia-595-open-6.11.0-29-generic" in install(found)


def test_image_packages_of_one_release_are_no_metas() -> None:
    host = ubuntu(RTX_3090_TI, installed=packages(f"linux-image-{HWE}", "linux-image-unsigned-6.5.0-1-oem"))
    assert install(planned(host))[1:] == ["linux-modules-nvidia-595-open-generic-hwe-24.04"]


def test_a_healthy_machine_has_nothing_to_do() -> None:
    found = planned(healthy_3090())
    assert set(states(found).values()) == {"done"}
    assert (found.reboots, found.download_bytes, found.open_steps()) == (0, 0, ())
    assert "580.173.02 is loaded" in step(found, "nvidia-driver").because


def test_installed_packages_are_not_counted_as_new() -> None:
    found = planned(
        ubuntu(RTX_3090_TI, installed=packages("nvidia-driver-595-open", version="595.84-0ubuntu0.24.04.1"))
    )
    action = step(found, "nvidia-driver").action
    assert isinstance(action, AptInstall)
    assert action.packages[0].installed == "595.84-0ubuntu0.24.04.1"
    assert found.packages()[0] == "linux-modules-nvidia-595-open-generic-hwe-24.04"
    assert step(found, "nvidia-driver").commands[0][3:] == ("linux-modules-nvidia-595-open-generic-hwe-24.04",)


def test_asking_for_a_newer_branch_moves_a_healthy_machine() -> None:
    found = planned(healthy_3090(), branch=595)
    assert install(found)[0] == "nvidia-driver-595-open"
    assert found.reboots == 1


def test_asking_for_nvidias_source_moves_a_healthy_archive_machine() -> None:
    found = planned(healthy_3090(), source="nvidia")
    action = step(found, "nvidia-driver").action
    assert isinstance(action, AptInstall)
    assert action.remove == ("nvidia-driver-580-open", "linux-modules-nvidia-580-open-generic-hwe-24.04")


def test_an_unknown_branch_and_one_under_the_floor_are_refused() -> None:
    assert [r.code for r in planned(ubuntu(RTX_3090_TI), branch=599).refusals] == ["plan.branch-unknown"]
    below = planned(ubuntu(RTX_3090_TI), branch=550).refusals[0]
    assert below.code == "plan.no-branch"
    assert "older than 580" in below.why


def test_libraries_newer_than_the_module_need_only_a_restart() -> None:
    host = healthy_3090()
    mismatch = msgspec.structs.replace(host.nvidia, nvml=None, nvml_problem="mismatch")
    found = planned(msgspec.structs.replace(host, nvidia=mismatch))
    assert [step.id for step in found.open_steps()] == ["reboot"]


def test_the_next_kernel_must_have_its_module_too() -> None:
    host = healthy_3090()
    kernel = msgspec.structs.replace(host.kernel, next_boot="6.17.0-20-generic")
    found = planned(msgspec.structs.replace(host, kernel=kernel))
    assert install(found, "nvidia-next-kernel") == ["linux-modules-nvidia-580-open-6.17.0-20-generic"]


def test_modules_that_lag_behind_the_kernel() -> None:
    """The metas are installed, but the kernel that runs has no module: nothing to install but exactly that one."""
    host = ubuntu(
        card("10de", "2204"),
        installed=packages("nvidia-driver-595-open", "linux-modules-nvidia-595-open-generic-hwe-24.04"),
    )
    lag = Kernel(
        release=HWE,
        next_boot=HWE,
        modules=(ModuleFile(name="nvidia", kernel="6.17.0-11-generic", path="", origin="prebuilt"),),
    )
    found = planned(msgspec.structs.replace(host, kernel=lag))
    assert states(found)["nvidia-driver"] == "done"
    assert install(found, "nvidia-next-kernel") == [f"linux-modules-nvidia-595-open-{HWE}"]
    assert found.reboots == 1


def test_signed_modules_replace_a_dkms_module_that_secure_boot_rejects() -> None:
    host = ubuntu(card("10de", "2204"), installed=packages("nvidia-driver-610-open", "nvidia-dkms-610-open", "dkms"))
    found = planned(host)
    action = step(found, "nvidia-driver").action
    assert isinstance(action, AptInstall)
    assert action.packages[0].name == "nvidia-driver-595-open"
    assert action.remove == ("nvidia-driver-610-open", "nvidia-dkms-610-open")
    assert "enrol-key" not in states(found)


def test_a_finished_installation_waits_only_for_the_restart() -> None:
    host = ubuntu(
        RTX_3090_TI, installed=packages("nvidia-driver-580-open", "linux-modules-nvidia-580-open-generic-hwe-24.04")
    )
    kernel = msgspec.structs.replace(
        host.kernel,
        modules=(ModuleFile(name="nvidia", kernel=HWE, path="", origin="prebuilt"),),
        blacklisted=(("nouveau", "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf"),),
    )
    found = planned(msgspec.structs.replace(host, kernel=kernel))
    assert states(found)["nvidia-driver"] == "done"
    assert "it takes RTX 3090 Ti (0000:01:00.0) at the next" in step(found, "reboot").because
    assert step(found, "reboot").because.endswith("rebuild the initramfs: sudo update-initramfs -u -k all.")


def test_nvidias_repository_beside_an_archive_driver_is_fenced_off() -> None:
    host = ubuntu(RTX_3090_TI)
    source = AptSource(file="cuda.list", uri="https://developer.download.nvidia.com/compute/cuda/x", owner="nvidia")
    apt = msgspec.structs.replace(host.apt, sources=(source,))
    action = step(planned(msgspec.structs.replace(host, apt=apt)), "pin-nvidia.drivers").action
    assert isinstance(action, AptPreference)
    assert action.priority == -1
    assert "cuda-drivers*" in action.packages


def test_the_cuda_compiler_on_request_does_not_endanger_the_driver() -> None:
    found = planned(ubuntu(RTX_3090_TI), toolkit=True)
    order = [step.id for step in found.steps]
    assert order.index("pin-nvidia.drivers") < order.index("cuda-toolkit")
    assert "cuda-toolkit" not in states(planned(ubuntu(RTX_3090_TI)))
    assert any("nvcc" in note for note in planned(ubuntu(RTX_3090_TI)).notes)


def test_a_run_file_that_cannot_stay_is_refused() -> None:
    host = ubuntu(card("10de", "2204", driver="nvidia"), nvidia=Nvidia(module_version="550.54.14", runfile=True))
    found = planned(host)
    assert [refusal.code for refusal in found.refusals] == ["plan.runfile"]
    assert "nvidia-uninstall" in found.refusals[0].next


def test_amds_sources_are_not_nvidias() -> None:
    assert [r.code for r in planned(ubuntu(RTX_3090_TI), source=DriverSource.IN_TREE).refusals] == ["plan.source"]


@pytest.mark.parametrize(
    ("docker", "expected"),
    [
        (Docker(), {"docker": "todo", "docker-runtime": "todo", "docker-reload": "todo"}),
        (
            Docker(kind="docker.io", version="26.1.3", runtimes=("runc",)),
            {"docker": "todo", "docker-runtime": "todo", "docker-reload": "todo"},
        ),
        (Docker(kind="docker-ce", runtimes=("runc", "nvidia")), {"docker": "done", "docker-runtime": "done"}),
        (Docker(kind="docker-ce", cdi_dirs=("/etc/cdi",)), {"docker": "done", "docker-runtime": "done"}),
        (
            Docker(kind="docker-ce", daemon_json_valid=False, daemon_json_problem="line 3"),
            {"docker": "done", "docker-runtime": "blocked", "docker-reload": "blocked"},
        ),
        (Docker(kind="docker-ce", rootless=True, runtimes=("runc",)), {"docker": "done", "docker-runtime": "manual"}),
        (Docker(kind="podman", version="5.4.0"), {"docker": "done"}),
        # who is not in the group docker may read its settings, and not ask it
        (
            Docker(kind="docker-ce", problem="permission-denied", daemon_json_runtimes=("nvidia",)),
            {"docker": "done", "docker-runtime": "done", "docker-reload": "done"},
        ),
        (
            Docker(kind="docker-ce", problem="permission-denied", daemon_json_runtimes=()),
            {"docker": "done", "docker-runtime": "todo", "docker-reload": "todo"},
        ),
        (Docker(kind="snap"), {"docker": "blocked", "docker-runtime": "todo", "docker-reload": "todo"}),
        (Docker(kind="desktop"), {"docker": "todo", "docker-runtime": "todo", "docker-reload": "todo"}),
    ],
)  # fmt: skip
def test_an_installed_engine_is_kept_and_gets_the_nvidia_runtime(docker: Docker, expected: dict[str, str]) -> None:
    found = planned(ubuntu(RTX_3090_TI, docker=docker))
    assert {id: state for id, state in states(found).items() if id.startswith("docker")} == expected


def test_the_container_toolkit_comes_with_its_key_and_repository() -> None:
    found = planned(ubuntu(RTX_3090_TI))
    order = [step.id for step in found.steps]
    first = order.index("key-nvidia.container-toolkit")
    assert order[first : first + 3] == [
        "key-nvidia.container-toolkit",
        "repository-nvidia.container-toolkit",
        "container-toolkit",
    ]
    assert states(found)["cdi"] == "todo"


def test_the_docker_group_is_never_added_unasked() -> None:
    host = ubuntu(RTX_3090_TI)
    found = planned(host)
    assert "docker-group" not in states(found)
    assert any("docker group" in note for note in found.notes)
    asked = step(planned(host, docker_group=True), "docker-group")
    assert asked.commands == (("usermod", "--append", "--groups", "docker", "ada"),)
    root = msgspec.structs.replace(host, person=Person(uid=0, user="root"))
    assert states(planned(root, docker_group=True))["docker-group"] == "done"


def test_an_interrupted_dpkg_is_repaired_first() -> None:
    host = ubuntu(RTX_3090_TI)
    found = planned(msgspec.structs.replace(host, apt=msgspec.structs.replace(host.apt, interrupted=True)))
    assert list(states(found))[:3] == ["dpkg-repair", "next-boot-guard", "nvidia-driver"]
    assert found.steps[0].commands[0] == ("dpkg", "--configure", "-a")


def test_a_branch_that_the_archive_has_nothing_of_is_left_out() -> None:
    found = make_plan(ubuntu(RTX_3090_TI), catalogue(), PlanTarget(), without=(595,))
    assert install(found)[0] == "nvidia-driver-580-open"
    assert "no modules of branch 595" in step(found, "nvidia-driver").because
    refused = make_plan(ubuntu(RTX_5090), catalogue(), PlanTarget(), without=(595, 580))
    assert [refusal.code for refusal in refused.refusals] == ["plan.no-branch"]


def test_what_could_not_be_read_is_said() -> None:
    host = ubuntu(RTX_3090_TI)
    found = planned(msgspec.structs.replace(host, apt=msgspec.structs.replace(host.apt, packages=None)))
    assert install(found)[1] == f"linux-modules-nvidia-595-open-{HWE}"
    assert "could not be read" in step(found, "nvidia-driver").because
    blind = msgspec.structs.replace(host, apt=msgspec.structs.replace(host.apt, packages=None), kernel=Kernel())
    assert step(planned(blind), "nvidia-driver").state is State.BLOCKED


def test_nvml_that_hangs_does_not_make_a_loaded_driver_wrong() -> None:
    host = healthy_3090()
    slow = msgspec.structs.replace(host.nvidia, nvml=None, nvml_problem="timed-out")
    because = step(planned(msgspec.structs.replace(host, nvidia=slow)), "nvidia-driver").because
    assert "NVML does not answer (timed-out)" in because


def test_two_cards_of_one_vendor_share_a_driver() -> None:
    gpus = (NvmlGpu(slot="0000:01:00.0"), NvmlGpu(slot="0000:02:00.0"))
    host = ubuntu(
        card("10de", "2204", driver="nvidia"),
        card("10de", "26b1", slot="0000:02:00.0", driver="nvidia"),
        nvidia=Nvidia(module_version="595.84", open_module=True, nvml=gpus, runfile=False),
    )
    assert states(planned(host))["nvidia-driver"] == "done"
