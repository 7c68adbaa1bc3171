"""Real Docker engines for the tests: their images, sockets and devices are private, and removed afterwards.

Each runs in a mount namespace of its own, so that its mounts and stand-in devices are seen by nobody else and go with
it. No bridge and no iptables rule is made: containers of these tests have no network.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from containers.connection import connect
from containers.container import Container
from containers.run import ContainerMachine
from machine.local import LocalMachine, Outcome, Session

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# programs of the small image, which has nothing else
SMALL = ("sh", "ls", "cat", "id", "stat", "sleep", "env", "touch")

# $1 the engine's folder, $2 its root file system or empty, $3 whether stand-in cards are wanted, $4 its disk or empty,
# then the engine's command. For the cards /dev becomes a tmpfs: /dev itself is shared by all mount namespaces
_START = r"""
set -eu
folder=$1 root=$2 cards=$3 disk=$4
shift 4
if [ -n "$disk" ]; then
    mkdir -p "$folder/data"
    mount -o loop "$disk" "$folder/data"
fi
if [ "$cards" = yes ]; then
    mkdir -p "$folder/dev"
    mount -t tmpfs tmpfs "$folder/dev"
    cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$folder/dev/"
    for name in fuse kmsg; do [ ! -e "/dev/$name" ] || cp -a "/dev/$name" "$folder/dev/"; done
    ln -s /proc/self/fd "$folder/dev/fd"
    mkdir "$folder/dev/pts" "$folder/dev/shm" "$folder/dev/dri"
    mount --bind /dev/pts "$folder/dev/pts"
    ln -s pts/ptmx "$folder/dev/ptmx"
    mknod -m 666 "$folder/dev/kfd" c 1 3
    mknod -m 660 "$folder/dev/dri/renderD128" c 1 3
    mknod -m 660 "$folder/dev/dri/renderD129" c 1 3
    mount --move "$folder/dev" /dev
fi
if [ -n "$root" ]; then
    mkdir -p "$root$folder"
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount -t tmpfs tmpfs "$root/run"
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    exec chroot "$root" "$@"
fi
exec "$@"
"""


# A person without root starts the engine: $1 its folder, $2 the folder of rootlesskit and newuidmap, $3 their number,
# $4 its disk.
# They are known in this mount namespace only
_START_ROOTLESS = r"""
set -eu
folder=$1 programs=$2 number=$3 disk=$4
shift 4
mkdir -p "$folder/etc" "$folder/run" "$folder/home/data"
mount -o loop "$disk" "$folder/home/data"
for name in subuid subgid; do
    echo "alex:100000:65536" >"$folder/etc/$name"
    [ -e "/etc/$name" ] || touch "/etc/$name"
done
{ cat /etc/passwd; echo "alex:x:$number:$number::$folder/home:/bin/sh"; } >"$folder/etc/passwd"
{ cat /etc/group; echo "alex:x:$number:"; } >"$folder/etc/group"
for name in subuid subgid passwd group; do mount --bind "$folder/etc/$name" "/etc/$name"; done
chown -R "$number:$number" "$folder/home" "$folder/run"
chmod 700 "$folder/run"
export HOME="$folder/home" USER=alex XDG_RUNTIME_DIR="$folder/run" PATH="$programs:$PATH"
cd "$HOME"
exec setpriv "--reuid=$number" "--regid=$number" --clear-groups -- \
    rootlesskit --net=host --copy-up=/etc --copy-up=/run --propagation=rslave --state-dir="$folder/run/kit" \
    sh -c 'rm -f /run/docker /run/containerd /run/xtables.lock; exec "$@"' sh "$@"
"""


class Engine(NamedTuple):
    """A running engine: its folder, the address of its socket, and what a client needs in its environment."""

    folder: Path
    environ: Mapping[str, str]

    def docker(
        self, *arguments: str, stdin: bytes | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **self.environ},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
        )
        return subprocess.CompletedProcess(
            result.args,
            result.returncode,
            result.stdout.decode("utf-8", "replace"),
            result.stderr.decode("utf-8", "replace"),
        )

    def checked(self, *arguments: str, stdin: bytes | None = None) -> str:
        result = self.docker(*arguments, stdin=stdin)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.strip()

    def containers(self) -> list[str]:
        return self.checked("ps", "--all", "--quiet").split()

    def images(self) -> set[str]:
        return set(self.checked("image", "ls", "--all", "--quiet", "--no-trunc").split())


class AtEngine(LocalMachine):
    """This machine, for a person whose environment leads to this engine."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def session(self) -> Session:
        return super().session()._replace(environ={**os.environ, **self.environ})


def run_inside(environ: Mapping[str, str], container: Container, *argv: str) -> Outcome:
    """Run a program in a container, as the tool does it."""
    machine = AtEngine(environ)
    with closing(connect(container.engine, machine)) as client:
        inside = ContainerMachine(machine, client, container, "/", frozenset())
        return inside.run(argv, timeout=60)


