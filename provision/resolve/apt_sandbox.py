"""A sandbox for apt: its own lists, cache, sources, keys and preferences with dpkg's real status. Needs no root.

It lets apt answer about repositories that are not added yet, and leaves nothing on the system.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from machine.errors import Problem
from machine.local import Machine, Outcome
from provision.apply import file_actions
from provision.model import AptKey, AptPreference, AptRepo
from provision.system import apt_errors, keys
from provision.system.apt import ENVIRONMENT, LISTS, are_lists_stale
from provision.system.apt_simulation import AptChange, parse_missing, parse_simulation, parse_uris

OLD_SECONDS = 24 * 3600
PATIENCE = 120.0
# Hooks of the system's apt (appstream, update-notifier, motd) would write outside the sandbox.
SETTINGS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "root";
APT::Get::AutomaticRemove "false";
APT::Get::Show-User-Simulation-Note "false";
Debug::NoLocking "true";
Acquire::Retries "0";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::Etc::SourceList "{sandbox}/etc/sources.list";
Dir::Etc::SourceParts "{sandbox}/etc/sources.list.d";
Dir::Etc::Preferences "{sandbox}/etc/preferences";
Dir::Etc::PreferencesParts "{sandbox}/etc/preferences.d";
Dir::State::Lists "{sandbox}/lists";
Dir::Cache "{sandbox}/cache";
Dir::Cache::Archives "{sandbox}/cache/archives";
Dir::Log "{sandbox}/log";
"""


class UnknownPackages(Exception):
    """apt does not have these packages."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class AptSandbox(NamedTuple):
    """`notes` say what is missing: package lists that are old, a repository that does not answer."""

    machine: Machine
    place: Path
    notes: list[str]

    def apt(self, *arguments: str, timeout: float = PATIENCE) -> Outcome:
        argv = ("apt-get", "-q", "-c", str(self.place / "apt.conf"), *arguments)
        return self.machine.run(argv, timeout=timeout, env=ENVIRONMENT)

    def simulate(self, arguments: Sequence[str]) -> AptChange:
        """What apt would do. Raises UnknownPackages for packages that it does not have, Problem for other failures."""
        outcome = self.apt("-s", "--yes", *arguments)
        if outcome.ok:
            return parse_simulation(outcome.stdout)
        if missing := parse_missing(outcome.stdout + "\n" + outcome.stderr):
            raise UnknownPackages(missing)
        raise apt_errors.apt_problem(outcome.argv, outcome, "Asking apt what it would do")

    def size(self, arguments: Sequence[str]) -> int | None:
        """Bytes to download for it; package files in the system's cache do not count."""
        outcome = self.apt("--print-uris", "--yes", *arguments)
        if not outcome.ok:
            return None
        have = set(_names(Path("/var/cache/apt/archives")))
        return sum(size for name, size in parse_uris(outcome.stdout).items() if name not in have)

    def update(self, *only: str) -> Problem | None:
        """Update the lists of all sources, or of these files; returns the problem if that fails."""
        for file in only or ("",):
            limited = (
                (
                    "-o",
                    f"Dir::Etc::SourceList={file}",
                    "-o",
                    "Dir::Etc::SourceParts=-",
                    "-o",
                    "APT::Get::List-Cleanup=0",
                )
                if file
                else ()
            )
            outcome = self.apt(*limited, "update", "--error-on=any")
            if not outcome.ok:
                return apt_errors.apt_problem(outcome.argv, outcome, "Reading the package lists")
        return None

    def apply_pins_of(self, package: str) -> bool:
        """Download a package that contains preferences and copy them into the sandbox, as its installation would."""
        folder = self.place / "packages"
        folder.mkdir(exist_ok=True)
        found = self.machine.stream(
            ("apt-get", "-q", "-c", str(self.place / "apt.conf"), "download", package),
            lambda _line: None,
            env=ENVIRONMENT,
            cwd=str(folder),
        )
        archives = sorted(folder.glob(f"{package}_*.deb"))
        if not found.ok or not archives:
            return False
        opened = folder / package
        if not self.machine.run(("dpkg-deb", "--extract", str(archives[-1]), str(opened)), timeout=60).ok:
            return False
        for file in sorted((opened / "etc/apt/preferences.d").glob("*")):
            shutil.copyfile(file, self.place / "etc/preferences.d" / file.name)
        return True


