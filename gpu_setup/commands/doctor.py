"""`gpu-setup doctor`: every check, worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from checks.catalogue import Catalogue
from checks.check_list import check_list
from checks.model import Check, DoctorReport
from gpu_setup.commands.options import json_option, machine_option, open_machine, options_into
from gpu_setup.envelope import Answer
from gpu_setup.terminal import echo
from machine.errors import FINE
from machine.local import Machine

if TYPE_CHECKING:
    from checks.facts.host import Host
    from provision.model import Plan

EPILOG = """\b
Examples:
  gpu-setup doctor                        every check, worst first
  gpu-setup doctor --only driver,apt.broken
  gpu-setup doctor --explain driver.too-old
  gpu-setup doctor --json --strict        for scripts: exit status 1 also on warnings and unknown results
  gpu-setup doctor --bundle gpu.tar.gz    one file to send to whoever helps you
  gpu-setup doctor --machine gpu.tar.gz   check the machine that a bundle was made on

\b
Exit codes: 0 no check failed; 1 a check failed (--strict: or warned, or is unknown).
"""


class DoctorOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    recording: str | None
    strict: bool
    only: tuple[str, ...]
    skip: tuple[str, ...]
    list_only: bool
    explain: str | None
    bundle: str | None
    force: bool
    verbose: bool


@click.command(epilog=EPILOG)
@json_option
@machine_option
@click.option("--strict", is_flag=True, help="Count warnings and unknown results as failures.")
@click.option("--only", multiple=True, metavar="ID,GROUP", help="Run only these checks or groups.")
@click.option("--skip", multiple=True, metavar="ID,GROUP", help="Skip these checks or groups.")
@click.option("--list", "list_only", is_flag=True, help="List the checks and exit.")
@click.option("--explain", metavar="ID", help="Explain one check: what it reads, and how to check by hand.")
@click.option(
    "--bundle",
    metavar="FILE",
    type=click.Path(),
    help="Also write what the checks read, without names and secrets, into one file: a .tar.gz of less than 1 MB that "
    "only you can read. An existing FILE is refused.",
)
@click.option("--force", is_flag=True, help="Let --bundle overwrite an existing FILE.")
@click.option("-v", "--verbose", is_flag=True, help="Also show what passed, was skipped or is unknown.")
@options_into(DoctorOptions)
def command(options: DoctorOptions) -> Answer:
    """Check this machine: what is wrong, why, and how to fix it.

    Needs no root and no network, and changes nothing.
    """
    if options.explain is not None or options.list_only:
        from checks.registry import ALL

        return _list(ALL) if options.explain is None else _explain(ALL, options.explain)

    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from checks.runner import exit_code, run

    machine = seen = open_machine(options.recording)
    if options.bundle is not None:
        from machine.recorder import RecordingMachine
        from machine.whole_file import BUNDLE, check_place

        check_place(options.bundle, options.force, BUNDLE)
        seen = RecordingMachine(machine)
    _warn_as_root(machine)
    host = read_host(seen, beside=_load)
    from checks.registry import ALL

    known = catalogue()
    report = run(host, known, ALL, _words(options.only), _words(options.skip))
    kept = _write_bundle(seen, report, known, options.bundle, options.force) if options.bundle is not None else ""
    if options.as_json:
        echo(kept, err=True, nl=False)

    def text() -> str:
        from gpu_setup.render.doctor import doctor_text

        whole = len(report.results) == len(ALL)
        shown = doctor_text(report, host, known, options.verbose, whole, lambda: _plan(host, known))
        return f"{shown}\n{kept}" if kept else shown

    return Answer("doctor", report, exit_code(report, options.strict), text)


def _load() -> None:
    """Load rules and tables: milliseconds that cost nothing while the machine's programs answer."""
    from importlib import import_module

    import_module("checks.registry")
    import_module("checks.catalogue").catalogue()


def _plan(host: Host, known: Catalogue) -> Plan | None:
    """What `gpu-setup plan` would do; None where there is no card to plan for, which needs no second to import."""
    from checks.rules import cards

    if not cards.training(host, known):
        return None
    from provision.plan.planner import make_plan
    from provision.target import PlanTarget

    return make_plan(host, known, PlanTarget())


def _write_bundle(seen: Machine, report: DoctorReport, known: Catalogue, file: str, force: bool) -> str:
    from gpu_setup import bundle
    from machine.recorder import RecordingMachine

    assert isinstance(seen, RecordingMachine)
    return bundle.bundle_text(bundle.write(seen, report, known, file, force))


def _warn_as_root(machine: Machine) -> None:
    """Under sudo the doctor sees root's permissions, not the person's, and access checks pass."""
    session = machine.session()
    person = session.environ.get("SUDO_USER", "")
    if session.uid == 0 and person not in ("", "root"):
        echo(
            "gpu-setup: running as root: variables, files and permissions are root's, not yours.\n"
            f"  next: Run it without sudo to check what {person} can use.",
            err=True,
        )


def _list(checks: tuple[Check, ...]) -> Answer:
    def text() -> str:
        from gpu_setup.render.doctor import list_text

        return list_text(checks)

    return Answer("check-list", check_list(checks), FINE, text)


def _explain(checks: tuple[Check, ...], wanted: str) -> Answer:
    from checks.runner import unknown_check

    found = next((check for check in checks if check.id == wanted), None)
    if found is None:
        raise unknown_check(wanted, [check.id for check in checks])

    def text() -> str:
        from gpu_setup.render.doctor import explain_text

        return explain_text(found)

    return Answer("check-list", check_list((found,)), FINE, text)


def _words(values: tuple[str, ...]) -> tuple[str, ...]:
    """`a,b` and repeated options alike."""
    return tuple(word for value in values for word in value.replace(",", " ").split())
