"""The figures that the synthetic events follow: which are published, and which are assumed.

Published: news of e-gov.az. December 2015 had 710,981 uses, of which the three leading agencies had 276,588, 238,393
and 168,584. The first half of 2016 had 8,155,155 uses of 423 services of 41 bodies, of which the two leading
services had 1,007,705 and 957,255. Which agencies and services led is not published: here the leaders are chosen.
Assumed: everything below the line; docs/generator.md says so too.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.catalogue import Catalogue

Floats = npt.NDArray[np.float64]

USES_DECEMBER_2015: Final = 710_981
LEADING_AGENCIES_USES: Final = (276_588, 238_393, 168_584)
USES_FIRST_HALF_2016: Final = 8_155_155
LEADING_SERVICES_USES: Final = (1_007_705, 957_255)
CENTRES: Final[dict[str, tuple[str, ...]]] = {
    "asan-1": ("narimanov", "nasimi", "binagadi"),
    "asan-2": ("nizami", "khatai", "surakhani"),
    "asan-sumgayit": ("sumgayit", "absheron"),
    "asan-3": ("yasamal",),
    "asan-4": ("sabunchi",),
    "asan-ganja": ("ganja", "goygol"),
}
"""Service centres and the districts they serve: AzerNews, 15 July 2013; the codes and two districts are made up."""

# ---------------------------------------------------------------------------------------------------- assumed

LEADERS: Final = ("taxes", "sspf", "mincom")
"""Agencies that take the published places 1 to 3. In a catalogue without them its first agencies do."""

NEVER_USED_SHARE: Final = 0.1
"""Share of an agency's services, the last ones in the catalogue, that nobody uses."""

ZIPF_EXPONENT: Final = 0.9
"""Fall of popularity with rank, among the agencies after the leaders and among the services of one agency."""

CHANNEL_SHARES: Final = {
    "web": 0.60,
    "mobile": 0.17,
    "centre": 0.07,
    "call_centre": 0.02,
    "kiosk": 0.02,
    "api": 0.12,
}
SIGN_IN_SHARES: Final = {"asan-imza": 0.38, "digital-login": 0.27, "e-signature": 0.15, "password": 0.20}
CONSUMERS: Final = ("digital-login", "document-circulation", "mygov", "asan-centres", "single-window")
"""Systems that call services of agencies, most frequent first."""

STATE_INITIATED_SHARE: Final = 0.03
RATED_SHARE: Final = 0.05
KNOWN_USER_SHARE: Final = {
    "web": 0.85,
    "mobile": 0.95,
    "centre": 0.98,
    "call_centre": 0.3,
    "kiosk": 0.6,
    "api": 0.0,
}
POPULATION: Final = 120_000
"""People who ever use a service. Few of them use services often: see :mod:`pipeline.generator.people`."""

APPLICATION_SERVICES_SHARE: Final = 0.25
"""Share of the services, the two leading ones of each agency apart, whose success starts an application."""

HOUR_WEIGHTS: Final = (
    *(0.22, 0.14, 0.10, 0.08, 0.08, 0.12, 0.25, 0.50, 1.00, 1.55, 1.85, 1.90),
    *(1.70, 1.50, 1.65, 1.75, 1.65, 1.40, 1.15, 1.05, 1.00, 0.90, 0.65, 0.40),
)
"""Relative load at each full hour in Baku, interpolated in between."""

WEEKDAY_WEIGHTS: Final = (1.20, 1.18, 1.15, 1.12, 1.08, 0.70, 0.57)
"""Relative load of Monday to Sunday in Baku."""

CENTRE_HOURS: Final = (9, 18)
"""Service centres are open from 9 to 18 o'clock, Monday to Saturday; offices Monday to Friday."""


def _zipf(count: int) -> Floats:
    weights: Floats = np.arange(1, count + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    weights /= weights.sum()
    return weights


def agency_shares(catalogue: Catalogue) -> dict[str, float]:
    """Agency code to its share of all uses; the shares of the agencies that have services add up to 1."""
    codes = [agency.code for agency in catalogue.agencies if agency.services]
    leaders = [code for code in LEADERS if code in codes]
    ranked = leaders + [code for code in codes if code not in leaders]
    published = [uses / USES_DECEMBER_2015 for uses in LEADING_AGENCIES_USES][: len(ranked)]
    rest = _zipf(max(len(ranked) - len(published), 1)) * (1 - sum(published))
    shares = np.array([*published, *rest])[: len(ranked)]
    return dict(zip(ranked, (shares / shares.sum()).tolist(), strict=True))


def service_shares(catalogue: Catalogue) -> Floats:
    """Share of all uses of each service, in the order of the catalogue; adds up to 1.

    Within an agency services fall in popularity in the order in which the catalogue lists them. The first services
    of the two leading agencies have the published shares. The last services of an agency are never used.
    """
    by_agency = agency_shares(catalogue)
    leading = dict(zip(by_agency, LEADING_SERVICES_USES, strict=False))
    shares: list[float] = []
    for agency in catalogue.agencies:
        count = len(agency.services)
        if not count:
            continue
        used = count - int(count * NEVER_USED_SHARE)
        share = by_agency[agency.code]
        first = leading.get(agency.code, 0) / USES_FIRST_HALF_2016
        if 0 < first < share and used > 1:
            within = np.array([first, *(_zipf(used - 1) * (share - first))])
        else:
            within = _zipf(used) * share
        shares += within.tolist() + [0.0] * (count - used)
    return np.array(shares)
