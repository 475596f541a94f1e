"""Structured logs: one event a line with its facts as fields; JSON for machines, columns on a terminal.

No identifier and no value of a record is logged, but for the name of a category that no training data had:
coordinates (topic, partition, offset) name a record.
"""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog

Logger = structlog.stdlib.BoundLogger


def configure(level: str, service: str) -> None:
    """Send this process's logs, and those of the libraries it uses, to stderr."""

    def named(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, "service": service}

    shared: list[structlog.typing.Processor] = [
        named,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Logger:
    return cast(Logger, structlog.get_logger(name))
