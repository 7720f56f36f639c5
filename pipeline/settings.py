"""All settings as one typed tree. Later sources win: defaults, file (TOML), environment, flags.

A setting is named by its path, ``section.key``. In the environment it is ``XIDMET_SECTION__KEY``; on the command
line ``--set section.key=value``; in the file ``[section]`` and ``key = value``.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import SettingsError

ENVIRONMENT_PREFIX = "XIDMET_"

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
FLUSHES_APART_SECONDS = 0.05
"""Two flushes of a worker begin at least so far apart: each makes parts in ClickHouse, which have to be merged."""

FlushSeconds = Annotated[float, Meta(ge=FLUSHES_APART_SECONDS, le=3_600)]
Share = Annotated[float, Meta(gt=0, le=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Dimension = Literal["hosting", "initiator", "centre", "district", "sign_in", "consumer"]
"""A dimension that minute rows may have besides agency, service, channel, outcome and stage."""


class KafkaSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the log is. ``partitions`` and ``replication`` are used only when topics are created."""

    bootstrap: str = "127.0.0.1:9092"
    group: str = "xidmet"
    events_topic: str = "usage.events"
    rejected_topic: str = "usage.rejected"
    catalogue_topic: str = "catalogue.changes"
    figures_topic: str = "usage.figures"
    partitions: Positive = 4
    replication: Positive = 1
    session_timeout_seconds: Seconds = 10.0
    request_timeout_seconds: Seconds = 30.0
    metadata_seconds: Seconds = 30.0
    fetch_max_bytes: Positive = 1_048_576
    max_poll_records: Positive = 10_000


class ClickHouseSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where results go: ``clickhouse://user:password@host:port/database`` or ``chdb:DIRECTORY`` (in the process)."""

    url: str = "clickhouse://default@127.0.0.1:9000/xidmet"
    connect_timeout_seconds: Seconds = 5.0
    query_timeout_seconds: Seconds = 60.0
    retry_seconds: Seconds = 1.0
    cluster: str = ""


class FoldSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the log is cut and what is refused. A change takes effect after a marker in each partition."""

    segment_records: Positive = 50_000
    segment_bytes: Positive = 16_777_216
    memory_segments: Positive = 2
    max_age_days: Positive = 3_660
    max_ahead_seconds: Positive = 300
    dimensions: tuple[Dimension, ...] = ()


class WorkerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When results are written, whichever comes first; how much may wait in memory; when to call for help; audits."""

    processes: Positive = 1
    flush_seconds: FlushSeconds = 0.5
    flush_events: Positive = 200_000
    max_pending_events: Positive = 400_000
    max_pending_bytes: Positive = 268_435_456
    unready_seconds: Seconds = 30.0
    stuck_seconds: Seconds = 90.0
    stop_seconds: Seconds = 90.0
    audit_seconds: Seconds = 900.0


class PeriodsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hours and days: the zone of days, how often they are recomputed and checked, and when they are closed."""

    time_zone: str = "Asia/Baku"
    refresh_seconds: Seconds = 10.0
    grace_seconds: Seconds = 300.0
    sweep_seconds: Seconds = 900.0


class RejectedSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Refused events: how often one is replayed, and which share of them is an alarm or stops the worker."""

    max_attempts: Positive = 3
    alarm_share: Share = 0.05
    alarm_events: Positive = 100
    alarm_minutes: Positive = 15
    stop_share: Share = 0.8
    window_events: Positive = 10_000


class WebSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Address of the page, of /metrics and of the JSON behind the page."""

    host: str = "127.0.0.1"
    port: Port = 8080


class CatalogueSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The catalogue file; empty for the demonstration catalogue that comes with the program."""

    path: str = ""


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole tree."""

    kafka: KafkaSettings = KafkaSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    fold: FoldSettings = FoldSettings()
    worker: WorkerSettings = WorkerSettings()
    periods: PeriodsSettings = PeriodsSettings()
    rejected: RejectedSettings = RejectedSettings()
    web: WebSettings = WebSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    log: LogSettings = LogSettings()

    @property
    def catalogue_path(self) -> Path | None:
        """The catalogue file, or None for the demonstration catalogue."""
        return Path(self.catalogue.path) if self.catalogue.path else None


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> Settings:
    """Build the tree from its sources.

    Args:
        file: TOML file; None takes ``XIDMET_CONFIG``, or ``xidmet.toml`` in the working directory if it is there.
        environment: variables, ``os.environ`` by default.
        flags: ``section.key=value`` each.

    Raises:
        SettingsError: a name is unknown or a value is not of its type.
    """
    variables = os.environ if environment is None else environment
    tree: dict[str, dict[str, Any]] = {}
    for section, key, value, origin in (
        *_from_file(file, variables),
        *_from_environment(variables),
        *_from_flags(flags),
    ):
        known = _fields(section, origin)
        if key not in known:
            raise SettingsError(f"{origin}: no setting {section}.{key}{_nearest(key, known)}")
        if get_origin(known[key]) is tuple:
            value = _list(value, known[key], f"{origin}: {section}.{key}")
        try:
            checked = msgspec.convert(value, known[key], strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{origin}: {section}.{key}: {error}") from error
        tree.setdefault(section, {})[key] = checked
    return msgspec.convert(tree, Settings)


def as_flags(settings: Settings) -> list[str]:
    """``section.key=value`` of every setting, for another process; :func:`load_settings` reads them back."""
    tree: dict[str, dict[str, Any]] = msgspec.to_builtins(settings)
    return [
        f"{section}.{key}={','.join(value) if isinstance(value, list | tuple) else value}"
        for section, values in tree.items()
        for key, value in values.items()
    ]


def redacted(settings: Settings) -> dict[str, dict[str, Any]]:
    """The tree as plain data, without passwords, for printing and logging."""
    tree: dict[str, dict[str, Any]] = msgspec.to_builtins(settings)
    tree["clickhouse"]["url"] = redacted_url(settings.clickhouse.url)
    return tree


def redacted_url(url: str) -> str:
    """The URL with its password, if any, replaced by ``***``."""
    # Not by a parser: a password with special characters makes an invalid URL, and must not be shown for it.
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    if not (at and colon) or url.startswith("chdb:"):
        return url
    return f"{scheme}{separator}{user}:***@{place}"


_Setting = tuple[str, str, Any, str]


def _from_file(file: Path | None, variables: Mapping[str, str]) -> Iterator[_Setting]:
    path = file
    if path is None and (named := variables.get("XIDMET_CONFIG")):
        path = Path(named)
    if path is None:
        path = Path("xidmet.toml")
        if not path.exists():
            return
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name a readable settings file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    for section, values in content.items():
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: {section} stands outside a section; write it below [section]")
        for key, value in values.items():
            yield section, key, value, str(path)


def _from_environment(variables: Mapping[str, str]) -> Iterator[_Setting]:
    for name, value in sorted(variables.items()):
        section, separator, key = name.removeprefix(ENVIRONMENT_PREFIX).partition("__")
        if name.startswith(ENVIRONMENT_PREFIX) and separator:
            yield section.lower(), key.lower(), value, name


def _from_flags(flags: Sequence[str]) -> Iterator[_Setting]:
    for flag in flags:
        name, separator, value = flag.partition("=")
        section, dot, key = name.strip().partition(".")
        if not separator or not dot:
            raise SettingsError(f"--set {redacted_url(flag)}: write section.key=value")
        yield section, key, value, f"--set {name}"


def _list(value: Any, type_: Any, where: str) -> Any:
    """A list of words of a closed list, from a list or from text with commas.

    Raises:
        SettingsError: a word is not of the closed list.
    """
    words = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(words, list):
        return words
    allowed = dict.fromkeys(get_args(get_args(type_)[0]))
    for word in words:
        if word not in allowed:
            raise SettingsError(f"{where}: no {word!r}{_nearest(str(word), allowed)}")
    return words


def _fields(section: str, origin: str) -> dict[str, Any]:
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    if section not in sections:
        raise SettingsError(f"{origin}: no section {section!r}{_nearest(section, sections)}")
    return {field.name: field.type for field in msgspec.structs.fields(sections[section])}


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
