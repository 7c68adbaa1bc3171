"""The CUDA compiler on the host: only on request, and without changing the driver."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.model import PlanPart, Step
from provision.plan import repositories
from provision.plan.driver.nvidia import pin_drivers
from provision.plan.package_steps import install_step, names
from provision.target import DriverSource, PlanTarget

NOT_NEEDED = (
    "The CUDA toolkit (nvcc) is not planned: torch's wheels and the images include the CUDA libraries, so the host "
    "needs only the driver. --toolkit adds it."
)


def plan(host: Host, catalogue: Catalogue, target: PlanTarget, source: DriverSource | None) -> PlanPart:
    """The toolkit's repository, pinned so that it does not replace an archive driver, and the toolkit."""
    if not target.toolkit:
        return PlanPart(notes=(NOT_NEEDED,))
    row = catalogue.repository("nvidia.cuda")
    steps: tuple[Step, ...] = repositories.repository_steps(
        host, catalogue, row, "Only NVIDIA's repository has the CUDA toolkit that you asked for."
    )
    if source is not DriverSource.NVIDIA:
        steps = (*steps, pin_drivers(host, catalogue))
    wanted = names(catalogue, "nvidia.repo.toolkit")
    because = "You asked for it: it compiles CUDA code. Training does not need it, and it installs no driver."
    toolkit = install_step(host, "cuda-toolkit", "Install the CUDA toolkit", wanted, because)
    return PlanPart(steps=(*steps, toolkit))
