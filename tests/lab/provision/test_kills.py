"""Killed at any moment, run again: the machine ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.provision import kills, routes
from tests.lab.provision.hosts import Hosts
from tests.lab.provision.kills import Hit, Moment, Usual
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.routes import ROUTES

pytestmark = pytest.mark.lab

SEED = 20261124
# every moment of these; of all others a sample, and everything with ./test --full
WHOLE = ("rtx3090-nvidia", "rx7900xt-rocm")
OTHERS = tuple(name for name in ROUTES if name not in WHOLE)
SAMPLE = 10
# guests that run at the same time: more of them would only wait for each other
AT_ONCE = max(1, min(4, os.cpu_count() or 1))


class Undisturbed:
    """One run of each route that nobody disturbs, made when it is first asked for."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._known: dict[str, Usual] = {}

    def __call__(self, name: str) -> Usual:
        if name not in self._known:
            self._known[name] = kills.usual(self._hosts, routes.fresh(self._hosts, ROUTES[name]), ROUTES[name])
        return self._known[name]


@pytest.fixture(scope="module")
def undisturbed(hosts: Hosts) -> Undisturbed:
    return Undisturbed(hosts)


def _struck(hosts: Hosts, expected: Usual, name: str, moments: Sequence[Moment]) -> list[Hit]:
    """Every blow on a machine of its own."""
    route = ROUTES[name]
    fresh = routes.fresh(hosts, route)
    with ThreadPoolExecutor(AT_ONCE) as several:
        return list(several.map(lambda moment: kills.strike(hosts, fresh, route, moment, expected), moments))


def _judge(name: str, hits: list[Hit]) -> None:
    """Keep what was seen where GPU_SETUP_LAB_RESULTS says, and fail for what does not end as it should."""
    kept = os.environ.get("GPU_SETUP_LAB_RESULTS")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        rows = [json.dumps(hit.row()) + "\n" for hit in hits]
        (Path(kept) / f"kills-{name}.jsonl").write_text("".join(rows))
    wrong = [hit for hit in hits if not hit.fine]
    assert not wrong, "\n".join(map(str, wrong[:8]))


@pytest.mark.parametrize("name", WHOLE)
def test_every_moment_of_a_route(name: str, hosts: Hosts, shops: Repositories, undisturbed: Undisturbed) -> None:
    """Each run that is hit begins where an undisturbed one was before the step: that is a power cut there, too."""
    usual = undisturbed(name)
    expected = kills.with_disks(hosts, routes.fresh(hosts, ROUTES[name]), ROUTES[name], usual)
    _judge(name, _struck(hosts, expected, name, kills.moments(usual.steps, SEED)))


def test_some_moments_of_the_other_routes(hosts: Hosts, shops: Repositories, undisturbed: Undisturbed) -> None:
    chance = random.Random(SEED)
    hits = []
    for name in chance.sample(OTHERS, SAMPLE // 2):
        usual = undisturbed(name)
        hits += _struck(hosts, usual, name, chance.sample(kills.moments(usual.steps, SEED), 2))
    assert len(hits) == SAMPLE
    _judge("sample", hits)


@pytest.mark.full
@pytest.mark.parametrize("name", ROUTES)
def test_every_moment_from_the_fresh_machine(
    name: str, hosts: Hosts, shops: Repositories, undisturbed: Undisturbed
) -> None:
    usual = undisturbed(name)
    _judge(f"{name}-fresh", _struck(hosts, usual, name, kills.moments(usual.steps, SEED)))
