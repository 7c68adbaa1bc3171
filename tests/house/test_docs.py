"""The documents keep up with the code: links, commands and options, check ids, and output that is shown as real."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import click
import pytest

from checks.registry import ALL
from gpu_setup.cli import root, run
from gpu_setup.schema import DOCUMENTS
from harness.recipe.loader import recipe_names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
# written from the rules: to change it, change checks/rules
GENERATED = "reference/checks.md"
ROOMS = ("gpu_setup", "harness", "containers", "provision", "checks", "machine", "tests", "benchmarks")
OWN = tuple(name for name in PAGES if name != GENERATED)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
CALL = re.compile(r"(?<![\w./-])(?:\./)?gpu-setup +([a-z-][^\n]*)")
GROUPS = "|".join(sorted({check.group for check in ALL}))
ID = re.compile(rf"(?<![\w./-])(?:{GROUPS})\.[a-z][a-z-]+(?![\w./-])")
CONSOLE = [(name, body) for name in OWN for kind, body in FENCE.findall(PAGES[name]) if kind == "console"]


def code(text: str) -> list[str]:
    """Every `span` and fenced block of a page; of what the tool printed only the command."""
    blocks = [body.split("\n", 1)[0] if kind in ("console", "text") else body for kind, body in FENCE.findall(text)]
    return blocks + SPAN.findall(FENCE.sub("", text))


def calls(text: str) -> list[tuple[str, ...]]:
    """The arguments of each gpu-setup call in the page's code, up to a pipe, a redirection or a comment."""
    return [tuple(words(found)) for piece in code(text) for found in CALL.findall(piece)]


def words(line: str) -> Iterator[str]:
    parts = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    parts.whitespace_split = True
    for part in parts:
        if part[0] in "|&;<>()":
            return
        yield part


def parse(arguments: tuple[str, ...], command: click.Command = root, parent: click.Context | None = None) -> None:
    """Parse one command line as gpu-setup would, and run nothing; raises click.UsageError for what does not exist."""
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        context = click.Context(command, parent, command.name or "gpu-setup")
        _, found, rest = command.resolve_command(context, list(arguments))
        assert found is not None
        parse(tuple(rest), found, context)
        return
    with suppress(click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):  # --help and --version end here
        command.make_context(command.name or "gpu-setup", list(arguments), parent)


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = FENCE.sub("", PAGES[name])
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (DOCS / name).parent / path if path else DOCS / name
        assert file.exists(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in map(slug, headings), f"{name}: {target}"


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w/-]+\.md)", PAGES["index.md"]))
    assert linked == set(PAGES) - {"index.md"}
    assert GENERATED in linked


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_options_exist(name: str) -> None:
    for arguments in calls(PAGES[name]):
        try:
            parse(arguments)
        except click.UsageError as error:
            pytest.fail(f"{name}: gpu-setup {' '.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("name", OWN)
def test_check_ids_exist(name: str) -> None:
    known = {check.id for check in ALL}
    assert {found for piece in code(PAGES[name]) for found in ID.findall(piece)} <= known


@pytest.mark.parametrize("name", OWN)
def test_recipes_documents_and_groups_exist(name: str) -> None:
    groups = {check.group for check in ALL} | {check.id for check in ALL}
    for arguments in calls(PAGES[name]):
        for option, value in pairwise(arguments):
            if option in ("--recipe", "recipe") and "/" not in value and value.islower() and value[0] != "-":
                assert value in recipe_names(), arguments
            if option == "schema":
                assert value in DOCUMENTS, arguments
            if option in ("--only", "--skip", "--explain") and value.islower():
                assert set(value.split(",")) <= groups, arguments
            if option == "--machine" and value.islower():
                assert (ROOT / value).is_file(), arguments


@pytest.mark.parametrize(("name", "block"), CONSOLE, ids=[block.split("\n", 1)[0][2:] for _, block in CONSOLE])
def test_shown_output_is_what_the_tool_says(
    name: str, block: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `console` block is a command and its output; `…` alone stands for lines left out."""
    command, _, shown = block.partition("\n")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("NO_COLOR", "1")
    run(command.removeprefix("$ ./gpu-setup ").split())
    said = capsys.readouterr()
    rest = f"\n{said.out}{said.err}"
    for piece in re.split(r"^…\n", shown, flags=re.MULTILINE):
        _, found, after = rest.partition(f"\n{piece}")
        assert found, f"{name}: {command}\n{piece}"
        rest = f"\n{after}"


def test_modules_and_tests_that_a_page_names_exist() -> None:
    modules = {place.name for room in ROOMS for place in (ROOT / room).rglob("*.py")}
    tests = {
        name for place in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", place.read_text())
    }
    spans = {(name, span) for name in OWN for span in SPAN.findall(FENCE.sub("", PAGES[name]))}
    wrong = [
        f"{name}: {word}"
        for name, span in sorted(spans)
        for word in re.findall(r"(?<![\w./-])(?:\w+\.py|test_\w+)(?![\w*])", span)
        if word not in modules and word not in tests
    ]
    assert not wrong, "\n".join(wrong)


def test_calls_are_found_in_blocks_and_in_lines() -> None:
    block = "```sh\nGPU_SETUP_HOME=/big ./gpu-setup up --yes  # all\n./gpu-setup doctor --json | cat\n```\n"
    page = f"`gpu-setup plan`\n\n{block}"
    assert calls(page) == [("up", "--yes"), ("doctor", "--json"), ("plan",)]


@pytest.mark.parametrize(
    "line",
    ["gpu-setup aply", "gpu-setup plan --sources nvidia", "gpu-setup plan --source debian", "gpu-setup facts recod D"],
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    (arguments,) = calls(f"`{line}`")
    with pytest.raises(click.UsageError):
        parse(arguments)
