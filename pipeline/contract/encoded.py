"""Columns without an object an event: texts by dictionary, and lists and maps laid end to end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Encoded(Sequence[str]):
    """n texts of which few differ: text i is ``words[codes[i]]``. ``words`` are distinct; not all need occur."""

    words: list[str]
    codes: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return map(self.words.__getitem__, self.codes.tolist())

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "Encoded": ...

    def __getitem__(self, place: int | slice) -> "str | Encoded":
        return Encoded(self.words, self.codes[place]) if isinstance(place, slice) else self.words[self.codes[place]]

    def take(self, places: npt.NDArray[Any]) -> "Encoded":
        """The texts at some places, or where a mask of n is true."""
        return Encoded(self.words, self.codes[places])


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """n lists of numbers: list i is ``values[ends[i - 1]:ends[i]]``, the first one begins at 0."""

    values: npt.NDArray[Any]
    ends: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[list[Any]]:
        begin = 0
        for end in self.ends.tolist():
            yield self.values[begin:end].tolist()
            begin = end


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """n maps of numbers to numbers: map i has ``keys`` and ``values`` at the places that :class:`Lists` tells."""

    keys: npt.NDArray[Any]
    values: npt.NDArray[Any]
    ends: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[dict[Any, Any]]:
        begin = 0
        for end in self.ends.tolist():
            yield dict(zip(self.keys[begin:end].tolist(), self.values[begin:end].tolist(), strict=True))
            begin = end


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Texts one after the other. Parts that share one list of words, which may grow, cost no look at the words."""
    if not parts:
        return Encoded([], np.empty(0, dtype=np.int32))
    words = parts[0].words
    if all(part.words is words for part in parts):
        return Encoded(words, np.concatenate([part.codes for part in parts]))
    numbers: dict[str, int] = {}
    maps = {
        id(part.words): np.array([numbers.setdefault(word, len(numbers)) for word in part.words], dtype=np.int32)
        for part in parts
    }
    codes = [maps[id(part.words)][part.codes] for part in parts if len(part)]
    return Encoded(list(numbers), np.concatenate(codes) if codes else np.empty(0, dtype=np.int32))


def encoded(texts: Sequence[str]) -> Encoded:
    """Texts by dictionary."""
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int32)
    return Encoded(list(numbers), codes)


def constant(text: str, count: int) -> Encoded:
    """One text ``count`` times."""
    return Encoded([text], np.zeros(count, dtype=np.int32))
