"""What a problem quotes of an error of the system or of a parser."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.errors import reason


def test_the_systems_words_without_number_and_path() -> None:
    with pytest.raises(OSError) as caught:
        Path("/nowhere/at/all").read_bytes()
    assert reason(caught.value) == "No such file or directory"


def test_a_parsers_words_as_they_are() -> None:
    assert reason(ValueError("line 3: no colon")) == "line 3: no colon"
