"""The doctor as a person and as a script meet it, on recorded machines and on this one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.model import Evidence, Finding, Fix, FixKind, Ok, Severity, Unknown, check
from checks.registry import ALL
from checks.runner import run
from gpu_setup.render.doctor import doctor_text, summary_text
from gpu_setup.terminal import as_shown
from tests.recorded_machines import load, machine_path, names
from tests.schemas import validated
from tests.subjects import for_each
from tests.tool import ROOT, Cli, answered

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def shown(name: str, verbose: bool = False) -> list[str]:
    """The doctor's lines for a recorded machine, without colours."""
    host, known = read_host(load(name)), catalogue()
    return ESCAPES.sub("", doctor_text(run(host, known, ALL), host, known, verbose)).splitlines()


@pytest.mark.long
@for_each("name", names())
def test_every_machine_fits_80_columns(name: str) -> None:
    for verbose in (False, True):
        # a command stays whole, so that it can be copied; so does a path that is longer than the line
        long = [
            line for line in shown(name, verbose) if len(line) > 80 and "$ " not in line and " " in line.strip()[60:]
        ]
        assert long == []


@pytest.mark.long
@for_each("name", names())
def test_every_machine_as_json(capfd: pytest.CaptureFixture[str], name: str) -> None:
    code, out = answered(capfd, "doctor", "--json", "--machine", machine_path(name))
    document = validated(out, "doctor")
    data = document["data"]
    assert isinstance(data, dict)
    assert document["exit_code"] == code == (1 if data["summary"]["fail"] else 0)
    assert sum(data["summary"].values()) == len(data["results"])


@pytest.mark.parametrize(("name", "code"), [("rtx4090-healthy", 0), ("rtx3090ti-fresh", 1), ("no-gpu", 0)])
def test_the_process_ends_with_the_documents_exit_code(cli: Cli, name: str, code: int) -> None:
    result = cli("doctor", "--json", "--machine", machine_path(name))
    assert (json.loads(result.stdout)["exit_code"], result.returncode) == (code, code)


@pytest.mark.parametrize("name", ["rtx3090-healthy", "rx7900xtx-healthy"])
def test_a_healthy_machine_is_five_lines(name: str) -> None:
    lines = shown(name)
    assert len(lines) <= 6
    assert lines[-1] == "Next: gpu-setup up"


def test_a_fresh_machine_begins_with_its_driver() -> None:
    lines = shown("rtx3090ti-fresh")
    assert lines[2].startswith("✗ ")
    assert "driver.present" in lines[3]


def test_no_gpu_is_reported_and_is_no_failure(cli: Cli) -> None:
    result = cli("doctor", "--machine", machine_path("no-gpu"))
    assert result.returncode == 0
    assert "No supported GPU" in result.stdout
    assert result.stdout.endswith("then: gpu-setup up\n")


def test_the_summary_is_a_line_for_each_thing_that_is_wrong() -> None:
    host, known = read_host(load("rtx3090ti-fresh")), catalogue()
    report = run(host, known, ALL)
    lines = ESCAPES.sub("", summary_text(report, host, known)).splitlines()
    assert "✗ No NVIDIA driver is installed. (driver.present)" in lines
    assert len(lines) <= 3 + report.summary.fail + report.summary.warn


def test_strict_counts_warnings_and_unknown_results(cli: Cli) -> None:
    machine = ("--machine", machine_path("no-gpu"))
    document = json.loads(cli("doctor", "--json", *machine).stdout)
    bad = document["data"]["summary"]["warn"] + document["data"]["summary"]["unknown"]
    assert cli("doctor", "--strict", *machine).returncode == (1 if bad else 0)


def test_unknown_results_are_one_line_and_verbose_shows_why() -> None:
    host, known = read_host(load("rtx3090-healthy")), catalogue()

    @check("a.dark", "A", about="", by_hand="")
    def dark(_host: object, _catalogue: object) -> Unknown:
        return Unknown("The file is only readable for root.")

    report = run(host, known, [dark, msgspec.structs.replace(dark, id="b.dark")])
    assert "? 2 unknown: a.dark, b.dark (-v shows why)." in ESCAPES.sub("", doctor_text(report, host, known, False))
    assert "only readable for root" in doctor_text(report, host, known, True)


