"""Whom a scrubbed text must not name, and the word that replaces a secret; machine/scrub.py does the work."""

from __future__ import annotations

from typing import NamedTuple

REDACTED = "redacted"


class Identities(NamedTuple):
    """Names to hide. `users` begins with the session's; `salt` makes pseudonyms of one recording unlike another's.

    `full_names` are people's, `literals` texts that are hidden wherever they occur (secrets.literals).
    """

    users: tuple[str, ...] = ()
    host: str = ""
    homes: tuple[str, ...] = ()
    salt: bytes = b""
    full_names: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()


NOBODY = Identities()
