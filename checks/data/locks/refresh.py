"""Maintains the training stacks: writes their locks, checks that they match, queries registries for newer versions.

`python checks/data/locks/refresh.py locks|torch [STACK…]|check|registry [--write]`. `locks` needs uv and a package
index and writes each lock (stacks may share one) for Python 3.11 to 3.13, with the hashes of every wheel. torch is
left out: its builds differ by index, so it is installed separately (harness/environment, containers/templates).
`torch` needs uv and torch's own indexes, and writes torch-*.txt: the hashes of torch's wheels, and of the libraries
that only its index has. `check` needs nothing.
`registry` prints what PyPI, torch's indexes and Docker Hub offer besides the pinned versions, and reports registries
that do not respond; with `--write` the bases' digests and their date go into stacks.toml. Run it from the checkout.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.catalogue import BaseImage, Stack

HERE = Path(__file__).parent
STACKS = HERE.parent / "stacks.toml"
sys.path.insert(0, str(HERE.parents[2]))

PYPI = "https://pypi.org"
HUB = "https://registry-1.docker.io"
HUB_LOGIN = "https://auth.docker.io"
INDEX = "application/vnd.oci.image.index.v1+json"

COMPILE = ("uv", "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header",
           "--no-annotate", "--quiet")  # fmt: skip
PATIENCE = 15


def compile_requirements(source: str, *options: str) -> str:
    argv = (*COMPILE, *options, str(HERE / source))
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def write_locks() -> None:
    everything = compile_requirements("training.in", "--no-emit-package", "torch")
    # packages that only torch's CUDA 13 build needs; the CPU build does not import them, and the builds for CUDA 12 and
    # ROCm get their own from an index that may not respond here (torch_brings in stacks.toml)
    gpu_only = sorted(set(re.findall(r"^(nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==", everything, re.MULTILINE)))
    without = [word for name in ["torch", *gpu_only] for word in ("--no-emit-package", name)]
    carriers = compile_requirements("carriers.in", "--no-deps")
    plain = compile_requirements("training.in", *without) + carriers
    # torch for ROCm brings triton-rocm, which replaces triton
    rocm = compile_requirements("training.in", *without, "--no-emit-package", "triton") + carriers
    texts = {"common": plain, "cu130": everything + carriers, "rocm": rocm}
    for name, text in texts.items():
        (HERE / f"{name}.txt").write_text(text, encoding="utf-8")


def write_torch_locks(names: list[str]) -> None:
    """The lock of each build of torch of the named stacks (of all, without names); what cannot be read is reported."""
    from checks.catalogue import catalogue

    for stack in (row for row in catalogue().stacks if not names or row.name in names):
        if stack.torch_extras:
            sys.stdout.write(f"{stack.name}: skipped: its libraries differ by card, which one lock cannot hold\n")
            continue
        for build, lock in stack.usable_builds.items():
            name = lock or f"torch-{stack.name}.txt"
            text = torch_lock(stack, build)
            if text is None:
                continue
            (HERE / name).write_text(text, encoding="utf-8")
            row = "" if lock else f'; now write torch_builds = {{ "{build}" = "{name}" }} into stacks.toml'
            sys.stdout.write(f"{name}: written{row}\n")


def torch_lock(stack: Stack, build: str) -> str | None:
    """The requirement for this build and for what it brings, with every hash that its index lists; None: no answer."""
    index = stack.torch_index if "+" in build else f"{PYPI}/simple"
    alone = () if stack.torch_brings or build in stack.torch_fallback else ("--no-deps",)
    argv = (*COMPILE, *alone, "--index-url", index, "-")
    done = subprocess.run(argv, input=f"torch=={build}\n", capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(f"{stack.name}: {index}: {done.stderr.strip()}\n")
        return None
    locked = (HERE / stack.lock).read_text(encoding="utf-8") if stack.lock else ""
    ours = set(re.findall(r"(?m)^([A-Za-z0-9._-]+)==", locked))
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", done.stdout)
    kept = "".join(block for block in blocks if block.partition("==")[0] not in ours)
    if "+" not in build:
        # == would take a build with a local part too
        kept = kept.replace(f"torch=={build}", f"torch==={build}")
    day = datetime.now(UTC).date().isoformat()
    source = f"# Source: {index}/torch/, read by refresh.py. Date: {day}\n"
    return f"# torch {build}: every wheel that its index lists.\n{source}{kept}"


def problems() -> list[str]:
    """Problems in the stacks: floors, locks, bases, and cards without a stack or a reason."""
    from checks.catalogue import catalogue

    known = catalogue()
    found = []
    for vendor in ("nvidia", "amd"):
        found += floors_that_fall([row for row in known.stacks if row.vendor == vendor])
    for stack in known.stacks:
        base = known.base(stack.base)
        if base is None or base.digest is None or base.python not in stack.pythons:
            found.append(f"{stack.name}: its base {stack.base} is unknown, has no digest, or a Python without a lock")
        if stack.driver_floor and stack.driver_floor.partition(".")[0] != str(stack.driver_branch):
            found.append(f"{stack.name}: driver {stack.driver_floor} is not of branch {stack.driver_branch}")
        found += wrong_lock(stack)
    for card in known.cards:
        if not known.stacks_for(card) and not (card.note or card.integrated):
            found.append(f"{card.name}: no stack has kernels for {card.target}, and no note says why")
    return found


def floors_that_fall(stacks: list[Stack]) -> list[str]:
    """Pairs of one vendor's stacks where the newer runtime would run on an older driver or kernel than the older."""
    from checks.rules.cards import numbers

    found = []
    rows = sorted(stacks, key=lambda row: numbers(row.runtime.partition(" ")[2]))
    for older, newer in pairwise(rows):
        pairs = [("its floor", older.driver_floor or older.kernel_floor, newer.driver_floor or newer.kernel_floor)]
        shared = older.kernel_floors.keys() & newer.kernel_floors.keys()
        pairs += [(target, older.kernel_floors[target], newer.kernel_floors[target]) for target in sorted(shared)]
        for what, lower, upper in pairs:
            if lower is None or upper is None or numbers(upper) < numbers(lower):
                found.append(f"{newer.name}: {what} {upper} is below {lower} of {older.name}, or one is missing")
    return found


