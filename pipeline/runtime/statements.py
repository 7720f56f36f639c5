"""Topics of statements: read one, say something on it, and what there is of them."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError
from msgspec import Struct

from pipeline.catalogue.changes import AnyChange, ChangedEvent, read_change
from pipeline.consumer import open_consumer, partitions_of, polls
from pipeline.contract.statements import Logged, S, Unreadable, in_force
from pipeline.errors import BrokerError
from pipeline.figures.model import Figure, FigureEvent, read_figure
from pipeline.producer import SEND_SECONDS, close_producer, connect_producer, words
from pipeline.settings import KafkaSettings
from sinks.clickhouse.catalogue_changes import store_changes
from sinks.clickhouse.client import Client
from sinks.clickhouse.figures import store_figures
from streams.topics import topic_ids

_CLIENT_ID: Final = "xidmet-statements"


@dataclass(frozen=True)
class Kind(Generic[S]):
    """A kind of statements: the topic it stands on, how a message is read and made, and how it gets into ClickHouse."""

    name: str
    topic: Callable[[KafkaSettings], str]
    read: Callable[[bytes | None, int, int], "Logged[S] | Unreadable"]
    event: Callable[..., Struct]
    store: "Callable[[Client, str, list[Logged[S]]], None]"


CATALOGUE: Final = Kind[AnyChange](
    "catalogue", lambda kafka: kafka.catalogue_topic, read_change, ChangedEvent, store_changes
)
FIGURES: Final = Kind[Figure]("figures", lambda kafka: kafka.figures_topic, read_figure, FigureEvent, store_figures)
KINDS: Final[tuple[Kind[Any], ...]] = (CATALOGUE, FIGURES)
"""All kinds. Each has a topic of its own."""


class StatementLog(Struct, Generic[S], frozen=True):
    """What stands on a topic, in its order: statements, and messages that are none."""

    topic_id: str
    statements: tuple[Logged[S], ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def in_force(self) -> list[S]:
        """The statements that hold."""
        return in_force(logged.said for logged in self.statements)


def read_log(settings: KafkaSettings, kind: Kind[S]) -> "StatementLog[S]":
    """Read the whole topic, up to its end as of now.

    Raises:
        BrokerError: Kafka does not answer, or the topic is missing or has several partitions.
    """
    topic = kind.topic(settings)
    statements: list[Logged[S]] = []
    unreadable: list[Unreadable] = []
    id_ = topic_ids(settings, [topic])[topic]
    with open_consumer(settings, topic, _CLIENT_ID) as consumer:
        partition = the_partition(consumer, settings, topic)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        for records in polls(consumer, consumer.end_offsets([partition]), settings, to_the_end=True):
            for record in records:
                sort(kind, record, statements, unreadable)
    return StatementLog(id_, tuple(statements), tuple(unreadable))


def the_partition(consumer: Any, settings: KafkaSettings, topic: str) -> TopicPartition:
    """The only partition of a topic of statements: with several there would be no order in what was said.

    Raises:
        BrokerError: there is no such topic, or it has several.
    """
    found = partitions_of(consumer, settings, topic)
    if len(found) > 1:
        raise BrokerError(
            f"topic {topic} has {len(found)} partitions, in which statements have no order; make it anew with one"
            " partition, or name another topic in the settings"
        )
    return found[0]


def sort(kind: Kind[S], record: Any, statements: "list[Logged[S]]", unreadable: list[Unreadable]) -> None:
    """Put a record of the topic to the statements, or to the messages that are none."""
    one = kind.read(record.value, record.offset, max(0, record.timestamp or 0))
    if isinstance(one, Logged):
        statements.append(one)
    else:
        unreadable.append(one)


def say(settings: KafkaSettings, kind: Kind[S], source: str, statements: Iterable[S]) -> int:
    """Say statements on their topic, in this order; how many. All of them have reached Kafka when it returns.

    Args:
        settings: where Kafka is.
        kind: of the statements.
        source: who says it: ``source`` of the CloudEvents.
        statements: what is said.

    Raises:
        BrokerError: Kafka does not answer or refuses. Some may have been said: to say all again does no harm.
    """
    topic = kind.topic(settings)
    with _producer(settings, topic) as producer:
        futures = [producer.send(topic, value=message(kind, source, one)) for one in statements]
        for future in futures:
            future.get(timeout=SEND_SECONDS)
    return len(futures)


def message(kind: Kind[S], source: str, said: S) -> bytes:
    """The CloudEvent that says it. Its id follows from what it says, and from the second when it is said."""
    now = datetime.now(UTC).replace(microsecond=0)
    content = msgspec.json.encode((said, now), order="deterministic")
    id_ = hashlib.sha256(content).hexdigest()[:32]
    return msgspec.json.encode(kind.event(specversion="1.0", id=id_, source=source, time=now, data=said))


@contextlib.contextmanager
def _producer(settings: KafkaSettings, topic: str) -> Iterator[Any]:
    producer = connect_producer(settings.bootstrap, topic, _CLIENT_ID, compression=None)
    try:
        yield producer
    except KafkaError as error:
        raise BrokerError(
            f"{settings.bootstrap}: topic {topic} does not take what is said ({words(error)}); check the broker and"
            " run the command again"
        ) from error
    finally:
        close_producer(producer)
