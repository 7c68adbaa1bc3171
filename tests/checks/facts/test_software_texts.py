"""apt, Docker, Python, accounts, memory: real texts in, facts out."""

from __future__ import annotations

import pytest

from checks.catalogue import catalogue
from checks.facts import apt
from checks.facts.apt_sources import owner, parse_list, parse_sources
from checks.facts.docker import parse_answerer, parse_daemon_json, parse_info, parse_problem, parse_runtimes
from checks.facts.person import database_groups, parse_group, parse_primary
from checks.facts.python import parse_minor, parse_patchlevel
from checks.facts.resources import parse_cgroup, parse_cpuinfo, parse_limit, parse_meminfo
from machine.local import Outcome

STATUS = b"""Package: adduser
Status: install ok installed
Architecture: all
Version: 3.137ubuntu1

Package: dpkg
Essential: yes
Status: install ok installed
Priority: required
Architecture: amd64
Version: 1.22.6ubuntu6.5

Package: libnvidia-gl-580
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 580.95.05-0ubuntu0.24.04.2
Description: NVIDIA OpenGL libraries
 Status: of a description line that means nothing

Package: nvidia-dkms-580-open
Status: install ok half-configured
Architecture: amd64
Version: 580.95.05-0ubuntu0.24.04.2
Config-Version: 580.82.07-0ubuntu1

Package: linux-image-6.8.0-31-generic
Status: hold ok installed
Architecture: amd64
Version: 6.8.0-31.31

Package: linux-image-6.8.0-30-generic
Status: deinstall ok config-files
Architecture: amd64
Version: 6.8.0-30.30

Package: cuda-old
Status: purge ok not-installed
Architecture: amd64

Package: something
Status: install reinstreq half-installed
Architecture: amd64
Version: 1
"""


def test_relevant_packages_are_kept_and_incomplete_ones_listed() -> None:
    packages, broken = apt.parse_status(STATUS)
    found = {package.name: package for package in packages}
    assert sorted(found) == [
        *("libnvidia-gl-580:i386", "linux-image-6.8.0-30-generic", "linux-image-6.8.0-31-generic"),
        "nvidia-dkms-580-open",
    ]
    assert found["nvidia-dkms-580-open"].state == "half-configured"
    assert found["linux-image-6.8.0-31-generic"].held
    assert found["linux-image-6.8.0-30-generic"].state == "config-files"
    assert broken == ("nvidia-dkms-580-open", "something")


def test_a_recording_has_only_the_parts_of_dpkg_that_are_read() -> None:
    reduced = apt.reduce_status(STATUS)
    assert apt.parse_status(reduced) == apt.parse_status(STATUS)
    assert b"adduser" not in reduced and b"Description" not in reduced


def test_every_package_that_a_plan_installs_is_read_again() -> None:
    """A package that stays out of the facts would be planned for ever."""
    words = {"branch": 580, "family": "", "flavour": "generic", "kernel": "6.8.0-31-generic", "target": "gfx1100"}
    rows = [row for row in catalogue().packages if row.key not in ("apt.tools", "nvidia.repo.drivers")]
    # a name that ends so is the beginning of many
    names = {name for row in rows for name in row.fill(**words) if not name.endswith("-")}
    status = "\n".join(f"Package: {name}\nStatus: install ok installed\nVersion: 1\n" for name in sorted(names))
    assert names == {package.name for package in apt.parse_status(status.encode())[0]}


def test_a_desktops_status_file_is_parsed_quickly() -> None:
    import time

    paragraph = (
        b"Package: lib%d\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\nDescription: x\n"
        + b" y\n" * 300
    )
    content = STATUS + b"\n" + b"\n".join(paragraph % number for number in range(3000))
    best = 1.0
    for _ in range(5):
        begin = time.thread_time()
        packages, _ = apt.parse_status(content)
        best = min(best, time.thread_time() - begin)
    assert len(packages) == 4
    assert best < 0.03


