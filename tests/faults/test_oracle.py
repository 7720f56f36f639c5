"""The oracle and the comparison can fail: they see what is missing, what is too much, and what is wrong."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalogue import demonstration_catalogue
from pipeline.fold.flush import Flush
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.rules import Rules
from pipeline.settings import ClickHouseSettings, FoldSettings
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import write_openings, write_results
from sinks.dead_letters import _letter
from tests.faults import oracle
from tests.faults.compare import Difference, compare
from tests.faults.load import Load
from tests.faults.log import LogRecord
from tests.faults.poison import poison
from tests.support.minute_rows import minute_rows


def now() -> int:
    """Of the test, not of the run, which may be long: an event must not be far ahead of its record. Milliseconds."""
    return int(time.time() * 1000)


def records(messages: int, large: bool = False) -> list[LogRecord]:
    """What a load would put on one partition, and what nobody should send."""
    load = Load("", "usage.events", 1, seed=5, name="oracle")
    values = [load.message(0) for _ in range(messages)]
    made = [LogRecord("id", 0, offset, now(), None, value, ()) for offset, value in enumerate(values)]
    for message in poison("oracle"):
        if len(message.value or b"") + len(message.key or b"") > 500_000 and not large:
            continue
        stamp = now() if message.timestamp_ms is None else message.timestamp_ms
        made.append(LogRecord("id", 0, len(made), stamp, message.key, message.value, message.headers))
    return made


def fold(log: list[LogRecord]) -> Flush:
    """What the pipeline makes of the records."""
    catalogue = demonstration_catalogue()
    rules = Rules.of(FoldSettings(segment_records=20), catalogue.version)
    partition = PartitionFold(LogPartition("t", "id", 0), 0, {}, rules, {catalogue.version: catalogue}, Memory([], 2))
    partition.add(
        RecordBatch(
            "t",
            0,
            0,
            len(log),
            len(log),
            [record.offset for record in log],
            [record.timestamp for record in log],
            [record.key for record in log],
            [record.value for record in log],
            [record.headers for record in log],
        )
    )
    return partition.take()


def test_the_load_knows_what_it_sends() -> None:
    load = Load("", "usage.events", 1, seed=1, name="load")
    log = [LogRecord("id", 0, offset, now(), None, load.message(0), ()) for offset in range(50)]
    truth = oracle.count(log)
    assert truth.events == load.sent.events > 5_000
    assert len(truth.ledger) == truth.accepted == load.sent.distinct == 5_000
    assert truth.duplicates == load.sent.near > 0
    assert Counter(truth.rejected.values()) == load.sent.invalid
    assert len(load.sent.invalid) == 9


def test_a_repeat_on_another_partition_is_accepted_again_and_in_the_ledger_once() -> None:
    load = Load("", "usage.events", 2, seed=1, name="load")
    log = [LogRecord("id", number % 2, number // 2, now(), None, load.message(number % 2), ()) for number in range(60)]
    truth = oracle.count(log)
    assert truth.repeats == load.sent.far > 0
    assert truth.duplicates == load.sent.near
    assert sum(truth.minutes.values()) == truth.accepted == len(truth.ledger) + truth.repeats


def test_oracle_and_fold_judge_alike_though_they_share_no_code() -> None:
    log = records(30, large=True)
    truth = oracle.count(log)
    flush = fold(log)
    ours = {("id", 0, item.offset, item.batch_index): item.reason.value for item in flush.rejects}
    assert ours == truth.rejected
    assert len(set(truth.rejected.values())) == 12
    assert sum(row.events for row in minute_rows(flush)) >= truth.accepted > 20_000
    assert flush.events == truth.events


@pytest.fixture(scope="module")
def log() -> list[LogRecord]:
    return records(30)


@pytest.fixture
def stored(log: list[LogRecord], tmp_path: Path) -> Iterator[tuple[Client, list[LogRecord]]]:
    """Tables of a log, and its dead letters."""
    settings = ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}")
    migrate(settings)
    flush = fold(log)
    letters = []
    for number, reject in enumerate(flush.rejects):
        letter = _letter(reject)
        letters.append(LogRecord("letters", 0, number, now(), letter.key, letter.value, tuple(letter.headers)))
    client = connect(settings)
    try:
        write_openings(client, flush)
        write_results(client, flush)
        yield client, letters
    finally:
        client.close()


def difference_of(log: list[LogRecord], client: Client, letters: list[LogRecord]) -> Difference:
    report = audit(client)
    found = compare(oracle.count(log), client, letters, report)
    json.dumps(found.words)
    return found


@pytest.mark.embedded
def test_what_the_pipeline_writes_is_the_truth(log: list[LogRecord], stored: tuple[Client, list[LogRecord]]) -> None:
    assert difference_of(log, *stored) == Difference()


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("damage", "lost", "duplicated"),
    [
        ("DELETE FROM ledger WHERE event_hash % 1000 = 7", True, False),
        ("DELETE FROM minutes WHERE agency = 'mincom'", True, False),
        ("DELETE FROM receipts WHERE segment = 0", True, False),
        ("INSERT INTO ledger SELECT * REPLACE (event_hash + 1 AS event_hash) FROM ledger LIMIT 5", False, True),
        ("INSERT INTO minutes SELECT * REPLACE (segment + 1 AS segment) FROM minutes LIMIT 3", False, True),
        (
            "INSERT INTO minutes SELECT * REPLACE (events + 1 AS events, 1000000 AS next_offset) FROM minutes",
            False,
            True,
        ),
        ("INSERT INTO receipts SELECT * REPLACE (segment + 100000 AS segment) FROM receipts FINAL", False, True),
        ("INSERT INTO ledger SELECT * REPLACE ('other' AS agency) FROM ledger LIMIT 5", False, True),
    ],
)
def test_damage_is_seen(
    log: list[LogRecord], stored: tuple[Client, list[LogRecord]], damage: str, lost: bool, duplicated: bool
) -> None:
    client, letters = stored
    client.execute(damage)
    found = difference_of(log, client, letters)
    assert (found.lost > 0, found.duplicated > 0) == (lost, duplicated)
    assert found.words


@pytest.mark.embedded
def test_wrong_durations_are_seen(log: list[LogRecord], stored: tuple[Client, list[LogRecord]]) -> None:
    client, letters = stored
    client.execute("INSERT INTO minutes SELECT * REPLACE (duration_ms_sum + 1 AS duration_ms_sum) FROM minutes")
    assert any("durations" in words for words in difference_of(log, client, letters).words)


@pytest.mark.embedded
def test_letters_that_are_missing_or_of_another_place_are_seen(
    log: list[LogRecord], stored: tuple[Client, list[LogRecord]]
) -> None:
    client, letters = stored
    assert difference_of(log, client, letters[1:]).lost == 1
    assert difference_of(log, client, [*letters, letters[0]]) == Difference(), "the same letter again is no other"
    moved = [(name, b"77777" if name == "xidmet-offset" else value) for name, value in letters[0].headers]
    stranger = LogRecord("letters", 0, 99_999, now(), None, b"", tuple(moved))
    assert difference_of(log, client, [*letters, stranger]).duplicated == 1
