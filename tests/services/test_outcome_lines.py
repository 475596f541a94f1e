"""Files of outcomes onto the topic: JSON lines and CSV alike, and each line that is none with its reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import HEADER_NAMES, Commands, decoded, environment, eventually, read_topic

from consumer.contracts.outcome import SCHEMA
from consumer.errors import Fatal
from consumer.services.outcomes import Format, read_lines
from consumer.settings import PROJECT, Settings

Outcome = dict[str, Any]


def outcomes(count: int) -> list[Outcome]:
    return [
        {
            "transaction_id": f"t-{number}",
            "label": "d28",
            "defaulted": number % 3 == 0,
            "days_to_resolution": 14 if number % 3 == 0 else None,
            "loss_amount": 90.5 if number % 3 == 0 else None,
            "observed_at": "2026-07-01T12:00:00.000Z",
            "source": 'ledger, "east"',
            "version": number,
            "transaction_timestamp": 1_780_000_000_000 + number,
        }
        for number in range(count)
    ]


def as_json(each: Outcome) -> bytes:
    return json.dumps(each).encode() + b"\n"


def as_csv(rows: list[Outcome]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, SCHEMA.names)
    writer.writeheader()
    for each in rows:
        writer.writerow(
            {name: str(value).lower() if value is True or value is False else value for name, value in each.items()}
        )
    return text.getvalue().encode()


def read(content: bytes, told_as: Format = "jsonl") -> tuple[list[Outcome], dict[int, str]]:
    """What is let through, and the reason by line of what is not."""
    good: list[Outcome] = []
    bad: dict[int, str] = {}
    for lines in read_lines(io.BytesIO(content), told_as):
        good += lines.batch.to_pylist()
        bad |= {each.number: each.reason.error for each in lines.bad}
    return good, bad


def test_json_lines_and_csv_give_the_same_columns() -> None:
    told = outcomes(5000)
    good, bad = read(b"".join(map(as_json, told)))
    assert bad == {}
    assert good == [each | {"observed_at": 1_782_907_200_000} for each in told]
    assert read(as_csv(told), "csv") == (good, {})
    assert read(b"\xef\xbb\xbf" + as_csv(told).replace(b"\r\n", b"\n"), "csv") == (good, {})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"defaulted": 1}, "wrong_type"),
        ({"defaulted": "no"}, "wrong_type"),
        ({"defaulted": None}, "missing_field"),
        ({"label": None}, "missing_field"),
        ({"days_to_resolution": "soon"}, "wrong_type"),
        ({"days_to_resolution": 1.5}, "wrong_type"),
        ({"loss_amount": "much"}, "wrong_type"),
        ({"version": "v1"}, "wrong_type"),
        ({"days_to_resolution": 2**40}, "out_of_range"),
        ({"observed_at": "yesterday"}, "wrong_type"),
    ],
    ids=repr,
)
def test_a_line_with_another_type_is_refused_alike_in_both(change: Outcome, error: str) -> None:
    first, second, third = outcomes(3)
    assert read(as_json(first) + as_json(second | change) + as_json(third))[1] == {2: error}
    rows = as_csv([first, second, third]).splitlines(keepends=True)
    rows[2] = as_csv([second | change]).splitlines(keepends=True)[1]
    good, bad = read(b"".join(rows), "csv")
    assert (len(good), bad) == (2, {3: error})


def test_a_number_of_more_digits_than_python_reads_is_the_fault_of_its_line() -> None:
    head, row, other = as_csv(outcomes(2)).splitlines(keepends=True)
    endless = as_csv([outcomes(1)[0] | {"version": "9" * 5000}]).splitlines(keepends=True)[1]
    good, bad = read(head + row + endless + other, "csv")
    assert (len(good), bad) == (2, {3: "wrong_type"})


def test_lines_of_research_files_are_no_outcomes() -> None:
    line = {"transaction_id": "t", "transaction_timestamp": "2026-06-01T00:00:00Z", "installment_count": 4}
    assert read(as_json(line | {"will_default": True, "days_to_first_missed_payment": 28})) == (
        [],
        {1: "missing_field"},
    )


def test_csv_that_is_none_is_refused_by_the_line_or_as_a_whole() -> None:
    head, row = as_csv(outcomes(1)).splitlines(keepends=True)
    good, bad = read(head + row + b"t,d28\n" + b"\n" + b'"open\n' + b"\xff" + row + row, "csv")
    assert (len(good), bad) == (2, {3: "not_csv", 5: "not_csv", 6: "not_csv"})
    with pytest.raises(Fatal, match="first line must name the columns, and lacks label, defaulted, source, version"):
        read(b"transaction_id,observed_at\n", "csv")
    with pytest.raises(Fatal, match="must name the columns, but the line is not CSV in UTF-8"):
        read(b"\xff\n", "csv")
    with pytest.raises(Fatal, match="lacks transaction_id"):
        read(b"", "csv")


def stored(settings: Settings) -> list[tuple[str, Outcome]]:
    """Key and outcome of every record of the topic, by fastavro."""
    return [
        (record.key().decode(), decoded(record.value(), "outcome"))
        for record in read_topic(settings, settings.topic_outcomes)
    ]


def test_a_file_is_sent_and_its_bad_lines_become_dead_letters(
    settings: Settings, commands: Commands, tmp_path: Path
) -> None:
    told = outcomes(300)
    packed, plain = tmp_path / "outcomes.csv.gz", tmp_path / "more.jsonl"
    packed.write_bytes(gzip.compress(as_csv(told)))
    bad = as_json({**told[0], "defaulted": "true"})
    plain.write_bytes(as_json({**told[0], "version": 7}) + bad + b"rubbish\n")
    done = commands.run(settings, "outcomes", "load", str(packed), "--json")
    assert done.process.returncode == 0, done.output
    summary = json.loads(done.output.splitlines()[-1])
    assert summary.pop("seconds") > 0
    assert summary == {"file": packed.name, "sent": 300, "dead_letters": 0, "errors": {}}
    done = commands.run(settings, "outcomes", "load", str(plain))
    assert done.process.returncode == 0, done.output
    assert "sent 1 outcomes" in done.output
    assert "2 lines are no outcomes" in done.output
    assert "line 2: field defaulted is not a bool (wrong_type)" in done.output
    records = stored(settings)
    assert {(key, each["transaction_id"], each["version"]) for key, each in records} == {
        *((each["transaction_id"], each["transaction_id"], each["version"]) for each in told),
        ("t-0", "t-0", 7),
    }
    letters = {}
    for message in read_topic(settings, settings.topic_outcomes_dead_letters):
        headers = {name: value.decode() for name, value in message.headers()}
        assert headers[HEADER_NAMES["topic"]] == settings.topic_outcomes
        assert (headers[HEADER_NAMES["partition"]], headers[HEADER_NAMES["stage"]]) == ("-1", "produce")
        letters[int(headers[HEADER_NAMES["offset"]])] = (message.value(), headers[HEADER_NAMES["exception_class_name"]])
    assert letters == {2: (bad, "wrong_type"), 3: (b"rubbish\n", "not_json")}
    assert read_topic(settings, settings.topic_dead_letters) == []


def test_stdin_is_read_and_ctrl_c_ends_it_in_order(settings: Settings) -> None:
    command = [sys.executable, "-m", "consumer", "outcomes", "load", "-", "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(settings), cwd=PROJECT
    ) as loading:
        assert loading.stdin is not None
        loading.stdin.write(b"".join(map(as_json, outcomes(6000))))
        loading.stdin.flush()
        eventually(lambda: len(read_topic(settings, settings.topic_outcomes)) >= 2000, 60, "nothing was sent")
        loading.send_signal(signal.SIGINT)
        output, _ = loading.communicate(timeout=60)
    assert loading.returncode == 130
    summary = json.loads(output.decode().splitlines()[-1])
    assert summary["sent"] == len(read_topic(settings, settings.topic_outcomes))
