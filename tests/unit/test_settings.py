"""The tree of settings: where each comes from, what is refused and in which words, and that no password is shown."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.errors import SettingsError
from pipeline.settings import (
    Dimension,
    FoldSettings,
    LogSettings,
    Settings,
    as_flags,
    load_settings,
    redacted,
    redacted_url,
)
from sinks.clickhouse.client import parse_url

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "settings.md"
SECRET = "pass-phrase"

NAMES = {
    f"{section.name}.{field.name}": getattr(getattr(Settings(), section.name), field.name)
    for section in msgspec.structs.fields(Settings)
    for field in msgspec.structs.fields(section.type)
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests must not reach them."""
    monkeypatch.chdir(tmp_path)


def load(*flags: str, file: str | None = None, **environment: str) -> Settings:
    path = None
    if file is not None:
        path = Path("given.toml")
        path.write_text(file, "utf-8")
    return load_settings(path, environment, flags)


def refusal(*flags: str, file: str | None = None, **environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*flags, file=file, **environment)
    return str(caught.value)


def other_than(value: Any) -> str:
    """A value of the same type that is not the default."""
    if isinstance(value, float) and value < 1:
        return str(value / 2)  # a share
    if isinstance(value, int | float):
        return str(value + 1)
    return {"info": "debug", "json": "text"}.get(value, "something-else")


def test_without_sources_all_is_as_the_defaults_say() -> None:
    assert load() == Settings()


def test_each_source_wins_over_the_ones_before() -> None:
    file = '[kafka]\nbootstrap = "file:1"\ngroup = "file"\n[web]\nport = 1\n[log]\nlevel = "warning"\n'
    environment = {"XIDMET_KAFKA__GROUP": "environment", "XIDMET_WEB__PORT": "2"}
    settings = load("web.port=3", file=file, **environment)
    assert settings.kafka.bootstrap == "file:1"
    assert settings.kafka.group == "environment"
    assert settings.web.port == 3
    assert settings.log.level == "warning"
    assert settings.fold == Settings().fold


def test_the_later_of_two_flags_wins() -> None:
    assert load("web.port=1", "web.port=2").web.port == 2


@pytest.mark.parametrize("name", [name for name, default in NAMES.items() if default != ()])
def test_every_setting_can_be_set_from_every_source(name: str) -> None:
    section, key = name.split(".")
    value = other_than(NAMES[name])
    written = f'"{value}"' if isinstance(NAMES[name], str) else value
    sources: list[Settings] = [
        load(f"{name}={value}"),
        load(file=f"[{section}]\n{key} = {written}\n"),
        load(**{f"XIDMET_{section.upper()}__{key.upper()}": value}),
    ]
    for settings in sources:
        assert str(getattr(getattr(settings, section), key)) == value
        assert settings != Settings()


def test_a_list_is_written_with_commas_or_as_a_list() -> None:
    for settings in (
        load("fold.dimensions=hosting, initiator"),
        load(XIDMET_FOLD__DIMENSIONS="hosting,initiator,"),
        load(file='[fold]\ndimensions = ["hosting", "initiator"]\n'),
    ):
        assert settings.fold.dimensions == ("hosting", "initiator")
    assert load("fold.dimensions=hosting", "fold.dimensions=").fold.dimensions == ()


@pytest.mark.parametrize("value", ['"hosting,hostin"', '["hosting", "hostin"]'])
def test_an_unknown_word_of_a_list_is_refused_with_the_nearest(value: str) -> None:
    with pytest.raises(SettingsError, match=r"given\.toml: fold\.dimensions: no 'hostin'; did you mean hosting\?"):
        load(file=f"[fold]\ndimensions = {value}\n")
    with pytest.raises(SettingsError, match=r"fold\.dimensions: no 'x'; known: hosting, initiator, centre"):
        load("fold.dimensions=x")
    with pytest.raises(SettingsError, match=r"fold\.dimensions: Expected `array`"):
        load(file="[fold]\ndimensions = 3\n")
    with pytest.raises(SettingsError, match=r"fold\.dimensions: no 3"):
        load(file="[fold]\ndimensions = [3]\n")


