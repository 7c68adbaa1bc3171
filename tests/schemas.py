"""The tool's JSON against the schema that is shipped for it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from gpu_setup.schema import read_schema


@cache
def _validator(name: str) -> Draft202012Validator:
    # made once: jsonschema.validate checks the schema itself every time
    return Draft202012Validator(json.loads(read_schema(name)))


def must_follow(document: Any, name: str) -> None:
    """jsonschema.ValidationError where the document, as read from JSON, does not follow the schema of this name."""
    _validator(name).validate(document)


def validated(document: str | bytes, name: str) -> dict[str, Any]:
    """The document, read, which must follow the schema of this name."""
    found: dict[str, Any] = json.loads(document)
    must_follow(found, name)
    return found
