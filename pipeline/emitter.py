"""Send events to Kafka: CloudEvents JSON batches, idempotent, acknowledged by all in-sync replicas.

An event is counted once however often it is sent, because the pipeline knows it by its id: after a
:class:`BrokerError` it is safe to send again whatever was not acknowledged.
"""

import contextlib
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from kafka.errors import KafkaError

from pipeline.errors import BrokerError
from pipeline.producer import GRACE_SECONDS, MAX_BATCH_BYTES, SEND_SECONDS, close_producer, connect_producer, words

BATCH_CONTENT_TYPE: Final = b"application/cloudevents-batch+json"
_MAX_PENDING_MESSAGES: Final = 1_000

Header = tuple[str, bytes]


class Emitter:
    """Collects events into batches and sends them. Safe to use from several threads.

    A batch leaves when it holds ``batch_events`` events, when the next event would take it past
    :data:`MAX_BATCH_BYTES`, or when its first event has waited ``linger_seconds``. :meth:`emit` does not wait for
    the broker unless :data:`_MAX_PENDING_MESSAGES` messages are unacknowledged; then it waits for room. A failed
    message raises at the next call, and at the latest in :meth:`flush` or :meth:`close`.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        batch_events: int = 100,
        linger_seconds: float = 0.05,
        client_id: str = "xidmet-emitter",
        compression: str | None = None,
    ) -> None:
        """Connect to the broker.

        Args:
            bootstrap: ``host:port`` of a broker, or several, separated by commas.
            topic: must exist.
            batch_events: events in a message, at most.
            linger_seconds: how long an event waits for others.
            client_id: name of this client in the broker's log.
            compression: None, gzip, lz4, snappy or zstd; the last two need libraries of their own.

        Raises:
            BrokerError: the broker does not answer, or has no such topic.
            ValueError: an argument is out of range, or the library for the compression is not installed.
        """
        if batch_events < 1 or linger_seconds < 0:
            raise ValueError("batch_events must be at least 1, linger_seconds not negative")
        self._bootstrap = bootstrap
        self._topic = topic
        self._batch_events = batch_events
        self._linger = linger_seconds
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._waiting_key: bytes | None = None
        self._waiting_since = 0.0
        self._lock = threading.RLock()
        self._state = threading.Condition()
        self._in_flight = 0
        self._acknowledged = 0
        self._sent = 0
        self._failure: str | None = None
        self._wake = threading.Event()
        self._closed = False
        self._producer = connect_producer(bootstrap, topic, client_id, compression)
        self._thread = threading.Thread(target=self._linger_loop, name="xidmet-emitter", daemon=True)
        self._thread.start()

    @property
    def sent_events(self) -> int:
        """Events handed to the Kafka client so far, raw messages counted as one each."""
        return self._sent

    @property
    def acknowledged_events(self) -> int:
        """Events that the broker has acknowledged so far."""
        return self._acknowledged

    def emit(self, event: dict[str, Any] | bytes, *, key: bytes | None = None) -> None:
        """Add an event, a dictionary in structured mode or its JSON bytes, to the batch.

        Args:
            event: not validated: the pipeline does that, and answers with dead letters.
            key: of the message, if this event is the first of its batch; the event's id by default.

        Raises:
            BrokerError: a message before this one failed, or the emitter is closed.
            ValueError: the bytes are not JSON and would spoil the batch; :meth:`emit_raw` sends them alone.
        """
        encoded = _checked(event) if isinstance(event, bytes) else msgspec.json.encode(event)
        with self._lock:
            self._raise_failure()
            if self._waiting and self._waiting_bytes + len(encoded) + 2 > MAX_BATCH_BYTES:
                self._send_batch()
            if not self._waiting:
                self._waiting_since = time.monotonic()
                self._waiting_key = key or _key_of(event)
            self._waiting.append(encoded)
            self._waiting_bytes += len(encoded) + 1
            if len(self._waiting) >= self._batch_events:
                self._send_batch()
            elif len(self._waiting) == 1:
                self._wake.set()

    def emit_raw(self, value: bytes, headers: Iterable[Header] = (), key: bytes | None = None) -> None:
        """Send one message as it is, after what was emitted before it; raises as :meth:`emit`."""
        with self._lock:
            self._raise_failure()
            self._send_batch()
            self._send(value, list(headers), key, 1)

    def flush(self, timeout: float = SEND_SECONDS) -> None:
        """Send what is waiting and return when everything sent is acknowledged.

        Raises:
            BrokerError: a message failed, or was not acknowledged within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._raise_failure()
            self._send_batch()
        with self._state:
            done = self._state.wait_for(
                lambda: self._in_flight == 0 or self._failure is not None, max(deadline - time.monotonic(), 0)
            )
        self._raise_failure()
        if not done:
            raise BrokerError(
                f"{self._bootstrap}: {self._sent - self._acknowledged} events for topic {self._topic} were not"
                f" acknowledged within {timeout:g} s; see whether the broker runs, then send them again"
            )

    def close(self, timeout: float = SEND_SECONDS) -> None:
        """Flush and disconnect. A second call does nothing.

        Raises:
            BrokerError: as :meth:`flush`; the connection is closed all the same.
        """
        with self._lock:
            if self._closed:
                return
        try:
            self.flush(timeout)
        finally:
            with self._lock:
                self._closed = True
            self._wake.set()
            self._thread.join(GRACE_SECONDS)
            close_producer(self._producer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        # An error is under way: it must not be hidden by one of closing.
        with contextlib.suppress(BrokerError):
            self.close(GRACE_SECONDS)

    def _send_batch(self) -> None:
        if not self._waiting:
            return
        value = b"[" + b",".join(self._waiting) + b"]"
        count, key = len(self._waiting), self._waiting_key
        self._waiting = []
        self._waiting_bytes = 0
        self._send(value, [("content-type", BATCH_CONTENT_TYPE)], key, count)

    def _send(self, value: bytes, headers: list[Header], key: bytes | None, events: int) -> None:
        with self._state:
            room = self._state.wait_for(
                lambda: self._in_flight < _MAX_PENDING_MESSAGES or self._failure is not None, SEND_SECONDS
            )
            if self._failure is None and not room:
                self._failure = f"no message was acknowledged for {SEND_SECONDS:g} s"
        self._raise_failure()
        with self._state:
            self._in_flight += 1
        try:
            future = self._producer.send(self._topic, value=value, headers=headers, key=key)
        except (KafkaError, OSError, AssertionError) as error:
            self._failed(error)
            self._raise_failure()
        else:
            self._sent += events
            future.add_callback(self._succeeded, events)
            future.add_errback(self._failed)

    def _succeeded(self, events: int, _metadata: object) -> None:
        with self._state:
            self._in_flight -= 1
            self._acknowledged += events
            self._state.notify_all()

    def _failed(self, error: BaseException) -> None:
        with self._state:
            self._in_flight -= 1
            self._failure = self._failure or words(error)
            self._state.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise BrokerError(
                f"{self._bootstrap}: sending to topic {self._topic} failed ({self._failure});"
                f" {self._acknowledged} of {self._sent} events were acknowledged; send the others again"
            )
        if self._closed:
            raise BrokerError("the emitter is closed; open another one")

    def _linger_loop(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            while not self._closed:
                with self._lock:
                    if not self._waiting:
                        break
                    left = self._waiting_since + self._linger - time.monotonic()
                    if left <= 0:
                        # The failure is kept and raised in the caller's next call.
                        with contextlib.suppress(BrokerError):
                            self._send_batch()
                        break
                time.sleep(left)


def _checked(event: bytes) -> bytes:
    try:
        msgspec.json.decode(event)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return event


def _key_of(event: dict[str, Any] | bytes) -> bytes | None:
    if isinstance(event, bytes):
        try:
            event = msgspec.json.decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    identifier = event.get("id") if isinstance(event, dict) else None
    return identifier.encode() if isinstance(identifier, str) else None
