"""Text that an encoding, a program or a careless export has damaged."""

from __future__ import annotations

import re
import unicodedata

# all characters that one of the rules below looks for, so that a clean text needs one search
_SUSPECT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffd\u200b\u2060\u2061-\u2064\u202a-\u202e\u2066-\u2069\u00ad\U000e0000-\U000e007f\ud800-\udfff]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LOST = re.compile("[\ufffd\ud800-\udfff]")
# zero-width characters that no script needs, bidirectional overrides, tag characters
_INVISIBLE = re.compile("[\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
# UTF-8 read as Windows-1252 or Latin-1 (Ã©, â€™, Ð¿), or as Mac Roman (√©): a cheap test, ftfy decides
_MAYBE_MOJIBAKE = re.compile(
    "[Â-ô][\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€]|[√‚][Ä©®†°±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬ƒ≈∆«»ÅÉÑÖÜáàâäãåçéèêëíìîïñóò]"
)
_BREAKS = re.compile("\r\n?")


def damage_kinds(text: str, pair: bool = True) -> list[tuple[str, int]]:
    """`(kind, place)` for each kind of damage in the text. `pair`: it may have two adjacent non-ASCII characters."""
    hits = []
    if _SUSPECT.search(text):
        mark = text.find("\ufeff")
        if mark >= 0:
            hits.append(("byte-order-mark", mark))
        for kind, pattern in (
            ("control-characters", _CONTROL),
            ("lost-characters", _LOST),
            ("invisible-characters", _INVISIBLE),
        ):
            match = pattern.search(text)
            if match:
                hits.append((kind, match.start()))
    if pair:
        match = _MAYBE_MOJIBAKE.search(text)
        if match and fix_mojibake(text) != text:
            hits = [hit for hit in hits if hit[0] != "control-characters" or _CONTROL.search(fix_mojibake(text))]
            hits.append(("mojibake", match.start()))
    return hits


def fix_mojibake(text: str) -> str:
    """The text before it was read in a wrong encoding, as far as ftfy can restore it; unchanged when it is correct."""
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, fix_surrogates=False, remove_control_chars=False,
        normalization=None,
        restore_byte_a0=True, replace_lossy_sequences=True, decode_inconsistent_utf8=True, fix_c1_controls=False,
    )  # fmt: skip
    # line by line: one line in another encoding must not prevent the repair of the others
    return "\n".join(ftfy.fix_text(line, config) if not line.isascii() else line for line in text.split("\n"))


def repair_text(text: str) -> str:
    """The text without mojibake, control and invisible characters; line breaks as \\n, letters composed (NFC)."""
    if not text.isascii() and _MAYBE_MOJIBAKE.search(text):
        text = fix_mojibake(text)
    text = _BREAKS.sub("\n", text)
    if _SUSPECT.search(text):
        text = _INVISIBLE.sub("", _CONTROL.sub("", text.replace("\ufeff", "")))
    return text if text.isascii() else unicodedata.normalize("NFC", text)
