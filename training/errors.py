"""What this package raises when its input is at fault. Each message is one clear sentence."""


class TrainingError(ValueError):
    """A preset, setting, data set or destination that cannot be used."""


class RunError(TrainingError):
    """A run directory that is incomplete, changed, of a newer format, or none at all."""
