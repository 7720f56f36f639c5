"""The published contract in docs/contract/ is current, valid, and says what the decoder does."""

import copy
import json
import re
import subprocess
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from pipeline.catalogue import demonstration_catalogue
from pipeline.catalogue.changes import CHANGED_TYPE, read_change
from pipeline.contract.checks import check
from pipeline.contract.columns import EventColumns, to_columns
from pipeline.contract.decode import Decoded, decode
from pipeline.contract.events import MAX_DURATION_MS, STAGE_TYPE, USED_TYPE, StageData, UseData
from pipeline.contract.generate import (
    DEAD_LETTER_HEADERS,
    DIRECTORY,
    DISPOSITION_HEADERS,
    EXAMPLES,
    OPTIONAL_HEADERS,
    asyncapi,
    contract_files,
    differences,
    event_schema,
    main,
    reasons_table,
)
from pipeline.contract.identifiers import pseudonym_fault
from pipeline.contract.profiles import PROFILE_FIELDS, Profiles
from pipeline.contract.reasons import Reason
from pipeline.contract.statements import Logged, Unreadable
from pipeline.fold.flush import Reject
from pipeline.fold.records import LogPartition
from pipeline.runtime.replaying import Dispositions, replay_message
from pipeline.settings import FoldSettings, KafkaSettings, Settings
from sinks.dead_letters import _headers as dead_letter_headers
from sinks.dead_letters import _letter as dead_letter
from sinks.letters import Coordinates, Entry
from tests.support.skipping import need_program

Json = dict[str, Any]

README = (DIRECTORY / "README.md").read_text("utf-8")
TYPES = (USED_TYPE, STAGE_TYPE)
FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


SCHEMAS = {kind: event_schema(kind) for kind in TYPES}
VALIDATORS = {kind: Draft202012Validator(schema, format_checker=FORMATS) for kind, schema in SCHEMAS.items()}
ASYNCAPI = asyncapi()


