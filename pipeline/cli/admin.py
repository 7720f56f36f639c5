"""``xidmet migrate`` and ``xidmet doctor``."""

import click

from pipeline.cli.main import settings_of
from pipeline.settings import Settings


def migrate_all(settings: Settings) -> dict[str, list[str]]:
    """Create what is missing of schema and topics; what was created."""
    from sinks.clickhouse import schema
    from streams.topics import create_topics

    return {"migrations": schema.migrate(settings.clickhouse), "topics": create_topics(settings.kafka)}


@click.command()
@click.pass_context
def migrate(context: click.Context) -> None:
    """Create or update the schema in ClickHouse and the topics in Kafka."""
    click.echo(migrate_all(settings_of(context)))
