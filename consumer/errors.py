"""What can go wrong, split by what the loop does about it.

    BnplError
    ├── InvalidRecord        one record is bad           → dead letter, its neighbours go on
    ├── Retryable            an outside part is away     → wait and try again, nothing is committed
    │   ├── KafkaUnavailable
    │   ├── ClickHouseUnavailable
    │   └── SchemaRegistryUnavailable
    └── Fatal                going on would do harm      → stop, exit non-zero, say the way out
        ├── ConfigurationError
        ├── StackError           a part of the local stack could not be started
        ├── ArtifactError        a hash, golden row or contract of an export does not hold
        ├── SchemaError          a schema file or registry answer cannot be used
        ├── DeadLetterLimit      too many bad records: a bad deploy must not drain a topic
        ├── OffsetsLost          a group is beyond the end of its topic, which was made anew or lost records
        ├── Fenced               another instance took over this transactional id
        ├── Outrun               another promotion was written first
        └── NothingToEvaluate    no scores, or none old enough yet: time will tell

Anything else that is raised is a bug of ours: it stops the process and is never dead-lettered.
"""

from __future__ import annotations

TRY_AGAIN = 75
"""Exit code of a command that ended by a Retryable error (EX_TEMPFAIL of sysexits.h): start it again."""


class BnplError(Exception):
    """Root of every error this project raises on purpose; `str()` is fit to show a user."""


class InvalidRecord(BnplError):
    """One record cannot be used. The message never holds a value of the record.

    `error` is a short stable name (`truncated`, `not_finite`, …) for counters and filters; `field` names the field at
    fault, where it is one.
    """

    def __init__(self, error: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.field = field


class Retryable(BnplError):
    """An outside part is away or slow; the same work may succeed later."""


class KafkaUnavailable(Retryable):
    """No broker answered in time."""


class ClickHouseUnavailable(Retryable):
    """ClickHouse did not answer, or answered that it cannot take the rows now."""


class SchemaRegistryUnavailable(Retryable):
    """The schema registry did not answer, so an id can be called neither known nor unknown."""


class Fatal(BnplError):
    """Going on would lose data or decide wrongly. The message names the fault and the way out."""


class ConfigurationError(Fatal):
    """A setting is missing, malformed or unsafe."""


class StackError(Fatal):
    """A part of the local stack could not be started or reached."""


class ArtifactError(Fatal):
    """An exported artifact does not match its manifest, its golden rows or the feature contract."""


class SchemaError(Fatal):
    """A schema is malformed or breaks its contract."""


class DeadLetterLimit(Fatal):
    """Too many dead letters: stopping beats draining a topic into the dead-letter topic."""


class OffsetsLost(Fatal):
    """A group's place is beyond the end of its topic: where to go on is for a person to say."""


class Fenced(Fatal):
    """Another instance with the same transactional id took over; this one must not write again."""


class Outrun(Fatal):
    """Another promotion was written first: this one was made from a state that is gone."""


class NothingToEvaluate(Fatal):
    """There are no scores of what is asked for, or none is old enough for its label."""
