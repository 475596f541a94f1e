"""How long a group's dead members keep their partitions. Members of the classic protocol say so themselves; for the
KIP-848 protocol it is a setting of the group, at the broker.
"""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without __all__
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from consumer.errors import KafkaUnavailable
from consumer.services.kafka import HEARTBEATS_A_SESSION, admin
from consumer.settings import Settings

_TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True)
class Session:
    """What came of one group: `refused` is the broker's reason for keeping its own timeout, None when it is ours."""

    group: str
    timeout_ms: int
    refused: str | None


def apply(settings: Settings) -> list[Session]:
    """Give both groups BNPL_SESSION_TIMEOUT_MS. A broker may refuse one below its own minimum, or know no such groups:
    its own timeout then holds. Raises KafkaUnavailable when no broker answers.
    """
    client = admin(settings)
    wanted = {
        "consumer.heartbeat.interval.ms": settings.session_timeout_ms // HEARTBEATS_A_SESSION,
        "consumer.session.timeout.ms": settings.session_timeout_ms,
    }
    sessions = []
    for group in (settings.score_group, settings.sink_group):
        resource = ConfigResource(ResourceType.GROUP, group)
        for key, value in wanted.items():
            resource.add_incremental_config(ConfigEntry(key, str(value), incremental_operation=AlterConfigOpType.SET))
        refused = None
        try:
            answer = client.incremental_alter_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource]
            answer.result(_TIMEOUT_SECONDS)
        except KafkaException as error:
            refused = error.args[0].str()
        except TimeoutError:
            raise KafkaUnavailable(f"the broker did not answer about group {group}") from None
        sessions.append(Session(group, settings.session_timeout_ms, refused))
    return sessions
