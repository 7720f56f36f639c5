"""The page in a real browser, served by the real web server from real results in chdb.

The server runs in a process of its own, because chdb allows one session per process; run as a program, this module is
that process. It takes one command a line on standard input and ends with it.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pytest

from pipeline.catalogue import demonstration_catalogue
from pipeline.contract.events import STAGE_TYPE, USED_TYPE
from pipeline.generator import Generator
from tests.support.ports import LOOPBACK, free_port, listens
from tests.support.skipping import skip_or_fail
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

Event = dict[str, Any]

SECONDS: Final = 15.0
HOUR: Final = 60
DAY: Final = 1_440
WIDTHS: Final = (360, 768, 1024, 1280)
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ROWS: Final = """() => [...document.querySelectorAll('#rows tr')].map((tr) => ({
    ...Object.fromEntries([...tr.cells].map((cell) => [cell.className.split(' ')[0], cell.innerText.trim()])),
    agency: tr.dataset.agency,
    name: tr.querySelector('.name').textContent,
    rank: tr.querySelector('.place').textContent,
}))"""
FIGURES: Final = """() => Object.fromEntries(
    [...document.querySelectorAll('#figures dd[id]')].map((node) => [node.id, node.textContent])
)"""
CONTRASTS: Final = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const parse = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (colour) => {
        const [r, g, b] = colour.slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = parse(getComputedStyle(node).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const bad = [];
    for (const node of document.body.querySelectorAll('*')) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.getClientRects().length || node.closest('.skip, noscript')) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) bad.push(`${node.tagName}.${node.className}: ${ratio.toFixed(2)} ${node.textContent}`);
    }
    return bad;
}"""


class PageServer:
    """The web server in its own process, on an own chdb directory. ``events`` are those it has folded."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.events: list[Event] = []
        self._log = (directory / "server.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory / "chdb"), str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self.command("start")
        except BaseException:
            self.close()
            raise

    def command(self, what: str, **arguments: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"what": what} | arguments) + "\n")
            self._process.stdin.flush()
        # A process that fails ends, which ends its output.
        answer = self._process.stdout.readline()
        assert answer == "done\n", Path(self._log.name).read_text("utf-8")

    def write(self, events: list[Event]) -> None:
        self.command("write", events=events)
        self.events += events

    def answer(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=SECONDS) as answer:
            return json.load(answer)

    def close(self) -> None:
        try:
            with suppress(subprocess.TimeoutExpired, BrokenPipeError):
                self._process.communicate(timeout=10)
        finally:
            self._process.kill()
            self._process.wait(10)
            self._log.close()


@dataclass
class Window:
    """What the events of a period say, counted without any code of the pipeline, and what the page showed then."""

    end: datetime
    ranking: list[tuple[str, int]]
    uses: int
    people: int
    reporting: int
    durations: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, str]] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, events: list[Event], minutes: int, end: datetime) -> "Window":
        start = end - timedelta(minutes=minutes)
        # Some messages are no event.
        told = [event for event in events if event.get("type") in (USED_TYPE, STAGE_TYPE)]
        inside = [event for event in told if start <= datetime.fromisoformat(event["time"]) < end]
        used = [event["data"] for event in inside if event.get("type") == USED_TYPE]
        counts = Counter(data["agency"] for data in used)
        window = cls(
            end,
            sorted(counts.items(), key=lambda item: (-item[1], item[0])),
            len(used),
            len({data["user"] for data in used if "user" in data}),
            # An agency that told of a stage of an application alone has reported as well.
            len({event["data"]["agency"] for event in inside}),
        )
        for data in used:
            window.durations.setdefault(data["agency"], []).append(data["duration_ms"])
            window.failures[data["agency"]] += data["outcome"] == "failure"
        return window


@dataclass
class Visits:
    """Opens pages and remembers what they asked for and complained about."""

    browser: "Browser"
    url: str
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, path: str = "/", *, width: int = 1280, scheme: Any = "light", **options: Any) -> "Page":
        context = self.browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, **({"locale": "en-GB"} | options)
        )
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._request)
        page.goto(self.url + path)
        return page

    def _console(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _request(self, request: "Request") -> None:
        self.asked.append(request.url)

    def expect_errors(self, pattern: str) -> None:
        """The browser itself reports requests that fail; those that a test brought about are no fault."""
        self.errors = [error for error in self.errors if not re.search(pattern, error)]


def generated(now: datetime) -> list[Event]:
    """A day, and within it two busy hours of another mixture, so that the periods rank differently."""
    catalogue = demonstration_catalogue()
    day = Generator(catalogue, 7).events(now - timedelta(hours=26), now, 9_000)
    hours = Generator(catalogue, 8).events(now - timedelta(hours=2), now, 4_000)
    return sorted([*day, *hours], key=lambda event: str(event["time"]))


def use(agency: str, moment: datetime, identifier: str) -> Event:
    service = demonstration_catalogue().by_code[agency].services[0].code
    return {
        "specversion": "1.0",
        "id": identifier,
        "source": "/tests",
        "type": USED_TYPE,
        "time": moment.isoformat(),
        "data": {"agency": agency, "service": service, "channel": "web", "outcome": "success", "duration_ms": 120},
    }


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    if find_spec("playwright") is None:
        skip_or_fail("playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        skip_or_fail(f"none of {', '.join(BROWSERS)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS), timeout=30_000)
        yield running
        running.close()


@pytest.fixture(scope="module")
def serving() -> Callable[[Path], PageServer]:
    if find_spec("chdb") is None:
        skip_or_fail("chdb is not installed")
    return PageServer


@pytest.fixture(scope="module")
def server(
    browser: "Browser", serving: Callable[[Path], PageServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageServer]:
    running = serving(tmp_path_factory.mktemp("page"))
    try:
        running.write(generated(datetime.now(UTC)))
        yield running
    finally:
        running.close()


@pytest.fixture
def visits(browser: "Browser", server: PageServer) -> Iterator[Visits]:
    visits = Visits(browser, server.url)
    yield visits
    for context in list(browser.contexts):
        context.close()
    assert not visits.errors
    assert visits.asked
    assert all(url.startswith(visits.url + "/") for url in visits.asked)


def rows_of(page: "Page") -> list[dict[str, str]]:
    rows: list[dict[str, str]] = page.evaluate(ROWS)
    return rows


def whole(text: str) -> int:
    return int(re.sub(r"\D", "", text) or -1)


def milliseconds(text: str) -> float:
    number, unit = text.split("\xa0")
    return float(number.replace(",", "")) * {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}[unit]


def await_in(page: "Page", condition: Callable[[], object], what: str) -> None:
    """Wait for a condition and let the page's events through: its policy forbids that the browser waits by eval."""

    def met() -> bool:
        page.wait_for_timeout(50)
        return bool(condition())

    wait_until(met, SECONDS, what)


