"""Rules as they stand in receipts, across versions of the program, and the dimensions that they add."""

import msgspec
import pytest

from pipeline.errors import SchemaError
from pipeline.fold.rules import DIMENSIONS, Rules
from pipeline.settings import Dimension, FoldSettings
from tests.support.minute_rows import minute_rows
from tests.support.sink_suite.data import RULES, new_fold, synthetic, typical_log

# As the version before dimensions wrote it.
OLD = (
    '{"segment_records":50000,"segment_bytes":16777216,"memory_segments":2,'
    '"max_age_days":3660,"max_ahead_seconds":300,"catalogue_version":3}'
)


def test_a_receipt_from_before_dimensions_has_the_rules_without_any() -> None:
    assert Rules.from_json(OLD) == Rules.of(FoldSettings(), 3)
    assert Rules.of(FoldSettings(), 3).to_json() == OLD


def test_dimensions_stand_in_the_receipt_in_one_order_and_once() -> None:
    wanted: tuple[Dimension, ...] = ("initiator", "hosting", "initiator")
    rules = Rules.of(FoldSettings(dimensions=wanted), 3)
    assert rules.dimensions == ("hosting", "initiator")
    assert Rules.from_json(rules.to_json()) == rules
    assert rules != Rules.of(FoldSettings(), 3)


def test_differences_name_each_field_that_is_other() -> None:
    rules = Rules.of(FoldSettings(), 3)
    other = Rules.of(FoldSettings(dimensions=("initiator", "hosting")), 4)
    assert rules.differences(rules) == []
    assert rules.differences(other) == ["catalogue_version 3, here 4", "dimensions none, here hosting initiator"]
    assert other.differences(rules) == ["catalogue_version 4, here 3", "dimensions hosting initiator, here none"]


@pytest.mark.parametrize("text", ['"rounding":1', '"dimensions":["weather"]'])
def test_rules_of_a_newer_version_are_refused_and_not_half_followed(text: str) -> None:
    with pytest.raises(SchemaError, match="use a newer xidmet"):
        Rules.from_json(OLD.replace("{", "{" + text + ",", 1))


def test_minutes_have_the_dimensions_of_the_rules_and_the_same_totals() -> None:
    log = typical_log()
    plain = new_fold()
    plain.add(log.batch(0, log.end))
    fold = new_fold(rules=msgspec.structs.replace(RULES, dimensions=DIMENSIONS))
    fold.add(log.batch(0, log.end))
    few, many = minute_rows(plain.take()), minute_rows(fold.take())
    assert sum(row.events for row in few) == sum(row.events for row in many) == len(log.accepted)
    assert len(many) > len(few)
    assert {row.dimensions for row in few} == {()}
    for name in DIMENSIONS:
        counted: dict[str, int] = {}
        for row in many:
            value = row.key.further[row.dimensions.index(name)]
            counted[value] = counted.get(value, 0) + row.events
        expected: dict[str, int] = {}
        for event in log.accepted:
            value = event["data"].get(name, "")
            expected[value] = expected.get(value, 0) + 1
        assert counted == expected
        assert len(expected) > 1


def test_the_synthetic_events_have_values_of_every_dimension() -> None:
    events = synthetic(400)
    assert all(any(name in event["data"] for event in events) for name in DIMENSIONS)
