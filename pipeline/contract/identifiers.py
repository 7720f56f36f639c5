"""Recognise personal identifiers where a pseudonym or a code belongs.

A pseudonym is at least 128 bits in base64url or hexadecimal (22 characters or more), which already keeps out
FIN codes (7 letters and digits), passport and identity card numbers (AZE, AA, C or P and 6 to 9 digits), phone
numbers (up to 15 digits, ITU-T E.164) and payment cards (up to 19 digits, ISO/IEC 7812). What is left, an IBAN
(ISO 13616) or digits padded to length, is recognised by form.
"""

import re
from typing import Final

from pipeline.contract.events import CODE_PATTERN, PSEUDONYM_PATTERN

_PSEUDONYM: Final = re.compile(PSEUDONYM_PATTERN[1:-1])
_CODE: Final = re.compile(CODE_PATTERN[1:-1])
# One character before the @ is enough to find, and takes linear time in a text of any length.
_EMAIL: Final = re.compile(r"[^@\s]@[^@\s]+\.[^@\s]")
_PHONE: Final = re.compile(
    r"(?:\+|00)?994[\s()-]*\d{2}(?:[\s()-]*\d){7}|\+\d[\d\s()-]{7,17}|0\d{2}[\s-]?\d{3}[\s-]?\d{2}[\s-]?\d{2}"
)
_FIN: Final = re.compile(r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[0-9A-Za-z]{7}")
# Shorter than any pseudonym, so that whoever looks at pseudonyms only for other forms finds the same.
_DOCUMENT: Final = re.compile(r"(?:AZE|AA|MYI|DYI|[CP])[\s-]{0,3}(?:No?|\u2116)?[\s-]{0,3}\d{6,9}", re.IGNORECASE)
# 32 to 34 hexadecimal digits are a digest, not an account: no country with a code of A to F has accounts that long.
_IBAN: Final = re.compile(r"(?![0-9A-F]{32,34}\Z)[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
# First digits of the international card brands and of the national ones around (ISO/IEC 7812): without them, one in
# ten numbers of that length would pass for a card.
_CARD: Final = re.compile(r"(?:[3-6]|2[2-7]|9792)\d{12,18}")
_GROUPED: Final = re.compile(r"[\d\s-]{13,40}")


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def identifier_kind(value: str, *, fin: bool = True) -> str | None:
    """Name the kind of personal identifier that ``value`` looks like, or None.

    ``fin`` is False for codes of places and systems, among which seven letters and digits are nothing unusual.
    """
    text = value.strip()
    if _EMAIL.search(text):
        return "e-mail address"
    if _PHONE.fullmatch(text):
        return "phone number"
    if _DOCUMENT.fullmatch(text):
        return "identity document number"
    if _IBAN.fullmatch(text):
        return "bank account number"
    if _GROUPED.fullmatch(text):
        digits = re.sub(r"[\s-]", "", text)
        if _CARD.fullmatch(digits) and _luhn(digits):
            return "payment card number"
    if fin and _FIN.fullmatch(text):
        return "FIN code"
    return None


def _looks_like(kind: str) -> str:
    return f"looks like {'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def pseudonym_fault(value: str) -> tuple[bool, str] | None:
    """Say why ``value`` cannot be a pseudonym: (looks like an identifier, what it looks like), or None if it can."""
    kind = identifier_kind(value)
    if kind is not None:
        return True, _looks_like(kind)
    if not _PSEUDONYM.fullmatch(value):
        # Short or spaced values are refused as identifiers too: names and account names have no fixed form.
        return True, "is not a keyed pseudonym of at least 128 bits (22 or more of A-Z a-z 0-9 _ -)"
    if value.isdecimal() and (len(value) < 32 or len(value.strip("0")) < 22):
        return True, "is a number, not a keyed pseudonym"
    return None


def code_fault(value: str, *, fin: bool = False) -> tuple[bool, str] | None:
    """Say why ``value`` cannot be a code: (looks like an identifier, what is wrong), or None if it can."""
    kind = identifier_kind(value, fin=fin)
    if kind is not None:
        return True, _looks_like(kind)
    if not _CODE.fullmatch(value):
        return False, "is not a code (1 to 128 of A-Z a-z 0-9 . _ : / -, first a letter or digit)"
    return None
