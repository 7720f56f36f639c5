"""What each service is like: how popular, how fast, how reliable, where it runs, whether it starts applications.

All figures except the popularity are assumptions, drawn once from the seed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.catalogue import Catalogue
from pipeline.generator.calibration import APPLICATION_SERVICES_SHARE, service_shares

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MEDIAN_MS = 350.0
SLOW_SHARE = 0.05
SLOW_FACTOR = 12.0
UNRELIABLE_SHARE = 0.04
CLOUD_SPEED = 0.8
"""Durations in the government cloud, relative to those in the agency's own data centre."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """One entry per service, in the order of the catalogue."""

    agencies: tuple[str, ...]
    services: tuple[str, ...]
    sources: tuple[str, ...]
    cumulative: Floats
    median_ms: Floats
    sigma: Floats
    failure: Floats
    abandoned: Floats
    not_eligible: Floats
    in_cloud_from: Floats
    """Share of the period after which the service runs in the government cloud: 0 always, 1 never."""
    starts_application: Flags

    def draw(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Numbers of ``count`` services, by popularity."""
        return np.searchsorted(self.cumulative, rng.random(count), side="right").astype(np.int64)


def profiles_of(catalogue: Catalogue, seed: int) -> Profiles:
    """The profiles of all services of the catalogue.

    Raises:
        ValueError: the catalogue has no service.
    """
    named = [(agency.code, service.code) for agency in catalogue.agencies for service in agency.services]
    if not named:
        raise ValueError("the catalogue has no service to generate uses of")
    count = len(named)
    rng = np.random.default_rng([seed, 1])
    shares = service_shares(catalogue)
    rank = np.array([place for agency in catalogue.agencies for place in range(len(agency.services))])
    slow = rng.random(count) < SLOW_SHARE
    median = MEDIAN_MS * np.exp(rng.normal(0.0, 0.6, count)) * np.where(slow, SLOW_FACTOR, 1.0)
    unreliable = rng.random(count) < UNRELIABLE_SHARE
    hosting = rng.random(count)
    cumulative = np.cumsum(shares)
    cumulative /= cumulative[-1]
    return Profiles(
        agencies=tuple(agency for agency, _ in named),
        services=tuple(service for _, service in named),
        sources=tuple(f"https://{agency}.example/e-services" for agency, _ in named),
        cumulative=cumulative,
        median_ms=median,
        sigma=rng.uniform(0.4, 0.9, count),
        failure=rng.beta(2.0, 150.0, count) + np.where(unreliable, 0.06, 0.0),
        abandoned=rng.beta(2.0, 40.0, count),
        not_eligible=rng.beta(1.0, 40.0, count),
        # A half is in the cloud already, three tenths stay where they are, a fifth moves within the period.
        in_cloud_from=np.where(hosting < 0.5, 0.0, np.where(hosting < 0.8, 1.0, rng.uniform(0.3, 0.7, count))),
        starts_application=(rank >= 2) & (rng.random(count) < APPLICATION_SERVICES_SHARE),
    )
