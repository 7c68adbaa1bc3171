"""docs/reference/checks.md, written from the registry: `python -m checks.docs` writes it anew."""

from __future__ import annotations

from collections.abc import Sequence

from checks.model import Check

_HEAD = """# What the doctor looks at

Written by `python -m checks.docs` from the checks themselves; change it there. `gpu-setup doctor --explain ID` says
the same. Every check gives *pass*, *warn*, *fail*, *skip* (does not apply, with the reason) or *unknown* (could not be
read, with what would make it readable).
"""


def page(checks: Sequence[Check]) -> str:
    """The page as Markdown: a list of all checks, then each with what, why, how it is decided and how to mend it."""
    groups = list(dict.fromkeys(check.group for check in checks))
    parts = [_HEAD, f"{len(checks)} checks in {len(groups)} groups: {', '.join(groups)}.\n"]
    parts.append("| id | what is asked |\n|---|---|")
    ordered = [check for group in groups for check in checks if check.group == group]
    parts.extend(f"| [{check.id}](#{_anchor(check.id)}) | {check.title} |" for check in ordered)
    parts.append("")
    for group in groups:
        parts.append(f"## {group}\n")
        for check in ordered:
            if check.group == group:
                parts.append(f"### {check.id}\n\n{check.title}.\n\n{check.about}\n\n**By hand:** {check.by_hand}\n")
                if check.needs:
                    parts.append(f"Skipped without: {', '.join(need.name for need in check.needs)}.\n")
                if check.causes:
                    parts.append(f"Can be a consequence of: {', '.join(check.causes)}.\n")
    return "\n".join(parts)


def _anchor(id: str) -> str:
    """GitHub's anchor of a heading: dots vanish."""
    return id.replace(".", "")


if __name__ == "__main__":
    from pathlib import Path

    from checks.registry import ALL

    Path("docs/reference/checks.md").write_text(page(ALL), encoding="utf-8")
