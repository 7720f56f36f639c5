"""What the log and the machine may do to a worker: poison, clocks that jump, a disk that is full."""

import glob
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kafka import KafkaProducer

from tests.faults import oracle
from tests.faults.log import read_log
from tests.faults.plans import CRASH_POINTS, FIVE_POINTS, Plan
from tests.faults.poison import LARGEST_BYTES, poison
from tests.faults.run import Worker
from tests.faults.scenario import Row, Scenario, Skipped
from tests.support.waiting import wait_until

_FAKETIME: Final = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1")
_DISK: Final = "size=700m"


def poisoned(row: Row) -> None:
    """Messages invalid in every way, in the middle of good ones; the worker is killed, and its successor meets them
    again."""
    victim = row.begin(row.plan("kill"))
    row.send(0.3)
    kafka = row.run.settings.kafka
    turns = 2 if row.events >= 100_000 else 1
    messages = [message for turn in range(turns) for message in poison(f"{kafka.group}-{turn}")]
    row.rng.shuffle(messages)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=LARGEST_BYTES + 1_000_000)
    good = row.load.producer()
    try:
        for message in messages:
            row.load.send_with(good, max(1, round(row.events * 0.4 / len(messages))))
            producer.send(
                kafka.events_topic,
                message.value,
                key=message.key,
                headers=list(message.headers),
                timestamp_ms=message.timestamp_ms,
                partition=row.rng.randrange(kafka.partitions),
            )
        producer.flush(timeout=120)
        good.flush(timeout=120)
    finally:
        producer.close()
        good.close()
    victim.wait_reached()
    row.run.start()
    row.fault_ended()
    row.send(0.3)
    row.expected_events = oracle.count(read_log(kafka.bootstrap, kafka.events_topic)).events


def clock_jumps(row: Row) -> None:
    """The worker's clock jumps days ahead and back between flushes; it is killed at the crash point."""
    jumps = tuple(row.rng.choice((-86_400.0 * 400, -3_600.0, -5.0, 7.0, 3_600.0, 86_400.0 * 400)) for _ in range(50))
    plan = row.plan("kill")
    victim = row.begin(Plan(point=plan.point, nth=plan.nth + 2, action="kill", clock_jumps=jumps))
    row.send(0.6)
    row.run.start(Plan(clock_jumps=jumps[::-1]))
    victim.wait_reached()
    row.fault_ended()
    row.send(0.4)


def clock_of_the_process_jumps(row: Row) -> None:
    """As before, for all that the process asks the system for the time: libfaketime."""
    library = next((path for pattern in _FAKETIME for path in glob.glob(pattern)), "")
    if not library:
        raise Skipped("libfaketime is not installed (Debian: libfaketime)")
    clock = row.run.directory / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    victim = row.run.start(row.plan("kill"), environment)
    row.wait_assigned(victim)
    parts = 8
    for part in range(parts):
        row.send(1 / parts)
        if part == 4:
            victim.wait_reached()
            row.run.start(environment=environment)
            row.fault_ended()
        clock.write_text(row.rng.choice(("+400d", "-400d", "-1h", "+1h", "-3s", "+0")))


def disk_full(row: Row) -> None:
    """ClickHouse in the worker's process on a disk that fills up at the crash point, and has room again later."""
    directory = row.run.directory / "disk"
    with _small_disk(directory):
        row.run.flags["clickhouse.url"] = f"chdb:{directory}/clickhouse"
        row.run.run("migrate")
        worker = row.begin(row.plan("hold"))
        row.send(0.4)
        worker.wait_reached()
        ballast = directory / "ballast"
        _fill(ballast)
        worker.release()
        row.send(0.3)
        wait_until(lambda: not _ready(worker), 60, "the worker to say that it is not ready", every=0.2)
        words = _last_error(worker)
        if not any(word in words for word in ("space", "NOT_ENOUGH_SPACE", "reserve")):
            row.notes.append(f"the worker does not say that the disk is full: {words!r}")
        if not worker.alive:
            row.notes.append(f"the worker ended with {worker.process.returncode} on a full disk")
        ballast.unlink()
        row.fault_ended()
        row.send(0.3)
        row.wait_durable()
        worker.signal(signal.SIGTERM)
        worker.wait_ended()
        row.settle()
        row.difference = row.compare()


def _ready(worker: Worker) -> bool:
    from pipeline.runtime.demo import fetch_json

    try:
        return bool(fetch_json(worker.url + "/readyz")["ready"])
    except OSError:
        return False


def _last_error(worker: Worker) -> str:
    from pipeline.runtime.demo import fetch_json

    return str(fetch_json(worker.url + "/api/status")["last_error"])


@contextmanager
def _small_disk(directory: Path) -> Iterator[None]:
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", _DISK, "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Skipped(f"no small disk can be mounted here (needs root): {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)


def _fill(path: Path) -> None:
    """Take all the room that there is."""
    block = b"\0" * 65_536
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            return


SCENARIOS = (
    Scenario("poison of every kind", poisoned, CRASH_POINTS, quick=("before_dead_letters",)),
    Scenario("the worker's clock jumps", clock_jumps, CRASH_POINTS),
    Scenario("the process's clock jumps", clock_of_the_process_jumps, FIVE_POINTS),
    Scenario("disk full under the embedded ClickHouse", disk_full, FIVE_POINTS, quick=("before_minutes",)),
)
