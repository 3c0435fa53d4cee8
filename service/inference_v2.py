"""The Open Inference Protocol, version 2: each graph of a model is one model of it. No logic."""

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Final

from inference import inference_service_pb2 as pb

from service.catalogue import Served
from service.errors import InvalidRequest, ModelNotFound, ModelNotReady
from service.inference_graph import ServedGraph
from service.inference_metadata import config_of, metadata_of, statistics_of
from service.model import Model, Models
from service.repository import VERSION, shown
from service.statistics import GraphStatistics
from service.transport import Call, Method
from service.transport.spliced import Spliced

INFERENCE_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_DISTRIBUTION: Final = "vae-serving"
_EXTENSIONS: Final = ("model_configuration", "parameters", "statistics")  # only what works


class InferenceV2:
    """inference.GRPCInferenceService on a set of models."""

    def __init__(
        self,
        statistics: Callable[[str, int, str], GraphStatistics],
        ready: Callable[[], bool],
    ) -> None:
        """statistics: of a graph, by model, version and graph. ready: whether the service is."""
        self._statistics = statistics
        self._ready = ready
        self._graphs: tuple[ServedGraph, ...] | None = None
        self._by_name: dict[tuple[str, str], ServedGraph] = {}
        self._not_ready: frozenset[str] = frozenset()

    def publish(self, models: Models, served: Mapping[Model, Served]) -> None:
        """Serves these models from now on; served: as the catalogue has them."""
        graphs = tuple(
            ServedGraph(model, kind, served[model].max_items)
            for model in models.all
            for kind in model.batchers
        )
        by_name = {(graph.name, graph.version): graph for graph in graphs}
        by_name |= {(graph.name, ""): graph for graph in graphs if models.is_default(graph.model)}
        self._by_name, self._not_ready = by_name, models.not_ready
        self._graphs = graphs

    def methods(self) -> list[Method]:
        """The methods of the service, for a transport."""
        return [
            Method(INFERENCE_SERVICE, "ServerLive", pb.ServerLiveRequest, self.server_live),
            Method(INFERENCE_SERVICE, "ServerReady", pb.ServerReadyRequest, self.server_ready),
            Method(INFERENCE_SERVICE, "ModelReady", pb.ModelReadyRequest, self.model_ready),
            Method(
                INFERENCE_SERVICE, "ServerMetadata", pb.ServerMetadataRequest, self.server_metadata
            ),
            Method(
                INFERENCE_SERVICE, "ModelMetadata", pb.ModelMetadataRequest, self.model_metadata
            ),
            Method(INFERENCE_SERVICE, "ModelInfer", pb.ModelInferRequest, self.model_infer),
            Method(INFERENCE_SERVICE, "ModelConfig", pb.ModelConfigRequest, self.model_config),
            Method(
                INFERENCE_SERVICE,
                "ModelStatistics",
                pb.ModelStatisticsRequest,
                self.model_statistics,
            ),
        ]

    async def server_live(self, request: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        """It answers, so it lives."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(
        self, request: pb.ServerReadyRequest, call: Call
    ) -> pb.ServerReadyResponse:
        """Readiness, as health has it."""
        return pb.ServerReadyResponse(ready=self._ready())

    async def model_ready(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """Whether a graph is loaded; while the models load no name is known, so none is."""
        try:
            self._find(request.name, request.version, "version")
        except ModelNotReady:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def server_metadata(
        self, request: pb.ServerMetadataRequest, call: Call
    ) -> pb.ServerMetadataResponse:
        """Describes the service."""
        return pb.ServerMetadataResponse(
            name=_DISTRIBUTION, version=metadata.version(_DISTRIBUTION), extensions=_EXTENSIONS
        )

    async def model_metadata(
        self, request: pb.ModelMetadataRequest, call: Call
    ) -> pb.ModelMetadataResponse:
        """Describes a graph's tensors."""
        graph = self._find(request.name, request.version, "version")
        versions = [each.version for each in self._graphs or () if each.name == graph.name]
        return metadata_of(graph, versions)

    async def model_config(
        self, request: pb.ModelConfigRequest, call: Call
    ) -> pb.ModelConfigResponse:
        """Describes a graph as Triton does."""
        graph = self._find(request.name, request.version, "version")
        return pb.ModelConfigResponse(config=config_of(graph))

    async def model_statistics(
        self, request: pb.ModelStatisticsRequest, call: Call
    ) -> pb.ModelStatisticsResponse:
        """Counters of one graph, or of all."""
        graphs = self._graphs or ()
        if request.name:
            named = self._find(request.name, request.version, "version")
            graphs = tuple(
                each
                for each in graphs
                if each is named or (each.name == named.name and not request.version)
            )
        statistics = self._statistics
        return pb.ModelStatisticsResponse(
            model_stats=[
                statistics_of(graph, statistics(version.name, version.version, graph.kind))
                for graph in graphs
                for version in (graph.model.version,)
            ]
        )

    async def model_infer(self, request: pb.ModelInferRequest, call: Call) -> Spliced:
        """Runs a graph."""
        graph = self._find(request.model_name, request.model_version, "model_version")
        return await graph.infer(request, call)

    def _find(self, name: str, version: str, field: str) -> ServedGraph:
        graph = self._by_name.get((name, version))
        if graph is not None:
            return graph
        if self._graphs is None or name.rpartition(".")[0] in self._not_ready:
            raise ModelNotReady(f"model {shown(name)} is not loaded")
        if version and not (version.isascii() and version.isdecimal()):
            raise InvalidRequest(field, "expected a number, or nothing for the default version")
        number = version if VERSION.fullmatch(version) else "of that number"
        what = f"version {number} of model" if version else "model"
        raise ModelNotFound(
            f"no {what} {shown(name)} is served; expected NAME.encoder, NAME.decoder, NAME.prior "
            "or NAME.scorer of a model that vae.v1.ModelService/ListModels lists"
        )
