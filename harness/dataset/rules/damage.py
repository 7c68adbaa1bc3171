"""Text that an encoding, a program or a careless export has damaged."""

from __future__ import annotations

import re
import unicodedata

# all signs that one of the rules below looks for, so that a clean text costs one search
_SUSPECT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffd\u200b\u2060\u2061-\u2064\u202a-\u202e\u2066-\u2069\u00ad\U000e0000-\U000e007f\ud800-\udfff]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LOST = re.compile("[\ufffd\ud800-\udfff]")
# zero-width signs that no script needs, bidirectional overrides, tag characters
_INVISIBLE = re.compile("[\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
# UTF-8 read as Windows-1252 or Latin-1 (Ã©, â€™, Ð¿), or as Mac Roman (√©): cheap, ftfy decides
_MAYBE_MOJIBAKE = re.compile(
    "[Â-ô][\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€]|[√‚][Ä©®†°±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬ƒ≈∆«»ÅÉÑÖÜáàâäãåçéèêëíìîïñóò]"
)
_BREAKS = re.compile("\r\n?")


def damage_kinds(text: str, pair: bool = True) -> list[tuple[str, int]]:
    """`(kind, place)` for each kind of damage in the text. `pair`: it may have two signs beyond ASCII side by side."""
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
        if match and unmangled(text) != text:
            hits = [hit for hit in hits if hit[0] != "control-characters" or _CONTROL.search(unmangled(text))]
            hits.append(("mojibake", match.start()))
    return hits


def unmangled(text: str) -> str:
    """The text as it was before it was read in a wrong encoding, as far as ftfy can tell; unchanged when it was not."""
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, fix_surrogates=False, remove_control_chars=False,
        normalization=None,
        restore_byte_a0=True, replace_lossy_sequences=True, decode_inconsistent_utf8=True, fix_c1_controls=False,
    )  # fmt: skip
    # line by line: one foreign line must not keep the others from being mended
    return "\n".join(ftfy.fix_text(line, config) if not line.isascii() else line for line in text.split("\n"))


def mended(text: str) -> str:
    """Without mojibake, control and invisible characters and marks; line breaks as \\n, letters composed (NFC)."""
    if not text.isascii() and _MAYBE_MOJIBAKE.search(text):
        text = unmangled(text)
    text = _BREAKS.sub("\n", text)
    if _SUSPECT.search(text):
        text = _INVISIBLE.sub("", _CONTROL.sub("", text.replace("\ufeff", "")))
    return text if text.isascii() else unicodedata.normalize("NFC", text)
