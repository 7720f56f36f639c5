"""Events to send: those of the comparison, and probes that can be told apart; a topic full of them.

A probe is a use of a service that no other event here is of, and its channel says which partition it was sent to. A
partition is read in its order, so that the k-th probe of a partition is there when its channel counts k.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from benchmarks.compare.load import Load

PROBE_AGENCY: Final = "org-45"
PROBE_SERVICE: Final = "service-45-04"
PROBE_CHANNELS: Final = ("web", "mobile", "centre", "kiosk")
PARTITIONS: Final = len(PROBE_CHANNELS)

_PROBE_KEY: Final = f"{PROBE_AGENCY}/{PROBE_SERVICE}".encode()
_BATCH_BYTES: Final = 400_000
_AHEAD: Final = 16


def timed(rate: float, seconds: float, until_ms: int) -> list[bytes]:
    """Events at a rate, the last one of ``until_ms``; none of the probes' service."""
    load = Load(int(rate * seconds), until_ms, events_per_second=int(rate))
    return [
        value
        for block in load.blocks()
        for value, key in zip(block.values, block.keys, strict=True)
        if key != _PROBE_KEY
    ]


def probe(partition: int, number: int) -> bytes:
    """The ``number``-th probe of all, for a partition, of now."""
    moment = time.time_ns() // 1_000_000
    event = {
        "specversion": "1.0",
        "id": f"probe-{number:09}",
        "source": f"urn:{PROBE_AGENCY}:portal",
        "type": "xidmet.service.used.v1",
        "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment // 1000))}.{moment % 1000:03}Z",
        "data": {
            "agency": PROBE_AGENCY,
            "service": PROBE_SERVICE,
            "channel": PROBE_CHANNELS[partition],
            "outcome": "success",
            "duration_ms": 120,
        },
    }
    return json.dumps(event, separators=(",", ":")).encode()


def of_months(values: Sequence[bytes], months: int) -> list[bytes]:
    """The same events, spread over the last full ``months`` and over their days: an import of old events."""
    year, month = map(int, time.strftime("%Y %m", time.gmtime()).split())
    firsts = [divmod(year * 12 + month - 2 - back, 12) for back in range(months)]
    moved = []
    for number, value in enumerate(values):
        of_year, of_month = firsts[number % months]
        at = value.index(b'"time":"') + 8
        moved.append(b"%s%04d-%02d-%02d%s" % (value[:at], of_year, of_month + 1, 1 + number % 28, value[at + 10 :]))
    return moved


def fill(bootstrap: str, topic: str, blocks: Iterable[Sequence[bytes]]) -> float:
    """Write events, one a message, compressed with lz4, and wait until the broker has them; the seconds it took.

    Through aiokafka's own record batches, which takes a tenth of the time of a producer that is given messages.
    """
    began = time.monotonic()
    asyncio.run(_fill(bootstrap, topic, blocks))
    return time.monotonic() - began


async def _fill(bootstrap: str, topic: str, blocks: Iterable[Sequence[bytes]]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type="lz4",
        max_batch_size=_BATCH_BYTES,
        max_request_size=4 * _BATCH_BYTES,
        request_timeout_ms=120_000,
    )
    await producer.start()
    try:
        under_way: list[Any] = []
        for values in blocks:
            now_ms = time.time_ns() // 1_000_000
            for partition in range(PARTITIONS):
                batch = producer.create_batch()
                for value in values[partition::PARTITIONS]:
                    if batch.append(key=None, value=value, timestamp=now_ms) is None:
                        under_way.append(await producer.send_batch(batch, topic, partition=partition))
                        batch = producer.create_batch()
                        batch.append(key=None, value=value, timestamp=now_ms)
                under_way.append(await producer.send_batch(batch, topic, partition=partition))
            while len(under_way) > _AHEAD:
                await under_way.pop(0)
        for sent in under_way:
            await sent
    finally:
        await producer.stop()
