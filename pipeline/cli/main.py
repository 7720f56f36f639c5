"""``xidmet``: the group of commands, their common options, and how errors become exit codes."""

import sys
from pathlib import Path

import click

from pipeline.errors import XidmetError
from pipeline.log import configure_logging, process_name
from pipeline.runtime.member import Member, this_member
from pipeline.settings import Settings, load_settings

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
"""The type of options that name a moment; commands read it as UTC."""

_MEMBER = "pipeline.cli.member"
_COMMANDS = {
    "demo": "pipeline.cli.demo:demo",
    "worker": "pipeline.cli.worker:worker",
    "migrate": "pipeline.cli.admin:migrate",
    "doctor": "pipeline.cli.admin:doctor",
    "emit": "pipeline.cli.emit:emit",
    "generate": "pipeline.cli.emit:generate",
    "import": "pipeline.cli.importing:import_",
    "top": "pipeline.cli.answers:top",
    "query": "pipeline.cli.answers:query",
    "audit": "pipeline.cli.answers:audit",
    "reconcile": "pipeline.cli.reconcile:reconcile",
    "rebuild": "pipeline.cli.rebuild:rebuild",
    "rejected": "pipeline.cli.rejected:rejected",
    "rules": "pipeline.cli.rules:rules",
    "catalogue": "pipeline.cli.catalogue:catalogue",
    "project": "pipeline.cli.admin:project",
}


class LazyGroup(click.Group):
    """Loads a command's module when the command is used: ``xidmet --help`` must not wait for Kafka libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a day's work, not of the alphabet."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML).")
@click.option("--set", "flags", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting; repeatable.")
@click.version_option(package_name="xidmet")
@click.pass_context
def cli(context: click.Context, config: Path | None, flags: tuple[str, ...]) -> None:
    """Usage statistics of public e-services: from events in Kafka to answers in ClickHouse.

    Settings come from defaults, a file (xidmet.toml or --config), the environment (XIDMET_SECTION__KEY) and --set,
    the later winning. See docs/settings.md.
    """
    member = this_member()
    # One of several processes has the settings of the one that started it, also when the file was changed since.
    settings = load_settings(config, flags=flags) if member is None else member.settings
    configure_logging(settings.log, member.name if member else "")
    context.obj = settings
    context.meta[_MEMBER] = member


def member_of(context: click.Context) -> Member | None:
    """This process among those that one command started; None if it was started by itself."""
    member = context.meta.get(_MEMBER)
    assert member is None or isinstance(member, Member)
    return member


def settings_of(context: click.Context) -> Settings:
    """The settings that the group loaded."""
    settings = context.find_object(Settings)
    assert settings is not None
    return settings


def main() -> None:
    """Run the command line; an error of the family ends with its exit code and one line on standard error."""
    try:
        cli(standalone_mode=True, prog_name="xidmet")
    except XidmetError as error:
        among = f" ({process_name()})" if process_name() else ""
        click.echo(f"xidmet{among}: {error}", err=True)
        sys.exit(error.exit_code)
