"""The catalogue of the comparison: 45 agencies and 400 services, made up, in the shape of the published figures."""

from pathlib import Path
from typing import Final

from pipeline.catalogue import Agency, Catalogue, Names, Service

AGENCIES: Final = 45
SERVICES: Final = 400
_SMALLEST: Final = 4
_RANKED: Final = SERVICES - _SMALLEST * AGENCIES


def catalogue() -> Catalogue:
    """Each agency has four services; the other 220 are shared out by rank, so that the first has most."""
    weights = [1 / rank for rank in range(1, AGENCIES + 1)]
    counts = [_SMALLEST + int(_RANKED * weight / sum(weights)) for weight in weights]
    for place in range(SERVICES - sum(counts)):
        counts[place] += 1
    return Catalogue(
        version=1,
        description="Catalogue of a benchmark: made up.",
        agencies=tuple(
            Agency(
                code=f"org-{number + 1:02}",
                name=_named(f"Agency {number + 1}"),
                services=tuple(
                    Service(code=f"service-{number + 1:02}-{place + 1:02}", name=_named(f"Service {place + 1}"))
                    for place in range(count)
                ),
            )
            for number, count in enumerate(counts)
        ),
    )


def write_catalogue(path: Path) -> Path:
    """Write it as the file that the setting ``catalogue.path`` takes; returns ``path``."""
    path.write_text(catalogue().json, "utf-8")
    return path


def _named(text: str) -> Names:
    return Names(az=text, en=text, ru=text)
