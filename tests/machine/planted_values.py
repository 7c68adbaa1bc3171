"""Values that must not leave a machine, each planted where a real machine has it: one row a kind and place.

`§` in a row is the value: a made-up word (a name, a password), which no list of public words can hold. `here`: it must
not be in the documents of doctor and plan either; those may name what their commands are about: folders, servers,
accounts and programs of this machine.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_SYLLABLES = ("qui", "bro", "lax", "vem", "tuz", "wol", "kra", "zyf", "hox", "puv", "jeg", "nid", "sko", "fyr", "wex")


class Place(NamedTuple):
    """`put(place, text)` changes the recording in the folder; `alone`: it replaces what was planted there before."""

    put: Callable[[Path, str], None]
    here: bool = True
    alone: bool = False


class Planted(NamedTuple):
    kind: str
    text: str
    value: str
    here: bool


def _name(rng: random.Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(4))


def _token(rng: random.Random) -> str:
    return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghkmnpqrstuvwxyz23456789") for _ in range(24))


# ---- how a text gets into a recording


def _file(path: str, template: str = "§\n", here: bool = True) -> Place:
    """At the end of the file; `§` in the template is the row's text."""

    def put(place: Path, text: str) -> None:
        file = place / "sysroot" / path
        file = file.resolve() if file.exists() else file
        file.parent.mkdir(parents=True, exist_ok=True)
        old = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
        old = old.rstrip("\n") + "\n" if old.strip() else ""
        file.write_text(old + template.replace("§", text), encoding="utf-8", errors="surrogateescape")

    return Place(put, here)


def _word(path: str) -> Place:
    """At the end of the file's one line."""

    def put(place: Path, text: str) -> None:
        file = place / "sysroot" / path
        file.write_text(f"{file.read_text().strip()} {text}\n")

    return Place(put)


def _over(path: str) -> Place:
    """As the file's whole content."""

    def put(place: Path, text: str) -> None:
        file = place / "sysroot" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return Place(put, alone=True)


def _document(name: str, change: Callable[[Any, str], None], here: bool = True) -> Place:
    def put(place: Path, text: str) -> None:
        file = place / name
        found = json.loads(file.read_text()) if file.exists() else {}
        change(found, text)
        file.write_text(json.dumps(found))

    return Place(put, here)


def _log(here: bool = True) -> Place:
    def change(rows: Any, text: str) -> None:
        for row in rows:
            if row["argv"][0] in ("journalctl", "dmesg") and row["stdout"]:
                row["stdout"] += f"[   77.000001] somebox kernel: {text}\n"

    return _document("commands.json", change, here)


def _output(program: str, stream: str) -> Place:
    def change(rows: Any, text: str) -> None:
        for row in rows:
            if row["argv"][0] == program:
                row[stream] += f"{text}\n"

    return _document("commands.json", change)


def _info(change: Callable[[dict[str, Any], str], None]) -> Place:
    """Into the answer of `docker info`."""

    def into(rows: Any, text: str) -> None:
        for row in rows:
            if row["argv"][0] == "docker":
                found = json.loads(row["stdout"])
                change(found, text)
                row["stdout"] = json.dumps(found) + "\n"

    return _document("commands.json", into)


def _option() -> Place:
    def change(paths: Any, text: str) -> None:
        for space in paths["space"].values():
            space["options"].append(text)

    return _document("paths.json", change)


def _daemon(key: str, alone: bool = False) -> Place:
    def put(place: Path, text: str) -> None:
        file = place / "sysroot/etc/docker/daemon.json"
        found = json.loads(file.read_text()) if file.exists() and file.read_text().strip() else {}
        if key == "runtimes":
            found.setdefault("runtimes", {})[text] = {"path": f"/opt/{text}/run", "runtimeArgs": [f"--token={text}"]}
        elif key == "log-opts":
            found.setdefault("log-opts", {})["splunk-token"] = text
        else:
            found.setdefault(key, []).append(text)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))

    return Place(put, alone=alone)


def _variable(name: str, here: bool = False) -> Place:
    def change(session: Any, text: str) -> None:
        old = session["environ"].get(name, "")
        session["environ"][name] = f"{old}:{text}" if old and "PATH" in name else text

    return _document("session.json", change, here)._replace(alone="PATH" not in name)


def _in_folder(path: str, ending: str = "", here: bool = False) -> Place:
    def change(paths: Any, text: str) -> None:
        paths["names"].setdefault(path, []).append(f"{text}{ending}")

    return _document("paths.json", change, here)


def _account(template: str, file: str = "etc/passwd") -> Place:
    return _file(file, template, here=False)


def _nvml(change: Callable[[dict[str, Any], str], None], here: bool = False) -> Place:
    return _document("nvml.json", lambda found, text: change(found, text), here)._replace(alone=True)


