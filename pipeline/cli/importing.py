"""``xidmet import``."""

from pathlib import Path
from typing import Any

import click
import msgspec

from pipeline.catalogue import Catalogue, load_catalogue
from pipeline.cli.main import settings_of
from pipeline.cli.output import print_json, print_rows
from pipeline.emitter import Emitter
from pipeline.importers.xroad import ImportResult, catalogue_with, read_xroad_file


@click.group(name="import")
def import_() -> None:
    """Turn records of other systems into events."""


@import_.command()
@click.argument("source", metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Read and count, send nothing.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write NDJSON here instead of sending.")
@click.option(
    "--write-catalogue",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the catalogue with the agencies and services that occur added, for the worker's catalogue.path.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def xroad(
    context: click.Context,
    source: str,
    dry_run: bool,
    output: Path | None,
    write_catalogue: Path | None,
    as_json: bool,
) -> None:
    """Import X-Road operational monitoring records from FILE (NDJSON, gzip or not; - for standard input).

    The client's and the producer's record of an exchange are one use. Personal fields are never read. Importing a
    file twice counts it once. See docs/import-xroad.md.
    """
    settings = settings_of(context)
    result = read_xroad_file(source)
    catalogue = load_catalogue(settings.catalogue_path)
    if write_catalogue is not None:
        catalogue = catalogue_with(catalogue, result.events())
        write_catalogue.write_text(catalogue.json + "\n", encoding="utf-8")
    sent = 0
    if output is not None:
        with output.open("wb") as file:
            for event in result.events():
                file.write(msgspec.json.encode(event) + b"\n")
    elif not dry_run:
        kafka = settings.kafka
        with Emitter(kafka.bootstrap, kafka.events_topic, client_id="xidmet-import") as emitter:
            for event in result.events():
                emitter.emit(event)
                sent += 1
            emitter.flush()
    summary = _summary(result, catalogue, sent)
    if as_json:
        print_json(summary)
        return
    print_rows(
        ["entry", "number"], [(name, value) for name, value in summary.items() if name != "skipped"], as_json=False
    )
    if summary["skipped"]:
        rows = [(reason, item["count"], item["first_lines"]) for reason, item in summary["skipped"].items()]
        print_rows(["skipped because", "records", "first lines"], rows, as_json=False)
    if summary["unknown_services"]:
        click.echo(
            f"{summary['unknown_services']} services are not in the catalogue: a worker refuses their events. Add them"
            " with --write-catalogue FILE and start the worker with --set catalogue.path=FILE",
            err=True,
        )


def _summary(result: ImportResult, catalogue: Catalogue, sent: int) -> dict[str, Any]:
    return {
        "lines": result.lines,
        "records": result.records,
        "client_records": result.client_records,
        "producer_records": result.producer_records,
        "repeated_records": result.repeated,
        "uses": result.uses,
        "pairs": result.pairs,
        "agencies": len(result.agencies),
        "services": len(result.services),
        "unknown_services": len(set(result.services) - catalogue.pairs),
        "events_sent": sent,
        "skipped": {
            reason: {"count": item.count, "first_lines": item.first_lines} for reason, item in result.skipped.items()
        },
    }
