"""What mutated messages leave behind is written to ClickHouse, and adds up there."""

from pathlib import Path

import pytest

pytest.importorskip("chdb")

from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import RecordBatch
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.catalogues import store_catalogue
from sinks.clickhouse.client import connect
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import write_openings, write_results
from tests.support.fuzzing import Fuzzer
from tests.unit.test_fuzz import CATALOGUE, LOG, RULES, events_of

pytestmark = pytest.mark.embedded


def test_what_is_left_of_mutated_messages_is_written_and_adds_up(tmp_path: Path, fuzz_seed: int) -> None:
    settings = ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}")
    migrate(settings)
    client = connect(settings)
    fold = PartitionFold(LOG, 0, {}, RULES, {CATALOGUE.version: CATALOGUE}, Memory((), RULES.memory_segments))
    fuzzer = Fuzzer(fuzz_seed)
    total = 0
    try:
        store_catalogue(client, CATALOGUE)
        for number in range(10):
            messages = fuzzer.chunk(number, 500)
            start, stop = fold.next_offset, fold.next_offset + 500
            values = [message.value for message in messages]
            headers = [message.headers for message in messages]
            total += sum(events_of(values, headers))
            fold.add(
                RecordBatch(
                    *(LOG.topic, LOG.partition, start, stop, stop, range(start, stop)),
                    [message.timestamp for message in messages],
                    [None] * 500,
                    values,
                    headers,  # type: ignore[arg-type] # Kafka allows headers without a value
                )
            )
            flush = fold.take()
            write_openings(client, flush)
            write_results(client, flush)
        ((events, parts, records),) = client.query(
            "SELECT sum(events), sum(accepted + duplicates + arraySum(mapValues(rejected))), sum(records) FROM segments"
        ).rows
        assert (events, parts, records) == (total, total, 5_000), f"seed {fuzz_seed}"
        ((accepted,),) = client.query("SELECT sum(accepted) FROM segments").rows
        assert client.query("SELECT count() FROM coordinates FINAL").rows == [(accepted,)]
    finally:
        client.close()
