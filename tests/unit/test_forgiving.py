"""Records with header names that are no text, as bytes on the log; with brokers in tests/servers/test_poison.py."""

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from streams.forgiving import ForgivingRecords


def batch(name: str, base: int, count: int = 5, odd: int | None = None) -> bytes:
    """A batch in which the record ``odd`` has a header ``name``."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    for number in range(count):
        headers = [(name, b"content"), ("good", None)] if number == odd else [("good", b"1")]
        builder.append(number, 1_000 + number, b"key", f"value {base + number}".encode(), headers)
    built = bytearray(builder.build())
    built[0:8] = base.to_bytes(8, "big")
    return bytes(built)


@pytest.mark.parametrize("odd", [0, 2, 4])
def test_every_record_of_a_batch_with_such_a_name_is_read_once(odd: int) -> None:
    data = (batch("good", 0) + batch("NAME", 5, odd=odd) + batch("good", 10)).replace(b"NAME", b"\xffN\xfe ")
    records = ForgivingRecords(data)
    found = []
    while records.has_next():
        one = records.next_batch()
        assert not one.is_control_batch
        found += list(one)
        assert one.next_offset == found[-1].offset + 1
    assert [record.offset for record in found] == list(range(15))
    assert [record.value for record in found] == [f"value {number}".encode() for number in range(15)]
    assert [record.timestamp for record in found] == [1_000 + number % 5 for number in range(15)]
    assert list(found[5 + odd].headers) == [("\\xffN\\xfe ", b"content"), ("good", None)]
    assert list(found[14].headers) == [("good", b"1")]
    assert records.next_batch() is None


@pytest.mark.parametrize("magic", [0, 1])
def test_records_of_the_formats_without_headers_are_read(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
    for number in range(3):
        builder.append(number, 1_000 + number, b"key", b"value %d" % number)
    records = ForgivingRecords(bytes(builder.build()))
    found = []
    while records.has_next():
        found += [(record.offset, record.value, record.headers) for record in records.next_batch()]
    assert found == [(number, b"value %d" % number, []) for number in range(3)]
