"""Files, links and processes of the machine that the tool runs on; no other module starts a process."""

from __future__ import annotations

# without pathlib: it costs the doctor 3 ms of its 80
import os
import stat as stat_bits
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Protocol

from machine.child_processes import collect, end, end_alone, lines, remember, watch
from machine.library_paths import binding_library

SMALL_FILE = 4 << 20

ABSENT = "absent"
DENIED = "denied"
TIMED_OUT = "timed-out"
TOO_LARGE = "too-large"
FAILED = "failed"


class Unreadable(Exception):
    """A path that could not be read; `reason` is one of the words above."""

    def __init__(self, path: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{path}: {reason}" + (f" ({detail})" if detail else ""))
        self.path, self.reason, self.detail = path, reason, detail


class Outcome(NamedTuple):
    """The result of a process. `rc` is None when it was not found, refused or timed out; `problem` says which."""

    argv: tuple[str, ...]
    rc: int | None
    stdout: str
    stderr: str
    seconds: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.rc == 0


class FileStatus(NamedTuple):
    """A stat(2) result: `kind` is file, folder, char, block, link or other; `size` in bytes; `inode` 0: not known."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    inode: int = 0


class Space(NamedTuple):
    """One file system as seen at a path: bytes, inodes, its type and mount options."""

    free: int
    total: int
    inodes_free: int | None
    fstype: str
    options: tuple[str, ...]


class Session(NamedTuple):
    """User and groups of this process, by number and name, and its environment."""

    uid: int
    user: str
    gids: tuple[int, ...]
    environ: Mapping[str, str]


class Machine(Protocol):
    """A machine: the real one or a recording. All reads and all processes use this interface."""

    name: str

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        """The file's bytes; raises Unreadable. More than `limit` bytes is TOO_LARGE."""
        ...

    def list(self, path: str) -> tuple[str, ...]:
        """Names in the folder, sorted; raises Unreadable."""
        ...

    def link(self, path: str) -> str:
        """Where the symbolic link points, as written; raises Unreadable."""
        ...

    def stat(self, path: str) -> FileStatus:
        """stat(2) of the path, links followed; raises Unreadable."""
        ...

    def access(self, path: str, wanted: int) -> bool | None:
        """access(2) for this session (os.R_OK | os.W_OK …): None when the path is absent."""
        ...

    def space(self, path: str) -> Space | None:
        """The file system that holds `path` (or its nearest parent that exists)."""
        ...

    def session(self) -> Session: ...

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        """The JSON document that `bindings.py` prints for `nvidia` or `amd`; problem ABSENT without the library."""
        ...

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        """Run to the end; never raises for what the process does. `env` adds to the clean environment."""
        ...

    def stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        cancel: threading.Event | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log: str | None = None,
    ) -> Outcome:
        """Run long work: each line of both streams, decoded, goes to `on_line` and, raw, to the file `log`."""
        ...


