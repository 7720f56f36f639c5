"""``xidmet rules``: which rules are in force, and how those of this configuration begin at once."""

from dataclasses import dataclass

import click

from pipeline.cli.main import settings_of
from pipeline.cli.output import agreed, print_json, print_rows
from pipeline.errors import StoreError
from pipeline.runtime import ruling


@click.group(short_help="Rules in force; let mended ones begin at once.")
def rules() -> None:
    """The rules that partitions are folded by: the settings of the section fold, and the version of the catalogue."""


@rules.command(short_help="Show the rules in force, by partition.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, as_json: bool) -> None:
    """Show the rules in force in each partition, and where they are not those of this configuration."""
    overview = ruling.show(settings_of(context))
    if as_json:
        print_json(overview)
        return
    names = ["partition", "segment", "next_offset", "log_end", "state", "rules"]
    rows = [
        (
            item.partition,
            item.segment,
            item.next_offset,
            item.log_end,
            "not begun" if item.closed is None else "closed" if item.closed else "open",
            "; ".join(item.differences) or "as here",
        )
        for item in overview.partitions
    ]
    print_rows(names, rows, as_json=False, title=f"{overview.topic}; here: {overview.rules.to_json()}")


@rules.command(short_help="Let this configuration's rules begin where each partition stands.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def apply(context: click.Context, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Let the rules of this configuration begin where each partition stands, instead of at the end of the log.

    For when a worker ended because of a wrong catalogue and much of the log is still to be folded. End all workers
    first, those too that hang or that Kafka took for dead: one that comes back with a batch in hand would write by the
    old rules beyond the place where the new ones begin, which the audit shows. Refused while Kafka does not answer or
    knows workers of the group. Exit code 7 if a partition was refused; the others are done.
    """
    question = _Question(yes)
    done = ruling.apply(settings_of(context), dry_run=dry_run, agree=question.ask)
    if question.denied:
        raise click.UsageError("not confirmed, nothing was changed; --yes answers in advance")
    if as_json:
        print_json({"dry_run": dry_run, "partitions": done})
    else:
        names = ["partition", "offset", "outcome", "words"]
        rows = [(item.partition, item.offset, item.outcome, item.words) for item in done]
        print_rows(names, rows, as_json=False)
    refused = [item for item in done if item.outcome == "refused"]
    if refused:
        raise StoreError(
            f"{len(refused)} partitions keep their rules; the first: partition {refused[0].partition}:"
            f" {refused[0].words}; see docs/dead-letters.md"
        )


@dataclass
class _Question:
    """Asks once whether to go on."""

    yes: bool
    denied: bool = False

    def ask(self, plan: list[ruling.Applied]) -> bool:
        """Say what would be done, and ask."""
        if self.yes:
            return True
        for item in plan:
            click.echo(f"partition {item.partition}: {item.outcome}: {item.words}", err=True)
        count = sum(item.outcome == "would apply" for item in plan)
        self.denied = not agreed(f"have all workers ended, and shall the rules begin in {count} partitions?")
        return not self.denied
