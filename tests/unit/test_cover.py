"""A period cut into closed days, closed hours and minutes."""

import random
from itertools import pairwise

import pytest

from sinks.clickhouse.cover import Part, parts_of

HOUR = 3600
DAY = 24 * HOUR
# Days of Baku begin at 20 hours of UTC.
BAKU = -4 * HOUR


def test_without_closed_periods_everything_is_read_from_the_minutes() -> None:
    assert parts_of(60, 3 * DAY, set(), {}) == [Part("minutes", 60, 3 * DAY)]
    assert parts_of(60, 60, set(), {}) == []


def test_the_largest_whole_periods_are_taken() -> None:
    start, end = 10 * DAY + 90, 12 * DAY + 5 * HOUR + 30
    hours = set(range(9 * DAY, 12 * DAY + 4 * HOUR, HOUR))
    days = {at: at + DAY for at in range(9 * DAY + BAKU, 12 * DAY + BAKU, DAY)}
    assert parts_of(start, end, hours, days) == [
        Part("minutes", start, 10 * DAY + HOUR),
        Part("hours", 10 * DAY + HOUR, 11 * DAY + BAKU),
        Part("days", 11 * DAY + BAKU, 12 * DAY + BAKU),
        Part("hours", 12 * DAY + BAKU, 12 * DAY + 4 * HOUR),
        Part("minutes", 12 * DAY + 4 * HOUR, end),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_every_second_lies_in_one_part_and_only_whole_closed_periods_are_read(seed: int) -> None:
    draw = random.Random(seed)
    start = draw.randrange(5 * DAY)
    end = start + draw.randrange(1, 10 * DAY)
    hours = {at for at in range(0, 16 * DAY, HOUR) if draw.random() < 0.8}
    # A day of summer time has 23 or 25 hours.
    days, at = {}, BAKU + DAY
    while at < 16 * DAY:
        length = DAY + draw.choice((0, 0, 0, HOUR, -HOUR))
        if draw.random() < 0.8:
            days[at] = at + length
        at += length
    parts = parts_of(start, end, hours, days)
    assert parts[0].start == start
    assert parts[-1].end == end
    for part, following in pairwise(parts):
        assert part.end == following.start
        assert part.table != following.table
    for part in parts:
        if part.table == "hours":
            assert set(range(part.start, part.end, HOUR)) <= hours
        if part.table == "days":
            at = part.start
            while at < part.end:
                at = days[at]
            assert at == part.end
