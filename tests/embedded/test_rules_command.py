"""``xidmet rules`` in the way of a worker, without Kafka, and with a broker that does not tell its members."""

import gc
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import cli
from pipeline.errors import BrokerError, StoreError
from pipeline.fold.rules import Rules
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.endpoint import remove_endpoint, write_endpoint
from pipeline.settings import ClickHouseSettings, FoldSettings, KafkaSettings
from streams.topics import group_members
from tests.support.ports import free_port
from tests.support.sink_suite.data import LOG, RULES, folded, migrated, rows, whole_segments, write

pytestmark = pytest.mark.embedded


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of whoever runs the tests, and logging as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("streams.topics.CONNECT_SECONDS", 0.5)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def store(tmp_path: Path) -> ClickHouseSettings:
    settings = ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}")
    with migrated(settings) as client:
        write(client, folded(whole_segments()))
    return settings


def run(store: ClickHouseSettings, *arguments: str) -> Result:
    """With a Kafka that is away."""
    flags = {
        "clickhouse.url": store.url,
        "kafka.bootstrap": f"127.0.0.1:{free_port()}",
        "kafka.events_topic": LOG.topic,
    }
    words = [part for key, value in flags.items() for part in ("--set", f"{key}={value}")]
    with warnings.catch_warnings():
        # kafka-python drops the sockets of refused connections without closing them.
        warnings.simplefilter("ignore", ResourceWarning)
        done = CliRunner().invoke(cli, [*words, "rules", *arguments])
        gc.collect()
    return done


def test_without_kafka_the_rules_of_the_topic_folded_last_are_shown(store: ClickHouseSettings) -> None:
    here = Rules.of(FoldSettings(), RULES.catalogue_version)
    done = run(store, "show", "--json")
    assert done.exit_code == 0, done.exception
    (shown,) = json.loads(done.stdout)["partitions"]
    assert shown["differences"] == [f"segment_records {RULES.segment_records}, here {here.segment_records}"]
    size = RULES.segment_records
    assert (shown["segment"], shown["next_offset"], shown["closed"]) == (size * 4, size * 9 // 2, False)
    assert shown["log_end"] is None
    lines = [line.split("\t") for line in run(store, "show").stdout.splitlines()]
    assert lines[0] == ["partition", "segment", "next_offset", "log_end", "state", "rules"]
    assert lines[1] == ["0", str(size * 4), str(size * 9 // 2), "\\N", "open", shown["differences"][0]]


def test_without_kafka_nothing_is_applied(store: ClickHouseSettings) -> None:
    with migrated(store) as client:
        before = rows(client, "SELECT * FROM receipts FINAL ORDER BY segment")
    done = run(store, "apply", "--yes")
    assert isinstance(done.exception, BrokerError)
    with migrated(store) as client:
        assert rows(client, "SELECT * FROM receipts FINAL ORDER BY segment") == before


def test_beside_a_worker_it_refuses(store: ClickHouseSettings) -> None:
    directory = store.url.removeprefix("chdb:")
    write_endpoint(directory, "http://127.0.0.1:9")
    done = run(store, "apply", "--dry-run")
    remove_endpoint(directory)
    assert isinstance(done.exception, StoreError)
    assert "has " + directory + " open; end it, apply the rules, and start it again" in str(done.exception)


def test_a_broker_that_does_not_tell_its_members_is_an_error_and_not_an_empty_group(tmp_path: Path) -> None:
    with (
        EmbeddedBroker(tmp_path / "broker.log") as broker,
        pytest.raises(BrokerError, match="does not tell who is in group"),
    ):
        group_members(KafkaSettings(bootstrap=broker.bootstrap, group="nobody"))
