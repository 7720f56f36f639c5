"""How columns reach ClickHouse: CPU of the client and of the server for the same rows of the ledger, on a real server.

Decision 0017 rests on it. Synthetic events of the demonstration's catalogue are inserted into an empty ledger in
blocks, each way once a round, without merges; all ways must leave the same rows:

driver  clickhouse-driver, which is given plain lists
whole   this project's client: the same connection, columns as a whole
lz4     whole, compressed by the client
native  the bytes of whole over HTTP, FORMAT Native
arrow   Arrow tables over HTTP, FORMAT ArrowStream
json    the events as JSON into a table of the engine Null, whose materialized view takes them apart

Then the three tables of a flush are filled by way of whole, with merges and without, as the project does
(optimize_on_insert = 0) and as ClickHouse does by itself (1): what the server spends by table. Client: all threads of
the benchmark while it inserts; making the columns does not count. Server: the process. Both in microseconds of CPU a
row of the ledger.
"""

import argparse
import io
import json
import os
import platform
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.rig.processes import cpu_seconds
from pipeline.contract.encoded import Encoded, Lists, Maps
from pipeline.contract.encoded import encoded as by_dictionary
from pipeline.fold.histogram import bucket_of
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import INSERT_SETTINGS, Column, connect
from sinks.clickhouse.columnar import ColumnarDriver
from sinks.clickhouse.native import encoded
from sinks.clickhouse.schema import migrate

START_MS: Final = 1_772_442_000_000  # 2026-03-02 09:00
EVENTS_A_SECOND: Final = 5_000
PARTITIONS: Final = 4
PATTERN: Final = 20_000
KEYS: Final = ("agency", "service", "channel", "outcome", "stage")
WORDS: Final = (*KEYS, "centre", "district", "hosting", "sign_in", "consumer", "initiator")
TYPES: Final = {
    "time_ms": "Int64",
    "event_hash": "UInt64",
    "duration_ms": "UInt32",
    "user_hash": "UInt64",
    "rating": "UInt8",
    "partition": "UInt32",
    "offset": "UInt64",
    "batch_index": "UInt32",
}
PLACE: Final = ("topic_id", "partition", "offset", "batch_index", "event_hash")
TOPIC: Final = "rHkPdNsHTLWBa4hSGqBk3A"
TABLES: Final = ("ledger", "coordinates", "minutes")

_DATA: Final = "".join(f"{name} String, " for name in WORDS)
_VIEW: Final = f"""
CREATE MATERIALIZED VIEW parsed TO ledger AS
WITH JSONExtract(value, 'Tuple(id String, source String, time String, data Tuple({_DATA}application String, user String,
    duration_ms UInt32, rating UInt8))') AS event, event.data AS data
SELECT {", ".join(f"data.{name} AS {name}" for name in (*WORDS, "application", "duration_ms", "rating"))},
    event.id AS event_id, parseDateTime64BestEffort(event.time, 3, 'UTC') AS time,
    xxh3(concat(event.source, char(0), event.id)) AS event_hash, if(data.user = '', 0, xxh3(data.user)) AS user_hash,
    topic_id, partition, offset, batch_index, bitNot(offset) AS version
FROM raw"""
_RAW: Final = """CREATE TABLE raw (value String, topic_id LowCardinality(String), partition UInt32, offset UInt64,
    batch_index UInt32) ENGINE = Null"""
_SUM: Final = f"""SELECT count(), sum(cityHash64(time, event_id, duration_ms, rating, application, topic_id, partition,
    offset, batch_index, {", ".join(WORDS)})) FROM ledger"""

Columns = dict[str, Any]


