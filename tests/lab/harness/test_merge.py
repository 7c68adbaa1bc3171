"""A merged model answers as its adapter does; `try` shows nothing that steers a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine.local import LocalMachine
from tests.lab.training import Ended, Training, tool
from tests.schemas import must_follow

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.full)])
def test_the_tiny_model(training: Training, tiny_run: Ended, own_home: Path, tmp_path: Path, dtype: str) -> None:
    """Embedding and head were trained as a whole here, and the blocks through NF4."""
    # a folder of the person's own, and what a merge that was killed has left
    for name in ("model.partial", ".gpu-setup.999999999.merge.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()
    ended = tool(own_home, "merge", tiny_run.data["folder"], "--out", str(tmp_path / "model"), "--dtype", dtype)
    assert ended.rc == 0, ended.stderr
    assert {file.name for file in tmp_path.iterdir()} - {"home"} == {"model", "model.partial"}
    assert (tmp_path / "model.partial/kept").exists()
    must_follow(ended.document, "merge")
    data = ended.data
    assert data["held_out_merged"] == pytest.approx(data["held_out_adapter"], rel=1e-5 if dtype == "float32" else 1e-3)
    if dtype == "float32":
        assert data["same"] == data["answers"] == 12
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["dtype"] == dtype and "quantization_config" not in config
    assert sorted(file.suffix for file in (tmp_path / "model").iterdir() if file.suffix in (".bin", ".pt")) == []
    # any program reads it without our help
    alone = (
        "import sys, transformers as t; m = t.AutoModelForCausalLM.from_pretrained(sys.argv[1]); "
        "t.AutoTokenizer.from_pretrained(sys.argv[1]); print(sum(p.numel() for p in m.parameters()))"
    )
    machine = LocalMachine()
    read = machine.run((str(training.environment.python), "-c", alone, str(tmp_path / "model")), timeout=120)
    assert read.ok and int(read.stdout.split()[-1]) > 1_000_000, read.stderr
    again = tool(own_home, "merge", tiny_run.data["folder"], "--out", str(tmp_path / "model"))
    assert (again.rc, again.error["code"]) == (3, "merge.out-taken")