def wrong_lock(stack: Stack) -> list[str]:
    """A lock that is missing, or that pins another Axolotl or bitsandbytes than the stack says."""
    if stack.lock is None or not (HERE / stack.lock).is_file():
        return [f"{stack.name}: no lock"]
    text = (HERE / stack.lock).read_text(encoding="utf-8")
    missing = [lock for lock in stack.usable_builds.values() if lock and not (HERE / lock).is_file()]
    if missing:
        return [f"{stack.name}: no lock {', '.join(missing)}"]
    pins = {"axolotl": stack.axolotl, "bitsandbytes": stack.bitsandbytes}
    return [
        f"{stack.name}: its lock does not pin {name} {version}"
        for name, version in pins.items()
        if not re.search(rf"^{name}=={re.escape(version)}[ ;]", text, re.MULTILINE)
    ]


def answer(url: str, method: str = "GET", **headers: str) -> tuple[bytes, dict[str, str]] | None:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as got:
            return got.read(), {name.lower(): value for name, value in got.headers.items()}
    except OSError as error:
        sys.stderr.write(f"{url.partition('?')[0]}: no response ({error})\n")
        return None


def report_registries(write: bool) -> None:
    """Print offered and pinned versions; a registry that does not respond is reported, and the others still queried."""
    from checks.catalogue import catalogue

    known = catalogue()
    for package in ("torch", "axolotl", "bitsandbytes"):
        report_package(package, known.stacks)
    for stack in known.stacks:
        report_torch(stack)
    for base in (row for row in known.bases if row.digest):
        digest = digest_now(base.image)
        if digest is None:
            continue
        sys.stdout.write(f"{base.image}: now {digest}, pinned {base.digest}\n")
        if write and digest != base.digest:
            write_digest(base, digest, datetime.now(UTC).date().isoformat())
            sys.stdout.write("written; now: python -m checks.catalogue, and python -m tests.containers.golden\n")


