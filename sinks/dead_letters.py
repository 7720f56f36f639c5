"""The dead-letter topic: what was refused, with its original bytes, its place in the log, and why.

A dead letter can be sent twice: a worker that dies between this topic and the receipts folds the segment again. Its
coordinates (``xidmet-topic-id``, ``-partition``, ``-offset``, ``-batch-index``) make it one. Personal identifiers are
masked with ``*``, because the letters live longer than the log; the header ``xidmet-masked`` says so. What was done
with a letter is a message of its own on the same topic, see :mod:`sinks.letters`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from pipeline.contract.identifiers import identifier_kind, pseudonym_fault
from pipeline.errors import BrokerError
from pipeline.fold.flush import Reject
from pipeline.producer import close_producer, connect_producer, words
from pipeline.settings import KafkaSettings

HEADER_PREFIX: Final = "xidmet-"
ATTEMPT_HEADER: Final = HEADER_PREFIX + "attempt"
REPLAY_HEADER: Final = HEADER_PREFIX + "replay-of"
"""Of an event that ``xidmet rejected replay`` sent: how often so far, and the coordinates of the letter."""
MAX_LETTER_BYTES: Final = 64 * 1024 * 1024
"""What this program sends; what the broker takes is the topic's max.message.bytes."""
# Strings, names of fields (strings before a colon) and numbers of JSON; the last string may not be closed. A quotation
# mark always begins a match and nothing is tried twice: what is no JSON would take quadratic time else.
_TOKEN: Final = re.compile(
    rb'(?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))(?P<colon>\s*+:)?|-?\d[\d.eE+-]*+', re.DOTALL
)
_MIN_NUMBER_DIGITS: Final = 9
_PERSONAL_FIELDS: Final = ("application", "subject")
# For what is no JSON: values of the fields that hold pseudonyms, and e-mail addresses anywhere.
_USER_FIELD: Final = re.compile(rb'("(?:user|application|subject)"\s*:\s*")([^"\\]{1,256})')
_EMAIL: Final = re.compile(rb"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,24}")
_CONTENT_TYPE: Final = "content-type"
_STRUCTURED: Final = b"application/cloudevents+json"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as a Kafka message."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """Bytes that it takes, but for what the broker adds to each message."""
        names = sum(len(name) + len(content) for name, content in self.headers)
        return len(self.key or b"") + len(self.value) + names

    @property
    def bare(self) -> bool:
        """Whether nothing is left but what this program says of it."""
        return not self.value and self.key is None and all(name.startswith(HEADER_PREFIX) for name, _ in self.headers)

    def smaller(self) -> "Letter":
        """The letter without its value; without key and foreign headers if it has no value."""
        if self.value:
            return Letter(self.key, b"", [*self.headers, _value_bytes(self.value)])
        ours = [(name, content) for name, content in self.headers if name.startswith(HEADER_PREFIX)]
        return Letter(None, b"", ours)


class DeadLetters:
    """Sends rejects to the dead-letter topic. Calls block; used by one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = settings.rejected_topic
        self._timeout = settings.request_timeout_seconds
        self._producer: Any = None
        # Letters of this size and more were refused; forgotten when the worker ends.
        self._refused_bytes = MAX_LETTER_BYTES

    def send(self, rejects: Sequence[Reject]) -> None:
        """Send all and wait until the broker has them.

        A letter that the broker finds too large is sent again without its value: the log has it, where the
        coordinates say, and ``xidmet-value-bytes`` says how long it is. If that is not enough, it goes without its
        key and the headers that are not ours.

        Raises:
            BrokerError: the broker does not have all of them; the call may be repeated.
        """
        letters = [self._letter(reject) for reject in rejects]
        try:
            while letters:
                letters = self._send([self._fitting(letter) for letter in letters])
        except KafkaError as error:
            # Some errors are final for a producer, others not; the next try has a new one in any case.
            self.close()
            raise BrokerError(
                f"dead letters cannot be written to topic {self._topic} at {self._settings.bootstrap}:"
                f" {words(error)}; results wait until they can"
            ) from error

    def _send(self, letters: list[Letter]) -> list[Letter]:
        """Send them; the rest from the first that met a letter too large for the broker, which are to be sent again.

        An idempotent producer is of no use after a letter that is too large: it answers everything that follows with
        the same error, so that the letter is not known by it. If any letter was too large, the largest was.
        """
        if self._producer is None:
            kafka = self._settings
            self._producer = connect_producer(
                kafka.bootstrap, self._topic, "xidmet-dead-letters", None, max_request_size=MAX_LETTER_BYTES
            )
        sent = [self._begin(letter) for letter in letters]
        for place, future in enumerate(sent):
            try:
                self._finish(future)
            except (MessageSizeTooLargeError, RecordListTooLargeError):
                self.close()
                rest = letters[place:]
                self._refused_bytes = max(letter.size for letter in rest)
                if all(letter.bare for letter in rest if letter.size == self._refused_bytes):
                    raise
                return rest
        return []

    def _letter(self, reject: Reject) -> Letter:
        if len(reject.value) < self._refused_bytes:
            return _letter(reject)
        # To mask megabytes that are not sent would only hold the worker up.
        letter = _letter(replace(reject, value=b""))
        return Letter(letter.key, b"", [*letter.headers, _value_bytes(reject.value)])

    def _fitting(self, letter: Letter) -> Letter:
        """The letter, without what makes it as large as one that was refused."""
        while letter.size >= self._refused_bytes and not letter.bare:
            letter = letter.smaller()
        return letter

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
    key = _mask_text(reject.key) if reject.key is not None else None
    headers = []
    masked_headers = False
    for name, content in reject.headers:
        if name.startswith(HEADER_PREFIX) and name not in (ATTEMPT_HEADER, REPLAY_HEADER):
            continue  # these names are the pipeline's own: nobody else shall say what a letter is
        batch = name.lower() == _CONTENT_TYPE and b"batch" in (content or b"")
        if batch and not reject.value.lstrip().startswith(b"["):
            content = _STRUCTURED  # the letter holds one event of the batch
        # Kafka allows headers without a value, and the client does not send them.
        kept = _mask_text(content or b"")
        masked_headers = masked_headers or kept != (content or b"")
        headers.append((name, kept))
    masked = masked or masked_headers or key != reject.key
    return Letter(key, value, [*headers, *_headers(reject, masked)])


