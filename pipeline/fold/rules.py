"""The rules of a segment: all that the fold decides by and that is not in the log. They stand in its receipt."""

from msgspec import DecodeError, Struct, json

from pipeline.errors import SchemaError
from pipeline.settings import FoldSettings


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a segment is cut and judged; the fields of :class:`~pipeline.settings.FoldSettings` and a catalogue."""

    segment_records: int
    segment_bytes: int
    memory_segments: int
    max_age_days: int
    max_ahead_seconds: int
    catalogue_version: int

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
        )

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
