"""Why an engine stopped, in plain words: its own texts, each seen in a failed build or start, with the way out."""

from __future__ import annotations

import re
from typing import NamedTuple

from machine.errors import OutsideFailed, Problem, Refused
from machine.local import Outcome


class Cause(NamedTuple):
    """`needle` in the output means this. `refused`: nothing was begun, and it is for the person to change."""

    needle: str
    code: str
    why: str
    next: str
    refused: bool = False


_ECHO = re.compile(
    r"executor failed running \[|did not complete successfully|error waiting for container"
    r"|^ ?> \[|^#\d+ \[|^\s*\d+ \| |^-+$|^(\[\d+/\d+\] )?STEP \d+/\d+: "
)
# buildah's way: the command, and then what was wrong
_BUILDAH = re.compile(r'^Error: building at STEP ".*": ')
_AGAIN = "Check the network; run the same command again to go on: finished steps are kept."
_TOOLKIT = "gpu-setup plan shows the steps of the container toolkit; then: sudo systemctl reload docker"

# in order, the first that is there wins: the special before the general
CAUSES: tuple[Cause, ...] = (
    # the engine itself
    Cause(
        "permission denied while trying to connect",
        "engine-denied",
        "The engine's socket belongs to root and the group docker, which is as good as root.",
        "Use sudo, or a rootless engine: https://docs.docker.com/engine/security/rootless",
        True,
    ),
    Cause(
        "Got permission denied while",
        "engine-denied",
        "The engine's socket belongs to root and the group docker, which is as good as root.",
        "Use sudo, or a rootless engine: https://docs.docker.com/engine/security/rootless",
        True,
    ),
    Cause(
        "Cannot connect to the Docker daemon",
        "engine-not-running",
        "The container engine is not running.",
        "sudo systemctl start docker; then the same command again",
    ),
    Cause(
        "buildx component is missing",
        "no-buildkit",
        "This docker builds through its plugin buildx, and the plugin is missing.",
        "sudo apt-get install docker-buildx",
        True,
    ),
    Cause(
        "--mount option requires BuildKit",
        "no-buildkit",
        "The classic builder does not know mounts.",
        "sudo apt-get install docker-buildx",
        True,
    ),
    # devices: these come at the start, not when the container is made
    Cause(
        'could not select device driver "" with capabilities: [[gpu]]',
        "toolkit-missing",
        "The engine has no runtime for NVIDIA cards: the container toolkit is missing or the engine did not reload.",
        _TOOLKIT,
    ),
    Cause(
        "unresolvable CDI devices",
        "cdi-unknown",
        "The engine finds no CDI description of this card, or an old one (the driver or the card changed).",
        "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml (AMD: sudo amd-ctk cdi generate)",
    ),
    Cause(
        "CDI device injection failed",
        "cdi-unknown",
        "The engine could not do what the CDI description of the card says; it may be older than the driver.",
        "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml (AMD: sudo amd-ctk cdi generate)",
    ),
    Cause(
        'could not select device driver "cdi"',
        "cdi-off",
        "The engine does not use CDI: it is older than 25, or CDI is switched off.",
        'Add "features": {"cdi": true} to /etc/docker/daemon.json and reload, or use a newer engine',
    ),
    Cause(
        "unsatisfied condition: cuda",
        "driver-too-old",
        "The image asks for a newer driver than this machine has.",
        "gpu-setup plan shows the upgrade; gpu-setup image build makes an image that fits the driver",
    ),
    Cause(
        "driver/library version mismatch",
        "library-mismatch",
        "The driver's libraries were updated under the loaded kernel module.",
        "Restart the machine",
    ),
    Cause(
        "nvml error: driver not loaded",
        "driver-not-loaded",
        "The NVIDIA driver is not loaded.",
        "gpu-setup doctor says why",
    ),
    Cause(
        "bpf_prog_query",
        "rootless-cgroups",
        "A rootless engine cannot set the rules for devices.",
        "sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place",
    ),
    Cause(
        "error gathering device information",
        "device-absent",
        "A device's file is not there: no driver is loaded, or the engine runs in a virtual machine (Docker Desktop).",
        "gpu-setup doctor says which",
    ),
    Cause(
        "Unable to find group",
        "group-name",
        "The group's name was looked up inside the image.",
        "Use the group's number: getent group render",
    ),
    Cause(
        "Failed to initialize NVML: Unknown Error",
        "card-lost",
        "systemd took the running container's devices away (daemon-reload).",
        "Start it again; CDI avoids it: gpu-setup plan",
    ),
    # the image, and what a build needs
    Cause(
        "Unable to find image",
        "not-built",
        "There is no such image on this engine.",
        "gpu-setup image build",
        True,
    ),
    Cause("No such image", "not-built", "There is no such image on this engine.", "gpu-setup image build", True),
    Cause(
        "o space left on device",
        "no-room",
        "The disk that holds the engine's images is full.",
        "Free some space (docker system df, docker builder prune), or move the engine's data-root",
    ),
    Cause(
        "DO NOT MATCH THE HASHES",
        "hash",
        "A package is not the one that was locked.",
        "The package index or the wheels folder holds another file than the public one: correct it, or report this",
    ),
    Cause(
        "AssertionError: torch is built for another device",
        "wrong-torch",
        "The torch that was installed is not the vendor's build.",
        "Look at the index in pip's settings, or at the torch in the wheels folder",
    ),
    Cause(
        "AssertionError: the base has Python",
        "base-python",
        "The base image has another Python than was said.",
        "Give its own with --python",
    ),
    Cause(
        "CERTIFICATE_VERIFY_FAILED",
        "certificate",
        "A package index shows a certificate that the image does not know: a proxy opens the traffic.",
        "Give your company's certificates: gpu-setup image build --ca /etc/ssl/certs/ca-certificates.crt",
    ),
    Cause(
        "No matching distribution found",
        "not-offered",
        "The package index (or the wheels folder) has no such package for this Python.",
        "Complete the folder, or check the index; a mirror may be behind",
    ),
    Cause(
        "Unable to locate package",
        "base-packages",
        "The base's archive has no such package.",
        "Use a base of Ubuntu 24.04 or Debian 12 or newer",
    ),
    Cause(
        "dpkg: not found", "base-system", "The base is no Debian or Ubuntu.", "Use a base of Ubuntu 24.04 or Debian 12"
    ),
    Cause("Temporary failure in name resolution", "network", "No name can be looked up inside the build.", _AGAIN),
    Cause("Temporary failure resolving", "network", "No name can be looked up inside the build.", _AGAIN),
    Cause("NewConnectionError", "network", "A package index cannot be reached.", _AGAIN),
    Cause("Failed to establish a new connection", "network", "A package index cannot be reached.", _AGAIN),
    Cause("ReadTimeoutError", "network", "A package index stopped answering.", _AGAIN),
    Cause("IncompleteRead", "network", "A download was cut.", _AGAIN),
    Cause("Failed to fetch", "network", "The base's package archive did not give a package.", _AGAIN),
    Cause(
        "failed to resolve source metadata",
        "base-unreachable",
        "The base image is not on this engine, and its registry does not give it.",
        "Check the name and the network, or use an image that is here: --base IMAGE",
    ),
    Cause(
        "failed to do request",
        "base-unreachable",
        "The base image is not on this engine, and its registry cannot be reached.",
        "Check the network, or use an image that is here: --base IMAGE",
    ),
    Cause(
        "pull access denied",
        "base-unreachable",
        "The registry does not know the base image, or wants a login.",
        "Check the name, or log in: docker login",
    ),
    # what ends in a container that runs
    Cause(
        "Bus error",
        "shm",
        "The shared memory of the container is too small.",
        "Give it more: --shm-size 16g",
    ),
    Cause(
        "error setting rlimit",
        "rlimit",
        "The engine may not lift this limit (rootless).",
        "Raise the limit of your session, or use the system's engine",
    ),
    Cause(
        "Read-only file system",
        "read-only",
        "Something wrote outside of the mounted folders.",
        "gpu-setup image run --writable, or mount the folder with --mount",
    ),
)


