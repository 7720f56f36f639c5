"""Writes a load to a topic: one event a message, or batches of 100, or both at once to two topics.

A program of its own, so that it can run where confluent-kafka is installed; without that it takes kafka-python, which
needs several times as long. All replicas acknowledge. It prints one line of JSON: what was written, by service.

Message i of a topic goes to partition i modulo 4, so that no side is hindered by a full partition; its key, if there is
one, is ``agency/service`` or the id of the (first) event. A batch carries the header that the contract asks for.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

from benchmarks.compare.load import EVENTS_PER_SECOND, Block, Load, Truth

PARTITIONS: Final = 4
BATCH_HEADERS: Final = [("content-type", b"application/cloudevents-batch+json")]
KEYS: Final = ("none", "id", "service")
_FLUSH_SECONDS: Final = 120.0


class Sender(Protocol):
    """A Kafka producer, reduced to this use."""

    def send(self, topic: str, value: bytes, partition: int, key: bytes | None, headers: Any) -> None:
        """Hand over one message; waits while too many are unacknowledged."""

    def close(self) -> None:
        """Wait until all are acknowledged.

        Raises:
            RuntimeError: some are not.
        """


class ConfluentSender:
    """confluent-kafka."""

    def __init__(self, bootstrap: str, compression: str) -> None:
        from confluent_kafka import Producer

        self._failed: list[str] = []
        self._producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "compression.type": compression,
                "linger.ms": 20,
                "batch.size": 900_000,
                "batch.num.messages": 100_000,
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 256_000,
                "error_cb": lambda error: self._failed.append(str(error)) if error.fatal() else None,
                "on_delivery": lambda error, _: self._failed.append(str(error)),
                "delivery.report.only.error": True,
            }
        )

    def send(self, topic: str, value: bytes, partition: int, key: bytes | None, headers: Any) -> None:
        """See :class:`Sender`."""
        while True:
            try:
                self._producer.produce(topic, value, key=key, partition=partition, headers=headers)
            except BufferError:
                self._producer.poll(0.02)
            else:
                return

    def close(self) -> None:
        """See :class:`Sender`."""
        left = self._producer.flush(_FLUSH_SECONDS)
        if left or self._failed:
            raise RuntimeError(f"{left} messages were not acknowledged; {self._failed[:3]}")


class KafkaPythonSender:
    """kafka-python."""

    def __init__(self, bootstrap: str, compression: str) -> None:
        from kafka import KafkaProducer

        self._sent: list[Any] = []
        self._producer: Any = KafkaProducer(
            bootstrap_servers=bootstrap,
            compression_type=None if compression == "none" else compression,
            linger_ms=20,
            batch_size=400_000,
            max_block_ms=int(_FLUSH_SECONDS * 1000),
        )

    def send(self, topic: str, value: bytes, partition: int, key: bytes | None, headers: Any) -> None:
        """See :class:`Sender`."""
        self._sent.append(self._producer.send(topic, value, key=key, partition=partition, headers=headers or []))
        if len(self._sent) > 100_000:
            self._check()

    def close(self) -> None:
        """See :class:`Sender`."""
        self._producer.flush(timeout=_FLUSH_SECONDS)
        self._check()
        self._producer.close()

    def _check(self) -> None:
        for sent in self._sent:
            sent.get(timeout=_FLUSH_SECONDS)
        self._sent.clear()


def sender(bootstrap: str, compression: str) -> Sender:
    """The fastest client that is installed."""
    try:
        return ConfluentSender(bootstrap, compression)
    except ModuleNotFoundError:
        return KafkaPythonSender(bootstrap, compression)


class Writer:
    """Writes blocks to topics: messages take turns over the partitions of each."""

    def __init__(self, to: Sender, keys: str) -> None:
        self._to = to
        self._keys = keys
        self._messages: Counter[str] = Counter()

    def write_single(self, topic: str, block: Block) -> None:
        """Hand one block over, one event a message."""
        names = [_id(value) for value in block.values] if self._keys == "id" else block.keys
        for value, key in zip(block.values, names, strict=True):
            self._send(topic, value, None if self._keys == "none" else key, None)

    def write_batches(self, topic: str, block: Block) -> None:
        """Hand one block over, in batches."""
        for batch in block.batches():
            self._send(topic, batch, _id(batch) if self._keys == "id" else None, BATCH_HEADERS)

    def _send(self, topic: str, value: bytes, key: bytes | None, headers: Any) -> None:
        self._to.send(topic, value, self._messages[topic] % PARTITIONS, key, headers)
        self._messages[topic] += 1


def write(
    bootstrap: str,
    load: Load,
    *,
    single: str = "",
    batches: str = "",
    prefix: str = "",
    prefix_events: int = 0,
    keys: str = "none",
    compression: str = "none",
) -> tuple[Truth, Truth]:
    """Write a load to topics that exist with :data:`PARTITIONS` partitions; what it holds, and what its prefix holds.

    Args:
        bootstrap: ``host:port`` of the broker.
        load: the events.
        single: topic for one event a message; empty for none.
        batches: topic for JSON batches of 100; empty for none.
        prefix: topic for the first ``prefix_events`` of them, one event a message; empty for none.
        prefix_events: how many, for readers that are too slow for all.
        keys: one of :data:`KEYS`; batches have none under ``service``.
        compression: ``none`` or ``lz4``.

    Raises:
        RuntimeError: not everything was acknowledged.
    """
    truth, short = Truth(), Truth()
    to = sender(bootstrap, compression)
    writer = Writer(to, keys)
    for block in load.blocks():
        truth.add(block)
        if single:
            writer.write_single(single, block)
        if batches:
            writer.write_batches(batches, block)
        if short.events < prefix_events:
            first = block.first(prefix_events - short.events)
            short.add(first)
            if prefix:
                writer.write_single(prefix, first)
    to.close()
    return truth, short


def _id(value: bytes) -> bytes:
    """The id of the first event of a message."""
    at = value.index(b'"id":"') + 6
    return value[at : value.index(b'"', at)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a load from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True, help="host:port of a broker")
    parser.add_argument("--events", type=int, required=True, help="events")
    parser.add_argument("--single", default="", help="topic for one event a message")
    parser.add_argument("--batches", default="", help="topic for batches of 100")
    parser.add_argument("--prefix", default="", help="topic for the first events, one a message")
    parser.add_argument("--prefix-events", type=int, default=0, help="how many of them")
    parser.add_argument("--keys", choices=KEYS, default="none", help="keys of the messages (default none)")
    parser.add_argument("--compression", choices=("none", "lz4"), default="none", help="of the messages (default none)")
    parser.add_argument("--seed", type=int, default=1, help="of the events (default 1)")
    parser.add_argument("--until-ms", type=int, default=0, help="time of the last event, Unix milliseconds; 0 is now")
    parser.add_argument("--per-second", type=int, default=EVENTS_PER_SECOND, help="events a second of event time")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    load = Load(options.events, options.until_ms or time.time_ns() // 1_000_000, options.seed, options.per_second)
    truth, short = write(
        options.bootstrap,
        load,
        single=options.single,
        batches=options.batches,
        prefix=options.prefix,
        prefix_events=options.prefix_events,
        keys=options.keys,
        compression=options.compression,
    )
    seconds = time.monotonic() - began
    print(json.dumps({"all": truth.as_json(), "prefix": short.as_json(), "seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
