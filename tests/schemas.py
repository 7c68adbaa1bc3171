"""The tool's JSON against the schema that is shipped for it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from gpu_setup.schema import committed


@cache
def _validator(name: str) -> Draft202012Validator:
    # made once: jsonschema.validate checks the schema itself every time
    return Draft202012Validator(json.loads(committed(name)))


def validated(document: str | bytes, name: str) -> dict[str, Any]:
    """The document, read; jsonschema.ValidationError where it does not follow the schema of this name."""
    found: dict[str, Any] = json.loads(document)
    _validator(name).validate(found)
    return found
