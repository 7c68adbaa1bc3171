"""Why a container engine failed: known texts of engines and builds, each seen in a failed build or start."""

from __future__ import annotations

import re

from machine.causes import Cause, find_cause
from machine.errors import OutsideFailed, Problem, Refused
from machine.local import Outcome

_ECHO = re.compile(
    r"executor failed running \[|did not complete successfully|error waiting for container"
    r"|^ ?> \[|^#\d+ \[|^\s*\d+ \| |^-+$|^(\[\d+/\d+\] )?STEP \d+/\d+: "
)
# buildah prints the command first and then the error
_BUILDAH = re.compile(r'^Error: building at STEP ".*": ')
_AGAIN = "Check the network; run the same command again to resume: finished steps are kept."
_CDI = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml (AMD: sudo amd-ctk cdi generate)"

# the exit status of `run` when the engine itself failed; otherwise it is the program's
ENGINE_FAILED = 125

# in order, the first that matches wins: special patterns before general ones
CAUSES: tuple[Cause, ...] = (
    # the builder
    Cause(
        r"buildx component is missing",
        "no-buildkit",
        "This Docker builds with its plugin buildx, and the plugin is missing.",
        "sudo apt-get install docker-buildx",
        Refused,
    ),
    Cause(
        r"--mount option requires BuildKit",
        "no-buildkit",
        "Docker's classic builder does not support mounts.",
        "sudo apt-get install docker-buildx",
        Refused,
    ),
    # devices: these errors come when the container starts, not when it is created
    Cause(
        r'could not select device driver "" with capabilities: \[\[gpu\]\]',
        "toolkit-missing",
        "The engine has no runtime for NVIDIA cards: the container toolkit is missing, or Docker was not reloaded "
        "after its installation.",
        "gpu-setup plan shows the steps of the container toolkit; then: sudo systemctl reload docker",
    ),
    Cause(
        r"unresolvable CDI devices",
        "cdi-unknown",
        "The engine finds no CDI description of this card, or a stale one (the driver or the card changed).",
        _CDI,
    ),
    Cause(
        r"CDI device injection failed",
        "cdi-unknown",
        "The engine could not add the devices of the card's CDI description; it may be older than the driver.",
        _CDI,
    ),
    Cause(
        r'could not select device driver "cdi"',
        "cdi-off",
        "The engine does not use CDI: it is older than version 25, or CDI is disabled.",
        'Add "features": {"cdi": true} to /etc/docker/daemon.json and reload, or use a newer engine',
    ),
    Cause(
        r"unsatisfied condition: cuda",
        "driver-too-old",
        "The image needs a newer driver than this machine has.",
        "gpu-setup plan shows the upgrade; gpu-setup image build makes an image that fits the driver",
    ),
    Cause(
        r"driver/library version mismatch",
        "library-mismatch",
        "The driver's libraries were updated while the older kernel module is still loaded.",
        "Reboot the machine",
    ),
    Cause(
        r"nvml error: driver not loaded",
        "driver-not-loaded",
        "The NVIDIA driver is not loaded.",
        "gpu-setup doctor shows why",
    ),
    Cause(
        r"bpf_prog_query",
        "rootless-cgroups",
        "A rootless engine cannot set device rules (cgroups).",
        "sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place",
    ),
    Cause(
        r"error gathering device information",
        "device-absent",
        "A device file is missing: no driver is loaded, or the engine runs in a virtual machine (Docker Desktop).",
        "gpu-setup doctor shows which",
    ),
    Cause(
        r"Unable to find group",
        "group-name",
        "The engine looked for the group's name inside the image, which does not have it.",
        "Use the group's number: getent group render",
    ),
    Cause(
        r"Failed to initialize NVML: Unknown Error",
        "card-lost",
        "systemd removed the devices of the running container (daemon-reload).",
        "Start the container again; CDI avoids this: gpu-setup plan",
    ),
    # the engine has not the same files
    Cause(
        r"bind source path does not exist|statfs .*: no such file or directory",
        "not-shared",
        "The engine does not see this folder or file: it runs in a virtual machine, or in a container of its own.",
        "Share the folder with the engine (Docker Desktop: Settings, Resources, File sharing), or use --runtime venv",
    ),
    # what a build needs
    Cause(
        r"o space left on device",
        "no-room",
        "The disk that holds the engine's images is full.",
        "Free some space (docker system df, docker builder prune), or move the engine's data-root",
    ),
    Cause(
        r"DO NOT MATCH THE HASHES",
        "hash",
        "A package is not the one that was locked.",
        "The package index or the wheels folder holds another file than the public one: correct it, or report this",
    ),
    Cause(
        r"AssertionError: torch is built for another device",
        "wrong-torch",
        "The installed torch is not the build for this vendor's GPUs.",
        "Check the index in pip's settings, and the torch in the wheels folder",
    ),
    Cause(
        r"AssertionError: the base has Python",
        "base-python",
        "The base image's Python differs from --python.",
        "Give the version of the base image with --python",
    ),
    Cause(
        r"CERTIFICATE_VERIFY_FAILED",
        "certificate",
        "A package index has a certificate that the image does not trust: a proxy decrypts the traffic.",
        "Give your company's certificates: gpu-setup image build --ca /etc/ssl/certs/ca-certificates.crt",
    ),
    Cause(
        r"No matching distribution found",
        "not-offered",
        "The package index (or the wheels folder) has no such package for this Python.",
        "Add it to the folder, or check the index; a mirror may be out of date",
    ),
    Cause(
        r"Unable to locate package",
        "base-packages",
        "The package archive of the base image has no such package.",
        "Use a base image of Ubuntu 24.04 or Debian 12 or newer",
    ),
    Cause(
        r"dpkg: not found",
        "base-system",
        "The base image is not Debian or Ubuntu.",
        "Use a base image of Ubuntu 24.04 or Debian 12",
    ),
    Cause(
        r"Temporary failure in name resolution|Temporary failure resolving",
        "network",
        "Host names cannot be resolved during the build.",
        _AGAIN,
    ),
    Cause(
        r"NewConnectionError|Failed to establish a new connection",
        "network",
        "A package index cannot be reached.",
        _AGAIN,
    ),
    Cause(r"ReadTimeoutError", "network", "A package index stopped answering.", _AGAIN),
    Cause(r"IncompleteRead", "network", "A download was interrupted.", _AGAIN),
    Cause(r"Failed to fetch", "network", "The package archive of the base image did not deliver a package.", _AGAIN),
    Cause(
        r"failed to resolve source metadata",
        "base-unreachable",
        "The base image is not on this engine, and its registry does not have it.",
        "Check the name and the network, or use an image that this engine has: --base IMAGE",
    ),
    Cause(
        r"failed to do request",
        "base-unreachable",
        "The base image is not on this engine, and its registry cannot be reached.",
        "Check the network, or use an image that this engine has: --base IMAGE",
    ),
    Cause(
        r"pull access denied",
        "base-unreachable",
        "Base image not found, or authentication required.",
        "Check the name, or log in: docker login",
    ),
    # what fails in a container that runs
    Cause(
        r"Bus error",
        "shm",
        "The shared memory of the container is too small.",
        "Give it more: --shm-size 16g",
    ),
    Cause(
        r"error setting rlimit",
        "rlimit",
        "A rootless engine may not raise this limit.",
        "Raise the limit of your session, or use the system's engine",
    ),
    Cause(
        r"Read-only file system",
        "read-only",
        "The program wrote outside of the mounted folders.",
        "gpu-setup image run --writable, or mount the folder with --mount",
    ),
)