def test_the_file_is_the_named_one_then_that_of_the_environment_then_the_one_in_the_directory() -> None:
    for name in ("given.toml", "environment.toml", "xidmet.toml"):
        Path(name).write_text(f'[kafka]\ngroup = "{name}"\n')
    environment = {"XIDMET_CONFIG": "environment.toml"}
    assert load_settings(Path("given.toml"), environment).kafka.group == "given.toml"
    assert load_settings(None, environment).kafka.group == "environment.toml"
    assert load_settings(None, {}).kafka.group == "xidmet.toml"
    Path("xidmet.toml").unlink()
    assert load_settings(None, {}).kafka.group == "xidmet"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIDMET_KAFKA__GROUP", "mine")
    assert load_settings().kafka.group == "mine"


def test_variables_of_others_are_left_alone() -> None:
    environment = {"HOME": "/", "XIDMET_CACHE": "/x", "KAFKA__GROUP": "x", "OTHER_KAFKA__GROUP": "x"}
    assert load(**environment) == Settings()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[kafka\n", "not TOML"),
        ("group = 'x'\n", "group stands outside a section"),
        ("[[kafka]]\ngroup = 'x'\n", "kafka stands outside a section"),
        ("[kafka]\ngruop = 'x'\n", "no setting kafka.gruop; did you mean group?"),
        ("[kafak]\ngroup = 'x'\n", "no section 'kafak'; did you mean kafka?"),
        ("[kafka.group]\nname = 'x'\n", "kafka.group: Expected `str`"),
        ("[web]\nport = 'http'\n", "web.port: Expected `int`"),
    ],
)
def test_a_faulty_file_is_named_with_the_fault(content: str, words: str) -> None:
    said = refusal(file=content)
    assert said.startswith("given.toml: ")
    assert words in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    Path("binary.toml").write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (Path("absent.toml"), "No such file"),
        (tmp_path, "directory"),
        (Path("binary.toml"), "not TOML"),
    ):
        with pytest.raises(SettingsError, match=words) as caught:
            load_settings(path, {})
        assert str(path) in str(caught.value)
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        load_settings(None, {"XIDMET_CONFIG": "absent.toml"})


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("kafka.gruop=x", "--set kafka.gruop: no setting kafka.gruop; did you mean group?"),
        ("clickhose.url=x", "no section 'clickhose'; did you mean clickhouse?"),
        ("web.zzz=1", "no setting web.zzz; known: host, port"),
        ("zzz.port=1", "no section 'zzz'; known: kafka, clickhouse,"),
        ("web.port", "write section.key=value"),
        ("port=1", "write section.key=value"),
        ("", "write section.key=value"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(flag: str, words: str) -> None:
    assert words in refusal(flag)


def test_an_unknown_variable_is_refused_by_its_own_name() -> None:
    said = refusal(XIDMET_KAFKA__BOOTSTARP="x")
    assert said == "XIDMET_KAFKA__BOOTSTARP: no setting kafka.bootstarp; did you mean bootstrap?"
    assert "no section 'kafak'" in refusal(XIDMET_KAFAK__GROUP="x")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("web.port=http", "Expected `int`"),
        ("web.port=", "Expected `int`"),
        ("web.port=-1", "Expected `int` >= 0"),
        ("web.port=65536", "Expected `int` <= 65535"),
        ("web.port=1.5", "Expected `int`"),
        ("kafka.partitions=0", "Expected `int` >= 1"),
        ("clickhouse.retry_seconds=0", "Expected `float` > 0"),
        ("worker.flush_seconds=0.049", "Expected `float` >= 0.05"),
        ("worker.flush_seconds=inf", "Expected `float` <= 3600"),
        ("worker.flush_seconds=nan", "Expected `float` >= 0.05"),
        ("worker.flush_seconds=soon", "Expected `float`"),
        ("log.level=loud", "Invalid enum value 'loud'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_setting_and_its_source(flag: str, words: str) -> None:
    name = flag.partition("=")[0]
    assert refusal(flag).startswith(f"--set {name}: {name}: {words}")


def test_values_may_hold_equal_signs_and_spaces() -> None:
    assert load("kafka.group=a=b c").kafka.group == "a=b c"
    assert load(" web.port =7").web.port == 7


def test_the_catalogue_path_is_none_unless_it_is_set() -> None:
    assert load().catalogue_path is None
    assert load("catalogue.path=a/b.json").catalogue_path == Path("a/b.json")


@pytest.mark.parametrize(
    "url",
    [
        f"clickhouse://user:{SECRET}@host:9000/db",
        f"clickhouses://user:{SECRET}@host/db",
        f"clickhouse://:{SECRET}@host/db",
        f"clickhouse://user:{SECRET}@host:port/db",
        f"clickhouse://user:a/{SECRET}@host:9000/db",
        f"clickhouse://user:a#{SECRET}@host:9000/db",
        f"clickhouse://user:a?{SECRET}@host:9000/db",
        f"clickhouse://user:a@{SECRET}@host:9000/db",
        f"clickhouse://user:a:{SECRET}@host:9000/db",
        f"clickhouse://user:[{SECRET}@host:9000/db",
        f"clickhouse://user:{SECRET}/@host:9000/db",
        f"clickhouse://user:{SECRET}://@host:9000/db",
        f"http://user:{SECRET}@host:8123/",
        f"user:{SECRET}@host:9000/db",
    ],
)
def test_no_password_is_shown_anywhere_not_even_of_a_faulty_url(url: str) -> None:
    shown = [redacted_url(url), str(redacted(load(f"clickhouse.url={url}")))]
    try:
        parse_url(url)
    except SettingsError as error:
        shown.append(str(error))
    shown += [
        refusal(f"clickhouse.ulr={url}"),
        refusal(f"clickhuose.url={url}"),
        refusal(f"clickhouse.url:{url}"),
        refusal(XIDMET_CLICKHOUSE__ULR=url),
        refusal(file=f"[clickhouse]\nulr = '{url}'\n"),
    ]
    assert [words for words in shown if SECRET in words] == []
    assert "***" in shown[0]


@pytest.mark.parametrize(
    "url", ["clickhouse://default@127.0.0.1:9000/xidmet", "clickhouse://host", "chdb:/data/a:b@c", "chdb://dir"]
)
def test_a_url_without_password_is_shown_as_it_is(url: str) -> None:
    assert redacted_url(url) == url


def test_the_redacted_tree_has_every_setting() -> None:
    tree = redacted(load(f"clickhouse.url=clickhouse://me:{SECRET}@host:9000/db"))
    assert {f"{section}.{key}" for section, values in tree.items() for key in values} == set(NAMES)
    assert tree["clickhouse"]["url"] == "clickhouse://me:***@host:9000/db"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("clickhouse://h", ("h", 9000, "default", "", "xidmet", False)),
        ("clickhouses://h", ("h", 9440, "default", "", "xidmet", True)),
        ("clickhouse://u:p%40%2F@h:1/d", ("h", 1, "u", "p@/", "d", False)),
        ("clickhouse://[::1]:9/d", ("::1", 9, "default", "", "d", False)),
    ],
)
def test_urls_of_servers_are_taken_apart(url: str, expected: tuple[Any, ...]) -> None:
    address = parse_url(url)
    found = (address.host, address.port, address.user, address.password, address.database, address.secure)
    assert (found, address.directory) == (expected, "")


