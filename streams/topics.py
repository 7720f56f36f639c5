"""Topics, as their administrator sees them: make them, find their ids, write segment markers."""

import contextlib
from collections.abc import Iterable, Iterator

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import BrokerResponseError, KafkaError, TopicAlreadyExistsError

from pipeline.errors import BrokerError
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from pipeline.fold.segment import MARKER_HEADER
from pipeline.settings import KafkaSettings

CONNECT_SECONDS = 10.0
# What was said has one order and no end, and the broker's clock says when.
_STATEMENTS = {"retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime"}
NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


def create_topics(settings: KafkaSettings) -> list[str]:
    """Create the topics that are missing; their names.

    Raises:
        BrokerError: Kafka is away or refuses.
    """
    created = []
    with _admin(settings) as admin:
        for topic, partitions, configs in (
            (settings.events_topic, settings.partitions, {}),
            # A dead letter is the refused message and its headers, so it may be a little larger.
            (settings.rejected_topic, settings.partitions, {"max.message.bytes": str(2 << 20)}),
            (settings.catalogue_topic, 1, _STATEMENTS),
            (settings.figures_topic, 1, _STATEMENTS),
        ):
            try:
                new = NewTopic(topic, partitions, settings.replication, topic_configs=configs)
                answer = admin.create_topics([new])
            except TopicAlreadyExistsError:
                continue
            for one in answer.get("topics", []):
                if one["error_code"]:
                    raise BrokerError(f"topic {topic} cannot be created: {one['error_message']}")
            created.append(topic)
    return created


def topic_ids(settings: KafkaSettings, topics: Iterable[str]) -> dict[str, str]:
    """The id of each topic; its name where the broker gives none (Kafka before 2.8).

    Raises:
        BrokerError: Kafka is away, or a topic is missing.
    """
    names = sorted(set(topics))
    with _admin(settings) as admin:
        found = {one["name"]: one for one in admin.describe_topics(names)}
    ids = {}
    for name in names:
        if name not in found or found[name]["error_code"]:
            raise BrokerError(f"topic {name} is missing at {settings.bootstrap}; run xidmet migrate")
        id_ = str(found[name].get("topic_id") or NO_TOPIC_ID)
        ids[name] = name if id_ == NO_TOPIC_ID else id_
    return ids


def partitions_of(settings: KafkaSettings, topic: str) -> int:
    """Number of partitions of a topic, 0 if it is missing.

    Raises:
        BrokerError: Kafka is away.
    """
    with _admin(settings) as admin:
        (one,) = admin.describe_topics([topic])
    return 0 if one["error_code"] else len(one["partitions"])


def max_message_bytes(settings: KafkaSettings, topic: str) -> int | None:
    """The largest batch of messages that a topic takes; None if the broker does not tell.

    Raises:
        BrokerError: Kafka is away.
    """
    with _admin(settings) as admin:
        try:
            found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        except BrokerResponseError:
            return None  # the user may write messages, but not read settings
    entry = found.get("topic", {}).get(topic, {}).get("max.message.bytes")
    text = entry.get("value") if isinstance(entry, dict) else entry
    return int(text) if text is not None and str(text).isdigit() else None


def group_members(settings: KafkaSettings) -> int:
    """Number of workers that Kafka counts to the group; one that died counts until its session has timed out.

    Raises:
        BrokerError: Kafka is away, or does not tell.
    """
    with _admin(settings) as admin:
        try:
            group = admin.describe_groups([settings.group])[settings.group]
        except (ValueError, KeyError) as error:
            # As from the embedded broker, whose answer kafka-python does not understand.
            raise BrokerError(
                f"Kafka at {settings.bootstrap} does not tell who is in group {settings.group}"
            ) from error
    # Newer brokers call a group that nobody ever joined an error, and dead.
    if group["error"] and group["group_state"] != "Dead":
        raise BrokerError(
            f"Kafka at {settings.bootstrap} does not tell who is in group {settings.group}: {group['error']}; try again"
        )
    return len(group["members"])


def write_marker(settings: KafkaSettings, log: LogPartition, rules: Rules) -> None:
    """End the open segment of a partition, for whoever folds it, so that ``rules`` can take effect.

    Raises:
        BrokerError: Kafka is away or refuses.
    """
    with _mapped(settings):
        producer = KafkaProducer(
            bootstrap_servers=settings.bootstrap.split(","),
            client_id="xidmet-marker",
            request_timeout_ms=int(settings.request_timeout_seconds * 1000),
        )
        try:
            headers = [(MARKER_HEADER, rules.to_json().encode())]
            future = producer.send(log.topic, value=b"", partition=log.partition, headers=headers)
            future.get(timeout=settings.request_timeout_seconds)
        finally:
            producer.close(timeout=settings.request_timeout_seconds)


@contextlib.contextmanager
def _admin(settings: KafkaSettings) -> Iterator[KafkaAdminClient]:
    with _mapped(settings):
        admin = KafkaAdminClient(
            bootstrap_servers=settings.bootstrap.split(","),
            client_id="xidmet-admin",
            request_timeout_ms=int(settings.request_timeout_seconds * 1000),
            bootstrap_timeout_ms=int(CONNECT_SECONDS * 1000),
        )
        try:
            yield admin
        finally:
            admin.close()


@contextlib.contextmanager
def _mapped(settings: KafkaSettings) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise BrokerError(
            f"Kafka at {settings.bootstrap}: {type(error).__name__}: {error}; check kafka.bootstrap"
        ) from error
