"""What this package raises when its input is at fault. Each message is one clear sentence."""


class TrainingError(ValueError):
    """A preset, setting, data set or destination that cannot be used."""


class RunError(TrainingError):
    """A run directory that is incomplete, changed, of a newer format, or none at all."""


def require(holds: bool, message: str) -> None:
    """Raise TrainingError with `message` unless the condition holds."""
    if not holds:
        raise TrainingError(message)


class InterruptedFit(Exception):
    """A fit that was asked to stop, after its state was saved; the message says how to go on."""
