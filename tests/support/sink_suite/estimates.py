"""How far estimates are from the truth: people from merged states, percentiles from merged buckets, all in SQL."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contract.events import MAX_DURATION_MS
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.period_sql import bucket_sql
from tests.support.sink_suite.data import connected, rows

PEOPLE_ERROR = 0.02
"""What docs/analysts.md states for people: relative, for each of these sizes and keys."""
DURATION_ERROR = 0.0100001
"""What it states for percentiles, and a little for the last bit of a floating-point number."""
SIZES = (1, 2, 10, 100, 1_000, 5_000, 20_000, 100_000, 400_000, 1_000_000)
KEYS = 8

# As in the third query of docs/analysts.md.
PERCENTILE = """
WITH 1.01 / 0.99 AS g
SELECT arrayMap(bucket -> if(bucket = -1, 0, 2 * pow(g, bucket) / (g + 1)), buckets)
FROM
(
    SELECT sum(uses) AS total, sumMap(histogram) AS durations, arrayCumSum(mapValues(durations)) AS ranks,
        arrayMap(
            share -> arrayFirst((bucket, rank) -> rank >= ceil(share * total), mapKeys(durations), ranks), [{shares}]
        ) AS buckets
    FROM ({parts})
)
"""


def parts_of(durations: list[list[int]]) -> str:
    """A histogram of each part, as the minutes of several services have them."""
    return " UNION ALL ".join(
        f"SELECT count() AS uses, CAST(sumMap([{bucket_sql('duration')}], [toUInt64(1)]), 'Map(Int16, UInt64)')"
        f" AS histogram FROM (SELECT arrayJoin({part}) AS duration)"
        for part in durations
    )


class TestEstimates:
    def test_people_are_within_two_percent_and_small_numbers_exact(self, store: ClickHouseSettings) -> None:
        states = (
            # Each person in two of the states, as somebody who comes again, or to another service.
            "SELECT uniqCombined64State(sipHash64(number, {key})) AS state FROM numbers({size})"
            " GROUP BY number % 29 UNION ALL"
            " SELECT uniqCombined64State(sipHash64(number, {key})) AS state FROM numbers({size}) GROUP BY number % 31"
        )
        with connected(store) as client:
            for size in SIZES:
                for key in range(KEYS):
                    ((people,),) = rows(
                        client, f"SELECT uniqCombined64Merge(state) FROM ({states.format(key=key, size=size)})"
                    )
                    assert abs(people - size) <= PEOPLE_ERROR * size, (size, key, people)
                    if size <= 1_000:
                        assert people == size

    def test_people_do_not_depend_on_how_states_are_merged(self, store: ClickHouseSettings) -> None:
        with connected(store) as client:
            answers = {
                rows(
                    client,
                    "SELECT uniqCombined64Merge(state) FROM (SELECT uniqCombined64State(sipHash64(number)) AS state"
                    f" FROM numbers(300000) GROUP BY {group})",
                )[0]
                for group in ("number % 2", "number % 97", "intDiv(number, 1000)", "cityHash64(number) % 11")
            }
        assert len(answers) == 1

    def test_percentiles_of_merged_buckets_are_within_one_percent(self, store: ClickHouseSettings) -> None:
        durations = st.lists(
            st.lists(
                st.one_of(st.integers(0, 5_000), st.integers(0, MAX_DURATION_MS), st.just(0)), min_size=1, max_size=40
            ),
            min_size=1,
            max_size=5,
        )
        shares = (0.5, 0.95, 0.99, 1.0)
        with connected(store) as client:

            @given(durations)
            @settings(max_examples=60, suppress_health_check=list(HealthCheck))
            def compare(parts: list[list[int]]) -> None:
                sql = PERCENTILE.format(shares=", ".join(map(str, shares)), parts=parts_of(parts))
                ((found,),) = rows(client, sql)
                everything = sorted(duration for part in parts for duration in part)
                exact = [everything[math.ceil(share * len(everything)) - 1] for share in shares]
                assert found == [pytest.approx(value, rel=DURATION_ERROR, abs=0) for value in exact]

            compare()