def make_disk(file: Path, gb: int) -> None:
    """A disk in one file: gone in an instant, where a hundred thousand files take minutes."""
    subprocess.run(["truncate", f"--size={gb}G", str(file)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", str(file)], check=True)


def client_environment(folder: Path, path: str = SYSTEM_PATH) -> dict[str, str]:
    settings = folder / "client"
    settings.mkdir(parents=True, exist_ok=True)
    return {
        "DOCKER_HOST": f"unix://{folder}/docker.sock",
        "DOCKER_CONFIG": str(settings),
        # the engine's own client: another one on PATH may be newer and lack its plugin
        "PATH": f"{path}:{os.environ.get('PATH', '')}",
    }


@contextmanager
def running(
    folder: Path,
    *,
    hook: bool = False,
    cards: bool = False,
    root: Path | None = None,
    disk_gb: int = 0,
    configuration: dict[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Engine]:
    """An engine in `folder`.

    `hook`: NVIDIA's runtime hook is there, and does nothing; `cards`: /dev/kfd and two render nodes are; `root`: a
    file system that the engine's programs lie in; `disk_gb`: its images lie on a disk of its own; `environ` adds to
    what clients need.
    """
    folder.mkdir(parents=True, exist_ok=True)
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    if hook:
        stand_in = programs / "nvidia-container-runtime-hook"
        stand_in.write_text("#!/bin/sh\nexit 0\n")
        stand_in.chmod(0o755)
    settings = folder / "daemon.json"
    runtimes = {"runtimes": {"nvidia": {"path": "runc"}}} if hook else {}
    settings.write_text(json.dumps({**runtimes, **(configuration or {})}))
    command = [
        *("dockerd", "--config-file", str(settings), "--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")),
        *("--host", f"unix://{folder}/docker.sock", "--bridge=none", "--iptables=false"),
    ]
    disk = folder / "disk"
    if disk_gb:
        make_disk(disk, disk_gb)
    wrapped = [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "start"),
        *(str(folder), str(root or ""), "yes" if cards else "no", str(disk) if disk_gb else "", *command),
    ]
    engine = Engine(folder, {**client_environment(folder), **(environ or {})})
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            wrapped,
            env={**os.environ, "PATH": f"{programs}:{SYSTEM_PATH}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(engine, child)
        yield engine
    finally:
        _end(child)
        disk.unlink(missing_ok=True)
        shutil.rmtree(folder / "data", ignore_errors=True)
        shutil.rmtree(folder / "exec", ignore_errors=True)


@contextmanager
def running_rootless(folder: Path, programs: Path, number: int) -> Iterator[Engine]:
    """A rootless engine of a person with this number; `programs` holds rootlesskit and uidmap's two.

    The client's environment is that person's: nothing of root's is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, *folder.parents, programs, *programs.parents):
        if place.stat().st_uid == 0 and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
    socket, home, disk = f"unix://{folder}/run/docker.sock", folder / "home", folder / "disk"
    command = [
        *("dockerd", "--rootless", "--data-root", str(home / "data"), "--exec-root", str(folder / "run" / "exec")),
        *("--pidfile", str(folder / "run" / "pid"), "--host", socket, "--bridge=none", "--iptables=false"),
    ]
    wrapped = [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", _START_ROOTLESS, "start"),
        *(str(folder), str(programs), str(number), str(disk), *command),
    ]
    make_disk(disk, 20)
    person = {"HOME": str(home), "XDG_RUNTIME_DIR": str(folder / "run"), "DOCKER_CONFIG": str(home / ".docker")}
    engine = Engine(folder, {**client_environment(folder), **person, "DOCKER_HOST": socket})
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            wrapped,
            env={"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(engine, child)
        yield engine
    finally:
        # rootlesskit, told by a signal, does not wait for the engine: so the engine is told
        for process in _of(child):
            if b"--rootless" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[1:2]:
                os.kill(process, signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            _end(child)
        disk.unlink()


def _of(child: subprocess.Popen[bytes]) -> list[int]:
    """The processes of this child's session."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(place.name)) == child.pid:
                found.append(int(place.name))
        except ProcessLookupError:
            continue
    return found


def _wait_for(engine: Engine, child: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 30
    while engine.docker("info", timeout=30).returncode:
        assert child.poll() is None and time.monotonic() < limit, (engine.folder / "log").read_text()[-3000:]
        time.sleep(0.1)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def small_image(engine: Engine, name: str = "small:1") -> str:
    """An image of a few programs of this machine and their libraries: 5 MB, imported in well under a second."""
    engine.checked("import", "-", name, stdin=small_archive())
    return name


def small_archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        added: set[str] = set()
        for program in SMALL:
            path = shutil.which(program, path=SYSTEM_PATH)
            assert path
            _add(archive, added, path, f"/bin/{program}")
            linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
            for word in linked.split():
                if word.startswith("/"):
                    _add(archive, added, word, word)
    return content.getvalue()


def _add(archive: tarfile.TarFile, added: set[str], path: str, name: str) -> None:
    for parent in [str(each).lstrip("/") for each in reversed(Path(name).parents)][1:]:
        if parent not in added:
            # left out, an engine makes them with a mode of its own
            added.add(parent)
            folder = tarfile.TarInfo(parent)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
    if name not in added:
        added.add(name)
        archive.add(os.path.realpath(path), name)
