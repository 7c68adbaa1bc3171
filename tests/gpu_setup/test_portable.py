"""A report that is published names no folder, account or host of the machine that made it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gpu_setup.envelope import Answer, encode
from gpu_setup.portable import portable, portable_text
from tests.harness.report.test_report import report


def test_a_report_names_no_place_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/wolkenheim")
    monkeypatch.setenv("USER", "wolkenheim")
    monkeypatch.setenv("GPU_SETUP_HOME", "/scratch/puvkra")
    made = report(folder=Path("/scratch/puvkra/state/runs/20261130-tiny"))
    made = msgspec.structs.replace(
        made,
        recipe=msgspec.structs.replace(made.recipe, base_model="/home/wolkenheim/models/mine"),
        notes=("See /scratch/puvkra/state/runs/20261130-tiny/axolotl.log.", "wolkenheim's run"),
    )
    sent = portable(made)
    assert (sent.folder, sent.recipe.base_model) == ("20261130-tiny", "mine")
    assert sent.notes[0] == "See runs/20261130-tiny/axolotl.log."
    document = encode(Answer("report", sent, 0, str)).decode()
    assert "wolkenheim" not in document and "puvkra" not in document
    assert sent.measurements == made.measurements and sent.digest == made.digest


def test_a_sentence_stays_a_sentence() -> None:
    clean = portable_text()
    for text in ("27.7 TFLOP/s, 12 of 12 answers", "torch 2.13.0+cpu", "nvidia-cudnn-cu13==9.13.0.50", "/"):
        assert clean(text) == text or text == "/"
