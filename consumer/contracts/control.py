"""The control record: which model is champion and whether it decides, since when, by whom and why.

Its topic is read from the beginning, and the highest revision among the good records rules, under whichever of its two
keys it stands. So rubbish never rules: not even one that was written over the newest record, which compaction then
removes, for the same record stands under a key of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.errors import InvalidRecord

Mode = Literal["shadow", "canary", "champion"]
Action = Literal["promote", "rollback", "kill"]

STATE_KEY = b"state"

_LARGEST_REVISION = 2**53
_KIND = "control"


def _hundredths(percent: float) -> float:
    if abs(percent * 100 - round(percent * 100)) > 1e-6:
        raise ValueError("has more than two decimals")
    return percent


def _one_line(text: str) -> str:
    """A terminal that shows it must show it, and do nothing else."""
    if not text.strip():
        raise ValueError("says nothing")
    if not text.isprintable():
        raise ValueError("is not one line of printable characters")
    return text


def _milliseconds(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Person = Annotated[str, Field(max_length=100), AfterValidator(_one_line)]
Text = Annotated[str, Field(max_length=1000), AfterValidator(_one_line)]
Percent = Annotated[float, Field(gt=0, lt=100), AfterValidator(_hundredths)]


class Control(BaseModel):
    """One decision about who decides; the fields are those of `schemas/control`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    revision: Annotated[int, Field(ge=1, le=_LARGEST_REVISION)]
    action: Action
    champion: Name
    mode: Mode
    canary_percent: Percent | None = None
    artifact_version: Name
    artifact_sha256: Sha256
    made_by: Person
    made_at: Annotated[AwareDatetime, AfterValidator(_milliseconds)]
    reason: Text
    dossier_sha256: Sha256 | None = None
    override: bool = False
    unsupported: Text | None = None
    previous_revision: Annotated[int, Field(ge=0)] | None = None
    previous_champion: Name | None = None
    previous_mode: Mode | None = None
    previous_canary_percent: Percent | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mode == "canary") != (self.canary_percent is not None):
            raise ValueError("canary_percent belongs to mode canary, and to no other")
        if (self.previous_mode == "canary") != (self.previous_canary_percent is not None):
            raise ValueError("previous_canary_percent belongs to previous_mode canary, and to no other")
        if self.override != (self.unsupported is not None):
            raise ValueError("override and unsupported belong together")
        if self.action == "promote" and not self.override and self.dossier_sha256 is None:
            raise ValueError("a promotion has a dossier or is an override")
        if len({self.previous_revision is None, self.previous_champion is None, self.previous_mode is None}) > 1:
            raise ValueError("previous_revision, previous_champion and previous_mode belong together")
        if self.previous_revision is not None and self.previous_revision >= self.revision:
            raise ValueError("previous_revision is not before revision")
        return self

    @property
    def key(self) -> bytes:
        """Its own key in the topic, beside `STATE_KEY`."""
        return f"promotion/{self.revision}".encode()


def encode(control: Control) -> bytes:
    """A control record as a message value."""
    writer = EventWriter(_KIND, latest(_KIND).header)
    row = control.model_dump() | {"made_at": round(control.made_at.timestamp() * 1000)}
    (value,) = writer.write(pa.RecordBatch.from_pylist([row], writer.arrow_schema))
    return value


class ControlLog:
    """What the records of the topic add up to, taken in their order."""

    def __init__(self) -> None:
        self.history: dict[int, Control] = {}
        """Every good record, by revision, oldest first."""
        self._reader = EventReader(WriterSchemas(_KIND), latest(_KIND).schema["fields"])

    @property
    def state(self) -> Control | None:
        """The record that rules; None before the first."""
        return next(reversed(self.history.values()), None)

    def take(self, key: bytes | None, value: bytes | None) -> Control | None:
        """The record when it is news; None for one that was taken under its other key.

        Raises InvalidRecord for one that must be passed over: it cannot be read, or does not go on from the state.
        """
        control = self._read(key, value)
        if control == self.state:
            return None
        if self.state is not None and control.revision <= self.state.revision:
            raise InvalidRecord("revision_not_newer", "its revision is not higher than that of the record before")
        self.history[control.revision] = control
        return control

    def _read(self, key: bytes | None, value: bytes | None) -> Control:
        decoded = self._reader.read([value])
        if decoded.rejected:
            raise decoded.rejected[0].reason
        (row,) = decoded.batch.to_pylist()
        try:
            control = Control(**row | {"made_at": _time(row["made_at"])})
        except ValidationError as error:
            raise InvalidRecord("invalid_control", faults(error)) from None
        if key not in (STATE_KEY, control.key):
            raise InvalidRecord("foreign_key", "its key is neither `state` nor `promotion/` and its revision")
        return control


def _time(milliseconds: int) -> datetime | None:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def faults(error: ValidationError) -> str:
    """Every fault of what should have been a Control, by field; no value."""
    found: list[Any] = error.errors(include_input=False, include_url=False)
    told = ((".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")) for each in found)
    return "; ".join(f"{field}: {message}" if field else message for field, message in told)
