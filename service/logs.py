"""Structured logs: one JSON object a line on standard error."""

import logging
import sys

import structlog

Logger = structlog.typing.FilteringBoundLogger


def make_logger(level: str = "info") -> Logger:
    """A logger of its own: events by name, values by key, times in UTC."""
    logger: Logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
    )
    return logger
