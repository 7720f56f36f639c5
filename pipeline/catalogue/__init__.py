"""The catalogue of agencies and services that events may name."""

from pipeline.catalogue.model import (
    Agency,
    Catalogue,
    Names,
    Service,
    catalogue_from_json,
    demonstration_catalogue,
    load_catalogue,
)

__all__ = [
    "Agency",
    "Catalogue",
    "Names",
    "Service",
    "catalogue_from_json",
    "demonstration_catalogue",
    "load_catalogue",
]
