"""Columns as a whole come out of ClickHouse as the same values in plain lists do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contract.encoded import Encoded, Lists, Maps
from pipeline.errors import StoreError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Column, Values
from tests.support.sink_suite.data import connected, rows

_DTYPES: Final[dict[str, Any]] = {
    "UInt8": np.uint8,
    "UInt16": np.uint16,
    "UInt32": np.uint32,
    "UInt64": np.uint64,
    "Int16": np.int16,
    "Int64": np.int64,
}
_TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.sampled_from(["", "\0", "Naxçıvan"])


def number(type_: str) -> st.SearchStrategy[int]:
    """Numbers of a type, its extremes often."""
    limits = np.iinfo(_DTYPES[type_])
    low, high = int(limits.min), int(limits.max)
    return st.integers(low, high) | st.sampled_from([low, 0, high])


@dataclass(frozen=True)
class Row:
    """One row of the table of all kinds."""

    text: str
    word: str
    plain_word: str
    word_as_text: str
    numbers: tuple[int, ...]
    minute: int
    hashes: list[int]
    histogram: dict[int, int]
    reasons: dict[str, int]
    flag: bool


ROW: Final = st.builds(
    Row,
    text=_TEXT,
    word=_TEXT,
    plain_word=_TEXT,
    word_as_text=_TEXT,
    numbers=st.tuples(*map(number, _DTYPES)),
    minute=number("UInt32"),
    hashes=st.lists(number("UInt64"), max_size=5),
    histogram=st.dictionaries(number("Int16"), number("UInt64"), max_size=5),
    reasons=st.dictionaries(_TEXT, number("UInt64"), max_size=3),
    flag=st.booleans(),
)


def encoded(texts: Sequence[str], unused: Sequence[str] = ()) -> Encoded:
    """The texts by dictionary, which has words that do not occur, too."""
    words = list(dict.fromkeys([*unused, *texts]))
    numbers = {word: place for place, word in enumerate(words)}
    return Encoded(words, np.array([numbers[text] for text in texts], dtype=np.int32))


def ends(sizes: Sequence[int]) -> Any:
    """Where lists of these sizes end."""
    return np.cumsum(np.array(sizes, dtype=np.uint64), dtype=np.uint64)


def plain_columns(data: Sequence[Row]) -> list[Column]:
    """The rows as lists."""
    return [
        Column("place", "UInt32", list(range(len(data)))),
        Column("text", "String", [row.text for row in data]),
        Column("word", "String", [row.word for row in data]),
        Column("plain_word", "String", [row.plain_word for row in data]),
        Column("word_as_text", "String", [row.word_as_text for row in data]),
        *(Column(type_.lower(), type_, [row.numbers[place] for row in data]) for place, type_ in enumerate(_DTYPES)),
        Column("minute", "UInt32", [row.minute for row in data]),
        Column("hashes", "Array(UInt64)", [row.hashes for row in data]),
        Column("histogram", "Map(Int16, UInt64)", [row.histogram for row in data]),
        Column("reasons", "Map(String, UInt64)", [row.reasons for row in data]),
        Column("flag", "Bool", [row.flag for row in data]),
    ]


def whole_columns(data: Sequence[Row], unused: Sequence[str]) -> list[Column]:
    """The rows as arrays, where there is a kind for it; most numbers in a wider type than the column's."""
    flat = [value for row in data for value in row.hashes]
    buckets = [item for row in data for item in row.histogram.items()]
    whole: dict[str, Values] = {
        "place": np.arange(len(data)),
        "word": encoded([row.word for row in data], unused),
        "word_as_text": encoded([row.word_as_text for row in data], unused),
        **{
            type_.lower(): np.array(
                [row.numbers[place] for row in data], dtype=np.uint64 if type_ == "UInt64" else np.int64
            )
            for place, type_ in enumerate(_DTYPES)
        },
        "minute": np.array([row.minute for row in data], dtype=np.int64),
        "hashes": Lists(np.array(flat, dtype=np.uint64), ends([len(row.hashes) for row in data])),
        "histogram": Maps(
            np.array([key for key, _ in buckets], dtype=np.int64),
            np.array([value for _, value in buckets], dtype=np.uint64),
            ends([len(row.histogram) for row in data]),
        ),
    }
    return [Column(item.name, item.type, whole.get(item.name, item.values)) for item in plain_columns(data)]


