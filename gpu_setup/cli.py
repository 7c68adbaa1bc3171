"""The root of the command line: commands by name, loaded when called; where exceptions become exit codes."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from machine.errors import FINE, INTERRUPTED, OUR_BUG, USAGE, OutsideFailed, Problem, Refused, reason

if TYPE_CHECKING:
    from gpu_setup.envelope import Answer


class Entry(NamedTuple):
    """Where a command lives (its module has it as `command`), what it does, in one line, and which extras it needs."""

    module: str
    help: str
    extras: tuple[str, ...] = ()


COMMANDS = {
    "up": Entry("gpu_setup.commands.up", "Do the main job: inspect, plan, install, train, measure, report."),
    "doctor": Entry("gpu_setup.commands.doctor", "Check this machine: what is wrong, and how to fix it."),
    "facts": Entry("gpu_setup.commands.facts", "Show the facts about this machine, or record them."),
    "plan": Entry("gpu_setup.commands.plan", "Show what would be installed, and why; change nothing."),
    "image": Entry("gpu_setup.commands.image", "Render, build, verify or run the container image for this machine."),
    "apply": Entry("gpu_setup.commands.apply", "Carry out a plan step by step; each step is verified."),
    "resume": Entry("gpu_setup.commands.resume", "Resume after a reboot or an interruption."),
    "status": Entry("gpu_setup.commands.status", "Show the state of the last apply."),
    "rollback": Entry("gpu_setup.commands.rollback", "Undo what apply changed."),
    "update": Entry("gpu_setup.commands.update", "Upgrade kernel and driver in one transaction."),
    "data": Entry("gpu_setup.commands.data", "Import, check, clean and split training data.", ("data",)),
    "environment": Entry("gpu_setup.commands.environment", "Build or check the training environment."),
    "fit": Entry("gpu_setup.commands.fit", "Predict whether a training job fits on a card, part by part."),
    "smoke": Entry("gpu_setup.commands.smoke", "Verify that training works correctly.", ("charts",)),
    "bench": Entry("gpu_setup.commands.bench", "Measure how fast this machine trains.", ("charts",)),
    "report": Entry("gpu_setup.commands.report", "Show the report of a run."),
    "compare": Entry("gpu_setup.commands.compare", "Compare reports of the same work."),
    "train": Entry("gpu_setup.commands.train", "Train a recipe on your own data.", ("data", "charts")),
    "try": Entry("gpu_setup.commands.try_", "Ask the model the same questions before and after its training."),
    "merge": Entry("gpu_setup.commands.merge", "Merge a run's adapter into a plain model folder."),
    "recipe": Entry("gpu_setup.commands.recipe", "List the training recipes, or print one."),
    "schema": Entry("gpu_setup.commands.schema", "Print the JSON Schema of a --json document."),
    "completion": Entry("gpu_setup.commands.completion", "Print the completion script for your shell."),
}

EXAMPLES = """\b
Examples:
  gpu-setup up                 everything, step by step; asks before it changes anything
  gpu-setup doctor             what is wrong on this machine, worst first
  gpu-setup doctor --json      the same for a script
  gpu-setup COMMAND --help     a command's options and examples
"""


class Root(click.Group):
    """A group that knows its commands by name only: help and completion of names load none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        from importlib import import_module

        found: click.Command = import_module(entry.module).command
        if entry.extras:
            from gpu_setup.extras import install_before

            install_before(found, entry.extras)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        raise click.UsageError(f"There is no command '{name}'." + (f" Did you mean '{near[0]}'?" if near else ""), ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=COMMANDS[name].help) for name in COMMANDS if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from gpu_setup.terminal import echo
        from gpu_setup.version import version

        echo(f"gpu-setup {version()}")
        ctx.exit()