UBUNTU = """Types: deb
URIs: http://de.archive.ubuntu.com/ubuntu/
Suites: noble noble-updates
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

# security
Types: deb deb-src
URIs: http://security.ubuntu.com/ubuntu/
Suites: noble-security
Components: main
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""
ROCM_10 = """X-Repo-Id: amdrocm-stable
Types: deb
URIs: https://stable.repo.amd.com/rocm/core/packages/ubuntu2404/
Suites: stable
Components: main
Architectures: amd64
Signed-By: /etc/apt/keyrings/amdrocm.gpg
Enabled: yes
"""
OFF_AND_SOURCE = """Types: deb
URIs: http://example.org
Suites: a
Enabled: no

Types: deb-src
URIs: http://example.org
Suites: a

Types: deb
URIs: http://example.org
Suites: b
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
"""


def test_deb822_sources() -> None:
    found = parse_sources("ubuntu.sources", UBUNTU)
    assert [(s.suite, s.owner) for s in found] == [
        *(("noble", "ubuntu"), ("noble-updates", "ubuntu"), ("noble-security", "ubuntu"))
    ]
    rocm = parse_sources("amdrocm-stable.sources", ROCM_10)[0]
    assert (rocm.owner, rocm.signed_by) == ("amd-rocm", "/etc/apt/keyrings/amdrocm.gpg")
    assert [(s.suite, s.signed_by) for s in parse_sources("x", OFF_AND_SOURCE)] == [("b", "embedded")]


def test_one_line_sources() -> None:
    text = """# deb http://old example main
deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg] https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /
deb-src http://archive.ubuntu.com/ubuntu noble main
deb [arch=amd64 signed-by=/etc/apt/keyrings/rocm.gpg] https://repo.radeon.com/rocm/apt/7.2.4 noble main
deb http://archive.ubuntu.com/ubuntu noble main # comment
"""  # noqa: E501
    found = parse_list("x.list", text)
    assert [(s.owner, s.suite) for s in found] == [("nvidia-toolkit", "/"), ("amd-rocm", "noble"), ("ubuntu", "noble")]
    assert found[1].signed_by == "/etc/apt/keyrings/rocm.gpg"


@pytest.mark.parametrize(
    ("uri", "who"),
    [
        ("https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/", "nvidia"),
        ("file:///var/nvidia-driver-local-repo-ubuntu2404-610.57.04", "nvidia"),
        ("https://repo.radeon.com/amdgpu/31.50/ubuntu", "amd-graphics"),
        ("https://repo.radeon.com/graphics/7.2.4/ubuntu", "amd-graphics"),
        ("https://repo.radeon.com/amd-container-toolkit/apt/", "amd-toolkit"),
        ("https://repo.amd.com/rocm/packages-multi-arch/ubuntu2404", "amd-rocm"),
        ("https://download.docker.com/linux/ubuntu", "docker"),
        ("https://ppa.launchpadcontent.net/graphics-drivers/ppa/ubuntu/", "ppa"),
        ("http://mirror.corp/ubuntu", "ubuntu"),
        ("https://esm.ubuntu.com/apps/ubuntu", "ubuntu"),
        ("http://deb.debian.org/debian", "other"),
    ],
)
def test_the_owner_of_a_repository(uri: str, who: str) -> None:
    assert owner(uri) == who


def test_pins() -> None:
    cuda = """Package: nsight-compute
Pin: origin *ubuntu.com*
Pin-Priority: -1

Package: *
Pin: release l=NVIDIA CUDA
Pin-Priority: 600
"""
    found = apt.parse_pins("/etc/apt/preferences.d/cuda-repository-pin-600", cuda)
    assert [(pin.packages, pin.pin, pin.priority) for pin in found] == [
        ("nsight-compute", "origin *ubuntu.com*", -1),
        ("*", "release l=NVIDIA CUDA", 600),
    ]


def test_unattended_upgrades() -> None:
    auto = 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'
    assert apt.parse_settings(auto)["apt::periodic::unattended-upgrade"] == "1"
    settings = """// Automatically upgrade packages from these