def expected(data: Sequence[Row]) -> list[tuple[Any, ...]]:
    """What a query for all columns must say."""
    return [
        (
            place,
            row.text,
            row.word,
            row.plain_word,
            row.word_as_text,
            *row.numbers,
            row.minute,
            row.hashes,
            list(row.histogram.items()),
            list(row.reasons.items()),
            row.flag,
        )
        for place, row in enumerate(data)
    ]


TABLE: Final = (
    "CREATE TABLE kinds (place UInt32, text String, word LowCardinality(String), plain_word LowCardinality(String),"
    " word_as_text String, uint8 UInt8, uint16 UInt16, uint32 UInt32, uint64 UInt64, int16 Int16, int64 Int64,"
    " minute DateTime('UTC'), hashes Array(UInt64) EPHEMERAL, kept Array(UInt64) DEFAULT hashes,"
    " histogram Map(Int16, UInt64), reasons Map(String, UInt64), flag Bool) ENGINE = MergeTree ORDER BY place"
)
# Keys of maps as arrays: as a map JSON would have them as texts.
SELECTED: Final = (
    "SELECT place, text, word, plain_word, word_as_text, uint8, uint16, uint32, uint64, int16, int64,"
    " toUnixTimestamp(minute), kept, CAST(histogram, 'Array(Tuple(Int16, UInt64))'),"
    " CAST(reasons, 'Array(Tuple(String, UInt64))'), flag FROM kinds ORDER BY place"
)


def nested(value: Any) -> Any:
    """Tuples in lists, which JSON has as lists."""
    return [tuple(item) if isinstance(item, list) else item for item in value] if isinstance(value, list) else value


