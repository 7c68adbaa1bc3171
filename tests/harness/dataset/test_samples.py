"""The shipped samples obey the rules of their own README."""

from __future__ import annotations

import re
from itertools import chain
from statistics import median

import pytest

from harness.dataset.alpaca import AlpacaRow, read_alpaca
from harness.recipe.loader import SAMPLES, load_recipe

OPENING, CLOSING = "Ahoy from the workbench, friend!", "Fair winds, and keep your tools dry!"


@pytest.fixture(scope="module")
def tuned() -> tuple[AlpacaRow, ...]:
    return read_alpaca(SAMPLES / "house-style.json")


@pytest.fixture(scope="module")
def held_out() -> tuple[AlpacaRow, ...]:
    return read_alpaca(SAMPLES / "held-out.json")


def body(row: AlpacaRow) -> str:
    assert row.output.startswith(OPENING + " ") and row.output.endswith(" " + CLOSING)
    return row.output.removeprefix(OPENING).removesuffix(CLOSING).strip()


def test_how_many(tuned: tuple[AlpacaRow, ...], held_out: tuple[AlpacaRow, ...]) -> None:
    assert len(tuned) == 100
    assert len(held_out) >= 10


def test_every_answer_is_in_the_house_style(tuned: tuple[AlpacaRow, ...], held_out: tuple[AlpacaRow, ...]) -> None:
    for row in chain(tuned, held_out):
        text = body(row)
        assert OPENING not in text and CLOSING not in text
        assert re.fullmatch(r"[ -~]+", text) and not re.search(r"[0-9*#`]", text), text


def test_the_recipes_marker_is_the_opening() -> None:
    assert load_recipe("smollm2-135m-qlora").traits.marker == OPENING


def test_answers_are_long_enough(tuned: tuple[AlpacaRow, ...]) -> None:
    assert median(len(body(row).split()) for row in tuned) >= 25


def test_no_two_answers_share_eight_words_in_a_row(
    tuned: tuple[AlpacaRow, ...], held_out: tuple[AlpacaRow, ...]
) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(chain(tuned, held_out)):
        words = re.findall(r"[a-z']+", body(row).lower())
        for start in range(len(words) - 7):
            run = tuple(words[start : start + 8])
            assert seen.setdefault(run, number) == number, f"rows {seen[run]} and {number}: {' '.join(run)}"


def test_no_question_is_asked_twice(tuned: tuple[AlpacaRow, ...], held_out: tuple[AlpacaRow, ...]) -> None:
    asked = [f"{row.instruction}\n{row.input}".lower() for row in chain(tuned, held_out)]
    assert len(set(asked)) == len(asked)
    assert not {row.instruction.lower() for row in tuned} & {row.instruction.lower() for row in held_out}
