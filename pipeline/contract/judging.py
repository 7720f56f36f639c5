"""What would become of one message: the decoder and the checks, without a fold."""

from pipeline.catalogue import Catalogue
from pipeline.contract.checks import check
from pipeline.contract.columns import to_columns
from pipeline.contract.decode import Headers, decode
from pipeline.contract.profiles import Profiles
from pipeline.contract.reasons import Reason
from pipeline.settings import FoldSettings


def judge(
    value: bytes, headers: Headers, timestamp: int, catalogue: Catalogue, fold: FoldSettings
) -> tuple[int, list[tuple[Reason, str]]]:
    """How many events of a message would be accepted, and why the others would be refused.

    Args:
        value: the message's value.
        headers: the message's headers.
        timestamp: the message's time stamp, Unix milliseconds; negative if it has none.
        catalogue: the agencies and services that may be named.
        fold: how old and how far ahead an event may be.

    Returns:
        The number of good events, and (reason, words) of each other one. Repeats are not looked for.
    """
    decoded = decode([value], [headers])
    columns = to_columns(decoded, Profiles())
    faults = check(columns, [timestamp], catalogue, fold.max_age_days, fold.max_ahead_seconds)
    refused = [(refusal.reason, refusal.detail) for refusal in decoded.refusals]
    return len(columns) - len(faults), refused + list(faults.values())
