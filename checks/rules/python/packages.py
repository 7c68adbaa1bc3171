"""The installed Python environments: is their PyTorch built for this card, and bitsandbytes for that PyTorch?"""

from __future__ import annotations

import re
from collections.abc import Iterable

from checks.catalogue import VENDORS, Catalogue
from checks.facts.host import Host, PciCard, TrainingEnvironment
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, command, error, warning
from checks.rules.installed import nvidia_version
from checks.rules.python.torch_install import Wanted, has_wheels, install_argv, install_torch
from checks.rules.python.torch_kernels import NAMES, kernels_for, runtime_of
from checks.rules.targets import override_of, target_of

_NONE = "No Python environment with PyTorch is active, and gpu-setup has built none here yet."
_BACKENDS = {"nvidia": "cuda", "amd": "rocm"}
_NOT_READ = Unknown("The Python environments could not be read.")
_ERRORS = {
    "cuda": "`no kernel image is available`",
    "rocm": "`hipErrorNoBinaryForGpu` or `invalid device function`",
}
_ASK_IT = "`python -c 'import torch; print(torch.cuda.get_arch_list())'` in that environment lists them."


def _environments_for(
    host: Host, catalogue: Catalogue, ours: Iterable[PciCard]
) -> tuple[TrainingEnvironment, ...] | None:
    """Environments for these cards, without gpu-setup's own for the CPU or for another vendor. None: not read."""
    if host.python.environments is None:
        return None
    vendors = {VENDORS[card.vendor] for card in ours}
    stacks = {stack.name for stack in catalogue.stacks if stack.vendor in vendors}
    return tuple(env for env in host.python.environments if env.stack is None or env.stack in stacks)


def _torch_evidence(env: TrainingEnvironment) -> list[Seen]:
    built = f"CUDA {env.torch_cuda}" if env.torch_cuda else f"HIP {env.torch_hip}" if env.torch_hip else "no GPU"
    return [(f"{env.path}/lib/python{env.python}/site-packages/torch/version.py", f"{env.torch}, built for {built}")]


def _purpose(env: TrainingEnvironment) -> str:
    runtime = runtime_of(env)
    if runtime is not None:
        return f"built for {NAMES[runtime.kind]}"
    return "built for Intel's GPUs" if (env.torch or "").endswith("+xpu") else "a CPU-only build"


def _finding(env: TrainingEnvironment, subject: str, summary: str, why: str, seen: Iterable[Seen], fix: Fix) -> Finding:
    """An error only where gpu-setup itself trains: what a person has in another environment may be meant so."""
    return (error if env.owner == "gpu-setup" else warning)(subject, summary, why, seen, fix)


def _install(env: TrainingEnvironment, card: PciCard, host: Host, catalogue: Catalogue) -> Fix:
    target = target_of(card, catalogue) or ""
    override, row = override_of(card, host), catalogue.override(target)
    overridden = override is not None and row is not None and override[1] == row.value
    driver = nvidia_version(host)[0] if card.vendor == cards.NVIDIA else None
    return install_torch(env, Wanted(card.vendor, target, driver, overridden), catalogue)


