"""The model repository over the Open Inference Protocol, in Triton's extension of it."""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final

from inference import inference_service_pb2 as pb

from service.completion import run_on
from service.control import READY, VersionState
from service.errors import InvalidRequest, ModelControlOff, RepositoryUnreadable
from service.inference_v2 import INFERENCE_SERVICE
from service.logs import Logger
from service.repository import RepositoryError
from service.transport import Call, Method

_NO_EFFECT: Final = {"unload_dependents"}


class RepositoryV2:
    """RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload."""

    def __init__(
        self,
        states: Callable[[], tuple[VersionState, ...]],
        load: Callable[[str], None] | None,
        unload: Callable[[str], None] | None,
        executor: Executor,
        log: Logger,
    ) -> None:
        """load, unload: of a model by its name, on a thread of executor; None where that is off.

        They raise ServiceError or RepositoryError.
        """
        self._states = states
        self._load = load
        self._unload = unload
        self._executor = executor
        self._log = log

    def methods(self) -> list[Method]:
        """The methods, for a transport."""
        return [
            Method(INFERENCE_SERVICE, "RepositoryIndex", pb.RepositoryIndexRequest, self.index),
            Method(
                INFERENCE_SERVICE, "RepositoryModelLoad", pb.RepositoryModelLoadRequest, self.load
            ),
            Method(
                INFERENCE_SERVICE,
                "RepositoryModelUnload",
                pb.RepositoryModelUnloadRequest,
                self.unload,
            ),
        ]

    async def index(
        self, request: pb.RepositoryIndexRequest, call: Call
    ) -> pb.RepositoryIndexResponse:
        """Every version of the repository, or those that are ready."""
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=each.name, version=str(each.version), state=each.state, reason=each.reason
                )
                for each in self._states()
                if not request.ready or each.state == READY
            ]
        )

    async def load(
        self, request: pb.RepositoryModelLoadRequest, call: Call
    ) -> pb.RepositoryModelLoadResponse:
        """Serves a model as the repository has it now."""
        await self._run(self._load, request)
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, request: pb.RepositoryModelUnloadRequest, call: Call
    ) -> pb.RepositoryModelUnloadResponse:
        """Serves a model no longer."""
        await self._run(self._unload, request)
        return pb.RepositoryModelUnloadResponse()

    async def _run(
        self,
        change: Callable[[str], None] | None,
        request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest,
    ) -> None:
        if change is None:
            raise ModelControlOff("models are loaded on request only with --model-control explicit")
        if given := sorted(set(request.parameters) - _NO_EFFECT):
            raise InvalidRequest(
                f"parameters.{given[0]}", "expected none: models are as the repository has them"
            )
        try:
            await run_on(self._executor, partial(change, request.model_name))
        except RepositoryError as error:
            self._log.error("repository_unreadable", reason=str(error))
            raise RepositoryUnreadable(
                "the repository cannot be read at the moment; the service's log says why"
            ) from error
