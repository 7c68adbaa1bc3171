"""The command that puts another build of torch into an environment, together with what belongs to that build."""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import VENDORS, Catalogue, Override, Stack
from checks.facts.host import TrainingEnvironment
from checks.model import Fix
from checks.rules import cards
from checks.rules.finding import by_hand, command
from checks.rules.python.torch_kernels import has_target

# installed from torch's own index, each release for one of torch
_TOGETHER = ("torchvision", "torchaudio")
# what the other vendor's build installs as the package `triton`
_OTHER_TRITON = {"nvidia": ("pytorch_triton_rocm", "triton_rocm"), "amd": ("triton",)}


class Wanted(NamedTuple):
    """The card that torch is for: its vendor's PCI id, its architecture, and the NVIDIA driver's version.

    `overridden`: HSA_OVERRIDE_GFX_VERSION is set as the card needs it, so that only the other GPU's kernels are loaded.
    """

    vendor: str
    target: str
    driver: str | None = None
    overridden: bool = False


def stack_for(card: Wanted, catalogue: Catalogue) -> tuple[Stack | None, Override | None]:
    """The preferred stack with kernels for this card, or for the GPU that it can run as, with the override.

    A stack that the driver is too old for comes last.
    """
    override = catalogue.override(card.target) if card.vendor == cards.AMD else None
    rows = [row for row in catalogue.stacks if row.vendor == VENDORS.get(card.vendor)]
    rows.sort(key=lambda row: _too_old(card, row))
    choices = [(card.target, None), (override.runs_as if override else None, override)]
    for wanted, needed in reversed(choices) if card.overridden else choices:
        for row in rows:
            if wanted and row.runs(wanted):
                return row.for_target(wanted), needed
    return None, None


def has_wheels(target: str, catalogue: Catalogue) -> bool:
    """Whether a stack has PyTorch's own wheels for this AMD GPU, not only AMD's for single GPUs."""
    return any(row.vendor == "amd" and not row.torch_extras and row.runs(target) for row in catalogue.stacks)


def _too_old(card: Wanted, stack: Stack) -> bool:
    return bool(card.driver and stack.driver_floor) and cards.numbers(card.driver) < cards.numbers(stack.driver_floor)


def install_argv(env: TrainingEnvironment, *what: str, again: bool = False) -> tuple[str, ...]:
    """pip's install in this environment, by the program that it was made with; `again`: also what is installed."""
    python = f"{env.path}/bin/python"
    if env.kind == "uv":
        return ("uv", "pip", "install", "--python", python, *(("--reinstall",) if again else ()), *what)
    start = ("pipx", "runpip", env.path.rstrip("/").rpartition("/")[2]) if env.kind == "pipx" else (python, "-m", "pip")
    return (*start, "install", *(("--force-reinstall",) if again else ()), *what)


def install_torch(env: TrainingEnvironment, card: Wanted, catalogue: Catalogue) -> Fix:
    """The build for the card in the same environment, with torchvision and torchaudio of that build."""
    if env.owner == "gpu-setup":
        return command("Remove the environment; gpu-setup rebuilds it.", "rm", "-r", env.path)
    stack, override = stack_for(card, catalogue)
    if stack is None:
        return by_hand(_without_stack(card, catalogue))
    if stack.torch_python and env.python and cards.numbers(env.python) < cards.numbers(stack.torch_python):
        return by_hand(
            f"{stack.torch_requirement} has no wheels for this environment's Python {env.python}. Make an environment "
            f"with Python 3.12 (`uv venv --python 3.12`) and install torch from {stack.torch_index} there."
        )
    if env.kind == "user":
        return by_hand(
            "This PyTorch is outside an environment, where Ubuntu's and Debian's pip refuses to install. Make one "
            f"(`python3 -m venv ~/torch`) and run `~/torch/bin/pip install {stack.torch_requirement} torchvision "
            f"torchaudio --index-url {stack.torch_index}`."
        )
    return command(
        " ".join(_sentences(env, card, stack, override, catalogue)),
        *install_argv(env, *_requirements(env, stack), "--index-url", stack.torch_index, again=True),
        verify=(f"{env.path}/bin/python", "-c", "import torch; print(torch.cuda.get_arch_list())"),
    )


