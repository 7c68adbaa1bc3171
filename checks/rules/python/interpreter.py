"""What the training environment needs from the system's Python and compiler."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, cannot_determine, command, error, install, warning
from checks.rules.installed import packages


@check(
    "python.compiler",
    "A C compiler is installed (for Triton)",
    about="Triton compiles a small C file at the first kernel launch; bitsandbytes and the fused kernels use Triton. "
    "Without gcc a run fails after some minutes with `Failed to find C compiler`. Searches for cc and gcc on PATH. Not "
    "needed without a card.",
    by_hand="Run `sudo apt-get install build-essential`.",
    needs=(needs.GPU,),
)
def compiler(host: Host, catalogue: Catalogue) -> Verdict:
    if host.python.compiler:
        return Ok(f"{host.python.compiler} is installed.")
    if host.python.compiler is None and any("gcc" in gap.source or "/usr/bin" in gap.source for gap in host.unread):
        return cannot_determine(
            host, "whether a C compiler is installed", ("gcc", "/usr/bin"), "Make /usr/bin readable."
        )
    why = "Triton compiles a launcher at run time; training fails with `Failed to find C compiler`."
    if wanted := host.python.missing_compiler:
        how = "Unset CC, and any installed compiler will do; or install the one that it names."
        fix = install(how, wanted) if re.fullmatch(r"(?:gcc|clang)-[0-9]{1,2}", wanted) else by_hand(how)
        summary = f"The variable CC names {wanted}, which does not exist."
        return (error("C compiler", summary, why, [("CC", wanted)], fix),)
    return (
        error(
            "C compiler",
            "No C compiler is on PATH, although build-essential is installed."
            if _is_installed(host, "build-essential")
            else "No C compiler is installed.",
            why,
            [("PATH", "neither cc nor gcc")],
            _installing(host, "Install the compiler.", "build-essential", "gcc", verify=("cc", "--version")),
        ),
    )


@check(
    "python.headers",
    "Python.h is installed (for Triton)",
    about="The C file that Triton compiles includes Python.h of the Python used for training. On Ubuntu it is in the "
    "package python3-dev. Searches the include folder of the system's python3; a Python from uv or conda has its own "
    "Python.h.",
    by_hand="Run `sudo apt-get install python3-dev` (for another version python3.X-dev).",
    needs=(needs.GPU,),
)
def headers(host: Host, catalogue: Catalogue) -> Verdict:
    if host.python.headers is None:
        return Unknown(
            "Cannot determine whether Python.h is installed: python3 was not found, or /usr/include cannot be read."
        )
    if host.python.headers:
        return Ok("Python.h is installed.")
    return (
        error(
            f"Python {host.python.version or ''}".strip(),
            "Python.h is missing.",
            "Triton's launcher does not compile: `fatal error: Python.h: No such file or directory`.",
            [(host.python.path or "python3", "no Python.h in its include folder")],
            _installing(host, "Install Python's headers.", "python3-dev", f"libpython{_minor(host)}-dev"),
        ),
    )


@check(
    "python.version",
    "The training stack supports the system's Python",
    about="torch and Axolotl publish wheels for certain Python versions; the stacks in the catalogue list them. With "
    "another version pip builds from source or installs a CPU-only torch.",
    by_hand="Run `uv python install 3.12`, or use the training image, which includes its own Python.",
)
def version(host: Host, catalogue: Catalogue) -> Verdict:
    if host.python.version is None:
        return cannot_determine(host, "the version of python3", ("python",), "Check that python3 is on PATH.")
    ours = cards.training(host, catalogue)
    wanted = [stack for card in ours for stack in cards.stacks(card, catalogue)]
    wanted = wanted or [stack for stack in catalogue.stacks if stack.vendor == "cpu"]
    able = dict.fromkeys(python for stack in wanted for python in stack.pythons)
    short = _minor(host)
    if not able:
        return Skip("No stack lists a Python version.")
    if short in able:
        return Ok(f"Python {host.python.version}.")
    return (
        warning(
            f"Python {host.python.version}",
            f"The training stack has no wheels for Python {short}.",
            f"They are published for {', '.join(able)}.",
            [(host.python.path or "python3", host.python.version)],
            by_hand("Also install a supported Python (uv python install 3.12), or train in the image."),
        ),
    )


@check(
    "python.venv",
    "Python can create virtual environments",
    about="On Ubuntu, venv and ensurepip are in the package python3-venv; without it `python3 -m venv` fails with "
    "`ensurepip is not available`.",
    by_hand="Run `sudo apt-get install python3-venv`.",
)
def venv(host: Host, catalogue: Catalogue) -> Verdict:
    if host.python.venv is None:
        return Unknown("Cannot determine whether python3-venv is installed.")
    if host.python.venv:
        return Ok("venv works.")
    return (
        warning(
            f"Python {host.python.version or ''}".strip(),
            "Python's ensurepip is missing, although python3-venv is installed."
            if _is_installed(host, "python3-venv")
            else "python3-venv is not installed.",
            "It is needed to create the training environment if no image is used.",
            [(host.python.path or "python3", "ensurepip is missing")],
            _installing(host, "Install python3-venv.", "python3-venv", f"python{_minor(host)}-venv"),
        ),
    )


def _minor(host: Host) -> str:
    """`3.12` of the system's Python."""
    return ".".join(map(str, cards.numbers(host.python.version)[:2]))


def _is_installed(host: Host, package: str) -> bool:
    return any(row.name == package for row in packages(host, package))


def _installing(host: Host, text: str, package: str, files: str, verify: tuple[str, ...] = ()) -> Fix:
    """Install the package, or where dpkg has it already, the one that its missing files belong to again."""
    if not _is_installed(host, package):
        return install(text, package, verify=verify)
    return command(
        f"{package} is installed, but its files are missing: install them again.",
        *("apt-get", "install", "--reinstall", files),
        sudo=True,
        verify=verify,
    )
