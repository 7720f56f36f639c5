"""Agencies and their services, as data: versioned, validated when loaded, immutable afterwards."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pipeline.contract.events import CODE_PATTERN
from pipeline.errors import CatalogueError

Code = Annotated[str, Meta(pattern=CODE_PATTERN)]
Name = Annotated[str, Meta(min_length=1, max_length=300)]


class Names(Struct, frozen=True, forbid_unknown_fields=True):
    """A name in Azerbaijani, English and Russian."""

    az: Name
    en: Name
    ru: Name


class Service(Struct, frozen=True, forbid_unknown_fields=True):
    """A service of an agency. ``code`` is unique within the agency."""

    code: Code
    name: Names


class Agency(Struct, frozen=True, forbid_unknown_fields=True):
    """A body that offers services. ``code`` is unique within the catalogue."""

    code: Code
    name: Names
    services: tuple[Service, ...]


class Catalogue(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """All agencies and services of one version. A version number stands for one content, for ever."""

    version: Annotated[int, Meta(ge=1)]
    agencies: tuple[Agency, ...]
    description: str = ""

    @cached_property
    def by_code(self) -> dict[str, Agency]:
        """Agency code to agency."""
        return {agency.code: agency for agency in self.agencies}

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """All (agency code, service code) that events may name."""
        return frozenset((agency.code, service.code) for agency in self.agencies for service in agency.services)

    @cached_property
    def json(self) -> str:
        """The canonical JSON text, the same for the same content."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(self.json.encode()).hexdigest()


def catalogue_from_json(text: bytes | str, where: str) -> Catalogue:
    """Decode and validate a catalogue; ``where`` names its origin in errors.

    Raises:
        CatalogueError: not JSON, a field wrong, or a code used twice.
    """
    try:
        catalogue = msgspec.json.decode(text, type=Catalogue)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{where}: {error}; see docs/catalogue.md for the format") from error
    if len(catalogue.by_code) != len(catalogue.agencies):
        raise CatalogueError(f"{where}: agency {_first_twice(a.code for a in catalogue.agencies)!r} stands twice")
    for agency in catalogue.agencies:
        codes = [service.code for service in agency.services]
        if len(set(codes)) != len(codes):
            raise CatalogueError(f"{where}: agency {agency.code!r} has service {_first_twice(codes)!r} twice")
    return catalogue


def _first_twice(codes: Iterable[str]) -> str:
    seen: set[str] = set()
    for code in codes:
        if code in seen:
            return code
        seen.add(code)
    raise AssertionError("no code stands twice")


def load_catalogue(path: Path | None) -> Catalogue:
    """Load the catalogue at ``path``; None gives the demonstration catalogue.

    Raises:
        CatalogueError: the file cannot be read or is not valid.
    """
    if path is None:
        return demonstration_catalogue()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}; set catalogue.path to a readable file") from error
    return catalogue_from_json(text, str(path))


def demonstration_catalogue() -> Catalogue:
    """The catalogue shipped with the program: 41 bodies and 423 services, as published for 2016."""
    resource = resources.files("pipeline.catalogue") / "demonstration.json"
    return catalogue_from_json(resource.read_bytes(), "demonstration.json")