def shows(page: "Page", server: PageServer, minutes: int) -> Window:
    """Wait until the page shows exactly what the events of the period say; the minute may turn meanwhile."""
    found: list[Window] = []

    def same() -> bool:
        this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
        expected = Window.of(server.events, minutes, this_minute + timedelta(minutes=1))
        expected.rows, expected.figures = page.evaluate(f"() => [({ROWS})(), ({FIGURES})()]")
        ranking = [(row["agency"], whole(row["uses"])) for row in expected.rows]
        if ranking != expected.ranking or whole(expected.figures["uses"]) != expected.uses:
            return False
        found.append(expected)
        return True

    await_in(page, same, f"the ranking of the last {minutes} minutes")
    return found[-1]


def test_the_ranking_is_an_independent_count_of_the_events(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    expected = shows(page, server, HOUR)
    rows, figures = expected.rows, expected.figures
    assert len(rows) > 10
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert whole(figures["people"]) == pytest.approx(expected.people, rel=0.03)
    assert figures["reporting"] == f"{expected.reporting} / {len(demonstration_catalogue().agencies)}"
    assert figures["rejected"] == "0"
    assert float(figures["uses-per-second"]) > 0
    previous = dict(Window.of(server.events, HOUR, expected.end - timedelta(minutes=HOUR)).ranking)
    for row in rows[:3]:
        code = row["agency"]
        uses = dict(expected.ranking)[code]
        durations = sorted(expected.durations[code])
        assert float(row["share"].rstrip("%")) == pytest.approx(100 * uses / expected.uses, abs=0.06)
        assert float(row["failed"].split("%")[0]) == pytest.approx(100 * expected.failures[code] / uses, abs=0.06)
        # One rank beside, and 1 % of the histogram and of rounding.
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            place = int(share * (len(durations) - 1))
            low, high = durations[max(place - 1, 0)], durations[min(place + 2, len(durations) - 1)]
            assert low * 0.98 - 1 <= milliseconds(row[name]) <= high * 1.02 + 1, (code, name)
        sign = {"▲": 1, "▼": -1}.get(row["change"][0], 0)
        change = float(re.findall(r"[\d.]+", row["change"])[0])
        assert sign * change == pytest.approx(100 * (uses / previous[code] - 1), abs=0.6)


def test_another_period_has_another_ranking(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    hour = shows(page, server, HOUR)
    page.get_by_role("radio", name="24 h").check(force=True)
    day = shows(page, server, DAY)
    assert day.uses > hour.uses
    assert [code for code, _ in day.ranking] != [code for code, _ in hour.ranking]
    assert "last 24 hours" in page.inner_text("#caption")
    assert page.url.endswith("?minutes=1440")
    page.reload()
    shows(page, server, DAY)
    assert page.get_by_role("radio", name="24 h").is_checked()


def test_it_works_with_the_keyboard_alone(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "language"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    shows(page, server, DAY)
    assert page.evaluate("document.activeElement.value") == str(DAY)
    await_in(page, lambda: page.inner_text("#announcer").startswith("last 24 hours: "), "the period told")


@pytest.mark.parametrize(
    ("locale", "language", "title"),
    [
        ("az-AZ", "az", "Dövlət elektron xidmətlərindən istifadə"),
        ("ru-RU", "ru", "Использование государственных электронных услуг"),
        ("fr-FR", "en", "Use of public e-services"),
    ],
)
def test_the_language_is_the_browsers(
    visits: Visits, server: PageServer, locale: str, language: str, title: str
) -> None:
    page = visits.open(locale=locale)
    shows(page, server, HOUR)
    assert page.inner_text("h1") == title
    assert page.get_attribute("html", "lang") == language
    names = {agency.code: getattr(agency.name, language) for agency in demonstration_catalogue().agencies}
    assert all(row["name"] == names[row["agency"]] for row in rows_of(page))


def test_a_chosen_language_is_kept(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)
    for language, label in (("az", "Qurum"), ("ru", "Ведомство"), ("en", "Agency"), ("az", "Qurum")):
        page.select_option("#language", language)
        assert page.inner_text("th.agency[scope=col]") == label
        names = {agency.code: getattr(agency.name, language) for agency in demonstration_catalogue().agencies}
        assert all(row["name"] == names[row["agency"]] for row in rows_of(page))
    page.reload()
    shows(page, server, HOUR)
    assert page.inner_text("th.agency[scope=col]") == "Qurum"


def test_every_language_has_every_text(visits: Visits) -> None:
    script = visits.open().request.get(visits.url + "/static/app.js").text()
    texts = script[: script.index("};")]
    keys = [re.findall(r"^    (\w+):", part, re.MULTILINE) for part in re.split(r"^  \w\w: \{", texts, flags=re.M)[1:]]
    assert len(keys) == 3
    assert keys[0] == keys[1] == keys[2]


def test_rows_move_and_are_not_made_anew(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    expected = shows(page, server, HOUR)
    page.evaluate("document.querySelectorAll('#rows tr').forEach((tr) => { tr.seenBefore = true; })")
    (_, most), (risen, uses) = expected.ranking[0], expected.ranking[4]
    now = datetime.now(UTC)
    server.write([use(risen, now, f"risen-{number}") for number in range(most - uses + 1)])
    after = shows(page, server, HOUR)
    assert after.ranking[0][0] == risen
    kept = page.evaluate(
        "[...document.querySelectorAll('#rows tr')].filter((tr) => tr.seenBefore).map((tr) => tr.dataset.agency)"
    )
    assert set(kept) == dict(expected.ranking).keys() & dict(after.ranking).keys()


def test_the_time_of_the_data_is_told_in_baku(visits: Visits, server: PageServer) -> None:
    server.write([use("taxes", datetime.now(UTC), "fresh")])
    page = visits.open(timezone_id="America/New_York")
    shows(page, server, HOUR)
    as_of = datetime.fromisoformat(server.answer("/api/overview?minutes=60")["data_as_of"])
    assert page.inner_text("#as-of") == as_of.astimezone(ZoneInfo("Asia/Baku")).strftime("%H:%M:%S")
    assert page.inner_text("#zone") == "(Asia/Baku, UTC+4)"
    assert not page.is_visible("#stale")


def test_old_data_is_marked_until_new_data_comes(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)

    def older(route: "Route") -> None:
        answer = route.fetch()
        content = answer.json()
        moment = datetime.fromisoformat(content["generated_at"]) - timedelta(minutes=3)
        route.fulfill(response=answer, json=content | {"data_as_of": moment.isoformat()})

    page.route("**/api/overview*", older)
    page.wait_for_selector("#stale:visible")
    assert page.inner_text("#stale") == "Warning: the newest event is 3\xa0min old"
    assert page.inner_text("#announcer") == page.inner_text("#stale")
    server.write([use("taxes", datetime.now(UTC), "newer")])
    page.unroute("**/api/overview*", older)
    page.wait_for_selector("#stale", state="hidden")
    assert page.inner_text("#announcer") == "New events are arriving again."


def test_a_worker_that_stops_is_told_and_its_return_noticed(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)
    server.command("stop")
    try:
        page.wait_for_selector("#banner:visible")
        assert page.inner_text("#banner-what") == "The worker does not answer."
        assert "The worker does not answer." in page.inner_text("#announcer")
        assert rows_of(page)
        await_in(
            page,
            lambda: re.match(r"Next attempt in \d+\ss", page.inner_text("#banner-next")),
            "the time of the next attempt",
        )
    finally:
        server.command("start")
    page.wait_for_selector("#banner", state="hidden")
    shows(page, server, HOUR)
    assert page.inner_text("#announcer") == "The figures are up to date again."
    visits.expect_errors("Failed to load resource: net::ERR_")


def test_clickhouse_being_away_is_told_with_its_reason(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)
    server.command("sql", sql="RENAME TABLE minutes TO minutes_away")
    try:
        page.wait_for_selector("#banner:visible")
        assert page.inner_text("#banner-what") == "ClickHouse is away:"
        assert "minutes" in page.inner_text("#banner-reason")
        assert rows_of(page)
    finally:
        server.command("sql", sql="RENAME TABLE minutes_away TO minutes")
    page.get_by_role("button", name="Try now").click()
    page.wait_for_selector("#banner", state="hidden")
    visits.expect_errors("status of 503")


def test_results_that_cannot_be_written_are_told(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)
    server.command("fail", error="disk is full <b>now</b>")
    try:
        page.wait_for_selector("#banner:visible")
        assert page.inner_text("#banner-what") == "Results are not being written:"
        assert page.inner_text("#banner-reason") == "disk is full <b>now</b>"
    finally:
        server.command("fail", error="")
    page.wait_for_selector("#banner", state="hidden")


def test_requests_do_not_overlap(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)
    under_way: list[int] = [0]
    most: list[int] = [0]
    seen: list[str] = []

    def slowly(route: "Route") -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        answer = route.fetch()
        # Longer than the page waits between two requests.
        page.wait_for_timeout(1_700)
        route.fulfill(response=answer)
        under_way[0] -= 1
        seen.append(route.request.url)

    page.route("**/api/overview*", slowly)
    await_in(page, lambda: len(seen) >= 2, "two slow answers")
    page.unroute_all(behavior="wait")
    assert most == [1]


def test_names_are_text_and_never_markup(visits: Visits, server: PageServer) -> None:
    page = visits.open()
    shows(page, server, HOUR)
    hostile = "<img src=x onerror='document.title=1'><script>alert(1)</script>"

    def named(route: "Route") -> None:
        answer = route.fetch()
        content = answer.json()
        content["agencies"][0] |= {"name": dict.fromkeys(("az", "en", "ru"), hostile), "agency": f"{hostile}'\""}
        route.fulfill(response=answer, json=content)

    page.route("**/api/overview*", named)
    await_in(page, lambda: rows_of(page)[0]["name"] == hostile, "the name as it is written")
    assert rows_of(page)[0]["agency"] == f"{hostile}'\""
    assert page.locator("#rows img, #rows script").count() == 0
    page.unroute_all(behavior="wait")


def test_before_the_first_event_it_says_how_to_send_one(
    browser: "Browser", serving: Callable[[Path], PageServer], tmp_path: Path
) -> None:
    server = serving(tmp_path)
    try:
        visits = Visits(browser, server.url)
        page = visits.open()
        page.wait_for_selector("#empty-text[data-state=empty]")
        assert page.inner_text("#empty-text") == "No events yet; send some with:"
        assert "xidmet emit" in page.inner_text("#empty-hint")
        assert not page.is_visible("#ranking")
        server.write([{"specversion": "1.0"}])
        page.wait_for_selector("#empty-text[data-state=refused]")
        assert page.inner_text("#rejected") == "1"
        server.write([use("taxes", datetime.now(UTC) - timedelta(hours=3), "1")])
        page.wait_for_selector("#empty-text[data-state=nothing]")
        server.write([use("taxes", datetime.now(UTC), "2")])
        page.wait_for_selector("#rows tr")
        assert not page.is_visible("#empty")
        shows(page, server, HOUR)
        page.context.close()
        assert not visits.errors
    finally:
        server.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_readable_at_any_width_and_in_both_schemes(
    visits: Visits, server: PageServer, width: int, scheme: str, tmp_path: Path
) -> None:
    page = visits.open(width=width, scheme=scheme)
    shows(page, server, HOUR)
    for language in ("az", "ru", "en"):
        page.select_option("#language", language)
        wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
        assert max(wide) <= width, language
        outside = page.evaluate(
            "(width) => [...document.querySelectorAll('#rows td, #rows th, .figures dd, .figures dt')]"
            ".filter((cell) => cell.scrollWidth > cell.clientWidth + 1 && cell.clientWidth"
            " || cell.getBoundingClientRect().right > width).map((cell) => cell.className + ' ' + cell.textContent)",
            width,
        )
        assert outside == [], language
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == (scheme == "dark")
    assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 64) == dark
    assert page.evaluate(CONTRASTS) == []
    table = page.get_by_role("table")
    assert table.get_by_role("rowheader").count() == len(rows_of(page))
    assert table.get_by_role("columnheader").count() == 12
    picture = page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    assert len(picture) > 10_000


def test_motion_is_left_out_where_it_is_not_wanted(visits: Visits, server: PageServer) -> None:
    page = visits.open(reduced_motion="reduce")
    expected = shows(page, server, HOUR)
    page.evaluate("() => { Element.prototype.animate = () => { document.body.dataset.moved = 'yes'; }; }")
    (upper, most), (lower, uses) = expected.ranking[1], expected.ranking[2]
    server.write([use(lower, datetime.now(UTC), f"still-{number}") for number in range(most - uses + 1)])
    ranking = [code for code, _ in shows(page, server, HOUR).ranking]
    assert ranking.index(lower) < ranking.index(upper)
    assert page.evaluate("document.body.dataset.moved") is None
    assert page.evaluate("getComputedStyle(document.querySelector('.track i')).transitionProperty") == "none"


class _State:
    """Tells the state of a worker that has nothing to do but to serve."""

    error = ""

    def status(self) -> Any:
        from streams.interfaces import Status

        return Status(assigned=1, last_error=self.error)

    def look(self) -> Any:
        from streams.health import Verdict

        return Verdict()


async def _serve(directory: str, port: int) -> None:
    from pipeline.fold.fold import PartitionFold
    from pipeline.fold.memory import Memory
    from pipeline.fold.records import LogPartition, RecordBatch
    from pipeline.fold.rules import Rules
    from pipeline.settings import ClickHouseSettings, Settings, WebSettings
    from pipeline.web.server import WebServer
    from pipeline.web.source import OneProcess
    from sinks.clickhouse.catalogues import store_catalogue
    from sinks.clickhouse.client import connect
    from sinks.clickhouse.schema import migrate
    from sinks.clickhouse.writer import write_openings, write_results
    from sinks.prometheus import Metrics

    settings = Settings(clickhouse=ClickHouseSettings(url=f"chdb:{directory}"), web=WebSettings(port=port))
    migrate(settings.clickhouse)
    catalogue = demonstration_catalogue()
    client = connect(settings.clickhouse)
    store_catalogue(client, catalogue)
    rules = Rules.of(settings.fold, catalogue.version)
    log = LogPartition(settings.kafka.events_topic, "topic-id", 0)
    fold = PartitionFold(log, 0, {}, rules, {catalogue.version: catalogue}, Memory((), rules.memory_segments))
    state = _State()
    metrics = Metrics(catalogue.by_code)

    def write(events: list[Event]) -> None:
        start, count = fold.next_offset, len(events)
        stamp = int(datetime.now(UTC).timestamp() * 1000)
        offsets = range(start, start + count)
        values = [msgspec.json.encode(event) for event in events]
        fold.add(
            RecordBatch(
                *(log.topic, log.partition, start, start + count, start + count),
                *(offsets, [stamp] * count, [None] * count, values, [[]] * count),
            )
        )
        flush = fold.take()
        write_openings(client, flush)
        write_results(client, flush)
        metrics.flush_written(flush, 0.1, stamp / 1000)

    server: WebServer | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        match command["what"]:
            case "start":
                server = WebServer(settings, catalogue, OneProcess(metrics, state))
                await server.start()
            case "stop":
                assert server is not None
                await server.stop()
                assert not listens(port)
            case "write":
                write(command["events"])
            case "sql":
                client.execute(command["sql"])
            case "fail":
                state.error = command["error"]
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
