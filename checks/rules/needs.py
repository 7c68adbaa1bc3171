"""What checks need to apply; without it the runner skips a check with the reason."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import WINDOWS_DRIVER, Host
from checks.model import Need
from checks.rules import cards
from checks.rules.installed import nvidia_driver


def _card(what: str, vendor: str | None = None, under_windows: bool = False) -> Need:
    """`under_windows`: a card in WSL counts too, whose driver and bus are those of Windows."""

    def missing(host: Host, catalogue: Catalogue) -> str | None:
        ours = cards.training(host, catalogue, vendor)
        if ours and not under_windows and all(card.driver == WINDOWS_DRIVER for card in ours):
            return "This is WSL: Windows controls the card, see wsl.gpu."
        return None if ours else cards.none_of(host, catalogue, vendor)

    return Need(what, missing)


CARD = _card("a card that can train")
NVIDIA_CARD = _card("an NVIDIA card that can train", cards.NVIDIA)
# for checks of programs that use the card; the two above are for checks of the card's driver, bus and kernel
GPU = _card("a card that can train, in WSL too", under_windows=True)
NVIDIA_GPU = _card("an NVIDIA card that can train, in WSL too", cards.NVIDIA, under_windows=True)
WSL = Need("WSL", lambda host, _: None if host.wsl else "This is not WSL.")
AMD_CARD = _card("an AMD card that can train", cards.AMD)
AMD_CARD_OR_ONLY_GRAPHICS = Need(
    "an AMD card that can train, or AMD's integrated graphics as the only ones",
    lambda host, catalogue: None if cards.watched_amd(host, catalogue) else cards.none_of(host, catalogue, cards.AMD),
)
NVIDIA_DRIVER = Need(
    "an installed NVIDIA driver",
    lambda host, _: None if nvidia_driver(host) else "No NVIDIA driver is installed yet: see driver.present.",
)
NVIDIA_MODULE = Need(
    "NVIDIA's kernel module, loaded",
    lambda host, _: None if host.nvidia.module_version else "NVIDIA's module is not loaded.",
)
DPKG = Need(
    "dpkg",
    lambda host, _: (
        "This system has no dpkg."
        if host.apt.packages is None and not any("dpkg" in gap.source for gap in host.unread)
        else None
    ),
)
CONTAINER_ENGINE = Need(
    "a container engine",
    lambda host, _: None if host.docker.kind else "No container engine is installed; gpu-setup can train in a venv.",
)
ROCM_ON_HOST = Need(
    "ROCm on the host",
    lambda host, _: (
        None if host.amd.rocm else "No ROCm is installed on the host; the training environment includes its own."
    ),
)
