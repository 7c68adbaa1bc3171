"""The CUDA compiler on the host: only on request, and never at the price of the driver."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.model import Part, Step
from provision.plan import repositories
from provision.plan.nvidia import pin_drivers
from provision.plan.package_steps import install, names
from provision.target import Source, Target

NOT_NEEDED = (
    "The CUDA toolkit (nvcc) is not planned: torch's wheels and the images carry the CUDA libraries, and the driver is "
    "all that the host has to give. --toolkit adds it."
)


def plan(host: Host, catalogue: Catalogue, target: Target, source: Source | None) -> Part:
    """The toolkit's repository, fenced off from an archive driver, and the toolkit."""
    if not target.toolkit:
        return Part(notes=(NOT_NEEDED,))
    row = catalogue.repository("nvidia.cuda")
    steps: tuple[Step, ...] = repositories.add(
        host, catalogue, row, "The CUDA toolkit that you asked for is only there."
    )
    if source is not Source.NVIDIA:
        steps = (*steps, pin_drivers(host, catalogue))
    wanted = names(catalogue, "nvidia.repo.toolkit")
    because = "You asked for it: it compiles CUDA code. Training does not need it, and it brings no driver."
    toolkit = install(host, "cuda-toolkit", "Install the CUDA toolkit", wanted, because)
    return Part(steps=(*steps, toolkit))
