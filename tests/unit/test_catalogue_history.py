"""The history of the catalogue: what holds of what was said, on any day, and what makes another catalogue of it."""

from datetime import date
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalogue import Agency, Catalogue, Service, demonstration_catalogue
from pipeline.catalogue.changes import (
    KINDS,
    AnyChange,
    Digitised,
    Merged,
    Moved,
    Renamed,
    Withdrawn,
    read_change,
)
from pipeline.catalogue.demonstration import demonstration_history
from pipeline.catalogue.history import (
    Coverage,
    catalogue_at,
    check,
    coverage,
    differences,
    offered,
)
from pipeline.contract.statements import Logged, Unreadable, in_force, not_said
from pipeline.errors import CatalogueError
from pipeline.runtime.statements import CATALOGUE, message
from tests.support.catalogue_changes import any_change, day, logs, names, registered


def state(changes: list[AnyChange], on: int) -> dict[tuple[str, str], object]:
    """Of the services that count: the day since which they can be used, and where they run."""
    standings = catalogue_at(in_force(changes), day(on))
    return {subject: (one.digitised, one.hosting) for subject, one in offered(standings).items()}


A = [registered("a"), registered("a", "s")]


def test_the_life_of_a_service() -> None:
    changes = [
        *A,
        Digitised(agency="a", service="s", valid_from=day(10)),
        Moved(agency="a", service="s", valid_from=day(10), hosting="own"),
        Moved(agency="a", service="s", valid_from=day(20), hosting="government_cloud"),
        Withdrawn(agency="a", service="s", valid_from=day(30)),
    ]
    assert state(changes, -1) == {}
    assert state(changes, 0) == state(changes, 9) == {("a", "s"): (None, "")}
    assert state(changes, 10) == {("a", "s"): (day(10), "own")}
    assert state(changes, 20) == {("a", "s"): (day(10), "government_cloud")}
    assert state(changes, 30) == {}
    assert state([*changes, registered("a", "s", on=40)], 40) == {("a", "s"): (day(10), "government_cloud")}


def test_what_is_said_again_of_a_day_replaces_and_void_takes_back() -> None:
    wrong = Digitised(agency="a", service="s", valid_from=day(5))
    right = Digitised(agency="a", service="s", valid_from=day(15))
    undone = msgspec.structs.replace(wrong, void=True)
    assert state([*A, wrong, undone, right], 10) == {("a", "s"): (None, "")}
    assert state([*A, wrong, undone, right], 15) == {("a", "s"): (day(15), "")}
    assert state([*A, undone, wrong], 5) == {("a", "s"): (day(5), "")}
    twice = [*A, registered("a", "s", word="first"), registered("a", "s", word="second")]
    (one,) = [one for one in catalogue_at(in_force(twice), day(0)).values() if one.service]
    assert one.name == names("second")


def test_services_of_an_agency_that_ended_do_not_count() -> None:
    changes: list[AnyChange] = [*A, registered("b"), Merged(agency="a", valid_from=day(3), into_agency="b")]
    assert coverage(catalogue_at(in_force(changes), day(2))) == [Coverage("a", 1, 0), Coverage("b", 0, 0)]
    assert coverage(catalogue_at(in_force(changes), day(3))) == [Coverage("b", 0, 0)]
    assert Coverage("b", 0, 0).share is None
    assert state(changes, 3) == {}


def test_a_service_of_an_agency_that_nobody_registered_does_not_count() -> None:
    assert state([registered("a", "s")], 0) == {}


def test_changes_of_one_day_take_effect_in_a_fixed_order() -> None:
    changes: list[AnyChange] = [
        registered("a"),
        registered("a", "s"),
        Renamed(agency="a", service="s", valid_from=day(0), name=names("new")),
        Withdrawn(agency="a", service="s", valid_from=day(0)),
    ]
    found = [catalogue_at(in_force(list(order)), day(0)) for order in permutations(changes)]
    assert all(one == found[0] for one in found)
    assert found[0]["a", "s"].status == "withdrawn"
    assert found[0]["a", "s"].name == names("new")
    assert (KINDS[0], KINDS[-1]) == ("registered", "withdrawn")


@given(logs(), st.integers(0, 8), st.data())
def test_only_the_order_of_what_has_one_key_matters(log: list[AnyChange], on: int, data: st.DataObject) -> None:
    last = {one.key: one for one in log}
    shuffled = data.draw(st.permutations(list(last.values())))
    assert catalogue_at(in_force(shuffled), day(on)) == catalogue_at(in_force(log), day(on))


@given(logs(), st.integers(0, 8))
def test_what_becomes_so_later_changes_nothing_before(log: list[AnyChange], on: int) -> None:
    changes = in_force(log)
    until = [change for change in changes if change.valid_from <= day(on)]
    assert catalogue_at(changes, day(on)) == catalogue_at(until, day(on))