@pytest.mark.parametrize(("url", "directory"), [("chdb:data", "data"), ("chdb:/a b/c", "/a b/c"), ("chdb://x", "x")])
def test_urls_of_directories_are_taken_apart(url: str, directory: str) -> None:
    assert parse_url(url).directory == directory


@pytest.mark.parametrize("url", ["", "chdb:", "host:9000", "http://host", "clickhouse://", "clickhouse://h:99999"])
def test_other_urls_are_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^clickhouse\.url .*: (write|name|not a URL)"):
        parse_url(url)


@pytest.mark.skipif(not DOCUMENT.exists(), reason="docs/settings.md is not written yet")
def test_the_document_has_every_setting_with_its_default_and_no_other() -> None:
    documented = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|[^|]*\| `([^`]*)` \|", DOCUMENT.read_text("utf-8"), re.M))
    assert {name: value.strip('"') for name, value in documented.items()} == {
        name: "[]" if default == () else str(default) for name, default in NAMES.items()
    }


@pytest.mark.parametrize("dimensions", [(), ("hosting",), ("hosting", "sign_in")])
def test_flags_for_another_process_are_read_back(dimensions: tuple[Dimension, ...]) -> None:
    settings = Settings(fold=FoldSettings(dimensions=dimensions), log=LogSettings(format="text"))
    assert load_settings(environment={}, flags=as_flags(settings)) == settings