def component(name: str) -> Draft202012Validator:
    """A validator of a schema of the AsyncAPI document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": ASYNCAPI["components"]}
    return Draft202012Validator(schema, format_checker=FORMATS)


def one(event: Any) -> Decoded:
    return decode([json.dumps(event).encode()], [()])


def is_decoded(event: Json) -> bool:
    decoded = one(event)
    assert len(decoded.events) + len(decoded.refusals) == 1
    return not decoded.refusals


def example(kind: str) -> Json:
    name = f"{kind.removeprefix('xidmet.')}.json"
    return copy.deepcopy(EXAMPLES[name])


# The files


def test_the_published_files_are_current() -> None:
    assert differences(DIRECTORY) == [], "run: make contract"


def test_generating_twice_gives_the_same_bytes() -> None:
    assert contract_files() == contract_files()
    assert all(content.endswith("\n") and not content.endswith("\n\n") for content in contract_files().values())


def test_writing_and_checking_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--directory", str(tmp_path / "contract")]
    assert main([*arguments, "--check"]) == 1
    assert not (tmp_path / "contract").exists()
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    capsys.readouterr()

    (tmp_path / "contract" / "reasons.md").write_text("changed")
    (tmp_path / "contract" / "asyncapi.json").unlink()
    (tmp_path / "contract" / "examples" / "old.json").write_text("{}")
    assert main([*arguments, "--check"]) == 1
    said = capsys.readouterr().err
    assert "reasons.md differs from the types" in said
    assert "asyncapi.json is missing" in said
    assert "examples/old.json is not generated any more" in said
    assert "make contract" in said


def test_nothing_depends_on_the_machine() -> None:
    for name, content in {**contract_files(), "README.md": README}.items():
        assert not re.search(r"/(home|work|tmp|root|Users)/|localhost", content), name


def test_every_reason_is_in_the_table_once_with_meaning_and_remedy() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", reasons_table(), re.MULTILINE)
    assert [code for code, _, _ in rows] == [reason.value for reason in Reason]
    assert all(meaning and remedy for _, meaning, remedy in rows)


# Schemas


@pytest.mark.parametrize("kind", TYPES)
def test_a_schema_is_of_json_schema_2020_12_and_holds_the_whole_envelope(kind: str) -> None:
    schema = SCHEMAS[kind]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == kind
    assert set(schema["required"]) == {"specversion", "type", "id", "source", "time", "data"}
    assert schema["properties"]["type"] == {"enum": [kind]}
    assert schema["properties"]["specversion"]["enum"] == ["1.0"]


@pytest.mark.parametrize("kind", TYPES)
def test_every_field_is_described(kind: str) -> None:
    schema = SCHEMAS[kind]
    (data,) = schema["$defs"].values()
    for name, field in [*schema["properties"].items(), *data["properties"].items()]:
        described = [field, *field.get("anyOf", ())]
        assert name in ("type", "data") or any(part.get("description") for part in described), name


@pytest.mark.parametrize("kind", TYPES)
def test_the_example_of_a_type_is_valid_and_counted(kind: str) -> None:
    VALIDATORS[kind].validate(example(kind))
    assert is_decoded(example(kind))


@pytest.mark.parametrize("kind", TYPES)
def test_examples_of_one_type_are_not_valid_as_the_other(kind: str) -> None:
    (other,) = set(TYPES) - {kind}
    assert not VALIDATORS[other].is_valid(example(kind))


def test_all_examples_pass_the_checks_too() -> None:
    values, headers = [], []
    usage = {name: content for name, content in EXAMPLES.items() if not name.startswith(("catalogue.", "figure."))}
    for name, content in usage.items():
        binary = name.startswith("binary.")
        values.append(json.dumps(content["value"] if binary else content).encode())
        headers.append([(key, text.encode()) for key, text in content["headers"].items()] if binary else [])
    decoded = decode(values, headers)
    assert decoded.refusals == []
    assert len(decoded.events) == 4 + len(EXAMPLES["batch.json"])
    columns = to_columns(decoded, Profiles())
    stamps = [max(columns.time_ms)] * len(values)
    assert check(columns, stamps, demonstration_catalogue(), max_age_days=1, max_ahead_seconds=1) == {}


def test_binary_examples_equal_the_structured_ones() -> None:
    for kind in ("service.used.v1", "application.stage.v1"):
        binary = EXAMPLES[f"binary.{kind}.json"]
        headers = [(key, text.encode()) for key, text in binary["headers"].items()]
        decoded = decode([json.dumps(binary["value"]).encode()], [headers])
        ours, structured = (to_columns(events, Profiles()) for events in (decoded, one(EXAMPLES[f"{kind}.json"])))
        for field in fields(EventColumns):
            if field.name != "profiles":
                assert list(getattr(ours, field.name)) == list(getattr(structured, field.name))
        assert [list(ours.text(name)) for name in PROFILE_FIELDS] == [
            list(structured.text(name)) for name in PROFILE_FIELDS
        ]


def test_there_is_an_example_of_every_value_that_is_easily_got_wrong() -> None:
    text = json.dumps(EXAMPLES)
    for value in ("not_eligible", "failure", "centre", "state", "government_cloud", "+04:00", "Z", "null", "consumer"):
        assert value in text


# Schema and decoder agree

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=4)), timezone(-timedelta(hours=9, minutes=30))])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)


def valid(schema: Json, root: Json) -> st.SearchStrategy[Any]:
    """Values that are valid under a schema of the few keywords that the contract needs."""
    if "$ref" in schema:
        return valid(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([valid(part, root) for part in schema["anyOf"]])
    match schema.get("type"):
        case "object":
            parts = {name: valid(part, root) for name, part in schema["properties"].items()}
            required = {name: parts.pop(name) for name in schema["required"]}
            known = st.fixed_dictionaries(required, optional=parts)
            unknown = st.dictionaries(st.text(max_size=5).map("x{}".format), ANY_JSON, max_size=2)
            return st.tuples(unknown, known).map(lambda pair: {**pair[0], **pair[1]})
        case "string" if schema.get("format") == "date-time":
            return st.datetimes(timezones=ZONES).map(datetime.isoformat)
        case "string" if "pattern" in schema:
            return st.from_regex(re.compile(schema["pattern"].removesuffix("$") + r"\Z", re.ASCII))
        case "string":
            return st.text(min_size=schema["minLength"], max_size=min(schema["maxLength"], 20))
        case "number":
            low, high = schema["minimum"], schema["maximum"]
            return st.floats(low, high) | st.integers(low, high)
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "null":
            return st.none()
    assert set(schema) <= {"description"}, schema
    return ANY_JSON


EVENTS = {kind: valid(schema, schema) for kind, schema in SCHEMAS.items()}
EVENT = st.sampled_from(TYPES).flatmap(lambda kind: EVENTS[kind])
RELAXED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(EVENT)
def test_what_is_valid_under_the_schema_is_decoded(event: Json) -> None:
    VALIDATORS[event["type"]].validate(event)
    decoded = one(event)
    assert decoded.refusals == []
    (got,) = decoded.events
    for name in type(got.data).__struct_fields__:
        assert getattr(got.data, name) == event["data"].get(name)


def wrong(schema: Json, root: Json, optional: bool) -> st.SearchStrategy[Any]:
    """Values of the wrong type, none of the enumeration, or out of bounds."""
    if "$ref" in schema:
        return st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
    if "anyOf" in schema:
        (only,) = (part for part in schema["anyOf"] if part != {"type": "null"})
        return wrong(only, root, optional=True)
    never: st.SearchStrategy[Any] = st.lists(st.integers(), max_size=2) | st.dictionaries(
        st.text(max_size=3), st.none(), max_size=2
    )
    never = st.one_of(never, st.booleans(), st.nothing() if optional else st.none())
    if "enum" in schema:
        return never | st.integers() | st.text(max_size=8).filter(lambda text: text not in schema["enum"])
    if schema["type"] == "string":
        lengths = st.just("x" * (schema["maxLength"] + 1)) | st.just("") if "maxLength" in schema else st.nothing()
        times = st.sampled_from(["", "now", "2025-03-14T09:26:53"]) if "format" in schema else st.nothing()
        numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
        return st.one_of(never, numbers, lengths, times)
    low, high = schema["minimum"], schema["maximum"]
    outside: st.SearchStrategy[Any] = st.integers(max_value=low - 1) | st.integers(min_value=high + 1)
    if schema["type"] == "number":
        outside |= st.floats(max_value=low, exclude_max=True, allow_infinity=False)
        outside |= st.floats(min_value=high, exclude_min=True, allow_infinity=False)
    else:
        outside |= st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    return never | st.text(max_size=5) | outside


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, Json]:
    """An event with one value that neither schema nor decoder may accept, or without one that is required."""
    kind = draw(st.sampled_from(TYPES))
    event = draw(EVENTS[kind])
    schema = SCHEMAS[kind]
    target = event
    if draw(st.booleans()):
        schema = schema["$defs"][schema["properties"]["data"]["$ref"].rpartition("/")[2]]
        target = event["data"]
    if draw(st.integers(0, 3)) == 0:
        del target[draw(st.sampled_from(schema["required"]))]
    else:
        name = draw(
            st.sampled_from([name for name, part in schema["properties"].items() if set(part) != {"description"}])
        )
        target[name] = draw(wrong(schema["properties"][name], SCHEMAS[kind], optional=False))
    return kind, event


@RELAXED
@given(spoiled())
def test_what_has_a_wrong_type_or_bound_is_refused_by_schema_and_decoder(made: tuple[str, Json]) -> None:
    kind, event = made
    assert not VALIDATORS[kind].is_valid(event)
    assert not is_decoded(event)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("value", ["", "a b", "ə", "x" * 200])
def test_what_breaks_a_pattern_is_refused_by_the_schema_and_by_the_checks(kind: str, value: str) -> None:
    (data,) = SCHEMAS[kind]["$defs"].values()
    for name, part in data["properties"].items():
        if "pattern" not in json.dumps(part):
            continue
        event = example(kind)
        event["data"][name] = value
        assert not VALIDATORS[kind].is_valid(event)
        if value == "" and name not in data["required"]:
            continue  # an empty text is taken for an absent one
        columns = to_columns(one(event), Profiles())
        found = check(columns, [columns.time_ms[0]], demonstration_catalogue(), 1, 1)
        assert list(found) == [0], name


def test_a_whole_number_with_a_decimal_point_is_the_one_known_difference() -> None:
    event = example(USED_TYPE)
    event["data"]["rating"] = 5.0
    assert VALIDATORS[USED_TYPE].is_valid(event)
    assert not is_decoded(event)
    assert "`5`, not `5.0`" in README


# AsyncAPI


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


def test_the_example_of_a_catalogue_change_is_valid_and_read() -> None:
    event = EXAMPLES["catalogue.changed.v1.json"]
    validator = Draft202012Validator(event_schema(CHANGED_TYPE), format_checker=FORMATS)
    validator.validate(event)
    read = read_change(json.dumps(event).encode(), 0, 0)
    assert isinstance(read, Logged)
    assert read.said.key == ("mlspp", "disability-allowance-granting", "registered", date(2013, 7, 1))
    for field in ("change", "agency", "valid_from", "name"):
        without = copy.deepcopy(event)
        del without["data"][field]
        assert not validator.is_valid(without)
        assert isinstance(read_change(json.dumps(without).encode(), 0, 0), Unreadable)


def test_all_references_of_the_asyncapi_document_lead_somewhere() -> None:
    found = references(ASYNCAPI)
    assert found
    for reference in found:
        node: Any = ASYNCAPI
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_the_asyncapi_document_names_the_topics_and_the_three_modes() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    channels = ASYNCAPI["channels"]
    topics = KafkaSettings()
    assert {channel["address"] for channel in channels.values()} == {
        topics.events_topic,
        topics.rejected_topic,
        topics.catalogue_topic,
        topics.figures_topic,
    }
    sent = [ASYNCAPI["components"]["messages"][name] for name in channels["usageEvents"]["messages"]]
    assert {message["contentType"] for message in sent} == {
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/json",
    }


def test_the_examples_in_the_asyncapi_document_are_valid_under_its_schemas() -> None:
    met = 0
    for message in ASYNCAPI["components"]["messages"].values():
        for content in message.get("examples", ()):
            met += 1
            component(message["payload"]["$ref"].rpartition("/")[2]).validate(content["payload"])
            if "headers" in content:
                component(message["headers"]["$ref"].rpartition("/")[2]).validate(content["headers"])
    assert met == len(EXAMPLES)


def test_headers_of_binary_messages_are_those_that_decoding_requires() -> None:
    for kind, headers in (("service.used.v1", "UsedHeaders"), ("application.stage.v1", "StageHeaders")):
        binary = EXAMPLES[f"binary.{kind}.json"]
        required = ASYNCAPI["components"]["schemas"][headers]["required"]
        assert set(required) == {"ce_specversion", "ce_type", "ce_id", "ce_source", "ce_time"}
        for name in required:
            fewer = [(key, text.encode()) for key, text in binary["headers"].items() if key != name]
            assert decode([json.dumps(binary["value"]).encode()], [fewer]).refusals
            assert not component(headers).is_valid({key: text.decode() for key, text in fewer})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("agency", ["", "mia"])
@pytest.mark.parametrize("timestamp", [-1, 1_741_944_413_000])
def test_headers_of_dead_letters_are_those_that_the_sink_writes(masked: bool, agency: str, timestamp: int) -> None:
    optional = {"xidmet-masked": masked, "xidmet-agency": bool(agency)}
    log = LogPartition("usage.events", "topic-id", 3)
    for reason in Reason:
        reject = Reject(log, 12, 0, timestamp, reason, "words", None, [], b"", agency)
        written = {name: value.decode() for name, value in dead_letter_headers(reject, masked)}
        expected = [name for name in DEAD_LETTER_HEADERS if optional.get(name, name not in OPTIONAL_HEADERS)]
        assert list(written) == expected
        component("DeadLetterHeaders").validate(written)


def test_the_other_headers_are_those_that_the_sink_and_a_replay_write() -> None:
    log = LogPartition("usage.events", "topic-id", 3)
    reject = Reject(log, 12, 4, 5, Reason.NOT_JSON, "words", None, [], b"value")
    letter = dead_letter(reject)
    entry = Entry(Coordinates("topic-id", 3, 12, 4), "not_json", "other", "", 5, 0, False, None, 5, (0, 0))
    again = dead_letter(replace(reject, headers=replay_message(entry, letter).headers))
    for message in (letter.smaller(), again):
        written = {name: value.decode() for name, value in message.headers}
        assert set(written) <= set(DEAD_LETTER_HEADERS)
        component("DeadLetterHeaders").validate(written)
    assert {"xidmet-attempt", "xidmet-replay-of"} <= set(written)
    _, _, disposition = Dispositions(Settings())._disposition(entry, "dropped")
    done = {name: value.decode() for name, value in disposition.headers}
    assert list(done) == list(DISPOSITION_HEADERS)
    component("DispositionHeaders").validate(done)
    assert disposition.value == b""


# The page for developers


def test_the_readme_names_every_field_and_every_value() -> None:
    for name in {*UseData.__struct_fields__, *StageData.__struct_fields__, *SCHEMAS[USED_TYPE]["required"]}:
        assert f"`{name}`" in README, name
    for kind in TYPES:
        assert f"`{kind}`" in README
        (data,) = SCHEMAS[kind]["$defs"].values()
        for part in data["properties"].values():
            for option in [part, *part.get("anyOf", ())]:
                for value in option.get("enum", ()):
                    assert f"`{value}`" in README, value
    for name in {*DEAD_LETTER_HEADERS, *DISPOSITION_HEADERS}:
        assert f"`{name}`" in README, name


def test_the_readme_states_the_defaults_that_are_in_force() -> None:
    fold, kafka = FoldSettings(), KafkaSettings()
    for value in (fold.max_age_days, fold.max_ahead_seconds, MAX_DURATION_MS, kafka.events_topic, kafka.rejected_topic):
        assert re.search(rf"\b{re.escape(str(value))}\b", README), value


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert target.startswith("https://") or (DIRECTORY / target).exists(), target
    for name in re.findall(r"[\w.]+\.json", README):
        assert (DIRECTORY / name).exists() or (DIRECTORY / "examples" / name).exists(), name


def readme_code(language: str, containing: str) -> str:
    (code,) = (c for c in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in c)
    assert isinstance(code, str)
    return code


def test_the_readmes_python_makes_a_pseudonym_that_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(readme_code("python", "hmac"), "README.md", "exec"), {})
    made = capsys.readouterr().out.strip()
    assert pseudonym_fault(made) is None
    assert len(made) == 43
    assert f"`{made}`" in README


def test_the_readmes_shell_command_makes_the_same_pseudonym() -> None:
    for program in ("openssl", "basenc"):
        need_program(program)
    command = readme_code("sh", "openssl")
    made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=30).stdout
    assert f"`{made.strip()}`" in README


def test_the_readmes_binary_message_is_counted() -> None:
    command = readme_code("sh", "ce_specversion")
    value = re.findall(r"echo '(.*)'", command)[0].encode()
    given_headers = dict(re.findall(r"-H ([\w-]+)=(\S+)", command))
    given_headers["ce_time"] = "2025-03-14T09:26:53Z"
    headers = [(name, text.encode()) for name, text in given_headers.items()]
    decoded = decode([value], [headers])
    assert decoded.refusals == []
    columns = to_columns(decoded, Profiles())
    assert check(columns, columns.time_ms, demonstration_catalogue(), 1, 1) == {}
