"""Conversations: OpenAI's chat JSONL, ShareGPT, Continue's sessions and development data.

Shapes: {"messages": [{"role", "content"}]} · {"conversations": [{"from", "value"}]} · Continue's session
file {"history": [{"message": {"role", "content"}}]} · Continue's dev_data lines {"prompt", "completion"}
(continuedev/continue, packages/config-yaml/src/schemas/data, read 2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from harness.dataset.imports.imported import ImportedRow, Skips

USERS = frozenset({"user", "human", "prompter", "customer"})
ASSISTANTS = frozenset({"assistant", "gpt", "bot", "chatgpt", "model", "bing", "bard"})
# Continue logs a prompt as turns; each begins with a line `<role>`
_TURN = re.compile(r"(?m)^<(user|assistant|system|tool|thinking)>[ \t]*$\n?")


def turns_of(value: dict[str, Any]) -> list[tuple[str, str]] | None:
    """`(role, text)` of each turn; None when the object is not a conversation."""
    for key in ("messages", "conversations", "conversation", "history"):
        turns = value.get(key)
        if isinstance(turns, list):
            return [turn for each in turns if (turn := _turn(each)) is not None]
    prompt, completion = value.get("prompt"), value.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return [turn for each in [*prompt, *completion] if (turn := _turn(each)) is not None]
    return None


def _turn(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("message"), dict):
        value = value["message"]
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if isinstance(content, list):
        # several parts: text, pictures, tool results
        content = "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    role = role.casefold()
    return ("user" if role in USERS else "assistant" if role in ASSISTANTS else role), content.strip()


def conversation_rows(turns: list[tuple[str, str]], place: str, all_turns: bool, skips: Skips) -> Iterator[ImportedRow]:
    """A row for the first question and its answer; with `all_turns` for each, with the earlier turns in `input`."""
    before: list[str] = []
    found = 0
    for (role, text), (next_role, answer) in pairwise(turns):
        if role == "user" and next_role == "assistant" and text and answer:
            if found and not all_turns:
                skips.skip("a later turn, which depends on earlier ones (include it with --turns all)", place)
            else:
                yield ImportedRow(text, "\n\n".join(before), answer, "semi-synthetic", place)
            found += 1
        if role in ("user", "assistant"):
            before.append(f"{role.capitalize()}: {text}")
    if not found:
        skips.skip("a conversation without a question and its answer", place)


def continue_row(value: dict[str, Any], place: str, skips: Skips) -> Iterator[ImportedRow]:
    """One line of Continue's dev_data: the last question of the logged prompt, and the completion."""
    if value.get("feedback") is False:
        skips.skip("a chat with a thumbs-down", place)
        return
    prompt, completion = value["prompt"], value["completion"]
    asked = last_question(prompt)
    answer = completion.removeprefix("Completion:").strip()
    if asked and answer:
        yield ImportedRow(asked, "", answer, "semi-synthetic", place)
    else:
        skips.skip("an empty question or answer", place)


def last_question(prompt: str) -> str:
    """The user's last turn in a logged prompt; the whole prompt where it has no turns."""
    parts = _TURN.split(prompt)
    if len(parts) < 3:
        return prompt.strip()
    turns = list(zip(parts[1::2], parts[2::2], strict=True))
    return next((text.strip() for role, text in reversed(turns) if role == "user" and text.strip()), "")
