"""Deaths between neighbouring steps.

crashes  a process dies by SIGKILL after each numbered step of score's and of sink's protocol; another takes its place
"""

from __future__ import annotations

import signal
import time

from consumer.errors import Fatal
from consumer.system.faults.extent import Extent
from consumer.system.faults.trial import Ground, Outcome, Say, Trial, trial

SCORE_STEPS, SINK_STEPS = 8, 5
_SMALL_BATCHES = 1000
_DIE_SECONDS = 120.0
_STOP_SECONDS = 60.0


def crashes(ground: Ground, extent: Extent, say: Say) -> Outcome:
    settings = ground.settings("crashes", batch_max_records=_SMALL_BATCHES, sink_max_records=_SMALL_BATCHES)
    with trial(settings, extent.rate, say) as running:
        sink = running.service("sink")
        sink.start()
        for _ in range(extent.rounds):
            for step in range(1, SCORE_STEPS + 1):
                _die(running, "score", step)
        score = running.service("score")
        score.start()
        sink.send_stop()
        running.until(lambda: sink.pid is None, _STOP_SECONDS, "the sink has stopped")
        for _ in range(extent.rounds):
            for step in range(1, SINK_STEPS + 1):
                _die(running, "sink", step)
        running.service("sink").start()
    return running.outcome("crashes")


def _die(running: Trial, name: str, step: int) -> None:
    """One process dies after the step, the third time that it comes there; the next one works until all is well."""
    progress = running.score if name == "score" else running.sink
    doomed = running.service(name, variables={"BNPL_PROFILE": "test", "BNPL_CRASH_POINT": f"{name}:{step}@3"})
    doomed.start()
    died = running.until(lambda: doomed.pid is None, _DIE_SECONDS, f"{name} dies after step {step}")
    if doomed.exit_code != -signal.SIGKILL:
        raise Fatal(
            f"{name} was to die after step {step} and ended with code {doomed.exit_code}; see {doomed.log_file}"
        )
    successor = running.service(name)
    successor.start()
    running.recovered(f"{name} died after step {step}", progress, died, time.monotonic())
    successor.send_stop()
    running.until(lambda: successor.pid is None, _STOP_SECONDS, f"{name} has stopped")
