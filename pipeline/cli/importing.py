"""``xidmet import``."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from pipeline.catalogue import Catalogue, load_catalogue
from pipeline.cli.main import settings_of
from pipeline.cli.output import print_json, print_rows, read_text
from pipeline.contract.statements import not_said
from pipeline.emitter import Emitter
from pipeline.importers.table import FIELDS, figures_from_csv
from pipeline.importers.xroad import ImportResult, catalogue_with, read_xroad_file
from pipeline.runtime.statements import FIGURES, read_log, say


@click.group(name="import", short_help="Records of other systems, and figures from spreadsheets.")
def import_() -> None:
    """Turn records of other systems into events, and figures that others counted into statements."""


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


def pairs_of(values: tuple[str, ...], option: str) -> dict[str, str]:
    """``FIELD=TEXT`` of a repeated option.

    Raises:
        click.UsageError: not of that form, or the field is none.
    """
    found = {}
    for value in values:
        field, separator, text = value.partition("=")
        if not separator or field not in FIELDS:
            raise click.UsageError(f"{option} {value!r}: write FIELD=TEXT, FIELD one of {', '.join(FIELDS)}")
        if field in found:
            raise click.UsageError(f"{option} {value!r}: {field} is given twice")
        found[field] = text
    return found


@import_.command(name="csv")
@click.argument("file", metavar="FILE")
@click.option("--map", "mapped", multiple=True, metavar="FIELD=HEADING", help="A field's column; repeatable.")
@click.option("--constant", "given", multiple=True, metavar="FIELD=VALUE", help="Value for all rows; repeatable.")
@click.option("--currency", default="AZN", show_default=True, help="Of costs.")
@click.option("--source", help="Who states it; default the name of the file.")
@click.option("--void", is_flag=True, help="Take back what FILE says, instead.")
@click.option("--dry-run", is_flag=True, help="Say what would be said, and say nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def csv_(
    context: click.Context,
    file: str,
    mapped: tuple[str, ...],
    given: tuple[str, ...],
    currency: str,
    source: str | None,
    void: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import figures that others counted, and costs, from a spreadsheet's CSV (- for standard input).

    Fields: agency, service, channel, period; and numbers: uses, people, completed, cost. They stand apart from what is
    counted (view imported). What is said again replaces what was said; a file is imported as a whole or not at all.
    See docs/import-figures.md.
    """
    settings = settings_of(context)
    text, where = read_text(file)
    figures = figures_from_csv(
        text,
        where,
        load_catalogue(settings.catalogue_path),
        pairs_of(mapped, "--map"),
        pairs_of(given, "--constant"),
        currency,
    )
    if void:
        figures = [msgspec.structs.replace(figure, void=True) for figure in figures]
    log = read_log(settings.kafka, FIGURES)
    before = {figure.key: figure.value for figure in log.in_force}
    new = not_said(log.in_force, figures)
    named = source or f"urn:xidmet:import:{quote(Path(where).name)}"
    said = 0 if dry_run or not new else say(settings.kafka, FIGURES, named, new)
    summary = {
        "figures": len(figures),
        "new": sum(figure.key not in before for figure in new),
        "replaced": sum(figure.key in before and not figure.void for figure in new),
        "taken_back": sum(figure.void for figure in new),
        "said": said,
    }
    if as_json:
        print_json(summary | {"dry_run": dry_run, "changes": new})
        return
    names = ["measure", "start", "length", "agency", "service", "channel", "value", "before"]
    rows = [
        (
            figure.measure,
            figure.start.isoformat(),
            figure.length,
            figure.agency or "",
            figure.service or "",
            figure.channel or "",
            "" if figure.void else str(figure.value),
            str(before.get(figure.key, "")),
        )
        for figure in new
    ]
    print_rows(names, rows, as_json=False)
    words = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in summary.items())
    click.echo(f"{words} on {settings.kafka.figures_topic}", err=True)


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
