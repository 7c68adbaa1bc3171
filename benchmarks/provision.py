"""Making a fresh machine ready: `gpu-setup apply` against pyinfra, ansible-core and a plain shell script.

    python3 benchmarks/provision.py [--rounds 5] [--lab FOLDER]        root; with the tests' packages installed

The machine is a guest of the lab tests (tests/lab/provision): a booted Debian that identifies as Ubuntu 24.04, with an
RTX 3090, real systemd, apt, dpkg and sudo, package lists that are some hours old, and signed stand-ins of Ubuntu's and
NVIDIA's repositories, whose packages are nearly empty: these are the times of the tools, not of downloads. Every
engine gets a fresh guest in each round and carries out the same steps, taken from `gpu-setup plan`; then once more on
the same guest after a reboot, with nothing to do. gpu-setup's time is all of it: reading the machine, asking apt in a
private tree, sudo, root's own copy, the unit, the journal, every step checked before and after. The others run as root
and get the keys as files: they fetch and compare none. The result of an engine is checked before its time counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from home import add_common_options, work_folder
from intervals import interval, ratio_of_medians
from result import CHECKOUT, Figure, machine, progress, report, write

# the room of the same name is meant from here on, not this file
sys.path[:] = [
    str(CHECKOUT),
    *(place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent),
]

NEEDED = 5
COMPUTER = "rtx3090"
# fresh and nothing to do, at most this share of the other's time
LIMITS = {"pyinfra": (0.7, 0.3), "ansible": (0.15, 0.06)}
FOLDER = "/opt/bench"
OWN = "gpu-setup apply"


class Task(NamedTuple):
    """`kind`: packages, file, source, reload, enable. `file`: the name of its content below FOLDER/files.

    `folder`: its folder, where a fresh machine has none.
    """

    kind: str
    names: tuple[str, ...] = ()
    path: str = ""
    file: str = ""
    mode: str = "0644"
    folder: str = ""


class ProvisioningTool(NamedTuple):
    name: str
    argv: tuple[str, ...]
    user: str
    fine: tuple[int, ...] = (0,)


def tasks(plan: dict[str, Any], shops: Any, root: Path, files: Path) -> list[Task]:
    """The plan's open steps as any tool can do them; contents are written below `files`."""
    import msgspec

    from provision.apply import file_actions
    from provision.model import AnyAction, AptInstall, AptKey, AptPreference, AptRepo, Reboot, Service, WriteFile

    found: list[Task] = []
    for step in plan["steps"]:
        if step["state"] != "todo":
            continue
        action = msgspec.convert(step["action"], AnyAction)  # type: ignore[arg-type]
        name = f"{len(found):02d}"
        if isinstance(action, AptInstall):
            found.append(Task("packages", tuple(wanted.name for wanted in action.packages)))
        elif isinstance(action, AptKey):
            key = shops.key(Path(action.keyring).stem)
            (files / name).write_bytes(key.binary)
            found.append(Task("file", path=action.keyring, file=name))
        elif isinstance(action, (AptRepo, AptPreference, WriteFile)):
            (files / name).write_bytes(file_actions.file_content(action, None))
            mode = f"{action.mode:04o}" if isinstance(action, WriteFile) else "0644"
            kind = "source" if isinstance(action, AptRepo) else "file"
            path = file_actions.file_path(action)
            folder = "" if (root / path.lstrip("/")).parent.exists() else str(Path(path).parent)
            found.append(Task(kind, path=path, file=name, mode=mode, folder=folder))
        elif isinstance(action, Service):
            found.append(Task("reload" if action.change == "reload" else "enable", (action.unit,)))
        elif not isinstance(action, Reboot):
            raise SystemExit(f"The step {step['id']} has no counterpart for the other tools: add it to tasks().")
    return found


