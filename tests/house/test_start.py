"""What every start of the doctor pays for: nothing is compiled or parsed before it is needed."""

from __future__ import annotations

import re

from tests.tool import ROOT


def test_the_checks_compile_no_regular_expression_at_import() -> None:
    """machine.patterns.lazy_pattern compiles at the first use: 60 of them cost 5 ms of a start of 100."""
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in (ROOT / "checks").rglob("*.py")
        # scripts that refresh the tables
        if "data" not in file.relative_to(ROOT).parts
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.match(r"\w.*=.*\bre\.compile\(", line)
    ]
    assert not found, "use lazy_pattern instead of re.compile"
