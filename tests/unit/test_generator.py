"""The synthetic events: same for the same seed, valid, shaped after the published figures."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pipeline.catalogue import Agency, Catalogue, Names, Service, demonstration_catalogue
from pipeline.contract.decode import decode
from pipeline.contract.events import CHANNELS, OUTCOMES, STAGE_TYPE, STAGES, USED_TYPE, Event
from pipeline.contract.identifiers import code_fault, pseudonym_fault
from pipeline.generator import Generator
from pipeline.generator.people import pseudonym
from pipeline.generator.rhythm import BAKU

START = datetime(2016, 1, 4, tzinfo=UTC)
END = START + timedelta(weeks=8)
COUNT = 60_000

Events = list[dict[str, Any]]


def small_catalogue(agencies: int, services: int) -> Catalogue:
    def named(code: str) -> Names:
        return Names(code, code, code)

    return Catalogue(
        version=1,
        agencies=tuple(
            Agency(f"a{a}", named(f"a{a}"), tuple(Service(f"s{s}", named(f"s{s}")) for s in range(services)))
            for a in range(agencies)
        ),
    )


@pytest.fixture(scope="module")
def events() -> Events:
    return list(Generator(demonstration_catalogue(), seed=7).events(START, END, COUNT))


@pytest.fixture(scope="module")
def uses(events: Events) -> Events:
    return [event["data"] for event in events if event["type"] == USED_TYPE]


def at(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])


def test_the_count_is_exact_and_ids_differ(events: Events) -> None:
    assert len(events) == COUNT
    assert len({event["id"] for event in events}) == COUNT


def test_events_are_in_order_of_time_within_the_period(events: Events) -> None:
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert at(events[0]) >= START
    assert at(events[-1]) < END


@pytest.mark.parametrize("count", [0, 1, 2, 17, 1_000, 16_384, 16_385, 40_001])
def test_any_count_is_met(count: int) -> None:
    generator = Generator(demonstration_catalogue())
    for period in (timedelta(seconds=1), timedelta(hours=3), timedelta(days=30)):
        made = list(generator.events(START, START + period, count))
        times = [event["time"] for event in made]
        assert len(made) == count
        assert times == sorted(times)


def test_the_same_seed_gives_the_same_events() -> None:
    def made(seed: int) -> Events:
        return list(Generator(demonstration_catalogue(), seed).events(START, END, 3_000))

    assert made(5) == made(5)
    assert made(5) != made(6)


def test_a_second_run_of_one_generator_gives_the_same_events() -> None:
    generator = Generator(demonstration_catalogue())
    assert list(generator.events(START, END, 500)) == list(generator.events(START, END, 500))


def test_every_event_decodes_and_names_the_catalogue(events: Events) -> None:
    decoder = msgspec.json.Decoder(Event)
    pairs = demonstration_catalogue().pairs
    decoded = decode([msgspec.json.encode(event) for event in events], [()] * len(events))
    assert not decoded.refusals
    assert decoder.decode(msgspec.json.encode(events[0])) == decoded.events[0]
    assert {(event.data.agency, event.data.service) for event in decoded.events} <= pairs


def test_pseudonyms_and_codes_are_such(uses: Events) -> None:
    users = {use["user"] for use in uses if "user" in use}
    assert {len(user) for user in users} == {43}
    assert not any(pseudonym_fault(user) for user in users)
    for name in ("centre", "district", "sign_in", "consumer"):
        assert not any(code_fault(code) for code in {use[name] for use in uses if name in use})
    assert not any(code_fault(use["application"], fin=True) for use in uses if "application" in use)
    assert pseudonym(1) != pseudonym(2)


def test_three_agencies_have_the_published_shares(uses: Events) -> None:
    shares = [count / len(uses) for _, count in Counter(use["agency"] for use in uses).most_common()]
    for share, published in zip(shares, (276_588, 238_393, 168_584), strict=False):
        assert share == pytest.approx(published / 710_981, abs=0.01)
    assert sum(shares[:3]) == pytest.approx(0.9614, abs=0.005)


def test_two_services_have_the_published_shares(uses: Events) -> None:
    ranked = Counter((use["agency"], use["service"]) for use in uses).most_common()
    assert ranked[0][1] / len(uses) == pytest.approx(1_007_705 / 8_155_155, abs=0.006)
    assert ranked[1][1] / len(uses) == pytest.approx(957_255 / 8_155_155, abs=0.006)
    assert ranked[2][1] < 0.7 * ranked[1][1]


def test_the_tail_is_long_and_some_services_are_never_used(uses: Events) -> None:
    used = {(use["agency"], use["service"]) for use in uses}
    assert 330 < len(used) < 423
    assert len({agency for agency, _ in used}) == 41


def test_day_and_week_have_their_rhythm(events: Events) -> None:
    local = [at(event).astimezone(BAKU) for event in events if event["type"] == USED_TYPE]
    hours = Counter(moment.hour for moment in local)
    weekdays = Counter(moment.weekday() for moment in local)
    assert hours[11] > 8 * hours[4]
    assert weekdays[0] > 1.7 * weekdays[6]


def test_shares_are_plausible(uses: Events) -> None:
    def share(name: str, value: str) -> float:
        return len([use for use in uses if use.get(name) == value]) / len(uses)

    assert {use["channel"] for use in uses} == set(CHANNELS)
    assert {use["outcome"] for use in uses} == set(OUTCOMES)
    assert share("channel", "web") + share("channel", "mobile") > 0.7
    assert 0.005 < share("outcome", "failure") < 0.04
    assert 0.85 < share("outcome", "success") < 0.97
    assert 0.01 < share("initiator", "state") < 0.05
    assert 0.2 < share("hosting", "government_cloud") < 0.9


def test_fields_go_with_their_channels(uses: Events) -> None:
    for use in uses:
        assert ("consumer" in use) == (use["channel"] == "api")
        assert ("centre" in use) == ("district" in use) == (use["channel"] == "centre")
        assert "user" not in use or use["channel"] != "api"
        assert "sign_in" not in use or "user" in use


def test_centres_serve_in_their_hours(events: Events) -> None:
    moments = [at(e).astimezone(BAKU) for e in events if e["type"] == USED_TYPE and e["data"]["channel"] == "centre"]
    assert moments
    assert all(9 <= moment.hour < 18 and moment.weekday() != 6 for moment in moments)


def test_people_return(uses: Events) -> None:
    people = Counter(use["user"] for use in uses if "user" in use)
    often = sorted(people.values(), reverse=True)
    assert len(people) < 0.75 * sum(often)
    assert sum(often[: len(often) // 10]) > 0.25 * sum(often)


def test_latency_is_skewed_and_some_services_are_slow(uses: Events) -> None:
    by_service: dict[tuple[str, str], list[float]] = {}
    for use in uses:
        by_service.setdefault((use["agency"], use["service"]), []).append(use["duration_ms"])
    durations = sorted(use["duration_ms"] for use in uses)
    median = durations[len(durations) // 2]
    assert 100 < median < 1_000
    assert sum(durations) / len(durations) > 1.2 * median
    medians = [sorted(known)[len(known) // 2] for known in by_service.values() if len(known) > 10]
    assert max(medians) > 5 * median


def test_stages_follow_their_use_in_order(events: Events) -> None:
    life: dict[str, list[tuple[str, str]]] = {}
    for event in events:
        if "application" in event["data"]:
            stage = event["data"].get("stage", "used")
            life.setdefault(event["data"]["application"], []).append((stage, event["time"]))
    assert len(life) > 1_000
    whole = ["used", *STAGES]
    for stages in life.values():
        assert [stage for stage, _ in stages] == whole[: len(stages)]
    assert {len(stages) for stages in life.values()} >= {2, 3, 4}


def test_offices_work_in_their_hours(events: Events) -> None:
    worked = [at(e).astimezone(BAKU) for e in events if e["data"].get("stage") in ("processed", "responded")]
    assert worked
    assert all(9 <= moment.hour < 18 and moment.weekday() < 5 for moment in worked)


def test_some_services_move_to_the_cloud_and_stay_there(events: Events) -> None:
    hosting: dict[tuple[str, str], list[str]] = {}
    for event in events:
        if event["type"] == USED_TYPE:
            data = event["data"]
            hosting.setdefault((data["agency"], data["service"]), []).append(data["hosting"])
    moved = [places for places in hosting.values() if len(set(places)) == 2]
    assert moved
    assert all(places == sorted(places, reverse=True) for places in moved)


def lives(seed: int, calls: int, count: int = 400) -> Iterator[tuple[datetime, Events]]:
    generator = Generator(demonstration_catalogue(), seed)
    for call in range(calls):
        now = datetime(2026, 3, 2, 9, tzinfo=UTC) + timedelta(seconds=10 * call)
        yield now, generator.live(now, count)


def test_live_events_are_of_the_second_before() -> None:
    seen: set[str] = set()
    kinds: Counter[str] = Counter()
    for now, made in lives(3, 30):
        times = [at(event) for event in made]
        assert len(made) == 400
        assert times == sorted(times)
        assert now - timedelta(seconds=1) < times[0]
        assert times[-1] <= now
        seen.update(event["id"] for event in made)
        kinds.update(event["type"] for event in made)
    assert len(seen) == 30 * 400
    assert kinds[STAGE_TYPE] > 500


def test_live_events_are_the_same_for_the_same_calls() -> None:
    assert list(lives(3, 4)) == list(lives(3, 4))
    assert list(lives(3, 4)) != list(lives(4, 4))


@pytest.mark.parametrize(("agencies", "services"), [(1, 1), (1, 5), (2, 1), (3, 3), (5, 30)])
def test_any_catalogue_will_do(agencies: int, services: int) -> None:
    catalogue = small_catalogue(agencies, services)
    made = list(Generator(catalogue).events(START, END, 2_000))
    assert len(made) == 2_000
    assert {(event["data"]["agency"], event["data"]["service"]) for event in made} <= catalogue.pairs


def test_wrong_arguments_are_refused() -> None:
    generator = Generator(demonstration_catalogue())
    with pytest.raises(ValueError, match="time zone"):
        generator.events(datetime(2016, 1, 1), END, 1)
    with pytest.raises(ValueError, match="not after"):
        generator.events(END, START, 1)
    with pytest.raises(ValueError, match="negative"):
        generator.events(START, END, -1)
    with pytest.raises(ValueError, match="time zone"):
        generator.live(datetime(2016, 1, 1), 1)
    with pytest.raises(ValueError, match="negative"):
        generator.live(START, -1)
    with pytest.raises(ValueError, match="no service"):
        Generator(small_catalogue(1, 0))
