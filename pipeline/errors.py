"""The error family: one meaning and one exit code each.

Every message says what is wrong, where, and how to mend it. Nothing outside this family reaches a user as a
traceback; exit code 1 is kept for faults of the program itself and 2 for wrong usage of the command line
(the convention of click).
"""


class XidmetError(Exception):
    """Base of all errors that the program raises on purpose."""

    exit_code = 1


class SettingsError(XidmetError):
    """A setting is unknown, has the wrong type, or contradicts another one."""

    exit_code = 3


class CatalogueError(XidmetError):
    """The catalogue file is not valid, or its version was used before with other content."""

    exit_code = 4


class InputError(XidmetError):
    """A file or stream given by the user cannot be read as what it claims to be."""

    exit_code = 5


class BrokerError(XidmetError):
    """Kafka does not answer, refuses, or lacks a topic."""

    exit_code = 6


class StoreError(XidmetError):
    """ClickHouse does not answer or refuses a statement."""

    exit_code = 7


class SchemaError(XidmetError):
    """The schema in ClickHouse is older, newer or other than this version of the program needs."""

    exit_code = 8


class LogMismatchError(XidmetError):
    """The Kafka log and the receipts contradict each other, so that going on would falsify the totals."""

    exit_code = 9


class AuditError(XidmetError):
    """The audit found totals that do not add up."""

    exit_code = 10


class RejectLimitError(XidmetError):
    """So large a share of the events was refused that the fault is the pipeline's: stop, rather than refuse the log."""

    exit_code = 11
