"""HSA_OVERRIDE_GFX_VERSION: needed by some cards, harmful on others, without effect where it has the wrong form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard, TrainingEnvironment
from checks.model import Finding, Fix, Ok, Severity, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, by_hand, error, info, warning
from checks.rules.python.torch_install import has_wheels
from checks.rules.python.torch_kernels import kernels_for
from checks.rules.session import hidden_by_sudo
from checks.rules.targets import OVERRIDE, gfx_of, node_of, override_of, target_of

_WHERE = "~/.bashrc, ~/.profile, /etc/environment and ~/.config/environment.d"
_BY_SEVERITY = {Severity.ERROR: error, Severity.WARNING: warning, Severity.INFO: info}


class Problem(NamedTuple):
    """What is wrong with a value: `what` continues "VARIABLE=VALUE …"."""

    severity: Severity
    what: str
    why: str
    fix: Fix


@check(
    "rocm.override",
    "HSA_OVERRIDE_GFX_VERSION is right for the card",
    about="The variable makes ROCm run the kernels of another architecture on the card. Cards that PyTorch's wheels "
    "have no kernels for need it (RX 6700 XT, gfx1031: 10.3.0); on others it causes crashes, hangs and wrong results. "
    "The value has three numbers, `10.3.0`: with a name or an empty value ROCm finds no GPU at all. "
    "HSA_OVERRIDE_GFX_VERSION_N is for one node of KFD; node 0 is usually the CPU. Read from this session's "
    "environment; runtime.start-files reads the files that set it.",
    by_hand="Where it does harm, remove it from ~/.bashrc, ~/.profile, /etc/environment and unit files, and `unset "
    "HSA_OVERRIDE_GFX_VERSION` in open shells. Where it is needed, run `export HSA_OVERRIDE_GFX_VERSION=10.3.0` "
    "(gfx1031 to gfx1036) or `11.0.0` (gfx1101 to gfx1103) before starting the program.",
    needs=(needs.AMD_CARD,),
)
def override(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    findings: list[Finding] = []
    names = [name for name in host.person.environ if is_override(name)]
    for name in names:
        value = host.person.environ[name]
        problem = problem_of(name, value, host, catalogue)
        if problem is not None:
            findings.append(
                _BY_SEVERITY[problem.severity](
                    "environment",
                    f"{name}={value!r} {problem.what}" if not value else f"{name}={value} {problem.what}",
                    problem.why,
                    [("environment", f"{name}={value}"), *_set_by(name, host), *_seen(ours, host, catalogue)],
                    problem.fix,
                )
            )
    if not findings:
        findings = [found for card in ours if (found := _missing(card, host, catalogue)) is not None]
    if findings:
        return tuple(findings)
    if not names:
        return hidden_by_sudo(host, "The environment") or Ok("It is not set.")
    targets = [target_of(card, catalogue) for card in ours]
    if None in targets:
        return Unknown("Cannot determine the architecture of the card, so that the value cannot be judged.")
    if not all(any(_reaches(name, card, host) for card in ours) for name in names):
        return Unknown(f"Cannot determine for which card {', '.join(names)} is: /sys/class/kfd was not read.")
    listed = ", ".join(f"{name}={host.person.environ[name]}" for name in names)
    return Ok(f"{listed}: {', '.join(map(str, targets))} needs it, which AMD does not officially support.")


def is_override(name: str) -> bool:
    return name == OVERRIDE or (name.startswith(f"{OVERRIDE}_") and name.removeprefix(f"{OVERRIDE}_").isdecimal())


def problem_of(name: str, value: str, host: Host, catalogue: Catalogue) -> Problem | None:
    """What is wrong with this variable for the cards that it is for; None: nothing, or it is not known."""
    ours = cards.training(host, catalogue, cards.AMD)
    reached = [card for card in ours if _reaches(name, card, host)]
    if not reached and ours and host.amd.nodes:
        nodes = ", ".join(str(node.index) for card in ours if (node := node_of(card, host)))
        return Problem(
            Severity.WARNING if any(_needed(card, host, catalogue) for card in ours) else Severity.INFO,
            f"has no effect: the number is that of a KFD node, and the card is node {nodes}.",
            "Nodes are counted with the CPUs, so that node 0 is usually no GPU.",
            by_hand(f"Rename it to {OVERRIDE}_{nodes.partition(',')[0]}, or remove it."),
        )
    right = _right(reached, host, catalogue)
    gfx = gfx_of(value)
    if gfx is None:
        return Problem(
            Severity.ERROR,
            "is no version of the form 10.3.0.",
            "ROCm refuses the value: rocminfo fails, and PyTorch finds no GPU.",
            right,
        )
    for card in reached:
        problem = _for_card(gfx, card, host, catalogue, right)
        if problem is not None:
            return problem
    return None


def _for_card(gfx: str, card: PciCard, host: Host, catalogue: Catalogue, right: Fix) -> Problem | None:
    own = target_of(card, catalogue)
    row = catalogue.override(own) if own else None
    if own is None:
        return None
    if row is not None and gfx == row.runs_as:
        return _needless(own, row.runs_as, host, catalogue, right)
    if gfx == own:
        needed = _needed(card, host, catalogue)
        return Problem(
            Severity.WARNING if needed else Severity.INFO,
            f"{'does not help' if needed else 'is not needed'}: that is the architecture of the card itself.",
            f"It has no effect: this PyTorch has no kernels for {own}, but runs on the card with {needed}."
            if needed
            else "It has no effect now, but causes errors with another card.",
            right,
        )
    return Problem(
        Severity.WARNING,
        f"is for another architecture: the card is {own}.",
        "ROCm then runs code for another architecture on it: crashes, hangs or wrong results."
        if row is not None
        else "The wheels have kernels for this card; with the override ROCm uses those of another architecture.",
        right,
    )


def _right(reached: list[PciCard], host: Host, catalogue: Catalogue) -> Fix:
    """What the variable should be for these cards."""
    wanted = {card.slot: value for card in reached if (value := _useful(card, host, catalogue))}
    if wanted and not any(_needed(card, host, catalogue) for card in reached):
        values = " or ".join(dict.fromkeys(wanted.values()))
        return by_hand(
            f"Remove it from {_WHERE}; with a PyTorch without kernels for the card, set it to {values} instead."
        )
    if not wanted:
        return by_hand(f"Remove it from {_WHERE}, and unset it in this shell.")
    if len(wanted) == len(reached) and len(set(wanted.values())) == 1:
        return by_hand(f"Set it to {next(iter(wanted.values()))}.")
    nodes = {card.slot: node.index for card in reached if (node := node_of(card, host))}
    alone = " and ".join(f"{OVERRIDE}_{nodes.get(slot, 'N')}={value}" for slot, value in wanted.items())
    return by_hand(f"Remove it, and set {alone}, each for one card (ROCm 6.2 or newer).")


def _needless(own: str, runs_as: str, host: Host, catalogue: Catalogue, right: Fix) -> Problem | None:
    """The active environment's PyTorch has kernels for the card itself, and perhaps only those."""
    for env in _environments(host):
        if kernels_for(env, own, host.os.arch, catalogue).has:
            only = kernels_for(env, runs_as, host.os.arch, catalogue).has is False
            return Problem(
                Severity.WARNING if only else Severity.INFO,
                f"is not needed: PyTorch {env.torch} has kernels for {own} itself{f', and none for {runs_as}' * only}.",
                f"ROCm looks for those of {runs_as}.",
                right,
            )
    return None


