"""What ends a benchmark."""


class BenchmarkError(RuntimeError):
    """Something cannot be measured, and the message says what to do about it."""