@click.group(
    cls=Root,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def root() -> None:
    """Set up this machine's GPU: from an unpacked graphics card to a measured fine-tune of a language model.

    Works on Ubuntu with NVIDIA and AMD cards; without a GPU it trains a small model on the CPU.
    """


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether one document is wanted on stdout; known before parsing, since usage errors are documents too."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options and not {"--help", "-h", "--version"} & set(options)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Raises nothing; every error is printed."""
    from gpu_setup.terminal import OutputFailed, guarded_streams, require_stdout

    with guarded_streams():
        try:
            require_stdout()
            if not wants_json(arguments):
                return _run(arguments, None)
            from gpu_setup.envelope import only_documents

            with only_documents() as document:
                return _run(arguments, document)
        except OutputFailed as problem:
            return _print_problem(problem, None)


def _run(arguments: Sequence[str], document: int | None) -> int:
    """`document` is the file descriptor that takes the one JSON document; None: speak to a person."""
    from gpu_setup.terminal import OutputFailed

    try:
        if any("\0" in word for word in arguments):
            raise click.UsageError("An argument contains a NUL character.")
        with _stop_on_signals():
            result = root.main(list(arguments), "gpu-setup", "_GPU_SETUP_COMPLETE", standalone_mode=False)
        if result is None or isinstance(result, int):
            return result or FINE
        return _print_answer(result, document)
    except OutputFailed:
        raise
    except Problem as problem:
        return _print_problem(problem, document)
    except click.UsageError as error:
        return _print_problem(_usage_problem(error), document)
    except click.ClickException as error:
        return _print_problem(Problem("command", error.format_message()), document)
    except click.Abort as stop:
        from gpu_setup.environment_repair import rebuild

        if stop.__cause__ is not None:
            # click takes every EOFError for a person who answers nothing
            rebuild(stop.__cause__, document)
        return _print_problem(_stop_problem(stop), document)
    except KeyboardInterrupt as stop:
        return _print_problem(_stop_problem(stop), document)
    except Exception as error:
        from gpu_setup.environment_repair import rebuild

        rebuild(error, document)
        return _print_problem(_unexpected_problem(error), document)


def _print_answer(answer: Answer, document: int | None) -> int:
    from gpu_setup import terminal

    if document is None:
        terminal.echo(answer.text(), nl=False)
    else:
        from gpu_setup.envelope import encode

        terminal.write_document(document, encode(answer))
    return answer.exit_code


def _print_problem(problem: Problem, document: int | None) -> int:
    from gpu_setup import terminal

    if document is None:
        from gpu_setup.render.problem import problem_text

        terminal.echo(problem_text(problem), err=True, nl=False)
        return problem.exit_code
    from gpu_setup.envelope import encode_problem

    try:
        terminal.write_document(document, encode_problem(problem))
    except terminal.OutputFailed:
        # the document is lost, not the reason
        _print_problem(problem, None)
        raise
    return problem.exit_code


class _Usage(Problem):
    exit_code = USAGE


class _Bug(Problem):
    exit_code = OUR_BUG


class _Stopped(Problem):
    exit_code = INTERRUPTED


def _usage_problem(error: click.UsageError) -> Problem:
    path = error.ctx.command_path if error.ctx else "gpu-setup"
    words = error.format_message().replace("integer range", "whole number").replace("float range", "number")
    return _Usage("usage", words, "", f"{path} --help shows the options and examples.")


def _stop_problem(stop: BaseException) -> Problem:
    if isinstance(stop, click.Abort):
        cause = stop.__cause__ or stop.__context__
        if isinstance(cause, EOFError):
            return Refused("no-answer", "A question needs an answer, and there is no terminal.", "", "Use --yes.")
        if not isinstance(cause, KeyboardInterrupt):
            return Refused("declined", "Stopped: you answered no. Nothing more was done.")
    return _Stopped(
        "interrupted", "Interrupted. What was finished is kept.", "", "Run the same command again to continue."
    )


# what a disk says when it takes no more: an outside failure wherever it happens, never a bug
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE})


def _unexpected_problem(error: Exception) -> Problem:
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return _Usage(
            "path.unusable", f"{error.filename or 'A path'} cannot be used.", f"{reason(error)}.", "Correct the path."
        )
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return OutsideFailed(
            "disk.unwritable",
            f"{error.filename or 'A file'} cannot be written.",
            f"The system says: {reason(error)}.",
            "Free some space or use another disk; then run the same command again.",
        )
    return _bug_problem(error)


def _bug_problem(error: Exception) -> Problem:
    from gpu_setup.crash_report import keep

    place = keep(error)
    why = f"{type(error).__name__}: {error}".strip()
    if place is None:
        return _Bug("bug", "gpu-setup has a bug.", why, "Please report it with the lines above.")
    return _Bug(
        "bug", "gpu-setup has a bug.", why, f"The details are in {place}: please send that file with your report."
    )


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, so that no child process outlives it."""
    import signal

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    for sign in (signal.SIGTERM, signal.SIGHUP):
        # nohup's ignored SIGHUP stays ignored
        if signal.getsignal(sign) is signal.SIG_DFL:
            before[sign] = signal.signal(sign, stop)
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