def test_a_device_name_cannot_steer_the_terminal() -> None:
    host, known = read_host(load("rtx3090-healthy")), catalogue()

    @check("a.b", "A", about="", by_hand="")
    def bad(_host: object, _catalogue: object) -> tuple[Finding, ...]:
        evil = "\x1b]0;title\x07\x1b[2J\u202e"
        fix = Fix(FixKind.COMMAND, evil, ("echo", evil))
        return (Finding("a.b", Severity.ERROR, evil, evil, evil, (Evidence(evil, evil),), fix),)

    text = ESCAPES.sub("", as_shown(doctor_text(run(host, known, [bad]), host, known, True)))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_cause_is_named_and_comes_first() -> None:
    host, known = read_host(load("rtx3090-healthy")), catalogue()

    def finding(id: str, text: str) -> tuple[Finding, ...]:
        return (Finding(id, Severity.ERROR, "card", text, "", (), Fix(FixKind.COMMAND, f"Mend {id}.")),)

    @check("a.effect", "A", about="", by_hand="", causes=("b.cause",))
    def effect(_host: object, _catalogue: object) -> tuple[Finding, ...]:
        return finding("a.effect", "Nothing trains.")

    @check("b.cause", "B", about="", by_hand="")
    def cause(_host: object, _catalogue: object) -> tuple[Finding, ...]:
        return finding("b.cause", "The cable is loose.")

    report = run(host, known, [effect, cause])
    lines = ESCAPES.sub("", doctor_text(report, host, known, False)).splitlines()
    assert lines.index("✗ The cable is loose.") < lines.index("  so     ✗ Nothing trains. (a.effect)")
    assert lines[-1] == "Next: Mend b.cause. (b.cause)"
    lines = ESCAPES.sub("", doctor_text(report, host, known, True)).splitlines()
    assert lines.index("✗ The cable is loose.") < lines.index("✗ Nothing trains.")
    assert "  cause  b.cause: fix that first." in lines


@pytest.mark.long
def test_only_and_skip(cli: Cli) -> None:
    def ids(*arguments: str) -> set[str]:
        return {row["id"] for row in json.loads(cli("doctor", "--json", *arguments).stdout)["data"]["results"]}

    assert ids("--only", "gpu.present,apt") == {"gpu.present"} | {each.id for each in ALL if each.group == "apt"}
    assert ids("--only", "gpu.present", "--only", "gpu.vram") == {"gpu.present", "gpu.vram"}
    assert ids("--skip", "apt") == {each.id for each in ALL if each.group != "apt"}


@pytest.mark.long
def test_list_and_explain(cli: Cli) -> None:
    document = validated(cli("doctor", "--list", "--json").stdout, "check-list")
    data = document["data"]
    assert isinstance(data, dict)
    assert [row["id"] for row in data["checks"]] == [each.id for each in ALL]
    listed = cli("doctor", "--list").stdout
    assert all(f"  {each.id} " in listed for each in ALL)

    explained = cli("doctor", "--explain", "gpu.present").stdout
    assert "By hand:" in explained
    assert max(map(len, explained.splitlines())) <= 80
    validated(cli("doctor", "--explain", "gpu.present", "--json").stdout, "check-list")


def test_a_crash_of_one_check_is_one_unknown_result() -> None:
    host, known = read_host(load("rtx3090-healthy")), catalogue()

    @check("a.crash", "A", about="", by_hand="")
    def crash(_host: object, _catalogue: object) -> Ok:
        raise ZeroDivisionError

    report = run(host, known, [crash, *ALL])
    assert report.summary.unknown >= 1 and report.summary.passed > 10


def test_this_machine(cli: Cli) -> None:
    result = cli("doctor", "--json")
    validated(result.stdout, "doctor")
    assert (result.returncode in (0, 1), result.stderr) == (True, "")


def test_colour_only_where_it_is_wanted(cli: Cli) -> None:
    machine = ("doctor", "--machine", machine_path("rtx3090ti-fresh"))
    assert "\x1b[" not in cli(*machine).stdout
    assert "\x1b[31m" in cli(*machine, env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[" not in cli(*machine, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout


def test_doctor_changes_nothing(cli: Cli, home: Path, tmp_path: Path) -> None:
    cli("doctor")
    cli("doctor", "--json")
    assert list(home.rglob("*")) == [] and list(tmp_path.iterdir()) == []


def test_doctor_needs_no_root(tmp_path: Path) -> None:
    import os

    if os.geteuid() != 0:
        pytest.skip("these tests run without root already")
    drop = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]
    result = subprocess.run(
        [*drop, sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py"), "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    validated(result.stdout, "doctor")


def test_under_sudo_it_warns_that_permissions_are_roots(cli: Cli) -> None:
    import os

    if os.geteuid() != 0:
        pytest.skip("only root can be root")
    result = cli("doctor", "--json", env={"SUDO_USER": "alex\x1b[2J"})
    assert "Run it without sudo to check what alex" in result.stderr
    assert "\x1b" not in result.stderr
    json.loads(result.stdout)
    assert cli("doctor", env={"SUDO_USER": "root"}).stderr == ""
