"""The methods of the service on a channel."""

from typing import Any

from vae.v1.model_service_pb2_grpc import ModelServiceStub
from vae.v1.vae_service_pb2_grpc import VaeServiceStub


class Stubs:
    """channel: a blocking one, or asyncio's, whose methods are to be awaited."""

    def __init__(self, channel: Any) -> None:
        self.vae = VaeServiceStub(channel)
        self.models = ModelServiceStub(channel)
