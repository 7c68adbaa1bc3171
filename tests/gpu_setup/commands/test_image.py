"""`gpu-setup image …` as a person types it, where no engine is needed for the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tool import Cli


@pytest.mark.parametrize("folder", ["/", "/usr/share", "/opt", "/tmp"])
def test_a_system_folder_is_never_mounted_over_the_images(cli: Cli, folder: str) -> None:
    ended = cli("image", "run", "--vendor", "cpu", "--", "true", cwd=Path(folder))
    assert ended.returncode == 2
    assert "a system folder" in ended.stderr


def test_without_an_engine_it_names_the_way_to_one(cli: Cli, tmp_path: Path) -> None:
    ended = cli("image", "engine", "--json", env={"PATH": str(tmp_path)})
    answer = json.loads(ended.stdout)
    assert (ended.returncode, answer["errors"][0]["code"]) == (3, "image.no-engine")
    assert "gpu-setup plan" in answer["errors"][0]["next"]
