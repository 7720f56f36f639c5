"""Personal identifiers are told from pseudonyms and codes."""

import base64
import hashlib
import hmac
import random
import re
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.contract.events import CODE_PATTERN, PSEUDONYM_PATTERN
from pipeline.contract.identifiers import code_fault, identifier_kind, pseudonym_fault

# All made up. The cards are the numbers that payment schemes publish for tests, the account is the IBAN registry's.
FINS = ["5ABC1D2", "1234A5B", "7xyz9q8", "ABCDEF1", "A000000"]
E_MAILS = [
    "aysel@example.az",
    "a.b+c@mail.example.com",
    "Aysel Məmmədova <aysel@example.az>",
    "AYSEL@EXAMPLE.AZ",
    "mailto:aysel@example.az",
    "a-very-long-local-part-of-an-address@example.az",
    " aysel@example.az\n",
]
PHONES = [
    "+994 50 123 45 67",
    "+994501234567",
    "+994(50)123-45-67",
    "994501234567",
    "00994501234567",
    "994 12 498 12 34",
    "050-123-45-67",
    "0501234567",
    "050 123 45 67",
    "+44 20 7946 0958",
]
DOCUMENTS = [
    "AZE12345678",
    "AZE 12345678",
    "AZE-12345678",
    "AZE № 12345678",
    "AZE No 12345678",
    "AZE N 12345678",
    "aze12345678",
    "AA1234567",
    "AA 1234567",
    "C01234567",
    "P1234567",
    "MYI123456",
    "DYI1234567",
]
CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "5555555555554444",
    "378282246310005",
    "3782 822463 10005",
    "4222222222222",
    "6011 1111 1111 1117",
]
IBANS = ["AZ21NABZ00000000137010001944", "DE89370400440532013000", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"]
KINDS = {
    "FIN code": FINS,
    "e-mail address": E_MAILS,
    "phone number": PHONES,
    "identity document number": DOCUMENTS,
    "payment card number": CARDS,
    "bank account number": IBANS,
}
KNOWN = [(kind, value) for kind, values in KINDS.items() for value in values]
DIGEST = hmac.digest(b"key", b"person", hashlib.sha256)
# Seven letters and digits are nothing unusual in the code of a place.
IN_CODES = [(kind, value) for kind, value in KNOWN if kind != "FIN code"]


def article(kind: str) -> str:
    return "an" if kind[0] in "aei" else "a"


@pytest.mark.parametrize(("kind", "value"), KNOWN)
def test_each_kind_of_identifier_is_named(kind: str, value: str) -> None:
    assert identifier_kind(value) == kind
    assert identifier_kind(f"  {value}\t") == kind


@pytest.mark.parametrize(("kind", "value"), KNOWN)
def test_an_identifier_is_no_pseudonym(kind: str, value: str) -> None:
    assert pseudonym_fault(value) == (True, f"looks like {article(kind)} {kind}")


@pytest.mark.parametrize(("kind", "value"), IN_CODES)
def test_an_identifier_is_no_code(kind: str, value: str) -> None:
    assert code_fault(value) == (True, f"looks like {article(kind)} {kind}")
    assert code_fault(value, fin=True) == (True, f"looks like {article(kind)} {kind}")


@pytest.mark.parametrize("value", FINS)
def test_a_fin_code_is_refused_only_where_people_are_meant(value: str) -> None:
    assert code_fault(value, fin=True) == (True, "looks like a FIN code")
    assert code_fault(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "aysel",
        "Aysel Məmmədova",
        "aysel.memmedova",
        "1234567",
        "501234567",
        "+994 50 123 45 6",
        "4111111111111112",
        "AZ21 NABZ 0000 0000 1370 1000 1944",
        "0" * 22,
        "00000000000994501234567",
        "0" * 20 + "994501234567",
        "994501234567" + "0" * 52,
        hashlib.md5(b"person").hexdigest()[:21],
        DIGEST.hex() + "\n",
        "\n" + DIGEST.hex(),
        DIGEST.hex() + "\0",
        " " + DIGEST.hex(),
        base64.b64encode(DIGEST).decode(),
        DIGEST.hex() * 3,
        "ə" * 32,
        "٣" * 32,
        "{" + str(uuid.UUID(int=7)) + "}",
    ],
)
def test_what_is_no_pseudonym_is_taken_for_personal(value: str) -> None:
    fault = pseudonym_fault(value)
    assert fault is not None
    assert fault[0]