def known_cause(text: str) -> Cause | None:
    """The known cause in an engine's output."""
    return find_cause(CAUSES, "\n".join(_message_lines(text)))


def last_error(text: str) -> str:
    """The most informative line: the last that mentions an error, without the build's step number."""
    lines = _message_lines(text)
    errors = [line for line in lines if "error" in line.lower() or "denied" in line]
    line = (errors or lines or ["It printed nothing."])[-1]
    head, _, rest = line.partition(" ")
    return (rest if head.startswith("#") else line)[:300]


def text_problem(text: str, doing: str) -> Problem:
    """The problem that the engine's API describes in this text: it has no codes for causes."""
    failed = OutsideFailed("image.failed", f"{doing}.", last_error(text), "Run the same command again")
    return _known_problem(text, doing) or failed


def engine_problem(outcome: Outcome, doing: str, text: str | None = None, log: str | None = None) -> Problem:
    """The problem of the engine's own program (a build, a terminal) that failed.

    `text` is its output where `outcome` has only its last part, `log` the file that holds all of it.
    """
    output = text if text is not None else f"{outcome.stdout}\n{outcome.stderr}"
    if outcome.problem:
        return OutsideFailed(
            "image.engine", f"{doing}: the engine's program does not start ({outcome.problem}).", "", "gpu-setup doctor"
        )
    if known := _known_problem(output, doing):
        return known
    if outcome.rc == 137:
        return OutsideFailed(
            "image.killed",
            f"{doing}: the process was killed.",
            "Most often the machine ran out of memory.",
            "Close other programs, or give the machine more memory or swap; then the same command again",
        )
    return OutsideFailed(
        "image.failed",
        f"{doing} (exit status {outcome.rc}).",
        last_error(output),
        f"The full output is in {log}; run the same command again" if log else "Run the same command again",
    )


def _known_problem(text: str, doing: str) -> Problem | None:
    cause = known_cause(text)
    return cause and cause.kind(f"image.{cause.code}", f"{doing}: {cause.why}", last_error(text), cause.next)


def _message_lines(text: str) -> list[str]:
    """The lines that are messages: without BuildKit's echo of the failed command, which holds all its error texts,
    and without the client's complaint about the interrupted wait.
    """
    lines = (_BUILDAH.sub("", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not _ECHO.search(line)]
