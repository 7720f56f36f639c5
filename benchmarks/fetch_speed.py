"""Processor time from Kafka's answers to columns: aiokafka as it is, this project's reading, and confluent-kafka.

Each side reads the same topic from its start, by itself in a process of its own, in alternating rounds, and ends with
lists of offsets, time stamps, keys, values and headers. What is compared is the processor time of all threads of that
process from before the consumer is made until the last record is in a list, per million records: wall-clock time on a
busy machine says little. Checksums are checked, only committed records are read, and nobody joins a group.

Without --bootstrap it starts the Apache Kafka of the tests. confluent-kafka is no dependency of this project; name an
interpreter that has it with --confluent-python, else that side is left out.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTITIONS = 4
AT_ONCE = 10_000
SIDES = {
    "aiokafka": "aiokafka: getmany, and five lists of its records",
    "columns": "this project: getmany after fetch_columns",
    "confluent": "confluent-kafka: consume, and five lists of its messages",
}
_GIVE_UP_SECONDS = 300


async def consume_with_aiokafka(bootstrap: str, topic: str, records: int, in_columns: bool) -> float:
    """Read all records, as objects or as columns; processor seconds."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from pipeline.fold.records import RecordBatch
    from streams.fetch import fetch_columns

    began = time.process_time()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=AT_ONCE,
    )
    if in_columns:
        fetch_columns(consumer)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
        seen = 0
        while seen < records:
            for tp, found in (await consumer.getmany(timeout_ms=1_000)).items():
                columns: tuple[Any, ...]
                if in_columns:
                    columns = (found.offsets, found.timestamps, found.keys, found.values, found.headers)
                else:
                    columns = (
                        [record.offset for record in found],
                        [record.timestamp for record in found],
                        [record.key for record in found],
                        [record.value for record in found],
                        [record.headers for record in found],
                    )
                batch = RecordBatch(tp.topic, tp.partition, columns[0][0], columns[0][-1] + 1, 0, *columns)
                seen += len(batch)
        return time.process_time() - began
    finally:
        await consumer.stop()


def consume_with_confluent(bootstrap: str, topic: str, records: int) -> float:
    """Read all records with librdkafka; processor seconds."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    began = time.process_time()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "check.crcs": True,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
        seen = 0
        while seen < records:
            # Messages of several partitions come mixed; to part them would cost more.
            found = consumer.consume(AT_ONCE, timeout=1.0)
            for message in found:
                if message.error():
                    raise SystemExit(str(message.error()))
            columns = (
                [message.offset() for message in found],
                [message.timestamp()[1] for message in found],
                [message.key() for message in found],
                [message.value() for message in found],
                [message.headers() or () for message in found],
            )
            seen += len(columns[0])
        return time.process_time() - began
    finally:
        consumer.close()


def consume(side: str, bootstrap: str, topic: str, records: int) -> None:
    """Run one side; print its processor seconds."""
    if side == "confluent":
        seconds = consume_with_confluent(bootstrap, topic, records)
    else:
        sys.path.insert(0, str(ROOT))
        import mode.loop

        mode.loop.use("uvloop")  # as a worker does
        seconds = asyncio.run(consume_with_aiokafka(bootstrap, topic, records, side == "columns"))
    print(json.dumps({"seconds": seconds}), flush=True)


@contextlib.contextmanager
def filled_topic(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """A broker and a topic on it with the records, which is deleted afterwards."""
    sys.path.insert(0, str(ROOT))
    from kafka import KafkaAdminClient, KafkaProducer
    from kafka.admin import NewTopic

    from tests.support import KafkaServer

    with contextlib.ExitStack() as stack:
        bootstrap = options.bootstrap or stack.enter_context(KafkaServer()).bootstrap
        topic = f"fetch-speed-{uuid.uuid4().hex[:8]}"
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        stack.callback(admin.close)
        admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
        stack.callback(admin.delete_topics, [topic])
        producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            linger_ms=50,
            batch_size=options.batch_bytes,
            compression_type=None if options.codec == "none" else options.codec,
        )
        for number in range(options.records):
            producer.send(topic, value=b"%0*d" % (options.size, number), partition=number % PARTITIONS)
        producer.flush()
        producer.close()
        yield bootstrap, topic


def left_out(confluent_python: str | None) -> str | None:
    """Why confluent-kafka cannot be measured, if so."""
    if confluent_python is None:
        return "no --confluent-python"
    command = [confluent_python, "-c", "import confluent_kafka; print(confluent_kafka.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return f"{confluent_python} cannot import confluent_kafka" if done.returncode else None


def seconds_of(side: str, python: str, bootstrap: str, topic: str, records: int) -> float:
    """Run one side in a process of its own; processor seconds per million records."""
    command = [python, __file__, "--consume", side, "--bootstrap", bootstrap, "--topic", topic]
    command += ["--records", str(records)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_GIVE_UP_SECONDS)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stdout}{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"]) / records * 1e6


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all sides in alternating rounds."""
    reason = left_out(options.confluent_python)
    sides = [side for side in SIDES if side != "confluent" or reason is None]
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with filled_topic(options) as (bootstrap, topic):
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                python = options.confluent_python if side == "confluent" else sys.executable
                seconds[side].append(seconds_of(side, python, bootstrap, topic, options.records))
            print(f"round {number + 1} of {options.rounds}: done", file=sys.stderr)
    return {
        "records": options.records,
        "bytes_per_record": options.size,
        "batch_bytes": options.batch_bytes,
        "codec": options.codec,
        "rounds": options.rounds,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "left_out": {} if reason is None else {"confluent": reason},
        "processor_seconds_per_million": {
            side: {"median": statistics.median(all_), "lowest": min(all_), "highest": max(all_)}
            for side, all_ in seconds.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000, help="records (default 500000)")
    parser.add_argument("--size", type=int, default=350, help="bytes of a record (default 350)")
    parser.add_argument(
        "--batch-bytes", type=int, default=16_384, help="bytes of a producer's batch (default 16384, as clients have)"
    )
    parser.add_argument("--codec", choices=["none", "gzip", "snappy", "lz4", "zstd"], default="none")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is taken (default 5)")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a broker to use (default: start one)")
    parser.add_argument("--confluent-python", metavar="PATH", help="interpreter that has confluent-kafka")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--consume", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.consume:
        consume(options.consume, options.bootstrap, options.topic, options.records)
        return 0
    content = compare(options)
    if options.json:
        print(json.dumps(content))
        return 0
    print(
        f"{content['records']:,} records of {content['bytes_per_record']} bytes in batches of"
        f" {content['batch_bytes']:,} bytes, codec {content['codec']}, {content['rounds']} rounds"
    )
    for side, figures in content["processor_seconds_per_million"].items():
        print(
            f"{SIDES[side]:58} {figures['median']:5.2f} s per million records"
            f"   (from {figures['lowest']:.2f} to {figures['highest']:.2f})"
        )
    for side, why in content["left_out"].items():
        print(f"{SIDES[side]}: left out, {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
