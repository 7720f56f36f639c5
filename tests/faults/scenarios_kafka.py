"""Kafka killed, cut off, frozen, refusing; the dead-letter topic unavailable."""

from typing import Any

from tests.faults.plans import CRASH_POINTS, FIVE_POINTS
from tests.faults.run import SESSION_SECONDS
from tests.faults.scenario import Row, Scenario


def broker_killed(row: Row) -> None:
    """SIGKILL to the broker at a crash point; producers keep what is not acknowledged and send it later."""
    worker = row.begin(row.plan("hold"))
    row.send(0.4)
    worker.wait_reached()
    row.kafka.kill()
    worker.release()
    row.outage()
    row.kafka.start()
    row.fault_ended()
    row.send(0.6)


def broker_restarted_while_sending(row: Row) -> None:
    """The broker is killed in the middle of a stream of messages: the idempotent producer sends again what it must."""
    row.begin()
    row.send(0.3)
    producer = row.load.producer()
    try:
        row.load.send_with(producer, round(row.events * 0.2))
        row.kafka.kill()
        row.kafka.start()
        row.load.send_with(producer, round(row.events * 0.5))
        producer.flush(timeout=120)
    finally:
        producer.close()
    row.fault_ended()


def kafka_cut(row: Row) -> None:
    """The workers' connections to the broker are cut again and again."""
    proxied: dict[str, Any] = {"kafka__bootstrap": row.kafka.proxied_bootstrap}
    row.begin(row.plan("nothing"), **proxied)
    row.run.start(**proxied)
    for _ in range(6):
        row.send(1 / 6)
        row.kafka_proxy.cut()
    row.fault_ended()


def kafka_frozen(row: Row) -> None:
    """No byte between worker and broker for longer than the session time-out, with a batch in hand; another worker,
    which is not cut off, takes over meanwhile."""
    worker = row.begin(row.plan("hold"), kafka__bootstrap=row.kafka.proxied_bootstrap)
    row.send(0.4)
    worker.wait_reached()
    row.kafka_proxy.freeze()
    heir = row.run.start()
    worker.release()
    row.wait_assigned(heir, partitions=4)
    row.send(0.4)
    row.outage(SESSION_SECONDS)
    row.kafka_proxy.heal()
    row.fault_ended()
    row.send(0.2)


def kafka_refuses(row: Row) -> None:
    """The worker cannot reach the broker at all for a while."""
    worker = row.begin(row.plan("hold"), kafka__bootstrap=row.kafka.proxied_bootstrap)
    row.at_the_point(row.kafka_proxy.refuse, row.kafka_proxy.heal, worker)


def dead_letters_unavailable(row: Row) -> None:
    """The dead-letter topic is gone for a while: nothing that would need a letter becomes durable."""
    worker = row.begin(row.plan("hold"))
    topic = row.run.settings.kafka.rejected_topic

    def too_few_replicas() -> None:
        row.set_topic(topic, {"min.insync.replicas": "2"})

    def enough() -> None:
        row.set_topic(topic, {"min.insync.replicas": "1"})

    row.at_the_point(too_few_replicas, enough, worker)


SCENARIOS = (
    Scenario("broker killed and restarted", broker_killed, CRASH_POINTS),
    Scenario("broker killed while producers send", broker_restarted_while_sending),
    Scenario("Kafka cut off again and again", kafka_cut),
    Scenario("Kafka frozen beyond the session time-out", kafka_frozen, CRASH_POINTS),
    Scenario("Kafka refuses connections", kafka_refuses, FIVE_POINTS),
    Scenario("dead-letter topic unavailable", dead_letters_unavailable, CRASH_POINTS, quick=("before_dead_letters",)),
)
