"""Reading the dead-letter topic: which letters there are, what was done with each, and what they hold.

The topic is the only store. A letter is a message with the header ``xidmet-reason``; what was done with it is a message
with the header ``xidmet-disposition`` and the coordinates of the letter. A letter that stands there twice is one by its
coordinates. Whatever else stands there is no concern of ours.

A scan keeps an :class:`Entry` of each letter, some hundred bytes, and no values; those are read when they are wanted.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

from kafka import TopicPartition

from pipeline.consumer import POLL_RECORDS, open_consumer, partitions_of, polls
from pipeline.settings import KafkaSettings
from sinks.dead_letters import ATTEMPT_HEADER, HEADER_PREFIX, Letter

DISPOSITION_HEADER: Final = HEADER_PREFIX + "disposition"
REPLAYED: Final = "replayed"
DROPPED: Final = "dropped"
OPEN: Final = "open"
STATES: Final = (OPEN, REPLAYED, DROPPED)
NO_AGENCY: Final = "other"
"""Shown for letters whose event names no agency of the catalogue; the same word as in the metrics."""

_CLIENT_ID: Final = "xidmet-rejected"
_SHORT: Final = 8
_UUID: Final = 36
_DETAIL: Final = 160
_MOST_DIGITS: Final = 20


class Coordinates(NamedTuple):
    """Where the refused event stood in the log: the name of its letter."""

    topic_id: str
    partition: int
    offset: int
    batch_index: int

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @property
    def short(self) -> str:
        """The name for people: of a topic id that is a UUID only the first eight characters."""
        topic = self.topic_id[:_SHORT] if len(self.topic_id) == _UUID else self.topic_id
        return "/".join(map(str, (topic, *self[1:])))

    def answers_to(self, name: "Coordinates") -> bool:
        """Whether ``name``, whose topic id may be the beginning of one, means this letter."""
        return self[1:] == name[1:] and self.topic_id.startswith(name.topic_id)


def parse_name(text: str) -> Coordinates:
    """The name of a letter, ``TOPIC-ID/PARTITION/OFFSET/INDEX``, full or short.

    Raises:
        ValueError: it is none.
    """
    topic_id, *numbers = text.strip().split("/")
    if not topic_id or len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise ValueError(f"{text!r} is no letter; write TOPIC-ID/PARTITION/OFFSET/INDEX as xidmet rejected list does")
    partition, offset, index = (int(number[:_MOST_DIGITS]) for number in numbers)
    return Coordinates(topic_id, partition, offset, index)


@dataclass(slots=True)
class Entry:
    """A letter without its content.

    ``timestamp`` is that of the refused message, Unix milliseconds, negative if it had none. ``attempt`` says how
    often the event was replayed before it was refused this time. ``value_bytes`` is the length of a value that was too
    large for the topic, else None; ``size`` that of the value here. ``place`` is partition and offset on the
    dead-letter topic. ``state`` is one of STATES.
    """

    coordinates: Coordinates
    reason: str
    agency: str
    detail: str
    timestamp: int
    attempt: int
    masked: bool
    value_bytes: int | None
    size: int
    place: tuple[int, int]
    state: str = OPEN


@dataclass(slots=True)
class Index:
    """All letters of the topic; ``messages`` are what was read for it, letters that stand there twice included."""

    entries: dict[Coordinates, Entry] = field(default_factory=dict)
    messages: int = 0

    def in_order(self) -> list[Entry]:
        """By the time of the refused message, then by place in the log."""
        return sorted(self.entries.values(), key=lambda entry: (entry.timestamp, entry.coordinates))


Progress = Callable[[int], None]


def read_index(settings: KafkaSettings, progress: Progress = lambda messages: None) -> Index:
    """Scan the whole topic, up to its end as of now. What an aborted transaction wrote is not there.

    Args:
        settings: where the topic is.
        progress: is told the number of messages read so far, now and then.

    Raises:
        BrokerError: Kafka does not answer, or has no such topic.
    """
    index = Index()
    dispositions: dict[Coordinates, str] = {}
    with open_consumer(settings, settings.rejected_topic, _CLIENT_ID) as consumer:
        partitions = partitions_of(consumer, settings, settings.rejected_topic)
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for tp, start in consumer.beginning_offsets(partitions).items():
            consumer.seek(tp, start)
        for records in polls(consumer, ends, settings, to_the_end=True):
            for record in records:
                headers = _text_headers(record.headers)
                coordinates = _coordinates(headers)
                if coordinates is None:
                    continue
                if HEADER_PREFIX + "reason" in headers:
                    index.entries[coordinates] = _entry(coordinates, headers, record)
                elif headers.get(DISPOSITION_HEADER) in (REPLAYED, DROPPED):
                    dispositions[coordinates] = sys.intern(headers[DISPOSITION_HEADER])
            index.messages += len(records)
            progress(index.messages)
    for coordinates, state in dispositions.items():
        if coordinates in index.entries:
            index.entries[coordinates].state = state
    return index


def read_letters(settings: KafkaSettings, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Letter]]:
    """Read the letters themselves, one after the other; what retention deleted meanwhile is left out.

    Raises:
        BrokerError: Kafka does not answer.
    """
    wanted = sorted(entries, key=lambda entry: entry.place)
    if not wanted:
        return
    with open_consumer(settings, settings.rejected_topic, _CLIENT_ID) as consumer:
        for partition, group in groupby(wanted, key=lambda entry: entry.place[0]):
            of_partition = {entry.place[1]: entry for entry in group}
            tp = TopicPartition(settings.rejected_topic, partition)
            consumer.assign([tp])
            for offset, record in read_offsets(consumer, tp, list(of_partition), settings):
                yield of_partition[offset], Letter(record.key, record.value or b"", list(record.headers))


def read_original(settings: KafkaSettings, topic: str, places: Mapping[int, Sequence[int]]) -> Iterator[Any]:
    """Records of the topic of events, by partition and offset; what the log no longer has is left out.

    Raises:
        BrokerError: Kafka does not answer.
    """
    with open_consumer(settings, settings.rejected_topic, _CLIENT_ID) as consumer:
        for partition, offsets in places.items():
            tp = TopicPartition(topic, partition)
            consumer.assign([tp])
            for _, record in read_offsets(consumer, tp, sorted(offsets), settings):
                yield record


def read_offsets(
    consumer: Any, tp: TopicPartition, offsets: Sequence[int], settings: KafkaSettings
) -> Iterator[tuple[int, Any]]:
    """The records at rising offsets of one partition, jumping over long stretches that nobody wants."""
    start = consumer.beginning_offsets([tp])[tp]
    rest = [offset for offset in offsets if offset >= start]
    while rest:
        run = next((n for n in range(1, len(rest)) if rest[n] - rest[n - 1] > POLL_RECORDS), len(rest))
        part, rest = set(rest[:run]), rest[run:]
        consumer.seek(tp, min(part))
        for records in polls(consumer, {tp: max(part) + 1}, settings, to_the_end=False):
            for record in records:
                if record.offset in part:
                    yield record.offset, record


def _text_headers(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Our own headers as text; of several of one name the last."""
    return {
        name: (content or b"").decode("utf-8", "replace") for name, content in headers if name.startswith(HEADER_PREFIX)
    }


def _coordinates(headers: Mapping[str, str]) -> Coordinates | None:
    numbers = [headers.get(HEADER_PREFIX + name, "") for name in ("partition", "offset", "batch-index")]
    if not all(number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS for number in numbers):
        return None
    topic_id = headers.get(HEADER_PREFIX + "topic-id", "")
    return Coordinates(sys.intern(topic_id), *map(int, numbers)) if topic_id else None


def _entry(coordinates: Coordinates, headers: Mapping[str, str], record: Any) -> Entry:
    length = headers.get(HEADER_PREFIX + "value-bytes")
    return Entry(
        coordinates,
        sys.intern(headers[HEADER_PREFIX + "reason"]),
        sys.intern(headers.get(HEADER_PREFIX + "agency") or NO_AGENCY),
        sys.intern(headers.get(HEADER_PREFIX + "detail", "")[:_DETAIL]),
        _number(headers.get(HEADER_PREFIX + "timestamp", ""), -1),
        max(0, _number(headers.get(ATTEMPT_HEADER, ""), 0)),
        HEADER_PREFIX + "masked" in headers,
        None if length is None else _number(length, 0),
        len(record.value or b""),
        (record.partition, record.offset),
    )


def _number(text: str, otherwise: int) -> int:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else otherwise
