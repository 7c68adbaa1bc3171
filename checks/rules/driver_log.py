"""What the GPU drivers said in the kernel log: each message that states a failure, and what we know of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from checks.catalogue import Catalogue, LogLine
from checks.facts.host import Host, PciCard
from checks.model import Fix
from checks.rules import cards, kernel_log
from checks.rules.finding import Seen, by_hand, firmware, hardware, reboot

NVIDIA, AMDGPU = "nvidia", "amdgpu"
DRIVERS = {cards.NVIDIA: NVIDIA, cards.AMD: AMDGPU}
# how a message of each driver begins; lower case
_BEGINS = {NVIDIA: ("nvrm", "nvidia", "[drm] [nvidia"), AMDGPU: ("amdgpu", "kfd", "[drm] amdgpu")}
# the kernel's lines about a crash or a hang, and how they name the driver's module or task
_CRASH = ("rip: 0010:", "info: task ")
_IN = {NVIDIA: ("[nvidia", "task nvidia", "task nv_"), AMDGPU: ("[amdgpu]", "task amdgpu", "task kfd")}
# the kernel's own graphics code writes its messages for every driver, and names the driver's module in some
_SHARED, _SHARED_MODULES = ("[drm", "[ttm]"), ("", "drm", "drm_kms_helper", "gpu_sched", "ttm")
# other modules that write the same nameless messages
_OTHERS = frozenset(("i915", "xe", "radeon", "nouveau", "nova_core", "nvidia_drm", "ast", "mgag200", "virtio_gpu"))
# a message with one of these states a failure
_FAILURE = (
    *("error", "fail", "fatal", "timeout", "timed out", " hung", " hang", "wedged", " lost", "unrecoverable", " full"),
    *(" reset", "_reset", "fell off", "fallen off", "not ready", "page fault", "protection_fault", "not respond"),
    *("insufficient", "necessary power", "i'm not done", "response:0xffffffff", "not supported by open", "requires "),
    *("already bound", "over temperature", "unable to", "errevent", "region assigned", "uncorrect", "legacy drivers"),
    *("not correctly", "inaccessible", "misconfigured", "0m @ 0x0", "mismatch:", "stuck", "time out", "expired"),
    *("not enough", "possibly locked", "probably locked", "illegal", "poison", "bad sta", " is bad", "threshold:"),
    *("be down until", "invalid ip discovery", "overflow", "attempted without", "recovery disabled", "bailing on"),
)
_ADDRESS = r"\b[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\b"
# how a message begins that NVIDIA's driver breaks over several lines
_BROKEN = ("nvrm: the nvidia ", "nvrm: this pci i/o region", "nvrm: api mismatch")
_FIXES = {"reboot": reboot, "hardware": hardware, "firmware": firmware, "docs": by_hand}


class Said(NamedTuple):
    """A message: as it is quoted, in lower case, the address in it, and the row about it (None: unknown words)."""

    line: str
    low: str
    place: str
    row: LogLine | None


def said(host: Host, catalogue: Catalogue, driver: str) -> list[Said]:
    """This driver's messages that state a failure, oldest first, without the harmless ones."""
    others = _OTHERS & set(host.kernel.loaded or ())
    rows = [row for row in catalogue.log_lines if row.driver in (driver, "")]
    found = []
    warned = False
    for line, message in _messages(host.kernel.log or ()):
        low = message.lower()
        crash = low.startswith(_CRASH) and any(name in low for name in _IN[driver])
        # what follows `WARNING: CPU: …` is only where the kernel noticed something
        skipped, warned = crash and warned, low.startswith("warning: ") or (warned and not crash)
        if skipped or not (crash or (_is_by(driver, low, bool(others)) and any(word in low for word in _FAILURE))):
            continue
        row = next((row for row in rows if any(_holds(low, words) for words in row.words)), None)
        if row is None or not row.harmless:
            place = re.search(_ADDRESS, low)
            found.append(Said(line, low, cards.bus_address(place[0]) if place else "", row))
    return found


def about(card: PciCard, host: Host, messages: Iterable[Said]) -> list[Said]:
    return [one for one in messages if is_about(card, host, one.place)]


def is_about(card: PciCard, host: Host, place: str) -> bool:
    """Whether a message with this address is about the card; one without (empty) is, if its driver has no other."""
    alone = sum(other.vendor == card.vendor for other in host.cards or ()) == 1
    return place == cards.bus_address(card.slot) or (alone and not place)


def why_not_bound(host: Host, catalogue: Catalogue, card: PciCard) -> tuple[list[Seen], LogLine | None]:
    """The first two failures that the driver stated about a card that it does not use, those that are explained, and
    the last; and the row that explains them: the first of the table, which lists causes first."""
    failed = about(card, host, said(host, catalogue, DRIVERS[card.vendor]))
    explained = [one.row for one in failed if one.row is not None and one.row.fix]
    row = min(explained, key=catalogue.log_lines.index, default=None)
    reasons = [one for one in failed if one.row is row is not None]
    wanted = {*failed[:2], *reasons[:2], *failed[-1:]}
    return [(kernel_log.SOURCE, one.line.strip()) for one in failed if one in wanted], row


def fix_of(row: LogLine) -> Fix:
    return _FIXES[row.kind](row.fix)


def distinct(messages: Iterable[Said]) -> list[Seen]:
    """The first message of each kind as evidence (at most four kinds), and how many there were."""
    kinds: dict[str, list[str]] = {}
    for one in messages:
        kinds.setdefault(re.sub(r"0x[0-9a-f]+|[0-9]+", "#", one.low), []).append(one.line)
    shown = [(kernel_log.SOURCE, lines[0]) for lines in list(kinds.values())[:4]]
    count = sum(map(len, kinds.values()))
    return [*shown, (kernel_log.SOURCE, kernel_log.counted(count))] if count > len(shown) else [*shown]


def _is_by(driver: str, low: str, others: bool) -> bool:
    if low.startswith(_BEGINS[driver]):
        return True
    if not low.startswith(_SHARED):
        return False
    # `[drm:gmc_v11_0_flush_gpu_tlb [amdgpu]] *ERROR* …`
    head, inside, _ = low.partition("]]")
    module = head.rpartition(" [")[2] if inside else ""
    if driver == NVIDIA:
        return module.startswith("nvidia")
    return module == AMDGPU or (not others and module in _SHARED_MODULES)


def _holds(low: str, words: str) -> bool:
    """Whether the words are in it; `*` is any text between."""
    at = 0
    for part in words.split("*"):
        at = low.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def _messages(log: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each message: as it is quoted (with its time), and without its time. Lines of one message are joined."""
    stamp, whole = "", ""
    for line in log:
        time, message = kernel_log.parts(line[: kernel_log.LONGEST])
        low = whole.lower()
        continues = time == stamp and (
            (message.startswith("NVRM:") and low.startswith(_BROKEN) and not whole.rstrip().endswith("."))
            or low.rstrip() == "amdgpu:"
        )
        if continues and len(whole) < kernel_log.LONGEST:
            whole = f"{whole.rstrip()} {message.removeprefix('NVRM:').strip()}"
            continue
        if whole:
            yield f"{stamp} {whole}"[: kernel_log.QUOTED], whole
        stamp, whole = time, message
    if whole:
        yield f"{stamp} {whole}"[: kernel_log.QUOTED], whole
