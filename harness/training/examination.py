"""Reload the trained adapter in a separate process, and compare its answers with those of its base model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.atomic_files import disk_errors, read_document, write_atomic
from harness.environment.worker_process import WorkerContext
from harness.process.diagnosis import describe_exit, process_failure
from harness.recipe.loader import SAMPLES, Traits
from harness.recipe.safe_yaml import load_yaml
from machine.events import Event
from machine.input_file import read_input

STAGE = "examine"
DOCUMENT = "examination.json"


class HeldOutLosses(msgspec.Struct, frozen=True):
    """Mean loss over the answers' tokens, with the right answers and with another question's answers (mismatched).

    null: not finite.
    """

    held_out_loss: float | None
    mismatched_loss: float | None

    @property
    def pairing(self) -> float | None:
        """How much lower the loss of the right answers is than that of mismatched ones."""
        if self.held_out_loss is None or self.mismatched_loss is None:
            return None
        return self.mismatched_loss - self.held_out_loss


class AnswerPair(msgspec.Struct, frozen=True):
    """The answers to one question before and after training."""

    question: str
    before: str
    after: str


class Examination(msgspec.Struct, frozen=True):
    rows: int = 0
    before: HeldOutLosses | None = None
    after: HeldOutLosses | None = None
    answers: tuple[AnswerPair, ...] = ()


class ExaminationSettings(msgspec.Struct, frozen=True):
    """The rows to compute losses on, the questions to ask (none: the rows'), and the `tokens` of an answer at most.

    `exact`: compute the base exactly on a CPU too, not in a faster and less exact form.
    """

    held_out: Path | None
    prompts: tuple[str, ...] = ()
    tokens: int = 64
    offline: bool = True
    exact: bool = False


def held_out_file(traits: Traits, folder: Path, own_data: bool) -> Path | None:
    """The rows that were not trained on: the recipe's file, or the validation split that the worker saved."""
    name = traits.held_out
    if name and name != "split" and not own_data:
        return SAMPLES / name
    tokens = folder / "held-out-tokens.json"
    return tokens if tokens.is_file() else None


def examine(
    base_model: str,
    folder: Path,
    wanted: ExaminationSettings,
    worker: WorkerContext,
    out: Path | None = None,
    merged: Path | None = None,
) -> Examination:
    """Losses and answers before and after, from the adapter in `folder`; raises OutsideFailed when it does not load.

    `merged`: examine the merged model in this folder instead; then there is only an "after". A run that trained every
    weight has no adapter: its base and its own model are examined one after the other.
    """
    out, emit = out or folder / DOCUMENT, worker.emit
    if merged is None and not (folder / "adapter" / "adapter_config.json").is_file():
        models = (Path(base_model), folder / "adapter")
        before, after = (examine(base_model, folder, wanted, worker, out, model) for model in models)
        return _save(out, _combine(before, after))
    words = "the merged model" if merged else "the base model and the trained adapter"
    emit(Event("start", STAGE, f"Examining {words} with the same questions"))
    model = ["--merged", str(merged)] if merged else ["--base", base_model, "--adapter", str(folder / "adapter")]
    argv = [
        worker.python,
        "-m",
        "gpu_setup_worker.examine",
        *model,
        "--out",
        str(out),
        "--tokens",
        str(wanted.tokens),
    ]
    if not merged and not _in_4_bit(folder):
        argv += ["--plain"]
    if wanted.exact:
        argv += ["--exact"]
    if wanted.held_out is not None:
        argv += ["--held-out", str(wanted.held_out)]
    for prompt in wanted.prompts:
        argv += [f"--prompt={prompt}"]
    done = 0

    def on_line(line: str) -> None:
        nonlocal done
        if line.startswith("examined"):
            done += 1
            emit(Event("progress", STAGE, line, done, 1 if merged else 2, "passes"))

    # an earlier document must not be taken for this one
    out.unlink(missing_ok=True)
    with disk_errors(folder):
        outcome = worker.machine.stream(
            argv,
            on_line,
            env=worker.variables(offline=wanted.offline),
            log=str(folder / "examine.log"),
        )
    if not outcome.ok or not out.is_file():
        raise process_failure(
            "examine.failed",
            "The trained adapter does not load and answer",
            outcome.stdout,
            describe_exit(outcome.rc),
            f"See {folder / 'examine.log'}; then run the same command again.",
        )
    emit(Event("end", STAGE, "Examined the merged model" if merged else "Examined the model before and after training"))
    return read_examination(out)


def _combine(before: Examination, after: Examination) -> Examination:
    """The examinations of two models as one, with before and after."""
    pairs = zip(before.answers, after.answers, strict=True)
    answers = tuple(AnswerPair(other.question, one.after, other.after) for one, other in pairs)
    return Examination(after.rows, before.after, after.after, answers)


def _save(out: Path, examination: Examination) -> Examination:
    write_atomic(out, msgspec.json.encode(examination))
    return examination


def _in_4_bit(folder: Path) -> bool:
    """Whether the run's config quantises the base to 4 bit."""
    import yaml

    try:
        config = load_yaml(read_input(folder / "config.yml").decode("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return True
    return not isinstance(config, dict) or bool(config.get("load_in_4bit"))


def read_examination(path: Path) -> Examination:
    return read_document(path, Examination)