@check(
    "python.torch-build",
    "PyTorch is built for the card's vendor",
    about="By default pip installs PyTorch for CUDA or for the CPU only: `pip install axolotl` replaces a ROCm build "
    "with a CUDA build, and a wrong index or a Python that is too new installs `+cpu`. Reads torch/version.py of the "
    "active environment (VIRTUAL_ENV, CONDA_PREFIX) and of gpu-setup's own; nothing is imported.",
    by_hand='`python -c "import torch; print(torch.__version__, torch.version.cuda, torch.version.hip)"`. Install '
    "torch last, together with torchvision and torchaudio, from your stack's index (`--index-url`), or use a "
    "constraints file that pins its build.",
    needs=(needs.GPU,),
)
def torch_build(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    environments = _environments_for(host, catalogue, ours)
    if environments is None:
        return _NOT_READ
    able = {_BACKENDS[VENDORS[card.vendor]] for card in ours}
    findings, fine = [], []
    for env in (env for env in environments if env.torch):
        runtime = runtime_of(env)
        if runtime is not None and runtime.kind in able:
            fine.append(f"{env.path}: {env.torch}")
            continue
        brands = " and ".join(dict.fromkeys(cards.VENDOR_NAMES[card.vendor] for card in ours))
        findings.append(
            _finding(
                env,
                env.path,
                f"PyTorch {env.torch} is {_purpose(env)}; the card is {brands}.",
                "It cannot use the card: torch.cuda.is_available() is False, and training is very slow.",
                [*_torch_evidence(env), *((card.slot, cards.name(card, catalogue)) for card in ours)],
                _install(env, ours[0], host, catalogue),
            )
        )
    return tuple(findings) or (Ok("; ".join(fine) + ".") if fine else Skip(_NONE))


@check(
    "python.torch-arch",
    "PyTorch has kernels for the card",
    about="Each build of PyTorch has kernels for certain architectures: CUDA 12.6 has none for Blackwell, CUDA 13 none "
    "for Volta, ROCm builds before torch 2.7 none for RDNA4. Training then fails with `no kernel image is available`, "
    "`sm_120 is not compatible`, `hipErrorNoBinaryForGpu`. Decided by the ROCm libraries beside torch, by the table of "
    "published wheels, and by what a version of CUDA can compile; other builds are reported as unknown.",
    by_hand='`python -c "import torch; print(torch.cuda.get_arch_list())"` must list the card\'s architecture. '
    "Otherwise install the build that `gpu-setup plan` names, together with torchvision and torchaudio.",
    needs=(needs.GPU,),
    causes=("python.torch-build", "rocm.override"),
)
def torch_arch(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    environments = _environments_for(host, catalogue, ours)
    if environments is None:
        return _NOT_READ
    findings: list[Finding] = []
    unknown: list[str] = []
    fine: list[str] = []
    for env in (env for env in environments if env.torch):
        runtime = runtime_of(env)
        for card in ours:
            if runtime is None or runtime.kind != _BACKENDS[VENDORS[card.vendor]]:
                continue
            target = target_of(card, catalogue)
            if target is None:
                unknown.append(f"The architecture of {cards.subject(card, catalogue)} is not known.")
                continue
            found = kernels_for(env, target, host.os.arch, catalogue)
            if found.has is None:
                unknown.append(f"{found.because} {_ASK_IT}")
            elif found.has:
                fine.append(f"{env.path}: {env.torch} has kernels for the card.")
            elif (other := _runs_as(env, card, host, catalogue)) is not None:
                fine.append(f"{env.path}: {env.torch} has the kernels of {other}: see rocm.override.")
            else:
                findings.append(
                    _finding(
                        env,
                        f"{env.path}, {cards.subject(card, catalogue)}",
                        f"PyTorch {env.torch} has no kernels for the card ({target}).",
                        found.because or f"Its first computation on the card fails with {_ERRORS[runtime.kind]}.",
                        [*_torch_evidence(env), *found.seen],
                        _install(env, card, host, catalogue),
                    )
                )
    if findings:
        return tuple(findings)
    if unknown:
        return Unknown(unknown[0])
    return Ok(" ".join(dict.fromkeys(fine))) if fine else Skip(_NONE)


def _runs_as(env: TrainingEnvironment, card: PciCard, host: Host, catalogue: Catalogue) -> str | None:
    """The GPU that this one runs as, where the build has kernels for that one: rocm.override says whether it does.

    Where PyTorch has wheels for the card itself and nothing is set, a newer build is the better way.
    """
    own = target_of(card, catalogue) or ""
    override = catalogue.override(own)
    if override is None or env.owner != "active":
        return None
    if override_of(card, host) is None and has_wheels(own, catalogue):
        return None
    return override.runs_as if kernels_for(env, override.runs_as, host.os.arch, catalogue).has else None


@check(
    "python.bitsandbytes",
    "bitsandbytes has a library for this PyTorch",
    about="bitsandbytes includes one library for each CUDA and ROCm version. It loads the one for PyTorch's version, "
    "or the nearest of the same major version; without one: `Configured CUDA/ROCm binary not found`. Versions older "
    "than the catalogue's minimum search for a wrong name with newer ROCm, and older ones have no kernels for gfx1030 "
    "and others. BNB_CUDA_VERSION and BNB_ROCM_VERSION override the choice.",
    by_hand="`python -m bitsandbytes` shows which library it needs. Run `pip install -U bitsandbytes`, and unset "
    "BNB_CUDA_VERSION and BNB_ROCM_VERSION.",
    needs=(needs.GPU,),
    causes=("python.torch-build",),
)
def bitsandbytes(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    environments = _environments_for(host, catalogue, ours)
    if environments is None:
        return _NOT_READ
    findings, fine = [], []
    for env in (env for env in environments if env.bitsandbytes and env.torch and runtime_of(env)):
        problem = _bitsandbytes_problem(env, host, catalogue) or _bitsandbytes_kernels(env, ours, host, catalogue)
        if problem is None:
            fine.append(f"{env.path}: {env.bitsandbytes}")
            continue
        summary, seen = problem
        folder = f"{env.path}/lib/python{env.python}/site-packages/bitsandbytes"
        findings.append(
            _finding(
                env,
                env.path,
                summary,
                "QLoRA needs it: loading or training the model in 4 bits fails.",
                [(folder, f"{env.bitsandbytes}: {', '.join(env.bitsandbytes_libraries or ()) or 'no library'}"), *seen],
                command("Remove the environment; gpu-setup rebuilds it.", "rm", "-r", env.path)
                if env.owner == "gpu-setup"
                else command(
                    "Install a newer version.",
                    *install_argv(env, "--upgrade", "bitsandbytes"),
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


def _bitsandbytes_kernels(
    env: TrainingEnvironment, ours: Iterable[PciCard], host: Host, catalogue: Catalogue
) -> tuple[str, list[Seen]] | None:
    """The ROCm library that it loads has no kernels for a card, as far as the table of its wheels knows it."""
    version, hip = cards.numbers(env.bitsandbytes), cards.numbers(env.torch_hip)[:2]
    runtime = f"rocm {'.'.join(map(str, hip))}"
    rows = (row for row in catalogue.bitsandbytes_builds if runtime in row.runtimes)
    row = next((row for row in rows if cards.numbers(row.since) <= version <= cards.numbers(row.until)), None)
    if row is None or f"rocm{''.join(map(str, hip))}" not in (env.bitsandbytes_libraries or ()):
        return None
    for card in ours:
        target = target_of(card, catalogue) if card.vendor == cards.AMD else None
        other = catalogue.override(target) if target else None
        if target and target not in row.targets and (other is None or other.runs_as not in row.targets):
            summary = f"bitsandbytes {env.bitsandbytes} has no kernels for the card ({target})."
            return summary, [
                (f"bitsandbytes {env.bitsandbytes} for ROCm (HIP) {hip[0]}.{hip[1]}", ", ".join(row.targets))
            ]
    return None


def _major(name: str, kind: str) -> int | None:
    """`cuda130` → 13, `rocm714` → 7: CUDA's minor version has one digit, ROCm's major version."""
    digits = re.match(r"[0-9]+", name.removeprefix(kind))
    if digits is None:
        return None
    return int(digits[0][:-1] or 0) if kind == "cuda" else int(digits[0][0])
