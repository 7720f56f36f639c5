"""Events by profile, and texts by dictionary: the same fields come out, whatever was numbered before."""

from collections.abc import Sequence

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract.checks import _PLAIN_CODE
from pipeline.contract.decode import decode
from pipeline.contract.encoded import Encoded, Lists, Maps, encoded, joined
from pipeline.contract.events import StageEvent, UseData, UsedEvent
from pipeline.contract.identifiers import code_fault
from pipeline.contract.profiles import PROFILE_FIELDS, Profile, Profiles, profiles_of
from pipeline.contract.reasons import Reason
from tests.support.fold_model import Item

TEXTS = st.text("ab", max_size=2)
PROFILES = st.tuples(*[TEXTS] * len(PROFILE_FIELDS))


def uses(items: Sequence[Item]) -> list[UsedEvent]:
    decoded = decode([msgspec.json.encode(item.to_json()) for item in items], [()] * len(items))
    return [event for event in decoded.events if isinstance(event, UsedEvent)]


@given(st.lists(st.lists(PROFILES, max_size=5), max_size=5))
def test_columns_and_groups_give_back_what_was_numbered(batches: list[list[Profile]]) -> None:
    profiles = Profiles()
    numbered = [np.array([profiles.number(one) for one in batch], dtype=np.int32) for batch in batches]
    for batch, numbers in zip(batches, numbered, strict=True):
        for place, name in enumerate(PROFILE_FIELDS):
            assert list(profiles.column(name, numbers)) == [one[place] for one in batch]
        of_profile, groups = profiles.groups(("stage", "agency"))
        assert [groups[code] for code in of_profile[numbers].tolist()] == [(one[4], one[0]) for one in batch]
        assert len(set(groups)) == len(groups)


def test_an_absent_field_and_an_empty_one_are_the_same() -> None:
    profiles = Profiles()
    (event,) = uses([Item(1)])
    empty = msgspec.structs.replace(event.data, centre="")
    assert profiles.number_uses([event.data, empty, event.data]).tolist() == [0, 0, 0]
    assert list(profiles.column("centre", profiles.number_uses([empty]))) == [""]


def test_a_stage_and_a_use_of_the_same_service_differ() -> None:
    profiles = Profiles()
    (event,) = uses([Item(1)])
    stage = {
        "specversion": "1.0",
        "id": "2",
        "source": "/",
        "type": "xidmet.application.stage.v1",
        "time": "2026-01-01T00:00:00Z",
        "data": {"agency": "a1", "service": "s1", "application": "A-1", "stage": "received"},
    }
    (other,) = decode([msgspec.json.encode(stage)], [()]).events
    assert isinstance(other, StageEvent)
    numbers = np.array([profiles.number_uses([event.data])[0], profiles.number_stage(other.data)], dtype=np.int32)
    assert list(profiles.column("stage", numbers)) == ["", "received"]
    assert list(profiles.column("outcome", numbers)) == ["success", ""]
    assert list(profiles.column("initiator", numbers)) == ["", ""]


def test_every_field_of_a_use_stands_in_its_own_column() -> None:
    """Fields that take any text, by name; those of a list of words get one that no other field has."""
    texts = {name: f"text of {name}" for name in PROFILE_FIELDS if name != "stage"}
    use = msgspec.structs.replace(
        UseData(agency="", service="", channel="web", outcome="success", duration_ms=1.0), **texts
    )
    absent = UseData(agency="a", service="s", channel="web", outcome="success", duration_ms=1.0)
    profiles = Profiles()
    numbers = profiles.number_uses([use, absent])
    found = {name: list(profiles.column(name, numbers)) for name in PROFILE_FIELDS}
    known = {"agency": "a", "service": "s", "channel": "web", "outcome": "success"}
    assert found == {name: [texts.get(name, ""), known.get(name, "")] for name in PROFILE_FIELDS}


def test_a_fault_is_looked_for_once_a_profile_and_key() -> None:
    asked: list[Profile] = []

    def fault_of(profile: Profile) -> tuple[Reason, str] | None:
        asked.append(profile)
        return (Reason.UNKNOWN_AGENCY, profile[0]) if profile[0] == "b" else None

    profiles, _ = profiles_of([["a", "b"], *[["", ""]] * 10])
    assert profiles.faults(1, fault_of) == profiles.faults(1, fault_of) == {1: (Reason.UNKNOWN_AGENCY, "b")}
    assert len(asked) == 2
    profiles.number(("b", "s", *[""] * 9))
    assert set(profiles.faults(1, fault_of)) == {1, 2}
    assert len(asked) == 3
    assert set(profiles.faults(2, fault_of)) == {1, 2}
    assert len(asked) == 6


def test_a_table_says_when_it_is_full() -> None:
    profiles = Profiles()
    for number in range(100_000):
        assert not profiles.full
        profiles.number((str(number), *[""] * 10))
    assert profiles.full


@given(st.lists(st.lists(TEXTS, max_size=4), max_size=4), st.booleans())
def test_joined_texts_are_those_of_the_parts(parts: list[list[str]], shared: bool) -> None:
    words = ["", "a", "b", "aa", "ab", "ba", "bb"]
    columns = [
        Encoded(words, np.array([words.index(text) for text in part], dtype=np.int32)) if shared else encoded(part)
        for part in parts
    ]
    together = joined(columns)
    assert list(together) == [text for part in parts for text in part]
    assert len(set(together.words)) == len(together.words)


@given(st.lists(st.dictionaries(st.integers(-9, 9), st.integers(0, 9), max_size=3), max_size=4))
def test_lists_and_maps_give_back_their_rows(rows: list[dict[int, int]]) -> None:
    keys = np.array([key for row in rows for key in row], dtype=np.int64)
    values = np.array([value for row in rows for value in row.values()], dtype=np.int64)
    ends = np.cumsum([len(row) for row in rows]).astype(np.uint64)
    assert list(Maps(keys, values, ends)) == rows
    assert list(Lists(values, ends)) == [list(row.values()) for row in rows]


# Parts of everything that is refused as an identifier, and what joins them.
PARTS = ["AZE", "aa", "MYI", "C", "p", "No", "A", "xk", "-", "--", "7", "994", "0", "50", "123456", "1234567", "GB82"]


@given(st.one_of(st.lists(st.sampled_from([*PARTS, ".", "/", "_", ":"]), max_size=8).map("".join), st.text(max_size=9)))
def test_what_passes_for_a_plain_code_has_no_fault(value: str) -> None:
    if _PLAIN_CODE.fullmatch(value):
        assert code_fault(value, fin=True) is None


def test_usual_codes_are_plain() -> None:
    for value in ("app-1234abcd", "A/2026/17", "2026-000123-X", "case_7", "a.b"):
        assert _PLAIN_CODE.fullmatch(value)
    for value in ("C-1234567", "AZE12345678", "1234567", "a@b.az"):
        assert not _PLAIN_CODE.fullmatch(value)
