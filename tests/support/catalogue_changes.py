"""Changes of a small catalogue, for tests and as hypothesis draws them."""

from datetime import date, timedelta
from typing import Any

from hypothesis import strategies as st

from pipeline.catalogue.changes import (
    AnyChange,
    Digitised,
    Merged,
    Moved,
    Promised,
    Registered,
    Renamed,
    Withdrawn,
)
from pipeline.catalogue.model import Names
from pipeline.contract.statements import Logged

FIRST = date(2013, 1, 1)


def day(number: int) -> date:
    """A day, counted from the first."""
    return FIRST + timedelta(days=number)


def names(word: str) -> Names:
    """A name in three languages."""
    return Names(az=f"{word} (az)", en=word, ru=f"{word} (ru)")


def registered(agency: str, service: str | None = None, on: int = 0, word: str = "") -> Registered:
    """A registration."""
    return Registered(agency=agency, service=service, valid_from=day(on), name=names(word or service or agency))


def logged(changes: list[AnyChange]) -> "list[Logged[AnyChange]]":
    """The changes as they would stand on the topic, a second apart."""
    return [Logged(one, number, 1_000 * number, f"event-{number}", "test") for number, one in enumerate(changes)]


@st.composite
def any_change(draw: st.DrawFn) -> AnyChange:
    """A change of one of two agencies or of their few services, within a few days; much of it contradicts other."""
    agency = draw(st.sampled_from(["a", "b"]))
    service = draw(st.sampled_from(["s", "t"]))
    kind = draw(st.sampled_from([Registered, Renamed, Digitised, Moved, Promised, Merged, Withdrawn]))
    fields: dict[str, Any] = {
        "agency": agency,
        "service": service,
        "valid_from": day(draw(st.integers(0, 6))),
        "void": draw(st.integers(0, 5)) == 0,
    }
    if kind in (Registered, Renamed, Merged, Withdrawn) and draw(st.booleans()):
        fields["service"] = None
    if kind in (Registered, Renamed):
        fields["name"] = names(draw(st.sampled_from(["one", "two", "three"])))
    if kind is Moved:
        fields["hosting"] = draw(st.sampled_from(["own", "government_cloud"]))
    if kind is Promised:
        fields |= {
            "days": draw(st.none() | st.integers(1, 90)),
            "p95_ms": draw(st.none() | st.integers(1, 9_000)),
            "success_share": draw(st.none() | st.sampled_from([0.5, 0.95, 0.999])),
        }
        if not any(fields[name] for name in ("days", "p95_ms", "success_share")):
            fields["days"] = 3
    if kind is Merged:
        fields["into_agency"] = "c"
        fields["into_service"] = "s" if fields["service"] else None
    change: AnyChange = kind(**fields)
    return change


def logs() -> st.SearchStrategy[list[AnyChange]]:
    """What might stand on the topic."""
    return st.lists(any_change(), max_size=40)
