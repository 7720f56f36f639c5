"""The event contract: types, reasons for refusal, decoding, checks."""
