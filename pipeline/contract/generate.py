"""Write the published contract: JSON Schema, AsyncAPI, the table of reasons, and examples.

``python -m pipeline.contract.generate`` writes docs/contract/ from the types that are decoded, so that what is
documented is what is accepted; with ``--check`` it writes nothing and fails if the files differ.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.catalogue.changes import CHANGED_TYPE, ChangedEvent
from pipeline.contract.events import STAGE_TYPE, USED_TYPE, StageData, StageEvent, UseData, UsedEvent
from pipeline.contract.reasons import REASON_HELP, Reason
from pipeline.figures.model import FIGURE_TYPE, FigureEvent
from pipeline.settings import KafkaSettings

DIRECTORY: Final = Path(__file__).resolve().parents[2] / "docs" / "contract"

STRUCTURED_CONTENT_TYPE: Final = "application/cloudevents+json"
BATCH_CONTENT_TYPE: Final = "application/cloudevents-batch+json"
BINARY_CONTENT_TYPE: Final = "application/json"

DEAD_LETTER_HEADERS: Final = {
    "xidmet-reason": "Why the event was refused: a code of the closed list in reasons.md.",
    "xidmet-detail": "What is wrong, in words. Holds no value of the event.",
    "xidmet-topic": "Topic of the refused message.",
    "xidmet-topic-id": "Kafka's id of that topic.",
    "xidmet-partition": "Partition of the refused message.",
    "xidmet-offset": "Offset of the refused message in its partition.",
    "xidmet-batch-index": "Place of the event in its message, from 0; 0 unless the message was a batch.",
    "xidmet-timestamp": "Time stamp of the refused message, Unix milliseconds; negative if it had none.",
    "xidmet-agency": "Only there if the event names an agency of the catalogue: its code.",
    "xidmet-masked": "Only there if personal identifiers were replaced by asterisks; then true.",
    "xidmet-value-bytes": "Only there if the event was too large for a letter, which then has no value: its length.",
    "xidmet-attempt": "Only there if the event was sent again by a replay: how often so far.",
    "xidmet-replay-of": "Only there after a replay: topic id, partition, offset and batch index of that letter.",
}
"""Headers that a dead letter has besides those of the refused message."""

OPTIONAL_HEADERS: Final = frozenset(name for name, text in DEAD_LETTER_HEADERS.items() if text.startswith("Only there"))

DISPOSITION_HEADERS: Final = {
    "xidmet-disposition": "What was done with a dead letter: replayed or dropped.",
    **{
        name: f"{DEAD_LETTER_HEADERS[name].removesuffix('.')}, as in the dead letter."
        for name in ("xidmet-topic-id", "xidmet-partition", "xidmet-offset", "xidmet-batch-index")
    },
}
"""Headers of the message that says what was done with a dead letter."""

_VERSION: Final = "1.0.0"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_EVENTS: Final = (
    (USED_TYPE, UsedEvent),
    (STAGE_TYPE, StageEvent),
    (CHANGED_TYPE, ChangedEvent),
    (FIGURE_TYPE, FigureEvent),
)
_IGNORED: Final = {
    "subject": "Of CloudEvents. Tolerated and ignored; must not identify a person.",
    "datacontenttype": f"Of CloudEvents. Tolerated and ignored: data is always {BINARY_CONTENT_TYPE}.",
    "dataschema": "Of CloudEvents. Tolerated and ignored: the type says which schema data has.",
}
_NO_HINT: Final = "see the detail, which names the field, and the JSON Schema"

Json = dict[str, Any]

_USED: Final[Json] = {
    "specversion": "1.0",
    "type": USED_TYPE,
    "id": "0190b2f4-6c1e-7d5a-9f3b-2a8e4c7d1b60",
    "source": "https://portal.mlspp.example/e-services",
    "time": "2025-03-14T09:26:53.589+04:00",
    "datacontenttype": BINARY_CONTENT_TYPE,
    "data": {
        "agency": "mlspp",
        "service": "disability-allowance-granting",
        "channel": "web",
        "outcome": "success",
        "duration_ms": 1840,
        "user": "ct3KINekytp-mvV1dI1VKmucwopDxfoH1Ppi0OpK9nE",
        "application": "MLSPP-2025-0048213",
        "hosting": "government_cloud",
        "sign_in": "mobile-signature",
        "initiator": "citizen",
        "rating": 5,
    },
}
_AT_THE_CENTRE: Final[Json] = {
    "specversion": "1.0",
    "type": USED_TYPE,
    "id": "7fb1c9de-3a52-4e08-8d4b-5c6f0e9a2b31",
    "source": "urn:example:centre-desk:3",
    "time": "2025-03-14T05:31:07Z",
    "data": {
        "agency": "mia",
        "service": "driving-licence-replacement",
        "channel": "centre",
        "outcome": "not_eligible",
        "duration_ms": 412000.5,
        "user": "e9ddca599c7d0625002e36b2cfb631261ec0c06c1e3654a5bfcfc8b2b7c2467a",
        "centre": "service-centre-3",
        "district": "yasamal",
        "hosting": "own",
    },
}
_CALL: Final[Json] = {
    "specversion": "1.0",
    "type": USED_TYPE,
    "id": "exchange-5530771",
    "source": "urn:example:register-gateway",
    "time": "2025-03-14T05:31:08.004Z",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "data": {
        "agency": "justice",
        "service": "birth-certificate-copy",
        "channel": "api",
        "outcome": "failure",
        "duration_ms": 30000,
        "user": None,
        "consumer": "mlspp/benefits",
        "initiator": "state",
    },
}
_STAGE: Final[Json] = {
    "specversion": "1.0",
    "type": STAGE_TYPE,
    "id": "MLSPP-2025-0048213/received",
    "source": "https://portal.mlspp.example/e-services",
    "time": "2025-03-14T09:26:54+04:00",
    "data": {
        "agency": "mlspp",
        "service": "disability-allowance-granting",
        "application": "MLSPP-2025-0048213",
        "stage": "received",
        "channel": "web",
        "user": "ct3KINekytp-mvV1dI1VKmucwopDxfoH1Ppi0OpK9nE",
    },
}
_CHANGE: Final[Json] = {
    "specversion": "1.0",
    "type": CHANGED_TYPE,
    "id": "list-2013-07/disability-allowance-granting",
    "source": "urn:example:register-of-services",
    "time": "2013-07-02T08:00:00Z",
    "data": {
        "change": "registered",
        "agency": "mlspp",
        "service": "disability-allowance-granting",
        "valid_from": "2013-07-01",
        "name": {
            "az": "Əlilliyə görə müavinətin təyin edilməsi",
            "en": "Granting of a disability allowance",
            "ru": "Назначение пособия по инвалидности",
        },
    },
}
_FIGURE: Final[Json] = {
    "specversion": "1.0",
    "type": FIGURE_TYPE,
    "id": "portal-2015-12",
    "source": "urn:example:annual-report-2015",
    "time": "2016-01-20T08:00:00Z",
    "data": {"measure": "uses", "start": "2015-12-01", "length": "month", "value": "710981"},
}


def _binary(event: Json) -> Json:
    """The headers and the value of the message that carries the event in binary mode."""
    headers = {f"ce_{name}": value for name, value in event.items() if name not in ("data", "datacontenttype")}
    return {"headers": {**headers, "content-type": BINARY_CONTENT_TYPE}, "value": event["data"]}


EXAMPLES: Final[dict[str, Any]] = {
    "service.used.v1.json": _USED,
    "application.stage.v1.json": _STAGE,
    "catalogue.changed.v1.json": _CHANGE,
    "figure.stated.v1.json": _FIGURE,
    "batch.json": [_AT_THE_CENTRE, _CALL, _STAGE],
    "binary.service.used.v1.json": _binary(_USED),
    "binary.application.stage.v1.json": _binary(_STAGE),
}
"""File name to content. Of a message in binary mode, which is no single JSON text, its headers and its value."""


def contract_files() -> dict[str, str]:
    """The generated files: path below docs/contract to content. The same for the same types."""
    files = {schema_name(kind): _text(event_schema(kind)) for kind, _ in _EVENTS}
    files["asyncapi.json"] = _text(asyncapi())
    files["reasons.md"] = reasons_table()
    files.update({f"examples/{name}": _text(example) for name, example in EXAMPLES.items()})
    return files


def schema_name(event_type: str) -> str:
    """File name of an event type's JSON Schema."""
    return f"{event_type.removeprefix('xidmet.')}.schema.json"


