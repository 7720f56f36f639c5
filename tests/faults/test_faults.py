"""Some rows of the fault suite, with fewer events; ``make faults`` runs all of them in full."""

from collections.abc import Iterator
from itertools import islice

import pytest

from tests.faults.memory import Life, resident_mb
from tests.faults.plans import CRASH_POINTS
from tests.faults.scenario import Scenario
from tests.faults.soak_faults import sequence
from tests.faults.suite import SCENARIOS, Servers, rows, run_row, servers
from tests.support import ServerUnavailable
from tests.support.skipping import skip_or_fail

EVENTS = 20_000


@pytest.fixture(scope="module")
def on() -> Iterator[Servers]:
    try:
        with servers() as started:
            yield started
    except ServerUnavailable as error:
        skip_or_fail(f"no servers: {error}")


@pytest.mark.servers
@pytest.mark.faults
@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("scenario", "point"),
    [
        pytest.param(scenario, point, id=f"{scenario.fault}, {point}" if point else scenario.fault)
        for scenario in SCENARIOS
        for point in scenario.quick
    ],
)
def test_nothing_is_lost_and_nothing_doubled(on: Servers, scenario: Scenario, point: str) -> None:
    outcome = run_row(on, scenario, point, seed=1, events=EVENTS)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert (outcome.lost, outcome.duplicated, outcome.words) == (0, 0, [])
    assert outcome.events > EVENTS // 2
    assert outcome.rejected > 0


def test_each_scenario_is_named_once_and_runs_at_points_that_exist() -> None:
    names = [scenario.fault for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    for scenario in SCENARIOS:
        assert set(scenario.points) <= set(CRASH_POINTS), scenario.fault
        assert set(scenario.quick) <= set(scenario.points or ("",)), scenario.fault
    assert rows("zombie: before_minutes")
    assert rows("no such row") == []


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    first, again, other = (list(islice(sequence(seed), 100)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    kinds = {fault.name for fault in first}
    assert {fault.name for fault in first[: len(kinds)]} == kinds


def test_memory_beyond_the_bound_and_growth_are_seen() -> None:
    even = [(float(second), 150.0 + second % 10) for second in range(400)]
    growing = [(float(second), 150.0 + second / 2) for second in range(400)]
    assert Life("even", even, 160.0).faults(200.0) == []
    assert "more than 200" in Life("large", even, 201.0).faults(200.0)[0]
    assert "grew from" in Life("growing", growing, 350.0).faults(400.0)[0]
    assert Life("short", growing[:50], 175.0).faults(400.0) == []


def test_memory_of_this_process_can_be_read() -> None:
    import os

    now, peak = resident_mb(os.getpid())
    assert 1 < now <= peak
    assert resident_mb(1 << 30) == (0.0, 0.0)
