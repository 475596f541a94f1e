"""What `bnpl-shadow dlq` prints: texts for people, documents for programs. Of a value they tell the size; only
`hex_lines` shows one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from consumer.contracts.dead_letter import Replay
from consumer.system.replay import WHY_NOT, Plan
from consumer.watch.letter_story import Story, Survey
from consumer.watch.letters import Letter

_HEX_BYTES = 16
_LONGEST = 200
"""Characters of a header that are shown; they come from outside."""

Row = Sequence[str]


def survey_text(found: Survey) -> str:
    """A table of counts, and one of the newest letters."""
    if not found.counts:
        return f"{found.topic} has no dead letters that fit"
    counts = [
        (_shown(stage), _shown(error), state, f"{each.letters:,}", _time(each.first), _time(each.last))
        for (stage, error, state), each in sorted(found.counts.items())
    ]
    lines = list(_table(("stage", "class", "state", "letters", "first", "last"), counts))
    if found.newest:
        lines += ["", *_letters(found.newest)]
    if left := found.total - len(found.newest):
        lines += ["", f"and {left:,} older ones; --max lists more"]
    return "\n".join(lines)


def _letters(shown: Sequence[Letter]) -> Iterator[str]:
    yield from _table(("letter", "refused", "class", "state", "attempt", "from", "why"), map(_row, shown))


def _row(letter: Letter) -> Row:
    why = letter.refusal
    told = (str(why.attempt), _shown(str(why.source)), _shown(why.message)) if why else ("-", "-", "-")
    return letter.place, _time(letter.arrived), _shown(letter.kind[1]), letter.state, *told


def survey_document(found: Survey) -> dict[str, Any]:
    """The same; `letters` are the newest."""
    return {
        "topic": found.topic,
        "total": found.total,
        "counts": [
            {
                "stage": stage,
                "class": error,
                "state": state,
                "letters": each.letters,
                "first": each.first.isoformat(),
                "last": each.last.isoformat(),
            }
            for (stage, error, state), each in sorted(found.counts.items())
        ],
        "letters": [_letter_document(each) for each in found.newest],
    }


def _letter_document(letter: Letter) -> dict[str, Any]:
    why, again = letter.refusal, letter.replay
    return {
        "letter": letter.place,
        "arrived": letter.arrived.isoformat(),
        "state": letter.state,
        "source": str(why.source) if why else None,
        "stage": why.stage if why else None,
        "class": why.error if why else None,
        "message": why.message if why else None,
        "attempt": why.attempt if why else None,
        "first_failed_at": why.first_failed_at if why else None,
        "app_version": why.app_version if why else None,
        "replayed_to": str(again.to) if again else None,
        "replayed_at": again.at if again else None,
    }


def story_text(found: Story) -> str:
    """One letter and the attempts at its record."""
    letter = found.letter
    why, value, key = letter.refusal, letter.record.value(), letter.record.key()
    rows = [("letter", str(letter.at)), ("state", letter.state), ("in Kafka", _time(letter.arrived))]
    if letter.state in WHY_NOT:
        rows.append(("", WHY_NOT[letter.state]))
    if why:
        rows += [
            ("read from", _shown(str(why.source))),
            ("refused", _shown(f"at {why.stage}: {why.error}: {why.message}")),
            ("attempt", _shown(f"{why.attempt}, the first at {why.first_failed_at}, by version {why.app_version}")),
        ]
    rows += [("key", _size(key)), ("value", f"{_size(value)}{', --value hands it out' if value else ''}")]
    rows += [("headers" if not at else "", text) for at, text in enumerate(_headers(letter))]
    rows += [("history" if not at else "", text) for at, text in enumerate(_history(found))]
    return "\n".join(f"{label:10}{text}".rstrip() for label, text in rows)


def _headers(letter: Letter) -> Iterator[str]:
    for name, value in letter.headers:
        yield f"{_shown(name)}: {'null' if value is None else _shown(value.decode(errors='backslashreplace'))}"


def _history(found: Story) -> Iterator[str]:
    for each in found.attempts:
        here = "this letter" if each is found.letter else f"letter {each.place}"
        yield f"{_time(each.arrived)} refused: {_shown(each.kind[1])} ({here})"
        if each.replay:
            yield f"{_shown(each.replay.at)} replayed to {_shown(str(each.replay.to))}"
    if found.told:
        yield found.told


def _size(content: bytes | None) -> str:
    return "none" if content is None else f"{len(content):,} bytes"


def story_document(found: Story) -> dict[str, Any]:
    """The same; header values as text, what is not UTF-8 in them escaped."""
    record = found.letter.record
    return {
        **_letter_document(found.letter),
        "topic": found.letter.at.topic,
        "key_bytes": None if record.key() is None else len(record.key()),
        "value_bytes": None if record.value() is None else len(record.value()),
        "headers": [
            {"name": name, "value": None if value is None else value.decode(errors="backslashreplace")}
            for name, value in found.letter.headers
        ],
        "attempts": [_letter_document(each) for each in found.attempts],
        "outlook": found.told or None,
    }


def plan_text(plan: Plan, done: list[Replay], dry_run: bool) -> str:
    """What was replayed, or would be, and what was not."""
    count = len(plan.chosen)
    letters = f"{count:,} letter{'s' * (count != 1)}"
    if not count:
        lines = ["nothing to replay"]
    elif dry_run:
        lines = [*_letters(plan.chosen), "", f"{letters} would be replayed"]
    else:
        rows = [(f"{each.of.partition}/{each.of.offset}", str(each.to)) for each in done]
        lines = [*_table(("letter", "replayed to"), rows), "", f"{letters} were replayed"]
    if plan.left:
        lines.append(f"{plan.left:,} more fit, beyond --max")
    lines += [f"{number:,} passed over: {WHY_NOT[state]}" for state, number in sorted(plan.passed_over.items())]
    return "\n".join(lines)


def plan_document(plan: Plan, done: list[Replay], dry_run: bool) -> dict[str, Any]:
    """The same."""
    places = {each.of: each for each in done}
    return {
        "dry_run": dry_run,
        "replayed": len(done),
        "left": plan.left,
        "passed_over": dict(plan.passed_over),
        "letters": [
            _letter_document(each)
            | ({"replayed_to": str(places[each.at].to), "replayed_at": places[each.at].at} if each.at in places else {})
            for each in plan.chosen
        ],
    }


def hex_lines(value: bytes) -> str:
    """Bytes as a terminal may show them."""
    lines = []
    for start in range(0, len(value), _HEX_BYTES):
        piece = value[start : start + _HEX_BYTES]
        text = "".join(chr(each) if 32 <= each < 127 else "." for each in piece)
        lines.append(f"{start:08x}  {piece.hex(' '):{_HEX_BYTES * 3 - 1}}  {text}")
    return "\n".join(lines)


def _table(head: Row, rows: Iterable[Row]) -> Iterator[str]:
    """Columns side by side; one of numbers stands to the right."""
    lines = [head, *rows]
    columns = [
        (max(map(len, column)), ">" if all(each.replace(",", "").isdigit() for each in column[1:]) else "<")
        for column in zip(*lines, strict=True)
    ]
    for line in lines:
        yield "  ".join(f"{text:{way}{width}}" for text, (width, way) in zip(line, columns, strict=True)).rstrip()


def _shown(text: str) -> str:
    """Text from outside as one line that no terminal takes for a command."""
    text = text[:_LONGEST]
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
