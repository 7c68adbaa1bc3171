"""The installed Python environments: is their PyTorch built for this card, and bitsandbytes for that PyTorch?"""

from __future__ import annotations

import re
from collections.abc import Iterable

from checks.catalogue import VENDORS, Catalogue, Stack
from checks.facts.host import Host, PciCard, TrainingEnvironment
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, command, error, warning

_NONE = "No Python environment with PyTorch is active, and gpu-setup has built none here yet."
_RUNTIME_NAMES = {"cuda": "CUDA", "rocm": "ROCm"}
_BACKENDS = {"nvidia": "cuda", "amd": "rocm"}


def _environments_for(
    host: Host, catalogue: Catalogue, ours: Iterable[PciCard]
) -> tuple[TrainingEnvironment, ...] | None:
    """Environments for these cards, without gpu-setup's own for the CPU or for another vendor. None: not read."""
    if host.python.environments is None:
        return None
    vendors = {VENDORS[card.vendor] for card in ours}
    stacks = {stack.name for stack in catalogue.stacks if stack.vendor in vendors}
    return tuple(env for env in host.python.environments if env.stack is None or env.stack in stacks)


def _torch_runtime(env: TrainingEnvironment) -> tuple[str, tuple[int, ...]] | None:
    """(cuda, (13, 0)) or (rocm, (7, 2)); None for a build without GPU. ROCm's number is in the version's tag."""
    if env.torch_hip:
        tag = re.search(r"\+rocm([0-9]+(?:\.[0-9]+)+)", env.torch or "")
        return "rocm", cards.numbers(tag[1] if tag else env.torch_hip)[:2]
    return ("cuda", cards.numbers(env.torch_cuda)[:2]) if env.torch_cuda else None


def _torch_evidence(env: TrainingEnvironment) -> list[Seen]:
    built = f"CUDA {env.torch_cuda}" if env.torch_cuda else f"HIP {env.torch_hip}" if env.torch_hip else "no GPU"
    return [(f"{env.path}/lib/python{env.python}/site-packages/torch/version.py", f"{env.torch}, built for {built}")]


def _fix(env: TrainingEnvironment, card: PciCard | None, catalogue: Catalogue) -> Fix:
    """The build of the card's preferred stack, in the same environment."""
    if env.owner == "gpu-setup":
        return command("Remove the environment; gpu-setup rebuilds it.", "rm", "-r", env.path)
    row = cards.row_of(card, catalogue) if card else None
    stack = next(iter(cards.stacks(card, catalogue)), None) if card else None
    if stack is None or row is None:
        return command("Uninstall this PyTorch.", f"{env.path}/bin/python", "-m", "pip", "uninstall", "torch")
    return command(
        "Install the PyTorch build for the card, or train in gpu-setup's own environment.",
        *(f"{env.path}/bin/python", "-m", "pip", "install", "--force-reinstall"),
        *(stack.for_target(row.target).torch_requirement, "--index-url", stack.torch_index),
        verify=(f"{env.path}/bin/python", "-c", "import torch; print(torch.cuda.get_arch_list())"),
    )


def _not_read(ours: tuple[PciCard, ...]) -> Unknown:
    return Unknown("The Python environments could not be read.")