def spoken(text: str) -> list[str]:
    """The lines that tell something: without BuildKit's echoes of the failed command, which hold every word of it, and
    without the client's own complaint about the broken wait."""
    lines = (_BUILDAH.sub("", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not _ECHO.search(line)]


def known(text: str) -> Cause | None:
    said = "\n".join(spoken(text))
    return next((cause for cause in CAUSES if cause.needle in said), None)


def last_error(text: str) -> str:
    """The line that says most: the last that speaks of an error, without the build's step number."""
    lines = spoken(text)
    telling = [line for line in lines if "error" in line.lower() or "denied" in line]
    said = (telling or lines or ["It printed nothing."])[-1]
    head, _, rest = said.partition(" ")
    return (rest if head.startswith("#") else said)[:300]


def stopped(outcome: Outcome, doing: str, text: str | None = None, log: str | None = None) -> Problem:
    """The problem of an engine's process that did not end well.

    `text` is its output where outcome has only the end, `log` the file that holds all of it.
    """
    output = text if text is not None else f"{outcome.stdout}\n{outcome.stderr}"
    if outcome.problem:
        return OutsideFailed(
            "image.engine", f"{doing}: the engine's program does not start ({outcome.problem}).", "", "gpu-setup doctor"
        )
    cause = known(output)
    if cause is not None:
        kind = Refused if cause.refused else OutsideFailed
        return kind(f"image.{cause.code}", f"{doing}: {cause.why}", last_error(output), cause.next)
    if outcome.rc == 137:
        return OutsideFailed(
            "image.killed",
            f"{doing}: the process was killed.",
            "Most often the machine ran out of memory.",
            "Close other programs, or give the machine more memory or swap; then the same command again",
        )
    return OutsideFailed(
        "image.failed",
        f"{doing} (exit {outcome.rc}).",
        last_error(output),
        f"Everything that it said is in {log}; run the same command again" if log else "Run the same command again",
    )
