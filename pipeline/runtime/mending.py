"""A dead letter with a mended value."""

from typing import Any, Final

import msgspec

from pipeline.contract.decode import BINARY_MARKS, FAULTS
from pipeline.contract.generate import STRUCTURED_CONTENT_TYPE
from sinks.dead_letters import Letter

_CONTENT_TYPE: Final = "content-type"


def mended(letter: Letter, value: bytes) -> Letter:
    """The letter with another value.

    A whole CloudEvent takes the place of one in binary mode, of which the value was the data. What had been masked in
    key and headers is left out: it was no event's.
    """
    key = None if letter.key and not letter.key.strip(b"*") else letter.key
    headers = [(name, content) for name, content in letter.headers if not content or content.strip(b"*")]
    if any(name in BINARY_MARKS for name, _ in headers) and _is_cloudevent(value):
        headers = [
            (name, content) for name, content in headers if not name.startswith("ce_") and name.lower() != _CONTENT_TYPE
        ]
        headers.append((_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE.encode()))
    return Letter(key, value, headers)


def _is_cloudevent(value: bytes) -> bool:
    try:
        content: Any = msgspec.json.decode(value)
    except FAULTS:
        return False
    return isinstance(content, dict) and "specversion" in content
