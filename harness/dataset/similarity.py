"""Similarity of rows: pairs of neighbouring words, MinHash over them (rensa), bands to find candidates.

Two rows are near-duplicates when their word pairs overlap by ALIKE (Jaccard) or more. With 20 bands of 5 rows a pair
with overlap 0.75 is found with probability 0.995, one with 0.7 with 0.975; every candidate is then compared exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.dataset.rules.gates import WESTERN

if TYPE_CHECKING:
    import numpy as np

ALIKE = 0.7
BANDS, BAND_ROWS = 20, 5
PERMUTATIONS = BANDS * BAND_ROWS
# with fewer word pairs only an exact duplicate counts
FEWEST_PAIRS = 8
# bytes of the signature that are kept for a first comparison
SKETCH = 64
SEED = 42

_WORDS = re.compile(r"[^\W_]+")
# the same for a text with one byte per letter, two to three times as fast
_NO_WORD = bytes(number if bytes([number]).decode(WESTERN, "replace").isalnum() else ord(" ") for number in range(256))
# scripts without spaces between words: letters are used as words
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f\u1000-\u109f]")


def words_of(low: str) -> list[str]:
    """The words of a lower-cased text, without punctuation; single letters in scripts without spaces."""
    try:
        return low.encode(WESTERN).translate(_NO_WORD).decode(WESTERN).split()
    except UnicodeEncodeError:
        found = _WORDS.findall(low)
    if _UNSPACED.search(low):
        return [part for word in found for part in (word if _UNSPACED.search(word) else (word,))]
    return found


def pairs_of(words: Sequence[str]) -> list[str]:
    return list(map(" ".join, pairwise(words)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    together = len(one | other)
    return len(one & other) / together if together else 1.0


def digests(texts: list[str]) -> np.ndarray[Any, Any]:
    """64 bits for each text, the same in every process."""
    import numpy as np
    import rensa

    if not texts:
        return np.empty(0, dtype=np.uint64)
    # a lone surrogate cannot be encoded
    (hashes,) = rensa.RMinHash.hash_token_sets([[text.encode("utf-8", "replace") for text in texts]])
    return np.array(hashes, dtype=np.uint64)


def signatures(pair_lists: list[list[str]]) -> np.ndarray[Any, Any]:
    """One row of PERMUTATIONS unsigned 32-bit numbers for each list of word pairs."""
    import numpy as np
    import rensa

    matrix = rensa.RMinHash.digest_matrix_from_token_sets(pair_lists, num_perm=PERMUTATIONS, seed=SEED)
    return np.asarray(matrix.to_rows(), dtype=np.uint32).reshape(-1, PERMUTATIONS)


def band_keys(signature: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """BANDS 64-bit keys for each row: two rows share a key when the band's numbers are equal (or rarely by chance)."""
    import numpy as np

    banded = signature.reshape(-1, BANDS, BAND_ROWS).astype(np.uint64)
    key = np.zeros(banded.shape[:2], dtype=np.uint64)
    for column in range(BAND_ROWS):
        # multiply and mix; the overflow is intended
        key = (key ^ banded[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    made: np.ndarray[Any, Any] = key + np.arange(BANDS, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
    return made


def sketch(signature: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The low byte of the first SKETCH numbers of each signature."""
    import numpy as np

    return signature[:, :SKETCH].astype(np.uint8)


class Groups:
    """Groups of rows (union-find by number); only rows that were joined use memory."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def first(self, row: int) -> int:
        """The smallest row of the group."""
        parent = self._parent
        top = row
        while (above := parent.get(top, top)) != top:
            top = above
        while (above := parent.get(row, row)) != top:
            parent[row] = top
            row = above
        return top

    def join(self, one: int, other: int) -> None:
        one, other = self.first(one), self.first(other)
        if one != other:
            self._parent[max(one, other)] = min(one, other)

    def members(self) -> dict[int, list[int]]:
        """The rows of each group by its first row, in order."""
        found: dict[int, list[int]] = {}
        for row in sorted(self._parent):
            first = self.first(row)
            if first != row:
                found.setdefault(first, [first]).append(row)
        return found

    def later(self) -> list[int]:
        """All rows that are not the first of their group."""
        return sorted(row for row in self._parent if self.first(row) != row)
