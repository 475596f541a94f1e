"""A wall clock that jumps, in the score process alone; its monotonic clock does not, as on a real machine.

clock  half an hour ahead: nothing may happen; two hours ahead, when the brokers refuse records from so far in the
       future and score must wait until it is right; four minutes back, within what an event may be ahead of this
       machine; two hours back, when every event seems to come from the future: score must stop rather than let the
       topic drain into dead letters, and go on when it is started with its clock right

The clock is shifted by `shift_clock.c`, preloaded, so a C compiler must be there. Debian's libfaketime would not do:
under it Python's `time.sleep` fails and the Kafka client hangs.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

from consumer.errors import Fatal
from consumer.stack.part import last_lines
from consumer.system.faults.extent import Extent
from consumer.system.faults.trial import Ground, Outcome, Say, Trial, trial
from consumer.system.supervisor import ServiceProcess

_SOURCE = Path(__file__).with_name("shift_clock.c")
_COMPILE_SECONDS = 60.0
_REFUSAL = "in_the_future"
_TOO_FAR = "INVALID_TIMESTAMP"
_HARMLESS = ((1800, "clock 30 min ahead"), (-240, "clock 4 min back"))
_AHEAD, _BACK = 7200, -7200
_WAIT_SECONDS = 180.0


def missing() -> str | None:
    """Why this part cannot run here, with the way to have it; None when it can."""
    if sys.platform != "linux":
        return "a process's clock is shifted by a preloaded library, which is tried on Linux only"
    return None if shutil.which("cc") else "there is no C compiler: `apt-get install gcc`"


def clock(ground: Ground, extent: Extent, say: Say) -> Outcome:
    settings = ground.settings("clock")
    told = settings.state_dir / f"{settings.score_group}.clock"
    _set(told, 0)
    shifted = {"LD_PRELOAD": str(_library(settings.state_dir)), "SHIFT_CLOCK_FILE": str(told)}
    with trial(settings, extent.rate, say) as running:
        score = running.service("score", variables=shifted)
        score.start()
        running.supervise(running.service("sink"))
        running.wait_flowing()
        for seconds, kind in _HARMLESS:
            _jump(running, told, seconds, kind, extent)
            _set(told, 0)
        _jump_beyond_the_brokers(running, score, told)
        _jump_before_the_events(running, score, told)
    outcome = running.outcome("clock", refusals_allowed=True)
    _judge_refusals(outcome, settings.dead_letter_max_consecutive * settings.topic_partitions)
    return outcome


def _jump(running: Trial, told: Path, seconds: int, kind: str, extent: Extent) -> None:
    jumped = time.monotonic()
    _set(told, seconds)
    running.rest(extent.fault_seconds)
    running.recovered(kind, running.score, jumped, time.monotonic())


def _jump_beyond_the_brokers(running: Trial, score: ServiceProcess, told: Path) -> None:
    """Brokers refuse records of more than an hour ahead (message.timestamp.after.max.ms): score says so, and waits."""
    _set(told, _AHEAD)
    running.until(lambda: _said(score, _TOO_FAR), _WAIT_SECONDS, "the brokers refuse records of two hours ahead")
    _set(told, 0)
    running.recovered("clock 2 h ahead", running.score, time.monotonic())


def _jump_before_the_events(running: Trial, score: ServiceProcess, told: Path) -> None:
    _set(told, _BACK)
    running.until(lambda: score.pid is None, _WAIT_SECONDS, "score has stopped at a clock two hours back")
    if score.exit_code != 1 or not _said(score, "are bad"):
        said = "\n".join(last_lines(score.log_file, 10))
        raise Fatal(f"score ended with code {score.exit_code} at a clock two hours back, and said:\n{said}")
    _set(told, 0)
    began = time.monotonic()
    score.start()
    running.recovered("clock 2 h back", running.score, began)


def _said(process: ServiceProcess, text: str) -> bool:
    return text in "\n".join(last_lines(process.log_file, 20))


def _library(folder: Path) -> Path:
    """What shifts a process's clock, compiled."""
    library = folder / "shift_clock.so"
    compiled = subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"],
        capture_output=True,
        text=True,
        timeout=_COMPILE_SECONDS,
        check=False,
    )
    if compiled.returncode:
        raise Fatal(f"{_SOURCE.name} could not be compiled:\n{compiled.stderr}")
    return library


def _set(told: Path, seconds: int) -> None:
    """The file is mapped by the process: it is written in place, and at once."""
    with told.open("r+b" if told.exists() else "w+b") as shift:
        shift.write(struct.pack("q", seconds))


def _judge_refusals(outcome: Outcome, most: int) -> None:
    """The limit on dead letters bounds what a wrong clock can refuse."""
    proof = outcome.proof
    if proof.refused >= most or set(proof.refused_for) - {_REFUSAL}:
        raise Fatal(f"{proof.refused} good transactions were refused, fewer than {most} may be: {proof.refused_for}")
    outcome.notes.append(
        f"{proof.refused} events were refused as {_REFUSAL} before score stopped; the limit allows fewer than {most}"
    )
