"""NVIDIA's CDI description is written again for an engine that cannot read the newer version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from machine.local import ABSENT, Machine, Outcome, Unreadable
from provision.apply.system_actions import change_service, is_service_ready
from provision.apply_context import ApplyContext
from provision.plan.container_engine import REFRESH_CDI

DESCRIPTION = "/run/cdi/nvidia.yaml"
NEW = b"cdiVersion: 0.7.0\ncontainerEdits:\n  additionalGids:\n  - 44\n"


class Toolkit:
    """systemd and the toolkit's unit: the description is written again, by the drop-in only after a daemon-reload."""

    def __init__(self, description: bytes | None) -> None:
        self.description, self.reloaded = description, False
        self.ran: list[str] = []

    def read(self, path: str, limit: int = 0) -> bytes:
        if path != DESCRIPTION or self.description is None:
            raise Unreadable(path, ABSENT)
        return self.description

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        self.ran.append(" ".join(argv[1:]))
        self.reloaded |= argv[1] == "daemon-reload"
        if argv[1] in ("start", "restart"):
            self.description = b"cdiVersion: 0.5.0\n" if self.reloaded else NEW
        # a oneshot unit is not active
        return Outcome(tuple(argv), 3 if argv[1] == "is-active" else 0, "", "", 0.0)


def context_of(toolkit: Toolkit) -> ApplyContext:
    return ApplyContext(cast(Machine, toolkit), systemd=True)


def test_the_description_is_written_again_after_its_setting() -> None:
    toolkit = Toolkit(NEW)
    assert not is_service_ready(REFRESH_CDI, context_of(toolkit))
    change_service(REFRESH_CDI, context_of(toolkit))
    assert is_service_ready(REFRESH_CDI, context_of(toolkit))
    assert toolkit.ran.index("daemon-reload") < toolkit.ran.index("start nvidia-cdi-refresh.service")


def test_a_description_that_is_missing_is_not_taken_for_a_good_one() -> None:
    assert not is_service_ready(REFRESH_CDI, context_of(Toolkit(None)))