@contextmanager
def open_sandbox(
    machine: Machine, new_keys: Sequence[AptKey], sources: Sequence[AptRepo], pins: Sequence[AptPreference]
) -> Iterator[AptSandbox]:
    """A temporary sandbox with the system's sources and these new ones, whose keys are downloaded and compared."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gpu-setup-apt-") as name:
        sandbox = AptSandbox(machine, Path(name), [])
        _copy_settings(sandbox)
        rings = _keyrings(sandbox, new_keys)
        added = []
        for source in sources:
            ring = rings.get(source.signed_by, source.signed_by)
            if ring is None:
                continue
            text = file_actions.source_text(source).replace(source.signed_by, ring)
            file = sandbox.place / "etc/sources.list.d" / Path(source.file).name
            file.write_text(text, encoding="utf-8")
            added.append(str(file))
        for pin in pins:
            (sandbox.place / "etc/preferences.d" / Path(pin.file).name).write_text(
                file_actions.pin_text(pin), encoding="utf-8"
            )
        _update_lists(sandbox, added)
        yield sandbox


def _copy_settings(sandbox: AptSandbox) -> None:
    for folder in ("etc/sources.list.d", "etc/preferences.d", "lists/partial", "cache/archives/partial", "log", "keys"):
        (sandbox.place / folder).mkdir(parents=True)
    (sandbox.place / "apt.conf").write_text(SETTINGS.format(sandbox=sandbox.place), encoding="utf-8")
    for kind, own in (("sources.list", "sources.list"), ("preferences", "preferences")):
        _copy(Path("/etc/apt") / kind, sandbox.place / "etc" / own)
        for file in _names(Path(f"/etc/apt/{kind}.d")):
            _copy(Path(f"/etc/apt/{kind}.d/{file}"), sandbox.place / f"etc/{own}.d" / file)
    for file in _names(Path(LISTS)):
        if file not in ("lock", "partial", "auxfiles"):
            (sandbox.place / "lists" / file).symlink_to(f"{LISTS}/{file}")


def _keyrings(sandbox: AptSandbox, new_keys: Sequence[AptKey]) -> dict[str, str | None]:
    """Where the sandbox has each new keyring; None for one that is not available, which is noted."""
    rings: dict[str, str | None] = {}
    for key in new_keys:
        ring = sandbox.place / "keys" / Path(key.keyring).name
        try:
            ring.write_bytes(keys.trusted_keyring(keys.fetch(key.url), key.fingerprints, key.url))
            # apt's user _apt reads it where apt runs as root
            ring.chmod(0o644)
            rings[key.keyring] = str(ring)
        except Problem as problem:
            sandbox.notes.append(f"{problem.what} {problem.why}".strip())
            rings[key.keyring] = None
    return rings


def _update_lists(sandbox: AptSandbox, added: Sequence[str]) -> None:
    """Update the lists of the new sources; of all sources if the system's lists are missing or older than a day."""
    if are_lists_stale(sandbox.machine, OLD_SECONDS):
        problem = sandbox.update()
        if problem is None:
            return
        sandbox.notes.append(f"The package lists are old or missing and cannot be updated: {problem.why}")
    if added and (problem := sandbox.update(*added)):
        sandbox.notes.append(f"{problem.what} {problem.why}".strip())


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _copy(source: Path, target: Path) -> None:
    """Copy the file if it may be read: a source that only root can read is not in the sandbox, nor are its packages."""
    try:
        if source.is_file():
            shutil.copyfile(source, target)
    except OSError:
        return
