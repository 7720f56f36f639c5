"""Columns of a fetch against what aiokafka's own classes make of the same bytes, call by call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.fetch import ColumnRecords, ColumnResult, FetchedColumns, fetch_columns
from streams.forgiving import ForgivingRecords
from tests.support.log_bytes import ABORT, COMMIT, Row, batch, marker, old_batch, sealed

TP0 = TopicPartition("usage.events", 0)
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4


@dataclass
class State:
    """The consumer's state of a partition, as aiokafka keeps it."""

    position: int
    paused: bool = False

    def consumed_to(self, position: int) -> None:
        self.position = position


@dataclass
class Fetch:
    """The same answer of a broker, once to aiokafka's classes and once to ours."""

    data: bytes
    offset: int = 0
    aborted: list[tuple[int, int]] = field(default_factory=list)
    isolation: int = fetcher.READ_COMMITTED
    check: bool = True
    records: Any = _MemoryRecordsPy
    """What aiokafka's side reads the bytes with. Its twin in C takes all batches for the format of the first."""

    def of_aiokafka(self) -> tuple[Any, State]:
        return self._result(fetcher.FetchResult, fetcher.PartitionRecords, self.records)

    def of_ours(self) -> tuple[Any, State]:
        return self._result(ColumnResult, ColumnRecords, ForgivingRecords)

    def _result(self, result: Any, records: Any, memory: Any) -> tuple[Any, State]:
        state = State(self.offset)
        assignment = SimpleNamespace(active=True, state_value=lambda tp: state)
        made = records(TP0, memory(self.data), list(self.aborted), self.offset, None, None, self.check, self.isolation)
        return result(TP0, assignment=assignment, partition_records=made, backoff=0.0), state


def columns_of(found: Any) -> tuple[list[Any], ...]:
    """Records of either side as columns."""
    if isinstance(found, FetchedColumns):
        return found.offsets, found.timestamps, found.keys, found.values, found.headers
    return (
        [record.offset for record in found],
        [-1 if record.timestamp is None else record.timestamp for record in found],
        [record.key for record in found],
        [record.value for record in found],
        [record.headers for record in found],
    )


def answer(call: Callable[[], Any]) -> Any:
    """The columns, or the error."""
    try:
        return columns_of(call())
    except Exception as error:  # aiokafka raises this and that for bytes that are no records
        return type(error), str(error)


def compare(fetch: Fetch, limits: list[int | None]) -> list[Any]:
    """Poll both sides until nothing is left; every answer and position must be the same. Returns the answers."""
    theirs, their_state = fetch.of_aiokafka()
    ours, our_state = fetch.of_ours()
    answers: list[Any] = []
    for poll in range(10_000):
        if not theirs.has_more():
            assert not ours.has_more()
            return answers
        limit = limits[poll % len(limits)]
        expected, found = answer(lambda: theirs.getall(limit)), answer(lambda: ours.getall(limit))  # noqa: B023
        assert found == expected
        assert our_state == their_state
        answers.append(found)
    raise AssertionError("a fetch never ends")


def rows(count: int, *, first: int = 0, step: int = 1) -> list[Row]:
    return [(first + n * step, 1_000 + n, b"key", b"value %d" % n, []) for n in range(count)]


contents = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(max_size=5), contents), max_size=3)


@st.composite
def rows_with_holes(draw: st.DrawFn) -> list[Row]:
    """Records of which compaction may have taken some."""
    deltas = sorted(draw(st.sets(st.integers(0, 30), min_size=1, max_size=20)))
    plain = draw(st.booleans())
    # The first delta of aiokafka's builder must be 0.
    return [
        (
            delta,
            draw(st.integers(-1, 1 << 41)),
            None if plain else draw(contents),
            draw(contents),
            [] if plain else draw(headers),
        )
        for delta in ([0, *deltas] if deltas[0] else deltas)
    ]