def _without_stack(card: Wanted, catalogue: Catalogue) -> str:
    """The published wheels for a card that gpu-setup has no stack for."""
    rows = [row for row in catalogue.torch_builds if row.machine == "x86_64" and has_target(row, card.target)]
    newest = max(rows, key=lambda row: cards.numbers(row.until), default=None)
    # rocBLAS has dropped older GPUs that torch still lists: ROCm/TheRock#1844
    if newest is None or card.vendor == cards.AMD:
        return f"gpu-setup knows no build of PyTorch with kernels for {card.target}."
    runtime = newest.runtimes[-1]
    tag = runtime.replace("cuda ", "cu").replace(".", "")
    return (
        f"gpu-setup has no stack for {card.target}, but PyTorch's wheels for {runtime.upper()} have kernels for it: "
        f"install torch, torchvision and torchaudio with `--index-url https://download.pytorch.org/whl/{tag}`."
    )


def _sentences(
    env: TrainingEnvironment, card: Wanted, stack: Stack, override: Override | None, catalogue: Catalogue
) -> list[str]:
    names = ["torch", *_together(env)]
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else "torch"
    found = [f"Install the card's build of {listed}, or train in gpu-setup's own environment."]
    if env.companions is None:
        found.append("Leave out those that are not installed.")
    if env.kind == "conda":
        found.append("If conda installed PyTorch, first run `conda remove pytorch`.")
    if env.project_lock:
        found.append(f"{env.project_lock} pins the old build: set the index in pyproject.toml too, else it comes back.")
    if _too_old(card, stack):
        found.append(f"It needs driver {stack.driver_floor} or newer: see driver.too-old.")
    if override is not None:
        listed_by_amd = not any(chip.unofficial for chip in catalogue.chips if chip.target == card.target)
        unofficial = "" if listed_by_amd else "AMD does not officially support this card. "
        found.append(
            f"{unofficial}The card runs the kernels of {override.runs_as} with "
            f"HSA_OVERRIDE_GFX_VERSION={override.value}: keep that variable set."
        )
    elif (other := catalogue.override(card.target)) is not None and card.vendor == cards.AMD and env.torch_hip:
        found.append(
            f"Or set HSA_OVERRIDE_GFX_VERSION={other.value}: the card then runs the kernels of {other.runs_as}."
        )
    others = [name for name, _ in env.companions or ()]
    stale = [name for name in others if name in _OTHER_TRITON.get(stack.vendor, ())]
    built = [name for name in others if name in ("xformers", "flash_attn")]
    if env.bitsandbytes and cards.numbers(env.bitsandbytes) < cards.numbers(stack.bitsandbytes):
        built.append("bitsandbytes")
    if stale and _is_for_another_vendor(env, stack):
        found.append(f"First uninstall {' and '.join(stale)}: the new build has its own.")
    if built:
        found.append(f"Then upgrade {' and '.join(built)}: made for the old build.")
    return found


def _together(env: TrainingEnvironment) -> tuple[str, ...]:
    """torchvision and torchaudio where they are installed, or where that is not known."""
    installed = None if env.companions is None else {name for name, _ in env.companions}
    return tuple(name for name in _TOGETHER if installed is None or name in installed)


def _requirements(env: TrainingEnvironment, stack: Stack) -> list[str]:
    """AMD's torchvision has the same extras as its torch (ROCm/TheRock RELEASES.md)."""
    extras = f"[{','.join(stack.torch_extras)}]" if stack.torch_extras else ""
    return [stack.torch_requirement, *(name + extras * (name == "torchvision") for name in _together(env))]


def _is_for_another_vendor(env: TrainingEnvironment, stack: Stack) -> bool:
    return bool(env.torch_hip) != (stack.vendor == "amd")
