#!/usr/bin/python3 -I
"""Stand-in for dockerd: reads its settings when it starts and when it is told to, and does not start on broken ones."""

import grp
import json
import os
import signal
import socket
import sys
from pathlib import Path

SETTINGS = "/etc/docker/daemon.json"
INFO = "/run/docker-stand-in.json"
SOCKET = "/run/docker.sock"


def settings():
    try:
        content = Path(SETTINGS).read_text()
    except FileNotFoundError:
        return {}
    found = json.loads(content) if content.strip() else {}
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def load(*_):
    try:
        runtimes = settings().get("runtimes", {})
    except ValueError as error:
        # as dockerd: at a reload the old settings stay
        sys.stderr.write(f"unable to configure the Docker daemon with file {SETTINGS}: {error}\n")
        return False
    info = {
        "ServerVersion": "29.1.3",
        "CgroupDriver": "systemd",
        "DockerRootDir": "/var/lib/docker",
        "Runtimes": {name: {"path": name} for name in ("io.containerd.runc.v2", "runc", *runtimes)},
        "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
        "Pid": os.getpid(),
    }
    Path(INFO + ".new").write_text(json.dumps(info))
    os.rename(INFO + ".new", INFO)
    return True


def main():
    if not load():
        return 1
    signal.signal(signal.SIGHUP, load)
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(SOCKET)
    os.chown(SOCKET, 0, grp.getgrnam("docker").gr_gid)
    os.chmod(SOCKET, 0o660)
    os.makedirs("/var/lib/docker/volumes", exist_ok=True)
    place = os.environ.get("NOTIFY_SOCKET")
    if place:
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.connect("\0" + place[1:] if place[0] == "@" else place)
        told.send(b"READY=1")
    while True:
        signal.pause()


sys.exit(main())