@st.composite
def fetches(draw: st.DrawFn) -> Fetch:
    """A log of batches of all kinds, with transactions that end one way or the other or stay open."""
    parts: list[bytes] = []
    aborted: list[tuple[int, int]] = []
    open_since: dict[int, int] = {}
    base = draw(st.sampled_from([0, 7, 1 << 40]))
    start = base
    kinds = ["plain", "plain", "transactional", "transactional", "end", "old", "empty", "append time"]
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=8)):
        base += draw(st.sampled_from([0, 0, 3]))
        made = draw(rows_with_holes())
        tail = made[-1][0] + draw(st.sampled_from([0, 0, 2]))
        codec = draw(st.sampled_from([0, 0, GZIP, SNAPPY, LZ4, ZSTD]))
        producer = draw(st.integers(1, 2))
        if kind == "transactional":
            open_since.setdefault(producer, base)
            parts.append(batch(base, made, codec=codec, producer=producer, transactional=True, last_delta=tail))
        elif kind == "end":
            how = draw(st.sampled_from([ABORT, COMMIT]))
            tail = 0
            parts.append(marker(base, producer, how))
            since = open_since.pop(producer, None)
            if how == ABORT and since is not None:
                aborted.append((producer, since))
        elif kind == "old":
            magic = draw(st.sampled_from([0, 1]))
            old = [row for n, row in enumerate(made) if row[0] == n] if magic else made
            tail = old[-1][0]
            wrong = codec == ZSTD or (codec == LZ4 and magic == 0)  # these formats came before them
            parts.append(old_batch(base, old, magic=magic, codec=0 if wrong else codec))
        elif kind == "empty":
            parts.append(batch(base, [], last_delta=tail))
        else:
            stamp = draw(st.integers(0, 1 << 41)) if kind == "append time" else None
            parts.append(batch(base, made, codec=codec, append_time=stamp, last_delta=tail))
        base += tail + 1
    data = b"".join(parts)
    if draw(st.booleans()):
        # A fetch ends in the middle of a batch if it is full.
        data = data[: draw(st.integers(0, len(data)))]
    return Fetch(
        data,
        offset=draw(st.integers(start, base)),
        aborted=draw(st.permutations(aborted)),
        isolation=draw(st.sampled_from([fetcher.READ_COMMITTED, fetcher.READ_COMMITTED, fetcher.READ_UNCOMMITTED])),
        check=draw(st.booleans()),
    )