@given(logs(), st.integers(0, 8))
def test_after_the_differences_are_said_there_are_none(log: list[AnyChange], on: int) -> None:
    catalogue = Catalogue(
        version=2,
        agencies=(
            Agency(code="a", name=names("one"), services=(Service(code="s", name=names("two")),)),
            Agency(code="d", name=names("new"), services=()),
        ),
    )
    changes = in_force(log)
    new = differences(catalogue_at(changes, day(on)), catalogue, day(on))
    after = catalogue_at(in_force([*log, *new]), day(on))
    # A change of the same day that comes later in the order of a day is stronger than what is said now.
    stronger = {(one.agency, one.service or "") for one in changes if one.valid_from == day(on)}
    left = [one for one in differences(after, catalogue, day(on)) if (one.agency, one.service or "") not in stronger]
    assert left == []
    if not stronger:
        assert set(offered(after)) == {("a", "s")}
        assert not_said(in_force([*log, *new]), new) == []


@given(any_change())
def test_a_change_survives_its_message(change: AnyChange) -> None:
    read = read_change(message(CATALOGUE, "test", change), 7, 9)
    assert isinstance(read, Logged)
    assert (read.said, read.offset, read.recorded_ms) == (change, 7, 9)
    assert b"null" not in message(CATALOGUE, "test", change)


def test_the_same_change_said_twice_in_a_second_has_one_id() -> None:
    ids = {read_change(message(CATALOGUE, "test", A[0]), 0, 0).event_id for _ in range(3)}  # type: ignore[union-attr]
    assert len(ids) <= 2
    assert ids.isdisjoint({read_change(message(CATALOGUE, "test", A[1]), 0, 0).event_id})  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"change": "registred"}, "Invalid value 'registred'"),
        ({"change": "registered"}, "required field `name`"),
        ({"change": "digitised", "service": None}, "$.data.service"),
        ({"change": "digitised", "valid_from": "2013-13-01"}, "Invalid RFC3339"),
        ({"change": "withdrawn", "valid_from": "1969-01-01"}, "valid_from must be from 1970-01-02"),
        ({"change": "withdrawn", "agency": "no code"}, "$.data.agency"),
        ({"change": "moved", "hosting": "cellar"}, "Invalid enum value 'cellar'"),
        ({"change": "promised"}, "at least one of"),
        ({"change": "promised", "days": 0}, "$.data.days"),
        ({"change": "merged", "into_agency": "b"}, "name into_service"),
        ({"change": "merged", "into_agency": "a", "into_service": "s"}, "into itself"),
    ],
)
def test_what_is_no_change_is_told_in_words(data: dict[str, object], words: str) -> None:
    event = {
        "specversion": "1.0",
        "type": "xidmet.catalogue.changed.v1",
        "id": "1",
        "source": "test",
        "time": "2013-01-01T00:00:00Z",
        "data": {"agency": "a", "service": "s", "valid_from": "2013-01-01"} | data,
    }
    read = read_change(msgspec.json.encode(event), 3, 0)
    assert isinstance(read, Unreadable)
    assert words in read.words
    assert read.offset == 3


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\xff", b"{}", b"[" * 100_000])
def test_rubbish_is_no_change(value: bytes | None) -> None:
    read = read_change(value, 1, 0)
    assert isinstance(read, Unreadable)
    assert read.words


def test_what_nobody_registered_is_refused() -> None:
    check(A, A)
    late = Digitised(agency="a", service="s", valid_from=date(2012, 12, 31))
    with pytest.raises(CatalogueError, match=r"service a/s is not registered before 2013-01-01|agency a is not"):
        check([*A, late], [late])
    other = Digitised(agency="a", service="typo", valid_from=day(1))
    with pytest.raises(CatalogueError, match=r"digitised of a/typo from 2013-01-02 on: .* is not registered;"):
        check([*A, other], [other])
    into = Merged(agency="a", service="s", valid_from=day(1), into_agency="a", into_service="t")
    with pytest.raises(CatalogueError, match=r"service a/t is not registered"):
        check([*A, into], [into])
    check([*A, other], [msgspec.structs.replace(other, void=True)])


HISTORY = demonstration_history()


@pytest.mark.parametrize(
    ("on", "registered_services", "digitised"),
    [
        # Published of e-gov.az: see docs/catalogue.md.
        (date(2013, 7, 1), 417, 225),
        (date(2013, 7, 31), 417, 225),
        (date(2016, 1, 1), 423, 423),
        (date(2016, 6, 30), 423, 423),
    ],
)
def test_the_demonstration_is_pinned_to_the_published_figures(
    on: date, registered_services: int, digitised: int
) -> None:
    found = coverage(catalogue_at(HISTORY, on))
    assert len(found) == 41
    assert (sum(one.registered for one in found), sum(one.digitised for one in found)) == (
        registered_services,
        digitised,
    )


def test_the_demonstration_ends_as_the_demonstration_catalogue_is() -> None:
    end = date(2016, 6, 30)
    assert differences(catalogue_at(HISTORY, end), demonstration_catalogue(), end) == []


def test_the_demonstration_fits_together() -> None:
    check(HISTORY, HISTORY)
    assert len({one.key for one in HISTORY}) == len(HISTORY)
    assert {one.kind for one in HISTORY} == {"registered", "digitised", "moved", "promised"}
    hosted = [one.hosting for one in catalogue_at(HISTORY, date(2017, 6, 1)).values() if one.service]
    assert 0.3 < hosted.count("government_cloud") / len(hosted) < 0.4
