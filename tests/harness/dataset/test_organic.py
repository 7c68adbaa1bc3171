"""False alarms on prose that nobody wrote for a test: the documentation strings of Python's own library."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from harness.dataset.check import check

# rules about single rows; that docstrings repeat each other and their sentences is true, and so is it that one in ten
# stops without a full stop, in code or in a list (cut-answer)
ALARMS = (
    "secret", "card-number", "iban", "email", "phone", "address", "name", "refusal", "template-marker", "loop", "echo",
    "placeholder", "wrong-language", "answer-language", "mojibake", "lost-characters", "control-characters",
    "invisible-characters", "quoted-mail", "markup", "length-outlier",
)  # fmt: skip


def docstrings() -> list[dict[str, str]]:
    library = Path(os.__file__).parent
    rows, seen = [], set()
    for file in sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(file.parts):
            continue
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node)
                if text and len(text) > 60 and text not in seen:
                    seen.add(text)
                    asked = f"What is {node.name} in {file.name}, line {node.lineno}?"
                    rows.append({"instruction": asked, "input": "", "output": text})
    return rows


@pytest.mark.long
def test_few_false_alarms_on_real_prose(tmp_path: Path) -> None:
    rows = docstrings()
    path = tmp_path / "docs.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    report = check(path)
    assert report.rows > 2000
    alarms = {finding.kind: finding.count for finding in report.findings if finding.kind in ALARMS}
    assert sum(alarms.values()) <= 0.01 * report.rows, alarms
