"""A wall clock that jumps, in the score process alone; its monotonic clock does not, as on a real machine.

clock  two hours ahead and back; four minutes back, within what an event may be ahead of this machine; two hours back,
       when every event seems to come from the future: score must stop rather than let the topic drain into dead
       letters, and go on when it is started with its clock right

Needs Debian's libfaketime, which stands between a process and the system's clock.
"""

from __future__ import annotations

import time
from pathlib import Path

from consumer.errors import Fatal
from consumer.stack.part import last_lines
from consumer.system.faults.extent import Extent
from consumer.system.faults.trial import Ground, Outcome, Say, trial

_LIBRARIES = "*/faketime/libfaketimeMT.so.1"
_ROOTS = (Path("/usr/lib"), Path("/usr/local/lib"))
_STOP_SECONDS = 60.0
_REFUSAL = "in_the_future"
_JUMPS = ((7200, "clock 2 h ahead"), (0, "clock back again"), (-240, "clock 4 min back"), (0, "clock right"))


def missing() -> str | None:
    """Why this part cannot run here, with the way to have it; None when it can."""
    return None if _library() else "libfaketime is not installed: `apt-get install faketime`"


def _library() -> Path | None:
    return next((found for root in _ROOTS for found in root.glob(_LIBRARIES)), None)


def clock(ground: Ground, extent: Extent, say: Say) -> Outcome:
    settings = ground.settings("clock")
    library = _library()
    if library is None:
        raise Fatal(str(missing()))
    told = settings.state_dir / f"{settings.score_group}.clock"
    _set(told, 0)
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with trial(settings, extent.rate) as running:
        score = running.service("score", variables=faked)
        score.start()
        running.supervise(running.service("sink"))
        running.wait_flowing()
        for seconds, kind in _JUMPS:
            jumped = time.monotonic()
            _set(told, seconds)
            running.rest(extent.fault_seconds)
            fault = running.recovered(kind, running.score, jumped, time.monotonic())
            say(f"clock: {kind}; longest pause {fault.recovery_seconds:.1f} s")
        _set(told, -7200)
        running.until(lambda: score.pid is None, _STOP_SECONDS, "score has stopped at a clock two hours back")
        _require_reason(score.exit_code, score.log_file)
        _set(told, 0)
        began = time.monotonic()
        score.start()
        fault = running.recovered("clock 2 h back", running.score, began)
        say(f"clock: 2 h back; score stopped, and committed {fault.recovery_seconds:.1f} s after it was started again")
    outcome = running.outcome("clock", refusals_allowed=True)
    _judge_refusals(outcome, settings.dead_letter_max_consecutive * settings.topic_partitions)
    return outcome


def _set(told: Path, seconds: int) -> None:
    """The clock is read again at every look at it: the file must never be seen half written."""
    draft = told.with_suffix(".draft")
    draft.write_text(f"{seconds:+d}\n")
    draft.replace(told)


def _require_reason(code: int | None, log: Path) -> None:
    said = "\n".join(last_lines(log, 10))
    if code != 1 or ("records in a row are bad" not in said and "records are bad" not in said):
        raise Fatal(f"score ended with code {code} at a clock two hours back, and said:\n{said}")


def _judge_refusals(outcome: Outcome, most: int) -> None:
    """The limit on dead letters bounds what a wrong clock can refuse."""
    proof = outcome.proof
    if proof.refused >= most or set(proof.refused_for) - {_REFUSAL}:
        raise Fatal(f"{proof.refused} good transactions were refused, fewer than {most} may be: {proof.refused_for}")
    outcome.notes.append(
        f"{proof.refused} events were refused as {_REFUSAL} before score stopped; the limit allows fewer than {most}"
    )