@check(
    "python.torch-build",
    "PyTorch is built for the card's vendor",
    about="By default pip installs PyTorch for CUDA or for the CPU only: `pip install axolotl` replaces a ROCm build "
    "with a CUDA build, and a wrong index or a Python that is too new installs `+cpu`. Reads torch/version.py of the "
    "active environment (VIRTUAL_ENV, CONDA_PREFIX) and of gpu-setup's own; nothing is imported.",
    by_hand='`python -c "import torch; print(torch.__version__, torch.version.cuda, torch.version.hip)"`. Install '
    "torch last, from your stack's index (`--index-url`), or use a constraints file that pins its build.",
    needs=(needs.GPU,),
)
def torch_build(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    environments = _environments_for(host, catalogue, ours)
    if environments is None:
        return _not_read(ours)
    able = {_BACKENDS[VENDORS[card.vendor]] for card in ours}
    findings, fine = [], []
    for env in (env for env in environments if env.torch):
        runtime = _torch_runtime(env)
        if runtime is not None and runtime[0] in able:
            fine.append(f"{env.path}: {env.torch}")
            continue
        brands = " and ".join(dict.fromkeys(cards.VENDOR_NAMES[card.vendor] for card in ours))
        findings.append(
            (error if env.owner == "gpu-setup" else warning)(
                env.path,
                f"PyTorch {env.torch} is a CPU-only build."
                if runtime is None
                else f"PyTorch {env.torch} is built for {_RUNTIME_NAMES[runtime[0]]}; the card is {brands}.",
                "It cannot use the card: torch.cuda.is_available() is False, and training is very slow.",
                _torch_evidence(env),
                _fix(env, ours[0], catalogue),
            )
        )
    return tuple(findings) or (Ok("; ".join(fine) + ".") if fine else Skip(_NONE))


def _lacks_kernels(card: PciCard, runtime: tuple[str, tuple[int, ...]], catalogue: Catalogue) -> bool:
    """Whether torch for this runtime has no kernels for the card, according to the stacks.

    Without a row for exactly this runtime the next ones decide: a build supports no later cards than the next newer
    one, and none that the next older one had already dropped.
    """
    row = cards.row_of(card, catalogue)
    fitting = cards.stacks(card, catalogue)
    if row is None or not fitting:
        return False
    kind = runtime[0]
    rows = [
        (cards.numbers(s.runtime.removeprefix(f"{kind} "))[:2], s) for s in catalogue.stacks if _has_runtime(s, kind)
    ]
    same = [stack for number, stack in rows if number == runtime[1]]
    if same:
        return all(row.target not in stack.targets for stack in same)
    older = max((pair for pair in rows if pair[0] < runtime[1]), key=lambda pair: pair[0], default=None)
    newer = min((pair for pair in rows if pair[0] > runtime[1]), key=lambda pair: pair[0], default=None)
    numbers = [number for number, stack in rows if row.target in stack.targets]
    if newer is not None and row.target not in newer[1].targets:
        return any(number > newer[0] for number in numbers)
    if older is not None and row.target not in older[1].targets:
        return any(number < older[0] for number in numbers)
    return False


def _has_runtime(stack: Stack, kind: str) -> bool:
    return stack.runtime.startswith(f"{kind} ")


@check(
    "python.torch-arch",
    "PyTorch has kernels for the card",
    about="Each build of PyTorch has kernels for certain architectures: CUDA 12.6 has none for Blackwell, CUDA 13 none "
    "for Volta, old ROCm builds none for RDNA4. Training then fails with `no kernel image is available`, `sm_120 is "
    "not compatible`, `hipErrorNoBinaryForGpu`. Compares the build in each environment with the catalogue's stacks.",
    by_hand='`python -c "import torch; print(torch.cuda.get_arch_list())"` must list the card\'s architecture. '
    "Otherwise install the build that `gpu-setup plan` names.",
    needs=(needs.GPU,),
    causes=("python.torch-build",),
)
def torch_arch(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    environments = _environments_for(host, catalogue, ours)
    if environments is None:
        return _not_read(ours)
    findings: list[Finding] = []
    checked = 0
    for env in (env for env in environments if env.torch):
        runtime = _torch_runtime(env)
        for card in ours:
            if runtime is None or runtime[0] != _BACKENDS[VENDORS[card.vendor]]:
                continue
            checked += 1
            if not _lacks_kernels(card, runtime, catalogue):
                continue
            row = cards.row_of(card, catalogue)
            findings.append(
                (error if env.owner == "gpu-setup" else warning)(
                    f"{env.path}, {cards.subject(card, catalogue)}",
                    f"PyTorch {env.torch} has no kernels for the card ({row.target if row else '?'}).",
                    "Its first computation on the card fails with `no kernel image is available`.",
                    _torch_evidence(env),
                    _fix(env, card, catalogue),
                )
            )
    if findings:
        return tuple(findings)
    return Ok("Every installed PyTorch has kernels for the card.") if checked else Skip(_NONE)


@check(
    "python.bitsandbytes",
    "bitsandbytes has a library for this PyTorch",
    about="bitsandbytes includes one library for each CUDA and ROCm version. It loads the one for PyTorch's version, "
    "or the nearest of the same major version; without one: `Configured CUDA/ROCm binary not found`. Versions older "
    "than the catalogue's minimum search for a wrong name with newer ROCm. BNB_CUDA_VERSION and BNB_ROCM_VERSION "
    "override the choice.",
    by_hand="`python -m bitsandbytes` shows which library it needs. Run `pip install -U bitsandbytes`, and unset "
    "BNB_CUDA_VERSION and BNB_ROCM_VERSION.",
    needs=(needs.GPU,),
    causes=("python.torch-build",),
)
def bitsandbytes(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    environments = _environments_for(host, catalogue, ours)
    if environments is None:
        return _not_read(ours)
    findings, fine = [], []
    for env in (env for env in environments if env.bitsandbytes and env.torch and _torch_runtime(env)):
        problem = _bitsandbytes_problem(env, host, catalogue)
        if problem is None:
            fine.append(f"{env.path}: {env.bitsandbytes}")
            continue
        summary, seen = problem
        folder = f"{env.path}/lib/python{env.python}/site-packages/bitsandbytes"
        findings.append(
            (error if env.owner == "gpu-setup" else warning)(
                env.path,
                summary,
                "QLoRA needs it: loading the model in 4 bits fails with `Configured … binary not found`.",
                [(folder, f"{env.bitsandbytes}: {', '.join(env.bitsandbytes_libraries or ()) or 'no library'}"), *seen],
                _fix(env, None, catalogue)
                if env.owner == "gpu-setup"
                else command(
                    "Install a newer version.",
                    *(f"{env.path}/bin/python", "-m", "pip", "install", "--upgrade", "bitsandbytes"),
                    verify=(f"{env.path}/bin/python", "-m", "bitsandbytes"),
                ),
            )
        )
    if findings:
        return tuple(findings)
    return Ok("; ".join(fine) + ".") if fine else Skip("No environment with bitsandbytes and a PyTorch for the card.")


def _bitsandbytes_problem(env: TrainingEnvironment, host: Host, catalogue: Catalogue) -> tuple[str, list[Seen]] | None:
    """bitsandbytes' own choice: BNB_*_VERSION, else the library of torch's version or of the same major version."""
    kind = "rocm" if env.torch_hip else "cuda"
    version = cards.numbers(env.torch_hip or env.torch_cuda)
    libraries = env.bitsandbytes_libraries or ()
    for row in catalogue.libraries:
        affected = row.name == "bitsandbytes" and row.backend == kind and version[:2] >= cards.numbers(row.since)
        if affected and cards.numbers(env.bitsandbytes) < cards.numbers(row.floor):
            return f"bitsandbytes {env.bitsandbytes} is older than {row.floor}: {row.because}.", []
    variable = f"BNB_{kind.upper()}_VERSION"
    forced = host.person.environ.get(variable, "") if env.owner == "active" else ""
    if forced and f"{kind}{forced}" not in libraries:
        return f"{variable}={forced} selects a library that does not exist.", [("environment", f"{variable}={forced}")]
    majors = {_major(name, kind) for name in libraries if name.startswith(kind)}
    if not forced and version[:1] and version[0] not in majors:
        torch = f"{'ROCm (HIP)' if kind == 'rocm' else 'CUDA'} {'.'.join(map(str, version[:2]))}"
        return f"bitsandbytes {env.bitsandbytes} has no library for {torch}.", _torch_evidence(env)
    return None


def _major(name: str, kind: str) -> int | None:
    """`cuda130` → 13, `rocm714` → 7: CUDA's minor version has one digit, ROCm's major version."""
    digits = re.match(r"[0-9]+", name.removeprefix(kind))
    if digits is None:
        return None
    return int(digits[0][:-1] or 0) if kind == "cuda" else int(digits[0][0])