# What a child needs of a person's settings and nothing more: proxies, certificates, package index, locale-free output.
_PASSED = (
    "HOME", "USER", "LOGNAME", "PATH", "TMPDIR", "TERM", "LANG", "SSH_CONNECTION", "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "LD_LIBRARY_PATH",
    "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
)  # fmt: skip
_PASSED_PREFIXES = ("PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_", "XDG_", "OPENBLAS_", "OMP_", "MKL_", "HSA_")
# the training environment has kernels for the card itself: an override that another program needs would hide them
_OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def child_environment(environ: Mapping[str, str], extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every child: network settings pass, PYTHON* does not, output is English."""
    kept = {
        name: value
        for name, value in environ.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES) or name.lower() in _PROXIES)
        and not name.startswith(_OVERRIDE)
    }
    kept["LC_ALL"] = "C.UTF-8"
    kept.update(extra or {})
    return kept


_BINDINGS = os.path.join(os.path.dirname(__file__), "bindings.py")


class BindingCall(NamedTuple):
    """How machine/bindings.py is started as a child: a call into a driver that hangs cannot end inside a process."""

    argv: tuple[str, ...]
    env: dict[str, str]


def binding_call(vendor: str, every: float | None = None) -> BindingCall | None:
    """The call for `nvidia` or `amd`, with `every` for one document a line; None without the vendor's library."""
    library = binding_library(vendor, os.environ, _names)
    if library is None:
        return None
    extra = {name: os.environ[name] for name in ("GPU_SETUP_STUB", "ROCM_PATH", "ROCM_HOME") if name in os.environ}
    if "/rocm" in library and "ROCM_PATH" not in extra:
        # without it the binding looks only in /opt/rocm, which a machine with one versioned folder may lack
        extra["ROCM_PATH"] = library.rsplit("/lib", 1)[0]
    repeated = ("--every", str(every)) if every is not None else ()
    return BindingCall((sys.executable, "-I", _BINDINGS, vendor, *repeated), extra)


def _names(folder: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError:
        return ()


def _reason(error: OSError) -> str:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ABSENT
    return DENIED if isinstance(error, PermissionError) else FAILED


def _not_started(argv: Sequence[str], error: OSError) -> Outcome:
    return Outcome(tuple(argv), None, "", str(error.strerror or error), 0.0, _reason(error))


def _kind(mode: int) -> str:
    for test, kind in (
        (stat_bits.S_ISREG, "file"),
        (stat_bits.S_ISDIR, "folder"),
        (stat_bits.S_ISCHR, "char"),
        (stat_bits.S_ISBLK, "block"),
        (stat_bits.S_ISLNK, "link"),
    ):
        if test(mode):
            return kind
    return "other"


class LocalMachine:
    """The machine that this process runs on."""

    name = "this machine"

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        try:
            # O_NONBLOCK: a fifo or a device under /sys or /dev must not hang the reader
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Unreadable(path, _reason(error), error.strerror or "") from error
        try:
            entry = os.fstat(handle)
            if entry.st_rdev == os.makedev(1, 3):
                # a link to /dev/null is how a person empties a package's file
                return b""
            if not stat_bits.S_ISREG(entry.st_mode):
                raise Unreadable(path, FAILED, "not a plain file")
            parts, size = [], 0
            while size <= limit and (part := os.read(handle, 1 << 16)):
                parts.append(part)
                size += len(part)
        except OSError as error:
            raise Unreadable(path, _reason(error), error.strerror or "") from error
        finally:
            os.close(handle)
        if size > limit:
            raise Unreadable(path, TOO_LARGE, f"more than {limit} bytes")
        return b"".join(parts)

    def list(self, path: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(path)))
        except OSError as error:
            # a file in the place of a folder is no absent folder
            instead = isinstance(error, NotADirectoryError) and os.path.lexists(path)
            raise Unreadable(path, FAILED if instead else _reason(error), error.strerror or "") from error

    def link(self, path: str) -> str:
        try:
            return os.readlink(path)
        except OSError as error:
            raise Unreadable(path, _reason(error), error.strerror or "") from error

    def stat(self, path: str) -> FileStatus:
        try:
            found = os.stat(path)
        except OSError as error:
            raise Unreadable(path, _reason(error), error.strerror or "") from error
        return FileStatus(
            _kind(found.st_mode),
            stat_bits.S_IMODE(found.st_mode),
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_ino,
        )

    def access(self, path: str, wanted: int) -> bool | None:
        return os.access(path, wanted) if os.path.exists(path) else None

    def space(self, path: str) -> Space | None:
        while not os.path.exists(path) and path != "/":
            path = os.path.dirname(path) or "/"
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        fstype, options = _mount(path)
        inodes = found.f_favail if found.f_files else None
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, inodes, fstype, options)

    def session(self) -> Session:
        import pwd

        uid = os.geteuid()
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = str(uid)
        return Session(uid, user, tuple(sorted({os.getegid(), *os.getgroups()})), dict(os.environ))

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        call = binding_call(vendor)
        if call is None:
            return Outcome((sys.executable, "-I", _BINDINGS, vendor), None, "", "", 0.0, ABSENT)
        return self.run(call.argv, timeout, call.env)

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        begin = time.monotonic()
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment(os.environ, env),
                start_new_session=True,
            )
        except OSError as error:
            return _not_started(argv, error)
        with remember(child):
            try:
                out, err = child.communicate(timeout=timeout)
            except BaseException as error:
                # a process stuck in the kernel survives SIGKILL: walk away from its pipes rather than wait
                end(child, polite=min(3.0, timeout / 10), forced=min(1.0, timeout / 20))
                collect(child)
                for pipe in (child.stdout, child.stderr):
                    if pipe is not None:
                        pipe.close()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return Outcome(tuple(argv), None, "", "", time.monotonic() - begin, TIMED_OUT)
        return Outcome(tuple(argv), child.returncode, _text(out), _text(err), time.monotonic() - begin)

    def stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        cancel: threading.Event | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log: str | None = None,
    ) -> Outcome:
        with open(log or os.devnull, "ab") as sink:  # noqa: PTH123
            return self._stream(argv, on_line, cancel, child_environment(os.environ, env), cwd, sink)

    def run_on_terminal(self, argv: Sequence[str], feed: bytes, on_line: Callable[[str], None]) -> Outcome:
        """Run a child that may ask the person something (sudo: a password): it keeps the terminal.

        Unlike all other children it stays in this process's group, so that Ctrl-C reaches it. `feed` is its stdin,
        each line of its stdout goes to `on_line`, its stderr to the terminal.
        """
        begin = time.monotonic()
        try:
            child = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(os.environ)
            )
        except OSError as error:
            return _not_started(argv, error)

        def write() -> None:
            try:
                with child.stdin or open(os.devnull, "wb") as pipe:  # noqa: PTH123
                    pipe.write(feed)
            except OSError:
                # it exited before it had read everything: its exit status says why
                pass

        threading.Thread(target=write, daemon=True).start()
        assert child.stdout is not None
        with child.stdout:
            for raw in lines(child.stdout.fileno()):
                on_line(_text(raw))
        child.wait()
        return Outcome(tuple(argv), child.returncode, "", "", time.monotonic() - begin)

    def run_in_foreground(self, argv: Sequence[str]) -> Outcome:
        """Run a child with this process's own stdin and stdout, as a shell would; its stderr is passed on as it comes.

        It stays in this process's group, so that the terminal is its own. The outcome holds the end of its stderr.
        """
        begin = time.monotonic()
        try:
            child = subprocess.Popen(argv, stderr=subprocess.PIPE, env=child_environment(os.environ))
        except OSError as error:
            return _not_started(argv, error)
        last = b""
        assert child.stderr is not None
        try:
            with child.stderr:
                while part := os.read(child.stderr.fileno(), 1 << 16):
                    last = (last + part)[-8192:]
                    try:
                        os.write(2, part)
                    except OSError:
                        # nobody reads stderr: the child continues
                        continue
            child.wait()
        finally:
            end_alone(child)
        return Outcome(tuple(argv), child.returncode, "", _text(last), time.monotonic() - begin)

    def _stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        cancel: threading.Event | None,
        env: Mapping[str, str],
        cwd: str | None,
        sink: BinaryIO,
    ) -> Outcome:
        begin = time.monotonic()
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            return _not_started(argv, error)
        done, left = threading.Event(), threading.Event()
        if cancel is not None:
            threading.Thread(target=watch, args=(child, cancel, done, left), daemon=True).start()
        last: list[str] = []
        try:
            assert child.stdout is not None
            with remember(child), child.stdout:
                for raw in lines(child.stdout.fileno(), left=left if cancel is not None else None):
                    sink.write(raw + b"\n")
                    sink.flush()
                    line = _text(raw)
                    last = [*last[-39:], line]
                    on_line(line)
                if left.is_set():
                    collect(child)
                else:
                    child.wait()
        finally:
            # also on Ctrl-C: no process of ours outlives the call
            done.set()
            if not left.is_set():
                end(child)
        return Outcome(tuple(argv), child.returncode, "\n".join(last), "", time.monotonic() - begin)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _mount(path: str) -> tuple[str, tuple[str, ...]]:
    """Type and options of the mount that holds the path, from /proc/self/mounts; the last match wins."""
    real = os.path.realpath(path)
    best: tuple[str, str, tuple[str, ...]] = ("", "", ())
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:  # noqa: PTH123
            for line in mounts:
                parts = line.split()
                if len(parts) < 4:
                    continue
                where = parts[1].replace("\\040", " ")
                inside = real == where or real.startswith(where.rstrip("/") + "/")
                if inside and len(where) >= len(best[0]):
                    best = (where, parts[2], tuple(parts[3].split(",")))
    except OSError:
        return "", ()
    return best[1], best[2]