Unattended-Upgrade::Allowed-Origins { "${distro_id}:${distro_codename}"; };
Unattended-Upgrade::Package-Blacklist {
    // The following matches all packages starting with linux-
//  "linux-";
    "nvidia-";
    "libnvidia-";
};
//Unattended-Upgrade::Automatic-Reboot "false";
Unattended-Upgrade::Automatic-Reboot "true";
Unattended-Upgrade::Mail "http://x//y";
"""
    found = apt.parse_settings(settings)
    assert found["unattended-upgrade::package-blacklist"] == ("nvidia-", "libnvidia-")
    assert found["unattended-upgrade::automatic-reboot"] == "true"


def test_who_holds_a_lock() -> None:
    locks = """1: POSIX  ADVISORY  WRITE 4711 08:02:1311768 0 EOF
2: FLOCK  ADVISORY  WRITE 1 00:1a:13 0 EOF
2: -> POSIX  ADVISORY  WRITE 99 08:02:1311768 0 EOF
"""
    assert apt.parse_lock_pids(locks, 1311768) == (4711,)
    assert apt.parse_lock_pids(locks, 7) == ()


# ---- Docker
INFO = """{"ID":"1f2e","Containers":2,"Runtimes":{"io.containerd.runc.v2":{"path":"runc"},"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}},"CgroupDriver":"systemd","OperatingSystem":"Ubuntu 24.04.3 LTS","HttpProxy":"http://u:p@proxy","Name":"rechenknecht","ServerVersion":"28.5.1","SecurityOptions":["name=apparmor","name=seccomp,profile=builtin","name=cgroupns"],"CDISpecDirs":["/etc/cdi","/var/run/cdi"],"DockerRootDir":"/var/lib/docker","ClientInfo":{"Version":"28.5.1","Context":"default"}}"""  # noqa: E501
SILENT = """{"ServerVersion":"","Runtimes":null,"SecurityOptions":null,"CDISpecDirs":null,"ServerErrors":["Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"],"ClientInfo":{"Version":"28.5.1"}}"""  # noqa: E501


def answer(stdout: str, stderr: str = "", rc: int | None = 0, problem: str = "") -> Outcome:
    return Outcome(("docker", "info"), rc, stdout, stderr, 0.1, problem)


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        # canonical/docker-snap#148, #180
        ('"DockerRootDir":"/var/snap/docker/common/var-lib-docker","OperatingSystem":"Ubuntu Core 22"', "snap"),
        ('"DockerRootDir":"/var/snap/docker/2932/var-lib-docker/"', "snap"),
        # the snap's client, answered by docker-ce; a data-root of one's own
        ('"DockerRootDir":"/var/lib/docker","OperatingSystem":"Ubuntu 24.04.2 LTS"', None),
        ('"DockerRootDir":"/data/snap/docker"', None),
        # rootless Docker
        ('"DockerRootDir":"/home/alex/.local/share/docker","SecurityOptions":["name=rootless"]', None),
        # podman's service behind Docker's command, of root and of a user
        ('"DockerRootDir":"/var/lib/containers/storage","ServerVersion":"4.9.3"', "podman"),
        ('"DockerRootDir":"/home/alex/.local/share/containers/storage","ServerVersion":"5.4.2"', "podman"),
        ('"DockerRootDir":"/var/lib/docker","OperatingSystem":"Docker Desktop"', "desktop"),
        ('"ClientInfo":{"Context":"desktop-linux"}', "desktop"),
    ],
)
def test_which_engine_answered(fields: str, who: str | None) -> None:
    assert parse_answerer(parse_info(f"{{{fields}}}\n")) == who


