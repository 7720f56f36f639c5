"""Figures from spreadsheets: periods, numbers, names, and what is said of a wrong row."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalogue import Agency, Catalogue, Names, Service
from pipeline.contract.statements import Logged, Unreadable
from pipeline.errors import InputError
from pipeline.figures.model import MEASURES, Figure, fault_of, period_of, read_figure
from pipeline.importers.table import figures_from_csv, number
from pipeline.runtime.statements import FIGURES, message


def named(word: str) -> Names:
    return Names(az=f"{word} az", en=word, ru=f"{word} ru")


CATALOGUE = Catalogue(
    version=1,
    agencies=(
        Agency(
            code="taxes",
            name=Names(az="Vergilər Nazirliyi", en="Ministry of Taxes", ru="Министерство налогов"),
            services=(
                Service(code="vat", name=named("VAT return")),
                Service(code="land", name=named("Payment")),
                Service(code="rent", name=named("Payment")),
            ),
        ),
    ),
)


def read(text: str, *mapped: str, currency: str = "AZN", **constants: str) -> list[Figure]:
    columns = dict(pair.split("=") for pair in mapped)
    return figures_from_csv(text, "file", CATALOGUE, columns, constants, currency)


@pytest.mark.parametrize(
    ("text", "start", "length", "end"),
    [
        ("2013-07-15", date(2013, 7, 15), "day", date(2013, 7, 16)),
        ("31.12.2013", date(2013, 12, 31), "day", date(2014, 1, 1)),
        ("2015-12", date(2015, 12, 1), "month", date(2016, 1, 1)),
        (" 7.2013 ", date(2013, 7, 1), "month", date(2013, 8, 1)),
        ("2013-Q4", date(2013, 10, 1), "quarter", date(2014, 1, 1)),
        ("2013q1", date(2013, 1, 1), "quarter", date(2013, 4, 1)),
        ("2016-H1", date(2016, 1, 1), "half_year", date(2016, 7, 1)),
        ("2016-h2", date(2016, 7, 1), "half_year", date(2017, 1, 1)),
        ("2016", date(2016, 1, 1), "year", date(2017, 1, 1)),
    ],
)
def test_periods(text: str, start: date, length: str, end: date) -> None:
    assert period_of(text) == (start, length)
    figure = Figure(measure="uses", start=start, length=period_of(text)[1], value=Decimal(1))
    assert fault_of(figure) == ""
    assert figure.end == end


@pytest.mark.parametrize(
    "text", ["", "July", "2013-13", "32.12.2013", "2013-02-30", "13", "2013-Q5", "2013-H0", "2013-07-1x", "٢٠١٣"]
)
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError, match="is none; write 2013-07-15"):
        period_of(text)


@pytest.mark.parametrize(
    ("text", "measure", "value"),
    [
        ("710981", "uses", "710981"),
        ("710 981", "uses", "710981"),
        ("8\u00a0155\u202f155".replace("\u202f", "\u00a0"), "uses", "8155155"),
        ("8,155,155", "uses", "8155155"),
        ("8.155.155", "uses", "8155155"),
        ("710,981", "uses", "710981"),
        ("0", "uses", "0"),
        ("1234.50", "cost", "1234.50"),
        ("1234,5", "cost", "1234.5"),
        ("1.234,50", "cost", "1234.50"),
        ("1,234,567.89", "cost", "1234567.89"),
        ("1 234 567", "cost", "1234567"),
        ("1'234.5", "cost", "1234.5"),
    ],
)
def test_numbers(text: str, measure: str, value: str) -> None:
    assert number(text, "place", measure) == Decimal(value)


@pytest.mark.parametrize(
    ("text", "measure", "words"),
    [
        ("1,234", "cost", "can be read in two ways"),
        ("many", "uses", "is no number"),
        ("-5", "uses", "is no number"),
        ("NaN", "uses", "is no number"),
        ("1 23", "uses", "is no number"),
        ("1,234.567,89", "cost", "is no number"),
        ("12..5", "cost", "is no number"),
    ],
)
def test_what_is_no_number(text: str, measure: str, words: str) -> None:
    with pytest.raises(InputError, match=f"place: {measure} .*{words}"):
        number(text, "place", measure)


@given(st.integers(0, 10**12), st.sampled_from([" ", "\u00a0", ",", ".", "'"]))
def test_whole_numbers_are_read_however_they_are_grouped(value: int, mark: str) -> None:
    assert number(f"{value:,}".replace(",", mark), "place", "uses") == value


def test_a_spreadsheet_in_the_words_of_an_agency() -> None:
    text = (
        "İdarə;Xidmət;Ay;Kanal;Müraciət;Vətəndaş;Xərc\n"
        "vergilər nazirliyi;VAT return;2015-12;web;1 200;800;3.456,78\n"
        ";;;;;;\n"
        "Ministry of Taxes;;2015-12;;5 000;;\n"
    )
    mapped = ["agency=İdarə", "service=Xidmət", "period=Ay", "channel=Kanal", "uses=Müraciət", "people=Vətəndaş"]
    found = read(text, *mapped, "cost=Xərc")
    month = {"start": date(2015, 12, 1), "length": "month", "agency": "taxes"}
    vat = month | {"service": "vat", "channel": "web"}
    assert found == [
        Figure(measure="uses", value=Decimal(1200), **vat),
        Figure(measure="people", value=Decimal(800), **vat),
        Figure(measure="cost", value=Decimal("3456.78"), currency="AZN", **vat),
        Figure(measure="uses", value=Decimal(5000), **month),
    ]


def test_figures_of_the_whole_state_and_constants() -> None:
    assert read("uses\n710,981\n".replace(",", ""), period="2015-12") == [
        Figure(measure="uses", start=date(2015, 12, 1), length="month", value=Decimal(710_981))
    ]


@pytest.mark.parametrize(
    ("text", "mapped", "words"),
    [
        ("", (), "file: line 1: no column period"),
        ("period\n2013\n", (), "file: line 1: no column with numbers"),
        ("period,uses\n2013,1\n", ("agency=Agency",), "file: line 1: no column 'Agency'; there are 'period', 'uses'"),
        ("Ay,Say\n2013,1\n", ("period=Ayy", "uses=Say"), "file: line 1: no column 'Ayy'; did you mean 'Ay'?"),
        ("period,uses,uses\n", (), "file: line 1: column 'uses' stands twice"),
        ("period,uses\n2013\n", (), "file: line 2: 1 cells, but 2 columns"),
        ("period,uses\nsoon,1\n", (), "file: line 2: period 'soon' is none"),
        (
            "period,uses,agency\n2013,1,tax\n",
            (),
            "file: line 2: the catalogue has no agency 'tax'; did you mean 'taxes'?",
        ),
        ("period,uses,service\n2013,1,vat\n", (), "file: line 2: service 'vat' without its agency"),
        ("period,uses,agency,service\n2013,1,taxes,va\n", (), "file: line 2: taxes has no service 'va'"),
        (
            "period,uses,agency,service\n2013,1,taxes,payment\n",
            (),
            "file: line 2: taxes has several services named 'payment': write land or rent",
        ),
        ("period,uses,channel\n2013,1,fax\n", (), "file: line 2: channel 'fax' is none of web"),
        ("period,uses\n2013,1.5\n", (), "file: line 2: value of uses must be a whole number"),
        ("period,uses\n2013,1\n\n2013,2\n", (), "file: line 4: uses of the same agency, service, channel and period"),
    ],
)
def test_a_wrong_row_is_named_with_what_is_wrong(text: str, mapped: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError) as error:
        read(text, *mapped)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": date(2013, 2, 1), "length": "quarter"}, "is not the first day of a quarter"),
        ({"start": date(2013, 1, 2)}, "is not the first day of a month"),
        ({"start": date(1969, 1, 1)}, "start must be from"),
        ({"service": "vat"}, "service needs its agency"),
        ({"value": Decimal(-1)}, "value must be from 0"),
        ({"value": Decimal("NaN")}, "value must be from 0"),
        ({"value": Decimal(10) ** 14}, "value must be from 0"),
        ({"value": Decimal("0.5")}, "must be a whole number"),
        ({"currency": "AZN"}, "uses has no currency"),
        ({"measure": "cost"}, "cost needs a currency"),
        ({"measure": "cost", "currency": "azn"}, "three capital letters"),
        ({"measure": "cost", "currency": "AZN", "value": Decimal("0.001")}, "two decimals"),
    ],
)
def test_a_figure_that_contradicts_itself_has_no_effect(changes: dict[str, object], words: str) -> None:
    fields = {"measure": "uses", "start": date(2013, 1, 1), "length": "month", "value": Decimal(1)} | changes
    figure = Figure(**fields)  # type: ignore[arg-type]
    assert words in fault_of(figure)
    found = read_figure(message(FIGURES, "test", figure), 5, 0)
    assert isinstance(found, Unreadable)
    assert found.offset == 5


@given(
    st.sampled_from(MEASURES),
    st.integers(0, 10**13),
    st.sampled_from(["2013-07-15", "2013-07", "2013-Q3", "2013-H2", "2013"]),
    st.booleans(),
)
def test_a_figure_survives_its_message(measure: str, hundredths: int, period: str, void: bool) -> None:
    start, length = period_of(period)
    cost = measure == "cost"
    figure = Figure(
        measure=measure,  # type: ignore[arg-type]
        start=start,
        length=length,
        value=Decimal(hundredths) / 100 if cost else Decimal(hundredths),
        currency="AZN" if cost else None,
        void=void,
    )
    found = read_figure(message(FIGURES, "test", figure), 1, 2)
    assert isinstance(found, Logged)
    assert found.said == figure