def _value_bytes(value: bytes) -> tuple[str, bytes]:
    return HEADER_PREFIX + "value-bytes", str(len(value)).encode()


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
    if reject.agency:
        values["agency"] = reject.agency
    if masked:
        values["masked"] = "true"
    for name, value in values.items():
        yield HEADER_PREFIX + name, value.encode("utf-8", "replace")


_MAX_PART: Final = 5_000
_MAX_PART_BYTES: Final = 32 * 1024 * 1024


def parts(rejects: Sequence[Reject]) -> Iterator[Sequence[Reject]]:
    """Cut rejects into as many as may be under way at once: a letter takes many times the memory of a small event."""
    start = weight = 0
    for place, reject in enumerate(rejects, 1):
        weight += len(reject.value)
        if place - start >= _MAX_PART or weight >= _MAX_PART_BYTES or place == len(rejects):
            yield rejects[start:place]
            start, weight = place, 0


def mask(value: bytes) -> tuple[bytes, bool]:
    """Replace what looks like a personal identifier by asterisks, byte for byte; the bytes, and whether any were.

    Works on the text, not on its meaning, so that what is not masked stays as it was and what is not quite JSON is
    masked as well.
    """
    masked = bytearray(value)
    name = ""
    for token in _TOKEN.finditer(value):
        start, end = token.span()
        text = _text_of(token[0])
        if token["string"] is not None:
            start += 1
            end -= token[0].endswith(b'"') and len(token[0]) > 1
        elif len(token[0]) < _MIN_NUMBER_DIGITS and name != "user":
            continue
        if token["colon"] is not None:
            end = token.end("string") - 1
            name = text
            found = identifier_kind(text, fin=False) is not None
        elif name == "user":
            found = text != "" and pseudonym_fault(text) is not None
        else:
            found = identifier_kind(text, fin=name in _PERSONAL_FIELDS) is not None
        if found:
            masked[start:end] = b"*" * (end - start)
    result = bytes(masked)
    if not _is_json(value):
        # Quotes may not pair as they should: look again, without regard to them.
        result = _EMAIL.sub(_stars, result)
        result = _USER_FIELD.sub(_mask_user_field, result)
    return result, result != value


def _text_of(token: bytes) -> str:
    """The text of a string or number token, escapes resolved where that is possible."""
    string = token.rstrip(b": \t\r\n") if token[:1] == b'"' else token
    try:
        return str(msgspec.json.decode(string))
    except (msgspec.MsgspecError, UnicodeError, ValueError):
        return string.strip(b'"').decode("utf-8", "replace")


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return False
    return True


def _stars(found: re.Match[bytes]) -> bytes:
    return b"*" * len(found[0])


def _mask_user_field(found: re.Match[bytes]) -> bytes:
    text = found[2].decode("utf-8", "replace")
    return found[0] if pseudonym_fault(text) is None else found[1] + b"*" * len(found[2])


def _mask_text(value: bytes) -> bytes:
    """A key or a header value, masked whole if it looks like an identifier."""
    text = value.decode("utf-8", "replace")
    return b"*" * len(value) if identifier_kind(text) is not None else value
