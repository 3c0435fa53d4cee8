"""What this package raises when a run cannot become a model version."""


class ExportError(ValueError):
    """A name, repository, model or graph that cannot be published; one clear sentence."""
