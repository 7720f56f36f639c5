"""The events of the comparison: valid by the contract, of the stated size and skew, the same for the same seed."""

import json
from collections import Counter

import pytest

from benchmarks.compare.catalogue import AGENCIES, SERVICES, catalogue
from benchmarks.compare.load import BATCH_EVENTS, Load, Truth
from benchmarks.compare.writing import PARTITIONS, Writer
from pipeline.catalogue import catalogue_from_json
from pipeline.contract.checks import check
from pipeline.contract.columns import EventColumns, to_columns
from pipeline.contract.decode import decode

UNTIL_MS = 1_760_000_000_000
EVENTS = 60_000


@pytest.fixture(scope="module")
def values() -> list[bytes]:
    return [value for block in Load(EVENTS, UNTIL_MS).blocks() for value in block.values]


@pytest.fixture(scope="module")
def columns(values: list[bytes]) -> EventColumns:
    decoded = decode(values, [[]] * len(values))
    assert decoded.refusals == []
    return to_columns(decoded)


def test_the_catalogue_is_valid_and_has_the_stated_size() -> None:
    loaded = catalogue_from_json(catalogue().json, "here")
    assert len(loaded.agencies) == AGENCIES == 45
    assert len(loaded.pairs) == SERVICES == 400


def test_every_event_passes_the_checks_of_the_contract(values: list[bytes], columns: EventColumns) -> None:
    assert len(columns) == EVENTS
    assert check(columns, [UNTIL_MS] * len(values), catalogue(), 3660, 300) == {}


def test_ids_are_unique_and_times_grow_up_to_now_at_the_stated_rate(columns: EventColumns) -> None:
    assert len(set(columns.event_id)) == EVENTS
    assert columns.time_ms == sorted(columns.time_ms)
    assert columns.time_ms[-1] == UNTIL_MS
    assert columns.time_ms[-1] - columns.time_ms[0] == pytest.approx(EVENTS / 5_000 * 1_000, abs=2)


def test_an_event_has_350_bytes_on_average(values: list[bytes]) -> None:
    assert sum(map(len, values)) / len(values) == pytest.approx(350, rel=0.02)
    assert min(map(len, values)) >= 270
    assert max(map(len, values)) <= 480


def test_the_skew_is_the_published_one(columns: EventColumns) -> None:
    agencies = Counter(columns.agency)
    services = Counter(zip(columns.agency, columns.service, strict=True))
    assert sum(count for _, count in agencies.most_common(3)) / EVENTS == pytest.approx(0.96, abs=0.01)
    assert services.most_common(1)[0][1] / EVENTS == pytest.approx(0.12, abs=0.015)
    assert sum(1 for user in columns.user if user) / EVENTS == pytest.approx(0.75, abs=0.03)
    assert len(set(columns.user)) > 10_000


def test_all_agencies_and_services_occur() -> None:
    truth = Truth()
    for block in Load(300_000, UNTIL_MS).blocks():
        truth.add(block)
    assert len(truth.services) == 400
    assert len(truth.agencies) == 45
    assert sum(truth.agencies.values()) == truth.events == 300_000


def test_the_count_of_uses_is_that_of_the_decoder(columns: EventColumns) -> None:
    truth = Truth()
    for block in Load(EVENTS, UNTIL_MS).blocks():
        truth.add(block)
    assert truth.uses == sum(1 for stage in columns.stage if not stage)
    assert Truth.from_json(json.loads(json.dumps(truth.as_json()))) == truth
    assert truth.services == Counter(f"{a}/{s}" for a, s in zip(columns.agency, columns.service, strict=True))


def test_the_same_seed_gives_the_same_events_and_another_seed_others(values: list[bytes]) -> None:
    again = [value for block in Load(EVENTS, UNTIL_MS).blocks() for value in block.values]
    assert again == values
    other = next(Load(EVENTS, UNTIL_MS, seed=2).blocks()).values
    assert not set(other) & set(values)


def test_batches_hold_the_same_events_in_the_same_order(values: list[bytes]) -> None:
    block = next(Load(150, UNTIL_MS).blocks())
    batches = block.batches()
    decoded = decode(batches, [[]] * len(batches))
    assert decoded.records == [0] * BATCH_EVENTS + [1] * 50
    assert [event.id for event in decoded.events] == [
        event.id for event in decode(block.values, [[]] * len(block.values)).events
    ]


class _Kept:
    """A sender that keeps what it was given."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, int, bytes | None, object]] = []

    def send(self, topic: str, value: bytes, partition: int, key: bytes | None, headers: object) -> None:
        self.messages.append((topic, value, partition, key, headers))

    def close(self) -> None:
        return


def test_messages_take_turns_over_the_partitions_and_batches_have_their_header() -> None:
    block = next(Load(1_000, UNTIL_MS).blocks())
    kept = _Kept()
    writer = Writer(kept, "service")
    writer.write_single("a", block)
    writer.write_batches("b", block)
    singles = [message for message in kept.messages if message[0] == "a"]
    batches = [message for message in kept.messages if message[0] == "b"]
    assert [value for _, value, _, _, _ in singles] == block.values
    assert [key for _, _, _, key, _ in singles] == block.keys
    assert [partition for _, _, partition, _, _ in singles] == [n % PARTITIONS for n in range(1_000)]
    assert [partition for _, _, partition, _, _ in batches] == [n % PARTITIONS for n in range(10)]
    assert {str(headers) for *_, headers in batches} == {"[('content-type', b'application/cloudevents-batch+json')]"}


def test_keys_by_id_are_the_ids_of_the_events() -> None:
    block = next(Load(200, UNTIL_MS).blocks())
    kept = _Kept()
    writer = Writer(kept, "id")
    writer.write_single("a", block)
    writer.write_batches("b", block)
    ids = [event.id.encode() for event in decode(block.values, [[]] * 200).events]
    assert [key for topic, _, _, key, _ in kept.messages if topic == "a"] == ids
    assert [key for topic, _, _, key, _ in kept.messages if topic == "b"] == [ids[0], ids[100]]


def test_a_prefix_is_the_first_events_of_all() -> None:
    block = next(Load(1_000, UNTIL_MS).blocks())
    short, truth = Truth(), Truth()
    short.add(block.first(300))
    truth.add(block)
    assert (short.events, truth.events) == (300, 1_000)
    assert block.first(300).values == block.values[:300]
    assert short.uses == sum(b"service.used" in value for value in block.values[:300])
    assert len(block.first(5_000).values) == 1_000
