"""The producer's side: files onto the topic, as their teams would send them."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from harness import HEADER_NAMES, Commands, decoded, eventually, read_topic, simulated

from consumer.services import lines, produce
from consumer.services.produce import Pace, read_lines
from consumer.settings import Settings

LABELS = {"will_default": True, "days_to_first_missed_payment": 28}


def json_lines(events: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_sent_without_its_labels(
    settings: Settings, commands: Commands, tmp_path: Path, packed: bool
) -> None:
    events = simulated(300, seed=31)
    content = json_lines([each | LABELS for each in events])
    file = tmp_path / ("events.jsonl.gz" if packed else "events.jsonl")
    file.write_bytes(gzip.compress(content) if packed else content)
    done = commands.run(settings, "produce", str(file), "--json")
    assert done.process.returncode == 0, done.output
    summary = json.loads(done.output.splitlines()[-1])
    assert summary.pop("seconds") > 0
    assert summary == {
        "file": file.name,
        "sent": 300,
        "dead_letters": 0,
        "errors": {},
        "labels_stripped": {"will_default": 300, "days_to_first_missed_payment": 300},
    }
    messages = read_topic(settings, settings.topic_transactions)
    assert sorted(decoded(m.value(), "transaction")["transaction_id"] for m in messages) == sorted(
        each["transaction_id"] for each in events
    )
    for message in messages:
        sent = decoded(message.value(), "transaction")
        assert message.key().decode() == sent["customer_id"]
        assert not LABELS.keys() & sent.keys()
        assert b"will_default" not in message.value()


def test_lines_that_are_no_transactions_become_dead_letters_with_their_number(
    settings: Settings, commands: Commands, tmp_path: Path
) -> None:
    events = simulated(20, seed=32)
    content = json_lines(events).splitlines(keepends=True)
    without_amount = {name: value for name, value in events[0].items() if name != "amount"}
    bad = {
        3: (b"not json\n", "not_json"),
        5: (b"[1, 2]\n", "not_json"),
        8: (json_lines([without_amount]), "missing_field"),
        9: (json_lines([events[0] | {"amount": "12"}]), "wrong_type"),
        12: (json_lines([events[0] | {"installment_count": 2.5}]), "wrong_type"),
        15: (json_lines([events[0] | {"transaction_timestamp": "yesterday"}]), "wrong_type"),
        18: (b"\xff\xfe{}\n", "not_json"),
    }
    for number, (line, _) in bad.items():
        content.insert(number - 1, line)
    content.insert(10, b"\n")  # an empty line is no fault, and counts as a line
    expected = {number + (number > 10): each for number, each in bad.items()}
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(content))
    done = commands.run(settings, "produce", str(file))
    assert done.process.returncode == 0, done.output
    assert "sent 20 transactions" in done.output
    assert "7 lines are no transactions" in done.output
    assert "line 3: the line is not a JSON object (not_json)" in done.output
    assert len(read_topic(settings, settings.topic_transactions)) == 20
    letters = {}
    for message in read_topic(settings, settings.topic_dead_letters):
        told = {name: value.decode() for name, value in message.headers()}
        assert told[HEADER_NAMES["topic"]] == settings.topic_transactions
        assert told[HEADER_NAMES["partition"]] == "-1"
        assert told[HEADER_NAMES["stage"]] == "produce"
        letters[int(told[HEADER_NAMES["offset"]])] = (message.value(), told[HEADER_NAMES["exception_class_name"]])
    assert letters == expected


def test_a_file_sent_in_a_loop_gets_new_ids_each_turn_and_ctrl_c_ends_it_in_order(
    settings: Settings, commands: Commands, tmp_path: Path
) -> None:
    events = simulated(50, seed=33)
    file = tmp_path / "events.jsonl"
    file.write_bytes(json_lines(events))
    sending = commands.start(settings, "produce", str(file), "--loop", "--rate", "400", "--json")
    eventually(lambda: len(read_topic(settings, settings.topic_transactions)) >= 150, 40, lambda: sending.output)
    sending.process.send_signal(signal.SIGINT)
    assert sending.ended(30) == 130
    summary = json.loads(sending.output.splitlines()[-1])
    messages = read_topic(settings, settings.topic_transactions)
    ids = {decoded(m.value(), "transaction")["transaction_id"] for m in messages}
    assert len(ids) == len(messages) == summary["sent"]
    first = {each["transaction_id"] for each in events}
    assert first < ids
    assert {f"{each}-2" for each in first} < ids


def test_a_file_that_is_not_there_is_named(settings: Settings, commands: Commands) -> None:
    done = commands.run(settings, "produce", "nowhere.jsonl")
    assert done.process.returncode == 2
    assert "nowhere.jsonl" in done.output


@pytest.mark.parametrize(
    "content",
    [b'{"transaction_id": "t"}\n', gzip.compress(b"{}\n" * 500, mtime=0)[:-20]],
    ids=["plain", "cut off"],
)
def test_a_file_that_is_no_whole_gzip_file_is_named(
    settings: Settings, commands: Commands, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(content)
    done = commands.run(settings, "produce", str(file))
    assert done.process.returncode == 1
    assert f"error: {file} cannot be read to its end" in done.output
    assert "Traceback" not in done.output


def test_lines_are_read_a_bounded_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CHUNK_LINES", 7)
    events = simulated(20, seed=34)

    class Stream:
        def __init__(self) -> None:
            self.taken = 0

        def __iter__(self) -> Iterator[bytes]:
            for each in events:
                self.taken += 1
                yield json_lines([each])

    stream = Stream()
    chunks = read_lines(iter(stream))  # type: ignore[arg-type]
    assert next(chunks).batch.num_rows == 7
    assert stream.taken == 7
    assert [each.batch.num_rows for each in chunks] == [7, 6]


def test_a_pace_lets_each_piece_go_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(produce.time, "monotonic", lambda: now)
    monkeypatch.setattr(produce.time, "sleep", sleep)
    batch = pa.RecordBatch.from_pydict({"n": list(range(1000))})
    pace = Pace(200.0)
    sent: list[tuple[float, list[int]]] = []
    for _ in range(2):  # the pace goes on from one batch to the next
        sent += [(now - 100.0, piece.column("n").to_pylist()) for piece in pace.slices(batch)]
    assert [number for _, piece in sent for number in piece] == [*range(1000), *range(1000)]
    done = 0
    for at, piece in sent:
        assert at == pytest.approx(done / 200)
        assert len(piece) <= 10  # 50 ms of it
        done += len(piece)
    assert [each.num_rows for each in Pace(None).slices(batch)] == [1000]
