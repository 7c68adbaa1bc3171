"""Verifies the image from inside a container: prints one line of JSON at the end, which begins with MARK.

`python -m gpu_setup_worker.verify [--cuda 13.0|--hip 7.2] [--target 8.6 …] [--lock FILE] [--torch X] [--recipe FILE …]`
Checks are independent; one that crashes is a fail and the others still run. Statuses: pass, fail, skip (with the
reason), stub (the device is simulated by a test, so nothing was verified).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

MARK = "gpu-setup-verify: "
# where torch's wheels for CUDA and ROCm put a device's file
DEVICE_FILES = ("/dev/nvidia0", "/dev/kfd")
# the character device of /dev/null, which tests map to a card's name
NULL = (1, 3)


class Result(NamedTuple):
    """`values`: the observed numbers and texts."""

    status: str
    reason: str
    values: Mapping[str, Any] = MappingProxyType({})


class ExpectedImage(NamedTuple):
    """What the image should contain. `cuda` and `hip`: how torch.version's values begin; None: they must be absent."""

    cuda: str | None
    hip: str | None
    targets: list[str]
    lock: Path
    torch: str | None
    recipes: list[Path]
    network: bool

    @property
    def cpu_only(self) -> bool:
        return self.cuda is None and self.hip is None


def device(given: ExpectedImage) -> str:
    """The device to compute on: cuda (also for ROCm), cpu, stub or none."""
    if given.cpu_only:
        return "cpu"
    for name in DEVICE_FILES:
        try:
            found = os.stat(name)
        except OSError:
            continue
        if stat.S_ISCHR(found.st_mode) and (os.major(found.st_rdev), os.minor(found.st_rdev)) == NULL:
            return "stub"
    import torch

    return "cuda" if torch.cuda.is_available() else "none"


def no_device(where: str) -> Result | None:
    """The result of a check that needs a device, if there is none."""
    if where == "stub":
        return Result("stub", "the device is simulated: nothing can be computed on it")
    if where == "none":
        return Result("fail", "the image is for a card, but no card is visible in the container")
    return None


def check_user(given: ExpectedImage) -> Result:
    uid = os.getuid()
    caps = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    effective = int(caps[1], 16) if caps else None
    values = {"uid": uid, "capabilities": effective}
    # in a rootless engine uid 0 is the user, not root, as the map of uids shows
    mapped = Path("/proc/self/uid_map").read_text().split()[:2]
    if uid == 0 and mapped == ["0", "0"]:
        return Result("fail", "the process is root", values)
    if effective and uid != 0:
        return Result("fail", f"the process has capabilities: {effective:#x}", values)
    return Result("pass", f"uid {uid}, no capabilities" if not effective else f"uid {uid} of a rootless engine", values)


def check_network(given: ExpectedImage) -> Result:
    names = sorted(place.name for place in Path("/sys/class/net").iterdir())
    # the kernel shows tunnels in every namespace; they carry nothing until they are set up
    live = [n for n in names if n != "lo" and int((Path("/sys/class/net") / n / "flags").read_text(), 16) & 1]
    if live and not given.network:
        return Result("fail", f"the container has a network: {', '.join(live)}")
    return Result("pass", "no network" if not live else ", ".join(live))


