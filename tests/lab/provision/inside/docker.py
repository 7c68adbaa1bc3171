#!/usr/bin/python3 -I
"""Stand-in for docker's client: `info`, `ps`, asked of the daemon's stand-in."""

import json
import os
import sys
from pathlib import Path


def info():
    if os.path.exists("/run/docker.sock") and not os.access("/run/docker.sock", os.W_OK):
        sys.stderr.write("permission denied while trying to connect to the docker API at unix:///run/docker.sock\n")
        sys.exit(1)
    try:
        found = json.loads(Path("/run/docker-stand-in.json").read_text())
        if not os.path.isdir(f"/proc/{found.pop('Pid')}"):
            raise FileNotFoundError
    except FileNotFoundError:
        sys.stderr.write(
            "Cannot connect to the Docker daemon at unix:///run/docker.sock. Is the docker daemon running?\n"
        )
        sys.exit(1)
    return found


if sys.argv[1:2] == ["info"]:
    asked = sys.argv[-1]
    found = info()
    said = found["Runtimes"] if ".Runtimes" in asked else {**found, "ClientInfo": {"Version": "29.1.3"}}
    sys.stdout.write(json.dumps(said) + "\n")
elif sys.argv[1:2] == ["ps"]:
    info()