def report_package(package: str, stacks: tuple[Stack, ...]) -> None:
    from packaging.requirements import Requirement

    got = answer(f"{PYPI}/pypi/{package}/json")
    if got is None:
        return
    pinned = sorted({getattr(stack, package) for stack in stacks})
    sys.stdout.write(f"{package}: newest {json.loads(got[0])['info']['version']}, pinned {', '.join(pinned)}\n")
    for version in pinned if package == "axolotl" else ():
        # Axolotl's metadata list the torch versions it supports
        own = answer(f"{PYPI}/pypi/axolotl/{version}/json")
        asked = [Requirement(word) for word in json.loads(own[0])["info"]["requires_dist"] or ()] if own else []
        for word in (word for word in asked if word.name == "torch" and word.marker is None):
            refused = [row.name for row in stacks if row.axolotl == version and row.torch not in word.specifier]
            sys.stdout.write(
                f"axolotl {version} requires torch {word.specifier}; not met by: {', '.join(refused) or 'none'}\n"
            )


def report_torch(stack: Stack) -> None:
    """Whether the stack's own index still offers the pinned torch, and its newest."""
    from packaging.version import Version

    got = answer(f"{stack.torch_index.rstrip('/')}/torch/")
    if got is None:
        return
    names = re.findall(rb">torch-([0-9][^-<]*)-", got[0])
    offered = sorted({Version(name.decode().replace("%2B", "+")) for name in names})
    found = any(stack.torch in (str(version), version.public) for version in offered)
    newest = str(offered[-1]) if offered else "none"
    sys.stdout.write(
        f"{stack.name}: torch {stack.torch} is {'offered' if found else 'NOT OFFERED'} at {stack.torch_index}, "
        f"newest {newest}\n"
    )


def digest_now(image: str) -> str | None:
    """The digest of the image's index on Docker Hub; None if it does not respond."""
    name, _, tag = image.partition(":")
    path = name if "/" in name else f"library/{name}"
    login = answer(f"{HUB_LOGIN}/token?service=registry.docker.io&scope=repository:{path}:pull")
    if login is None:
        return None
    headers = {"Authorization": f"Bearer {json.loads(login[0])['token']}", "Accept": INDEX}
    got = answer(f"{HUB}/v2/{path}/manifests/{tag}", "HEAD", **headers)
    digest = got[1].get("docker-content-digest") if got else None
    return digest if digest and re.fullmatch("sha256:[0-9a-f]{64}", digest) else None


def write_digest(base: BaseImage, digest: str, day: str) -> None:
    """Put the digest into the base's row of stacks.toml, with its source; everything else is unchanged."""
    rows = STACKS.read_text(encoding="utf-8").split("[[bases]]\n")
    fields = {"digest": digest, "source": f"{HUB} (the index of {base.image})", "date": day}
    fields["note"] = "the index's digest as the registry gave it; not pulled by this project: unverified"
    for number, row in enumerate(rows):
        if f'image = "{base.image}"\n' in row:
            for key, value in fields.items():
                row = re.sub(rf'^{key} = ".*"$', f'{key} = "{value}"', row, count=1, flags=re.MULTILINE)
            rows[number] = row
    STACKS.write_text("[[bases]]\n".join(rows), encoding="utf-8")


def main() -> int:
    task = sys.argv[1] if len(sys.argv) > 1 else "check"
    if task == "locks":
        write_locks()
    elif task == "torch":
        write_torch_locks(sys.argv[2:])
    elif task == "registry":
        report_registries(write="--write" in sys.argv[2:])
    elif task == "check":
        found = problems()
        sys.stdout.write("\n".join(found) + "\n" if found else "no problems found in the stacks\n")
        return 1 if found else 0
    else:
        sys.stderr.write(__doc__ or "")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
