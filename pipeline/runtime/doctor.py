"""Check that everything a worker needs is there; each finding with its cure."""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from pipeline.catalogue import load_catalogue
from pipeline.errors import XidmetError
from pipeline.runtime.endpoint import open_client
from pipeline.settings import Settings, redacted_url
from sinks.clickhouse.client import parse_url
from sinks.clickhouse.schema import require_schema
from streams.topics import partitions_of

MAX_CLOCK_SKEW_SECONDS = 5.0
MIN_FREE_BYTES = 1 << 30
MIN_CLICKHOUSE = (24, 8)


class Check(Struct, frozen=True):
    """One thing looked at: whether it is well, and what was seen, or what is wrong and how to mend it."""

    name: str
    ok: bool
    words: str


def examine(settings: Settings) -> list[Check]:
    """Run all checks; none of them changes anything."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("catalogue", lambda: _catalogue(settings)),
        ("kafka", lambda: _topic(settings, settings.kafka.events_topic)),
        ("dead letters", lambda: _topic(settings, settings.kafka.rejected_topic)),
        ("catalogue changes", lambda: _topic(settings, settings.kafka.catalogue_topic)),
        ("figures", lambda: _topic(settings, settings.kafka.figures_topic)),
        ("clickhouse", lambda: _clickhouse(settings)),
        ("schema", lambda: _schema(settings)),
        ("clock", lambda: _clock(settings)),
        ("disk", lambda: _disk(settings)),
    ]
    found = []
    for name, look in checks:
        try:
            found.append(Check(name, True, look()))
        except XidmetError as error:
            found.append(Check(name, False, str(error)))
    return found


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _catalogue(settings: Settings) -> str:
    catalogue = load_catalogue(settings.catalogue_path)
    return f"version {catalogue.version}, {len(catalogue.agencies)} agencies, {len(catalogue.pairs)} services"


def _topic(settings: Settings, topic: str) -> str:
    partitions = partitions_of(settings.kafka, topic)
    if not partitions:
        raise XidmetError(f"topic {topic} is missing at {settings.kafka.bootstrap}; run xidmet migrate")
    return f"{topic} at {settings.kafka.bootstrap}, {partitions} partitions"


def _clickhouse(settings: Settings) -> str:
    with closing(open_client(settings.clickhouse)) as client:
        ((version,),) = client.query("SELECT version()").rows
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_CLICKHOUSE:
        oldest = ".".join(map(str, MIN_CLICKHOUSE))
        raise XidmetError(f"ClickHouse is {version}; this program is made for {oldest} or newer: upgrade it")
    return f"{version} at {redacted_url(settings.clickhouse.url)}"


def _schema(settings: Settings) -> str:
    with closing(open_client(settings.clickhouse)) as client:
        require_schema(client, settings.clickhouse)
    return "as this version needs it"


def _clock(settings: Settings) -> str:
    with closing(open_client(settings.clickhouse)) as client:
        before = time.time()
        ((there,),) = client.query("SELECT toUnixTimestamp64Milli(now64(3)) / 1000").rows
        skew = abs(float(there) - (before + time.time()) / 2)
    if skew > MAX_CLOCK_SKEW_SECONDS:
        raise XidmetError(f"the clocks here and at ClickHouse differ by {skew:.1f} s; run NTP on both")
    return f"{skew * 1000:.0f} ms from ClickHouse's"


def _disk(settings: Settings) -> str:
    directory = parse_url(settings.clickhouse.url).directory
    if not directory:
        return "ClickHouse is a server; watch its disk there"
    path = Path(directory).absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < MIN_FREE_BYTES:
        raise XidmetError(f"{path} has {free >> 20} MiB free; make room for at least {MIN_FREE_BYTES >> 20} MiB")
    return f"{free >> 30} GiB free at {path}"
