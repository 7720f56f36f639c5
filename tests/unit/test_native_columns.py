"""Columns in the form of the native protocol: byte for byte what clickhouse-driver makes of plain values."""

from types import SimpleNamespace
from typing import Any, Final

import clickhouse_driver
import numpy as np
import pytest
from clickhouse_driver.bufferedwriter import CompressedBufferedWriter
from clickhouse_driver.streams import native as driver_native
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract.encoded import Encoded, Lists, Maps
from sinks.clickhouse.client import Column, Values
from sinks.clickhouse.columnar import supported
from sinks.clickhouse.native import NUMBERS, encoded
from tests.support.sink_suite.columns import encoded as by_dictionary
from tests.support.sink_suite.columns import ends

_TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.just("")
_CONTEXT: Final = SimpleNamespace(
    client_settings={"strings_as_bytes": False, "strings_encoding": "utf-8", "use_numpy": False}
)


class Collected:
    """Stands where the driver has a compressor, and keeps what it is given."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, content: bytes) -> None:
        self.content += content


def by_driver(type_: str, values: list[Any]) -> bytes:
    """What the driver writes."""
    collected = Collected()
    writer = CompressedBufferedWriter(collected, 1 << 20)
    driver_native.write_column(_CONTEXT, "c", type_, values, writer)
    writer.flush()
    return collected.content


def whole_numbers(type_: str) -> st.SearchStrategy[int]:
    limits = np.iinfo(NUMBERS[type_][0])
    return st.integers(int(limits.min), int(limits.max))


@pytest.mark.parametrize("type_", NUMBERS)
@given(data=st.data())
def test_numbers(type_: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(whole_numbers(type_), min_size=1))
    wide = np.uint64 if type_ == "UInt64" else np.int64
    for given_ in (values, np.array(values, dtype=wide), np.array(values, dtype=NUMBERS[type_][0])[::-1][::-1]):
        assert encoded(type_, given_) == by_driver(type_, values)


@given(texts=st.lists(_TEXT | st.text(st.characters(codec="ascii"), max_size=130), min_size=1))
def test_texts(texts: list[str]) -> None:
    expected = by_driver("String", texts)
    short = all(text.isascii() and len(text) < 128 for text in texts)
    for given_ in (texts, tuple(texts)):
        assert encoded("String", given_) == (expected if short else None)
    assert encoded("String", by_dictionary(texts)) == expected


@given(texts=st.lists(_TEXT, min_size=1))
def test_texts_by_dictionary(texts: list[str]) -> None:
    expected = by_driver("LowCardinality(String)", texts)
    assert encoded("LowCardinality(String)", texts) == expected
    assert encoded("LowCardinality(String)", by_dictionary(texts)) == expected


@given(lists=st.lists(st.lists(whole_numbers("UInt64")), min_size=1))
def test_lists(lists: list[list[int]]) -> None:
    expected = by_driver("Array(UInt64)", lists)
    flat = np.array([value for values in lists for value in values], dtype=np.uint64)
    assert encoded("Array(UInt64)", lists) == expected
    assert encoded("Array(UInt64)", Lists(flat, ends(list(map(len, lists))))) == expected


@given(maps=st.lists(st.dictionaries(whole_numbers("Int16"), whole_numbers("UInt64")), min_size=1))
def test_maps(maps: list[dict[int, int]]) -> None:
    expected = by_driver("Map(Int16, UInt64)", maps)
    keys = np.array([key for item in maps for key in item], dtype=np.int64)
    values = np.array([value for item in maps for value in item.values()], dtype=np.uint64)
    assert encoded("Map(Int16, UInt64)", maps) == expected
    assert encoded("Map(Int16, UInt64)", Maps(keys, values, ends(list(map(len, maps))))) == expected


@given(maps=st.lists(st.dictionaries(st.text(st.characters(codec="ascii")), whole_numbers("UInt64")), min_size=1))
def test_maps_by_text(maps: list[dict[str, int]]) -> None:
    assert encoded("Map(String, UInt64)", maps) == by_driver("Map(String, UInt64)", maps)


@pytest.mark.parametrize(
    ("words", "width"), [(1, 1), (255, 1), (256, 1), (257, 2), (65_535, 2), (65_536, 2), (65_537, 4), (70_000, 4)]
)
def test_the_width_of_the_codes_goes_by_the_words_that_occur(words: int, width: int) -> None:
    codes = np.arange(words, dtype=np.int32)[::-1]
    made = Encoded([str(word) for word in range(words + 300)], codes)
    content = encoded("LowCardinality(String)", made)
    assert content is not None
    assert int.from_bytes(content[8:16], "little") & 0xF == {1: 0, 2: 1, 4: 2}[width]
    assert int.from_bytes(content[16:24], "little") == words
    assert content.endswith(words.to_bytes(8, "little") + codes.astype(f"<u{width}").tobytes())


@pytest.mark.parametrize(
    "type_", ["Bool", "UUID", "DateTime64(3)", "Nullable(String)", "Array(LowCardinality(String))"]
)
def test_other_types_are_left_to_the_driver(type_: str) -> None:
    assert encoded(type_, [[]]) is None


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("UInt32", [123456789012]),
        ("UInt32", np.array([123456789012])),
        ("String", ["kept", 123456789012]),
        ("String", Encoded(["123456789012\ud800"], np.array([0], dtype=np.int32))),
        ("LowCardinality(String)", ["123456789012\ud800"]),
        ("LowCardinality(String)", Encoded(["123456789012"], np.array([9], dtype=np.int32))),
        ("Array(UInt64)", [123456789012]),
        ("Map(Int16, UInt64)", [{123456789012: 1}]),
    ],
    ids=str,
)
def test_an_error_says_the_type_and_no_value(type_: str, values: Values) -> None:
    with pytest.raises(ValueError, match=r"does not fit .*: ") as caught:
        encoded(type_, values)
    assert type_ in str(caught.value)
    assert "123456789012" not in str(caught.value)


@pytest.mark.parametrize("name", ["write_column", "write_varint", "defines"])
def test_a_driver_without_a_function_is_not_supported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert supported()
    monkeypatch.delattr(driver_native, name)
    assert not supported()


def test_a_driver_without_a_method_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(driver_native.BlockOutputStream, "finalize")
        assert not supported()
    monkeypatch.delattr(clickhouse_driver.Client, "send_data")
    assert not supported()


def test_plain_values_of_every_kind() -> None:
    plain: dict[str, tuple[Values, list[Any]]] = {
        "numbers": (np.array([1, 2], dtype=np.uint8), [1, 2]),
        "texts": (Encoded(["a", "b"], np.array([1, 0], dtype=np.int32)), ["b", "a"]),
        "lists": (Lists(np.array([1, 2]), ends([0, 2])), [[], [1, 2]]),
        "maps": (Maps(np.array([1, 2]), np.array([3, 4]), ends([1, 1])), [{1: 3}, {2: 4}]),
        "list": ((1, 2), [1, 2]),
    }
    for name, (values, expected) in plain.items():
        assert Column(name, "any", values).plain() == expected
