"""Both servers for trying things out by hand: ``python -m tests.support``; Ctrl-C stops them."""

import argparse
import json
import signal
import sys
import threading
from contextlib import ExitStack

from tests.support.cache import ServerUnavailable
from tests.support.clickhouse_server import ClickHouseServer
from tests.support.clickhouse_server import fetch as fetch_clickhouse
from tests.support.kafka_server import KafkaServer
from tests.support.kafka_server import fetch as fetch_kafka

DATABASE = "xidmet"

_TEXT = """\
Kafka        {kafka}
ClickHouse   {clickhouse_native} (native), {clickhouse_http} (HTTP), user default, no password
Data, logs   {kafka_directory}
             {clickhouse_directory}

Use them in another shell:

  export XIDMET_KAFKA__BOOTSTRAP={kafka}
  export XIDMET_CLICKHOUSE__URL={clickhouse_url}
  xidmet migrate
  xidmet worker

Look into them:

  kcat -b {kafka} -L
  kcat -b {kafka} -C -t usage.events -o beginning -e
  curl {clickhouse_http} --data-binary 'SHOW TABLES FROM {database}'

Ctrl-C stops both and removes their data.
"""


def main() -> int:
    """Start, tell, wait, stop. Returns 0, or 1 if a server is unavailable or ended by itself."""
    parser = argparse.ArgumentParser(prog="python -m tests.support", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the addresses as one line of JSON")
    parser.add_argument("--fetch", action="store_true", help="only fetch what the servers need, then end")
    arguments = parser.parse_args()
    try:
        return _fetch() if arguments.fetch else _serve(as_json=arguments.json)
    except (ServerUnavailable, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1


def _fetch() -> int:
    missing = 0
    for name, fetch in (("Apache Kafka", fetch_kafka), ("ClickHouse", fetch_clickhouse)):
        try:
            print(f"{name}: {fetch()}", flush=True)
        except ServerUnavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            missing = 1
    return missing


def _serve(*, as_json: bool) -> int:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with ExitStack() as stack:
        print("Starting Apache Kafka and ClickHouse (the first time they are fetched) ...", file=sys.stderr)
        clickhouse = stack.enter_context(ClickHouseServer())
        kafka = stack.enter_context(KafkaServer())
        clickhouse.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        addresses = {
            "kafka": kafka.bootstrap,
            "clickhouse_native": f"127.0.0.1:{clickhouse.native_port}",
            "clickhouse_http": clickhouse.http_url,
            "clickhouse_url": clickhouse.database_url(DATABASE),
            "kafka_directory": str(kafka.directory),
            "clickhouse_directory": str(clickhouse.directory),
        }
        print(json.dumps(addresses) if as_json else _TEXT.format(database=DATABASE, **addresses), flush=True)
        while not ended.wait(0.5):
            for server in (clickhouse, kafka):
                if not server.running:
                    raise RuntimeError(f"{server.name} ended by itself:\n{server.log_tail()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
