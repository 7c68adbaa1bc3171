"""The published schemas: generated from the types, committed, valid, open for growth."""

from __future__ import annotations

import json
import re

import jsonschema
import msgspec
import pytest

from gpu_setup.schema import DOCUMENTS, FOLDER, generate, read_schema, text


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_committed_schema_is_what_the_types_say(name: str) -> None:
    assert read_schema(name) == text(name), "the types have changed: python -m gpu_setup.schema writes the schemas"


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_schema_is_valid_and_lets_documents_grow(name: str) -> None:
    schema = json.loads(read_schema(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"] == {"const": f"gpu-setup/{name}/1"}
    assert 'additionalProperties": false' not in read_schema(name)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_type_names_hold_no_path_of_the_source(name: str) -> None:
    schema = json.loads(read_schema(name))
    assert [each for each in schema["$defs"] if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", each)] == []
    assert [each for each in re.findall(r'"#/\$defs/([^"]+)"', read_schema(name)) if each not in schema["$defs"]] == []


def test_two_types_of_one_name_in_a_document_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class ErrorEntry(msgspec.Struct):
        """Another type by the name of one in every document."""

        code: int

    monkeypatch.setattr("checks.check_list.CheckList", ErrorEntry)
    with pytest.raises(ValueError, match="two published types have one name"):
        generate("check-list")


# "`field`: a, b or c." in a description
_WORD = r"[a-z][a-z0-9-]*(?: \([^)]*\))?"
_LISTED = rf"(?: is|:)? ({_WORD}(?:, {_WORD})*,? or {_WORD}|{_WORD}(?:, {_WORD})+)(?=[.;:]|$| for| of| as)"
# lists that stay open: what a system reports, and words that other programs choose
OPEN = {
    "AptSource.owner",
    "Disk.purpose",
    "DkmsBuild.state",
    "ModuleFile.origin",
    "QuantisationUsed.kind",
    "TrainingEnvironment.owner",
}


def listed_strings(name: str) -> set[str]:
    """Fields of a document whose description lists their values although their type is any string."""
    found = set()
    for type_name, kind in json.loads(read_schema(name))["$defs"].items():
        about = " ".join(kind.get("description", "").split())
        for field, schema in kind.get("properties", {}).items():
            kinds = (schema, *schema.get("anyOf", ()))
            any_string = any(each.get("type") == "string" and "enum" not in each for each in kinds)
            if any_string and re.search(f"`{field}`{_LISTED}", about):
                found.add(f"{type_name}.{field}")
    return found


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_values_that_a_description_lists_are_an_enum(name: str) -> None:
    assert sorted(listed_strings(name) - OPEN) == []


def test_no_schema_without_a_document() -> None:
    assert {place.stem for place in FOLDER.glob("*.json")} == set(DOCUMENTS)
