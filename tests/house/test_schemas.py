"""The published schemas: generated from the types, committed, valid, open for growth."""

from __future__ import annotations

import json

import jsonschema
import pytest

from gpu_setup.schema import DOCUMENTS, FOLDER, committed, text


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_committed_schema_is_what_the_types_say(name: str) -> None:
    assert committed(name) == text(name), "the types have changed: python -m gpu_setup.schema writes the schemas anew"


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_schema_is_valid_and_lets_documents_grow(name: str) -> None:
    schema = json.loads(committed(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"] == {"const": f"gpu-setup/{name}/1"}
    assert 'additionalProperties": false' not in committed(name)


def test_no_schema_without_a_document() -> None:
    assert {place.stem for place in FOLDER.glob("*.json")} == set(DOCUMENTS)
