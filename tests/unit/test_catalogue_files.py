"""Files of catalogue changes: CSV as a spreadsheet writes it, JSON lines, and what is said of a wrong row."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalogue.changes import AnyChange, Digitised, Moved, Promised, Registered
from pipeline.catalogue.files import changes_from_csv, changes_from_json_lines, changes_to_csv
from pipeline.catalogue.model import Names
from pipeline.errors import InputError
from tests.support.catalogue_changes import any_change

CSV = """change,agency,service,valid_from,name_az,name_en,name_ru,hosting,days,success_share
registered,taxes,,2013-07-01,"Vergilər, Nazirliyi",Ministry of Taxes,Министерство налогов,,,
digitised,taxes,vat,2013-08-01,,,,,,

moved,taxes,vat,2014-01-01,,,,government_cloud,,
promised, taxes ,vat,2014-01-01,,,,,15,0.98
"""
CHANGES = [
    Registered(
        agency="taxes",
        valid_from=date(2013, 7, 1),
        name=Names(az="Vergilər, Nazirliyi", en="Ministry of Taxes", ru="Министерство налогов"),
    ),
    Digitised(agency="taxes", service="vat", valid_from=date(2013, 8, 1)),
    Moved(agency="taxes", service="vat", valid_from=date(2014, 1, 1), hosting="government_cloud"),
    Promised(agency="taxes", service="vat", valid_from=date(2014, 1, 1), days=15, success_share=0.98),
]


def test_csv_as_a_spreadsheet_writes_it() -> None:
    assert changes_from_csv(CSV, "file") == CHANGES
    assert changes_from_csv("\ufeff" + CSV.replace("\n", "\r\n"), "file") == CHANGES
    semicolons = CSV.replace('"Vergilər, Nazirliyi"', "Vergilər# Nazirliyi").replace(",", ";").replace("#", ",")
    assert changes_from_csv(semicolons, "file") == CHANGES


def test_json_lines() -> None:
    text = '{"change": "digitised", "agency": "taxes", "service": "vat", "valid_from": "2013-08-01"}\n\n'
    assert changes_from_json_lines(text, "file") == [CHANGES[1]]


@given(st.lists(any_change(), max_size=20))
def test_what_is_written_is_read_again(changes: list[AnyChange]) -> None:
    assert changes_from_csv(changes_to_csv(changes), "file") == changes


HEAD = "change,agency,service,valid_from,days,void,into_agency,into_service,hosting,name_en\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file: line 1: there is no column change"),
        ("change,agency\n", "file: line 1: there is no column valid_from"),
        ("change,agency,valid_from,colour\n", "file: line 1: column 'colour'"),
        ("change,agency,agency,valid_from\n", "file: line 1: column 'agency'"),
        (HEAD + "digitised,a,s,2013-01-01\n", "file: line 2: 4 cells, but 10 columns"),
        (HEAD + "digitized,a,s,2013-01-01,,,,,,\n", "file: line 2: change 'digitized' is none of registered"),
        (HEAD + "digitised,a,s,01.02.2013,,,,,,\n", "file: line 2: Invalid RFC3339"),
        (HEAD + "digitised,a,,2013-01-01,,,,,,\n", "file: line 2: Object missing required field `service`"),
        (HEAD + "digitised,a,s,2013-01-01,5,,,,,\n", "file: line 2: digitised has no days; leave it out"),
        (HEAD + "promised,a,s,2013-01-01,soon,,,,,\n", "file: line 2: days 'soon' is not a number"),
        (HEAD + "withdrawn,a,s,2013-01-01,,perhaps,,,,\n", "file: line 2: void 'perhaps'; write yes or no"),
        (HEAD + "merged,a,s,2013-01-01,,,b,,,\n", "file: line 2: merged: an agency goes into an agency"),
        (HEAD + "registered,a,s,2013-01-01,,,,,,Name\n", "file: line 2: Object missing required field `az`"),
        (HEAD + "\nwithdrawn,a,s,2013-01-01,,,,,,\nmoved,a,s,2013-01-01,,,,,moon,\n", "file: line 4: Invalid enum"),
    ],
)
def test_a_wrong_row_is_named_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        changes_from_csv(text, "file")
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "file: line 2: not JSON"),
        ("[1]", "file: line 2: "),
        ('{"change": 5}', "file: line 2: change 5 is none of"),
        (
            '{"change": "withdrawn", "agency": "a", "valid_from": "2013-01-01", "colour": 1}',
            "file: line 2: withdrawn has no colour",
        ),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(line: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        changes_from_json_lines("\n" + line, "file")
    assert str(error.value).startswith(words)
