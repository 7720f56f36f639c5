"""Replaying and dropping dead letters: each once, whatever dies.

The protocol:

1. Take the transactional id of the dead-letter topic. Kafka ends what a predecessor left: a transaction that it had
   not committed is undone, and if it still runs, it is fenced and cannot commit any more.
2. Read all letters and dispositions, up to the end, without what was undone. What has a disposition is done.
3. In transactions of bounded size: the events to the topic of events, then, when Kafka has them, their dispositions
   to the dead-letter topic, then the commit. Both are there or neither.

So a run may die anywhere, be repeated, or run twice at once. A broker that keeps what an aborted transaction wrote (the
embedded one does) may show an event twice, which its id makes one, but never a disposition without its event.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from kafka.errors import (
    InvalidProducerEpochError,
    KafkaError,
    KafkaTimeoutError,
    ProducerFencedError,
)

from pipeline.contract.decode import original
from pipeline.errors import BrokerError
from pipeline.producer import MAX_BATCH_BYTES, close_producer, connect_producer, words
from pipeline.settings import Settings
from sinks.dead_letters import ATTEMPT_HEADER, HEADER_PREFIX, MAX_LETTER_BYTES, REPLAY_HEADER, Letter
from sinks.letters import DISPOSITION_HEADER, DROPPED, OPEN, REPLAYED, Entry, read_letters, read_original
from streams.topics import max_message_bytes, topic_ids

TRANSACTION_LETTERS: Final = 500
TRANSACTION_BYTES: Final = 8 * 1024 * 1024

SKIPPED: Final = {
    "replayed": "was replayed before",
    "dropped": "was dropped before",
    "masked": "personal identifiers are masked: the agency must mend it, or --value gives a mended value",
    "attempts": "was replayed rejected.max_attempts times and refused each time: mend it with --value, or drop it",
    "not_in_log": "was too large for a letter, and the log no longer has it",
    "too_large": "is too large for the topic of events with the headers of a replay",
    "gone": "was deleted by retention meanwhile",
}
"""Why a letter is not replayed, by code."""

Progress = Callable[[int], None]
Message = tuple[Entry, Letter]
# What a batch of one record has besides key, value and headers, and what each header has, at most (KIP-98).
_RECORD_OVERHEAD: Final = 61 + 36
_HEADER_OVERHEAD: Final = 10


@dataclass(slots=True)
class Outcome:
    """What became of the chosen letters: ``done`` were replayed or dropped, the others skipped, by code."""

    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def why_not(entry: Entry, max_attempts: int) -> str | None:
    """The code of the reason for which a letter cannot be replayed as it is; None if it can."""
    if entry.state != OPEN:
        return entry.state
    if entry.masked:
        return "masked"
    return "attempts" if entry.attempt >= max_attempts else None


def replay_message(entry: Entry, letter: Letter) -> Letter:
    """The message that a replay sends to the topic of events."""
    headers = [(name, content or b"") for name, content in letter.headers if not name.startswith(HEADER_PREFIX)]
    headers.append((ATTEMPT_HEADER, str(entry.attempt + 1).encode()))
    headers.append((REPLAY_HEADER, str(entry.coordinates).encode()))
    return Letter(letter.key, letter.value, headers)


def most_bytes(message: Letter) -> int:
    """What a message takes on the topic, at most and uncompressed."""
    headers = sum(len(name.encode()) + len(content) + _HEADER_OVERHEAD for name, content in message.headers)
    return _RECORD_OVERHEAD + len(message.key or b"") + len(message.value) + headers


def contents(settings: Settings, entries: Sequence[Entry], outcome: Outcome) -> Iterator[Message]:
    """The letters with their values, which for letters without one come from the log; others count as skipped."""
    found = 0
    large: list[Message] = []
    for entry, letter in read_letters(settings.kafka, entries):
        found += 1
        if entry.value_bytes is None:
            yield entry, letter
        else:
            large.append((entry, letter))
    outcome.skipped["gone"] += len(entries) - found
    if not large:
        return
    kafka = settings.kafka
    topic_id = topic_ids(kafka, [kafka.events_topic])[kafka.events_topic]
    in_log = {entry.coordinates: (entry, letter) for entry, letter in large if entry.coordinates.topic_id == topic_id}
    places: dict[int, list[int]] = {}
    by_record: dict[tuple[int, int], list[Message]] = {}
    for coordinates, message in in_log.items():
        if (coordinates.partition, coordinates.offset) not in by_record:
            places.setdefault(coordinates.partition, []).append(coordinates.offset)
        by_record.setdefault((coordinates.partition, coordinates.offset), []).append(message)
    given = 0
    for record in read_original(kafka, kafka.events_topic, places):
        for entry, letter in by_record[record.partition, record.offset]:
            value = _of_length(record.value or b"", entry)
            if value is not None:
                given += 1
                yield entry, Letter(letter.key, value, letter.headers)
    outcome.skipped["not_in_log"] += len(large) - given


def _of_length(value: bytes, entry: Entry) -> bytes | None:
    """The refused event, all of the message or an element of its batch: the one that is as long as the letter says."""
    if len(value) == entry.value_bytes:
        return value
    with contextlib.suppress(Exception):
        part = original(value, entry.coordinates.batch_index)
        if len(part) == entry.value_bytes:
            return part
    return None


class Dispositions:
    """The one who replays and drops on a dead-letter topic; a context manager. Calls block; used by one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kafka = settings.kafka
        self._producer: Any = None
        self._max_bytes: int | None = None

    def __enter__(self) -> Self:
        kafka = self._kafka
        topic = kafka.rejected_topic
        topic_ids(kafka, [topic, kafka.events_topic])  # they are there
        self._max_bytes = max_message_bytes(kafka, kafka.events_topic)
        self._producer = connect_producer(
            kafka.bootstrap,
            topic,
            "xidmet-rejected",
            None,
            max_request_size=MAX_LETTER_BYTES,
            transactional_id=f"xidmet-rejected-{topic}",
            batch_bytes=min(MAX_BATCH_BYTES, self._max_bytes or MAX_BATCH_BYTES),
        )
        try:
            with self._mapped("nothing was sent"):
                self._producer.init_transactions()
        except BaseException:
            close_producer(self._producer)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_producer(self._producer)

    def replay(self, entries: Iterable[Entry], progress: Progress = lambda done: None) -> Outcome:
        """Send the events of letters again, those that :func:`why_not` says nothing against.

        Args:
            entries: from a scan that began after this object was entered.
            progress: is told the number of letters replayed so far.

        Raises:
            BrokerError: Kafka is away, or another run took over; what was committed is done, the rest is not.
        """
        outcome = Outcome()
        good = []
        for entry in entries:
            if (code := why_not(entry, self._settings.rejected.max_attempts)) is not None:
                outcome.skipped[code] += 1
            else:
                good.append(entry)
        for chunk in _chunks(contents(self._settings, good, outcome)):
            self.send(chunk, outcome)
            progress(outcome.done)
        return outcome

    def send(self, chunk: Sequence[Message], outcome: Outcome) -> None:
        """Replay letters whose content is at hand, in one transaction.

        What the topic would not take is left out before: a refusal of the broker spoils the producer.
        """
        limit = self._max_bytes
        fit = [
            (entry, letter)
            for entry, letter in chunk
            if limit is None or most_bytes(replay_message(entry, letter)) <= limit
        ]
        outcome.skipped["too_large"] += len(chunk) - len(fit)
        if fit:
            self._transaction(fit, REPLAYED)
            outcome.done += len(fit)

    def drop(self, entries: Iterable[Entry], progress: Progress = lambda done: None) -> Outcome:
        """Mark letters as dropped; they stay on the topic.

        Raises:
            BrokerError: as :meth:`replay`.
        """
        outcome = Outcome()
        good = []
        for entry in entries:
            if entry.state == OPEN:
                good.append(entry)
            else:
                outcome.skipped[entry.state] += 1
        for start in range(0, len(good), TRANSACTION_LETTERS):
            self._transaction([(entry, None) for entry in good[start : start + TRANSACTION_LETTERS]], DROPPED)
            outcome.done += len(good[start : start + TRANSACTION_LETTERS])
            progress(outcome.done)
        return outcome

    def _transaction(self, chunk: Sequence[tuple[Entry, Letter | None]], state: str) -> None:
        with self._mapped(f"of the last {len(chunk)} letters nothing was done, or all: run it again to find out"):
            self._producer.begin_transaction()
            try:
                messages = [replay_message(entry, letter) for entry, letter in chunk if letter is not None]
                self._send_all([(self._kafka.events_topic, None, message) for message in messages])
                self._send_all([self._disposition(entry, state) for entry, _ in chunk])
            except KafkaError as error:
                if not self._fenced(error):
                    with contextlib.suppress(KafkaError):
                        self._end(commit=False)
                raise
            self._commit()

    def _disposition(self, entry: Entry, state: str) -> tuple[str, int, Letter]:
        topic_id, partition, offset, index = map(str, entry.coordinates)
        values = {"topic-id": topic_id, "partition": partition, "offset": offset, "batch-index": index}
        headers = [(DISPOSITION_HEADER, state.encode())]
        headers += [(HEADER_PREFIX + name, text.encode()) for name, text in values.items()]
        # In the partition of the letter, so that retention deletes it not before the letter.
        return self._kafka.rejected_topic, entry.place[0], Letter(None, b"", headers)

    def _send_all(self, messages: Sequence[tuple[str, int | None, Letter]]) -> None:
        """Send and wait until Kafka has all of them."""
        sent = [
            self._producer.send(topic, value=item.value, key=item.key, headers=item.headers, partition=partition)
            for topic, partition, item in messages
        ]
        deadline = time.monotonic() + self._kafka.request_timeout_seconds
        for future in sent:
            future.get(timeout=max(0.0, deadline - time.monotonic()))

    def _commit(self) -> None:
        self._end(commit=True)

    def _end(self, *, commit: bool) -> None:
        """End the transaction within bounds; kafka-python's own methods wait for ever if the broker is gone."""
        manager = self._producer._transaction_manager
        result = manager.begin_commit() if commit else manager.begin_abort()
        self._producer._sender.wakeup()
        if not result.wait(timeout_ms=int(self._kafka.request_timeout_seconds * 1000)):
            raise KafkaTimeoutError("no answer to the end of a transaction")

    def _fenced(self, error: KafkaError) -> bool:
        """Whether another run took the transactional id; kafka-python keeps that as the reason of other errors."""
        reasons = (error, *error.args, self._producer._transaction_manager.last_error)
        return any(isinstance(reason, ProducerFencedError | InvalidProducerEpochError) for reason in reasons)

    @contextlib.contextmanager
    def _mapped(self, outcome: str) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            if self._fenced(error):
                raise BrokerError(
                    f"another xidmet rejected replay or drop on {self._kafka.rejected_topic} began and took over; what"
                    " this one had done stays done, the rest is left to the other"
                ) from error
            raise BrokerError(f"Kafka at {self._kafka.bootstrap}: {words(error)}; {outcome}") from error


def _chunks(messages: Iterable[Message]) -> Iterator[list[Message]]:
    chunk: list[Message] = []
    size = 0
    for message in messages:
        chunk.append(message)
        size += len(message[1].value)
        if len(chunk) >= TRANSACTION_LETTERS or size >= TRANSACTION_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
