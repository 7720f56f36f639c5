"""The synthetic population: few people use services often, most rarely; nobody in it is a real person."""

import base64
import hashlib
import hmac
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.generator.calibration import POPULATION

DEMONSTRATION_KEY: Final = b"xidmet demonstration key: public, never for real people"
"""An agency keeps its key secret. This one is public, because the people behind it do not exist."""

REUSE_EXPONENT: Final = 4.0
REUSE_OFFSET: Final = 0.001
"""Uses fall with a person's number x as (x / population + offset) ** (1 / exponent - 1): a tenth of the people make
nearly half of the uses, and nobody more than one in two thousand."""


@lru_cache(maxsize=1 << 17)
def pseudonym(person: int) -> str:
    """The keyed pseudonym of a person's number: HMAC-SHA-256 in base64url without padding, 43 characters."""
    digest = hmac.digest(DEMONSTRATION_KEY, person.to_bytes(8, "big"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest)[:-1].decode("ascii")


def draw_people(rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    """Numbers of ``count`` people, from 0 to the population less 1, frequent users first."""
    low, high = (edge ** (1 / REUSE_EXPONENT) for edge in (REUSE_OFFSET, 1 + REUSE_OFFSET))
    place = (low + rng.random(count) * (high - low)) ** REUSE_EXPONENT - REUSE_OFFSET
    people: npt.NDArray[np.int64] = np.clip(place * POPULATION, 0, POPULATION - 1).astype(np.int64)
    return people
