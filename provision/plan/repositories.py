"""Steps that add a vendor's repository: the key by fingerprint, the source, and pins that limit it."""

from __future__ import annotations

import msgspec

from checks.catalogue import Catalogue, Repository
from checks.facts.host import Host
from checks.rules.apt.repositories import keys_to_install
from provision.model import AptKey, AptPreference, AptRepo, State, Step
from provision.plan.package_steps import explain, state_of


def is_enabled(host: Host, catalogue: Catalogue, row: Repository) -> bool:
    """Whether a source for it is enabled, by address or, if no other row has its owner, by owner.

    False also when the sources could not be read.
    """
    own = [other.name for other in catalogue.repositories if other.owner == row.owner] == [row.name]
    return any(
        (own and source.owner == row.owner) or source.uri.rstrip("/").startswith(tuple(u.rstrip("/") for u in row.uris))
        for source in host.apt.sources or ()
    )


def repository_steps(host: Host, catalogue: Catalogue, row: Repository, because: str) -> tuple[Step, ...]:
    """The key and the source. Both are done when the source is enabled, whatever its file is called."""
    there = is_enabled(host, catalogue, row)
    state = state_of(host, not there)
    if host.apt.sources is None:
        because += " The apt sources could not be read, so it is planned as if it were missing."
    key_because = f"apt trusts {row.uris[0]} only with this key, and this key only for that source."
    if not there and not row.fingerprints:
        state = State.BLOCKED
        key_because += " The key's fingerprint is not known, and a key without a known fingerprint is never trusted."
    key = Step(
        id=f"key-{row.name}",
        title=f"Trust the signing key of {row.name}, after comparing its fingerprint",
        action=key_action(row),
        state=state,
        because=key_because,
        commands=() if state is not State.TODO else _key_commands(row),
        undo="" if there else f"removes {row.keyring}",
    )
    source = Step(
        id=f"repository-{row.name}",
        title=f"Add the repository {row.name}",
        action=source_action(row),
        state=state,
        because=explain(host, because, state),
        commands=() if state is not State.TODO else (write_command(row.file), ("apt-get", "update", "--error-on=any")),
        undo="" if there else f"removes {row.file} and reads the package lists again",
    )
    return key, source


def missing_key_steps(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    """The keys of repositories that are enabled already, where the file that they name is missing."""
    return tuple(
        Step(
            id=f"key-file-{path.rpartition('/')[2]}",
            title=f"Install the missing key {path}, after comparing its fingerprint",
            action=key_action(msgspec.structs.replace(row, keyring=path)),
            state=State.TODO,
            because=f"The repository {row.uris[0]} is enabled with this key file, and without it apt ignores the "
            "repository (NO_PUBKEY).",
            commands=_key_commands(msgspec.structs.replace(row, keyring=path)),
            undo=f"removes {path}",
        )
        for path, row in keys_to_install(host, catalogue).items()
    )


def key_action(row: Repository) -> AptKey:
    return AptKey(url=row.key_url, keyring=row.keyring, fingerprints=row.fingerprints, bundle=row.key_bundle)


def source_action(row: Repository) -> AptRepo:
    return AptRepo(
        file=row.file,
        uris=row.uris,
        suite=row.suite,
        components=row.components,
        architectures=row.architectures,
        signed_by=row.keyring,
    )


def _key_commands(row: Repository) -> tuple[tuple[str, ...], ...]:
    """The commands to download, compare and trust a key by hand; gpg must show the known fingerprint."""
    fetched = f"{row.keyring}.fetched"
    return (
        ("curl", "--fail", "--location", "--output", fetched, row.key_url),
        ("gpg", "--show-keys", "--with-fingerprint", fetched),
        ("gpg", "--no-default-keyring", "--keyring", f"gnupg-ring:{row.keyring}", "--import", fetched),
        ("chmod", "0644", row.keyring),
        ("rm", fetched),
    )


def write_command(file: str, mode: int = 0o644) -> tuple[str, ...]:
    """The command that writes the whole file, with the content that the step's diff shows."""
    return ("install", "-D", f"--mode={mode:04o}", "/dev/stdin", file)


def origin_pin(row: Repository, packages: tuple[str, ...], priority: int, name: str) -> AptPreference:
    return AptPreference(
        file=f"/etc/apt/preferences.d/{name}", packages=packages, pin=f"origin {row.origin}", priority=priority
    )


def pin_step(host: Host, id: str, title: str, action: AptPreference, because: str) -> Step:
    """Done when apt already has a preferences file with this name and priority."""
    there = any(found.file == action.file and found.priority == action.priority for found in host.apt.pins or ())
    if host.apt.pins is None:
        because += " The pins could not be read, so it is planned as if there were none."
    return Step(
        id=id,
        title=title,
        action=action,
        state=State.DONE if there else State.TODO,
        because=because,
        commands=() if there else (write_command(action.file),),
        undo="" if there else f"removes {action.file}",
    )


def block_steps(steps: tuple[Step, ...], because: str) -> tuple[Step, ...]:
    """The steps, with the open ones blocked for this reason."""
    return tuple(
        msgspec.structs.replace(step, state=State.BLOCKED, because=f"{step.because} {because}".rstrip(), commands=())
        if step.state is State.TODO
        else step
        for step in steps
    )
