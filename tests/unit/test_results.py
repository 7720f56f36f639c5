"""The sink of the ingest, with ClickHouse and Kafka left out."""

from collections.abc import Sequence

import pytest

from pipeline.catalogue import demonstration_catalogue
from pipeline.contract.reasons import Reason
from pipeline.errors import BrokerError, StoreError
from pipeline.fold.flush import Flush, Reject
from pipeline.fold.records import LogPartition
from pipeline.runtime import results
from pipeline.runtime.results import Results
from pipeline.settings import Settings

LOG = LogPartition("usage.events", "id", 0)


def flush_of(*offsets: int) -> Flush:
    return Flush(rejects=[Reject(LOG, offset, 0, 0, Reason.NOT_JSON, "no", None, (), b"x") for offset in offsets])


class Letters:
    """Takes letters; fails as often as it is told."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.failures = 0

    def send(self, rejects: Sequence[Reject]) -> None:
        if self.failures:
            self.failures -= 1
            raise BrokerError("away")
        self.sent += [reject.offset for reject in rejects]


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def sink(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> Results:
    made = Results(Settings(), demonstration_catalogue())
    monkeypatch.setattr(made, "_dead_letters", letters)
    monkeypatch.setattr(made, "_connected", object())
    monkeypatch.setattr(results, "write_openings", lambda client, flush: None)
    return made


def test_letters_are_not_sent_again_while_clickhouse_refuses_the_rows(
    sink: Results, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Flush] = []
    refusals = iter([True, True, False, False])

    def write_results(client: object, flush: Flush) -> None:
        if next(refusals):
            raise StoreError("too many parts")
        written.append(flush)

    monkeypatch.setattr(results, "write_results", write_results)
    first, second = flush_of(1, 2), flush_of(3)
    for _ in range(2):
        with pytest.raises(StoreError):
            sink.write(first)
    sink.write(first)
    sink.write(second)
    assert letters.sent == [1, 2, 3]
    assert written == [first, second]


def test_letters_that_were_not_acknowledged_are_sent_again(
    sink: Results, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "write_results", lambda client, flush: None)
    letters.failures = 1
    flush = flush_of(1, 2)
    with pytest.raises(BrokerError):
        sink.write(flush)
    assert letters.sent == []
    sink.write(flush)
    assert letters.sent == [1, 2]