def _unreadable() -> Place:
    def change(paths: Any, text: str) -> None:
        paths["unreadable"][f"/etc/modprobe.d/{text}.conf"] = {"reason": "denied", "detail": f"{text}"}
        paths["names"].setdefault("/etc/modprobe.d", []).append(f"{text}.conf")

    return _document("paths.json", change, here=False)


LINE = "proc/cmdline"
LIST = "etc/apt/sources.list"
DEB = "etc/apt/sources.list.d/corp.sources"
# kind → (text, where); each row is planted `EACH` times with another value
ROWS: Mapping[str, tuple[tuple[str, Place], ...]] = {
    "mount option: account": (("username=§", _option()), ("uid=§", _option()), ("credentials=/root/§.cred", _option())),
    "mount option: password": (("password=§", _option()), ("pass=§", _option())),
    "mount option: domain": (("domain=§.LAN", _option()), ("workgroup=§", _option())),
    "mount option: server": (("addr=§.corp.example", _option()), ("mounthost=§", _option())),
    "mount option: overlay": (("lowerdir=/data/§/l:/x", _option()), ("upperdir=/home/§/up", _option())),
    "boot: iSCSI": (
        ("netroot=iscsi:chap:§@10.0.0.9::3260::iqn", _word(LINE)),
        ("rd.iscsi.password=§", _word(LINE)),
        ("iscsi_initiator=iqn.2004.com.§:host", _word(LINE)),
    ),
    "boot: host": (("systemd.hostname=§", _word(LINE)), ("ip=10.0.0.5:::255.0.0.0:§:eth0:off", _word(LINE))),
    "boot: cloud-init": (
        ("ds=nocloud;h=§;s=http://10.0.0.1/", _word(LINE)),
        ("cloud-config-url=http://§/x", _word(LINE)),
    ),
    "boot: disks": (
        ("root=LABEL=§", _word(LINE)),
        ("root=PARTLABEL=§", _word(LINE)),
        ("rd.luks.name=abc=§", _word(LINE)),
        ("cryptdevice=PARTLABEL=§:root", _word(LINE)),
    ),
    "boot: volume group": (
        ("root=/dev/§/root", _word(LINE)),
        ("rd.lvm.lv=§/root", _word(LINE)),
        ("resume=/dev/mapper/§-swap", _word(LINE)),
    ),
    "boot: ZFS pool": (("root=ZFS=§/ROOT/ubuntu", _word(LINE)), ("zfs=§", _word(LINE))),
    "boot: a word": (("§", _word(LINE)), ("--§", _word(LINE))),
    "boot: any parameter": (
        ("acme.psk=§", _word(LINE)),
        ("wpa.key=§", _word(LINE)),
        ("video=/home/§/edid.bin", _word(LINE)),
    ),
    "apt: password": (
        ("deb https://robot:§@apt.corp.example/ubuntu noble main", _file(LIST)),
        ("\nTypes: deb\nURIs: https://robot:§@apt.corp.example/deb\nSuites: noble\n", _file(DEB)),
    ),
    "apt: server": (
        ("deb https://apt.§.example/ubuntu noble main", _file(LIST, here=False)),
        ("\nTypes: deb\nURIs: http://§/deb\nSuites: noble\n", _file(DEB, here=False)),
        ("apt.§.example_ubuntu_dists_noble_InRelease", _in_folder("/var/lib/apt/lists")),
    ),
    "apt: owner of a PPA": (("deb https://ppa.launchpadcontent.net/§/ppa/ubuntu noble main", _file(LIST, here=False)),),
    "apt: comment": (
        ("# § asked for this", _file(LIST)),
        ("deb http://archive.ubuntu.com/ubuntu noble main # § asked", _file(LIST)),
        ("# call § before a change", _file("etc/apt/sources.list.d/ubuntu.sources")),
        ("# by §", _file("etc/apt/preferences.d/corp")),
        ("// by §", _file("etc/apt/apt.conf.d/20auto-upgrades")),
    ),
    "apt: settings": (
        ('Acquire::http::Proxy "http://u:§@proxy:3128";', _file("etc/apt/apt.conf.d/95proxy")),
        ('Unattended-Upgrade::Mail "§@corp.example";', _file("etc/apt/apt.conf.d/50unattended-upgrades")),
        ('Unattended-Upgrade::Package-Blacklist { "§-agent"; };', _file("etc/apt/apt.conf.d/51corp", here=False)),
    ),
    "apt: pin": (
        (
            "\nPackage: *\nPin: origin apt.§.example\nPin-Priority: 600\nExplanation: §\n",
            _file("etc/apt/preferences.d/corp"),
        ),
        ("\nPackage: §-tools\nPin: release o=§\nPin-Priority: 600\n", _file("etc/apt/preferences.d/corp")),
    ),
    "package": (
        (
            "Package: §-vpn\nStatus: install ok half-configured\nVersion: 1\n",
            _file("var/lib/dpkg/status", "\n§\n", here=False),
        ),
        ("§-agent", _file("run/reboot-required.pkgs")),
    ),
    "daemon.json": (
        ("§", _daemon("runtimes")),
        ("§", _daemon("log-opts", alone=True)),
        ("com.corp.owner=§", _daemon("labels")),
        ("https://§.example", _daemon("registry-mirrors")),
        ("10.9.8.7,§", _daemon("hosts")),
    ),
    "docker info": (
        (
            "§",
            _info(lambda found, text: found.update(Name=text, HttpsProxy=f"http://u:{text}@proxy"))._replace(
                alone=True
            ),
        ),
        ("§", _info(lambda found, text: found.setdefault("Runtimes", {}).update({text: {"runtimeArgs": [text]}}))),
        ("§", _info(lambda found, text: found.setdefault("Labels", []).append(f"owner={text}"))),
        ('Get "http://§:2375/info": dial tcp: lookup §: no such host', _output("docker", "stderr")),
    ),
    "process name": (
        ("NVRM: Xid (PCI:0000:01:00): 31, pid=77, name=§, Ch 00000008", _log(here=False)),
        ("Out of memory: Killed process 812 (§) total-vm:1kB", _log(here=False)),
        ("§[4242]: segfault at 0 ip 0 sp 0 error 4 in libcuda.so.1", _log(here=False)),
        ("§", _nvml(lambda found, text: found["gpus"][0].update(processes=[[7, f"/opt/{text}/bin/{text}"]]))),
    ),
    "Secure Boot key": (
        ("[key 9]\n        Subject: CN=§", _output("mokutil", "stdout")),
        ("[key 9]\n        Subject: CN=§ Secure Boot Module Signature key", _output("mokutil", "stdout")),
        ("0123456789 §", _output("mokutil", "stdout")),
    ),
    "PATH": (
        ("/mnt/c/Users/Anna §/AppData/Local/bin", _variable("PATH")),
        ("/home/some/bin §/x", _variable("PATH")),
        ("/srv/§/cuda/lib64", _variable("LD_LIBRARY_PATH")),
    ),
    "environment's folder": (
        ("/home/alex/envs/§", _variable("VIRTUAL_ENV")),
        ("/opt/conda/envs/§", _variable("CONDA_PREFIX")),
        ("/scratch/§/hf", _variable("HF_HOME")),
        ("/scratch/§/tmp", _variable("TMPDIR")),
    ),
    "remote engine": (
        ("ssh://me@§.corp.example", _variable("DOCKER_HOST")),
        ("tcp://§:2375", _variable("DOCKER_HOST")),
        ("§", _variable("DOCKER_CONTEXT")),
    ),
    "SSH": (("10.1.2.3 § 10.1.2.4 22", _variable("SSH_CONNECTION")), ("nvidia: ssh -p 22 root@§", _log())),
    "kernel builder": (
        ("Linux version 6.8.0 (§@buildbox) (gcc (GCC) 13) #1 SMP Thu Jun 5 18:30:46 UTC 2026", _over("proc/version")),
        ("Linux version 6.8.0 (me@§) (gcc (§ 13) 13) #1 SMP § Thu Jun 5 18:30:46 UTC 2026", _over("proc/version")),
        ("Linux version 6.8.0 (root@§) drm (gcc) #1 SMP", _log()),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module 580.1 Release Build (§@U22-I3)", _log(here=False)),
    ),
    "boot: repeated in the log": (
        ("Command line: nvidia-drm.modeset=1 netroot=iscsi:chap:§@10.0.0.9", _log()),
        ("Kernel command line: amdgpu.dc=1 systemd.hostname=§", _log()),
    ),
    "DMI": (
        ("§ workstation", _over("sys/class/dmi/id/product_name")),
        ("Office of §", _over("sys/class/dmi/id/board_name")),
        ("§", _over("sys/class/dmi/id/board_vendor")),
    ),
    "boot menu": (
        ("GRUB_DEFAULT='§ Linux'", _file("etc/default/grub")),
        ("GRUB_CMDLINE_LINUX='acme.token=§'", _file("etc/default/grub")),
        ("# § set this", _file("etc/default/grub")),
    ),
    "account": (
        ("§-backup:x:777:777:Backup of §:/srv/§:/bin/§sh", _account("§\n")),
        ("§:x:1444:1444:Somebody:/home/§:/bin/bash", _account("§\n")),
        ("§:x:1555:", _account("§\n", "etc/group")),
        ("§-lab:x:666:§", _account("§\n", "etc/group")),
    ),
    "full name": (("walter:x:1777:1777:Walter §,,,:/home/walter:/bin/bash", _account("§\n")),),
    "GPU": (
        ("§", _nvml(lambda found, text: found["gpus"][0].update(serial=text, board_serial=text))),
        ("§", _nvml(lambda found, text: found.update(detail=f"cannot open /home/{text}/libnvidia-ml.so"), here=True)),
        ("usb 1-4: SerialNumber: §, drm monitor", _log()),
    ),
    "modprobe": (
        ("# § wants this\nblacklist nouveau", _file("etc/modprobe.d/mine.conf")),
        ("options nvidia NVreg_TemporaryFilePath=/home/§/x", _file("etc/modprobe.d/mine.conf", here=False)),
        ("install nvidia /bin/sh -c 'curl -u me:§ http://x'", _file("etc/modprobe.d/mine.conf")),
        ("§", _in_folder("/etc/modprobe.d", ".conf")),
        ("§", _unreadable()),
    ),
    "DKMS": (
        ("error: /srv/§/driver/nv.c:7: *** broken", _file("var/lib/dkms/nvidia/580.95.05/build/make.log", here=False)),
        ("mok_signing_key=/root/§.key", _file("etc/dkms/framework.conf")),
        ("§", _in_folder("/var/lib/dkms")),
    ),
    "mail address": (("nvidia: written by §@corp.example", _log()),),
    "token": (
        ("nvidia: hf_§§", _log()),
        ("nvidia: WANDB_API_KEY=§", _log()),
        ("export LD_LIBRARY_PATH=/x; export HF_TOKEN=§", _file("home/alex/.bashrc")),
        ("HF_TOKEN=§", _file("etc/environment")),
    ),
    "proxy": (
        ("https_proxy=http://me:§@proxy:3128", _file("etc/environment")),
        ("nvidia: via http://me:§@proxy.corp.example:3128/", _log()),
    ),
    "cloud": (("nvidia: arn:aws:iam::§:role/x secret=§", _log()), ("nvidia: aws_secret_access_key = §", _log())),
    "git remote": (("nvidia: built from https://x-token:§@github.com/a/b", _log()),),
    "control group": (("0::/user.slice/app-§.scope", _over("proc/self/cgroup")),),
    "system's name": (('ID=§\nPRETTY_NAME="§ Linux"\n', _file("etc/os-release", here=False)),),
    "folder": (
        ("rocm-of-§", _in_folder("/opt")),
        ("§-suite", _in_folder("/opt")),
        ("linux-headers-6.8.0-§", _in_folder("/usr/src")),
        ("vmlinuz-6.8.0-§", _in_folder("/boot")),
        ("cuda-§", _in_folder("/usr/local")),
        ("invocation:§.service", _in_folder("/run/systemd/units")),
        ("§-vg", _in_folder("/dev")),
        ("§", _in_folder("/etc/apt/sources.list.d", ".list")),
        ("§", _in_folder("/usr/share/keyrings", ".gpg")),
    ),
    "device description": (("kind: nvidia.com/gpu\nannotations:\n  owner: §\n", _file("etc/cdi/nvidia.yaml")),),
    "loader": (("# § made this\n/opt/§/cuda/compat\n", _file("etc/ld.so.conf.d/000_cuda.conf", here=False)),),
    "container toolkit": (
        ("# §\n[nvidia-container-cli]\nroot = '/srv/§'\n", _file("etc/nvidia-container-runtime/config.toml")),
    ),
    "stderr": (
        ("journalctl: cannot open /var/log/§", _output("journalctl", "stderr")),
        ("mokutil: § is not here", _output("mokutil", "stderr")),
    ),
}
EACH = 2
# so many machines are needed for rows that exclude each other
TURNS = 3


def plant(place: Path, turn: int) -> list[Planted]:
    """Put `EACH` values of every row into the recording in this folder, and return them."""
    rng = random.Random(turn)
    found = []
    for kind, rows in ROWS.items():
        for index, (template, spot) in enumerate(rows):
            if spot.alone and index % TURNS != turn:
                continue
            for _ in range(1 if spot.alone else EACH):
                value = _token(rng) if "§§" in template or kind in ("token", "cloud") else _name(rng)
                text = template.replace("§", value)
                spot.put(place, text)
                found.append(Planted(kind, text, value, spot.here))
    return found


def shown(data: bytes, found: list[Planted]) -> Iterator[Planted]:
    """The planted values that a document shows."""
    low = data.lower()
    return (one for one in found if one.value.lower().encode() in low)
