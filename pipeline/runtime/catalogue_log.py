"""The topic of catalogue changes: read it, say something on it, and bring what it says into ClickHouse."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError
from msgspec import Struct

from pipeline.catalogue.changes import AnyChange, ChangedEvent, Logged, Unreadable, in_force, read_change
from pipeline.consumer import open_consumer, partitions_of, polls
from pipeline.errors import BrokerError
from pipeline.producer import SEND_SECONDS, close_producer, connect_producer, words
from pipeline.settings import KafkaSettings
from streams.topics import topic_ids

logger = logging.getLogger(__name__)

SOURCE: Final = "urn:xidmet:catalogue"
"""The source of the changes that ``xidmet catalogue load`` says."""
_CLIENT_ID: Final = "xidmet-catalogue"


class CatalogueLog(Struct, frozen=True):
    """What stands on the topic, in its order: changes, and messages that are none."""

    topic_id: str
    changes: tuple[Logged, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def in_force(self) -> list[AnyChange]:
        """The changes that hold."""
        return in_force(self.changes)


def read_log(settings: KafkaSettings) -> CatalogueLog:
    """Read the whole topic, up to its end as of now.

    Raises:
        BrokerError: Kafka does not answer, or the topic is missing or has several partitions.
    """
    topic = settings.catalogue_topic
    changes: list[Logged] = []
    unreadable: list[Unreadable] = []
    id_ = topic_ids(settings, [topic])[topic]
    with open_consumer(settings, topic, _CLIENT_ID) as consumer:
        partition = the_partition(consumer, settings)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        for records in polls(consumer, consumer.end_offsets([partition]), settings, to_the_end=True):
            for record in records:
                sort(record, changes, unreadable)
    return CatalogueLog(id_, tuple(changes), tuple(unreadable))


def the_partition(consumer: Any, settings: KafkaSettings) -> TopicPartition:
    """The only partition of the topic: with several there would be no order in what was said.

    Raises:
        BrokerError: there is no such topic, or it has several.
    """
    found = partitions_of(consumer, settings, settings.catalogue_topic)
    if len(found) > 1:
        raise BrokerError(
            f"topic {settings.catalogue_topic} has {len(found)} partitions, in which changes have no order; make it"
            " anew with one partition, or name another topic in kafka.catalogue_topic"
        )
    return found[0]


def sort(record: Any, changes: list[Logged], unreadable: list[Unreadable]) -> None:
    """Put a record of the topic to the changes, or to the messages that are none."""
    one = read_change(record.value, record.offset, max(0, record.timestamp or 0))
    if isinstance(one, Logged):
        changes.append(one)
    else:
        unreadable.append(one)


def say(settings: KafkaSettings, changes: Sequence[AnyChange]) -> int:
    """Say changes on the topic, in this order; how many. All of them have reached Kafka when it returns.

    Raises:
        BrokerError: Kafka does not answer or refuses. Some may have been said: to say all again does no harm.
    """
    with _producer(settings) as producer:
        futures = [
            producer.send(settings.catalogue_topic, key=change.agency.encode(), value=message(change))
            for change in changes
        ]
        for future in futures:
            future.get(timeout=SEND_SECONDS)
    return len(changes)


def message(change: AnyChange) -> bytes:
    """The CloudEvent that says a change. Its id follows from what it says, and from the second when it is said."""
    now = datetime.now(UTC).replace(microsecond=0)
    said = msgspec.json.encode((change, now), order="deterministic")
    event = ChangedEvent(
        specversion="1.0", id=hashlib.sha256(said).hexdigest()[:32], source=SOURCE, time=now, data=change
    )
    return msgspec.json.encode(event)


@contextlib.contextmanager
def _producer(settings: KafkaSettings) -> Iterator[Any]:
    producer = connect_producer(settings.bootstrap, settings.catalogue_topic, _CLIENT_ID, compression=None)
    try:
        yield producer
    except KafkaError as error:
        raise BrokerError(
            f"{settings.bootstrap}: topic {settings.catalogue_topic} does not take the changes ({words(error)}); check"
            " the broker and run the command again"
        ) from error
    finally:
        close_producer(producer)
