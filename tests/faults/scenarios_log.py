"""The log itself changes under the workers: offsets, topics, retention, hours, transactions, partitions."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from sinks.clickhouse.audit import Finding
from tests.faults import oracle
from tests.faults.log import read_log, without
from tests.faults.plans import CRASH_POINTS, FIVE_POINTS
from tests.faults.scenario import Row, Scenario
from tests.support.waiting import wait_until

_HOUR_MS: Final = 3_600_000


def offsets_reset_backward(row: Row) -> None:
    """A worker dies, somebody resets the group's committed offsets to the beginning, a worker starts."""
    _die(row, 0.5)
    _commit(row, lambda _, __: 0)
    row.run.start()
    row.fault_ended()
    row.send(0.5)


def offsets_reset_forward(row: Row) -> None:
    """As backward, but to the end of the log: who trusted them would skip everything that was not folded."""
    _die(row, 0.5)
    _commit(row, lambda _, end: end)
    row.run.start()
    row.fault_ended()
    row.send(0.5)


def topic_made_again(row: Row) -> None:
    """A worker dies, the topic is deleted and made again, and filled anew: another log beside the first."""
    _die(row, 0.4)
    heir = row.begin()
    row.wait_durable()
    heir.signal(signal.SIGTERM)
    heir.wait_ended()
    kafka = row.run.settings.kafka
    before = read_log(kafka.bootstrap, kafka.events_topic)
    with row.kafka.admin() as admin:
        admin.delete_topics([kafka.events_topic])
        wait_until(lambda: kafka.events_topic not in admin.list_topics(), 60, "the topic to be gone")
    row.run.migrate()
    row.run.start()
    row.fault_ended()
    row.send(0.6)
    row.records = before + read_log(kafka.bootstrap, kafka.events_topic)


def retention_outruns(row: Row) -> None:
    """While no worker runs, retention deletes a part of the log that nobody folded: gone by right, and said so."""
    _die(row, 0.3)
    heir = row.begin()
    row.wait_durable()
    heir.signal(signal.SIGTERM)
    heir.wait_ended()
    kafka = row.run.settings.kafka
    reached = _reached(row)
    row.send(0.4)
    before = read_log(kafka.bootstrap, kafka.events_topic)
    deleted_to = {}
    for partition, offset in reached.items():
        end = max(record.offset for record in before if record.partition == partition) + 1
        deleted_to[partition] = offset + (end - offset) * row.rng.randint(30, 70) // 100
    with row.kafka.admin() as admin:
        admin.delete_records({TopicPartition(kafka.events_topic, p): offset for p, offset in deleted_to.items()})
    victim = row.run.start(row.plan("kill"))
    # More than what was deleted, so that the row has as many events as others.
    row.send(0.65)
    victim.wait_reached()
    row.run.start()
    row.fault_ended()
    after = read_log(kafka.bootstrap, kafka.events_topic)
    folded = without(before, lambda record: record.offset >= reached[record.partition])
    gone = {
        (record.partition, record.offset)
        for record in before
        if reached[record.partition] <= record.offset < deleted_to[record.partition]
    }
    row.records = folded + without(after, lambda record: record.offset < deleted_to[record.partition])
    row.expected_events = oracle.count(row.records).events
    if not gone:
        row.notes.append("nothing was deleted: the scenario tested nothing")

    def exactly_the_holes(findings: list[Finding]) -> list[str]:
        expected = sorted(f"offsets {reached[p]} to {deleted_to[p]} were never folded" for p in reached)
        found = sorted(item.words.partition(":")[0] for item in findings)
        others = [item for item in findings if item.check != "hole"]
        return [] if expected == found and not others else [f"expected holes {expected}, the audit found {findings}"]

    row.expect_findings = exactly_the_holes


