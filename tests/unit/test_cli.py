"""The command line: help, usage, exit codes, and what is printed for people and for programs. No network."""

import gc
import io
import json
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from pipeline import errors
from pipeline.catalogue import demonstration_catalogue
from pipeline.cli import main as run_main
from pipeline.cli.main import cli
from pipeline.cli.output import print_rows
from pipeline.contract.decode import decode
from pipeline.errors import StoreError, XidmetError
from sinks.clickhouse.audit import AuditReport, Finding
from sinks.clickhouse.client import Column, Parameters, Rows
from sinks.clickhouse.popularity import Ranked
from tests.support.ports import free_port

COMMANDS = ["demo", "worker", "migrate", "doctor", "emit", "generate", "import", "top", "query", "audit"]
COMMANDS += ["reconcile", "rebuild", "rejected", "rules", "catalogue", "project"]
REJECTED = [("rejected", name) for name in ("list", "show", "stats", "replay", "drop")]
CATALOGUE = [("catalogue", name) for name in ("load", "diff", "show", "history")] + [("import", "csv")]
PATHS = [(), *((name,) for name in COMMANDS), ("import", "xroad"), *REJECTED, ("rules", "show"), ("rules", "apply")]
PATHS += CATALOGUE
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, XidmetError)]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("XIDMET_CONFIG", "XIDMET_KAFKA__BOOTSTRAP", "XIDMET_CLICKHOUSE__URL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin, prog_name="xidmet")


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the program itself."""
    monkeypatch.setattr(sys, "argv", ["xidmet", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_main()
    code = caught.value.code
    assert isinstance(code, int)
    return code


class FakeStore:
    """A client that remembers what it was asked."""

    def __init__(self, answer: Rows) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.closed = 0

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        self.asked.append(sql)
        return self.answer

    def execute(self, sql: str) -> None:
        raise AssertionError(sql)

    def insert(self, table: str, columns: list[Column]) -> None:
        raise AssertionError(table)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    answer = Rows(
        ("name", "n", "share", "nothing", "list"),
        ("String", "UInt64", "Float64", "Nullable(String)", "Array(String)"),
        [("tab\there", 1, 0.5, None, ["a", "b"]), ("back\\slash\nline", 2**64 - 1, 1.0, None, [])],
    )
    fake = FakeStore(answer)
    monkeypatch.setattr("pipeline.cli.answers.open_client", lambda settings: fake)
    return fake


# Help and usage


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    context = click.Context(cli)
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command = found
    return command


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_what_the_command_does_and_every_option(path: tuple[str, ...], option: str) -> None:
    result = run(*path, option)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(('xidmet', *path))}")
    assert lines[2].strip()
    assert max(map(len, lines)) <= 100
    for parameter in command_at(path).params:
        for name in parameter.opts if isinstance(parameter, click.Option) else ():
            assert name in result.output
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.name} has no help"
            assert parameter.help.endswith(".")


def test_the_first_help_names_every_command_in_the_order_of_use() -> None:
    listed = run("--help").output.partition("Commands:")[2].split("\n")
    assert [line.split()[0] for line in listed if line.startswith("  ")] == COMMANDS


@pytest.mark.parametrize("path", [path for path in PATHS if path], ids=" ".join)
def test_descriptions_end_as_sentences(path: tuple[str, ...]) -> None:
    described = command_at(path).help
    assert described
    assert described.strip().endswith(".")


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").output.startswith("xidmet, version 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tpo"], "No such command 'tpo'"),
        (["top", "--nothing"], "No such option"),
        (["top", "--metric", "money"], "'uses', 'people'"),
        (["top", "--limit", "0"], "0 is not in the range x>=1"),
        (["generate", "--count", "-1"], "not in the range"),
        (["generate", "--from", "yesterday"], "does not match the formats"),
        (["generate", "--from", "2026-01-02", "--until", "2026-01-02"], "the period ends before it starts"),
        (["top", "--from", "2026-01-02", "--until", "2026-01-01"], "the period ends before it starts"),
        (["emit", "absent.ndjson"], "absent.ndjson"),
        (["demo", "--seconds", "0"], "not in the range"),
        (["demo", "--rate", "1e9"], "not in the range"),
        (["import", "xroad"], "Missing argument 'FILE'"),
        (["rejected", "show", "somewhere"], "TOPIC-ID/PARTITION/OFFSET/INDEX"),
        (["rejected", "list", "--reason", "bad_luck"], "'bad_luck' is not one of"),
        (["rejected", "list", "--limit", "0"], "0 is not in the range x>=1"),
        (["rejected", "list", "--from", "yesterday"], "does not match the formats"),
        (["rejected", "drop"], "say which"),
        (["rejected", "drop", "--yes"], "say which"),
        (["rejected", "replay", "--value", "absent.json"], "absent.json"),
        (["--set"], "requires an argument"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("period", ["", "0m", "15", "m", "1.5h", "-1h", "1y", "24 h", "1h30m", "99999w", "١m"])
def test_a_period_that_is_none_is_refused_with_examples(period: str) -> None:
    result = run("top", "--period", period)
    assert result.exit_code == 2
    assert f"{period!r} is not a period; write for instance 15m, 24h, 7d or 4w" in result.stderr


# Exit codes


def test_exit_codes_are_distinct_and_keep_1_and_2_free() -> None:
    codes = {kind: kind.exit_code for kind in ERRORS if kind is not XidmetError}
    assert sorted(codes.values()) == list(range(3, 3 + len(codes)))
    assert len(codes) == 9


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_of_the_family_is_its_exit_code_and_one_line(
    kind: type[XidmetError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: object) -> None:
        raise kind("what, where, and how to mend it")

    monkeypatch.setattr("pipeline.cli.answers.open_client", fail)
    assert main(monkeypatch, "query", "SELECT 1") == kind.exit_code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "xidmet: what, where, and how to mend it\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "web.prot=1", "generate"], 3, "did you mean port?"),
        (["--config", "absent.toml", "generate"], 3, "absent.toml"),
        (["--set", "clickhouse.url=ftp://x", "query", "SELECT 1"], 3, "write clickhouse://"),
        (["--set", "catalogue.path=absent.json", "generate"], 4, "absent.json"),
        (["--set", "catalogue.path=broken.json", "generate"], 4, "broken.json"),
        (["import", "xroad", "absent.ndjson", "--dry-run"], 5, "absent.ndjson"),
    ],
)
def test_faults_of_the_user_have_their_exit_codes(
    arguments: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("broken.json").write_text('{"version": 0}')
    assert main(monkeypatch, *arguments) == code
    said = capsys.readouterr().err
    assert said.startswith("xidmet: ")
    assert said.count("\n") == 1
    assert words in said


def test_a_clickhouse_that_is_away_is_exit_code_7(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"clickhouse://me:pass-phrase@127.0.0.1:{free_port()}/x"
    assert main(monkeypatch, "--set", f"clickhouse.url={url}", "top") == 7
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "does not answer" in said
    assert "pass-phrase" not in said


def test_a_kafka_that_is_away_is_exit_code_6(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.producer._CONNECT_SECONDS", 0.5)
    Path("events.ndjson").write_text("{}\n")
    address = f"127.0.0.1:{free_port()}"
    with warnings.catch_warnings():
        # kafka-python drops the sockets of refused connections without closing them; they may be found at any moment.
        warnings.simplefilter("ignore", ResourceWarning)
        assert main(monkeypatch, "--set", f"kafka.bootstrap={address}", "emit", "events.ndjson") == 6
        gc.collect()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"xidmet: {address}: no Kafka broker")


# Answers


def test_rows_in_a_pipe_are_tab_separated_with_escapes(store: FakeStore) -> None:
    result = run("query", "SELECT 1;")
    assert result.exit_code == 0
    header, first, second = result.stdout.splitlines()
    assert header == "name\tn\tshare\tnothing\tlist"
    assert first == 'tab\\there\t1\t0.5\t\\N\t["a","b"]'
    assert second == "back\\\\slash\\nline\t18446744073709551615\t1.0\t\\N\t[]"
    assert (store.asked, store.closed) == (["SELECT 1"], 1)


def test_rows_as_json_are_an_array_of_objects(store: FakeStore) -> None:
    rows = json.loads(run("query", "--json", "SELECT 1").stdout)
    assert rows[0] == {"name": "tab\there", "n": 1, "share": 0.5, "nothing": None, "list": ["a", "b"]}
    assert rows[1]["n"] == 2**64 - 1


def test_rows_on_a_terminal_are_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_rows(["name", "uses"], [("one", 1_234_567), ("two", 2)], as_json=False, title="Title")
    lines = [line.rstrip() for line in terminal.getvalue().splitlines()]
    assert "Title" in lines[0]
    assert any("one" in line and "1,234,567" in line for line in lines)


@pytest.mark.parametrize("arguments", [["-"], []])
def test_a_query_comes_from_standard_input(store: FakeStore, arguments: list[str]) -> None:
    assert run("query", *arguments, stdin="SELECT 1,\n  2;\n").exit_code == 0
    assert store.asked == ["SELECT 1,\n  2"]


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_query_is_wrong_usage(store: FakeStore, text: str) -> None:
    result = run("query", "-", stdin=text)
    assert (result.exit_code, store.asked) == (2, [])
    assert "no SQL given" in result.stderr


def test_times_and_other_values_of_the_driver_are_printed(store: FakeStore) -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    store.answer = Rows(("at", "map"), ("DateTime", "Map(Int16, UInt64)"), [(moment, {-1: 2})])
    assert run("query", "x").stdout.splitlines()[1] == '2026-03-01 12:00:00+00:00\t{"-1":2}'
    ((row),) = json.loads(run("query", "x", "--json").stdout)
    assert row["map"] == {"-1": 2}
    assert datetime.fromisoformat(row["at"]) == moment


def ranked(rank: int, agency: str, service: str = "", uses: int = 0) -> Ranked:
    return Ranked(rank, agency, service, uses, 5, 0.25, 0.1, 10.4, 20.6, 30.0, 8 if rank == 1 else 0, 4, 1)


@pytest.fixture
def asked_of_top(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def top(client: object, *arguments: Any) -> list[Ranked]:
        calls.append(arguments)
        by = arguments[2]
        agency = demonstration_catalogue().agencies[0]
        service = agency.services[0].code if by == "service" else ""
        return [ranked(1, agency.code, service, 12), ranked(2, "gone", service, 3)]

    monkeypatch.setattr("pipeline.cli.answers.run_top", top)
    return calls


def test_top_in_a_pipe_has_names_and_the_change(asked_of_top: list[tuple[Any, ...]]) -> None:
    agency = demonstration_catalogue().agencies[0]
    for language in ("az", "en", "ru"):
        header, first, second = run("top", "--language", language).stdout.splitlines()
        assert header.split("\t")[:6] == ["rank", "agency", "name", "uses", "people", "share %"]
        name = getattr(agency.name, language)
        assert first.split("\t") == ["1", agency.code, name, "12", "5", "25.0", "8", "50.0", "10.0", "10", "21", "30"]
        assert second.split("\t")[1:3] == ["gone", "gone"]
        assert second.split("\t")[7] == "\\N"


def test_top_by_service_names_the_service(asked_of_top: list[tuple[Any, ...]]) -> None:
    agency = demonstration_catalogue().agencies[0]
    first = run("top", "--by", "service", "--metric", "people").stdout.splitlines()[1].split("\t")
    assert first[1:3] == [f"{agency.code}/{agency.services[0].code}", agency.services[0].name.en]
    # The change is that of the metric.
    assert first[6:8] == ["4", "25.0"]
    assert asked_of_top[0][2:] == ("service", "people")


def test_top_as_json_names_its_period(asked_of_top: list[tuple[Any, ...]]) -> None:
    answer = json.loads(run("top", "--json", "--limit", "1").stdout)
    assert list(answer) == ["from", "until", "by", "metric", "ranking"]
    assert len(answer["ranking"]) == 1
    first, last = (datetime.fromisoformat(answer[name]) for name in ("from", "until"))
    assert last - first == timedelta(hours=24)
    assert set(answer["ranking"][0]) == set(Ranked.__struct_fields__)


@pytest.mark.parametrize(
    ("arguments", "first", "last"),
    [
        (["--until", "2026-03-02"], datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
        (
            ["--until", "2026-03-02T10:30", "--period", "15m"],
            datetime(2026, 3, 2, 10, 15, tzinfo=UTC),
            datetime(2026, 3, 2, 10, 30, tzinfo=UTC),
        ),
        (
            ["--from", "2026-03-01T01:02:03", "--until", "2026-03-02"],
            datetime(2026, 3, 1, 1, 2, 3, tzinfo=UTC),
            datetime(2026, 3, 2, tzinfo=UTC),
        ),
    ],
)
def test_top_asks_for_the_period_that_was_named(
    asked_of_top: list[tuple[Any, ...]], arguments: list[str], first: datetime, last: datetime
) -> None:
    assert run("top", *arguments).exit_code == 0
    assert asked_of_top[0][:2] == (first, last)


@pytest.mark.parametrize(("period", "minutes"), [("15m", 15), ("24h", 1_440), ("7d", 10_080), ("4w", 40_320)])
def test_top_ends_with_the_current_minute(asked_of_top: list[tuple[Any, ...]], period: str, minutes: int) -> None:
    before = datetime.now(UTC)
    assert run("top", "--period", period).exit_code == 0
    first, last = asked_of_top[0][:2]
    assert last - first == timedelta(minutes=minutes)
    assert before < last <= datetime.now(UTC) + timedelta(minutes=1)


def test_an_audit_that_finds_nothing_is_exit_code_0(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.answers.run_audit", lambda client: AuditReport(segments=3, accepted=7))
    result = run("audit")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == ["entry\tnumber", "segments\t3"]
    answer = json.loads(run("audit", "--json").stdout)
    assert (answer["accepted"], answer["findings"]) == (7, [])


def test_an_audit_with_findings_prints_them_all_and_is_exit_code_10(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("hole", "t[0] offsets 1 to 2", "gone"), Finding("minutes", "t[1] offsets 3 to 4", "less")]
    monkeypatch.setattr("pipeline.cli.answers.run_audit", lambda client: AuditReport(findings=findings))
    for arguments in (["audit"], ["audit", "--json"]):
        assert main(monkeypatch, *arguments) == 10
        printed = capsys.readouterr()
        assert "t[0] offsets 1 to 2" in printed.err
        assert printed.err.startswith("xidmet: 2 findings")
        for finding in findings:
            assert finding.where in printed.out
    assert [item["check"] for item in json.loads(printed.out)["findings"]] == ["hole", "minutes"]


def test_the_client_is_closed_whatever_happens(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sql: str, parameters: object = None) -> Rows:
        raise StoreError("refused")

    monkeypatch.setattr(store, "query", refuse)
    assert isinstance(run("query", "SELECT 1").exception, StoreError)
    assert store.closed == 1


# Generate, import


def generated(*arguments: str) -> bytes:
    result = run("generate", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


def test_generating_twice_gives_the_same_bytes() -> None:
    period = ["--from", "2026-03-01", "--until", "2026-03-02T12:00", "--count", "300"]
    first = generated(*period)
    assert first == generated(*period) == generated(*period, "--seed", "1")
    assert first != generated(*period, "--seed", "2")
    lines = first.splitlines()
    assert len(lines) == 300
    assert not decode(lines, [()] * 300).refusals
    times = [datetime.fromisoformat(json.loads(line)["time"]) for line in lines]
    assert times == sorted(times)
    assert datetime(2026, 3, 1, tzinfo=UTC) <= times[0]
    assert times[-1] < datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_generating_into_a_file_gives_the_same_as_on_standard_output() -> None:
    period = ["--from", "2026-03-01", "--until", "2026-03-02", "--count", "50"]
    assert generated(*period, "-o", "events.ndjson") == b""
    assert Path("events.ndjson").read_bytes() == generated(*period)


def test_generating_nothing_prints_nothing() -> None:
    assert generated("--count", "0") == b""


def xroad_records() -> str:
    base = 1_700_000_000_000
    lines = []
    for number in range(5):
        start = base + number * 1_000
        record = {
            "requestInTs": start,
            "requestOutTs": start + 1,
            "responseInTs": start + 99,
            "responseOutTs": start + 100,
            "clientXRoadInstance": "AZ",
            "clientMemberClass": "GOV",
            "clientMemberCode": "1000",
            "serviceXRoadInstance": "AZ",
            "serviceMemberClass": "GOV",
            "serviceMemberCode": "2000",
            "serviceCode": "getPerson" if number % 2 else "getHouse",
            "messageId": f"m-{number}",
            "xRequestId": f"x-{number}",
            "succeeded": True,
        }
        lines += [json.dumps(record | {"securityServerType": side}) for side in ("Client", "Producer")]
    return "\n".join([*lines, "not json", ""])


def test_a_dry_run_of_an_import_counts_and_sends_nothing() -> None:
    Path("records.ndjson").write_text(xroad_records())
    result = run("import", "xroad", "records.ndjson", "--dry-run", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    expected = {
        "lines": 11,
        "records": 10,
        "client_records": 5,
        "producer_records": 5,
        "repeated_records": 0,
        "uses": 5,
        "pairs": 5,
        "agencies": 1,
        "services": 2,
        "unknown_services": 2,
        "events_sent": 0,
        "skipped": {"not_json": {"count": 1, "first_lines": [11]}},
    }
    assert summary == expected
    assert run("import", "xroad", "-", "--dry-run", "--json", stdin=xroad_records()).stdout == result.stdout


def test_an_import_in_a_pipe_is_tab_separated_and_warns_of_unknown_services() -> None:
    result = run("import", "xroad", "-", "--dry-run", stdin=xroad_records())
    assert "uses\t5" in result.stdout.splitlines()
    assert "not_json\t1\t[11]" in result.stdout.splitlines()
    assert "2 services are not in the catalogue" in result.stderr


def test_an_import_into_a_file_writes_valid_events_and_a_catalogue_that_knows_them() -> None:
    arguments = ["--output", "events.ndjson", "--write-catalogue", "wider.json", "--json"]
    summary = json.loads(run("import", "xroad", "-", *arguments, stdin=xroad_records()).stdout)
    assert (summary["unknown_services"], summary["events_sent"]) == (0, 0)
    lines = Path("events.ndjson").read_bytes().splitlines()
    assert len(lines) == 5
    assert not decode(lines, [()] * 5).refusals
    assert run("--set", "catalogue.path=wider.json", "generate", "--count", "1").exit_code == 0