def check_torch(given: ExpectedImage) -> Result:
    import torch

    found = {"torch": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
    for name, wanted in (("cuda", given.cuda), ("hip", given.hip)):
        version = found[name]
        if wanted is None and version is not None:
            return Result("fail", f"torch is built for {name.upper()} {version}, but this image is not", found)
        if wanted is not None and not (version or "").startswith(wanted):
            return Result("fail", f"torch is built for {name.upper()} {version}, expected {wanted}", found)
    if given.torch and torch.__version__.partition("+")[0] != given.torch.partition("+")[0]:
        return Result("fail", f"torch is {torch.__version__}, expected {given.torch}", found)
    return Result("pass", f"torch {torch.__version__}", found)


def covers(targets: list[str], kernels: list[str]) -> list[str]:
    """The targets without a kernel. A CUDA kernel runs on its major version from its minor version on; PTX runs on
    anything newer.
    """
    missing = []
    for target in targets:
        if target.startswith("gfx"):
            fits = target in {kernel.partition(":")[0] for kernel in kernels}
        else:
            major, minor = map(int, target.split("."))
            pairs = [
                (m[1], int(m[2]), int(m[3])) for k in kernels if (m := re.match(r"(sm|compute)_(\d+)(\d)[a-z]*$", k))
            ]
            fits = any(
                (kind == "sm" and ma == major and mi <= minor) or (kind == "compute" and (ma, mi) <= (major, minor))
                for kind, ma, mi in pairs
            )
        if not fits:
            missing.append(target)
    return missing


def check_kernels(given: ExpectedImage) -> Result:
    if given.cpu_only:
        return Result("skip", "the CPU needs no GPU kernels")
    import torch

    # get_arch_list is empty without a device; the build's own list is not
    kernels = torch._C._cuda_getArchFlags().split()
    missing = covers(given.targets, kernels)
    if missing:
        return Result("fail", f"torch has no kernels for {', '.join(missing)}", {"kernels": kernels})
    return Result(
        "pass", f"kernels for {', '.join(given.targets) or 'no card: none was requested'}", {"kernels": kernels}
    )


def check_versions(given: ExpectedImage) -> Result:
    from packaging.markers import Marker

    wanted = {}
    line = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)
    for name, version, marker in line.findall(given.lock.read_text(encoding="utf-8")):
        if not marker or Marker(marker).evaluate():
            wanted[name] = version
    wrong = []
    for name, version in wanted.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "absent"
        if found != version:
            wrong.append(f"{name} {found}, expected {version}")
    if wrong:
        return Result("fail", "; ".join(wrong[:5]), {"wrong": len(wrong)})
    return Result("pass", f"{len(wanted)} packages have the lock's versions", {"packages": len(wanted)})


def check_bitsandbytes(given: ExpectedImage) -> Result:
    import bitsandbytes
    from bitsandbytes import cextension

    library = cextension.lib
    name = Path(getattr(getattr(library, "_lib", None), "_name", "") or "").name
    values = {"version": bitsandbytes.__version__, "library": name, "class": type(library).__name__}
    if "Error" in type(library).__name__ or not name:
        return Result("fail", "bitsandbytes could not load its library", values)
    kind = "cuda" if given.cuda else "rocm" if given.hip else "cpu"
    if kind not in name:
        return Result("fail", f"bitsandbytes loaded {name}, expected a library for {kind}", values)
    return Result("pass", name, values)


def check_kernel_runs(given: ExpectedImage, where: str) -> Result:
    import torch

    if (answer := no_device(where)) is not None:
        return answer
    chance = torch.Generator().manual_seed(1)
    a, b = (torch.randint(-8, 9, (256, 256), generator=chance).float() for _ in range(2))
    # small whole numbers: the product is exact in float32 whatever the order of its sums, also in TF32
    if not torch.equal((a.to(where) @ b.to(where)).cpu(), a @ b):
        return Result("fail", "a matrix product of whole numbers is wrong")
    name = torch.cuda.get_device_name(0) if where == "cuda" else "the CPU"
    return Result("pass", f"a matrix product on {name} is exact", {"device": name})


def check_compiler(given: ExpectedImage) -> Result:
    """What Triton does at each first start: compile a C extension against Python.h and load it."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "probe.c", Path(folder) / "probe.so"
        source.write_text("#include <Python.h>\nint answer(void) { return 42; }\n", encoding="utf-8")
        argv = ["gcc", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", str(source), "-o", str(library)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        if done.returncode:
            return Result("fail", f"gcc or Python.h is missing: {done.stderr.strip()[-300:]}")
        import ctypes

        answer = ctypes.CDLL(str(library)).answer()
    return Result("pass" if answer == 42 else "fail", "a C extension compiles against Python.h and loads")


def check_triton(given: ExpectedImage, where: str) -> Result:
    """Compiles a kernel for each card's target, which needs no card; with a card it also runs."""
    if given.cpu_only:
        import triton

        return Result("skip", "Triton has no back end for the CPU; it can be imported", {"triton": triton.__version__})
    from gpu_setup_worker.triton_check import add_on_device, compiled_size

    sizes = {target: compiled_size(target) for target in given.targets}
    if where != "cuda":
        status = "stub" if where == "stub" else "fail"
        return Result(status, f"kernels compile for {', '.join(sizes)}; none could run", sizes)
    if not add_on_device():
        return Result("fail", "a Triton kernel gives wrong sums", sizes)
    return Result("pass", f"kernels compile for {', '.join(sizes)} and run", sizes)


