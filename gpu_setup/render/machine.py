"""A machine in one line."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.rules.cards import VENDOR_NAMES, name


def machine_line(host: Host, catalogue: Catalogue) -> str:
    """`this machine: Ubuntu 24.04.2 LTS, kernel 6.8.0-51-generic, 2 x GeForce RTX 3090 Ti`."""
    parts = [host.os.pretty or "unknown system", f"kernel {host.kernel.release or 'not known'}"]
    names = [name(card, catalogue) for card in host.cards or () if card.vendor in VENDOR_NAMES]
    parts += [f"{names.count(each)} x {each}" if names.count(each) > 1 else each for each in dict.fromkeys(names)]
    if host.cards is not None and not names:
        parts.append("no NVIDIA or AMD card" if host.wsl is None else "no card that answers in WSL")
    return f"{host.machine or 'machine'}: {', '.join(parts)}"
