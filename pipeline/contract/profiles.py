"""The fields of events that take few values, as one number an event.

Agency, service, channel and their like come in far fewer combinations than there are events. A combination is a
*profile*. It is looked up once an event, in one step for all the fields, and whatever depends on them alone (codes that
are none, a service that the catalogue does not have, the group in the minutes) is worked out once a profile.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.contract.encoded import Encoded
from pipeline.contract.events import StageData, UseData
from pipeline.contract.reasons import Reason

PROFILE_FIELDS: Final = (
    "agency",
    "service",
    "channel",
    "outcome",
    "stage",
    "centre",
    "district",
    "hosting",
    "sign_in",
    "consumer",
    "initiator",
)
T = TypeVar("T")
Fault = tuple[Reason, str]
Profile = tuple[str, ...]
"""Texts in the order of ``PROFILE_FIELDS``; ``""`` where absent."""

MOST_PROFILES: Final = 100_000
"""So many profiles a table holds before another one is begun: some fields are free texts of whoever emits."""

_STAGE_PLACE: Final = PROFILE_FIELDS.index("stage")
_NO_USE: Final = ("",) * (len(PROFILE_FIELDS) - 1 - _STAGE_PLACE)


class _Numbering(dict[T, int]):
    """Numbers what it is asked for, from 0, and keeps a list of it."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[T] = []

    def __missing__(self, key: T) -> int:
        number = self[key] = len(self.listed)
        self.listed.append(key)
        return number


class _Derived(Generic[T]):
    """What follows from each profile, numbered; worked out as far as the table had grown when it was asked for."""

    def __init__(self, of: Callable[[Profile], T]) -> None:
        self._of = of
        self._numbers = _Numbering[T]()
        self._codes = np.empty(0, dtype=np.int32)

    def upto(self, profiles: Sequence[Profile]) -> tuple[npt.NDArray[np.int32], list[T]]:
        """The number of each profile, and what is numbered."""
        fresh = profiles[len(self._codes) :]
        if fresh:
            codes = np.array([self._numbers[self._of(profile)] for profile in fresh], dtype=np.int32)
            self._codes = np.concatenate([self._codes, codes])
        return self._codes, self._numbers.listed


@dataclass(slots=True)
class _Faults:
    """The profiles that are refused, by number; ``seen`` of them were looked at."""

    found: dict[int, Fault] = field(default_factory=dict)
    seen: int = 0


class Profiles:
    """Numbers profiles in the order in which they are met. Nothing is ever taken out or changed."""

    def __init__(self) -> None:
        self._numbers = _Numbering[Profile]()
        self._of_uses = _OfUses(self)
        self._columns = {name: _Derived(itemgetter(place)) for place, name in enumerate(PROFILE_FIELDS)}
        self._groups: dict[tuple[str, ...], _Derived[Profile]] = {}
        self._faults: dict[object, _Faults] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def full(self) -> bool:
        """Whether another table should be begun."""
        return len(self._numbers) >= MOST_PROFILES

    def number_uses(self, uses: Sequence[UseData]) -> npt.NDArray[np.int32]:
        """The profile of each of n uses."""
        of = self._of_uses
        # In the order of PROFILE_FIELDS, without the stage. Written out: the interpreter reads a slot by its place in
        # the object, attrgetter looks for each by name.
        return np.array(
            [
                of[
                    use.agency,
                    use.service,
                    use.channel,
                    use.outcome,
                    use.centre,
                    use.district,
                    use.hosting,
                    use.sign_in,
                    use.consumer,
                    use.initiator,
                ]
                for use in uses
            ],
            dtype=np.int32,
        )

    def number_stage(self, stage: StageData) -> int:
        """The profile of a stage."""
        return self.number((stage.agency, stage.service, stage.channel or "", "", stage.stage, *_NO_USE))

    def number(self, profile: Profile) -> int:
        """The number of a profile."""
        return self._numbers[profile]

    def column(self, name: str, numbers: npt.NDArray[np.int32]) -> Encoded:
        """One field of n events, given their profiles."""
        codes, words = self._columns[name].upto(self._numbers.listed)
        return Encoded(words, codes[numbers])

    def groups(self, names: tuple[str, ...]) -> tuple[npt.NDArray[np.int32], Sequence[Profile]]:
        """The distinct values of some fields: which of them each profile has, and what they are."""
        if names not in self._groups:
            places = [PROFILE_FIELDS.index(name) for name in names]
            self._groups[names] = _Derived(lambda profile: tuple(profile[place] for place in places))
        return self._groups[names].upto(self._numbers.listed)

    def faults(self, key: object, fault_of: Callable[[Profile], Fault | None]) -> Mapping[int, Fault]:
        """The profiles that ``fault_of`` finds fault with, by number; each is looked at once for a ``key``."""
        known = self._faults.setdefault(key, _Faults())
        profiles = self._numbers.listed
        for number in range(known.seen, len(profiles)):
            fault = fault_of(profiles[number])
            if fault is not None:
                known.found[number] = fault
        known.seen = len(profiles)
        return known.found


@dataclass(slots=True)
class ProfileTable:
    """The table in use, for all partitions of a worker; another one is begun when it is full."""

    current: Profiles = field(default_factory=Profiles)

    def open(self) -> Profiles:
        """A table that is not full."""
        if self.current.full:
            self.current = Profiles()
        return self.current


class _OfUses(dict[tuple[str | None, ...], int]):
    """The number of what a use has in the fields of a profile; what is met for the first time gets one."""

    def __init__(self, profiles: Profiles) -> None:
        super().__init__()
        self._profiles = profiles

    def __missing__(self, key: tuple[str | None, ...]) -> int:
        texts = [value or "" for value in key]
        texts.insert(_STAGE_PLACE, "")
        number = self[key] = self._profiles.number(tuple(texts))
        return number


def profiles_of(columns: Iterable[Iterable[str]]) -> tuple[Profiles, npt.NDArray[np.int32]]:
    """A table of its own for n events given as columns in the order of ``PROFILE_FIELDS``, and their profiles."""
    profiles = Profiles()
    return profiles, np.array([profiles.number(profile) for profile in zip(*columns, strict=True)], dtype=np.int32)
