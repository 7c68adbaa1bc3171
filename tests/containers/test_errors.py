"""Real error texts of engines, and the message that a person gets."""

from __future__ import annotations

import pytest

from containers.build import BuildProgress
from containers.errors import CAUSES, engine_problem, last_error, text_problem
from machine.errors import OUTSIDE_FAILED, REFUSED
from machine.events import Event, silent
from machine.local import ABSENT, Outcome

DAEMON = "docker: Error response from daemon: "
SEEN = [
    (f'{DAEMON}could not select device driver "" with capabilities: [[gpu]].', "toolkit-missing"),
    (f"{DAEMON}error gathering device information while adding custom device \"/dev/kfd\": no such file or directory.",
     "device-absent"),
    (f"{DAEMON}Unable to find group render: no matching entries in group file.", "group-name"),
    (f"{DAEMON}CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all.", "cdi-unknown"),
    (f'{DAEMON}could not select device driver "cdi" with capabilities: [].', "cdi-off"),
    ("the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/", "no-buildkit"),
    ("ERROR: BuildKit is enabled but the buildx component is missing or broken.", "no-buildkit"),
    ('invalid mount config for type "bind": bind source path does not exist: /home/alex/mine.json', "not-shared"),
    ("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver",
     "driver-too-old"),
    ("nvidia-container-cli: initialization error: nvml error: driver/library version mismatch", "library-mismatch"),
    ("nvidia-container-cli: initialization error: nvml error: driver not loaded", "driver-not-loaded"),
    ("failed to create device filter: bpf_prog_query(BPF_CGROUP_DEVICE) failed: operation not permitted",
     "rootless-cgroups"),
    ("Failed to initialize NVML: Unknown Error", "card-lost"),
    ("#9 55.1 ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no-room"),
    ("failed to copy files: userspace copy failed: write /opt/x: no space left on device", "no-room"),
    ("#9 4.2 ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash"),
    ("#8 1.0 ERROR: No matching distribution found for torch==2.13.0", "not-offered"),
    ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))",
     "certificate"),
    ("NewConnectionError: Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
     "network"),
    ("E: Unable to locate package python3-dev", "base-packages"),
    ("/bin/sh: 1: dpkg: not found", "base-system"),
    ("AssertionError: torch is built for another device", "wrong-torch"),
    ("AssertionError: the base has Python 3.11.2", "base-python"),
    ("failed to solve: base:1: failed to resolve source metadata for docker.io/library/base:1", "base-unreachable"),
    ("failed to solve with frontend dockerfile.v0: failed to do request: Head https://registry-1.docker.io/v2/",
     "base-unreachable"),
    ("pull access denied for company/base, repository does not exist", "base-unreachable"),
    ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "shm"),
    ("error setting rlimits for ready process: error setting rlimit type 8: operation not permitted", "rlimit"),
    ("touch: cannot touch '/x': Read-only file system", "read-only"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code"), SEEN, ids=[f"{at}-{code}" for at, (_, code) in enumerate(SEEN)])
def test_a_text_and_its_cause(text: str, code: str) -> None:
    problem = engine_problem(Outcome((), 125, text, "", 1.0), "The container did not start")
    assert problem.code == f"image.{code}"
    assert text_problem(text, "The container did not start").what == problem.what
    assert problem.what.startswith("The container did not start: ")
    assert problem.why and problem.next
    assert problem.exit_code in (OUTSIDE_FAILED, REFUSED)


def test_every_cause_has_been_seen() -> None:
    assert {f"image.{cause.code}" for cause in CAUSES} == {
        engine_problem(Outcome((), 1, text, "", 1.0), "x").code for text, _ in SEEN
    }


ECHOED = """\
#6 [environment 1/4] RUN apt-get -o APT::Update::Error-Mode=any update
 > [environment 4/4] RUN pip install || echo "torch is built for another device", "the base has Python":
#10 3.1 ERROR: No matching distribution found for accelerate==1.13.0
executor failed running [/bin/sh -c APT::Update::Error-Mode=any; "torch is built for another device"]: exit code: 1
ERROR: failed to solve: process "/bin/sh -c set -eu; Error: x" did not complete successfully: exit code: 1
  12 | >>> RUN assert "CERTIFICATE_VERIFY_FAILED"
"""


def test_the_echo_of_the_failed_command_is_no_cause() -> None:
    """BuildKit repeats the whole command, with all its possible messages."""
    problem = engine_problem(Outcome((), 1, ECHOED, "", 1.0), "The build stopped")
    assert problem.code == "image.not-offered"
    assert problem.why == "3.1 ERROR: No matching distribution found for accelerate==1.13.0"


def test_an_unknown_end_shows_its_last_error_and_the_log() -> None:
    problem = engine_problem(
        Outcome((), 1, "one\nError: the moon is wrong\ntwo", "", 1.0), "The build stopped", log="/tmp/b.log"
    )
    assert problem.why == "Error: the moon is wrong"
    assert "/tmp/b.log" in problem.next


def test_a_killed_process_speaks_of_memory() -> None:
    assert engine_problem(Outcome((), 137, "", "", 1.0), "The build stopped").code == "image.killed"


def test_a_missing_program() -> None:
    assert engine_problem(Outcome((), None, "", "", 0.0, ABSENT), "The build stopped").code == "image.engine"


def test_the_clients_own_complaint_hides_nothing() -> None:
    text = (
        f'{DAEMON}Unable to find group render\ntime="…" level=error msg="error waiting for container: context canceled"'
    )
    assert "group render" in last_error(text)


BUILDKIT = """\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#5 [system 1/2] FROM docker.io/library/debian:bookworm
#5 CACHED
#7 [environment 2/4] RUN --mount=type=cache,id=a,target=/b     set -eu; pip install torch
#7 0.580 Looking in links: /wheels
#7 0.676 Processing /wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
#7 13.90 Successfully installed torch-2.13.0+cpu
#7 DONE 14.1s
#8 [environment 4/4] RUN pip install rest
#8 1.0 ERROR: No matching distribution found for axolotl
#8 ERROR: executor failed running [/bin/sh -c set -eu; pip]: exit code: 1
------
 > [environment 4/4] RUN pip install rest:
------
executor failed running [/bin/sh -c set -eu; pip]: exit code: 1
"""


def test_a_builds_steps_are_reported_and_its_failed_step_is_quoted() -> None:
    events: list[Event] = []
    progress = BuildProgress(events.append, 9)
    for line in BUILDKIT.splitlines():
        progress.line(line)
    assert [step.partition(":")[0] for step in progress.steps.values()] == [
        "system 1/2", "environment 2/4", "environment 4/4",
    ]  # fmt: skip
    assert progress.cached == 1
    assert all("--mount" not in event.text for event in events)
    assert any("torch-2.13.0" in event.text for event in events)
    assert (events[-1].done, events[-1].total) == (2, 9)
    assert "No matching distribution" in progress.failure_output("the end").splitlines()[0]


BUILDAH = """\
[1/3] STEP 1/4: FROM debian:bookworm AS system
[1/3] STEP 2/4: RUN set -eu; python3 -c 'assert "the base has Python"'
--> Using cache 41e9a3b4a9e
[2/3] STEP 1/2: FROM system AS environment
[2/3] STEP 2/2: RUN pip install || echo "torch is built for another device"
Processing /wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
ERROR: No matching distribution found for axolotl
Error: building at STEP "RUN pip install || echo "AssertionError: the base has Python"": exit status 1
"""


def test_podmans_build_is_reported_and_explained_too() -> None:
    events: list[Event] = []
    progress = BuildProgress(events.append, 9)
    for line in BUILDAH.splitlines():
        progress.line(line)
    assert len(progress.steps) == 4
    assert progress.cached == 1
    assert (events[-1].text, events[-1].done) == (
        "Processing /wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", 3,
    )  # fmt: skip
    problem = engine_problem(Outcome((), 1, BUILDAH, "", 1.0), "The build stopped")
    assert problem.code == "image.not-offered"
    assert problem.why == "ERROR: No matching distribution found for axolotl"
    odd = 'Error: building at STEP "RUN --mount=sharing=odd true": unrecognized value "odd" for field `sharing`'
    assert last_error(odd) == 'unrecognized value "odd" for field `sharing`'


def test_output_that_is_no_builders_is_no_error() -> None:
    progress = BuildProgress(silent)
    for line in ("", "STEP x: FROM y", "#", "#x [", "\x00", "#12 [a 1/2"):
        progress.line(line)
    assert progress.steps == {}
