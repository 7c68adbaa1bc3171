"""Signed repositories of Ubuntu and of each vendor, served at their real addresses in a private network."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from checks.catalogue import Repository, catalogue
from tests.lab.provision import ubuntu_packages, vendor_packages
from tests.lab.provision.deb import Package, build, entry
from tests.lab.stub_libraries import HERE as STUBS
from tests.lab.stub_libraries import compiler
from tests.machines import hardware
from tests.machines.hardware import Kernel

UBUNTU_KEYRING = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
UBUNTU = ("archive.ubuntu.com", "security.ubuntu.com")
SUITES = {
    "archive.ubuntu.com": ("noble", "noble-updates", "noble-backports"),
    "security.ubuntu.com": ("noble-security",),
}
COMPONENTS = ("main", "restricted", "universe", "multiverse")
# every kernel that a machine of these tests has or gets
KERNELS = (hardware.GA_6_8_117, hardware.GA_6_8, hardware.HWE_6_17, hardware.HWE_7_0_28, hardware.HWE_7_0)

# when an expired key was made, and the hour in which it signs
EXPIRED = "20240101T000000"
_STUB = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* answers for the module that is loaded, as the real library does: 9 without one, 18 for one of another version */
static char version[33] = "@VERSION@@@@@@@@@@@@@@@@@@@@@@@@";
static char *told(const char *name) {
    static char said[160];
    char loaded[64] = "";
    FILE *file = fopen("/sys/module/nvidia/version", "r");
    (void)name;
    if (file) {
        if (!fgets(loaded, sizeof loaded, file)) loaded[0] = 0;
        fclose(file);
        loaded[strcspn(loaded, "\\n")] = 0;
    }
    snprintf(said, sizeof said, "count=1;driver=%s;error=%d", version, !*loaded ? 9 : strcmp(loaded, version) ? 18 : 0);
    return said;
}
#define getenv told
#include "nvml_stub.c"
"""


class Key(NamedTuple):
    """`armoured` and `binary` are the public key's two forms."""

    fingerprint: str
    armoured: bytes
    binary: bytes


