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


def adopt_libraries(log: Logger) -> None:
    """Sends what libraries warn of to our log: for a process that is the service's alone."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler(log)]


class _Handler(logging.Handler):
    """Makes events of the records of Python's own logging."""

    def __init__(self, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self._log.log(
            record.levelno,
            "library_warning",
            library=record.name,
            text=record.getMessage(),
            exc_info=record.exc_info or None,
        )
