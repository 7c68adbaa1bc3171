"""Secrets of 24 kinds as they stand in real files, and the sources of a recording that can be made to hold them."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from checks.facts.read import read_host
from machine.recorder import VARIABLES, RecordingMachine
from machine.recording import RecordedMachine

WORDS = string.ascii_letters + string.digits
USERS = ("wmueller", "tilda", "ngo", "o.hara", "jd42", "xenia", "bo-peep", "karim")
HOST = "wolkenheim7"
FULL_NAMES = (
    "Wiebke Müller",
    "Tilda Sørensen",
    "Ngo Van",
    "Orla O'Hara",
    "John Doe42",
    "Xenia Papas",
    "Bo Peep",
    "Karim B",
)


class Secret(NamedTuple):
    """`line` is how it is written in a file; none of `hidden` may be found in a bundle."""

    kind: str
    line: str
    hidden: tuple[str, ...]


Maker = Callable[[random.Random, int], Secret]


def _some(rng: random.Random, size: int, of: str = WORDS) -> str:
    return "".join(rng.choice(of) for _ in range(size))


def _hex(rng: random.Random, size: int) -> str:
    return _some(rng, size, "0123456789abcdef")


def _uuid(rng: random.Random) -> str:
    return "-".join(_hex(rng, size) for size in (8, 4, 4, 4, 12))


def _of(kind: str, rng: random.Random, n: int, secret: str, *lines: str) -> Secret:
    return Secret(kind, lines[n % len(lines)].replace("§", secret), (secret,))


def _mac(rng: random.Random) -> str:
    return ":".join(_hex(rng, 2) for _ in range(6))


def apt_login(rng: random.Random, n: int) -> Secret:
    password = _some(rng, 14, WORDS + "!+,;&$")
    return _of(
        "apt",
        rng,
        n,
        password,
        "deb https://ci:§@apt.corp.example/ubuntu noble main",
        "URIs: https://robot:§@repo.corp.example:8443/deb/",
    )


def netrc(rng: random.Random, n: int) -> Secret:
    return _of(
        "auth.conf",
        rng,
        n,
        _some(rng, 12),
        "machine apt.corp.example login robot password §",
        "login § password hunter2hunter2",
        "machine apt.corp.example login robot\n password §",
    )


def proxy(rng: random.Random, n: int) -> Secret:
    return _of(
        "proxy",
        rng,
        n,
        _some(rng, 12),
        'Acquire::http::Proxy "http://me:§@proxy.corp.example:3128";',
        "https_proxy=http://me:§@10.9.8.7:3128/",
        "http_proxy=me:§@proxy.corp.example:3128",
    )


def luks(rng: random.Random, n: int) -> Secret:
    return _of(
        "luks",
        rng,
        n,
        _uuid(rng),
        "rd.luks.uuid=luks-§",
        "cryptdevice=UUID=§:root",
        "rd.luks.name=§=root",
        "root=/dev/mapper/luks-§",
    )


def disk(rng: random.Random, n: int) -> Secret:
    if n % 4 == 3:
        serial = "S" + _some(rng, 14, string.ascii_uppercase + string.digits)
        return Secret("disk", f"root=/dev/disk/by-id/nvme-Samsung_SSD_990_PRO_{serial}", (serial,))
    if n % 4 == 2:
        short = f"{_hex(rng, 4)}-{_hex(rng, 4)}".upper()
        return Secret("disk", f"search --no-floppy --fs-uuid --set=root {short}", (short,))
    return _of("disk", rng, n, _uuid(rng), "root=UUID=§ ro", "resume=PARTUUID=§")


def edid(rng: random.Random, n: int) -> Secret:
    return _of(
        "edid",
        rng,
        n,
        "H4" + _some(rng, 10, string.ascii_uppercase + string.digits),
        "monitor EDID serial number: §",
        "Display Product Serial Number: '§'",
        "drm: serial_number=§",
    )


def registry(rng: random.Random, n: int) -> Secret:
    return _of(
        "registry",
        rng,
        n,
        f"reg-{_some(rng, 8).lower()}.corp.example",
        '{"insecure-registries": ["§:5000"]}',
        '{"registry-mirrors": ["https://§"], "debug": true}',
    )


def pip(rng: random.Random, n: int) -> Secret:
    return _of(
        "pip",
        rng,
        n,
        _some(rng, 18),
        "extra-index-url = https://__token__:§@pypi.corp.example/simple",
        "PIP_INDEX_URL=https://§@pypi.corp.example/simple",
        "password = §",
    )


def user(rng: random.Random, n: int) -> Secret:
    name = USERS[n % len(USERS)]
    return Secret(
        "user",
        (
            f"made by {name} on Monday",
            f"owner={name}",
            f"{name}@{HOST}:~$",
            f"/srv/{name}_data/run",
            f"gdm: session of '{name}' opened",
        )[n % 5],
        (name,),
    )


def full_name(rng: random.Random, n: int) -> Secret:
    name = FULL_NAMES[n % len(FULL_NAMES)]
    return Secret("full name", f"Author: {name}", (name,))


def host(rng: random.Random, n: int) -> Secret:
    return Secret(
        "host",
        (
            f"on {HOST}",
            f"search {HOST}.corp.example",
            f"root=/dev/mapper/{HOST}--vg-root",
            f"CN={HOST} key",
            f"WOLKENHEIM7 {HOST.upper()}",
        )[n % 5],
        (HOST,),
    )


def home(rng: random.Random, n: int) -> Secret:
    return _of("home", rng, n, _some(rng, 9).lower(), "/home/§/venv/lib", "file:///home/§/x.whl", "HOME=/home/§")


def mac(rng: random.Random, n: int) -> Secret:
    if n % 3 == 2:
        packed = _hex(rng, 12)
        return Secret("mac", f"r8169: renamed from eth0 to enx{packed}", (packed,))
    return _of("mac", rng, n, _mac(rng), "e1000e 0000:00:1f.6 eth0: (PCI Express) §", "MAC=§:52:54:00:aa:bb:cc:08:00")


def address(rng: random.Random, n: int) -> Secret:
    if n % 4 == 3:
        six = "2001:db8:" + ":".join(f"{rng.randrange(4096, 65536):x}" for _ in range(6))
        return Secret("ip", f"inet6 {six}/64 scope global", (six,))
    four = ".".join(str(rng.randrange(11, 250)) for _ in range(4))
    return _of("ip", rng, n, four, "inet §/24 brd", "nfs: server § not responding", "range §-10.200.1.9")


def mail(rng: random.Random, n: int) -> Secret:
    name = f"{_some(rng, 7).lower()}.{_some(rng, 5).lower()}"
    return (
        Secret("mail", f"Maintainer: Some One <{name}@corp.example>", (name,))
        if n % 2
        else Secret("mail", f"mailto:{name}@uni-x.de", (name,))
    )


def serial(rng: random.Random, n: int) -> Secret:
    return _of(
        "serial",
        rng,
        n,
        _some(rng, 13, string.ascii_uppercase + string.digits),
        "Serial Number: §",
        '{"asic_serial": "§"}',
        "usb 1-4: SerialNumber: §",
        "board serial=§",
    )


def hugging_face(rng: random.Random, n: int) -> Secret:
    return _of(
        "hugging face",
        rng,
        n,
        "hf_" + _some(rng, 34),
        "HF_TOKEN=§",
        "login with § now",
        "https://u:§@huggingface.co",
    )


def github(rng: random.Random, n: int) -> Secret:
    token = (
        "ghp_" + _some(rng, 36),
        "github_pat_" + _some(rng, 60),
        "glpat-" + _some(rng, 20),
        "gho_" + _some(rng, 36),
    )
    return _of("github", rng, n, token[n % 4], "clone https://x-access-token:§@github.com/a/b", "git: §", "t §.")


def cloud(rng: random.Random, n: int) -> Secret:
    if n % 2:
        return _of(
            "aws", rng, n // 2, _some(rng, 40, WORDS + "/+"), "aws_secret_access_key = §", "AWS_SECRET_ACCESS_KEY=§"
        )
    return _of(
        "aws", rng, n, "AKIA" + _some(rng, 16, string.ascii_uppercase + string.digits), "id §", "AWS_ACCESS_KEY_ID=§"
    )


def api_key(rng: random.Random, n: int) -> Secret:
    token = (
        *("sk-proj-" + _some(rng, 40), "nvapi-" + _some(rng, 60), "xoxb-" + _some(rng, 30, string.digits)),
        *(
            "AIza" + _some(rng, 35),
            "npm_" + _some(rng, 36),
            "dckr_pat_" + _some(rng, 27),
            "tskey-auth-" + _some(rng, 20),
        ),
        "eyJ" + _some(rng, 20) + "." + "eyJ" + _some(rng, 30) + "." + _some(rng, 40),
    )
    return _of("api key", rng, n, token[n % len(token)], "key §", "using § here", '{"api_key": "§"}')


def pem(rng: random.Random, n: int) -> Secret:
    body = [_some(rng, 64, WORDS + "+/") for _ in range(4)]
    kind = ("RSA ", "", "OPENSSH ", "EC ", "ENCRYPTED ")[n % 5]
    end = f"\n-----END {kind}PRIVATE KEY-----" if n % 3 else ""
    return Secret("private key", f"-----BEGIN {kind}PRIVATE KEY-----\n" + "\n".join(body) + end, tuple(body))


def wifi(rng: random.Random, n: int) -> Secret:
    return _of(
        "wifi",
        rng,
        n,
        f"Funk {_some(rng, 6)} 5G",
        'wlan0 ESSID:"§"',
        "ssid=§",
        'wpa: trying SSID="§"',
        "psk=§".replace(" ", ""),
    )


def wire_guard(rng: random.Random, n: int) -> Secret:
    key = base64.b64encode(rng.randbytes(32)).decode()
    return _of("wireguard", rng, n, key, "PrivateKey = §", "PresharedKey=§", "peer § endpoint", "PublicKey = §")


def ssh_host(rng: random.Random, n: int) -> Secret:
    name = f"box{_some(rng, 6).lower()}"
    return _of(
        "ssh host",
        rng,
        n,
        name,
        "DOCKER_HOST=ssh://me@§.corp.example",
        "rsync me@§:/data .",
        "ssh -p 2222 root@§",
        "    HostName §.corp.example",
        "ssh §.corp.example uptime",
    )


def docker_login(rng: random.Random, n: int) -> Secret:
    packed = base64.b64encode(f"me:{_some(rng, 17)}".encode()).decode()
    return _of("docker", rng, n, packed, '{"auths": {"ghcr.io": {"auth": "§"}}}', "Authorization: Basic §", "auth=§")


KINDS: tuple[Maker, ...] = (
    *(apt_login, netrc, proxy, luks, disk, edid, registry, pip, user, full_name, host, home, mac, address, mail),
    *(serial, hugging_face, github, cloud, api_key, pem, wifi, wire_guard, ssh_host, docker_login),
)


def secrets(seed: int, each: int = 8) -> list[Secret]:
    """`each` secrets of every kind, always the same for one seed."""
    rng = random.Random(seed)
    return [make(rng, n) for n in range(each) for make in KINDS]


def sources(place: Path) -> tuple[list[str], list[str]]:
    """What the readers use of this recording: paths of files with text in them, and of folders that they list."""
    seen = RecordingMachine(RecordedMachine(place))
    read_host(seen)
    texts = [
        path
        for path, data in seen.files.items()
        if path.startswith(("/etc/", "/boot/", "/var/", "/usr/", "/run/"))
        and not path.endswith(("/passwd", "/group", "/dpkg/status", "/daemon.json", "hostname"))
        and b"\0" not in data
    ]
    folders = [
        path
        for path in seen.folders
        if path
        in (
            "/etc/modprobe.d",
            "/etc/apt/sources.list.d",
            "/etc/cdi",
            "/usr/src",
            "/etc/apt/preferences.d",
            "/boot",
            "/etc/apt/apt.conf.d",
            "/opt",
            "/usr/local",
            "/lib/modules",
        )
    ]
    return sorted(texts), sorted(folders)


def plant(place: Path, found: list[Secret]) -> None:
    """Put each secret into three of the recording's sources, in turn, so that every source gets some."""
    texts, folders = sources(place)
    spots: list[Callable[[Secret], None]] = [lambda secret, at=at: _into_file(place, at, secret) for at in texts]  # type: ignore[misc]
    spots += [lambda secret: _into_log(place, secret), lambda secret: _into_errors(place, secret)]
    spots += [lambda secret, at=at: _into_name(place, at, secret) for at in folders]  # type: ignore[misc]
    spots += [lambda secret: _into_variables(place, secret), lambda secret: _into_daemon_json(place, secret)]
    spots += [lambda secret: _into_binding(place, secret), lambda secret: _into_command_line(place, secret)]
    _people(place)
    for number, secret in enumerate(found):
        for turn in range(3):
            spots[(number * 3 + turn + number // len(KINDS)) % len(spots)](secret)
    for path in ("etc/apt/auth.conf.d/90corp.conf", "etc/apt/auth.conf", "root/.netrc"):
        _write(place / "sysroot" / path, "".join(f"{secret.line}\n" for secret in found))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _into_file(place: Path, at: str, secret: Secret) -> None:
    path = place / "sysroot" / at[1:]
    path = path.resolve()
    mark = "//" if at.startswith("/etc/apt/apt.conf") else "#"
    lines = "".join(f"{mark} {line}\n" for line in secret.line.split("\n"))
    old = path.read_text(encoding="utf-8", errors="surrogateescape")
    path.write_text(f"{old.rstrip(chr(10))}\n{lines}", encoding="utf-8", errors="surrogateescape")


def _commands(place: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = place / "commands.json"
    rows = json.loads(path.read_text())
    for row in rows:
        change(row)
    path.write_text(json.dumps(rows))


def _into_log(place: Path, secret: Secret) -> None:
    def change(row: dict[str, str]) -> None:
        if row["argv"][0] in ("journalctl", "dmesg") and row["stdout"]:
            row["stdout"] += "".join(
                f"[   77.000001] {HOST} kernel: nvidia: {line}\n" for line in secret.line.split("\n")
            )

    _commands(place, change)


def _into_errors(place: Path, secret: Secret) -> None:
    _commands(place, lambda row: row.update(stderr=f"{row['stderr']}\n{secret.line}"))


def _into_name(place: Path, at: str, secret: Secret) -> None:
    if "/" in secret.line or "\n" in secret.line or secret.line.startswith(" "):
        # no name can hold these
        return
    path = (place / "sysroot" / at[1:]).resolve() / f"{secret.line}.bak"
    if not path.exists():
        _write(path, "")


def _into_variables(place: Path, secret: Secret) -> None:
    path = place / "session.json"
    session = json.loads(path.read_text())
    names = sorted(VARIABLES - {"PATH", "HOME", "GPU_SETUP_STUB", "XDG_RUNTIME_DIR"})
    environ = session["environ"]
    for name in (names[len(environ) % len(names)], f"MY_TOKEN_{len(environ)}"):
        if not name.startswith(("CUDA", "HIP", "ROC", "HSA", "NVIDIA", "LD_", "DOCKER", "GPU")):
            environ[name] = environ.get(name, "") + f" {secret.line}"
    path.write_text(json.dumps(session))


def _into_daemon_json(place: Path, secret: Secret) -> None:
    path = place / "sysroot/etc/docker/daemon.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found.setdefault("labels", []).append(secret.line)
    found.setdefault("insecure-registries", []).append(secret.hidden[0])
    _write(path, json.dumps(found))


def _into_binding(place: Path, secret: Secret) -> None:
    path = place / "nvml.json"
    if path.exists():
        found = json.loads(path.read_text())
        found["detail"] = found.get("detail", "") + f" {secret.line}"
        path.write_text(json.dumps(found))


def _into_command_line(place: Path, secret: Secret) -> None:
    if secret.kind in ("luks", "disk", "ip", "host", "serial"):
        path = place / "sysroot/proc/cmdline"
        path.write_text(f"{path.read_text().strip()} {secret.line}\n")


def _people(place: Path) -> None:
    """The recording's people and machine get the names that are looked for."""
    passwd = place / "sysroot/etc/passwd"
    rows = [
        f"{name}:x:{2000 + n}:{2000 + n}:{full},,,:/home/{name}:/bin/bash\n"
        for n, (name, full) in enumerate(zip(USERS, FULL_NAMES, strict=True))
    ]
    passwd.write_text(passwd.read_text() + "".join(rows))
    _write(place / "sysroot/proc/sys/kernel/hostname", f"{HOST}\n")


def forms(secret: str) -> Iterator[bytes]:
    """The secret's bytes as they are, in JSON, in base64 and quoted for an address."""
    from urllib.parse import quote

    raw = secret.encode()
    yield raw
    yield json.dumps(secret)[1:-1].encode()
    yield quote(secret, safe="").encode()
    for shift in range(3):
        # the same bytes look different at each of base64's three alignments
        yield base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
