"""Sources about people: accounts, variables, what a login sets, which programs use a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checks.allowed.engine import context
from checks.allowed.words import join, lists, path, path_list, phrases, word, words
from checks.facts import login_environment, login_screen
from checks.facts.os import parse_os_release
from machine import scrub
from machine.identities import REDACTED, Identities
from machine.patterns import lazy_pattern

_ALIAS = lazy_pattern(r"user\d*|account\d*")
_SHELL = lazy_pattern(r"(?:/usr)?/s?bin/(?:bash|dash|false|fish|nologin|sh|sync|zsh)")
_CARDS = lazy_pattern(r"[0-9,\s-]*|(?:(?:GPU|MIG)-[\w/-]+,?)*|all|none|void|NoDevFiles")
_LOCALE = lazy_pattern(r"(?:[a-z]{2,3}_[A-Z]{2}|C|POSIX)(?:\.(?:UTF-8|utf8|ISO-8859-\d+))?")
_PRODUCT = lazy_pattern(
    r"[\d.]+|(?:Ubuntu|Debian|Linux Mint|Fedora|Pop!_OS|Arch|Rocky|Red Hat|AlmaLinux|openSUSE|Zorin)"
    r"(?: [\d.]+)?(?: LTS)?(?: GNU/Linux| Linux)?(?: [\d.]+)?(?: LTS)?(?: \([A-Za-z ]{3,24}\))?"
    r"|[\d.]+ (?:LTS )?\([A-Za-z ]{3,24}\)"
)
_OS_KEYS = ("ID", "ID_LIKE", "NAME", "PRETTY_NAME", "VERSION", "VERSION_ID", "VERSION_CODENAME", "UBUNTU_CODENAME")
_GPU_TEXTS = frozenset(("slot", "device", "name", "uuid", "problem", "compute_mode", "compute_capability", "time"))
_LIBRARY_KEYS = ("vendor", "problem", "stub", "driver", "cuda", "time", "synthetic")


def accounts(value: str, who: Identities) -> str:
    """passwd and group: accounts that every system has, people under their pseudonyms, all others by number."""
    found = []
    for line in value.splitlines():
        fields = line.split(":")
        if len(fields) == 7:
            name = _account(fields[0], fields[2], who)
            home = "/root" if name == "root" else f"/home/{name}" if _ALIAS.fullmatch(name) else "/nonexistent"
            shell = fields[6] if _SHELL.fullmatch(fields[6]) else "/bin/sh"
            found.append(":".join((name, "x", fields[2], fields[3], "", home, shell)))
        elif len(fields) == 4:
            members = [_account(one, "", who) for one in filter(None, fields[3].split(","))]
            found.append(":".join((_account(fields[0], fields[2], who), "x", fields[2], ",".join(members))))
    return join(found)


def _account(name: str, number: str, who: Identities) -> str:
    alias = scrub.aliases(who).get(name, name)
    return alias if alias in lists()["accounts"] or _ALIAS.fullmatch(alias) else f"account{number}"


def variable(name: str, value: str, who: Identities) -> str:
    """A variable's value by what it means; recorder.VARIABLES says which variables are kept at all."""
    if name in ("USER", "SUDO_USER"):
        return _account(value, "", who) if value else ""
    if name == "SSH_CONNECTION":
        return REDACTED
    if name == "DOCKER_HOST":
        return value and f"unix://{path(value[7:], who)}" if value.startswith("unix://") else f"tcp://{REDACTED}"
    if name == "DOCKER_CONTEXT":
        return context(value, who)
    if "/" in value:
        return path_list(value, who)
    if value.lower() in ("1", "0", "on", "off", "yes", "no", "true", "false"):
        return value
    if name.endswith(("_DEVICES", "_ORDINAL")):
        return value if _CARDS.fullmatch(value) else REDACTED
    return value if name == "LANG" and _LOCALE.fullmatch(value) else word(value, who)


def start_file(value: str, who: Identities) -> str:
    """The lines of a shell's or unit's file that set one of the variables that are read."""
    return join(
        f"{setting}={variable(setting, held, who)}" for setting, held in login_environment.parse_start_file(value)
    )


def login_sleep(value: str, who: Identities) -> str:
    """The two settings of GDM's greeter, in the form of the file that has them."""
    schema, power = login_screen.parse_schema(value), login_screen.parse_power(value)
    if schema:
        rows = (
            f'<key name="sleep-inactive-ac-{key}" type="s"><default>{held}</default>' for key, held in schema.items()
        )
        return join(rows)
    head = ["[org/gnome/settings-daemon/plugins/power]"] if power else []
    return join([*head, *(f"sleep-inactive-ac-{key}={held}" for key, held in power.items())])


def os_release(value: str, who: Identities) -> str:
    found = {key: held for key, held in parse_os_release(value).items() if key in _OS_KEYS}
    return join(f'{key}="{held if _PRODUCT.fullmatch(held) else words(held, who)}"' for key, held in found.items())


def document(found: Mapping[str, Any], who: Identities) -> dict[str, Any]:
    """A vendor library's document: the values that are read, and of programs what is public in their paths."""
    kept = {key: found[key] for key in _LIBRARY_KEYS if key in found}
    if "detail" in found:
        kept["detail"] = phrases(str(found["detail"] or "")).strip()
    if isinstance(found.get("library"), str):
        kept["library"] = path(found["library"], who)
    gpus = found.get("gpus")
    kept["gpus"] = [_gpu(gpu, who) for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    return kept


def _gpu(found: Mapping[str, Any], who: Identities) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in found.items():
        if key == "processes" and isinstance(value, list):
            kept[key] = [[row[0], path(str(row[1]), who)] for row in value if isinstance(row, list) and len(row) == 2]
        elif value is None or isinstance(value, (bool, int, float)) or key in _GPU_TEXTS:
            kept[key] = value
    return kept
