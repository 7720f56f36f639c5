"""Spoiled events are refused for the reason asked for, and for no other."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pipeline.catalogue import demonstration_catalogue
from pipeline.contract.checks import check
from pipeline.contract.columns import to_columns
from pipeline.contract.decode import decode
from pipeline.contract.events import STAGE_TYPE, USED_TYPE
from pipeline.contract.profiles import Profiles
from pipeline.contract.reasons import Reason
from pipeline.generator import Generator, spoiled

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
Event = dict[str, Any]


@pytest.fixture(scope="module", params=[USED_TYPE, STAGE_TYPE])
def event(request: pytest.FixtureRequest) -> Event:
    made = Generator(demonstration_catalogue()).events(NOW - timedelta(days=2), NOW, 2_000)
    return next(event for event in made if event["type"] == request.param)


def reasons(message: bytes) -> list[Reason]:
    decoded = decode([message], [()])
    if decoded.refusals:
        return [refusal.reason for refusal in decoded.refusals]
    columns = to_columns(decoded, Profiles())
    faults = check(columns, [int(NOW.timestamp() * 1000)], demonstration_catalogue(), 3_660, 300)
    return [reason for reason, _ in faults.values()]


def test_the_event_is_good_before(event: Event) -> None:
    assert reasons(msgspec.json.encode(event)) == []


@pytest.mark.parametrize("kind", list(Reason))
def test_each_reason_is_met(event: Event, kind: Reason) -> None:
    assert reasons(spoiled(event, kind)) == [kind]


def test_the_event_itself_is_not_changed(event: Event) -> None:
    before = msgspec.json.encode(event)
    for kind in Reason:
        spoiled(event, kind)
    assert msgspec.json.encode(event) == before
