"""Load: many distinct events, fast, with a known share of invalid ones and of repeats, and the sender's own count."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import KafkaProducer

from pipeline.contract.reasons import Reason
from pipeline.generator import spoiled
from tests.support.pipeline_run import events

BATCH_EVENTS: Final = 100
_TEMPLATES: Final = 4_000
_SPOILED: Final = (
    Reason.NOT_A_CLOUDEVENT,
    Reason.UNKNOWN_TYPE,
    Reason.INVALID_ATTRIBUTE,
    Reason.INVALID_DATA,
    Reason.PERSONAL_IDENTIFIER,
    Reason.TIME_TOO_EARLY,
    Reason.TIME_IN_FUTURE,
    Reason.UNKNOWN_AGENCY,
    Reason.UNKNOWN_SERVICE,
)
# Messages with invalid events are decoded one by one; the others as a whole.
_SPOILED_EVERY: Final = 15
_REPEATS_EVERY: Final = 7


@dataclass(slots=True)
class Sent:
    """What was sent: ``events`` of any kind, of them ``distinct`` valid ones, ``invalid`` ones by reason, repeats of
    an event on the same partition (``near``) and on another (``far``)."""

    events: int = 0
    distinct: int = 0
    near: int = 0
    far: int = 0
    invalid: Counter[str] = field(default_factory=Counter)


class Load:
    """Makes messages and sends them. Every valid event has an id that no other load made."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, seed: int, name: str) -> None:
        self.sent = Sent()
        self._bootstrap = bootstrap
        self._topic = topic
        self.partitions = partitions
        self._name = name
        self._rng = random.Random(seed)
        self._number = 0
        self._messages = 0
        self._last: dict[int, list[bytes]] = {}
        templates = list(events(_TEMPLATES, seed))
        self._templates = [_around_id(event) for event in templates]
        self._spoiled = [(reason.value, spoiled(templates[place], reason)) for place, reason in enumerate(_SPOILED)]

    def event(self) -> bytes:
        """A valid event that was not there before."""
        before, after = self._templates[self._number % len(self._templates)]
        self._number += 1
        return b"%s%s-%d%s" % (before, self._name.encode(), self._number, after)

    def message(self, partition: int, count: int = BATCH_EVENTS) -> bytes:
        """A batch of ``count`` distinct valid events for a partition, now and then with invalid ones and repeats."""
        sent = self.sent
        batch = [self.event() for _ in range(count)]
        fresh = list(batch)
        sent.distinct += count
        self._messages += 1
        if self._messages % _SPOILED_EVERY == 0:
            for reason, value in self._spoiled:
                batch.insert(self._rng.randrange(len(batch) + 1), value)
                sent.invalid[reason] += 1
        if self._messages % _REPEATS_EVERY == 0:
            other = self._rng.randrange(self.partitions)
            chosen = self._rng.sample(self._last.get(other, fresh), 3)
            batch += chosen
            if other == partition or other not in self._last:
                sent.near += len(chosen)
            else:
                sent.far += len(chosen)
        self._last[partition] = fresh
        sent.events += len(batch)
        return b"[" + b",".join(batch) + b"]"

    def forget(self) -> None:
        """Send nothing again of what came so far: other messages stand behind it, so that it may be too far back."""
        self._last.clear()

    def send(self, distinct: int, timestamp_ms: int | None = None) -> None:
        """Send so many distinct valid events and wait until the broker has them."""
        producer = self.producer()
        try:
            self.send_with(producer, distinct, timestamp_ms)
            producer.flush(timeout=120)
        finally:
            producer.close()

    def send_with(self, producer: Any, distinct: int, timestamp_ms: int | None = None) -> None:
        """Hand so many distinct valid events to a producer, message after message, partition after partition."""
        left = distinct
        while left > 0:
            partition = self._messages % self.partitions
            count = min(BATCH_EVENTS, left)
            left -= count
            value = self.message(partition, count)
            producer.send(self._topic, value, partition=partition, timestamp_ms=timestamp_ms)

    def producer(self, **options: Any) -> Any:
        """An idempotent producer that compresses."""
        return KafkaProducer(
            bootstrap_servers=self._bootstrap,
            compression_type="lz4",
            linger_ms=20,
            batch_size=400_000,
            max_block_ms=120_000,
            delivery_timeout_ms=120_000,
            request_timeout_ms=20_000,
            **options,
        )


def _around_id(event: dict[str, Any]) -> tuple[bytes, bytes]:
    """The bytes of an event before and after its id."""
    text = json.dumps(event | {"id": "\x00"}, ensure_ascii=False)
    before, after = text.split('"\\u0000"')
    return (before + '"').encode(), ('"' + after).encode()
