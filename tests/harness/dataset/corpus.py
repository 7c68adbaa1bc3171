"""Clean rows in four languages, made from sentence patterns: different enough that no two are near-duplicates.

The patterns are in corpus.toml. The rows are synthetic.
"""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_TABLES = tomllib.loads((Path(__file__).with_name("corpus.toml")).read_text(encoding="utf-8"))
THINGS, PLACES, TIMES = _TABLES["things"], _TABLES["places"], _TABLES["times"]
QUESTIONS, ANSWERS = _TABLES["questions"], _TABLES["answers"]
LANGUAGES = tuple(QUESTIONS)


def filled(pattern: str, language: str, dice: random.Random) -> str:
    return pattern.format(
        t=dice.choice(THINGS[language]),
        p=dice.choice(PLACES[language]),
        w=dice.choice(TIMES[language]),
        n=dice.randrange(12, 480),
        m=dice.randrange(3, 95),
    )


def question(language: str, dice: random.Random) -> str:
    return filled(dice.choice(QUESTIONS[language]), language, dice)


def answer(language: str, dice: random.Random, few: int = 3, many: int = 5) -> str:
    patterns = dice.sample(ANSWERS[language], dice.randint(few, many))
    return " ".join(filled(pattern, language, dice) for pattern in patterns)


def clean_row(language: str, dice: random.Random) -> Row:
    return {"instruction": question(language, dice), "input": "", "output": answer(language, dice)}


def clean_rows(count: int, seed: int, languages: tuple[str, ...] = LANGUAGES) -> list[Row]:
    """Rows of which no two ask the same: `count` up to a few thousand."""
    dice = random.Random(seed)
    rows: list[Row] = []
    asked: set[str] = set()
    while len(rows) < count:
        row = clean_row(languages[len(rows) % len(languages)], dice)
        if row["instruction"] not in asked:
            asked.add(row["instruction"])
            rows.append(row)
    return rows
