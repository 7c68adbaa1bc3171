"""Take a regular expression apart: each alternative that it names, as an expression of its own."""

from __future__ import annotations

from collections.abc import Iterator


def variants(pattern: str) -> Iterator[str]:
    """The pattern once for each alternative in it, with that alternative kept and all of its siblings left out.

    Groups that look around are left as they are: what they forbid is shown by look-alikes, not by faults.
    """
    options = _options(pattern, 0, len(pattern))
    if len(options) > 1:
        for option in options:
            yield from variants(option)
        return
    groups = [span for span in _groups(pattern) if not pattern.startswith(("(?!", "(?=", "(?<"), span[0])]
    found = False
    for start, end in groups:
        inside = _inside(pattern, start)
        if len(own := _options(pattern, inside, end)) > 1:
            found = True
            outer = [span for span in groups if span[0] < start and span[1] > end]
            yield from (_alone(pattern, inside, end, option, outer) for option in own)
    if not found:
        yield pattern


def _alone(pattern: str, inside: int, end: int, option: str, outer: list[tuple[int, int]]) -> str:
    """This option of a group, and of each group around it the option that holds it."""
    kept = pattern[:inside] + option + pattern[end:]
    lost = len(pattern) - len(kept)
    for start, around_end in sorted(outer, reverse=True):
        first, last = _inside(kept, start), around_end - lost
        place = first
        for own in _options(kept, first, last):
            if place <= inside <= place + len(own):
                kept = kept[:first] + own + kept[last:]
                inside += first - place
                lost = len(pattern) - len(kept)
                break
            place += len(own) + 1
    return kept


def _inside(pattern: str, start: int) -> int:
    return start + (3 if pattern.startswith("(?:", start) else 1)


def _options(pattern: str, start: int, end: int) -> list[str]:
    """The text between two positions, cut at the `|` that stand in no inner group or set."""
    cuts, depth, place = [start], 0, start
    while place < end:
        step = _step(pattern, place)
        if step == 1 and pattern[place] in "()":
            depth += 1 if pattern[place] == "(" else -1
        elif step == 1 and pattern[place] == "|" and depth == 0:
            cuts.append(place + 1)
        place += step
    return [pattern[one:other].removesuffix("|") for one, other in zip(cuts, [*cuts[1:], end], strict=True)]


def _groups(pattern: str) -> Iterator[tuple[int, int]]:
    """Where each group begins and where its closing bracket is."""
    opened, place = [], 0
    while place < len(pattern):
        step = _step(pattern, place)
        if step == 1 and pattern[place] == "(":
            opened.append(place)
        elif step == 1 and pattern[place] == ")":
            yield opened.pop(), place
        place += step


def _step(pattern: str, place: int) -> int:
    """How many characters belong together here: an escape, a whole set in square brackets, or one."""
    if pattern[place] == "\\":
        return 2
    if pattern[place] != "[":
        return 1
    end = place + 1
    while pattern[end] != "]" or end <= place + 1 + (pattern[place + 1] == "^"):
        end += 2 if pattern[end] == "\\" else 1
    return end + 1 - place


def literal_length(pattern: str) -> int:
    """How many letters of the pattern stand for themselves."""
    count, place = 0, 0
    while place < len(pattern):
        step = _step(pattern, place)
        count += step == 1 and pattern[place].isalpha()
        place += step
    return count
