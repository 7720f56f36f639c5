"""The dead-letter topic: what was refused, with its original bytes, its place in the log, and why.

A dead letter can be sent twice: a worker that dies between this topic and the receipts folds the segment again. Its
coordinates (``xidmet-topic-id``, ``-partition``, ``-offset``, ``-batch-index``) make it one. Personal identifiers are
masked with ``*``, because the letters live longer than the log; the header ``xidmet-masked`` says so.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from pipeline.contract.identifiers import identifier_kind, pseudonym_fault
from pipeline.errors import BrokerError
from pipeline.fold.flush import Reject
from pipeline.producer import close_producer, connect_producer, words
from pipeline.settings import KafkaSettings

HEADER_PREFIX: Final = "xidmet-"
MAX_LETTER_BYTES: Final = 64 * 1024 * 1024
"""What this program sends; what the broker takes is the topic's max.message.bytes."""
# For what is no JSON: values of the fields that hold pseudonyms, and e-mail addresses anywhere.
_USER_FIELD: Final = re.compile(rb'("(?:user|application|subject)"\s*:\s*")([^"\\]{1,256})')
_EMAIL: Final = re.compile(rb"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,24}")
_MAX_STRINGS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as a Kafka message."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class DeadLetters:
    """Sends rejects to the dead-letter topic. Calls block; used by one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = settings.rejected_topic
        self._timeout = settings.request_timeout_seconds
        self._producer: Any = None

    def send(self, rejects: Sequence[Reject]) -> None:
        """Send all and wait until the broker has them.

        A letter that the broker finds too large is sent again without its value: the log has it, where the
        coordinates say, and ``xidmet-value-bytes`` says how long it is.

        Raises:
            BrokerError: the broker does not have all of them; the call may be repeated.
        """
        if not rejects:
            return
        try:
            if self._producer is None:
                kafka = self._settings
                self._producer = connect_producer(
                    kafka.bootstrap, self._topic, "xidmet-dead-letters", None, max_request_size=MAX_LETTER_BYTES
                )
            letters = [_letter(reject) for reject in rejects]
            sent = [self._begin(letter) for letter in letters]
            for letter, future in zip(letters, sent, strict=True):
                try:
                    self._finish(future)
                except (MessageSizeTooLargeError, RecordListTooLargeError):
                    self._finish(self._begin(_without_value(letter)))
        except KafkaError as error:
            raise BrokerError(
                f"dead letters cannot be written to topic {self._topic} at {self._settings.bootstrap}:"
                f" {words(error)}; results wait until they can"
            ) from error

    def close(self) -> None:
        """Give the connection back."""
        if self._producer is not None:
            close_producer(self._producer)
            self._producer = None

    def _begin(self, letter: Letter) -> Any:
        """Hand a letter to the producer; its future, or the error that it met at once."""
        try:
            return self._producer.send(self._topic, value=letter.value, key=letter.key, headers=letter.headers)
        except MessageSizeTooLargeError as error:
            return error

    def _finish(self, future: Any) -> None:
        if isinstance(future, KafkaError):
            raise future
        future.get(timeout=self._timeout)


def _letter(reject: Reject) -> Letter:
    value, masked = mask(reject.value)
    return Letter(reject.key, value, [*reject.headers, *_headers(reject, masked)])


def _without_value(letter: Letter) -> Letter:
    length = str(len(letter.value)).encode()
    return Letter(letter.key, b"", [*letter.headers, (HEADER_PREFIX + "value-bytes", length)])


def _headers(reject: Reject, masked: bool) -> Iterator[tuple[str, bytes]]:
    values = {
        "reason": reject.reason.value,
        "detail": reject.detail,
        "topic": reject.log.topic,
        "topic-id": reject.log.topic_id,
        "partition": str(reject.log.partition),
        "offset": str(reject.offset),
        "batch-index": str(reject.batch_index),
        "timestamp": str(reject.timestamp),
    }
    if masked:
        values["masked"] = "true"
    for name, value in values.items():
        yield HEADER_PREFIX + name, value.encode("utf-8", "replace")


def mask(value: bytes) -> tuple[bytes, bool]:
    """Replace what looks like a personal identifier by asterisks; the bytes, and whether any were replaced."""
    try:
        content = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        masked = _EMAIL.sub(lambda found: b"*" * len(found[0]), value)
        masked = _USER_FIELD.sub(_mask_user_field, masked)
        return masked, masked != value
    masked = value
    for text in _identifiers(content):
        inner = msgspec.json.encode(text)[1:-1]
        if inner and inner in masked:
            masked = masked.replace(inner, b"*" * len(inner))
        elif inner:
            # Written with escapes: the form of the original cannot be kept without keeping the identifier.
            return b"*" * len(value), True
    return masked, masked != value


def _mask_user_field(found: re.Match[bytes]) -> bytes:
    text = found[2].decode("utf-8", "replace")
    return found[0] if pseudonym_fault(text) is None else found[1] + b"*" * len(found[2])


def _identifiers(content: Any) -> Iterator[str]:
    """Strings in the JSON value that look like personal identifiers."""
    queue: list[tuple[str, Any]] = [("", content)]
    seen = 0
    while queue and seen < _MAX_STRINGS:
        name, item = queue.pop()
        seen += 1
        if isinstance(item, dict):
            queue.extend(item.items())
        elif isinstance(item, list):
            queue.extend((name, element) for element in item)
        elif isinstance(item, str) and item:
            if name == "user":
                if pseudonym_fault(item) is not None:
                    yield item
            elif identifier_kind(item, fin=name in ("application", "subject")) is not None:
                yield item