def check_nf4(given: ExpectedImage, where: str) -> Result:
    if (answer := no_device(where)) is not None:
        return answer
    from gpu_setup_worker.nf4_check import check, compute_dtype

    found, seen = check(where, compute_dtype(where))
    worst = max(found, key=lambda each: each.of_bound)
    values = {"worst": worst.what, "of_bound": worst.of_bound, "faults_seen": seen}
    broken = [each.what for each in found if not each.passed]
    if broken:
        return Result("fail", f"NF4 arithmetic is wrong: {', '.join(broken)}", values)
    if not all(seen.values()):
        return Result("fail", "the comparison did not detect an injected fault", values)
    return Result("pass", f"{len(found)} comparisons within rounding; {len(seen)} injected faults detected", values)


def check_recipes(given: ExpectedImage) -> Result:
    if not given.recipes:
        return Result("skip", "no recipe was given")
    import torch
    import yaml
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    major, minor = (int(part) for part in (given.targets or ["8.0"])[0].split(".")[:2]) if _numeric(given) else (9, 0)
    capabilities = {"bf16": major >= 8, "fp8": False, "n_gpu": 1, "compute_capability": f"sm_{major}{minor}"}
    for recipe in given.recipes:
        config = DictDefault(yaml.safe_load(recipe.read_text(encoding="utf-8")))
        try:
            validate_config(config, capabilities, {"torch_version": torch.__version__.split("+")[0]})
        except ValueError as error:
            return Result("fail", f"Axolotl refuses {recipe.name}: {' '.join(str(error).split())[:300]}")
    return Result("pass", f"Axolotl accepts {', '.join(recipe.stem for recipe in given.recipes)}")


def _numeric(given: ExpectedImage) -> bool:
    return not given.targets or given.targets[0][0].isdigit()


def checks(given: ExpectedImage, where: str) -> list[tuple[str, str, Callable[[], Result]]]:
    """Id, title and function of every check, in the order in which they are printed."""
    return [
        ("user", "Runs without root", lambda: check_user(given)),
        ("network", "Needs no network", lambda: check_network(given)),
        ("torch", "torch is the vendor's build", lambda: check_torch(given)),
        ("kernels", "torch has kernels for the cards", lambda: check_kernels(given)),
        ("versions", "Installed versions match the lock", lambda: check_versions(given)),
        ("bitsandbytes", "bitsandbytes loads its library", lambda: check_bitsandbytes(given)),
        ("device", "The device computes", lambda: check_kernel_runs(given, where)),
        ("compiler", "C extensions compile", lambda: check_compiler(given)),
        ("triton", "Triton compiles", lambda: check_triton(given, where)),
        ("nf4", "NF4 arithmetic is correct", lambda: check_nf4(given, where)),
        ("recipes", "Axolotl accepts the recipes", lambda: check_recipes(given)),
    ]


def verify(given: ExpectedImage) -> dict[str, Any]:
    where = device(given)
    rows = []
    for name, title, ask in checks(given, where):
        try:
            result = ask()
        except Exception as error:
            traceback.print_exc()
            result = Result("fail", f"{type(error).__name__}: {error}"[:400])
        print(f"verified {name}", flush=True)
        rows.append({"id": name, "title": title, **result._asdict(), "values": dict(result.values)})
    return {"device": where, "python": sys.version.split()[0], "checks": rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.verify")
    parser.add_argument("--cuda")
    parser.add_argument("--hip")
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--lock", type=Path, default=Path("/opt/gpu-setup/lock.txt"))
    parser.add_argument("--torch")
    parser.add_argument("--recipe", type=Path, action="append", default=[])
    parser.add_argument("--network", action="store_true", help="a network is allowed")
    given = parser.parse_args()
    answer = verify(
        ExpectedImage(given.cuda, given.hip, given.target, given.lock, given.torch, given.recipe, given.network)
    )
    print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
