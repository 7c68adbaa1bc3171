"""facts, facts record and plan on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from gpu_setup.render.facts import facts_text
from gpu_setup.render.machine import machine_line
from gpu_setup.render.plan import plan_text
from provision.plan.planner import make_plan
from provision.target import PlanTarget
from tests.recorded_machines import load, machine_path, names
from tests.schemas import validated
from tests.subjects import for_each
from tests.tool import Cli, answered

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.long
@for_each("name", names())
def test_facts_of_every_machine(capfd: pytest.CaptureFixture[str], name: str) -> None:
    host = read_host(load(name))
    text = ESCAPES.sub("", facts_text(host, catalogue()))
    assert max(map(len, text.splitlines())) <= 100
    assert host.os.pretty and host.os.pretty in text
    validated(answered(capfd, "facts", "--json", "--machine", machine_path(name))[1], "facts")


def test_this_machines_facts(cli: Cli) -> None:
    result = cli("facts")
    assert (result.returncode, result.stderr) == (0, "")
    assert "kernel" in result.stdout
    validated(cli("facts", "--json").stdout, "facts")


def test_a_recording_replays_as_the_machine(cli: Cli, tmp_path: Path) -> None:
    recorded = cli("facts", "record", "mine", "--note", "a test's own machine")
    assert recorded.returncode == 0, recorded.stderr
    assert json.loads((tmp_path / "mine" / "machine.json").read_text())["note"] == "a test's own machine"

    here = json.loads(cli("doctor", "--json").stdout)["data"]
    there = json.loads(cli("doctor", "--json", "--machine", "mine").stdout)["data"]
    assert there["machine"] == "mine"
    assert {row["id"]: row["status"] for row in there["results"]} == {
        row["id"]: row["status"] for row in here["results"]
    }


def test_a_recording_is_not_mixed_with_other_files(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("\\documentclass")
    result = cli("facts", "record", "mine")
    assert result.returncode in (2, 3)
    assert [place.name for place in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.long
@for_each("name", names())
def test_plan_of_every_machine(capfd: pytest.CaptureFixture[str], name: str) -> None:
    machine = ("--machine", machine_path(name))
    code, out = answered(capfd, "plan", "--json", *machine)
    document = validated(out, "plan")
    data = document["data"]
    assert isinstance(data, dict)
    assert code == (3 if data["refusals"] else 0)
    assert len(document["errors"]) == len(data["refusals"])  # type: ignore[arg-type]
    todo = any(step["state"] != "done" for step in data["steps"])
    assert answered(capfd, "plan", "--check", *machine)[0] == (3 if data["refusals"] else int(todo))


@for_each("name", names())
def test_plan_fits_80_columns_and_gives_reasons(name: str) -> None:
    host, known = read_host(load(name)), catalogue()
    made = make_plan(host, known, PlanTarget())
    for verbose in (False, True):
        lines = ESCAPES.sub("", plan_text(made, machine_line(host, known), verbose)).splitlines()
        assert [line for line in lines if len(line) > 100 and "$ " not in line] == []
    assert all(step.because for step in made.steps)


def test_without_a_gpu_there_is_nothing_to_do(cli: Cli) -> None:
    result = cli("plan", "--machine", machine_path("no-gpu"))
    assert result.returncode == 0
    assert "No supported GPU: nothing to install." in result.stdout


def test_two_vendors_are_a_question(cli: Cli) -> None:
    machine = ("--machine", machine_path("two-vendors"))
    refused = cli("plan", *machine)
    assert refused.returncode == 3
    assert "--vendor" in refused.stdout
    assert cli("plan", "--vendor", "amd", *machine).returncode == 0


def test_a_plan_is_kept_for_review(cli: Cli, tmp_path: Path) -> None:
    result = cli("plan", "--out", "plan.json", "--machine", machine_path("rtx3090ti-fresh"))
    assert result.returncode == 0
    validated((tmp_path / "plan.json").read_text(), "plan")


def test_a_plan_that_cannot_be_kept(cli: Cli) -> None:
    result = cli("plan", "--out", "/proc/nowhere/plan.json", "--machine", machine_path("rtx3090ti-fresh"))
    assert result.returncode == 4
    assert "could not be written" in result.stderr


def test_plan_changes_nothing(cli: Cli, home: Path, tmp_path: Path) -> None:
    cli("plan")
    assert list(home.rglob("*")) == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spelled", ["in-tree", "in_tree"])
def test_a_source_is_spelled_as_in_json(cli: Cli, spelled: str) -> None:
    """`gpu-setup plan --source in-tree` is what the plan's own refusals advise."""
    made = validated(cli("plan", "--json", "--source", spelled, "--machine", machine_path("no-gpu")).stdout, "plan")
    assert made["data"]["target"]["source"] == "in-tree"
