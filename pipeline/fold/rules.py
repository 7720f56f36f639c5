"""The rules of a segment: all that the fold decides by and that is not in the log. They stand in its receipt."""

from typing import Final, get_args

from msgspec import DecodeError, Struct, json

from pipeline.errors import SchemaError
from pipeline.settings import Dimension, FoldSettings

DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
"""All that rules may name as further dimensions of minute rows, in the order in which they are written."""


class Rules(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a segment is cut and judged; the fields of :class:`~pipeline.settings.FoldSettings` and a catalogue.

    Fields that came later have defaults that mean what was done before, and stand in receipts only if they differ.
    """

    segment_records: int
    segment_bytes: int
    memory_segments: int
    max_age_days: int
    max_ahead_seconds: int
    catalogue_version: int
    dimensions: tuple[Dimension, ...] = ()

    @classmethod
    def of(cls, settings: FoldSettings, catalogue_version: int) -> "Rules":
        """The rules for segments that start under these settings and this catalogue."""
        return cls(
            segment_records=settings.segment_records,
            segment_bytes=settings.segment_bytes,
            memory_segments=settings.memory_segments,
            max_age_days=settings.max_age_days,
            max_ahead_seconds=settings.max_ahead_seconds,
            catalogue_version=catalogue_version,
            # In one order: the same dimensions in another order are the same rules.
            dimensions=tuple(name for name in DIMENSIONS if name in settings.dimensions),
        )

    def differences(self, other: "Rules") -> list[str]:
        """Where others differ, field by field: ``catalogue_version 1, here 2``."""
        return [
            f"{name} {_shown(getattr(self, name))}, here {_shown(getattr(other, name))}"
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(other, name)
        ]

    def to_json(self) -> str:
        """Text for the receipt, the same for the same rules."""
        return json.encode(self, order="deterministic").decode()

    @classmethod
    def from_json(cls, text: str) -> "Rules":
        """The rules that a receipt holds.

        Raises:
            SchemaError: a newer version of the program wrote them.
        """
        try:
            return json.decode(text, type=cls)
        except DecodeError as error:
            raise SchemaError(
                f"a receipt holds rules that this version does not know ({error}); use a newer xidmet"
            ) from error


def _shown(value: int | tuple[str, ...]) -> str:
    return (" ".join(value) or "none") if isinstance(value, tuple) else str(value)
