"""The demonstration catalogue: shape, codes and names."""

import re

import msgspec
import pytest

from pipeline.catalogue import Catalogue, demonstration_catalogue
from pipeline.contract.identifiers import code_fault

LEADING = ("mincom", "sspf", "mia", "justice", "taxes", "edu", "mlspp", "health", "customs", "csc")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return demonstration_catalogue()


def test_it_has_the_published_shape(catalogue: Catalogue) -> None:
    assert len(catalogue.agencies) == 41
    assert sum(len(agency.services) for agency in catalogue.agencies) == 423
    assert all(agency.services for agency in catalogue.agencies)


def test_it_says_that_it_is_synthetic(catalogue: Catalogue) -> None:
    assert catalogue.version == 1
    assert "emonstration" in catalogue.description
    assert "synthetic" in catalogue.description


def test_the_ten_leading_agencies_are_in_it(catalogue: Catalogue) -> None:
    assert set(LEADING) <= set(catalogue.by_code)


def test_codes_are_short_lower_case_ascii_and_no_identifiers(catalogue: Catalogue) -> None:
    codes = {code for pair in catalogue.pairs for code in pair}
    for code in codes:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code), code
        assert len(code) <= 64
        assert code_fault(code) is None


def test_services_of_an_agency_differ_in_name_too(catalogue: Catalogue) -> None:
    for agency in catalogue.agencies:
        for language in ("az", "en", "ru"):
            names = [getattr(service.name, language) for service in agency.services]
            assert len(set(names)) == len(names), (agency.code, language)


def test_names_are_in_their_language(catalogue: Catalogue) -> None:
    named = [agency.name for agency in catalogue.agencies]
    named += [service.name for agency in catalogue.agencies for service in agency.services]
    for name in named:
        assert re.search("[А-Яа-яЁё]", name.ru), name
        assert name.en.isascii(), name
        assert not re.search("[А-Яа-яЁё]", name.az), name
    assert sum(bool(re.search("[əğıöşüçƏĞİÖŞÜÇ]", name.az)) for name in named) > 0.95 * len(named)


def test_it_survives_a_round_trip(catalogue: Catalogue) -> None:
    assert msgspec.json.decode(catalogue.json, type=Catalogue) == catalogue