class Repositories:
    """Folder `www` with a folder for each host, the keys in `gnupg`, and the process that answers for all of them.

    `row` names are the catalogue's; Ubuntu's archive is called `ubuntu`.
    """

    def __init__(self, folder: Path, namespace: str) -> None:
        self.folder, self.www, self.namespace = folder, folder / "www", namespace
        self.www.mkdir(parents=True)
        self._environ = {**os.environ, "GNUPGHOME": str(folder / "gnupg")}
        (folder / "gnupg").mkdir(mode=0o700)
        self.stub = _stub(folder)
        self.keys: dict[str, Key] = {}
        self._past: set[str] = set()
        self._kept: dict[tuple[str, str, str], tuple[Package, bytes]] = {}
        self._standard: dict[str, list[Package]] = {}
        self._changed: set[str] = set()
        self._now: dict[str, list[Package]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._publish_all()

    # --- content

    def _publish_all(self) -> None:
        self._standard = {
            "ubuntu": ubuntu_packages.archive(KERNELS, self.stub),
            **vendor_packages.standard(self.stub),
        }
        for name, packages in self._standard.items():
            self._write(name, packages)

    def packages(self, name: str) -> list[Package]:
        """What the repository holds when nothing is changed."""
        return list(self._standard[name])

    def on_sale(self, name: str) -> list[Package]:
        """What it holds now."""
        return list(self._now.get(name, self._standard[name]))

    def publish(self, name: str, packages: Iterable[Package]) -> None:
        """Let the repository hold these and no others, until `reset`."""
        self._changed.add(name)
        self._now[name] = list(packages)
        self._write(name, self._now[name])

    def archive(self, kernels: tuple[Kernel, ...] = KERNELS, modules_for: tuple[Kernel, ...] | None = None) -> None:
        """Ubuntu's archive with these kernels, and prebuilt modules for some of them only."""
        self.publish("ubuntu", ubuntu_packages.archive(kernels, self.stub, modules_for))

    def reset(self) -> None:
        """As at the beginning: contents, signatures, no faults, somebody who answers."""
        self.faults()
        for name in sorted(self._changed):
            self._write(name, self._standard[name])
        self._changed.clear()
        self._now.clear()
        (self.www / "requests.log").unlink(missing_ok=True)
        self.answer()

    def faults(self, **matches: str) -> None:
        """What goes wrong: `faults(hash=r"docker[.]io_")` spoils that package. See server.FAULTS; none: all is well.

        Names of faults that are numbers are written with a letter before: `f500`.
        """
        rules = [
            {"match": match, "fault": fault.removeprefix("f") if fault[1:].isdecimal() else fault}
            for fault, match in matches.items()
        ]
        (self.www / "faults.json").write_text(json.dumps(rules))

    def requests(self) -> list[str]:
        """HOST/PATH of everything that was asked for since the last reset, in order."""
        try:
            return [line.partition(" ")[0] for line in (self.www / "requests.log").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def key(self, name: str) -> Key:
        """The signing key of a keyring; made at the first time."""
        if name not in self.keys:
            self._gpg("--passphrase", "", "--quick-gen-key", f"{name} <{name}@example.invalid>", "ed25519", "sign", "0")
            listed = self._gpg("--list-keys", "--with-colons", f"{name}@example.invalid").decode()
            fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
            self.keys[name] = Key(
                fingerprint, self._gpg("--armor", "--export", fingerprint), self._gpg("--export", fingerprint)
            )
        return self.keys[name]

    def expired(self, name: str) -> Key:
        """A key whose time was over long ago; what it signs is signed in its time."""
        if name not in self.keys:
            past = ("--faked-system-time", EXPIRED)
            self._gpg(*past, "--passphrase", "", "--quick-gen-key", f"{name}@example.invalid", "ed25519", "sign", "1d")
            listed = self._gpg("--list-keys", "--with-colons", f"{name}@example.invalid").decode()
            mark = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
            self.keys[name] = Key(mark, self._gpg("--armor", "--export", mark), self._gpg("--export", mark))
            self._past.add(name)
        return self.keys[name]

    def sign(self, release: Path, key: str, **changes: str) -> None:
        """Sign a Release file; `changes` set fields of it (`Valid_Until`, `Date`)."""
        content = release.read_text()
        for name, value in changes.items():
            field = name.replace("_", "-")
            content = re.sub(rf"^{field}:.*\n", "", content, flags=re.MULTILINE)
            content = f"{field}: {value}\n{content}"
        release.write_text(content)
        self._gpg(
            *(("--faked-system-time", EXPIRED) if key in self._past else ()),
            "--yes",
            "--local-user",
            self.key(key).fingerprint,
            "--clearsign",
            "-o",
            f"{release.parent}/InRelease",
            str(release),
        )

    def releases(self, name: str) -> list[Path]:
        """The Release files of a repository."""
        if name == "ubuntu":
            return [self.www / host / "ubuntu/dists" / suite / "Release" for host in UBUNTU for suite in SUITES[host]]
        row = catalogue().repository(name)
        top = self._place(row.uris[0])
        return [top / "Release" if row.suite == "/" else top / "dists" / row.suite / "Release"]

    def keyring_of(self, name: str) -> str:
        """The name of the key that a repository is signed with: rows that share a keyring share it."""
        return "ubuntu" if name == "ubuntu" else Path(catalogue().repository(name).keyring).stem

    def resign(self, name: str, key: str | None = None, **changes: str) -> None:
        """Sign a repository anew, with another key or with changed fields; `reset` undoes it."""
        self._changed.add(name)
        for release in self.releases(name):
            self.sign(release, key or self.keyring_of(name), **changes)

    def serve_key(self, name: str, content: bytes) -> None:
        """Let the address of the repository's key answer with this; `reset` undoes it."""
        self._changed.add(name)
        self._place(catalogue().repository(name).key_url).write_bytes(content)

    def _place(self, url: str) -> Path:
        parts = urlsplit(url)
        assert parts.hostname
        return self.www / parts.hostname / parts.path.strip("/")

    def _write(self, name: str, packages: list[Package]) -> None:
        if name == "ubuntu":
            for host in UBUNTU:
                top = self.www / host / "ubuntu"
                for suite in SUITES[host]:
                    held = packages if suite in ("noble-updates",) else []
                    self._dists(top, suite, COMPONENTS, held, "ubuntu", "Ubuntu")
            return
        row = catalogue().repository(name)
        key = self.key(self.keyring_of(name))
        place = self._place(row.key_url)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(key.binary + key.armoured if row.key_bundle else key.armoured)
        top = self._place(row.uris[0])
        if row.suite == "/":
            self._flat(top, row, packages)
        else:
            self._dists(top, row.suite, row.components, packages, self.keyring_of(name), row.origin or row.name)

    def _flat(self, top: Path, row: Repository, packages: list[Package]) -> None:
        top.mkdir(parents=True, exist_ok=True)
        index = "\n".join(entry(each, self._put(top, each), f"./{each.archive}") for each in packages).encode()
        self._release(top, {"Packages": index, "Packages.gz": gzip.compress(index, 1, mtime=0)}, "", "", row.name)
        self.sign(top / "Release", self.keyring_of(row.name))

    def _dists(
        self, top: Path, suite: str, components: tuple[str, ...], packages: list[Package], key: str, origin: str
    ) -> None:
        at = top / "dists" / suite
        indices = {}
        for component in components:
            held = packages if component == components[0] else []
            index = "\n".join(
                entry(each, self._put(top / "pool", each), f"pool/{each.archive}") for each in held
            ).encode()
            indices[f"{component}/binary-amd64/Packages"] = index
            indices[f"{component}/binary-amd64/Packages.gz"] = gzip.compress(index, 1, mtime=0)
        self._release(at, indices, suite, " ".join(components), origin)
        self.sign(at / "Release", key)

    def _release(self, at: Path, indices: dict[str, bytes], suite: str, components: str, origin: str) -> None:
        fields = {
            "Origin": origin,
            "Label": origin,
            "Suite": suite,
            "Codename": suite,
            "Architectures": "amd64",
            "Components": components,
            # an hour ago: a guest's clock is this machine's
            "Date": formatdate(time.time() - 3600, usegmt=True).replace("GMT", "UTC"),
        }
        lines = [f"{name}: {value}\n" for name, value in fields.items() if value]
        lines.append("SHA256:\n")
        for name, content in indices.items():
            place = at / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n")
        (at / "Release").write_text("".join(lines))

    def _put(self, folder: Path, package: Package) -> bytes:
        content = self.deb(package)
        place = folder / package.archive
        if not place.exists() or place.stat().st_size != len(content) or place.read_bytes() != content:
            folder.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return content

    def deb(self, package: Package) -> bytes:
        """The package's bytes, made once."""
        mark = (package.name, package.version, package.arch)
        kept = self._kept.get(mark)
        if kept is None or kept[0] is not package:
            kept = (package, build(package))
            self._kept[mark] = kept
        return kept[1]

    def _gpg(self, *arguments: str) -> bytes:
        return subprocess.run(
            ["gpg", "--batch", "--quiet", "--no-tty", *arguments], env=self._environ, check=True, capture_output=True
        ).stdout

    # --- the network

    def hosts(self) -> tuple[str, ...]:
        """Every host that answers."""
        return tuple(sorted(place.name for place in self.www.iterdir() if place.is_dir()))

    def start(self) -> None:
        """Make the network of its own and answer in it; the certificate is for every host."""
        names = ",".join(f"DNS:{host}" for host in self.hosts())
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", str(self.folder / "tls.key"), "-out", str(self.folder / "tls.crt"), "-days", "2"),
                *("-subj", "/CN=lab", "-addext", f"subjectAltName={names}"),
            ],
            check=True,
            capture_output=True,
        )
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)
        self.answer()

    def answer(self) -> None:
        """Start the servers again; those that answer go on."""
        if self._process is not None and self._process.poll() is None:
            return
        server = Path(__file__).with_name("server.py")
        parts = (str(self.www), str(self.folder / "tls.crt"), str(self.folder / "tls.key"))
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", sys.executable, "-I", str(server), *parts],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", (self.folder / "server.log").read_text()[-2000:]

    def hush(self) -> None:
        """Nobody answers any more: the network is down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def close(self) -> None:
        self.hush()
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True)
        subprocess.run(["gpgconf", "--kill", "all"], env=self._environ, check=False, capture_output=True)


def _stub(folder: Path) -> bytes:
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(_STUB)
    argv = (compiler(), "-shared", "-fPIC", f"-I{STUBS}", "-Wl,-soname,libnvidia-ml.so.1")
    subprocess.run((*argv, "-o", str(library), str(source)), check=True)
    return library.read_bytes()


@contextmanager
def repositories(folder: Path) -> Iterator[Repositories]:
    """Everything published and answering, in a network that no guest and nobody else gets out of."""
    made = Repositories(folder, f"gpu-setup-lab-{os.getpid()}")
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder / "gnupg", ignore_errors=True)
