"""``xidmet migrate`` and ``xidmet doctor``."""

import sys

import click

from pipeline.cli.main import settings_of
from pipeline.cli.output import print_json, print_rows
from pipeline.runtime.doctor import examine
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
