"""The promotion at the season's end, and what the events of the running score process say of it."""

from __future__ import annotations

import time
from datetime import datetime

from consumer.champion.promotion import Signature, configured, grounds, promoted
from consumer.clock import Deadline, utc_now
from consumer.contracts.control import Control
from consumer.errors import Fatal
from consumer.research.season import Plan, after_the_season
from consumer.services import clickhouse, control
from consumer.settings import Settings
from consumer.system.season.flow import Flow

MADE_BY = "season"
_EVENTS = 500
_SWITCH_SECONDS = 30.0
_COUNTED = """
SELECT champion, count() FROM shadow_scores FINAL WHERE event_time >= {since:DateTime64(3)} GROUP BY champion
"""


def promote(settings: Settings, model: str, dossier: bytes, reason: str) -> Control:
    """Make a model champion, in shadow: its score is the one that events count by, and the rules decide.

    Raises Fatal when the dossier does not support it.
    """
    state = control.read(settings).log.state
    signed = Signature(MADE_BY, utc_now(), reason)
    artifact = configured(settings)
    stands_on = grounds(artifact, model, dossier, override=False)
    record = promoted(state, artifact, model, "shadow", None, stands_on, signed)
    control.write(settings, record)
    return record


def wait_counted(settings: Settings, flow: Flow, plan: Plan, weeks: int, champion: str) -> dict[str, int]:
    """Send checkouts of after the season until all of a batch count `champion`; gives how many counted whom.

    Raises Fatal when score has not switched in time.
    """
    deadline = Deadline.after(_SWITCH_SECONDS)
    before, turn = 0, 0
    while True:
        flow.send(after_the_season(plan, weeks, _EVENTS, turn))
        flow.wait()
        counted = _counted(settings, plan.week_end(weeks))
        if counted.get(champion, 0) - before == _EVENTS:
            return counted
        if deadline.passed:
            raise Fatal(f"{_SWITCH_SECONDS:.0f} s after the promotion of {champion}, events count {counted}")
        before, turn = counted.get(champion, 0), turn + 1
        time.sleep(0.2)


def _counted(settings: Settings, since: datetime) -> dict[str, int]:
    with clickhouse.connect(settings) as client, clickhouse.errors_named():
        return dict(client.query(_COUNTED, {"since": since}).result_rows)  # type: ignore[arg-type]
