"""What happens to work under way when its partitions go to somebody else: finished, dropped, and committed once."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from harness import (
    Commands,
    committed,
    eventually,
    forget_dead_members_soon,
    running,
    send_events,
    shadow_events,
    simulated,
    stored,
    wait_scored,
    wait_stored,
)

from consumer.clock import Deadline
from consumer.errors import KafkaUnavailable
from consumer.scoring.controller import ShadowModeController
from consumer.services.background import Background
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.watch.lag import LagReader

COUNT = 2000
SMALL = 200


@pytest.mark.parametrize(("protocol", "place"), [("consumer", "score:6"), ("classic", "score:5")])
def test_a_member_that_slept_past_its_session_commits_nothing_of_what_others_have_done_meanwhile(
    settings: Settings, commands: Commands, controller: ShadowModeController, protocol: str, place: str
) -> None:
    """It wakes with a batch in hand, and publishes it; the broker must refuse the offsets, or be asked for nothing."""
    settings = settings.model_copy(
        update={
            "group_protocol": protocol,
            "batch_max_records": SMALL,
            "session_timeout_ms": 3000,
            "max_poll_interval_ms": 30_000,
        }
    )
    forget_dead_members_soon(settings, settings.score_group)
    send_events(settings, simulated(COUNT, seed=81))
    sleeper = commands.start(
        settings,
        "score",
        BNPL_PROFILE="test",
        BNPL_CRASH_POINT=f"{place}@3",
        BNPL_CRASH_ACTION="stop",
        BNPL_INSTANCE=f"{settings.instance}-sleeper",
    )
    eventually(lambda: asleep(sleeper.process.pid), 90, lambda: sleeper.output)
    with running(ScoreService(settings, controller)):
        wait_scored(settings, 60)
        sleeper.process.send_signal(signal.SIGCONT)
        eventually(lambda: sleeper.output.count('"event": "assigned') >= 2, 60, lambda: sleeper.output)
        send_events(settings, simulated(SMALL, seed=82))
        wait_scored(settings, 60)
        sleeper.terminate()
        assert sleeper.ended(30) == 0, sleeper.output
    sources = [(each["source_partition"], each["source_offset"]) for each in shadow_events(settings)]
    assert len(sources) == len(set(sources)) == COUNT + SMALL


def asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_sink_that_slept_past_its_session_moves_no_offset_of_partitions_it_lost(
    settings: Settings, commands: Commands, controller: ShadowModeController
) -> None:
    settings = settings.model_copy(
        update={"group_protocol": "classic", "sink_max_records": SMALL, "session_timeout_ms": 3000}
    )
    send_events(settings, simulated(COUNT, seed=83))
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    sleeper = commands.start(
        settings, "sink", BNPL_PROFILE="test", BNPL_CRASH_POINT="sink:4@2", BNPL_CRASH_ACTION="stop"
    )
    eventually(lambda: asleep(sleeper.process.pid), 90, lambda: sleeper.output)
    with (
        running(SinkService(settings)),
        LagReader(settings, settings.sink_group, [settings.topic_shadow_scores]) as lag,
    ):
        wait_stored(settings, COUNT, 60)
        eventually(lambda: not lag.look().unread, 30, "all is committed")
        before = committed(lag)
        sleeper.process.send_signal(signal.SIGCONT)
        eventually(lambda: sleeper.output.count('"event": "assigned') >= 2, 60, lambda: sleeper.output)
        assert committed(lag) >= before
        sleeper.terminate()
        assert sleeper.ended(30) == 0, sleeper.output
        assert committed(lag) >= before
    assert stored(settings) == COUNT


def test_a_job_is_given_up_at_the_deadline_of_whoever_waits() -> None:
    job = Background()
    release = threading.Event()
    job.start(lambda: release.wait(30) and None)
    began = time.monotonic()
    with pytest.raises(KafkaUnavailable, match="did not end within"):
        job.settle(Deadline.after(0.2))
    assert time.monotonic() - began < 10
    assert not job.busy
    release.set()
