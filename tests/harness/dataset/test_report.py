"""What a check says to a person, a script, a code host and a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.dataset.corpus import clean_rows
from tests.harness.dataset.planted import planted
from tests.schemas import validated
from tests.tool import ROOT, Cli

pytestmark = pytest.mark.long


def planted_file(tmp_path: Path) -> Path:
    rows, _, _ = planted(seed=3, clean=150, each=4)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def clean_file(tmp_path: Path, count: int = 120) -> Path:
    path = tmp_path / "clean rows.json"
    marked = [
        {**row, "kind": "organic" if number % 4 else "synthetic"} for number, row in enumerate(clean_rows(count, 2))
    ]
    path.write_text(json.dumps(marked, ensure_ascii=False), encoding="utf-8")
    return path


def test_exit_status_0_for_a_clean_file_and_1_for_a_bad_one(cli: Cli, tmp_path: Path) -> None:
    good = cli("data", "check", str(clean_file(tmp_path)))
    assert good.returncode == 0
    assert "no problems found" in good.stdout and "organic 75%" in good.stdout
    bad = cli("data", "check", str(planted_file(tmp_path)))
    assert bad.returncode == 1
    kinds = [line.split(":")[0].strip() for line in bad.stdout.splitlines() if "`data clean`" in line]
    assert kinds[0] == "schema" and kinds.index("email") < kinds.index("name")


@pytest.mark.long
def test_warnings_count_only_when_strict(cli: Cli, tmp_path: Path) -> None:
    rows = clean_rows(120, 4)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([*rows, rows[5]]), encoding="utf-8")
    assert cli("data", "check", str(path)).returncode == 0
    assert cli("data", "check", "--strict", str(path)).returncode == 1


def test_json_follows_its_schema(cli: Cli, tmp_path: Path) -> None:
    result = cli("data", "check", "--json", str(planted_file(tmp_path)))
    document = validated(result.stdout, "data")
    assert document["schema"] == "gpu-setup/data/1" and document["exit_code"] == result.returncode == 1
    finding = document["data"]["findings"][0]
    assert {"kind", "severity", "rows", "summary", "excerpt"} <= set(finding)
    assert document["data"]["tokens"] is None
    severities = [each["severity"] for each in document["data"]["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)


def test_row_and_line_numbers_are_those_of_the_file(cli: Cli, tmp_path: Path) -> None:
    path = planted_file(tmp_path)
    text = path.read_text(encoding="utf-8").splitlines()
    document = json.loads(cli("data", "check", "--json", str(path)).stdout)
    rows = json.loads(path.read_text(encoding="utf-8"))
    mail = next(each for each in document["data"]["findings"] if each["kind"] == "email")
    for row, line in zip(mail["rows"], mail["lines"], strict=True):
        assert "@" in rows[row]["output"]
        assert text[line - 1].strip() == "{" and json.dumps(rows[row]["instruction"], ensure_ascii=False) in text[line]


def test_sarif_has_a_rule_and_a_place_for_each_result(cli: Cli, tmp_path: Path) -> None:
    path = planted_file(tmp_path)
    result = cli("data", "check", "--sarif", str(path))
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert document["version"] == "2.1.0"
    run = document["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    lines = path.read_text(encoding="utf-8").count("\n") + 1
    for found in run["results"]:
        assert rules[found["ruleIndex"]]["id"] == found["ruleId"]
        assert found["level"] in ("error", "warning", "note") and found["message"]["text"]
        place = found["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"].endswith("rows.json")
        assert 1 <= place["region"]["startLine"] <= lines


def test_the_page_shows_findings_and_histograms_and_runs_nothing(cli: Cli, tmp_path: Path) -> None:
    rows = [
        *clean_rows(120, 6),
        {"instruction": "<script>alert(1)</script>", "input": "", "output": "<b>x</b> &amp; \x1b[31m"},
    ]
    path, page = tmp_path / "rows.json", tmp_path / "page.html"
    path.write_text(json.dumps(rows), encoding="utf-8")
    cli("data", "check", "--html", str(page), str(path))
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 2 and "characters of output" in text
    assert 'id="control-characters"' in text
    assert "<script" not in text and "\x1b" not in text and "http" not in text.replace("http-equiv", "")


def test_secrets_are_not_repeated_in_full(cli: Cli, tmp_path: Path) -> None:
    token = "gh" + "p_" + "a1B2" * 9
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "Key?", "output": f"Use {token} for it, please."}]), encoding="utf-8")
    for option in ([], ["--json"], ["--sarif"]):
        assert token not in cli("data", "check", *option, str(path)).stdout


def test_spreadsheet_formulas_stay_text(cli: Cli, tmp_path: Path) -> None:
    path, table = tmp_path / "rows.json", tmp_path / "findings.csv"
    rows = [
        {"instruction": text, "input": "", "output": ""}
        for text in ("=cmd|' /C calc'!A0", "+1+1", "@SUM(A1)", "-2", "\t=1")
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    cli("data", "check", "--csv", str(table), str(path))
    import csv

    with table.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["kind", "severity", "row", "line", "excerpt"]
    assert len(lines) > 5
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for line in lines for cell in line)


def test_an_error_is_one_document_too(cli: Cli, tmp_path: Path) -> None:
    result = cli("data", "check", "--json", str(tmp_path / "absent.json"))
    document = json.loads(result.stdout)
    assert (result.returncode, document["schema"]) == (2, "gpu-setup/error/1")
    assert document["errors"][0]["code"] == "data.unreadable"


@pytest.mark.long
def test_clean_asks_and_refuses_without_an_answer(cli: Cli, tmp_path: Path) -> None:
    path = planted_file(tmp_path)
    before = path.read_bytes()
    assert cli("data", "clean", str(path)).returncode == 3
    assert cli("data", "clean", "--yes", "--out", str(path), str(path)).returncode == 3
    link = tmp_path / "link.json"
    link.symlink_to(path)
    assert cli("data", "clean", "--yes", "--replace", "--out", str(link), str(path)).returncode == 3
    shown = cli("data", "clean", "--dry-run", str(path))
    assert shown.returncode == 0 and "would write" in shown.stdout
    assert list(tmp_path.glob("*clean*")) == [] and path.read_bytes() == before
    done = cli("data", "clean", "--yes", "--json", str(path))
    document = validated(done.stdout, "data")
    assert [Path(each["path"]).name for each in document["data"]["written"]] == [
        "rows-clean.json",
        "rows-clean.log.jsonl",
    ]
    assert cli("data", "clean", "--yes", str(path)).returncode == 3
    back = cli("data", "clean", "--undo", "rows-clean.log.jsonl", "--out", "back.json", "rows-clean.json")
    assert back.returncode == 0
    assert json.loads((tmp_path / "back.json").read_bytes()) == json.loads(before)


def test_an_unknown_kind_is_a_mistake_with_a_hint(cli: Cli, tmp_path: Path) -> None:
    result = cli("data", "clean", "--keep", "emial", str(clean_file(tmp_path)))
    assert result.returncode == 2 and "Did you mean email?" in result.stderr


@pytest.mark.long
def test_import_and_split_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "faq.csv"
    table.write_text(
        "Frage,Antwort\n" + "\n".join(f'"{row["instruction"]}","{row["output"]}"' for row in clean_rows(40, 5))
    )
    made = cli("data", "import", "--json", "--kind", "organic", str(table))
    document = validated(made.stdout, "data")
    assert (made.returncode, document["data"]["rows"]) == (0, 40)
    parted = cli("data", "split", "--rows", "8", "--json", "faq-alpaca.json")
    assert [each["rows"] for each in json.loads(parted.stdout)["data"]["written"]] == [32, 8]
    assert cli("data", "split", "--rows", "8", "faq-alpaca.json").returncode == 3
    assert cli("data", "split", "--rows", "500", "--replace", "faq-alpaca.json").returncode == 1


@pytest.mark.long
def test_worker_processes_change_nothing(cli: Cli, tmp_path: Path) -> None:
    """A file large enough for several processes: the same findings as with one, and as from the command line."""
    rows, _, _ = planted(seed=5, clean=600, each=8)
    path = tmp_path / "rows.json"
    padded = [{**row, "note": "x" * 8000} if isinstance(row, dict) else row for row in rows]
    path.write_text(json.dumps(padded, ensure_ascii=False), encoding="utf-8")
    program = (
        "import sys, pathlib\n"
        "from harness.dataset.check import check, CheckSettings\n"
        "if __name__ == '__main__':\n"
        "    path = pathlib.Path(sys.argv[1])\n"
        "    one, two = (check(path, wanted=CheckSettings(workers=many)) for many in (1, 2))\n"
        "    assert path.stat().st_size > 6 << 20\n"
        "    assert one.findings == two.findings and one.lengths == two.lengths, 'different'\n"
        "    print(len(one.findings))\n"
    )
    script = tmp_path / "both.py"
    script.write_text(program)
    root = str(ROOT)
    done = subprocess.run(
        [sys.executable, str(script), str(path)], capture_output=True, text=True, timeout=120, env={"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
    document = json.loads(cli("data", "check", "--json", str(path)).stdout)
    assert len(document["data"]["findings"]) == int(done.stdout)