def _environments(host: Host) -> list[TrainingEnvironment]:
    """The active one with a ROCm build: gpu-setup's own training leaves the variable out of its processes."""
    return [env for env in host.python.environments or () if env.owner == "active" and env.torch_hip]


def _reaches(name: str, card: PciCard, host: Host) -> bool:
    """Whether this variable is the one that counts for the card (without a number: unless its own is set)."""
    if name == OVERRIDE:
        return True
    node = node_of(card, host)
    return node is not None and name == f"{OVERRIDE}_{node.index}"


def _needed(card: PciCard, host: Host, catalogue: Catalogue) -> str | None:
    """The value without which the active environment's PyTorch, or any that is installed here, does not run on it."""
    own = target_of(card, catalogue)
    row = catalogue.override(own) if own else None
    if own is None or row is None:
        return None
    return row.value if _dependent(own, row.runs_as, host, catalogue) else None


def _dependent(own: str, runs_as: str, host: Host, catalogue: Catalogue) -> list[TrainingEnvironment]:
    """Environments whose PyTorch has no kernels for the card, but perhaps for the one that it can run as."""
    lacking = [env for env in _environments(host) if kernels_for(env, own, host.os.arch, catalogue).has is False]
    return [env for env in lacking if kernels_for(env, runs_as, host.os.arch, catalogue).has is not False]


def _useful(card: PciCard, host: Host, catalogue: Catalogue) -> str | None:
    """The value for this card where no active environment's PyTorch has kernels for the card itself."""
    own = target_of(card, catalogue)
    row = catalogue.override(own) if own else None
    if own is None or row is None:
        return None
    native = any(kernels_for(env, own, host.os.arch, catalogue).has for env in _environments(host))
    return None if native else row.value


def _missing(card: PciCard, host: Host, catalogue: Catalogue) -> Finding | None:
    own = target_of(card, catalogue)
    row = catalogue.override(own) if own else None
    if own is None or row is None or override_of(card, host) is not None or hidden_by_sudo(host, "The environment"):
        return None
    if has_wheels(own, catalogue):
        # a newer PyTorch is the better way: python.torch-arch
        return None
    env = next(iter(_dependent(own, row.runs_as, host, catalogue)), None)
    if env is None:
        return None
    return warning(
        cards.subject(card, catalogue),
        f"The card ({own}) needs {OVERRIDE}={row.value}, which is not set.",
        f"PyTorch {env.torch} has no kernels for {own}; with the variable the card runs those of {row.runs_as}, which "
        "AMD does not officially support. Without it: `hipErrorNoBinaryForGpu`, `invalid device function`.",
        [("environment", f"no {OVERRIDE}"), (f"{env.path}: PyTorch", env.torch), *_seen([card], host, catalogue)],
        by_hand(f"Add `export {OVERRIDE}={row.value}` to ~/.profile and log in again; in this shell, run it now."),
    )


def _set_by(name: str, host: Host) -> list[Seen]:
    """The files that set this variable at each login."""
    return [
        (file, f"{set_there}={value}") for file, set_there, value in host.person.start_files or () if set_there == name
    ]


def _seen(ours: Iterable[PciCard], host: Host, catalogue: Catalogue) -> list[Seen]:
    return [(cards.subject(card, catalogue), target_of(card, catalogue) or "?") for card in ours]
