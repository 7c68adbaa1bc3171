"""The container engine's sources: `docker info`, daemon.json, CDI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from checks.allowed.words import join, lists, path, phrases, word
from checks.facts import docker, nvidia
from machine.identities import REDACTED, Identities
from machine.patterns import lazy_pattern

_VERSION = lazy_pattern(r"[0-9][\w.+~-]{0,40}")
_SECURITY = lazy_pattern(r"name=[a-z-]{1,20}(?=,|$)")
# of a daemon.json that does not parse: what its reader must still see
_WORDS_OF_JSON = ("true", "false", "null", "runtimes", "nvidia", "path", "args", "runtimeArgs")


def info(value: str, who: Identities) -> str:
    found = docker.parse_info(value)
    if found is None:
        # the beginning of an answer that was cut off, or no answer
        return f"{{{REDACTED}\n" if re.search(r"^\{", value, re.MULTILINE) else f"{REDACTED}\n"
    client = found.client
    kept: dict[str, Any] = {
        "ServerVersion": _version(found.server_version),
        "OperatingSystem": found.operating_system if found.operating_system == "Docker Desktop" else None,
        "Runtimes": None if found.runtimes is None else {runtime(name, who): {} for name in found.runtimes},
        "CDISpecDirs": _each(path, found.cdi_dirs, who),
        "SecurityOptions": _each(_security, found.security, who),
        "CgroupDriver": found.cgroup_driver if found.cgroup_driver in ("systemd", "cgroupfs", "none") else None,
        "DockerRootDir": None if found.root_dir is None else path(found.root_dir, who),
        "ServerErrors": _each(phrases, found.server_errors, who),
    }
    if client is not None:
        kept["ClientInfo"] = {"Version": _version(client.version), "Context": context(client.context or "", who)}
    return _json(kept) + "\n"


def _json(kept: dict[str, Any], indent: int | None = None) -> str:
    # only a recording needs it: 1 ms of each start
    import json

    return json.dumps(kept, indent=indent)


def _each(reducer: Any, found: Iterable[str] | None, who: Identities) -> list[str] | None:
    return None if found is None else [reducer(one, who) for one in found]


def _version(value: str | None) -> str | None:
    return value if value is not None and _VERSION.fullmatch(value) else None


def _security(value: str, who: Identities) -> str:
    found = _SECURITY.match(value)
    return found[0] if found else REDACTED


def context(value: str, who: Identities) -> str:
    return value if value in ("", "default", "desktop-linux", "rootless") else word(value, who)


def runtime(name: str, who: Identities) -> str:
    return name if name in lists()["engine_runtimes"] else word(name, who)


def daemon_json(value: str, who: Identities) -> str:
    """The settings that matter; of a file that does not parse only its form, at the same places."""
    import json

    try:
        found = json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        return re.sub(r'"[^"\n]*"?|[^\s{}\[\]:,"]+', lambda match: _blank(match[0]), value)
    if isinstance(found, dict):
        return _json({_key(key, who): _setting(key, held, who) for key, held in found.items()}, indent=1)
    return value if found is None else f'["{REDACTED}"]\n'


def _blank(piece: str) -> str:
    return piece if piece.strip('"') in _WORDS_OF_JSON else re.sub(r'[^"]', "x", piece)


def _key(key: str, who: Identities) -> str:
    known = ("runtimes", "features", "exec-opts", "data-root", "log-opts", *lists()["engine_switches"])
    return key if key in known or key in lists()["engine_words"] else word(key, who)


def _setting(key: str, value: object, who: Identities) -> object:
    switches = lists()["engine_switches"]
    if key == "runtimes" and isinstance(value, dict):
        return {runtime(name, who): _program(row, who) for name, row in value.items()}
    if key == "features" and isinstance(value, dict):
        return {name: on for name, on in value.items() if name in switches and isinstance(on, bool)}
    if key == "exec-opts" and isinstance(value, list):
        return [one for one in value if isinstance(one, str) and re.fullmatch(r"native\.cgroupdriver=\w+", one)]
    if key == "data-root" and isinstance(value, str):
        return path(value, who)
    if key in switches and isinstance(value, int):
        return value
    return runtime(value, who) if key in lists()["engine_words"] and isinstance(value, str) else REDACTED


def _program(row: object, who: Identities) -> dict[str, str]:
    return {"path": path(row["path"], who)} if isinstance(row, dict) and isinstance(row.get("path"), str) else {}


def cdi(value: str, who: Identities) -> str:
    """CDI's version, the kind, the driver's version and the cards' device files, in the file's own format."""
    (kind, version), schema, nodes = (
        nvidia.parse_cdi(value),
        nvidia.parse_cdi_schema(value),
        nvidia.parse_cdi_nodes(value),
    )
    kept: dict[str, Any] = {"cdiVersion": schema} if schema else {}
    kept |= {"kind": kind if kind and kind.startswith(("nvidia.com/", "amd.com/")) else REDACTED}
    if version:
        kept["library"] = f"libcuda.so.{version}"
    if value.lstrip().startswith("{"):
        return _json(kept | {"deviceNodes": [{"path": node} for node in nodes]}) + "\n"
    return join((*(f"{name}: {found}" for name, found in kept.items()), *(f"- path: {node}" for node in nodes)))