def test_docker_info() -> None:
    info = parse_info(INFO + "\n")
    assert info is not None and info.runtimes is not None
    assert (info.server_version, info.cgroup_driver, info.root_dir) == ("28.5.1", "systemd", "/var/lib/docker")
    assert sorted(info.runtimes) == ["io.containerd.runc.v2", "nvidia", "runc"]
    assert parse_problem(answer(INFO), info) is None
    assert parse_info("Client:\n Version: 1") is None


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (answer(SILENT), "not-running"),
        (answer(SILENT.replace("Cannot connect", "permission denied while trying to connect")), "permission-denied"),
        (answer("", "permission denied while trying to connect to the Docker daemon socket", 1), "permission-denied"),
        (answer("", "", None, "timed-out"), "timed-out"),
        (answer("", "Cannot connect to the Docker daemon at tcp://x. Is the docker daemon running?", 1), "not-running"),
        (answer("", "error: something\nelse entirely", 1), "else entirely"),
        (answer("", "", 1), "no answer"),
    ],
)
def test_why_docker_does_not_respond(outcome: Outcome, problem: str) -> None:
    assert parse_problem(outcome, parse_info(outcome.stdout)) == problem


@pytest.mark.parametrize(
    ("content", "fine"),
    [
        (b'{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}', True),
        (b"", True),
        (b"\n", True),
        (b'{"a": 1,}', False),
        (b"[]", False),
        (b"{\xff}", False),
    ],
)
def test_an_invalid_daemon_json(content: bytes, fine: bool) -> None:
    assert (parse_daemon_json(content) is None) is fine


def test_runtimes_in_a_daemon_json() -> None:
    assert parse_runtimes(b'{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}, "a": {}}}') == ("a", "nvidia")
    assert parse_runtimes(b"") == parse_runtimes(b'{"runtimes": []}') == parse_runtimes(b'{"debug": true}') == ()


# ---- accounts, Python, memory

GROUP = "root:x:0:\nadm:x:4:syslog,alex\nvideo:x:44:alex\nrender:x:992:alex\nbroken\nalex:x:1000:\n"
PASSWD = "root:x:0:0:root:/root:/bin/bash\nalex:x:1000:1000:Alex,,,:/home/alex:/bin/bash\n"


def test_groups_of_a_new_login() -> None:
    assert parse_group(GROUP)[1] == ("adm", 4, ("syslog", "alex"))
    assert parse_primary(PASSWD, "alex") == 1000
    assert database_groups("alex", GROUP, PASSWD) == ("adm", "alex", "render", "video")
    assert database_groups("from-ldap", GROUP, PASSWD) is None


def test_python_versions() -> None:
    assert parse_minor("python3.12") == "3.12"
    assert parse_minor("/etc/alternatives/python3") is None
    assert parse_patchlevel('#define PY_VERSION              "3.12.3"\n') == "3.12.3"


def test_memory_and_cpu() -> None:
    text = "MemTotal:       65737692 kB\nMemAvailable:   60000000 kB\nSwapTotal:  0 kB\nHugePages_Total:       0\n"
    assert parse_meminfo(text) == {"MemTotal": 65737692 * 1024, "MemAvailable": 60000000 * 1024, "SwapTotal": 0}
    cpu = "processor\t: 0\nmodel name\t: AMD Ryzen 9 5950X  16-Core Processor\n\nprocessor\t: 1\n"
    assert parse_cpuinfo(cpu) == (2, "AMD Ryzen 9 5950X 16-Core Processor")


def test_control_groups() -> None:
    assert parse_cgroup("0::/user.slice/user-1000.slice/session-2.scope\n") == (
        "/user.slice/user-1000.slice/session-2.scope",
        None,
    )
    assert parse_cgroup("5:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n") == ("/", "/docker/abc")
    assert parse_limit("8589934592\n") == 8589934592
    assert parse_limit("max\n") is None
    assert parse_limit("9223372036854771712\n") is None
