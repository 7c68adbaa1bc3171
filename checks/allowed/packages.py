"""apt's and dpkg's sources: repositories, pins, settings, packages."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from checks.allowed.words import Reducer, if_matches, join, lists, path, word, words
from checks.facts import apt
from checks.facts.deb822 import paragraphs
from checks.facts.host import AptPreference
from machine.identities import NOBODY, REDACTED, Identities
from machine.patterns import lazy_pattern

# letters and figures mixed, longer than the name of a folder; UUIDs
_TOKEN = lazy_pattern(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_=+]{16,}|(?:[0-9a-fA-F]{4,12}-){4}[0-9a-fA-F]{12}")
_SCHEME = lazy_pattern(r"(?:mirror\+)?(?:https?|file|ftp|tor)|mirror")


def server(value: str, who: Identities) -> str:
    """The server of a public repository; a pseudonym of any other."""
    name, _, port = value.partition(":")
    public = next((one for one in lists()["apt_hosts"] if name == one or name.endswith(f".{one}")), "")
    return word(name.removesuffix(public), who) + public + (f":{port}" if port.isdecimal() else "")


def address(uri: str, who: Identities) -> str:
    """A repository's address without credentials; servers and folders that somebody named are replaced."""
    scheme, sign, rest = uri.partition("://")
    if not sign:
        kind, colon, place = uri.partition(":")
        return f"{kind}:{path(place, who)}" if colon and kind in ("file", "copy", "cdrom") else f"file:/{REDACTED}"
    place, slash, below = rest.rpartition("@")[2].partition("?")[0].partition("/")
    return f"{scheme if _SCHEME.fullmatch(scheme) else REDACTED}://{server(place, who)}{slash}{_folders(below, who)}"


def without_credentials(uri: str) -> str:
    """The address without account and password, and without the tokens that some servers take as a folder's name."""
    scheme, sign, rest = uri.partition("://")
    place, slash, below = rest.rpartition("@")[2].partition("?")[0].partition("/")
    folders = "/".join(REDACTED if _TOKEN.fullmatch(one) else one for one in below.split("/"))
    return f"{scheme}://{place}{slash}{folders}" if sign else uri


def _folders(value: str, who: Identities) -> str:
    return "/".join(one if one == "$(ARCH)" else word(one, who) for one in value.split("/"))


def list_name(name: str, who: Identities) -> str:
    """The name of a repository's list, which is its address with `_` for `/`."""
    place, *rest = name.split("_")
    return "_".join([server(place, who), *(word(one.replace("%5f", "_"), who).replace("_", "%5f") for one in rest)])


def sources_list(value: str, who: Identities) -> str:
    """The entries of enabled repositories, without comments."""
    found = []
    for line in value.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)((?:\s+[^\s#]+)*)", line)
        if match:
            options = [_source_option(one, who) for one in (match[1] or "").split()]
            bracket = f"[{' '.join(filter(None, options))}]" if any(options) else ""
            suites = [_folders(one, who) for one in match[3].split()]
            found.append(" ".join(filter(None, ("deb", bracket, address(match[2], who), *suites))))
    return join(found)


def _source_option(option: str, who: Identities) -> str:
    name, _, value = option.partition("=")
    if name.lower() == "signed-by":
        return f"signed-by={path(value, who)}"
    return f"arch={word(value, who)}" if name.lower() == "arch" else ""


def _signed_by(value: str, who: Identities) -> str:
    return "-----BEGIN PGP PUBLIC KEY BLOCK-----" if "BEGIN PGP" in value else path(value, who)


def _fields(reducers: Mapping[str, Reducer]) -> Reducer:
    """deb822 paragraphs with only these fields."""

    def reduce(value: str, who: Identities) -> str:
        return "\n".join(
            join(f"{name.title()}: {reducers[name](held, who)}" for name, held in fields.items() if name in reducers)
            for fields in paragraphs(value)
        )

    return reduce


def package(name: str, who: Identities) -> str:
    """A package of the families that matter; of any other the parts that are public words."""
    return name if apt.is_relevant(name) else word(name, who)


def _packages(value: str, who: Identities) -> str:
    return " ".join(package(one, who) for one in value.split())


def _pin(value: str, who: Identities) -> str:
    kind, _, rest = " ".join(value.split()).partition(" ")
    if kind == "release":
        return f"release {','.join(_release_part(one.strip(), who) for one in rest.split(','))}"
    if kind == "origin":
        plain = rest.strip("\"'*")
        public = any(one == plain or one.endswith(f".{plain}") for one in lists()["apt_hosts"])
        return f"origin {rest if public else word(rest, who)}"
    return f"version {word(rest, who)}" if kind == "version" else REDACTED


def _release_part(one: str, who: Identities) -> str:
    name, sign, value = one.partition("=")
    public = value in lists()["apt_origins"] or value in lists()["apt_hosts"]
    return f"{word(name, who)}{sign}{value if public else words(value, who)}"


def public_pin(found: AptPreference, who: Identities = NOBODY) -> AptPreference:
    return msgspec.structs.replace(found, packages=_packages(found.packages, who), pin=_pin(found.pin, who))


sources = _fields(
    {
        "types": if_matches(r"(?:deb|deb-src|\s)+"),
        "uris": lambda value, who: " ".join(address(one, who) for one in value.split()),
        "suites": lambda value, who: " ".join(_folders(one, who) for one in value.split()),
        "components": words,
        "enabled": if_matches(r"(?i)yes|no|true|false|0|1"),
        "architectures": words,
        "signed-by": _signed_by,
    }
)
preferences = _fields({"package": _packages, "pin": _pin, "pin-priority": if_matches(r"-?\d{1,6}|never")})


def settings(value: str, who: Identities) -> str:
    """The settings of unattended upgrades that are read."""
    found, kept = apt.parse_settings(value), []
    for name in ("APT::Periodic::Unattended-Upgrade", "Unattended-Upgrade::Automatic-Reboot"):
        setting = found.get(name.lower())
        if isinstance(setting, str):
            kept.append(f'{name} "{if_matches("[0-9a-z]{0,8}")(setting, who)}";')
    blocked = found.get("unattended-upgrade::package-blacklist")
    if isinstance(blocked, tuple):
        kept.append(
            f"Unattended-Upgrade::Package-Blacklist {{\n{join(f'  {_quoted(one, who)};' for one in blocked)}}};"
        )
    return join(kept)


def _quoted(pattern: str, who: Identities) -> str:
    plain = apt.is_relevant(pattern.lstrip("^")) and re.fullmatch(r"[\w.*^$+\\-]{1,60}", pattern)
    return f'"{pattern if plain else word(pattern, who)}"'


def dpkg_status(value: str, who: Identities) -> str:
    """The fields that are read, of the packages that are read; names of others that are unfinished are reduced."""
    reduced = apt.reduce_status(value.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    return re.sub(r"(?<=^Package: ).*$", lambda found: package(found[0], who), reduced, flags=re.MULTILINE)
