"""The view of a Host that notes what is read of it."""

from __future__ import annotations

from checks.facts.host import Host
from checks.facts.observed import observe, uses
from tests.checks.rules.hosts import but, healthy_nvidia


def read_by(host: Host, *paths: str) -> set[str]:
    used: set[str] = set()
    seen = observe(host, used)
    for path in paths:
        value: object = seen
        for name in path.split("."):
            value = getattr(value[0] if isinstance(value, tuple) else value, name)
    return used


def test_what_is_read_counts_with_its_parts_and_nothing_else() -> None:
    used = read_by(healthy_nvidia(), "cards.link.width", "kernel.release")
    assert all(uses(used, fact) for fact in ("cards", "cards.link", "cards.link.width", "kernel", "kernel.release"))
    assert not any(uses(used, fact) for fact in ("cards.link.max_width", "cards.vendor", "kernel.log", "amd"))


def test_the_lack_of_the_whole_counts_for_its_parts() -> None:
    used = read_by(but(healthy_nvidia(), nvidia={"nvml": None}), "nvidia.nvml")
    assert uses(used, "nvidia.nvml.memory_total")
    assert not uses(read_by(healthy_nvidia(), "nvidia.nvml"), "nvidia.nvml.memory_total")


def test_a_view_equals_what_it_shows_and_is_found_among_others() -> None:
    host, used = healthy_nvidia(), set[str]()
    (card,), (again,) = observe(host, used).cards or (), observe(host, used).cards or ()
    assert card == again and card in {again} and card == (host.cards or ())[0]
    assert card.slot == (host.cards or ())[0].slot
