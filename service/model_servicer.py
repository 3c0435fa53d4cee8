"""vae.v1.ModelService: what is being served."""

from vae.v1 import model_service_pb2 as models_pb
from vae.v1 import tensor_pb2

from service.catalogue import Catalogue, Served
from service.errors import InvalidRequest
from service.model import Models
from service.transport import Call, Method

MODEL_SERVICE = models_pb.DESCRIPTOR.services_by_name["ModelService"].full_name
_MAX_PAGE = 1000


class ModelServicer:
    """vae.v1.ModelService on a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def methods(self) -> list[Method]:
        """The methods of the service, for a transport."""
        return [
            Method(MODEL_SERVICE, "ListModels", models_pb.ListModelsRequest, self.list_models),
            Method(MODEL_SERVICE, "GetModel", models_pb.GetModelRequest, self.get_model),
        ]

    async def list_models(
        self, request: models_pb.ListModelsRequest, call: Call
    ) -> models_pb.ListModelsResponse:
        """Lists what is served, page by page; the token is the name of the page's first model."""
        if request.page_size < 0:
            raise InvalidRequest("page_size", "expected at least 0")
        size = min(request.page_size or _MAX_PAGE, _MAX_PAGE)
        models, served = self._catalogue.snapshot()
        names = [model.resource for model in models.all]
        if request.page_token and request.page_token not in names:
            raise InvalidRequest("page_token", "expected next_page_token of an earlier response")
        first = names.index(request.page_token) if request.page_token else 0
        page = models.all[first : first + size]
        rest = names[first + size :]
        return models_pb.ListModelsResponse(
            models=[_describe(served[model], models) for model in page],
            next_page_token=rest[0] if rest else "",
        )

    async def get_model(
        self, request: models_pb.GetModelRequest, call: Call
    ) -> models_pb.GetModelResponse:
        """Describes one version."""
        models, served = self._catalogue.snapshot()
        model = models.get(request.name, field="name")
        return models_pb.GetModelResponse(model=_describe(served[model], models))


def _describe(served: Served, models: Models) -> models_pb.Model:
    model = served.model
    manifest = model.version.manifest
    batching = model.batchers["decoder"].options  # every graph has the same
    return models_pb.Model(
        name=model.resource,
        default_version=models.is_default(model),
        family=manifest.family,
        observations=manifest.observations,
        value_range=manifest.value_range,
        latents=manifest.latents,
        latent_space=manifest.latent_space,
        labels=manifest.labels,
        likelihood=manifest.likelihood,
        prior=manifest.prior,
        execution_provider=model.provider,
        max_batch_size=max(manifest.batch_buckets),
        max_request_items=served.max_items,
        digest=model.version.digest,
        training_metrics=manifest.training_metrics,
        code_count=manifest.code_count,
        latent_groups=[
            tensor_pb2.TensorSpec(
                name=group.name,
                data_type=manifest.latents.data_type,
                shape=(-1, *group.shape),
            )
            for group in manifest.latent_groups
        ],
        precisions={name: graph.precision for name, graph in model.version.graphs.items()},
        priority_levels=batching.priority_levels,
        default_priority_level=batching.level(0),
    )
