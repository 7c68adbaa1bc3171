"""A private apt tree: own lists, cache, sources, keys and preferences over dpkg's real status. Needs no root.

So that apt can be asked about repositories that are not added yet, and so that asking leaves nothing on the system.
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
from provision.model import AptKey, AptPin, AptRepo
from provision.system import apt_errors, keys
from provision.system.apt import ENVIRONMENT, LISTS, are_lists_stale
from provision.system.apt_simulation import AptChange, parse_missing, parse_simulation, parse_uris

OLD_SECONDS = 24 * 3600
PATIENCE = 120.0
# Hooks of the system's own apt (appstream, update-notifier, motd) would write outside the tree.
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
Dir::Etc::SourceList "{tree}/etc/sources.list";
Dir::Etc::SourceParts "{tree}/etc/sources.list.d";
Dir::Etc::Preferences "{tree}/etc/preferences";
Dir::Etc::PreferencesParts "{tree}/etc/preferences.d";
Dir::State::Lists "{tree}/lists";
Dir::Cache "{tree}/cache";
Dir::Cache::Archives "{tree}/cache/archives";
Dir::Log "{tree}/log";
"""


class UnknownPackages(Exception):
    """apt does not know these packages."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class AptSandbox(NamedTuple):
    """`notes` say what could not be had: a list that is old, a repository that does not answer."""

    machine: Machine
    place: Path
    notes: list[str]

    def apt(self, *arguments: str, timeout: float = PATIENCE) -> Outcome:
        argv = ("apt-get", "-q", "-c", str(self.place / "apt.conf"), *arguments)
        return self.machine.run(argv, timeout=timeout, env=ENVIRONMENT)

    def simulate(self, arguments: Sequence[str]) -> AptChange:
        """What apt would do. Raises Unknown for packages that it has not, Problem for everything else."""
        outcome = self.apt("-s", "--yes", *arguments)
        if outcome.ok:
            return parse_simulation(outcome.stdout)
        if missing := parse_missing(outcome.stdout + "\n" + outcome.stderr):
            raise UnknownPackages(missing)
        raise apt_errors.apt_problem(outcome.argv, outcome, "Asking apt what it would do")

    def size(self, arguments: Sequence[str]) -> int | None:
        """Bytes to fetch for it; archives that lie in the system's cache already do not count."""
        outcome = self.apt("--print-uris", "--yes", *arguments)
        if not outcome.ok:
            return None
        have = set(_names(Path("/var/cache/apt/archives")))
        return sum(size for name, size in parse_uris(outcome.stdout).items() if name not in have)

    def update(self, *only: str) -> Problem | None:
        """Read the lists of all sources, or of these files; what is wrong where that fails."""
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
        """Fetch a package that brings preferences and put them into the tree, as its installation would."""
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
    machine: Machine, new_keys: Sequence[AptKey], sources: Sequence[AptRepo], pins: Sequence[AptPin]
) -> Iterator[AptSandbox]:
    """The tree with the system's sources and these new ones, whose keys are fetched and compared; gone afterwards."""
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
    (sandbox.place / "apt.conf").write_text(SETTINGS.format(tree=sandbox.place), encoding="utf-8")
    for kind, own in (("sources.list", "sources.list"), ("preferences", "preferences")):
        _copy(Path("/etc/apt") / kind, sandbox.place / "etc" / own)
        for file in _names(Path(f"/etc/apt/{kind}.d")):
            _copy(Path(f"/etc/apt/{kind}.d/{file}"), sandbox.place / f"etc/{own}.d" / file)
    for file in _names(Path(LISTS)):
        if file not in ("lock", "partial", "auxfiles"):
            (sandbox.place / "lists" / file).symlink_to(f"{LISTS}/{file}")


def _keyrings(sandbox: AptSandbox, new_keys: Sequence[AptKey]) -> dict[str, str | None]:
    """Where the tree has each new keyring; None for one that could not be had, which is noted."""
    rings: dict[str, str | None] = {}
    for key in new_keys:
        ring = sandbox.place / "keys" / Path(key.keyring).name
        try:
            ring.write_bytes(keys.trusted_keyring(keys.fetch(key.url), key.fingerprints, key.url))
            # apt's own user reads it where apt runs as root
            ring.chmod(0o644)
            rings[key.keyring] = str(ring)
        except Problem as problem:
            sandbox.notes.append(f"{problem.what} {problem.why}".strip())
            rings[key.keyring] = None
    return rings


def _update_lists(sandbox: AptSandbox, added: Sequence[str]) -> None:
    """Lists of the new sources always; of all where the system's are missing or older than a day."""
    if are_lists_stale(sandbox.machine, OLD_SECONDS):
        problem = sandbox.update()
        if problem is None:
            return
        sandbox.notes.append(f"The package lists are old or missing and cannot be read anew: {problem.why}")
    if added and (problem := sandbox.update(*added)):
        sandbox.notes.append(f"{problem.what} {problem.why}".strip())


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _copy(source: Path, target: Path) -> None:
    """As far as it may be read: a source that only root may read stays out, and with it what only it has."""
    try:
        if source.is_file():
            shutil.copyfile(source, target)
    except OSError:
        return
