"""Keeps the training stacks: writes their locks anew, checks that they fit together, asks registries what is newer.

`python checks/data/locks/refresh.py locks|check|registry`. `locks` needs uv and a package index and writes one file a
stack, for Python 3.11 to 3.13, with the hashes of every wheel. torch is left out: its builds differ by index, so it is
installed by a call of its own (harness/environment.py, containers/templates). `check` needs nothing; `registry` prints
what PyPI and Docker Hub offer beside what is pinned, and says where one does not answer. Run it from the checkout.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

COMPILE = ("uv", "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header",
           "--no-annotate", "--quiet")  # fmt: skip
PATIENCE = 15


def compiled(source: str, *options: str) -> str:
    argv = (*COMPILE, *options, str(HERE / source))
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def write_locks() -> None:
    everything = compiled("training.in", "--no-emit-package", "torch")
    # what only torch's CUDA 13 build brings; the CPU build does not import it, and the builds for CUDA 12 and ROCm
    # bring their own from an index that may not answer here (torch_brings in stacks.toml)
    gpu_only = sorted(set(re.findall(r"^(nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==", everything, re.MULTILINE)))
    without = [word for name in ["torch", *gpu_only] for word in ("--no-emit-package", name)]
    carriers = compiled("carriers.in", "--no-deps")
    plain = compiled("training.in", *without) + carriers
    # torch for ROCm brings triton-rocm, which lies at triton's place
    rocm = compiled("training.in", *without, "--no-emit-package", "triton") + carriers
    texts = {"cpu": plain, "cu126": plain, "cu130": everything + carriers, "rocm7.2": rocm, "rocm10.0": rocm}
    for name, text in texts.items():
        (HERE / f"{name}.txt").write_text(text, encoding="utf-8")


def problems() -> list[str]:
    """What does not fit together in the stacks: floors, locks, bases, and cards without a stack or a reason."""
    from checks.catalogue import catalogue
    from checks.rules.cards import numbers

    known = catalogue()
    found = []
    for vendor in ("nvidia", "amd"):
        rows = sorted((row for row in known.stacks if row.vendor == vendor), key=lambda row: numbers(row.runtime[5:]))
        floors = [numbers(row.driver_floor or row.kernel_floor) for row in rows]
        if floors != sorted(floors):
            found.append(f"{vendor}: a newer runtime has a lower floor: {[row.name for row in rows]}")
    for stack in known.stacks:
        base = known.base(stack.base)
        if base is None or base.digest is None or base.python not in stack.pythons:
            found.append(f"{stack.name}: its base {stack.base} is unknown, has no digest, or a Python without a lock")
        if stack.lock is None or not (HERE / stack.lock).is_file():
            found.append(f"{stack.name}: no lock")
    for card in known.cards:
        if not known.stacks_for(card) and not (card.note or card.integrated):
            found.append(f"{card.name}: no stack has kernels for {card.target}, and no note says why")
    return found


def answer(url: str, accept: str | None = None, method: str = "GET") -> tuple[bytes, dict[str, str]] | None:
    request = urllib.request.Request(url, method=method, headers={"Accept": accept} if accept else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as got:
            return got.read(), {name.lower(): value for name, value in got.headers.items()}
    except OSError as error:
        sys.stderr.write(f"{url}: no answer ({error})\n")
        return None


def tell_registry() -> None:
    from checks.catalogue import catalogue

    known = catalogue()
    for package in ("torch", "axolotl", "bitsandbytes"):
        pinned = sorted({getattr(stack, package) for stack in known.stacks})
        if got := answer(f"https://pypi.org/pypi/{package}/json"):
            sys.stdout.write(f"{package}: newest {json.loads(got[0])['info']['version']}, pinned {', '.join(pinned)}\n")
    for base in (row for row in known.bases if row.digest):
        name, _, tag = base.image.partition(":")
        path = name if "/" in name else f"library/{name}"
        token = answer(f"https://auth.docker.io/token?service=registry.docker.io&scope=repository:{path}:pull")
        if token is None:
            continue
        request = urllib.request.Request(
            f"https://registry-1.docker.io/v2/{path}/manifests/{tag}",
            method="HEAD",
            headers={
                "Authorization": f"Bearer {json.loads(token[0])['token']}",
                "Accept": "application/vnd.oci.image.index.v1+json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as got:
                sys.stdout.write(f"{base.image}: now {got.headers['docker-content-digest']}, pinned {base.digest}\n")
        except OSError as error:
            sys.stderr.write(f"{base.image}: no answer ({error})\n")


def main() -> int:
    task = sys.argv[1] if len(sys.argv) > 1 else "check"
    if task == "locks":
        write_locks()
    elif task == "registry":
        tell_registry()
    elif task == "check":
        found = problems()
        sys.stdout.write("\n".join(found) + "\n" if found else "the stacks fit together\n")
        return 1 if found else 0
    else:
        sys.stderr.write(__doc__ or "")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