class Source:
    """Blocks of ledger columns: the generator's events, drawn again and again, with other identities and times."""

    def __init__(self, seed: int = 1) -> None:
        from pipeline.catalogue import demonstration_catalogue
        from pipeline.generator import Generator

        start = datetime.fromtimestamp(START_MS / 1000, UTC)
        events = Generator(demonstration_catalogue(), seed).events(start, start + timedelta(minutes=50), PATTERN)
        data = [event["data"] for event in events]
        self._random = np.random.default_rng(seed)
        self._made = 0
        self._words = {name: by_dictionary([item.get(name, "") for item in data]) for name in WORDS}
        self._durations = np.array([round(item.get("duration_ms", 0)) for item in data], dtype=np.int64)
        self._ratings = np.array([item.get("rating", 0) for item in data], dtype=np.int64)
        self._has_application = np.array(["application" in item for item in data])
        self._has_user = np.array(["user" in item for item in data])

    def block(self, rows: int) -> Columns:
        """The next rows, 100 events a message."""
        drawn = self._random.integers(0, len(self._durations), rows)
        number = np.arange(self._made, self._made + rows)
        self._made += rows
        users = self._random.integers(1, 120_000, rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        users[~self._has_user[drawn]] = 0
        digits = self._random.bytes(16 * rows).hex()
        ids = [digits[place : place + 32] for place in range(0, 32 * rows, 32)]
        return {
            "topic_id": Encoded([TOPIC], np.zeros(rows, dtype=np.int32)),
            **{name: words.take(drawn) for name, words in self._words.items()},
            "time_ms": START_MS + number * 1000 // EVENTS_A_SECOND,
            "partition": np.arange(rows) * PARTITIONS // rows,
            "offset": number // 100,
            "batch_index": number % 100,
            "event_hash": self._random.integers(0, 2**64, rows, dtype=np.uint64),
            "duration_ms": self._durations[drawn],
            "user_hash": users,
            "rating": self._ratings[drawn],
            "event_id": [f"{id_[:8]}-{id_[8:12]}-{id_[12:16]}-{id_[16:20]}-{id_[20:]}" for id_ in ids],
            "application": [
                f"app-{id_[:20]}" if there else ""
                for id_, there in zip(ids, self._has_application[drawn].tolist(), strict=True)
            ],
        }


def columns_of(table: str, block: Columns) -> list[Column]:
    """What a flush with these events inserts into one of the tables."""
    if table == "minutes":
        return _minutes(block)
    return [Column(name, TYPES.get(name, "String"), block[name]) for name in (block if table == "ledger" else PLACE)]


def _minutes(block: Columns) -> list[Column]:
    keys = np.stack([block["time_ms"] // 60_000 * 60, block["partition"], *(block[name].codes for name in KEYS)])
    groups, group = np.unique(keys, axis=1, return_inverse=True)
    group, count = group.ravel(), groups.shape[1]
    uses = block["stage"].codes == block["stage"].words.index("")
    space = 1 << 20
    cells, counts = np.unique(group[uses] * space + bucket_of(block["duration_ms"])[uses] + 1, return_counts=True)
    known = block["user_hash"] != 0
    users = np.unique(np.stack([group[known].astype(np.uint64), block["user_hash"][known]]), axis=1)

    def ends(owners: Any) -> Any:
        return np.cumsum(np.bincount(owners.astype(np.int64), minlength=count)).astype(np.uint64)

    sums = np.bincount(group, weights=block["duration_ms"], minlength=count).astype(np.int64)
    return [
        *(Column(name, "String", Encoded(block[name].words, groups[2 + i])) for i, name in enumerate(KEYS)),
        Column("minute", "UInt32", groups[0]),
        Column("topic_id", "String", Encoded([TOPIC], np.zeros(count, dtype=np.int32))),
        Column("partition", "UInt32", groups[1]),
        Column("segment", "UInt64", np.full(count, int(block["offset"][0]))),
        Column("next_offset", "UInt64", np.full(count, int(block["offset"][-1]) + 1)),
        Column("events", "UInt64", np.bincount(group, minlength=count)),
        Column("duration_ms_sum", "UInt64", sums),
        Column("histogram", "Map(Int16, UInt64)", Maps(cells % space - 1, counts, ends(cells // space))),
        Column("user_hashes", "Array(UInt64)", Lists(users[1], ends(users[0]))),
    ]


def events_of(block: Columns) -> list[bytes]:
    """The events as an agency sends them."""
    import msgspec

    names = (*WORDS, "application", "duration_ms", "rating")
    rows = zip(*(Column(name, "", block[name]).plain() for name in names), strict=True)
    times = np.array(block["time_ms"], dtype="datetime64[ms]").astype(str).tolist()
    return [
        msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": id_,
                "source": f"https://{row[0]}.example/e-services",
                "type": "xidmet.service.used.v1",
                "time": f"{moment}Z",
                "data": {name: value for name, value in zip(names, row, strict=True) if value not in ("", 0)}
                | ({"user": f"{user:043}"} if user else {}),
            }
        )
        for id_, moment, user, row in zip(block["event_id"], times, block["user_hash"].tolist(), rows, strict=True)
    ]


@dataclass(frozen=True)
class Way:
    """Gets a block ready, which does not count, and inserts it, which does."""

    ready: Callable[[Columns], Any]
    insert: Callable[[Any], None]


class Ways:
    """The ways into one database."""

    def __init__(self, server: Any, settings: ClickHouseSettings) -> None:
        self._client: Any = connect(settings)
        self._url = server.http_url
        self._database = settings.url.rpartition("/")[2]
        types = "SELECT name, type FROM system.columns WHERE table = 'ledger' AND database = currentDatabase()"
        self._types = dict(self._client.query(types).rows)
        self._native_port = server.native_port

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def get(self, name: str) -> Way:
        """One of the ways."""
        client = self._client
        if name == "driver":
            return Way(lambda block: [(c.name, c.plain()) for c in columns_of("ledger", block)], self._by_driver)
        if name == "lz4":
            client._driver = ColumnarDriver(
                "127.0.0.1", port=self._native_port, database=self._database, compression="lz4"
            )
        if name in ("whole", "lz4"):
            return Way(lambda block: columns_of("ledger", block), lambda columns: client.insert("ledger", columns))
        if name == "native":
            return Way(lambda block: columns_of("ledger", block), self._by_native)
        if name == "arrow":
            # What Arrow loads with the first array must not count.
            _as_arrow([Column("one", "UInt8", [1])])
            return Way(lambda block: columns_of("ledger", block), self._by_arrow)
        client.execute(_RAW)
        client.execute(_VIEW)
        return Way(self._ready_json, lambda columns: client.insert("raw", columns))

    def _by_driver(self, columns: list[tuple[str, list[Any]]]) -> None:
        names = ", ".join(name for name, _ in columns)
        lists = [list(values) for _, values in columns]
        self._client._driver.execute(
            f"INSERT INTO ledger ({names}) VALUES", lists, columnar=True, settings=INSERT_SETTINGS
        )

    def _ready_json(self, block: Columns) -> list[Column]:
        places = [Column(name, TYPES.get(name, "String"), block[name]) for name in PLACE[:-1]]
        return [Column("value", "String", [value.decode() for value in events_of(block)]), *places]

    def _by_native(self, columns: list[Column]) -> None:
        body = io.BytesIO()
        body.write(_varint(len(columns)) + _varint(len(columns[0].values)))
        for column in columns:
            type_ = self._types[column.name]
            content = encoded(type_, column.values)
            assert content is not None
            for text in (column.name, type_):
                body.write(_varint(len(text)) + text.encode())
            body.write(content)
        self._post("Native", columns, body.getvalue())

    def _by_arrow(self, columns: list[Column]) -> None:
        self._post("ArrowStream", columns, _as_arrow(columns))

    def _post(self, format_: str, columns: Sequence[Column], body: bytes) -> None:
        names = ", ".join(column.name for column in columns)
        query = {"database": self._database, "query": f"INSERT INTO ledger ({names}) FORMAT {format_}"}
        settings = {name: str(value) for name, value in INSERT_SETTINGS.items()}
        address = f"{self._url}/?{urllib.parse.urlencode({**query, **settings})}"
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=120) as answer:
            answer.read()


def _as_arrow(columns: Sequence[Column]) -> bytes:
    import pyarrow

    from sinks.clickhouse.embedded import _arrow

    table = pyarrow.table({column.name: _arrow(pyarrow, column) for column in columns})
    body = io.BytesIO()
    with pyarrow.ipc.new_stream(body, table.schema) as stream:
        stream.write_table(table)
    return body.getvalue()


def _varint(number: int) -> bytes:
    made = bytearray()
    while number >= 128:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


WAYS: Final = ("driver", "whole", "lz4", "native", "arrow", "json")


class Bench:
    """A server, databases in it one after the other, and the CPU that it takes."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._number = 0

    def cpu(self) -> float:
        """Seconds of CPU of the server's process so far, user and system."""
        return cpu_seconds(self._server.pid)

    @contextmanager
    def database(self, merges: bool) -> Iterator[ClickHouseSettings]:
        """A new database with the schema, and whether the server merges."""
        self._number += 1
        name = f"insert_speed_{self._number}"
        settings = ClickHouseSettings(url=self._server.database_url(name))
        self._server.execute(f"CREATE DATABASE {name}")
        self._server.execute("SYSTEM START MERGES" if merges else "SYSTEM STOP MERGES")
        try:
            migrate(settings)
            yield settings
        finally:
            self._server.execute(f"DROP DATABASE {name} SYNC")

    def wait_for_merges(self, quiet: float = 1.0, limit: float = 120.0) -> None:
        """Return when nothing was merged for a while."""
        began = idle_since = time.monotonic()
        while time.monotonic() - idle_since < quiet:
            if time.monotonic() - began > limit:
                raise TimeoutError(f"the server still merges after {limit:.0f} s")
            if self._server.execute("SELECT count() FROM system.merges") != [(0,)]:
                idle_since = time.monotonic()
            time.sleep(0.1)

    def way(self, name: str, blocks: Sequence[Columns]) -> tuple[float, float, Any]:
        """Seconds of CPU of client and server for all blocks, and the sum over what is there then."""
        client = server = 0.0
        with self.database(merges=False) as settings, closing(Ways(self._server, settings)) as ways:
            way = ways.get(name)
            for block in blocks:
                content = way.ready(block)
                client_before, server_before = time.process_time(), self.cpu()
                way.insert(content)
                client, server = client + time.process_time() - client_before, server + self.cpu() - server_before
            with closing(connect(settings)) as reader:
                return client, server, reader.query(_SUM).one()

    def table(self, table: str, blocks: Sequence[list[Column]], optimize: int, merges: bool) -> tuple[float, float]:
        """Seconds of CPU of client and server for one table."""
        with self.database(merges) as settings, closing(connect(settings)) as client:
            driver: Any = client
            client_before, server_before = time.process_time(), self.cpu()
            for columns in blocks:
                names = ", ".join(column.name for column in columns)
                driver._driver.insert_columns(
                    f"INSERT INTO {table} ({names}) VALUES",
                    columns,
                    {**INSERT_SETTINGS, "optimize_on_insert": optimize},
                )
            spent = time.process_time() - client_before
            if merges:
                self.wait_for_merges()
            return spent, self.cpu() - server_before


def measure(rows: int, block: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Microseconds of CPU a row of the ledger: a list of the rounds for each figure."""
    from tests.support import ClickHouseServer

    source = Source()
    blocks = [source.block(block) for _ in range(max(1, rows // block))]
    total = block * len(blocks)
    figures: dict[str, list[float]] = {}

    def note(what: str, seconds: float) -> None:
        figures.setdefault(what, []).append(seconds / total * 1e6)

    by_table = {table: [columns_of(table, item) for item in blocks] for table in TABLES}
    with ClickHouseServer() as server:
        bench = Bench(server)
        sums: dict[str, Any] = {}
        for number in range(rounds):
            for name in WAYS:
                say(f"round {number + 1}: {name}")
                client, cpu, sums[name] = bench.way(name, blocks)
                note(f"{name} client", client)
                note(f"{name} server", cpu)
            if len(set(sums.values())) != 1 or sums["whole"][0] != total:
                raise ValueError(f"the ways leave different rows: {sums}")
            for table, columns in by_table.items():
                for optimize in (0, 1):
                    say(f"round {number + 1}: {table}, optimize_on_insert = {optimize}")
                    client, inserts = bench.table(table, columns, optimize, merges=False)
                    _, with_merges = bench.table(table, columns, optimize, merges=True)
                    note(f"{table} {optimize} client", client)
                    note(f"{table} {optimize} inserts", inserts)
                    note(f"{table} {optimize} with merges", with_merges)
    return {
        "rows": total,
        "block": block,
        "rounds": rounds,
        "minute_rows": sum(len(columns[0].values) for columns in by_table["minutes"]),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "median": {what: median(values) for what, values in figures.items()},
        "lowest": {what: min(values) for what, values in figures.items()},
        "highest": {what: max(values) for what, values in figures.items()},
    }


def show(content: Mapping[str, Any]) -> None:
    """Print the tables for people."""

    def figure(what: str) -> str:
        middle, low, high = (content[kind][what] for kind in ("median", "lowest", "highest"))
        return f"{middle:6.2f} ({low:.2f} to {high:.2f})"

    print(
        f"{content['rows']:,} rows of the ledger with {content['minute_rows']:,} of minutes, blocks of"
        f" {content['block']:,}, {content['rounds']} rounds: microseconds of CPU a row of the ledger, medians (range)"
    )
    print(f"{'way into the ledger':32} {'client':24} {'server, without merges':24}")
    for name in WAYS:
        print(f"{name:32} {figure(f'{name} client'):24} {figure(f'{name} server'):24}")
    print(f"\n{'table, optimize_on_insert':32} {'client':24} {'server, without merges':24} with merges")
    for table in TABLES:
        for optimize in (0, 1):
            name = f"{table} {optimize}"
            figures = [figure(f"{name} {what}") for what in ("client", "inserts", "with merges")]
            print(f"{name:32} {figures[0]:24} {figures[1]:24} {figures[2]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000, help="rows of the ledger (default 500000)")
    parser.add_argument("--block", type=int, default=100_000, help="rows an insert (default 100000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is taken (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    options = parser.parse_args(arguments)
    if options.rows < options.block or options.block < 100 or options.rounds < 1:
        parser.error("at least one round, blocks of 100 and rows for one block")
    content = measure(options.rows, options.block, options.rounds, lambda words: print(words, file=sys.stderr))
    if options.json:
        print(json.dumps(content))
    else:
        show(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
