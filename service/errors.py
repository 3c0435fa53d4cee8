"""What can go wrong with a request, in the domain's words.

`status` gives each its code on the wire.
"""


class ServiceError(Exception):
    """A request that gets no answer; the text is for the caller and holds nothing internal."""


class InvalidRequest(ServiceError):
    """The request itself is at fault.

    field: path of the field, for example "observations.shape". description: what was expected.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class ModelNotFound(ServiceError):
    """No such model or version is served."""


class HealthUnknown(ServiceError):
    """Health was asked for a service that is not here."""


class Unauthenticated(ServiceError):
    """The caller did not show who it is. reason: for programs, CREDENTIALS_MISSING, ..."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class PermissionDenied(ServiceError):
    """The caller is known and may not do this. right: what it lacks."""

    def __init__(self, right: str) -> None:
        super().__init__(f"this call needs the right {right}, which the credentials do not give")
        self.right = right


class ModelNotReady(ServiceError):
    """The models are still loading."""


class ModelControlOff(ServiceError):
    """The service was not started to load and unload models on request."""


class LoadFailed(ServiceError):
    """A version cannot be loaded; what was served before still is."""


class RepositoryUnreadable(ServiceError):
    """What the repository has cannot be found out at the moment; what is served goes on."""


class LatentSpaceMismatch(ServiceError):
    """The latents come from another latent space than the model's."""


class NotOffered(ServiceError):
    """The model version cannot answer this kind of request, whatever it says."""


class QueueFull(ServiceError):
    """The queue has no room for the items. drain_seconds: expected time until it is empty."""

    def __init__(self, drain_seconds: float) -> None:
        super().__init__(f"the queue is full; expected to drain in {drain_seconds:.3f} s")
        self.drain_seconds = drain_seconds


class Overloaded(ServiceError):
    """Clients take more of the service than it gives: connections, or memory."""


class Cancelled(ServiceError):
    """The caller is gone; nobody reads an answer."""


class Draining(ServiceError):
    """The service is shutting down and takes no new requests."""


class ExpiredInQueue(ServiceError):
    """The deadline passed before a batch with the items started."""


class InferenceFailed(ServiceError):
    """The runtime failed on a batch."""
