"""Sizes and pieces of record batches against their plain definitions."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.rules import Rules
from pipeline.fold.segment import segment_end

contents = st.none() | st.binary(max_size=12)


@st.composite
def batches(draw: st.DrawFn) -> RecordBatch:
    count = draw(st.integers(0, 12))
    values = draw(st.lists(contents, min_size=count, max_size=count))
    offsets = [5 + 2 * n for n in range(count)]
    heads = draw(
        st.lists(st.lists(st.tuples(st.text(max_size=3), contents), max_size=2), min_size=count, max_size=count)
    )
    keys = draw(st.lists(contents, min_size=count, max_size=count))
    return RecordBatch("t", 0, 3, 40, 50, offsets, [0] * count, keys, values, heads)  # type: ignore[arg-type]


def size(batch: RecordBatch) -> int:
    values = sum(len(value or b"") for value in batch.values)
    keys = sum(len(key or b"") for key in batch.keys)
    return values + keys + sum(len(name) + len(content or b"") for head in batch.headers for name, content in head)


def pieces(batch: RecordBatch, limit: int) -> list[RecordBatch]:
    sizes = [len(value or b"") for value in batch.values]
    if sum(sizes) <= limit or len(batch) <= 1:
        return [batch]
    found, start, start_offset = [], 0, batch.start_offset
    for stop in range(1, len(batch) + 1):
        if stop == len(batch) or sum(sizes[start:stop]) >= limit:
            next_offset = batch.next_offset if stop == len(batch) else batch.offsets[stop]
            columns = ("offsets", "timestamps", "keys", "values", "headers")
            cut = {name: getattr(batch, name)[start:stop] for name in columns}
            found.append(replace(batch, start_offset=start_offset, next_offset=next_offset, **cut))
            start, start_offset = stop, next_offset
    return found


@given(batches(), st.integers(0, 60))
def test_pieces_and_their_sizes_are_by_definition(batch: RecordBatch, limit: int) -> None:
    assert batch.size == size(batch)
    found = list(batch.pieces(limit))
    assert found == pieces(batch, limit)
    assert [piece.size for piece in found] == [size(piece) for piece in found]
    for piece in found:
        for again in piece.pieces(limit // 2):
            assert again.size == size(again)


@given(batches(), st.data())
def test_the_bytes_of_any_run_of_values_are_known(batch: RecordBatch, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(batch)))
    stop = data.draw(st.integers(start, len(batch)))
    if data.draw(st.booleans()):
        batch = batch.part(start, stop, 0, 0)
        start, stop = 0, stop - start
    assert batch.value_bytes(start, stop) == sum(len(value or b"") for value in batch.values[start:stop])


@given(batches(), st.integers(1, 40), st.integers(0, 39), st.data())
def test_a_segment_ends_with_the_record_that_makes_it_heavy_enough(
    batch: RecordBatch, limit: int, before: int, data: st.DataObject
) -> None:
    if not len(batch):
        return
    place = data.draw(st.integers(0, len(batch) - 1))
    rules = Rules(
        segment_records=1_000,
        segment_bytes=limit,
        memory_segments=1,
        max_age_days=1,
        max_ahead_seconds=1,
        catalogue_version=1,
    )
    receipt = Receipt(LogPartition("t", "id", 0), 0, 0, rules)
    receipt.value_bytes = before = min(before, limit - 1)
    stop, ends = segment_end(replace(batch, headers=[()] * len(batch)), place, receipt)
    weights = [before + sum(len(value or b"") for value in batch.values[place:end]) for end in range(len(batch) + 1)]
    heavy = [end for end in range(place + 1, len(batch) + 1) if weights[end] >= limit]
    assert (stop, ends) == ((heavy[0], True) if heavy else (len(batch), False))
