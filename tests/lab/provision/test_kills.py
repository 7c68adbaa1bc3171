"""Killed at any moment, run again: the machine ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from tests.lab.provision import kills, routes
from tests.lab.provision.hosts import Hosts
from tests.lab.provision.kills import Hit, Moment
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


def _struck(hosts: Hosts, chosen: Sequence[tuple[str, Moment]]) -> list[Hit]:
    """Every blow on a machine of its own."""
    names = dict.fromkeys(name for name, _ in chosen)
    fresh = {name: routes.fresh(hosts, ROUTES[name]) for name in names}
    expected = {name: kills.usual(hosts, fresh[name], ROUTES[name]) for name in names}
    with ThreadPoolExecutor(AT_ONCE) as several:
        return list(
            several.map(
                lambda pair: kills.strike(hosts, fresh[pair[0]], ROUTES[pair[0]], pair[1], expected[pair[0]]), chosen
            )
        )


def _moments(hosts: Hosts, name: str) -> tuple[Moment, ...]:
    """The steps are those of an undisturbed run."""
    route = ROUTES[name]
    return kills.moments(kills.usual(hosts, routes.fresh(hosts, route), route).steps, SEED)


def _judge(name: str, hits: list[Hit]) -> None:
    kept = os.environ.get("GPU_SETUP_LAB_RESULTS")
    if kept:
        rows = [{**hit._asdict(), "moment": hit.moment._asdict()} for hit in hits]
        Path(kept).mkdir(parents=True, exist_ok=True)
        (Path(kept) / f"kills-{name}.json").write_bytes(
            msgspec.json.format(json.dumps(rows).encode(), indent=1) + b"\n"
        )
    wrong = [hit for hit in hits if not hit.fine]
    assert not wrong, "\n".join(map(str, wrong[:8]))
    # a blow between two steps hit the gap: the next step had at most been announced
    between = [hit for hit in hits if hit.moment.where == "after"]
    assert all(hit.landed.split()[0] in ("done", "begin") for hit in between)


@pytest.mark.parametrize("name", WHOLE)
def test_every_moment_of_a_route(name: str, hosts: Hosts, shops: Repositories) -> None:
    _judge(name, _struck(hosts, [(name, moment) for moment in _moments(hosts, name)]))


def test_some_moments_of_the_other_routes(hosts: Hosts, shops: Repositories) -> None:
    chance = random.Random(SEED)
    chosen = []
    # two moments of each of five routes: what a route takes beside them is its undisturbed run
    for name in chance.sample(OTHERS, SAMPLE // 2):
        chosen += [(name, moment) for moment in chance.sample(_moments(hosts, name), 2)]
    assert len(chosen) == SAMPLE
    _judge("sample", _struck(hosts, chosen))


@pytest.mark.full
@pytest.mark.parametrize("name", OTHERS)
def test_every_moment_of_every_other_route(name: str, hosts: Hosts, shops: Repositories) -> None:
    _judge(name, _struck(hosts, [(name, moment) for moment in _moments(hosts, name)]))
