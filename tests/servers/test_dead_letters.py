"""Dead letters that the broker finds too large must not keep the others, or themselves, from being sent."""

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer

from pipeline.contract.reasons import Reason
from pipeline.errors import BrokerError
from pipeline.fold.flush import Reject
from pipeline.fold.records import LogPartition
from pipeline.settings import KafkaSettings
from sinks.dead_letters import DeadLetters
from streams.topics import create_topics
from tests.conftest import TopicName
from tests.support import KafkaServer

pytestmark = pytest.mark.servers

LARGE = 3 << 20
"""More than the topic of dead letters takes."""


@pytest.fixture
def kafka(kafka_server: KafkaServer, topic_name: TopicName) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap=kafka_server.bootstrap,
        events_topic=topic_name("events"),
        rejected_topic=topic_name("rejected"),
        partitions=1,
        request_timeout_seconds=20,
    )
    create_topics(settings)
    return settings


@pytest.fixture
def letters(kafka: KafkaSettings) -> Iterator[DeadLetters]:
    letters = DeadLetters(kafka)
    yield letters
    letters.close()


def reject(offset: int, value: bytes, key: bytes | None = None, headers: Any = ()) -> Reject:
    log = LogPartition("events", "id", 0)
    return Reject(log, offset, 0, 0, Reason.NOT_JSON, "no JSON", key, headers, value)


def sent(kafka: KafkaSettings) -> dict[int, Any]:
    """The letters on the topic by the offset that they name; the last of each."""
    consumer = KafkaConsumer(
        kafka.rejected_topic,
        bootstrap_servers=kafka.bootstrap,
        auto_offset_reset="earliest",
        group_id=None,
        consumer_timeout_ms=5_000,
    )
    try:
        return {int(dict(letter.headers)["xidmet-offset"]): letter for letter in consumer}
    finally:
        consumer.close()


def test_a_letter_too_large_goes_without_its_value_and_its_neighbours_whole(
    kafka: KafkaSettings, letters: DeadLetters
) -> None:
    rejects = [
        reject(0, b"small", b"key"),
        reject(1, b"x" * LARGE, b"key", [("of", b"agency")]),
        reject(2, b"small"),
        reject(3, b"y" * (LARGE + 1)),
        reject(4, b"z" * 1_000_000),
    ]
    letters.send(rejects)
    letters.send([reject(5, b"after"), reject(6, b"x" * LARGE)])
    found = sent(kafka)
    assert {offset: len(letter.value) for offset, letter in found.items()} == {
        0: 5,
        1: 0,
        2: 5,
        3: 0,
        4: 1_000_000,
        5: 5,
        6: 0,
    }
    headers = dict(found[1].headers)
    assert (found[1].key, headers["of"], headers["xidmet-value-bytes"]) == (b"key", b"agency", str(LARGE).encode())
    assert headers["xidmet-reason"] == b"not_json"
    assert dict(found[6].headers)["xidmet-value-bytes"] == str(LARGE).encode()


@pytest.mark.parametrize("where", ["key", "header"])
def test_a_letter_too_large_for_its_key_or_headers_keeps_what_we_say_of_it(
    kafka: KafkaSettings, letters: DeadLetters, where: str
) -> None:
    long = b"\xff" * LARGE
    bad = reject(1, b"value", long) if where == "key" else reject(1, b"value", b"key", [("long", long)])
    letters.send([reject(0, b"small", b"key", [("kept", b"1")]), bad])
    found = sent(kafka)
    assert (found[0].key, found[0].value, dict(found[0].headers)["kept"]) == (b"key", b"small", b"1")
    headers = dict(found[1].headers)
    assert (found[1].key, found[1].value) == (None, b"")
    assert all(name.startswith("xidmet-") for name in headers)
    assert (headers["xidmet-value-bytes"], headers["xidmet-reason"]) == (b"5", b"not_json")


def test_a_topic_that_takes_nothing_is_an_error_that_may_be_tried_again(
    kafka_server: KafkaServer, kafka: KafkaSettings, letters: DeadLetters
) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    def limit(size: int) -> None:
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        try:
            configs = {"max.message.bytes": str(size)}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.rejected_topic, configs)])
        finally:
            admin.close()

    limit(10)
    with pytest.raises(BrokerError, match="results wait"):
        letters.send([reject(0, b"small")])
    limit(1_000_000)
    letters.send([reject(0, b"small")])
    assert list(sent(kafka)) == [0]