def crosses_an_hour(row: Row) -> None:
    """Record time stamps pass an hour in the middle of a segment, come back, and pass it again; a worker is killed."""
    hour = int(datetime.now(UTC).timestamp() * 1000) // _HOUR_MS * _HOUR_MS + _HOUR_MS
    victim = row.begin(row.plan("kill"))
    parts = 20
    for part in range(parts):
        skew = row.rng.choice((-5_000, -1, 0, 1, 2_000)) if part % 5 else (part // 5) * _HOUR_MS
        row.load.send(row.events // parts // 2, timestamp_ms=hour + skew + (part // 10) * _HOUR_MS)
    row.run.start()
    victim.wait_reached()
    row.fault_ended()
    for part in range(parts):
        row.load.send(row.events // parts // 2, timestamp_ms=hour + (2 + part // 7) * _HOUR_MS - part % 3)


def transactions(row: Row) -> None:
    """Producers with transactions, every third of which is aborted, beside one without; a worker is killed."""
    victim = row.begin(row.plan("kill"))
    row.send(0.3)
    producer = row.load.producer(transactional_id=f"t-{row.run.settings.kafka.group}")
    try:
        producer.init_transactions()
        for number in range(12):
            producer.begin_transaction()
            row.load.send_with(producer, round(row.events * 0.04))
            producer.flush(timeout=120)
            if number % 3 == 1:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
            if number == 5:
                victim.wait_reached()
                row.run.start()
                row.fault_ended()
    finally:
        producer.close()
    row.send(0.5)
    kafka = row.run.settings.kafka
    row.expected_events = oracle.count(read_log(kafka.bootstrap, kafka.events_topic)).events
    if row.expected_events >= row.load.sent.events:
        row.notes.append("nothing was aborted: the scenario tested nothing")


def partitions_added(row: Row) -> None:
    """The topic is given two more partitions while workers run, and one of these is killed."""
    victim = row.begin(row.plan("kill"))
    row.send(0.3)
    kafka = row.run.settings.kafka
    with row.kafka.admin() as admin:
        admin.create_partitions({kafka.events_topic: kafka.partitions + 2})
    row.load.partitions += 2
    row.run.start()
    victim.wait_reached()
    row.fault_ended()
    row.send(0.7)


def partitions_added_quietly(row: Row) -> None:
    """As before, but no worker joins, leaves or dies: the one that runs must notice by itself."""
    row.begin()
    row.send(0.3)
    kafka = row.run.settings.kafka
    with row.kafka.admin() as admin:
        admin.create_partitions({kafka.events_topic: kafka.partitions + 2})
    row.load.partitions += 2
    row.fault_ended()
    row.send(0.7)


def _die(row: Row, share: float) -> None:
    victim = row.begin(row.plan("kill"))
    row.send(share)
    victim.wait_reached()
    victim.wait_ended()


def _commit(row: Row, offset_of: Callable[[int, int], int]) -> None:
    """Commit offsets for the group, as soon as it is empty."""
    kafka = row.run.settings.kafka
    reached = dict.fromkeys(range(kafka.partitions), 0) | _ends(row)
    offsets = {
        TopicPartition(kafka.events_topic, partition): OffsetAndMetadata(offset_of(partition, end), "", -1)
        for partition, end in reached.items()
    }

    def committed() -> bool:
        with row.kafka.admin() as admin:
            answer = admin.alter_group_offsets(kafka.group, offsets)
        return all(error.errno == 0 for error in answer.values())

    wait_until(committed, 60, "the offsets of the group to be committed", every=0.5)


def _ends(row: Row) -> dict[int, int]:
    kafka = row.run.settings.kafka
    ends: dict[int, int] = {}
    for record in read_log(kafka.bootstrap, kafka.events_topic):
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
    return ends


def _reached(row: Row) -> dict[int, int]:
    """How far each partition was folded."""
    return dict(row.run.query("SELECT partition, max(next_offset) FROM segments GROUP BY partition"))


SCENARIOS = (
    Scenario("committed offsets reset backward", offsets_reset_backward, FIVE_POINTS),
    Scenario("committed offsets reset forward", offsets_reset_forward, CRASH_POINTS),
    Scenario("topic deleted and made again", topic_made_again, FIVE_POINTS),
    Scenario("retention outruns stopped workers", retention_outruns, FIVE_POINTS, quick=("before_minutes",)),
    Scenario("segments that cross an hour", crosses_an_hour, CRASH_POINTS),
    Scenario("transactional producers", transactions, CRASH_POINTS),
    Scenario("partitions added while running", partitions_added, FIVE_POINTS),
    Scenario("partitions added, and nothing else happens", partitions_added_quietly),
)
