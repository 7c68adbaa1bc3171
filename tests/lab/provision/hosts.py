"""Guests: machines with a real systemd, apt, dpkg, sudo and reboot, each fresh from its layers in about a second.

A guest is a systemd-nspawn container whose root is an overlay on memory. It sees the hardware of hardware.py, laid over
its own by inside/boot.py, and of the network only the repositories of this session.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tests.lab.provision import hardware, rootfs
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.rootfs import PERSON
from tests.lab.training import Ended

# nspawn's own word for "the guest asked to be started again"
RESTART = 133
PATIENCE = 60.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATE = "var/lib/gpu-setup"
# systemctl is-system-running
STARTED = ("running", "degraded")
RESCUED = ("maintenance",)


class Snapshot(NamedTuple):
    """A machine's disk at one moment. Guests start from it, and never change it.

    `fresh`: the layers of the fresh machine, the uppermost first; `changed`: those that came since, above them.
    """

    computer: str
    fresh: tuple[Path, ...]
    changed: tuple[Path, ...] = ()

    @property
    def layers(self) -> tuple[Path, ...]:
        return (*self.changed, *self.fresh)


class Guest:
    """One machine. Made by `Hosts.guest`; `root` is its disk as this machine sees it, `upper` what it has changed."""

    def __init__(self, hosts: Hosts, snapshot: Snapshot, place: Path) -> None:
        self.hosts, self.snapshot_of, self.place = hosts, snapshot, place
        self.root, self.upper = place / "root", place / "memory/upper"
        self.console = place / "console.log"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._mounts = ExitStack()
        self._groups = [top / f"lab-{os.getpid()}-{place.name}" for top in _control_groups()]
        self._leader = 0
        # more of nspawn's options, and variables for it: for the test that runs a real Docker inside
        self.options: tuple[str, ...] = ()
        self.environ: dict[str, str] = {}

    # --- power

    def _plug_in(self) -> None:
        memory = self.place / "memory"
        memory.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=755", "lab", str(memory)], check=True)
        self._mounts.callback(subprocess.run, ["umount", "--lazy", str(memory)], check=False, capture_output=True)
        self._mounts.enter_context(rootfs.over(self.snapshot_of.layers, self.upper, self.root))
        for group in self._groups:
            group.mkdir()

    def start(self, *, rescue: bool = False) -> None:
        """Switch it on, and wait until systemd has come up; `rescue`: as GRUB's recovery mode, without services."""
        assert self._nspawn is None, "it runs already"
        name = f"lab-{os.getpid()}-{self.place.name}"
        # what an earlier start of this name left there keeps nspawn from starting
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{name}", ignore_errors=True)
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    # a group of its own: two systemds in one would take each other's services for theirs
                    *("sh", "-c", 'for g in $0; do echo $$ >"$g/cgroup.procs"; done; exec "$@"'),
                    " ".join(map(str, self._groups)),
                    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--machine={name}"),
                    *(f"--directory={self.root}", "--boot", "--console=read-only", "--resolv-conf=off"),
                    *(
                        "--timezone=off",
                        "--hostname=lab",
                        f"--network-namespace-path=/run/netns/{self.hosts.shops.namespace}",
                    ),
                    *self.options,
                    *(("systemd.unit=rescue.target",) if rescue else ()),
                ],
                env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        until = time.monotonic() + PATIENCE
        self._leader = 0
        while True:
            assert self._nspawn.poll() is None and time.monotonic() < until, self._last_lines()
            self._leader = self._leader or self._find_leader()
            if self._leader and self._up(RESCUED if rescue else STARTED):
                return
            time.sleep(0.05)

    def _find_leader(self) -> int:
        assert self._nspawn is not None
        own = _namespace(os.getpid())
        return next((pid for pid in _children(self._nspawn.pid) if _namespace(pid) not in ("", own)), 0)

    def _up(self, states: tuple[str, ...]) -> bool:
        if not Path(f"/proc/{self._leader}/root/run/systemd/private").exists():
            return False
        return self.run("systemctl", "is-system-running", user="root").stdout.strip() in states

    def _last_lines(self) -> str:
        return f"{self.place.name}: {self.console.read_text(errors='replace')[-3000:]}"

    def await_restart(self, timeout: float = PATIENCE, *, rescue: bool = False) -> None:
        """Wait until the guest has switched itself off to start again, and start it."""
        assert self._nspawn is not None
        rc = self._nspawn.wait(timeout)
        self._nspawn = None
        assert rc == RESTART, f"ended with {rc}: {self._last_lines()}"
        self.start(rescue=rescue)

    def reboot(self, kernel: str = "") -> None:
        """As a person does: `sudo reboot`, choose `kernel` in GRUB's menu, and wait until it is up again."""
        if kernel:
            self.write("/opt/lab/chosen", kernel)
        self.run("systemctl", "reboot", "--no-wall", user="root")
        self.await_restart()

    def kill(self) -> None:
        """A power cut: everything in it is gone at once. What it had written is still there, synced or not."""
        if self._nspawn is None:
            return
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self._nspawn.pid, signal.SIGKILL)
        self._nspawn.wait()
        self._nspawn = None
        # the namespace is gone when its first process is
        until = time.monotonic() + 10
        while Path(f"/proc/{self._leader}").exists() and time.monotonic() < until:
            time.sleep(0.01)

    def unplug(self) -> None:
        """Off, and its disk gone."""
        self.kill()
        for group in self._groups:
            for place in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
                place.rmdir()
            group.rmdir()
        self._mounts.close()
        shutil.rmtree(self.place, ignore_errors=True)

    # --- inside

    def run(
        self,
        *argv: str,
        user: str = PERSON,
        stdin: str | None = None,
        timeout: float = 120,
        check: bool = False,
        environ: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the guest to its end, as `ada` or as `root`."""
        result = subprocess.run(
            self.command(*argv, user=user, environ=environ),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            text=True,
            errors="replace",
        )
        assert not check or result.returncode == 0, f"{argv}: {result.returncode} {result.stdout} {result.stderr}"
        return result

    def command(self, *argv: str, user: str = PERSON, environ: dict[str, str] | None = None) -> list[str]:
        """argv, on this machine, of a program in the guest: in all its namespaces, with a clean environment."""
        settings = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": f"/home/{user}" if user != "root" else "/root"}
        words = [f"{name}={value}" for name, value in {**settings, "USER": user, **(environ or {})}.items()]
        groups = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user != "root" else []
        enter = ["nsenter", f"--target={self._leader}", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        return [*enter, "env", "-i", *words, *groups, *argv]

    def begin(self, *argv: str, user: str = PERSON) -> subprocess.Popen[bytes]:
        """Start a program in the guest and do not wait for it; nobody reads what it says."""
        return subprocess.Popen(
            self.command(*argv, user=user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tool(self, *arguments: str, timeout: float = 180, **more: Any) -> Ended:
        """`gpu-setup ARGUMENTS --json` as the person: exit code, document, stderr."""
        result = self.run("gpu-setup", *arguments, "--json", timeout=timeout, **more)
        try:
            document = json.loads(result.stdout)
        except ValueError:
            document = {}
        return Ended(result.returncode, document, result.stderr)

    def boot_id(self) -> str:
        return self.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()

    def pids(self) -> list[int]:
        """Every process in the guest, by this machine's numbers; the first one (systemd) first."""
        space = _namespace(self._leader)
        if not self._leader or not space:
            return []
        found = [int(name) for name in os.listdir("/proc") if name.isdecimal() and _namespace(int(name)) == space]
        return sorted(found, key=lambda pid: (pid != self._leader, pid))

    # --- its disk

    def path(self, path: str) -> Path:
        """A path of the guest as seen from here. Links that lead elsewhere in the guest are not followed rightly."""
        return self.root / path.lstrip("/")

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        place.chmod(mode)

    def read(self, path: str) -> str:
        return self.path(path).read_text()

    def copy(self, source: Path, path: str) -> None:
        """A file or folder of this machine into the guest; root's."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, place)

    def snapshot(self) -> Snapshot:
        """Its disk as it is now; of a running guest as a power cut would leave it."""
        layer = self.hosts.new_layer()
        # cp keeps what overlay itself needs: whiteouts (device nodes) and its attributes
        subprocess.run(["cp", "--archive", f"{self.upper}/.", str(layer)], check=True)
        return self.snapshot_of._replace(changed=(layer, *self.snapshot_of.changed))

    # --- what it knows of itself

    def journal(self) -> list[dict[str, Any]]:
        """Whole lines of the tool's journal."""
        try:
            content = (self.root / STATE / "journal.jsonl").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for line in content.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def firmware(self, name: str) -> Path:
        """A file of the firmware's stand-in: `state`, `pending` and `enrolled` (see inside/mokutil)."""
        return self.root / "opt/lab/firmware" / name

    def enrol_at_console(self) -> None:
        """What a person does on the blue screen between two starts: a key that waits is enrolled. Off only."""
        assert self._nspawn is None
        self.firmware("pending").rename(self.firmware("enrolled"))


class Hosts:
    """Makes guests. Layers are built when they are first needed, once in a session; `memory` holds what is copied."""

    def __init__(self, below: rootfs.Base, shops: Repositories, folder: Path) -> None:
        self.below, self.shops, self.folder = below, shops, folder
        self._fresh: dict[tuple[str, str], Snapshot] = {}
        self._machines: dict[str, Path] = {}
        # guests are made in several threads
        self._numbers = count(1)

    def fresh(self, computer: str, variant: str = "", change: Callable[[str, str], str] | None = None) -> Snapshot:
        """A computer of hardware.COMPUTERS as its installer leaves it, with the tool in the person's home.

        `change(file, text)` edits the tool's data files; `variant` is the change's name.
        """
        if (computer, variant) not in self._fresh:
            if computer not in self._machines:
                place = self.folder / computer
                self._machines[computer] = rootfs.installed(self.below, hardware.COMPUTERS[computer](), place)
            machine = (self._machines[computer], self.below.root)
            layer = rootfs.tool(machine, self.shops, self.folder / f"tool-{computer}-{variant or 'plain'}", change)
            self._fresh[computer, variant] = Snapshot(computer, (layer, *machine))
        return self._fresh[computer, variant]

    def new_layer(self) -> Path:
        place = self.folder / f"snapshot-{next(self._numbers)}"
        place.mkdir()
        return place

    @contextmanager
    def guest(self, of: str | Snapshot, *, on: bool = True) -> Iterator[Guest]:
        """A guest from a snapshot, or a fresh one of this computer; switched on, and gone in the end."""
        snapshot = self.fresh(of) if isinstance(of, str) else of
        made = Guest(self, snapshot, self.folder / "guests" / f"{snapshot.computer}-{next(self._numbers)}")
        try:
            made._plug_in()
            if on:
                made.start()
            yield made
        finally:
            made.unplug()


def _control_groups() -> list[Path]:
    """Where systemd keeps its groups: in the one tree of today's machines, or in its own beside those of old ones."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return [place for place in (top / "systemd", top / "unified") if place.is_dir()]


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    """Direct children, from /proc/PID/stat of all, because not every kernel has the short way."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        match = re.match(r"[0-9]+ \(.*\) \S ([0-9]+) ", stat, re.DOTALL)
        if match and int(match[1]) == pid:
            found.append(int(name))
    return found
