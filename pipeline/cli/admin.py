"""``xidmet migrate`` and ``xidmet doctor``."""

import sys
from contextlib import closing
from typing import Any

import click

from pipeline.cli.main import settings_of
from pipeline.cli.output import print_json, print_rows
from pipeline.runtime.doctor import examine
from pipeline.runtime.endpoint import open_client
from pipeline.runtime.statements import KINDS, read_log
from pipeline.settings import Settings, redacted_url
from sinks.clickhouse import schema
from streams.topics import create_topics


def migrate_all(settings: Settings) -> dict[str, list[str]]:
    """Create what is missing of schema and topics; what was created."""
    return {"migrations": schema.migrate(settings.clickhouse), "topics": create_topics(settings.kafka)}


@click.command(short_help="Create or update schema and topics.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.pass_context
def migrate(context: click.Context, as_json: bool) -> None:
    """Create or update the schema in ClickHouse and the topics in Kafka; safe to run again."""
    settings = settings_of(context)
    done = migrate_all(settings)
    if as_json:
        print_json(done)
        return
    for what, names in done.items():
        click.echo(f"{what}: {', '.join(names) if names else 'nothing to do'}")
    click.echo(f"at {redacted_url(settings.clickhouse.url)} and {settings.kafka.bootstrap}", err=True)


@click.command(short_help="Check that everything is there; say what to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check Kafka, topics, ClickHouse, schema, clock, disk and catalogue; exit code 1 if something is wrong."""
    checks = examine(settings_of(context))
    if as_json:
        print_json(checks)
    else:
        rows = [(item.name, "ok" if item.ok else "WRONG", item.words) for item in checks]
        print_rows(["check", "state", "seen, or what to do"], rows, as_json=False)
    if not all(item.ok for item in checks):
        sys.exit(1)


@click.command(short_help="Bring catalogue history and figures into ClickHouse.")
@click.option("--dry-run", is_flag=True, help="Write nothing; show what stands on the topics.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def project(context: click.Context, dry_run: bool, as_json: bool) -> None:
    """Bring the history of the catalogue and stated figures into ClickHouse without a worker, or again.

    Safe to repeat. Shows where on the topics something stands that is no statement, and what is wrong with it.
    """
    settings = settings_of(context)
    done: list[dict[str, Any]] = []
    for kind in KINDS:
        log = read_log(settings.kafka, kind)
        if not dry_run:
            with closing(open_client(settings.clickhouse)) as client:
                kind.store(client, log.topic_id, list(log.statements))
        counts = {"statements": len(log.statements), "in_force": len(log.in_force)}
        done.append({"kind": kind.name, "topic": kind.topic(settings.kafka), **counts, "unreadable": log.unreadable})
    if as_json:
        print_json(done)
        return
    rows = [(*list(one.values())[:-1], len(one["unreadable"])) for one in done]
    print_rows(list(done[0]), rows, as_json=False)
    for one in done:
        for wrong in one["unreadable"]:
            click.echo(f"{one['topic']} offset {wrong.offset}: {wrong.words}", err=True)
