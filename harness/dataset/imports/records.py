"""JSON and JSON Lines of the common shapes: Alpaca, question and answer, conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.dataset.block_reader import LONGEST_ROW, FileProblem, open_data_file, read_blocks
from harness.dataset.imports.conversations import continue_row, conversation_rows, turns_of
from harness.dataset.imports.imported import ImportedRow, Skips
from harness.dataset.row import ORIGINS, decode_row

# other names of the three fields, the most likely first
NAMES = {
    "instruction": (
        "instruction", "question", "prompt", "query", "user", "frage", "anweisung", "pregunta", "instrucción",
        "consigne", "domanda", "task", "q",
    ),
    "input": (
        "input", "context", "passage", "kontext", "eingabe", "contexto", "entrada", "contexte", "entrée", "contesto",
        "material",
    ),
    "output": (
        "output", "answer", "response", "completion", "reply", "chosen", "assistant", "antwort", "ausgabe", "respuesta",
        "salida", "réponse", "sortie", "risposta", "target", "a",
    ),
}  # fmt: skip


def record_rows(
    path: Path, mapping: Mapping[str, str], all_turns: bool, skips: Skips, scratch: Path
) -> Iterator[ImportedRow]:
    """All rows of a JSON list or JSON Lines; anything else is skipped and counted. `mapping`: field → name in file."""
    source = open_data_file(path, scratch)
    troubles: list[FileProblem] = []
    for block in read_blocks(source, troubles):
        for number, (start, end) in enumerate(zip(block.starts, block.ends, strict=True)):
            place = f"{path.name}#{block.row + number}"
            if not end:
                skips.skip(f"larger than {LONGEST_ROW >> 20} MB", place)
                continue
            value, problems = decode_row(block.data[start:end])
            if value is None:
                skips.skip(f"not JSON: {problems[0][1]}", place)
            elif not isinstance(value, dict):
                skips.skip("not an object", place)
            else:
                yield from object_rows(value, place, mapping, all_turns, skips)
    for trouble in troubles:
        skips.skip(trouble.text, f"{path.name}, line {trouble.line:,}")


def object_rows(
    value: dict[str, Any], place: str, mapping: Mapping[str, str], all_turns: bool, skips: Skips
) -> Iterator[ImportedRow]:
    turns = None if mapping else turns_of(value)
    if turns is not None:
        yield from conversation_rows(turns, place, all_turns, skips)
        return
    if (
        not mapping
        and "modelTitle" in value
        and isinstance(value.get("prompt"), str)
        and isinstance(value.get("completion"), str)
    ):
        yield from continue_row(value, place, skips)
        return
    columns = columns_of(list(value), mapping)
    texts = {field: value.get(name) for field, name in columns.items()}
    instruction, output = texts.get("instruction"), texts.get("output")
    if not isinstance(instruction, str) or not isinstance(output, str):
        skips.skip("no question and answer under a known name (name them with --columns)", place)
        return
    if not instruction.strip() or not output.strip():
        skips.skip("an empty question or answer", place)
        return
    material = texts.get("input")
    mark = value.get("kind", value.get("origin"))
    kept = value.get("source")
    yield ImportedRow(
        instruction.strip(), material.strip() if isinstance(material, str) else "", output.strip(),
        mark if isinstance(mark, str) and mark in ORIGINS else "", kept if isinstance(kept, str) else place,
    )  # fmt: skip


def columns_of(names: list[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The name of each field in the file: from `mapping`, else the first known name."""
    found = {field: name for field, name in mapping.items() if name in names}
    plain = {name.strip().casefold(): name for name in names}
    for field, known in NAMES.items():
        if field not in mapping:
            match = next((plain[name] for name in known if name in plain and plain[name] not in found.values()), None)
            if match is not None:
                found[field] = match
    return found
