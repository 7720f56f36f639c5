"""The rules change under the workers: a new catalogue between a crash and the replay."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from tests.faults import oracle
from tests.faults.compare import place_of
from tests.faults.log import LogRecord
from tests.faults.oracle import Place, Truth
from tests.faults.plans import CRASH_POINTS
from tests.faults.scenario import Row, Scenario


def catalogue_changed(row: Row) -> None:
    """A worker dies with a segment open; its successor comes with a new catalogue, in which an agency was added."""
    victim = row.begin(row.plan("kill"))
    new = row.run.directory / "catalogue.json"
    known = _with_agency(new)
    _send_of_new_agency(row, 100)
    row.send(0.4)
    _send_of_new_agency(row, 100)
    victim.wait_reached()
    victim.wait_ended()
    _send_of_new_agency(row, 400)
    heir = row.begin(row.plan("kill"), catalogue__path=str(new))
    _send_of_new_agency(row, 400)
    row.send(0.3)
    heir.wait_reached()
    heir.wait_ended()
    row.run.start(catalogue__path=str(new))
    row.fault_ended()
    row.send(0.3)
    _judge_by_the_letters(row, known)


def different_rules(row: Row) -> None:
    """Two workers in groups of their own, with different catalogues and lengths of segments, fold everything at once;
    the older one holds a batch at the crash point while the other goes on, and each is killed and replaced once.

    Nobody folded the partitions before, so that they meet in the very first segments as well."""
    group = row.run.settings.kafka.group
    new = row.run.directory / "catalogue.json"
    known = _with_agency(new)
    fold = row.run.settings.fold.segment_records
    rules: dict[str, Any] = {"catalogue__path": str(new), "fold__segment_records": fold + fold // 3}
    old = row.begin(row.plan("hold"))
    _send_of_new_agency(row, 100)
    row.send(0.3)
    old.wait_reached()
    other = row.begin(kafka__group=f"{group}-other", **rules)
    _send_of_new_agency(row, 100)
    row.send(0.2)
    row.wait_durable()
    old.release()
    old.wait_passed()
    row.send(0.2)
    other.signal(signal.SIGKILL)
    other.wait_ended()
    row.begin(kafka__group=f"{group}-other", **rules)
    _send_of_new_agency(row, 100)
    old.signal(signal.SIGKILL)
    old.wait_ended()
    row.begin()
    row.fault_ended()
    row.send(0.3)
    _judge_by_the_letters(row, known)


def _judge_by_the_letters(row: Row, known: oracle.Pairs) -> None:
    """Each event of the new agency was judged by its segment's catalogue: accepted, or refused with a letter, and never
    both. Which, the letters say."""

    def judge(records: list[LogRecord], letters: list[LogRecord]) -> Truth:
        places = set(_places_of(records, "new-agency"))
        refused = {place: "unknown_agency" for place in map(place_of, letters) if place in places}
        if not 0 < len(refused) < len(places):
            row.notes.append(f"{len(refused)} of {len(places)} refused: one catalogue judged all, nothing was tested")
        return oracle.count(records, known, refused)

    row.judge = judge


def _with_agency(path: Path) -> oracle.Pairs:
    """Write a catalogue of a higher version with one agency more; its pairs."""
    content: dict[str, Any] = json.loads(oracle.CATALOGUE.read_text("utf-8"))
    names = {"az": "Yeni", "en": "New", "ru": "Новое"}
    content["version"] += 1
    content["agencies"].append(
        {"code": "new-agency", "name": names, "services": [{"code": "new-service", "name": names}]}
    )
    path.write_text(json.dumps(content), "utf-8")
    return oracle.catalogue_pairs(path)


def _send_of_new_agency(row: Row, count: int) -> None:
    kafka = row.run.settings.kafka
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        for number in range(count):
            event = json.loads(row.load.event())
            event["data"]["agency"], event["data"]["service"] = "new-agency", "new-service"
            producer.send(kafka.events_topic, json.dumps(event).encode(), partition=number % kafka.partitions)
            row.load.sent.events += 1
        producer.flush(timeout=60)
    finally:
        producer.close()
    row.load.forget()


def _places_of(records: list[LogRecord], agency: str) -> Iterator[Place]:
    """Places of messages with one event, of an agency."""
    mark = f'"{agency}"'.encode()
    for record in records:
        if mark in (record.value or b""):
            yield record.topic_id, record.partition, record.offset, 0


SCENARIOS = (
    Scenario("catalogue changed before the replay", catalogue_changed, CRASH_POINTS, quick=("before_minutes",)),
    Scenario("two owners with different rules", different_rules, CRASH_POINTS),
)
