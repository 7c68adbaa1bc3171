"""Makes the README's picture from real output.

    FORCE_COLOR=1 ./gpu-setup up --yes 2>&1 | python docs/images/picture.py up

Writes docs/images/NAME.svg with the lines as they were printed, and nothing else.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main() -> None:
    name = sys.argv[1]
    console = Console(record=True, width=84, file=io.StringIO(), force_terminal=True, color_system="standard")
    for line in sys.stdin.read().splitlines():
        console.print(Text.from_ansi(line), soft_wrap=False, highlight=False)
    svg = console.export_svg(title=f"./gpu-setup {name}")
    # the picture must not fetch a font from the network
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)
    Path(__file__).with_name(f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
