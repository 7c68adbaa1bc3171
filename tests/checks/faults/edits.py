"""What each key of the tables changes on a machine: `apply(overlay, host, edits)`.

log: kernel messages · write, append: {path = text} · replace: {path = [old, new]} · remove: [paths] · link: {path =
target} · node: {path = stat fields} · show: {folder = [names]} · space: {path = fields} · environ, gids · gpu: fields
of every GPU in NVML's answer · nvml, amdsmi: fields of the whole answer · silent: NVML answers with this problem only ·
package: [{name, version, status}] · without: [package names' beginnings] · docker: fields of `docker info` ·
docker_fails: its stderr · command: [{argv, stdout, stderr, rc}] · unload: the driver's module is not there.

Words in braces stand for the machine's own: {slot} {place} {card} {vendor} {device} {version} {other} {branch} {above}
{release} {home} {hwmon} {drm} {render} {port}.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from checks.facts.docker import INFO
from checks.facts.host import Host
from tests.checks.faults.overlay import Overlay

STATUS = "/var/lib/dpkg/status"
# another release of the same branch
_OTHER = {"580": "580.126.09", "595": "595.45.04", "610": "610.57.04"}


def apply(machine: Overlay, host: Host, edits: dict[str, Any]) -> None:
    words = placeholders(machine, host)
    edits = _filled(edits, words)
    for name, value in edits.items():
        _EDITS[name](machine, value, words)


def placeholders(machine: Overlay, host: Host) -> dict[str, str]:
    # a card of WSL's is on no bus
    on_bus = [card for card in host.cards or () if machine.access(f"/sys/bus/pci/devices/{card.slot}", os.F_OK)]
    ours = [card for card in on_bus if card.vendor in ("10de", "1002")]
    if not ours:
        return {"release": host.kernel.release or "", "home": machine.session().environ.get("HOME", "")}
    card = next((card for card in ours if card.driver in ("nvidia", "amdgpu")), ours[0])
    at = f"/sys/bus/pci/devices/{card.slot}"
    branch = (host.nvidia.module_version or "").partition(".")[0]
    node = next((name for name in _names(machine, "/sys/class/drm") if re.fullmatch(r"card\d+", name)
                 and machine.link(f"/sys/class/drm/{name}/device").endswith(card.slot)), "card1")  # fmt: skip
    hwmon = next(iter(_names(machine, f"{at}/hwmon")), "")
    return {
        "slot": card.slot,
        "place": card.slot.rpartition(".")[0],
        "card": at,
        "vendor": card.vendor,
        "device": card.device,
        "version": host.nvidia.module_version or "",
        "other": _OTHER.get(branch, ""),
        "branch": branch,
        "release": host.kernel.release or "",
        "home": machine.session().environ.get("HOME", ""),
        "hwmon": f"{at}/hwmon/{hwmon}",
        "drm": node,
        "render": f"renderD{127 + int(node[4:])}",
        "port": _port(machine, at),
        "above": next((port.slot for port in card.bridges or ()), "0000:00:01.0"),
    }


def _port(machine: Overlay, card: str) -> str:
    """The root port above the card."""
    way = [step for step in machine.link(card).split("/") if re.fullmatch(r"[0-9a-f:.]{12}", step)]
    return f"/sys/bus/pci/devices/{way[0]}"


def _names(machine: Overlay, folder: str) -> tuple[str, ...]:
    """None where there is no such folder: no driver has the card."""
    return machine.list(folder) if machine.access(folder, os.F_OK) else ()


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_filled(key, words): _filled(inner, words) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, words) for inner in value]
    if isinstance(value, str):
        return re.sub(r"\{([a-z]+)\}", lambda match: words.get(match[1], match[0]), value)
    return value


def _log(machine: Overlay, lines: list[str], _: dict[str, str]) -> None:
    machine.log(lines)


def _write(machine: Overlay, files: dict[str, str], _: dict[str, str]) -> None:
    for path, content in files.items():
        machine.write(path, content)


def _append(machine: Overlay, files: dict[str, str], _: dict[str, str]) -> None:
    for path, content in files.items():
        machine.write(path, machine.text(path) + content)


def _replace(machine: Overlay, files: dict[str, list[str]], _: dict[str, str]) -> None:
    for path, (old, new) in files.items():
        content, count = re.subn(old, new, machine.text(path), flags=re.MULTILINE)
        assert count, f"{machine.name}: {old!r} is not in {path}"
        machine.write(path, content)


def _remove(machine: Overlay, paths: list[str], _: dict[str, str]) -> None:
    for path in paths:
        machine.remove(path)


def _link(machine: Overlay, links: dict[str, str], _: dict[str, str]) -> None:
    for path, target in links.items():
        machine.put_link(path, target)


def _node(machine: Overlay, nodes: dict[str, dict[str, Any]], _: dict[str, str]) -> None:
    for path, fields in nodes.items():
        machine.put_node(path, **fields)


def _show(machine: Overlay, folders: dict[str, list[str]], _: dict[str, str]) -> None:
    for folder, names in folders.items():
        machine.show(folder, *names)


def _space(machine: Overlay, spaces: dict[str, dict[str, Any]], _: dict[str, str]) -> None:
    for path, fields in spaces.items():
        options = {"options": tuple(fields["options"])} if "options" in fields else {}
        machine.put_space(path, **{**fields, **options})


def _environ(machine: Overlay, variables: dict[str, str], _: dict[str, str]) -> None:
    machine.environ(**variables)


def _gids(machine: Overlay, gids: list[int], _: dict[str, str]) -> None:
    machine.groups(*gids)


def _gpu(machine: Overlay, fields: dict[str, Any], _: dict[str, str]) -> None:
    found = json.loads(machine.binding("nvidia").stdout)["gpus"]
    # "70%" is a share of the card's own default, or of its memory
    shares = {key: int(value[:-1]) for key, value in fields.items() if str(value).endswith("%")}
    plain = {key: value for key, value in fields.items() if key not in shares}
    full = {"power_limit": "power_default", "memory_used": "memory_total"}
    for gpu in found:
        gpu.update(plain, **{key: gpu[full[key]] * share // 100 for key, share in shares.items()})
    machine.answer("nvidia", gpus=found)


def _whole(vendor: str) -> Any:
    def change(machine: Overlay, fields: dict[str, Any], _: dict[str, str]) -> None:
        machine.answer(vendor, **fields)

    return change


def _silent(machine: Overlay, problem: dict[str, str], _: dict[str, str]) -> None:
    machine.answer("nvidia", **{"driver": None, "cuda": None, "gpus": [], **problem})


def _package(machine: Overlay, rows: list[dict[str, str]], _: dict[str, str]) -> None:
    stanzas = "".join(
        f"\nPackage: {row['name']}\nStatus: {row.get('status', 'install ok installed')}\nArchitecture: amd64\n"
        f"Version: {row['version']}\n"
        for row in rows
    )
    names = tuple(f"Package: {row['name']}\n" for row in rows)
    kept = [stanza for stanza in machine.text(STATUS).split("\n\n") if not stanza.startswith(names)]
    # an empty line too many is damage
    machine.write(STATUS, "\n\n".join(kept).rstrip("\n") + "\n" + stanzas)


def _without(machine: Overlay, beginnings: list[str], _: dict[str, str]) -> None:
    starts = tuple(f"Package: {name}" for name in beginnings)
    stanzas = machine.text(STATUS).split("\n\n")
    kept = [stanza for stanza in stanzas if not stanza.startswith(starts)]
    assert len(kept) < len(stanzas), f"{machine.name} has no {beginnings}"
    machine.write(STATUS, "\n\n".join(kept))


def _docker(machine: Overlay, fields: dict[str, Any], _: dict[str, str]) -> None:
    machine.say(INFO, json.dumps({**json.loads(machine.run(INFO).stdout), **fields}) + "\n")


def _docker_fails(machine: Overlay, stderr: str, _: dict[str, str]) -> None:
    machine.say(INFO, '{"ID":"","ServerErrors":["' + stderr.strip() + '"]}\n', stderr, rc=1)


def _command(machine: Overlay, rows: list[dict[str, Any]], _: dict[str, str]) -> None:
    for row in rows:
        machine.say(row["argv"], row.get("stdout", ""), row.get("stderr", ""), row.get("rc", 0))


def _unload(machine: Overlay, driver: str, words: dict[str, str]) -> None:
    """The module is not in the kernel: no driver on the card, no nodes, and nothing that answers."""
    _replace(machine, {"/proc/modules": [rf"^{driver}\b.*\n", ""]}, words)
    machine.write("/proc/modules", re.sub(rf"^{driver}_.*\n", "", machine.text("/proc/modules"), flags=re.MULTILINE))
    gone = [f"/sys/module/{driver}", f"{words['card']}/driver", f"/sys/class/drm/{words['drm']}"]
    gone += [f"/sys/class/drm/{words['render']}", f"/dev/dri/{words['drm']}", f"/dev/dri/{words['render']}"]
    if driver == "nvidia":
        gone += ["/proc/driver/nvidia"]
        gone += [f"/dev/{name}" for name in machine.list("/dev") if name.startswith("nvidia")]
        _silent(machine, {"problem": "not-loaded", "detail": "9: Driver Not Loaded"}, words)
    else:
        gone += ["/dev/kfd", "/sys/class/kfd", "/sys/module/amdgpu"]
    for path in gone:
        machine.remove(path)


_EDITS: dict[str, Any] = {
    "log": _log,
    "write": _write,
    "append": _append,
    "replace": _replace,
    "remove": _remove,
    "link": _link,
    "node": _node,
    "show": _show,
    "space": _space,
    "environ": _environ,
    "gids": _gids,
    "gpu": _gpu,
    "nvml": _whole("nvidia"),
    "amdsmi": _whole("amd"),
    "silent": _silent,
    "package": _package,
    "without": _without,
    "docker": _docker,
    "docker_fails": _docker_fails,
    "command": _command,
    "unload": _unload,
}
