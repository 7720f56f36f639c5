"""``xidmet generate`` and ``xidmet emit``."""

import sys
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import click
import msgspec

from pipeline.catalogue import load_catalogue
from pipeline.cli.main import MOMENT, settings_of
from pipeline.cli.output import print_json
from pipeline.emitter import Emitter
from pipeline.generator import Generator


@click.command(short_help="Write synthetic events as NDJSON.")
@click.option("--count", type=click.IntRange(0), default=1000, show_default=True, help="Number of events.")
@click.option("--from", "start", type=MOMENT, help="First moment, UTC; default a day ago.")
@click.option("--until", "end", type=MOMENT, help="Last moment, UTC; default now.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed and period, same events.")
@click.option("-o", "--output", type=click.File("wb"), default="-", help="File; default standard output.")
@click.pass_context
def generate(
    context: click.Context, count: int, start: datetime | None, end: datetime | None, seed: int, output: BinaryIO
) -> None:
    """Write synthetic events as NDJSON, shaped after the published figures (docs/generator.md)."""
    catalogue = load_catalogue(settings_of(context).catalogue_path)
    last = end.replace(tzinfo=UTC) if end else datetime.now(UTC).replace(second=0, microsecond=0)
    first = start.replace(tzinfo=UTC) if start else last - timedelta(days=1)
    if first >= last:
        raise click.UsageError("the period ends before it starts")
    for event in Generator(catalogue, seed).events(first, last, count):
        output.write(msgspec.json.encode(event) + b"\n")


@click.command(short_help="Send events from NDJSON to Kafka.")
@click.argument("source", type=click.File("rb"), default="-")
@click.option("--batch", type=click.IntRange(1), default=100, show_default=True, help="Events in a Kafka message.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.pass_context
def emit(context: click.Context, source: BinaryIO, batch: int, as_json: bool) -> None:
    """Send events from NDJSON (a file or standard input), one CloudEvent a line, to the events topic.

    Lines are sent as they are: what is wrong with them, the pipeline says in the dead letters.
    """
    kafka = settings_of(context).kafka
    sent = 0
    with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=batch, client_id="xidmet-emit") as emitter:
        for line in source:
            event = line.strip()
            if not event:
                continue
            try:
                emitter.emit(event)
            except ValueError:
                # Alone, so that it cannot spoil the array of a batch.
                emitter.emit_raw(event)
            sent += 1
            if sent % 100_000 == 0 and sys.stderr.isatty():
                click.echo(f"\r{sent:,} events", nl=False, err=True)
        emitter.flush()
    counts = {"events_sent": sent, "events_acknowledged": emitter.acknowledged_events}
    if as_json:
        print_json(counts)
    else:
        click.echo(f"{sent} events sent to {kafka.events_topic} at {kafka.bootstrap}", err=True)
