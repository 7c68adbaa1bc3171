"""Email addresses, phone numbers, IBANs and card numbers, each checked by the rules of its standard."""

from __future__ import annotations

import re
from functools import lru_cache

from harness.dataset.rules.span import TextSpan

# words that make a bare number a phone number
PHONE_WORDS = (
    "phone", "call", "mobile", "fax", "whatsapp", "tel.", "tel:", "telefon", "telephone", "anruf", "ruf ", "rufen",
    "handy", "durchwahl", "mobil", "téléphone", "appel", "portable", "joindre", "teléfono", "llam", "móvil", "telefono",
    "chiam", "cellulare", "telefone", "ligu", "telemóvel", "bel ",
)  # fmt: skip
# national numbers are tried in these regions: those of the languages that the rules know
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "AT", "CH", "NL", "BE", "PT", "BR", "MX")

_MAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
# reserved names (RFC 2606 and 6761)
_NOBODY = re.compile(r"@(?:[\w-]+\.)*(?:example(?:\.(?:com|org|net))?|invalid|test|localhost)$|^git@", re.IGNORECASE)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \u00a0]?[A-Z0-9]{2,4}){3,8}(?:[ \u00a0]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_DIGITS = re.compile(r"(?<![\w.,/=#-])\+?\(?\d(?:[ \u00a0\u202f()./-]{0,3}\d){6,18}(?!\w)(?![.,/-]\d)")
_NUMBER_SIGNS = re.compile(r"\D")
# dates, IP addresses, decimal numbers, ranges of years, ISBNs
_NO_PHONE = re.compile(
    r"(?:\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./-]\d{1,2}[./-]\d{1,2})(?![\d./-])"
    r"|\d{1,3}(?:\.\d{1,3}){3}$|\d+[.,]\d+$|(?:1[89]|20)\d\d ?[-/] ?(?:1[89]|20)\d\d$|97[89][ -]?\d"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:[ \u00a0\u202f.]\d{3})+$")
_US = re.compile(r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}$")
_SPANISH = re.compile(r"[6789]\d\d \d\d \d\d \d\d$")


def mail_spans(text: str) -> list[TextSpan]:
    return [
        TextSpan("email", *match.span())
        for match in _MAIL.finditer(text)
        if not _NOBODY.search(match.group()) and not match.group().startswith((".", "%", "-"))
    ]


def iban_spans(text: str) -> list[TextSpan]:
    """IBANs with valid country, length and checksum. A word after one is not part of it."""
    from stdnum import iban

    spans = []
    for match in _IBAN.finditer(text):
        written = match.group()
        while len(written) >= 15:
            if iban.is_valid(written, check_country=False):
                spans.append(TextSpan("iban", match.start(), match.start() + len(written)))
                break
            cut = max(written.rfind(" "), written.rfind("\u00a0"))
            if cut < 0:
                break
            written = written[:cut]
    return spans


def number_spans(text: str, low: str, phone_word: bool) -> list[TextSpan]:
    """Card and phone numbers among the text's digits. `phone_word`: the text contains a word for phone."""
    spans = []
    for match in _DIGITS.finditer(text):
        written = match.group()
        digits = _NUMBER_SIGNS.sub("", written)
        kind = None
        if is_card(written, digits):
            kind = "card-number"
        elif len(digits) <= 15:
            near = phone_word and any(word in low[max(0, match.start() - 40) : match.start()] for word in PHONE_WORDS)
            if is_phone(written, digits, near):
                kind = "phone"
        if kind:
            spans.append(TextSpan(kind, *match.span()))
    return spans


def is_card(written: str, digits: str) -> bool:
    """A valid Luhn checksum, and the range and length of an issuer (ISO/IEC 7812; 13 digits are no longer used)."""
    if not 14 <= len(digits) <= 19 or written.startswith(("+", "(", "00")) or "/" in written or "." in written:
        return False
    two, four = int(digits[:2]), int(digits[:4])
    length = len(digits)
    fits = (
        (digits[0] == "4" and length in (16, 19))
        or ((51 <= two <= 55 or 2221 <= four <= 2720) and length == 16)
        or (two in (34, 37) and length == 15)
        or ((four == 6011 or two == 65 or 644 <= int(digits[:3]) <= 649) and length in (16, 19))
        or (3528 <= four <= 3589 and length in (16, 19))
        or ((two in (36, 38) or 300 <= int(digits[:3]) <= 305) and length in (14, 16, 19))
        or (two in (50, 56, 57, 58, 67) and 16 <= length <= 19)
    )
    if not fits or len(set(digits)) < 2:
        return False
    from stdnum import luhn

    return bool(luhn.is_valid(digits))


@lru_cache(maxsize=4096)
def is_phone(written: str, digits: str, near: bool) -> bool:
    """Whether the number is possible by libphonenumber's plans. `near`: a word for phone is shortly before it."""
    if written.startswith("+") or (digits.startswith("00") and len(digits) >= 11):
        return len(digits) >= 7 and _possible("+" + digits.lstrip("0"), None)
    if _NO_PHONE.match(written):
        return False
    if near:
        return len(digits) >= 7 and any(_possible(digits, region) for region in REGIONS)
    if _THOUSANDS.match(written) or written == digits:
        return False
    if digits[0] == "0" and len(digits) >= 9:
        return any(_valid(digits, region) for region in REGIONS if region != "US")
    if _US.match(written):
        return _valid(digits, "US")
    return bool(_SPANISH.match(written)) and _valid(digits, "ES")


def _possible(number: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _valid(number: str, region: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number_for_region(phonenumbers.parse(number, region), region)
    except phonenumbers.NumberParseException:
        return False