def shell(todo: Sequence[Task]) -> str:
    """As a careful person writes it: nothing is done twice."""
    lines = ["#!/bin/sh", "set -eu", "export DEBIAN_FRONTEND=noninteractive", "changed="]
    lines.append("ls /var/lib/apt/lists/*Release >/dev/null 2>&1 || apt-get update -q")
    for task in todo:
        if task.kind == "packages":
            names = " ".join(task.names)
            lines.append(
                f"dpkg-query -W -f '${{db:Status-Status}}\\n' {names} 2>&1 | grep -qvx installed && "
                f"apt-get install -q -y {names}"
            )
            lines[-1] = f"if {lines[-1].replace(' && ', '; then ')}; fi"
        elif task.kind in ("file", "source"):
            then = f"install -D -m {task.mode} {FOLDER}/files/{task.file} {task.path}; changed=yes"
            then += "; apt-get update -q" if task.kind == "source" else ""
            lines.append(f"cmp -s {FOLDER}/files/{task.file} {task.path} || {{ {then}; }}")
        elif task.kind == "reload":
            lines.append(f'[ -z "$changed" ] || systemctl reload {task.names[0]}')
        else:
            start = " --now" if task.names[0].endswith(".path") else ""
            lines.append(f"systemctl enable --quiet{start} {task.names[0]}")
    return "\n".join(lines) + "\n"


def pyinfra(todo: Sequence[Task]) -> str:
    lines = ["from pyinfra.operations import apt, files, systemd", "apt.update(cache_time=3600)"]
    last = ""
    for number, task in enumerate(todo):
        if task.kind == "packages":
            lines.append(f"apt.packages(packages={list(task.names)!r})")
        elif task.kind in ("file", "source"):
            last = f"done{number}"
            put = f"src={f'{FOLDER}/files/{task.file}'!r}, dest={task.path!r}, mode={task.mode.lstrip('0')!r}"
            lines.append(f"{last} = files.put({put})")
            if task.kind == "source":
                lines.append(f"apt.update(_if={last}.did_change)")
        elif task.kind == "reload":
            lines.append(f"systemd.service(service={task.names[0]!r}, reloaded=True, _if={last}.did_change)")
        else:
            running = task.names[0].endswith(".path")
            lines.append(f"systemd.service(service={task.names[0]!r}, enabled=True, running={running or None})")
    return "\n".join(lines) + "\n"


def ansible(todo: Sequence[Task]) -> str:
    """YAML by way of JSON, which is YAML too."""
    found: list[dict[str, Any]] = [{"ansible.builtin.apt": {"update_cache": True, "cache_valid_time": 3600}}]
    last = ""
    for number, task in enumerate(todo):
        if task.kind == "packages":
            found.append({"ansible.builtin.apt": {"name": list(task.names), "state": "present"}})
        elif task.kind in ("file", "source"):
            last = f"done{number}"
            if task.folder:
                found.append({"ansible.builtin.file": {"path": task.folder, "state": "directory", "mode": "0755"}})
            copy = {"src": f"{FOLDER}/files/{task.file}", "dest": task.path, "mode": task.mode}
            found.append({"ansible.builtin.copy": copy, "register": last})
            if task.kind == "source":
                found.append({"ansible.builtin.apt": {"update_cache": True}, "when": f"{last} is changed"})
        elif task.kind == "reload":
            unit = {"name": task.names[0], "state": "reloaded"}
            found.append({"ansible.builtin.systemd_service": unit, "when": f"{last} is changed"})
        else:
            unit = {"name": task.names[0], "enabled": True}
            if task.names[0].endswith(".path"):
                unit["state"] = "started"
            found.append({"ansible.builtin.systemd_service": unit})
    return json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": found}], indent=1) + "\n"


def engines(row: dict[str, Any]) -> list[ProvisioningTool]:
    found = [
        ProvisioningTool(OWN, ("gpu-setup", "apply", "--yes"), "ada", (0, 5)),
        ProvisioningTool("shell", ("sh", f"{FOLDER}/run.sh"), "root"),
    ]
    for name, words in row.items():
        argv = tuple(word.format(folder=FOLDER) for word in words["command"])
        found.append(ProvisioningTool(name, ("env", f"PYTHONPATH={FOLDER}/{name}", "python3", *argv), "root"))
    return found


