"""The tables of where the tests' time goes."""

from __future__ import annotations

from pathlib import Path

from tests.times import group_totals, read_times, tables


def test_groups_are_added_up_and_the_slowest_come_first(tmp_path: Path) -> None:
    file = tmp_path / "times.xml"
    cases = (
        ("tests.lab.provision.test_kills", "test_a[x]", 30.0),
        ("tests.lab.provision.test_routes", "test_b", 12.5),
        ("tests.lab.harness.test_train", "test_c", 40.25),
        ("tests.house.test_walls", "test_types", 10.0),
        ("tests.gpu_setup.test_help", "test_d", 1.0),
    )
    rows = "".join(f'<testcase classname="{module}" name="{name}" time="{time}"/>' for module, name, time in cases)
    file.write_text(f"<testsuites><testsuite>{rows}</testsuite></testsuites>")
    times = read_times(file)
    assert group_totals(times) == [
        ("guests", 42.5),
        ("lab/harness/test_train.py", 40.25),
        ("house/test_walls.py", 10.0),
        ("gpu_setup/test_help.py", 1.0),
    ]
    shown = tables(times)
    assert "| guests | 42 |" in shown
    assert shown.index("lab/harness/test_train.py::test_c") < shown.index("lab/provision/test_kills.py::test_a[x]")
