"""YAML from strangers: small, without anchors that multiply, without numbers that no setting has.

PyYAML's safe loader keeps code out and no more: 370 bytes of aliases stand for billions of values.
"""

from __future__ import annotations

from typing import Any

from machine.input_file import check_numbers

# a config has some hundred bytes to some thousand, and PyYAML reads about 100 kB a second
LARGEST = 64 << 10
_MOST_VALUES = 20_000
_DEEPEST = 50


def load_yaml(text: str) -> Any:
    """The value of the one document in the text. Raises yaml.YAMLError, or ValueError, RecursionError."""
    import yaml

    if len(text) > LARGEST:
        raise ValueError(f"It has more than {LARGEST:,} characters")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_values(node, {}, 0) > _MOST_VALUES:
            raise ValueError(f"Its anchors and aliases stand for more than {_MOST_VALUES:,} values")
        value = loader.construct_document(node)
    finally:
        loader.dispose()
    check_numbers(value)
    return value


def _count_values(node: Any, known: dict[int, int], depth: int) -> int:
    """The number of values in the node, each alias counted with all that it repeats."""
    if depth > _DEEPEST:
        raise ValueError(f"It is nested more than {_DEEPEST} deep")
    if id(node) not in known:
        # while its parts are counted it is infinite: it may contain itself
        known[id(node)] = _MOST_VALUES + 1
        parts = node.value if isinstance(node.value, list) else []
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_count_values(child, known, depth + 1) for child in children)
    return known[id(node)]
