"""Columns as ClickHouse's native protocol has them, made from whole arrays instead of value by value.

The form is that of ``SerializationNumber``, ``SerializationString``, ``SerializationLowCardinality``,
``SerializationArray`` and ``SerializationMap`` in ClickHouse's sources: numbers are little-endian, a text is its length
as a varint and its bytes, arrays and maps are the ends of the rows and then the elements.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.contract.encoded import Encoded, Lists, Maps
from pipeline.contract.encoded import encoded as by_dictionary
from sinks.clickhouse.client import Values

NUMBERS: Final = {
    name: (np.dtype(dtype), code)
    for name, dtype, code in (
        ("UInt8", "<u1", "B"),
        ("UInt16", "<u2", "H"),
        ("UInt32", "<u4", "I"),
        ("UInt64", "<u8", "Q"),
        ("Int8", "<i1", "b"),
        ("Int16", "<i2", "h"),
        ("Int32", "<i4", "i"),
        ("Int64", "<i8", "q"),
    )
}
_ENDS: Final = np.dtype("<u8")

# Of LowCardinality: keys are written with the block, and the dictionary is the block's own.
_DICTIONARY_VERSION: Final = (1).to_bytes(8, "little")
_HAS_KEYS: Final = 1 << 9
_NEW_DICTIONARY: Final = 1 << 10
_KEYS: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"))
_SMALL: Final = 256

_SHORT: Final = 128
_LENGTHS: Final = tuple(map(chr, range(_SHORT)))


def encoded(type_: str, values: Values) -> bytes | None:
    """The values as a column of the ClickHouse type ``type_``; None for what is not written here.

    Raises:
        ValueError: a value does not fit the type. The message quotes no value.
    """
    if not len(values):
        return b""
    try:
        return _low_cardinality(values) if type_ == "LowCardinality(String)" else _plain(type_, values)
    except (TypeError, OverflowError, AttributeError, ValueError) as error:
        # Not the words of an error about an encoding, which quote the text.
        words = type(error).__name__ if isinstance(error, UnicodeError) else str(error)
        raise ValueError(f"does not fit {type_}: {words}") from None


def _plain(type_: str, values: Values) -> bytes | None:
    if type_ in NUMBERS:
        return numbers(type_, values).tobytes()
    if type_ == "String":
        # Other texts the driver writes at least as fast, in C and without a copy of them all.
        return _texts(values) if isinstance(values, Encoded) else _short_strings(_listed(values))
    if type_ == "DateTime" or type_.startswith("DateTime("):
        # The driver turns datetimes into numbers.
        return numbers("UInt32", values).tobytes() if isinstance(values, np.ndarray) else None
    if type_.startswith("Array("):
        return _lists(type_.removeprefix("Array(").removesuffix(")"), values)
    if type_.startswith("Map("):
        key, _, value = type_.removeprefix("Map(").removesuffix(")").partition(", ")
        return _maps(key, value, values)
    return None


def numbers(type_: str, values: Values) -> npt.NDArray[Any]:
    """Whole numbers as an array of the ClickHouse type ``type_``, which is one of :data:`NUMBERS`.

    Raises:
        TypeError, OverflowError: they are no whole numbers, or out of range.
    """
    dtype, code = NUMBERS[type_]
    if not isinstance(values, np.ndarray):
        return np.asarray(array(code, _listed(values))).astype(dtype, copy=False)
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise TypeError(f"an array of {values.dtype} with {values.ndim} dimensions")
    if not np.can_cast(values.dtype, dtype, "safe") and len(values):
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise OverflowError("a number is out of range")
    return values.astype(dtype, copy=False)


def _short_strings(values: list[str]) -> bytes | None:
    """Texts of less than 128 ASCII characters; None if there is another one."""
    if values.count("") == len(values):
        return bytes(len(values))
    lengths = list(map(len, values))
    if max(lengths) < _SHORT:
        parts = [""] * (2 * len(values))
        parts[::2] = map(_LENGTHS.__getitem__, lengths)
        parts[1::2] = values
        joined = "".join(parts)
        if joined.isascii():
            return joined.encode("ascii")
    return None


def _string(text: str) -> bytes:
    content = text.encode()
    return _varint(len(content)) + content


def _varint(number: int) -> bytes:
    made = bytearray()
    while number >= _SHORT:
        made.append(number & (_SHORT - 1) | _SHORT)
        number >>= 7
    made.append(number)
    return bytes(made)


def _texts(values: Encoded) -> bytes:
    words, codes = _used(values)
    return b"".join(map(list(map(_string, words)).__getitem__, codes.tolist()))


def _low_cardinality(values: Values) -> bytes:
    words, codes = _used(values if isinstance(values, Encoded) else by_dictionary(_listed(values)))
    width = 0 if len(words) <= _SMALL else 1 if len(words) <= _SMALL**2 else 2
    return b"".join(
        (
            _DICTIONARY_VERSION,
            (_HAS_KEYS | _NEW_DICTIONARY | width).to_bytes(8, "little"),
            len(words).to_bytes(8, "little"),
            b"".join(map(_string, words)),
            len(codes).to_bytes(8, "little"),
            codes.astype(_KEYS[width], copy=False).tobytes(),
        )
    )


def _used(values: Encoded) -> tuple[list[str], npt.NDArray[Any]]:
    """Words and codes, without words that do not occur if there are many."""
    words, codes = values.words, values.codes
    if int(codes.min()) < 0 or int(codes.max()) >= len(words):
        raise ValueError(f"a code without a word, of {len(words)} words")
    if len(words) <= _SMALL:
        return words, codes
    occurs = np.bincount(codes, minlength=len(words)) > 0
    if occurs.all():
        return words, codes
    places = np.cumsum(occurs) - 1
    return [words[place] for place in np.flatnonzero(occurs).tolist()], places[codes]


def _lists(type_: str, values: Values) -> bytes | None:
    elements: Values
    if isinstance(values, Lists):
        ends, elements = values.ends, values.values
    else:
        lists = _listed(values)
        ends, elements = _ends_of(lists), list(chain.from_iterable(lists))
    return _ragged(ends, len(elements), _plain(type_, elements))


def _maps(key: str, value: str, values: Values) -> bytes | None:
    keys: Values
    items: Values
    if isinstance(values, Maps):
        ends, keys, items = values.ends, values.keys, values.values
    else:
        maps = _listed(values)
        ends, keys = _ends_of(maps), list(chain.from_iterable(maps))
        items = list(chain.from_iterable(item.values() for item in maps))
    if len(keys) != len(items):
        raise ValueError(f"{len(keys)} keys, {len(items)} values")
    written, others = _plain(key, keys), _plain(value, items)
    return _ragged(ends, len(keys), None if written is None or others is None else written + others)


def _ends_of(values: Sequence[Any]) -> npt.NDArray[np.uint64]:
    return np.fromiter(accumulate(map(len, values)), dtype=np.uint64, count=len(values))


def _ragged(ends: npt.NDArray[Any], count: int, content: bytes | None) -> bytes | None:
    if content is None:
        return None
    if int(ends[-1]) != count or (ends[1:] < ends[:-1]).any():
        raise ValueError(f"the ends of the rows do not lead from 0 to {count}")
    return ends.astype(_ENDS, copy=False).tobytes() + content


def _listed(values: Values) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values if isinstance(values, list) else list(values)
