"""``xidmet catalogue`` and the worker's keeper, on a real Kafka and a real ClickHouse, with messages of kcat."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import load_settings
from streams.topics import create_topics
from tests.support import ClickHouseServer, KafkaServer
from tests.support.pipeline_run import ROOT, PipelineRun, clean_environment
from tests.support.skipping import need_program
from tests.support.topic import records
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]

CSV = """change,agency,service,valid_from,name_az,name_en,name_ru
registered,taxes,,2012-01-01,Vergilər,Taxes,Налоги
registered,taxes,vat,2012-01-01,ƏDV,VAT,НДС
registered,taxes,excise,2012-01-01,Aksiz,Excise,Акциз
digitised,taxes,vat,2013-05-01,,,
"""


@pytest.fixture
def run(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path)
    run.run("migrate")
    yield run
    run.stop()


def command(run: PipelineRun, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        run.command("catalogue", *arguments),
        input=stdin.encode(),
        capture_output=True,
        timeout=120,
        cwd=ROOT,
        env=clean_environment(),
    )


def answer(run: PipelineRun, *arguments: str, stdin: str = "") -> Any:
    done = command(run, *arguments, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def shown(run: PipelineRun, at: str) -> tuple[int, int]:
    found = answer(run, "show", "--at", at)
    return found["services_registered"], found["services_digitised"]


def covered(run: PipelineRun, at: str) -> list[tuple[Any, ...]]:
    return run.query(f"SELECT agency, services_registered, services_digitised FROM coverage_at(at = '{at}')")


def test_what_is_loaded_is_shown_and_reaches_clickhouse(run: PipelineRun) -> None:
    would = answer(run, "load", "-", "--dry-run", stdin=CSV)
    assert (would["said"], len(would["changes"])) == (0, 4)
    assert records(run.settings.kafka, run.settings.kafka.catalogue_topic) == []
    assert answer(run, "load", "-", stdin=CSV)["said"] == 4
    assert answer(run, "load", "-", stdin=CSV) == {"dry_run": False, "said": 0, "changes": []}
    assert [shown(run, at) for at in ("2011-12-31", "2013-04-30", "2013-05-01")] == [(0, 0), (2, 0), (2, 1)]
    run.start_worker()
    wait_until(lambda: covered(run, "2013-05-01") == [("taxes", 2, 1)], 60, "the changes in ClickHouse", every=0.2)
    # A correction: not in May, but in June.
    correction = (
        "change,agency,service,valid_from,void\ndigitised,taxes,vat,2013-05-01,yes\ndigitised,taxes,vat,2013-06-01,\n"
    )
    assert answer(run, "load", "-", stdin=correction)["said"] == 2
    wait_until(lambda: covered(run, "2013-05-31") == [("taxes", 2, 0)], 60, "the correction in ClickHouse", every=0.2)
    assert covered(run, "2013-06-01") == [("taxes", 2, 1)]
    changes = answer(run, "history", "taxes/vat")
    assert [(one["change"], one["valid_from"]) for one in changes] == [
        ("registered", "2012-01-01"),
        ("digitised", "2013-06-01"),
    ]
    everything = answer(run, "history", "taxes/vat", "--all")
    assert [one["offset"] for one in everything] == [1, 3, 4, 5]
    csv = command(run, "history", "--csv").stdout.decode()
    assert answer(run, "load", "-", stdin=csv)["said"] == 0


def test_a_catalogue_file_is_compared_and_its_differences_are_said(run: PipelineRun, tmp_path: Path) -> None:
    assert answer(run, "load", "-", stdin=CSV)["said"] == 4
    names = {"az": "a", "en": "VAT", "ru": "b"}
    file = tmp_path / "catalogue.json"
    content = {
        "version": 2,
        "agencies": [
            {
                "code": "taxes",
                "name": {"az": "Vergilər", "en": "Taxes", "ru": "Налоги"},
                "services": [{"code": "vat", "name": names}],
            }
        ],
    }
    file.write_text(json.dumps(content))
    done = command(run, "diff", str(file), "--at", "2014-01-01", "--json")
    assert done.returncode == 1
    assert [(one["change"], one["service"]) for one in json.loads(done.stdout)] == [
        ("renamed", "vat"),
        ("withdrawn", "excise"),
    ]
    asked = command(run, "load", str(file), "--valid-from", "2014-01-01", stdin="n\n")
    assert asked.returncode == 2
    assert b"nothing was said" in asked.stderr
    assert len(records(run.settings.kafka, run.settings.kafka.catalogue_topic)) == 4
    assert answer(run, "load", str(file), "--valid-from", "2014-01-01", "--yes")["said"] == 2
    assert command(run, "diff", str(file), "--at", "2014-01-01").returncode == 0
    (service, gone) = answer(run, "show", "--agency", "taxes", "--at", "2014-01-01")[::-1]
    assert (service["service"], service["name"], service["status"]) == ("vat", "VAT", "registered")
    assert (gone["service"], gone["status"], gone["since"]) == ("excise", "withdrawn", "2014-01-01")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("change,agency,valid_from\nwithdrawn,tax,2013-01-01\n", 4, "agency tax is not registered"),
        (CSV + "digitised,taxes,vat,1.5.2013,,,\n", 5, "standard input: line 6"),
        ('{"agencies": []}', 4, "standard input: Object missing required field `version`"),
        ("\xff", 5, "standard input: line 1"),
    ],
)
def test_a_file_is_loaded_as_a_whole_or_not_at_all(run: PipelineRun, text: str, code: int, words: str) -> None:
    done = command(run, "load", "-", stdin=text)
    assert done.returncode == code, done.stderr
    assert words in done.stderr.decode()
    assert records(run.settings.kafka, run.settings.kafka.catalogue_topic) == []


def test_messages_that_are_no_changes_have_no_effect_and_are_shown(run: PipelineRun) -> None:
    kcat = need_program("kcat")
    kafka = run.settings.kafka
    name = {"az": "a", "en": "b", "ru": "c"}
    change = {"change": "registered", "agency": "taxes", "valid_from": "2012-01-01", "name": name}
    event = {
        "specversion": "1.0",
        "type": "xidmet.catalogue.changed.v1",
        "id": "1",
        "source": "urn:example:register",
        "time": "2012-01-01T00:00:00Z",
        "data": change,
    }
    lines = ["rubbish", json.dumps(event), json.dumps(event | {"data": change | {"agency": "'; DROP TABLE ledger"}})]
    produce = [kcat, "-P", "-b", kafka.bootstrap, "-t", kafka.catalogue_topic]
    subprocess.run(produce, input="\n".join(lines).encode(), check=True, timeout=60)
    (found, _) = json.loads(run.run("project", "--dry-run", "--json"))
    assert [one["offset"] for one in found["unreadable"]] == [0, 2]
    run.start_worker()
    wait_until(lambda: covered(run, "2012-01-01") == [("taxes", 0, 0)], 60, "the change in ClickHouse", every=0.2)
    metrics = f"http://127.0.0.1:{run.flags['web.port']}/metrics"

    def told() -> bool:
        with urllib.request.urlopen(metrics, timeout=10) as page:
            return b'xidmet_statements_unreadable{kind="catalogue"} 2.0' in page.read()

    wait_until(told, 30, "the metric", every=0.2)
    assert run.query("SELECT count() FROM catalogue_changes") == [(1,)]


def test_changes_wait_for_a_clickhouse_that_is_away(run: PipelineRun, clickhouse_server: ClickHouseServer) -> None:
    run.start_worker()
    wait_until(lambda: covered(run, "2012-01-01") == [], 60, "the schema", every=0.2)
    clickhouse_server.kill()
    assert answer(run, "load", "-", stdin=CSV)["said"] == 4
    clickhouse_server.start()
    wait_until(lambda: covered(run, "2013-05-01") == [("taxes", 2, 1)], 90, "the changes in ClickHouse", every=0.2)


def test_without_a_worker_the_history_is_projected_by_hand(run: PipelineRun) -> None:
    run.run("catalogue", "load", "demonstration")
    for _ in range(2):
        (done, _) = json.loads(run.run("project", "--json"))
        assert (done["kind"], done["unreadable"]) == ("catalogue", [])
    assert run.query(
        "SELECT count(), sum(services_registered), sum(services_digitised) FROM coverage_at(at = '2013-07-15')"
    ) == [(41, 417, 225)]
    assert shown(run, "2013-07-15") == (417, 225)
    assert run.query("SELECT count() FROM catalogue_changes FINAL") == run.query(
        "SELECT count() FROM catalogue_history"
    )


def test_a_topic_of_several_partitions_is_refused(kafka_server: KafkaServer, tmp_path: Path) -> None:
    run = PipelineRun(kafka_server.bootstrap, f"chdb:{tmp_path / 'none'}", tmp_path)
    # As somebody would make it by hand.
    topic = run.settings.kafka.catalogue_topic
    wide = [f"kafka.bootstrap={kafka_server.bootstrap}", f"kafka.events_topic={topic}", "kafka.partitions=3"]
    create_topics(load_settings(environment={}, flags=wide).kafka)
    done = command(run, "show")
    assert done.returncode == 6
    assert b"has 3 partitions" in done.stderr