def event_schema(event_type: str) -> Json:
    """The JSON Schema 2020-12 of an event in structured mode."""
    event = dict(_EVENTS)[event_type]
    (reference,), components = msgspec.json.schema_components([event], ref_template="#/$defs/{name}")
    root = _described(components).pop(reference["$ref"].rpartition("/")[2])
    return {
        "$schema": _DIALECT,
        "$id": f"urn:xidmet:contract:{event_type.removeprefix('xidmet.')}",
        **root,
        "title": event_type,
        "$defs": components,
    }


def _described(components: dict[str, Any]) -> dict[str, Any]:
    """Say in each object what the types cannot say: unknown fields are allowed, some attributes are ignored."""
    for component in components.values():
        # Some types do forbid them.
        component.setdefault("additionalProperties", True)
        for name, words in _IGNORED.items():
            if component["properties"].get(name) == {}:
                component["properties"][name] = {"description": words}
    return components


def asyncapi() -> Json:
    """The AsyncAPI 3.0 document, with the topics' default names."""
    topics = KafkaSettings()
    types = [UsedEvent, StageEvent, UseData, StageData, ChangedEvent, FigureEvent]
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = {
        **_described(components),
        "EventBatch": {
            "type": "array",
            "minItems": 1,
            "description": "CloudEvents JSON batch. Each event is judged by itself.",
            "items": {"anyOf": [_ref("schemas", "UsedEvent"), _ref("schemas", "StageEvent")]},
        },
        "UsedHeaders": _binary_headers(USED_TYPE, components["UsedEvent"]),
        "StageHeaders": _binary_headers(STAGE_TYPE, components["StageEvent"]),
        "StructuredHeaders": _content_type_header(STRUCTURED_CONTENT_TYPE),
        "BatchHeaders": _content_type_header(BATCH_CONTENT_TYPE),
        "DeadLetterHeaders": _dead_letter_headers(),
        "DispositionHeaders": _disposition_headers(),
    }
    messages = {
        "serviceUsed": _message(
            "One use of a service, structured mode",
            STRUCTURED_CONTENT_TYPE,
            ("StructuredHeaders", "UsedEvent"),
            [("service.used.v1", {"payload": EXAMPLES["service.used.v1.json"]})],
        ),
        "applicationStage": _message(
            "One stage of an application, structured mode",
            STRUCTURED_CONTENT_TYPE,
            ("StructuredHeaders", "StageEvent"),
            [("application.stage.v1", {"payload": EXAMPLES["application.stage.v1.json"]})],
        ),
        "eventBatch": _message(
            "Many events of any type, batch mode",
            BATCH_CONTENT_TYPE,
            ("BatchHeaders", "EventBatch"),
            [("batch", {"payload": EXAMPLES["batch.json"]})],
        ),
        "serviceUsedBinary": _message(
            "One use of a service, binary mode",
            BINARY_CONTENT_TYPE,
            ("UsedHeaders", "UseData"),
            [_binary_example("binary.service.used.v1")],
        ),
        "applicationStageBinary": _message(
            "One stage of an application, binary mode",
            BINARY_CONTENT_TYPE,
            ("StageHeaders", "StageData"),
            [_binary_example("binary.application.stage.v1")],
        ),
        "deadLetter": {
            "title": "An event that was refused",
            "summary": (
                "The original bytes of the event (of a batch only the refused event), with personal identifiers"
                " replaced by asterisks. Key and headers are those of the refused message, and further headers say"
                " where it stood and why it was refused. A letter can come twice; topic id, partition, offset and"
                " batch index make the two one."
            ),
            "contentType": "application/octet-stream",
            "headers": _ref("schemas", "DeadLetterHeaders"),
            "payload": {"description": "Any bytes, for what was refused need not be JSON."},
            "bindings": {"kafka": {"key": {"type": ["string", "null"]}, "bindingVersion": "0.5.0"}},
        },
        "catalogueChanged": _message(
            "What became true of an agency or a service, structured mode",
            STRUCTURED_CONTENT_TYPE,
            ("StructuredHeaders", "ChangedEvent"),
            [("catalogue.changed.v1", {"payload": EXAMPLES["catalogue.changed.v1.json"]})],
        ),
        "figureStated": _message(
            "A number that somebody else counted, or a cost, structured mode",
            STRUCTURED_CONTENT_TYPE,
            ("StructuredHeaders", "FigureEvent"),
            [("figure.stated.v1", {"payload": EXAMPLES["figure.stated.v1.json"]})],
        ),
        "disposition": {
            "title": "What was done with a dead letter",
            "summary": (
                "The letter of the same coordinates was sent again or put aside. It has no xidmet-reason, by which"
                " readers tell it from a letter."
            ),
            "contentType": "application/octet-stream",
            "headers": _ref("schemas", "DispositionHeaders"),
            "payload": {"description": "Empty."},
            "bindings": {"kafka": {"key": {"type": "null"}, "bindingVersion": "0.5.0"}},
        },
    }
    refused, stated = ("deadLetter", "disposition"), ("catalogueChanged", "figureStated")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "xidmet event contract",
            "version": _VERSION,
            "description": (
                "Usage events of public e-services as CloudEvents 1.0 over Kafka. Topic names are the defaults;"
                " whoever runs the pipeline may have chosen others."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": STRUCTURED_CONTENT_TYPE,
        "channels": {
            "usageEvents": {
                "address": topics.events_topic,
                "description": "What agencies send. The key is free; the event's id spreads the load evenly.",
                "messages": {name: _ref("messages", name) for name in messages if name not in refused + stated},
                "bindings": {"kafka": {"topic": topics.events_topic, "bindingVersion": "0.5.0"}},
            },
            "catalogueChanges": {
                "address": topics.catalogue_topic,
                "description": "What is said of agencies and services, in one partition, kept for ever.",
                "messages": {stated[0]: _ref("messages", stated[0])},
                "bindings": {"kafka": {"topic": topics.catalogue_topic, "partitions": 1, "bindingVersion": "0.5.0"}},
            },
            "usageFigures": {
                "address": topics.figures_topic,
                "description": "Figures that others counted, and costs, in one partition, kept for ever.",
                "messages": {stated[1]: _ref("messages", stated[1])},
                "bindings": {"kafka": {"topic": topics.figures_topic, "partitions": 1, "bindingVersion": "0.5.0"}},
            },
            "usageRejected": {
                "address": topics.rejected_topic,
                "description": "What the pipeline refused, and why, and what was done with it.",
                "messages": {name: _ref("messages", name) for name in refused},
                "bindings": {"kafka": {"topic": topics.rejected_topic, "bindingVersion": "0.5.0"}},
            },
        },
        "operations": {
            "receiveCatalogue": {
                "action": "receive",
                "summary": "The pipeline keeps the history of agencies and services.",
                "channel": {"$ref": "#/channels/catalogueChanges"},
            },
            "receiveFigures": {
                "action": "receive",
                "summary": "The pipeline keeps figures that others counted, apart from its own.",
                "channel": {"$ref": "#/channels/usageFigures"},
            },
            "receiveUsage": {
                "action": "receive",
                "summary": "The pipeline counts the events that agencies send.",
                "channel": {"$ref": "#/channels/usageEvents"},
            },
            "sendRejected": {
                "action": "send",
                "summary": "The pipeline gives back what it refused.",
                "channel": {"$ref": "#/channels/usageRejected"},
            },
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _ref(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}


def _message(title: str, content_type: str, schemas: tuple[str, str], examples: list[tuple[str, Json]]) -> Json:
    headers, payload = schemas
    return {
        "title": title,
        "contentType": content_type,
        "headers": _ref("schemas", headers),
        "payload": _ref("schemas", payload),
        "bindings": {
            "kafka": {
                "key": {"type": ["string", "null"], "description": "Free; the event's id is a good key."},
                "bindingVersion": "0.5.0",
            }
        },
        "examples": [{"name": name, **content} for name, content in examples],
    }


def _binary_example(name: str) -> tuple[str, Json]:
    example = EXAMPLES[f"{name}.json"]
    return name, {"headers": example["headers"], "payload": example["value"]}


def _content_type_header(content_type: str) -> Json:
    words = "Recommended by CloudEvents; the pipeline tells the mode by the message itself."
    return {"type": "object", "properties": {"content-type": {"const": content_type, "description": words}}}


def _binary_headers(event_type: str, envelope: Json) -> Json:
    """The envelope of an event as headers; every attribute but data becomes one."""
    properties = {
        f"ce_{name}": schema
        for name, schema in envelope["properties"].items()
        if name not in ("data", "datacontenttype")
    }
    return {
        "type": "object",
        "description": f"CloudEvents attributes of {event_type} in binary mode; header values are UTF-8.",
        "properties": {**properties, "content-type": {"const": BINARY_CONTENT_TYPE}},
        "required": [f"ce_{name}" for name in envelope["required"] if name != "data"],
    }


def _dead_letter_headers() -> Json:
    properties: Json = {name: {"type": "string", "description": words} for name, words in DEAD_LETTER_HEADERS.items()}
    properties["xidmet-reason"]["enum"] = [reason.value for reason in Reason]
    properties["xidmet-masked"]["enum"] = ["true"]
    for name in ("partition", "offset", "batch-index", "value-bytes", "attempt"):
        properties[f"xidmet-{name}"]["pattern"] = "^[0-9]+$"
    properties["xidmet-timestamp"]["pattern"] = "^-?[0-9]+$"
    return {
        "type": "object",
        "description": "Besides these a dead letter has all headers of the refused message. Values are UTF-8.",
        "properties": properties,
        "required": [name for name in DEAD_LETTER_HEADERS if name not in OPTIONAL_HEADERS],
    }


def _disposition_headers() -> Json:
    properties: Json = {name: {"type": "string", "description": words} for name, words in DISPOSITION_HEADERS.items()}
    properties["xidmet-disposition"]["enum"] = ["replayed", "dropped"]
    for name in ("partition", "offset", "batch-index"):
        properties[f"xidmet-{name}"]["pattern"] = "^[0-9]+$"
    return {"type": "object", "properties": properties, "required": list(DISPOSITION_HEADERS)}


def reasons_table() -> str:
    """The closed list of reasons as a Markdown page."""
    lines = [
        "# Why an event is refused",
        "",
        "The closed list of reason codes, as they stand in the header `xidmet-reason` of dead letters, in receipts and",
        "in metrics. A code is never renamed; new ones are added at the end. Written by `make contract`.",
        "",
        "| code | meaning | how to mend it |",
        "|---|---|---|",
    ]
    for reason in Reason:
        meaning, _, hint = REASON_HELP[reason].partition("; ")
        lines.append(f"| `{reason.value}` | {_cell(meaning)} | {_cell(hint or _NO_HINT)} |")
    return "\n".join(lines) + "\n"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def _text(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def differences(directory: Path) -> list[str]:
    """What in ``directory`` is not as generated, one line each; JSON files that nothing generates count too."""
    files = contract_files()
    found = []
    for name, content in files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.read_bytes() != content.encode():
            found.append(f"{name} differs from the types")
    if directory.is_dir():
        there = {path.relative_to(directory).as_posix() for path in directory.rglob("*.json")}
        found += [f"{name} is not generated any more; delete it" for name in sorted(there - files.keys())]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.contract.generate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files are not current")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="default: docs/contract of the project")
    options = parser.parse_args(arguments)
    directory: Path = options.directory
    if not options.check:
        for name, content in contract_files().items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
    found = differences(directory)
    for line in found:
        print(f"{directory}: {line}", file=sys.stderr)
    if options.check and found:
        print("The published contract is not current; run: make contract", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
