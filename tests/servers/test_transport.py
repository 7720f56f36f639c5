"""The batched transport against real Kafka, with what only real Kafka can do."""

import uuid
from itertools import pairwise

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from tests.support import KafkaServer
from tests.support.transport_suite import TransportSuite, create_topic, probing, produce
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


@pytest.fixture
def bootstrap(kafka_server: KafkaServer) -> str:
    return kafka_server.bootstrap


@pytest.fixture
def session() -> float:
    return 6.0


class TestTransportOnKafka(TransportSuite):
    def test_committed_offsets_are_those_the_authority_calls_durable(self, bootstrap: str, session: float) -> None:
        topic, group = f"transport-{uuid.uuid4().hex[:8]}", f"group-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 1)
        produce(bootstrap, topic, 0, [str(n) for n in range(50)])
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)

        def committed() -> int:
            offsets = admin.list_group_offsets({group: None})[group]
            found = offsets.get(TopicPartition(topic, 0))
            return found.offset if found else -1

        try:
            with probing(bootstrap, topic, session, group=group) as seen:
                wait_until(lambda: len(seen.values()) == 50, 60, "all records")
                wait_until(lambda: committed() == 50, 30, "the commit")
        finally:
            admin.close()

    def test_aborted_transactions_are_not_handed_on_and_leave_no_false_hole(
        self, bootstrap: str, session: float
    ) -> None:
        topic = f"transport-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 1)
        producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"t-{uuid.uuid4().hex[:8]}")
        try:
            producer.init_transactions()
            for number in range(6):
                producer.begin_transaction()
                producer.send(topic, f"{number}".encode(), partition=0).get(timeout=30)
                if number % 2:
                    producer.abort_transaction()
                else:
                    producer.commit_transaction()
        finally:
            producer.close()
        produce(bootstrap, topic, 0, ["end"])
        with probing(bootstrap, topic, session) as seen:
            wait_until(lambda: "end" in seen.values(), 60, "the last record")
        assert seen.values() == ["0", "2", "4", "end"]
        batches = seen.of(0)
        assert batches[0]["start"] == 0
        assert batches[-1]["next"] == 13  # 7 records and 6 markers
        assert not any(batch["truncated"] for batch in batches)
        for batch, following in pairwise(batches):
            assert following["start"] == batch["next"]

    def test_offsets_that_retention_deleted_come_as_a_truncated_batch(self, bootstrap: str, session: float) -> None:
        topic = f"transport-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 1)
        produce(bootstrap, topic, 0, [str(n) for n in range(20)])
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            admin.delete_records({TopicPartition(topic, 0): 15})
        finally:
            admin.close()
        with probing(bootstrap, topic, session, positions={0: 5}) as seen:
            wait_until(lambda: len(seen.values()) == 5, 60, "what is left")
        first, second = seen.of(0)[:2]
        assert (first["truncated"], first["start"], first["next"], first["offsets"]) == (True, 5, 15, [])
        assert (second["truncated"], second["start"], second["values"]) == (False, 15, [str(n) for n in range(15, 20)])
