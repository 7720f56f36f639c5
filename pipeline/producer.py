"""Connections of producers to Kafka, on kafka-python 3."""

import contextlib
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from pipeline.errors import BrokerError

MAX_BATCH_BYTES: Final = 500_000
"""Half of Kafka's default limit for a message (message.max.bytes, 1 MiB), so that a batch always fits."""

SEND_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 10.0
_COMPRESSIONS: Final = ("gzip", "lz4", "snappy", "zstd")


def connect_producer(
    bootstrap: str,
    topic: str,
    client_id: str,
    compression: str | None,
    max_request_size: int = 2 * MAX_BATCH_BYTES,
    transactional_id: str | None = None,
    batch_bytes: int = MAX_BATCH_BYTES,
) -> Any:
    """An idempotent producer that knows the topic; a message is sent when all in-sync replicas have it.

    With a ``transactional_id`` it is one of transactions, which the caller begins and ends.

    Raises:
        BrokerError: the broker does not answer, or has no such topic.
        ValueError: the compression is unknown, or its library is not installed.
    """
    if compression is not None and compression not in _COMPRESSIONS:
        raise ValueError(f"compression {compression!r} is none of {', '.join(_COMPRESSIONS)}")
    producer: Any = None
    try:
        producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","),
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            compression_type=compression,
            batch_size=batch_bytes,  # several messages a request
            linger_ms=5,
            max_request_size=max_request_size,
            max_block_ms=int(_CONNECT_SECONDS * 1000),
            bootstrap_timeout_ms=int(_CONNECT_SECONDS * 1000),
            request_timeout_ms=int(SEND_SECONDS * 500),
            delivery_timeout_ms=int(SEND_SECONDS * 1000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
            transactional_id=transactional_id,
        )
        partitions = producer.partitions_for(topic)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"compression {compression}: {words(error)}") from error
    except (KafkaError, OSError) as error:
        if producer is not None:
            close_producer(producer)
        raise BrokerError(
            f"{bootstrap}: no Kafka broker that knows topic {topic} answers ({words(error)});"
            " check kafka.bootstrap, start the broker and create the topic"
        ) from error
    if not partitions:
        close_producer(producer)
        raise BrokerError(f"{bootstrap}: there is no topic {topic}; create it first")
    return producer


def close_producer(producer: Any) -> None:
    """Disconnect within a second or so, whatever is left to send."""
    try:
        producer.close(timeout=GRACE_SECONDS)
    except KafkaError:
        # kafka-python 3.0 leaves its thread running when records cannot be flushed: end it, and then what is left.
        producer._sender.force_close()
        producer._sender.join(GRACE_SECONDS)
        with contextlib.suppress(KafkaError):
            producer.close(timeout=0)


def words(error: BaseException) -> str:
    """The text of an error, or its name where it has none."""
    return str(error) or type(error).__name__