@pytest.mark.parametrize(
    "value",
    [
        DIGEST.hex(),
        DIGEST.hex()[:32],
        DIGEST.hex().upper(),
        # 32 capital hexadecimal digits that look like the start of a bank account.
        "DE89" + DIGEST.hex().upper()[:28],
        base64.urlsafe_b64encode(DIGEST).rstrip(b"=").decode(),
        base64.urlsafe_b64encode(DIGEST[:16]).rstrip(b"=").decode(),
        "-_" * 11 + "a",
        str(uuid.uuid5(uuid.NAMESPACE_DNS, "person")),
        hashlib.sha512(b"person").hexdigest(),
    ],
)
def test_a_pseudonym_is_accepted(value: str) -> None:
    assert pseudonym_fault(value) is None


@given(st.binary(min_size=16, max_size=64))
@example(seed=b"\x00\x00\x00\x00\x00\x00\x02\x06\x03\x10\x14]{\x997\xd4\xe3")  # DA07..., as an IBAN might begin
def test_keyed_digests_of_at_least_128_bits_are_accepted_in_every_usual_encoding(seed: bytes) -> None:
    digest = hashlib.blake2b(seed, digest_size=len(seed)).digest()
    for text in (digest.hex(), digest.hex().upper(), base64.urlsafe_b64encode(digest).rstrip(b"=").decode()):
        assert len(text) > 128 or pseudonym_fault(text) is None, text


def test_of_many_pseudonyms_none_is_taken_for_an_identifier() -> None:
    source = random.Random(20_250_314)
    refused = []
    for _ in range(20_000):
        digest = source.randbytes(32)
        texts = [digest.hex(), digest.hex()[:32], digest.hex()[:32].upper()]
        texts += [base64.urlsafe_b64encode(digest[:size]).rstrip(b"=").decode() for size in (16, 32)]
        refused += [text for text in texts if pseudonym_fault(text) is not None]
    assert not refused


@given(st.sampled_from(KNOWN), st.sampled_from(["", " ", "\t", "\n"]), st.sampled_from(["", " ", "\r\n"]))
def test_white_space_around_an_identifier_does_not_hide_it(known: tuple[str, str], before: str, behind: str) -> None:
    assert pseudonym_fault(before + known[1] + behind) == (True, f"looks like {article(known[0])} {known[0]}")


@given(st.text(max_size=40))
def test_whatever_is_accepted_has_the_published_form(value: str) -> None:
    if pseudonym_fault(value) is None:
        assert re.fullmatch(PSEUDONYM_PATTERN[1:-1], value, re.ASCII)
    if code_fault(value) is None:
        assert re.fullmatch(CODE_PATTERN[1:-1], value, re.ASCII)


@given(st.from_regex(CODE_PATTERN[1:-1], fullmatch=True))
def test_a_text_of_the_form_of_a_code_is_refused_only_as_an_identifier(value: str) -> None:
    fault = code_fault(value)
    assert fault is None or (fault[0] and identifier_kind(value, fin=False) is not None)


@pytest.mark.parametrize(
    "value",
    [
        "service-centre-1",
        "centre:baku/3",
        "AZ-BA",
        "yasamal",
        "SC1234567",
        "asan-imza",
        "mlspp/benefits",
        "urn:x-road:AZ:GOV:1001/benefits",
        "10",
        "2025",
        "0001",
        "v1.2.3",
        "a" * 128,
    ],
)
def test_usual_codes_of_centres_districts_and_systems_are_accepted(value: str) -> None:
    assert code_fault(value) is None


@pytest.mark.parametrize("value", ["", "a b", "-a", ".a", "a\n", "\na", "a\0", "ə", "a" * 129, "a@b", "a,b", "№1"])
def test_what_has_not_the_form_of_a_code_is_refused_but_not_as_personal(value: str) -> None:
    fault = code_fault(value)
    assert fault is not None
    assert not fault[0]


@pytest.mark.parametrize("piece", ["a", "a.", "@", "a@", "a@a", " ", "0", "0 ", "-", "994 ", "AZE ", "+1(", "A0"])
def test_texts_of_any_length_are_judged_quickly(piece: str) -> None:
    text = piece * (2_000_000 // len(piece))
    assert code_fault(text) is not None
    assert pseudonym_fault(text) is not None


@given(st.sampled_from(KNOWN))
def test_words_about_a_fault_do_not_repeat_the_value(known: tuple[str, str]) -> None:
    for fault in (pseudonym_fault(known[1]), code_fault(known[1], fin=True)):
        assert fault is not None
        assert known[1] not in fault[1]
