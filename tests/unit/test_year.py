"""The year of benchmarks/queries.py: its shape, its questions and its page. The figures need a server."""

from datetime import timedelta
from itertools import pairwise

import pytest

from benchmarks.year.measure import percentile
from benchmarks.year.questions import QUESTIONS, YEAR
from benchmarks.year.report import page, short, table, too_slow
from benchmarks.year.shape import (
    AGENCIES,
    BAKU,
    END,
    HOURS,
    SERVICES,
    SLOTS,
    START,
    catalogue,
    chunks,
    hour_of,
    hour_starts,
    popularity,
)

MILLION = 1_000_000


def test_services_are_as_unevenly_used_as_published() -> None:
    known = popularity()
    shares: dict[str, float] = {}
    services = []
    for agency, start, following in zip(known.agencies, known.starts, [*known.starts[1:], SLOTS], strict=True):
        assert start < following
        shares[agency] = shares.get(agency, 0) + (following - start) / SLOTS
        services.append((following - start) / SLOTS)
    assert len(catalogue().agencies) == len(shares) == AGENCIES
    assert len(catalogue().pairs) == SERVICES
    assert set(zip(known.agencies, known.services, strict=True)) < catalogue().pairs
    leading = sorted(shares.values(), reverse=True)
    assert sum(leading[:3]) == pytest.approx(683_565 / 710_981, rel=0.001)
    assert sorted(services)[-2:] == pytest.approx([957_255 / 8_155_155, 1_007_705 / 8_155_155], rel=0.001)


def test_every_event_is_in_one_hour_and_nights_are_quieter_than_days() -> None:
    starts = hour_starts(MILLION)
    assert len(starts) == HOURS + 1
    assert (starts[0], starts[-1]) == (0, MILLION)
    assert all(one < other for one, other in pairwise(starts))
    sizes = {hour_of(hour).astimezone(BAKU): starts[hour + 1] - starts[hour] for hour in range(HOURS)}
    by_hour = [sum(size for at, size in sizes.items() if at.hour == hour) for hour in range(24)]
    assert by_hour.index(min(by_hour)) in (2, 3, 4)
    weekdays = [sum(size for at, size in sizes.items() if at.weekday() == day) for day in (0, 6)]
    assert weekdays[0] > 1.8 * weekdays[1]


def test_chunks_cover_the_year_and_none_crosses_a_month() -> None:
    parts = chunks()
    assert (parts[0].first_hour, parts[-1].last_hour) == (0, HOURS)
    assert all(one.last_hour == other.first_hour for one, other in pairwise(parts))
    for part in parts:
        last = hour_of(part.last_hour) - timedelta(seconds=1)
        assert hour_of(part.first_hour).month == last.month
        assert 0 < part.last_hour - part.first_hour <= 240
    assert (START.astimezone(BAKU).timetuple()[:4], END.astimezone(BAKU).timetuple()[:4]) == (
        (YEAR, 1, 1, 0),
        (YEAR + 1, 1, 1, 0),
    )


def test_questions_are_asked_with_the_same_parameters_each_time_and_others_at_each_repetition() -> None:
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS) >= 30
    for question in QUESTIONS:
        drawn = [question.parameters(repetition) for repetition in range(20)]
        assert drawn == [question.parameters(repetition) for repetition in range(20)]
        for name in drawn[0]:
            assert f"{{{name}:" in question.sql or name in ("first", "last", "from", "until", "week", "day")
        if drawn[0] and "now" not in drawn[0]:
            assert len({str(one) for one in drawn}) > 3
        for view in question.view.split(", "):
            assert f" {view}" in question.sql, question.name
        assert question.free == (question.view == "events")


def test_the_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0], 0.95) == 3.0
    values = [float(number) for number in range(20, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile(values, 1.0)) == (10.0, 19.0, 20.0)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (950, "950"), (12_345, "12.3 k"), (4_560_000, "4.56 M"), (1.2e12, "1,200 G")]
)
def test_counts_are_written_short(number: float, text: str) -> None:
    assert short(number) == text


def test_the_page_and_the_table_tell_which_question_is_too_slow() -> None:
    base = {"words": "Words", "view": "hourly", "cold_ms": 300.0, "p50_ms": 10.0, "max_ms": 260.0, "cpu_ms": 5.0}
    base |= {"rows_read": 1000, "bytes_read": 2000, "memory_bytes": 3000}
    figures = {
        "events": MILLION,
        "repetitions": 20,
        "fill_seconds": 5,
        "machine": {"cores": 2, "memory_gb": 8, "processor": "P", "system": "Linux", "python": "3", "load": 0.1},
        "clickhouse": "26.7",
        "tables": [{"table": "hours", "rows": 5, "bytes": 6, "parts": 7}],
        "questions": [
            base | {"name": "quick", "free": False, "p95_ms": 199.0},
            base | {"name": "slow", "free": False, "p95_ms": 201.0},
            base | {"name": "free", "free": True, "p95_ms": 900.0, "view": "events"},
        ],
        "commands": [{"name": "top", "words": "`xidmet top`", "p50_ms": 1.0, "p95_ms": 2.0, "rows_read": 3}],
        "audit": None,
    }
    assert [item["name"] for item in too_slow(figures)] == ["slow"]
    text = page(figures)
    assert "more than 200 ms (p95): slow." in text
    assert text.index("`quick`") < text.index("## Single events") < text.index("`free`")
    assert [line.rpartition("  ")[2] for line in table(figures).splitlines()[1:4]][1:] == ["TOO SLOW", "free-form"]