def layer(hosts: Any, row: dict[str, Any], work: Path) -> Any:
    """The fresh machine with the other tools installed, and the module that ansible's apt needs."""
    from tests.lab.provision import rootfs
    from tests.lab.provision.hosts import Snapshot

    fresh = hosts.fresh(COMPUTER)
    place = work / "engines-layer"
    if not place.exists():
        with rootfs.over(fresh.layers, place.with_name("engines-partial"), work / "engines-root") as root:
            _python_apt(root)
            for name, words in row.items():
                target = root / FOLDER.lstrip("/") / name
                # for the guest's Python, whatever this one is
                python = ("--only-binary=:all:", "--python-version", hosts.below.python)
                argv = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(target))
                subprocess.run((sys.executable, *argv, *python, words["requirement"]), check=True)
                rootfs.chroot(root, "python3", "-m", "compileall", "-q", f"{FOLDER}/{name}", check=False)
        place.with_name("engines-partial").rename(place)
    return Snapshot(COMPUTER, (place, *fresh.layers))


def with_old_package_lists(hosts: Any, fresh: Any) -> Any:
    """A machine as apt's daily timer leaves it: the lists of its own sources exist and are some hours old."""
    with hosts.guest(fresh) as guest:
        guest.run("apt-get", "update", "-q", user="root", check=True)
        made = guest.snapshot()
    # apt, ansible and pyinfra go by this folder's time
    then = time.time() - 5 * 3600
    os.utime(made.layers[0] / "var/lib/apt/lists", (then, then))
    return made