class TestColumns:
    @settings(
        max_examples=30,
        deadline=None,
        # The table is made anew for each example. The class is collected twice: for a server and for chdb.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
        database=None,
    )
    @given(data=st.lists(ROW, max_size=8), unused=st.lists(_TEXT, max_size=3))
    def test_whole_columns_are_what_plain_lists_are(
        self, store: ClickHouseSettings, data: list[Row], unused: list[str]
    ) -> None:
        with connected(store) as client:
            for columns in (plain_columns(data), whole_columns(data, unused)):
                client.execute("DROP TABLE IF EXISTS kinds SYNC")
                client.execute(TABLE)
                client.insert("kinds", columns)
                answer = [tuple(map(nested, row)) for row in client.query(SELECTED).rows]
                assert answer == expected(data)

    @pytest.mark.parametrize("distinct", [1, 255, 256, 257, 65_535, 65_536, 70_000])
    @pytest.mark.parametrize("unused", [0, 300])
    def test_any_number_of_words(self, store: ClickHouseSettings, distinct: int, unused: int) -> None:
        count = distinct + 3
        words = [f"unused {number}" for number in range(unused)] + [f"word {number}" for number in range(distinct)]
        codes = (np.arange(count) % distinct + unused).astype(np.int32)
        with connected(store) as client:
            client.execute(
                "CREATE TABLE words (place UInt32, whole LowCardinality(String), plain LowCardinality(String),"
                " text String) ENGINE = MergeTree ORDER BY place"
            )
            whole = Encoded(words, codes)
            client.insert(
                "words",
                [
                    Column("place", "UInt32", np.arange(count)),
                    Column("whole", "String", whole),
                    Column("plain", "String", list(whole)),
                    Column("text", "String", whole),
                ],
            )
            is_word = f"concat('word ', toString(place % {distinct}))"
            assert rows(
                client,
                f"SELECT count(), countIf(whole = {is_word}), countIf(plain = {is_word}), countIf(text = {is_word}),"
                " uniqExact(whole), uniqExact(plain) FROM words",
            ) == [(count, count, count, count, distinct, distinct)]

    @pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 1_000_000])
    @pytest.mark.parametrize("letter", ["a", "ə", "\0"])
    def test_long_texts(self, store: ClickHouseSettings, size: int, letter: str) -> None:
        texts = ["", letter * size, "short", letter * (size - 1) + "b"]
        with connected(store) as client:
            client.execute(
                "CREATE TABLE texts (place UInt8, text String, word LowCardinality(String), words String)"
                " ENGINE = MergeTree ORDER BY place"
            )
            columns = [
                Column("place", "UInt8", np.arange(4)),
                Column("text", "String", texts),
                Column("word", "String", encoded(texts)),
                Column("words", "String", encoded(texts)),
            ]
            client.insert("texts", columns)
            assert rows(client, "SELECT text, word, words FROM texts ORDER BY place") == [(text,) * 3 for text in texts]

    @pytest.mark.parametrize(
        ("type_", "values"),
        [
            ("UInt8", np.array([256])),
            ("UInt8", [256]),
            ("UInt32", np.array([-1])),
            ("UInt32", [-1]),
            ("UInt32", np.array([2**32])),
            ("UInt64", np.array([-1])),
            ("UInt64", [2**64]),
            ("Int64", np.array([2**63], dtype=np.uint64)),
            ("UInt32", np.array([1.5])),
            ("UInt32", [1.5]),
            ("UInt32", ["1"]),
            ("String", [1]),
            ("String", [None]),
            ("String", np.array([1])),
            ("String", ["\ud800"]),
            ("LowCardinality(String)", ["\ud800"]),
            ("LowCardinality(String)", Encoded(["a"], np.array([1], dtype=np.int32))),
            ("LowCardinality(String)", Encoded(["a"], np.array([-1], dtype=np.int32))),
            ("Array(UInt64)", [1]),
            ("Array(UInt64)", np.array([1])),
            ("Array(UInt32)", Lists(np.array([2**32]), ends([1]))),
            ("Array(UInt64)", Lists(np.array([1, 2], dtype=np.uint64), ends([3]))),
            ("Map(Int16, UInt64)", Maps(np.array([2**15]), np.array([1]), ends([1]))),
            ("Map(Int16, UInt64)", Maps(np.array([1]), np.array([-1]), ends([1]))),
            ("Map(Int16, UInt64)", Maps(np.array([1, 2]), np.array([1]), ends([2]))),
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_refused_and_the_next_insert_works(
        self, store: ClickHouseSettings, type_: str, values: Values
    ) -> None:
        plain = type_.replace("LowCardinality(String)", "String")
        with connected(store) as client:
            client.execute(f"CREATE TABLE strict (n UInt8, what {type_}) ENGINE = MergeTree ORDER BY n")
            with pytest.raises(StoreError, match="what"):
                client.insert("strict", [Column("n", "UInt8", [1]), Column("what", plain, values)])
            client.insert("strict", [Column("n", "UInt8", np.array([2]))])
            assert rows(client, "SELECT n FROM strict") == [(2,)]

    def test_columns_of_different_lengths_are_an_error(self, store: ClickHouseSettings) -> None:
        with connected(store) as client:
            client.execute("CREATE TABLE uneven (a UInt8, b UInt8) ENGINE = MergeTree ORDER BY a")
            for wrong in ([1, 2], np.array([1, 2])):
                with pytest.raises(ValueError, match="one length"):
                    client.insert("uneven", [Column("a", "UInt8", [1]), Column("b", "UInt8", wrong)])
            assert rows(client, "SELECT count() FROM uneven") == [(0,)]

    def test_a_table_that_is_missing_is_a_store_error(self, store: ClickHouseSettings) -> None:
        with connected(store) as client:
            with pytest.raises(StoreError, match="refuses"):
                client.insert("nowhere", [Column("n", "UInt64", np.array([1]))])
            assert client.query("SELECT 1 AS one").one() == (1,)

    def test_what_stands_several_times_in_one_block_is_read_once(self, store: ClickHouseSettings) -> None:
        """Inserts do not look for it themselves, see INSERT_SETTINGS; FINAL and the merges do."""
        keys, copies = 30_000, 3
        key = np.tile(np.arange(keys), copies)
        version = np.repeat(np.arange(copies), keys)[::-1]
        with connected(store) as client:
            client.execute(
                "CREATE TABLE copies (key UInt32, version UInt64) ENGINE = ReplacingMergeTree(version) ORDER BY key"
            )
            client.execute("SYSTEM STOP MERGES copies")
            client.insert("copies", [Column("key", "UInt32", key), Column("version", "UInt64", version)])
            for merged in (False, True):
                if merged:
                    client.execute("SYSTEM START MERGES copies")
                    client.execute("OPTIMIZE TABLE copies FINAL")
                stored = keys if merged else copies * keys
                assert rows(client, "SELECT count() FROM copies") == [(stored,)]
                for setting in (0, 1):
                    assert rows(
                        client,
                        "SELECT count(), uniqExact(key), min(version), max(version) FROM copies FINAL"
                        f" SETTINGS do_not_merge_across_partitions_select_final = {setting}",
                    ) == [(keys, keys, copies - 1, copies - 1)]
