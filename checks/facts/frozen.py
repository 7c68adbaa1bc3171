"""The base of every fact."""

from __future__ import annotations

import msgspec


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every fact: immutable, keyword-only."""