def _python_apt(root: Path) -> None:
    """python3-apt from the distribution that the guest is made of, with this machine's own sources for that while."""
    from tests.lab.provision import rootfs

    kept = root / "etc/apt/kept"
    shutil.move(root / "etc/apt/sources.list.d", kept)
    shutil.copytree("/etc/apt/sources.list.d", root / "etc/apt/sources.list.d")
    for file in ("/etc/apt/sources.list", "/etc/resolv.conf"):
        if Path(file).exists():
            shutil.copy(file, root / file.lstrip("/"))
    for name in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        shutil.copy(name, root / "etc/apt/apt.conf.d")
    hosts = (root / "etc/hosts").read_text()
    (root / "etc/hosts").write_text(Path("/etc/hosts").read_text())
    rootfs.chroot(root, "apt-get", "update", "-q")
    rootfs.chroot(root, "apt-get", "install", "-q", "-y", "--no-install-recommends", "python3-apt")
    (root / "etc/hosts").write_text(hosts)
    shutil.rmtree(root / "etc/apt/sources.list.d")
    shutil.move(kept, root / "etc/apt/sources.list.d")
    for name in ("etc/apt/sources.list", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
    for place in (*(root / "var/lib/apt/lists").iterdir(), *(root / "etc/apt/apt.conf.d").glob("*proxy*")):
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def time_engine(guest: Any, engine: ProvisioningTool, log: Path) -> float:
    begin = time.perf_counter()
    ended = guest.run(*engine.argv, user=engine.user, timeout=300)
    seconds = time.perf_counter() - begin
    log.write_text(ended.stdout + ended.stderr)
    if ended.returncode not in engine.fine:
        sys.exit(f"{engine.name}: exit status {ended.returncode}:\n{(ended.stdout + ended.stderr)[-3000:]}")
    return seconds


def check_result(guest: Any, todo: Sequence[Task], files: Path, name: str) -> None:
    """Stops the benchmark unless every package is installed and every file has the wanted content."""
    from provision.system import dpkg
    from tests.provision.hosts import Folder

    database = dpkg.read(Folder(guest.root))
    missing = [each for task in todo if task.kind == "packages" for each in task.names if not database.version(each)]
    wrong = [
        task.path
        for task in todo
        if task.kind in ("file", "source") and _differs(guest.root / task.path.lstrip("/"), files / task.file)
    ]
    if missing or wrong:
        sys.exit(f"{name} has not reached the state that the others reached: {missing} {wrong}")


def _differs(made: Path, wanted: Path) -> bool:
    # keyrings and sources of the same meaning may be written otherwise
    return not made.exists() or (
        made.suffix == ".json" and json.loads(made.read_text()) != json.loads(wanted.read_text())
    )


def measure_engines(rounds: int, lab: Path, work: Path) -> dict[str, dict[str, list[float]]]:
    from tests.lab.provision import rootfs
    from tests.lab.provision.hosts import Hosts
    from tests.lab.provision.repositories import repositories

    row = tomllib.loads((Path(__file__).parent / "engines.toml").read_text(encoding="utf-8"))
    (lab / "provision").mkdir(parents=True, exist_ok=True)
    below = rootfs.base(lab / "provision")
    files = work / "bench/files"
    for name in ("bench", "shops", "hosts"):
        shutil.rmtree(work / name, ignore_errors=True)
    files.mkdir(parents=True)
    seconds: dict[str, dict[str, list[float]]] = {}
    shuffle = random.Random(0).shuffle
    progress("making the fresh machine")
    with repositories(work / "shops") as shops:
        place = work / "hosts"
        place.mkdir()
        hosts = Hosts(below, shops, place)
        fresh = with_old_package_lists(hosts, layer(hosts, row, work))
        with hosts.guest(fresh) as guest:
            todo = tasks(guest.tool("plan").data, shops, guest.root, files)
        for name, text in (("run.sh", shell(todo)), ("deploy.py", pyinfra(todo)), ("playbook.yaml", ansible(todo))):
            (work / "bench" / name).write_text(text)
        order = engines(row)
        for number in range(rounds):
            shuffle(order)
            for engine in order:
                with hosts.guest(fresh) as guest:
                    guest.copy(work / "bench", FOLDER)
                    log = work / f"{engine.name.replace(' ', '-')}-{number}"
                    first = time_engine(guest, engine, log.with_suffix(".fresh.log"))
                    check_result(guest, todo, files, engine.name)
                    guest.reboot()
                    again = time_engine(guest, engine, log.with_suffix(".again.log"))
                kept = seconds.setdefault(engine.name, {"fresh": [], "nothing": []})
                kept["fresh"].append(first)
                kept["nothing"].append(again)
                progress(
                    f"round {number + 1} of {rounds}: {engine.name}: fresh {first:.2f} s, nothing to do {again:.2f} s"
                )
        shutil.rmtree(place, ignore_errors=True)
    return seconds


def figures(seconds: dict[str, dict[str, list[float]]]) -> list[Figure]:
    found = []
    words = {"fresh": "fresh machine", "nothing": "nothing to do"}
    for other, limits in LIMITS.items():
        for (kind, said), limit in zip(words.items(), limits, strict=True):
            pair = seconds[OWN][kind], seconds[other][kind]
            found.append(
                Figure(
                    f"{OWN}, {said}, against {other}",
                    ratio_of_medians(*pair),
                    "ratio",
                    len(pair[0]),
                    NEEDED,
                    at_most=limit,
                    ci95=interval(ratio_of_medians, *pair),
                )
            )
    for name, kinds in seconds.items():
        found += [Figure(f"{name}, {said}", median(kinds[kind]), "s", len(kinds[kind])) for kind, said in words.items()]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=NEEDED, help="rounds (default: %(default)s)")
    parser.add_argument("--lab", type=Path, help="where the lab tests keep their base system (GPU_SETUP_TEST_HOME)")
    add_common_options(parser)
    given = parser.parse_args()
    described = machine()
    with work_folder(given.work) as work:
        seconds = measure_engines(given.rounds, given.lab or work / "lab", work)
    raw = {
        name: {kind: [round(each, 3) for each in row] for kind, row in kinds.items()} for name, kinds in seconds.items()
    }
    write("provision", "Making a fresh machine ready", report(*figures(seconds)), raw, described, given.out)


if __name__ == "__main__":
    main()