limits = st.lists(st.none() | st.integers(1, 30), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(fetches(), limits)
def test_columns_are_what_aiokafka_gives(fetch: Fetch, limits: list[int | None]) -> None:
    compare(fetch, limits)


@settings(max_examples=100, deadline=None)
@given(fetches(), limits, st.data())
def test_a_spoiled_byte_is_found_at_the_same_place(fetch: Fetch, limits: list[int | None], data: st.DataObject) -> None:
    spoiled = bytearray(fetch.data)
    if spoiled:
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= data.draw(st.integers(1, 255))
    compare(Fetch(bytes(spoiled), fetch.offset, fetch.aborted, fetch.isolation), limits)


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
@pytest.mark.parametrize("limit", [None, 1, 7, 10, 100])
def test_every_codec_is_read_from_any_position_in_any_portions(codec: int, limit: int | None) -> None:
    for offset in range(30):
        # A broker's answer begins with the batch that holds the offset.
        data = b"".join(batch(base, rows(10), codec=codec) for base in range(offset // 10 * 10, 30, 10))
        answers = compare(Fetch(data, offset), [limit])
        assert [found for offsets, *_ in answers for found in offsets] == list(range(offset, 30))


def test_only_what_was_committed_is_read_and_the_position_passes_over_the_rest() -> None:
    def part(base: int, producer: int) -> bytes:
        return batch(base, rows(2), producer=producer, transactional=True)

    data = (
        part(0, 1) + part(2, 2) + batch(4, rows(1)) + marker(5, 1, ABORT) + part(6, 1) + marker(8, 2, COMMIT)
        + marker(9, 1, COMMIT) + part(10, 2) + marker(12, 2, ABORT)
    )  # fmt: skip
    fetch = Fetch(data, aborted=[(2, 10), (1, 0)])
    answers = compare(fetch, [2])
    assert [found for offsets, *_ in answers for found in offsets] == [2, 3, 4, 6, 7]
    ours, state = fetch.of_ours()
    assert ours.getall(100).offsets == [2, 3, 4, 6, 7]
    assert state.position == 13
    ours, state = Fetch(data, isolation=fetcher.READ_UNCOMMITTED, aborted=[]).of_ours()
    assert ours.getall(100).offsets == [0, 1, 2, 3, 4, 6, 7, 10, 11]


def test_a_producer_that_aborts_twice_in_a_row_leaves_nothing() -> None:
    data = b""
    for base in (0, 3):
        data += batch(base, rows(2), producer=1, transactional=True) + marker(base + 2, 1, ABORT)
    ours, state = Fetch(data + batch(6, rows(1)), aborted=[(1, 0), (1, 3)]).of_ours()
    assert ours.getall(10).offsets == [6]
    assert state.position == 7


def test_the_position_passes_over_what_compaction_took_from_the_end() -> None:
    data = batch(0, rows(2, step=3), last_delta=9) + batch(10, [], last_delta=4) + batch(15, rows(1))
    answers = compare(Fetch(data), [2, 5])
    assert [offsets for offsets, *_ in answers] == [[0, 3], [15]]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("limit", [None, 3, 4, 5])
def test_a_wrong_checksum_is_an_error_once_its_batch_is_reached(place: int, limit: int | None) -> None:
    parts = [bytearray(batch(base, rows(4))) for base in (0, 4, 8)]
    parts[place][-3] ^= 1
    answers = compare(Fetch(b"".join(parts)), [limit])
    assert (CorruptRecordException, "[Error 2] CorruptRecordException: Invalid CRC - " + str(TP0)) in answers


@pytest.mark.parametrize("limit", [None, 1, 2, 3])
def test_a_record_that_does_not_parse_is_an_error_once_it_is_reached(limit: int | None) -> None:
    made = bytearray(batch(3, rows(4)))
    place = made.index(b"value 2") - 10
    assert made[place] % 2 == 0, "the record's length, as an even varint"
    made[place] += 2
    answers = compare(Fetch(batch(0, rows(3)) + sealed(made)), [limit])
    assert any(answer[0] is CorruptRecordException for answer in answers)


def test_records_that_go_back_within_a_batch_are_passed_over() -> None:
    data = batch(0, [(delta, 1_000, None, b"%d" % delta, []) for delta in (0, 2, 1, 2, 3)]) + batch(4, rows(2))
    for limit in (None, 1, 2, 3):
        answers = compare(Fetch(data), [limit])
        assert [found for offsets, *_ in answers for found in offsets] == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("odd", [0, 3, 5])
@pytest.mark.parametrize("limit", [None, 1, 4])
def test_header_names_that_are_no_text_are_read_from_any_position(odd: int, limit: int | None) -> None:
    made: list[Row] = [(*row[:4], [("NAME", b"1") if row[0] == odd else ("good", None)]) for row in rows(6)]
    data = sealed(bytearray(batch(2, made).replace(b"NAME", b"\xffN\xfe "))) + batch(8, rows(2))
    for offset in range(8):
        before = batch(0, rows(2)) if offset < 2 else b""
        answers = compare(Fetch(before + data, offset, records=ForgivingRecords), [limit])
        found = {at: head for offsets, *_, heads in answers for at, head in zip(offsets, heads, strict=True)}
        assert sorted(found) == list(range(offset, 10))
        if odd + 2 >= offset:
            assert found[odd + 2] == (("\\xffN\\xfe ", b"1"),)


def test_records_without_headers_share_one_empty_tuple() -> None:
    ours, _ = Fetch(batch(0, rows(20))).of_ours()
    assert len({id(head) for head in ours.getall(20).headers}) == 1


def test_a_fetch_for_another_position_is_dropped() -> None:
    for change in ({"position": 5}, {"paused": True}):
        ours, state = Fetch(batch(0, rows(2))).of_ours()
        vars(state).update(change)
        assert len(ours.getall(10)) == 0
        assert not ours.has_more()
        assert state == State(0, **change) if "paused" in change else State(5)


def test_only_a_consumer_that_asked_gets_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PartitionRecords", "FetchResult", "MemoryRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    consumer = SimpleNamespace(_value_deserializer=None)
    fetch_columns(consumer)
    for deserializer, kind in ((consumer._value_deserializer, FetchedColumns), (bytes.decode, list)):
        state = State(0)
        made = fetcher.PartitionRecords(
            TP0, fetcher.MemoryRecords(batch(0, rows(3))), None, 0, None, deserializer, True, 1
        )
        result = fetcher.FetchResult(
            TP0,
            assignment=SimpleNamespace(active=True, state_value=lambda tp, state=state: state),
            partition_records=made,
            backoff=0.0,
        )
        found = result.getall(2)
        assert isinstance(found, kind)
        assert (len(found), state.position) == (2, 2)
        assert columns_of(found)[3] in ([b"value 0", b"value 1"], ["value 0", "value 1"])


def test_a_consumer_of_columns_cannot_be_asked_for_single_records() -> None:
    ours, _ = Fetch(batch(0, rows(3))).of_ours()
    with pytest.raises(TypeError, match="gives columns; call getmany"):
        ours.getone()
