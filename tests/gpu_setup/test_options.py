"""Options that arrive as one object, and values spelled as in JSON."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import click
import msgspec
import pytest
from click.testing import CliRunner

from gpu_setup.cli import run
from gpu_setup.commands.options import OneOf, options_into
from gpu_setup.render.data import count_text
from gpu_setup.render.report import flops


class Place(NamedTuple):
    folder: str
    deep: bool


class Options(msgspec.Struct, frozen=True):
    place: Place
    number: int


class Colour(StrEnum):
    DARK_RED = "dark-red"
    BLUE = "blue"


def place_options(function):  # type: ignore[no-untyped-def]
    made = options_into(Place, "place")(function)
    return click.option("--folder")(click.option("--deep", is_flag=True)(made))


def test_options_arrive_as_one_object_and_kinds_can_be_nested() -> None:
    received: list[Options] = []

    @click.command()
    @click.option("--number", type=int)
    @place_options
    @options_into(Options)
    def command(options: Options) -> None:
        received.append(options)

    assert CliRunner().invoke(command, ["--number", "3", "--folder", "a", "--deep"]).exit_code == 0
    assert received == [Options(Place("a", True), 3)]


@pytest.mark.parametrize("spelled", ["dark-red", "dark_red", "DARK-RED"])
def test_a_value_is_spelled_as_in_json(spelled: str) -> None:
    assert OneOf(Colour).convert(spelled, None, None) is Colour.DARK_RED


def test_the_values_are_listed_as_in_json() -> None:
    with pytest.raises(click.BadParameter, match="'dark-red', 'blue'"):
        OneOf(Colour).convert("green", None, None)


def test_a_number_is_called_a_whole_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "--steps", "abc"]) == 2
    assert "Invalid value for '--steps': 'abc' is not a valid whole number." in capsys.readouterr().err


def test_one_row_and_many() -> None:
    assert [count_text(1), count_text(2000, "changed rows")] == ["1 row", "2,000 changed rows"]


def test_speeds_have_the_unit_without_leading_zeros() -> None:
    assert [flops(35.2), flops(0.0277), flops(0.0000041), flops(None)] == ["35.2 T", "27.7 G", "4.1 M", "not known"]
