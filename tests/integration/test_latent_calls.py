"""Reconstruct, Interpolate, Traverse and Score, image files, and what answers say of themselves."""

import io
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from vae.v1 import vae_service_pb2 as pb
from vae.v1.tensor_pb2 import DATA_TYPE_FLOAT16, DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, Tensor
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from training.config import DataConfig
from training.data import load_dataset
from vae_client import VaeClient
from vae_client.errors import VaeError, error_of

MODEL = "models/digits"
LATENTS = np.random.default_rng(0).standard_normal((3, 8), dtype=np.float32)
DTYPES = {DATA_TYPE_FLOAT32: np.float32, DATA_TYPE_UINT8: np.uint8, DATA_TYPE_FLOAT16: np.float16}


def _png(item: NDArray[np.uint8]) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(item).save(file, "PNG")
        return file.getvalue()


HUGE_FILE = _png(np.zeros((9000, 9000), np.uint8))  # some 80 KB, and 81 MB once it is read


def tensor(array: NDArray[Any]) -> Tensor:
    kind = DATA_TYPE_UINT8 if array.dtype == np.uint8 else DATA_TYPE_FLOAT32
    return Tensor(data_type=kind, shape=array.shape, data=array.tobytes())


def array(message: Tensor) -> NDArray[Any]:
    return np.frombuffer(message.data, DTYPES[message.data_type]).reshape(tuple(message.shape))


def pixels(file: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def refusal(call: Any, request: Any) -> VaeError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    return error_of(caught.value)


@pytest.fixture(scope="module")
def levels() -> NDArray[np.uint8]:
    observations = load_dataset(DataConfig("digits")).observations("test")[:5]
    return np.rint(observations * 255).astype(np.uint8)


@pytest.fixture
def calls(channel: grpc.Channel) -> Any:
    return VaeServiceStub(channel)


def test_reconstruct_decodes_the_posterior_means(calls: Any, levels: NDArray[np.uint8]) -> None:
    answer = calls.Reconstruct(
        pb.ReconstructRequest(model=MODEL, observations=tensor(levels), include_latents=True)
    )
    posterior = calls.Encode(pb.EncodeRequest(model=MODEL, observations=tensor(levels)))
    decoded = calls.Decode(pb.DecodeRequest(model=MODEL, latents=posterior.mean))
    np.testing.assert_allclose(array(answer.latents), array(posterior.mean), atol=1e-5)
    np.testing.assert_allclose(array(answer.observations), array(decoded.observations), atol=1e-5)
    assert answer.latent_space == posterior.latent_space


def test_reconstruct_with_a_seed_decodes_the_draw_of_encode(
    calls: Any, levels: NDArray[np.uint8]
) -> None:
    answer = calls.Reconstruct(
        pb.ReconstructRequest(
            model=MODEL, observations=tensor(levels), include_latents=True, seed=4, start_index=2
        )
    )
    drawn = calls.Encode(
        pb.EncodeRequest(
            model=MODEL, observations=tensor(levels), include_latents=True, seed=4, start_index=2
        )
    )
    np.testing.assert_allclose(array(answer.latents), array(drawn.latents), atol=1e-5)


@pytest.mark.parametrize("way", [pb.INTERPOLATION_LINEAR, pb.INTERPOLATION_SPHERICAL])
def test_interpolate_goes_from_start_to_end(calls: Any, way: Any) -> None:
    answer = calls.Interpolate(
        pb.InterpolateRequest(
            model=MODEL,
            start=pb.Points(latents=tensor(LATENTS)),
            end=pb.Points(latents=tensor(-LATENTS[::-1])),
            steps=6,
            interpolation=way,
            include_latents=True,
        )
    )
    latents = array(answer.latents).reshape(3, 6, 8)
    np.testing.assert_array_equal(latents[:, 0], LATENTS)
    np.testing.assert_array_equal(latents[:, -1], -LATENTS[::-1])
    decoded = calls.Decode(pb.DecodeRequest(model=MODEL, latents=answer.latents))
    np.testing.assert_allclose(array(answer.observations), array(decoded.observations), atol=1e-5)


def test_interpolate_between_observations_goes_through_their_posterior_means(
    calls: Any, levels: NDArray[np.uint8]
) -> None:
    files = pb.Points(images=[_png(levels[0, 0])])
    answer = calls.Interpolate(
        pb.InterpolateRequest(
            model=MODEL,
            start=pb.Points(observations=tensor(levels[:1])),
            end=files,
            steps=2,
            include_latents=True,
        )
    )
    first, last = array(answer.latents)
    np.testing.assert_allclose(first, last, atol=1e-6)


def test_traverse_moves_one_unit_from_the_origin(calls: Any) -> None:
    answer = calls.Traverse(pb.TraverseRequest(model=MODEL, unit=3, steps=7, include_latents=True))
    expected = np.zeros((7, 8), np.float32)
    expected[:, 3] = np.arange(-3, 4)
    np.testing.assert_allclose(array(answer.latents), expected, atol=1e-6)
    assert tuple(answer.observations.shape) == (7, 1, 8, 8)


def test_score_gives_bounds_that_more_draws_tighten(calls: Any, levels: NDArray[np.uint8]) -> None:
    one, many = (
        calls.Score(pb.ScoreRequest(model=MODEL, observations=tensor(levels), draws=draws, seed=1))
        for draws in (1, 200)
    )
    for scores in (one, many):
        np.testing.assert_allclose(
            scores.elbo, -(np.array(scores.rate) + np.array(scores.distortion)), rtol=1e-6
        )
        assert len(scores.percentile) == len(levels)
    # Of this hardly fitted model the posteriors of digits are next to exact: both bounds are equal
    # but for the draws. Those of noise are not.
    np.testing.assert_allclose(np.mean(many.importance_bound), np.mean(many.elbo), atol=0.05)
    noise = np.random.default_rng(0).integers(0, 256, levels.shape, np.uint8)
    anomalies = calls.Score(
        pb.ScoreRequest(model=MODEL, observations=tensor(noise), draws=200, seed=1)
    )
    assert np.mean(anomalies.importance_bound) > np.mean(anomalies.elbo) + 0.03
    assert max(anomalies.elbo) < min(many.elbo)
    assert max(anomalies.percentile) == 0


def test_a_percentile_is_that_of_the_manifests_scores(
    calls: Any, levels: NDArray[np.uint8], digits_repository: Path
) -> None:
    manifest = json.loads((digits_repository / "digits" / "1" / "manifest.json").read_text())
    of_training = np.array(manifest["elboPercentiles"], np.float32)  # the 0th to the 100th
    noisy = np.concatenate((levels, levels // 2, 255 - levels))
    scores = calls.Score(pb.ScoreRequest(model=MODEL, observations=tensor(noisy), draws=20, seed=1))
    below = np.searchsorted(of_training, np.array(scores.elbo, np.float32))
    percentile = np.array(scores.percentile)
    assert len({float(each) for each in percentile}) > 1
    assert np.all(percentile <= np.clip(below, 0, 100) + 1e-3)
    assert np.all(percentile >= np.clip(below - 1, 0, 100) - 1e-3)


def test_an_item_is_scored_alike_in_any_request(calls: Any, levels: NDArray[np.uint8]) -> None:
    whole = calls.Score(pb.ScoreRequest(model=MODEL, observations=tensor(levels), draws=9, seed=5))
    alone = calls.Score(
        pb.ScoreRequest(
            model=MODEL, observations=tensor(levels[2:3]), draws=9, seed=5, start_index=2
        )
    )
    np.testing.assert_allclose(alone.importance_bound[0], whole.importance_bound[2], rtol=1e-5)


def test_observations_come_as_png_files_of_their_levels(calls: Any) -> None:
    request = pb.SampleRequest(model=MODEL, sample_count=70, seed=2)
    request.observation_encoding = pb.OBSERVATION_ENCODING_UINT8
    expected = array(calls.Sample(request).observations)
    request.observation_encoding = pb.OBSERVATION_ENCODING_PNG
    answer = calls.Sample(request)
    assert not answer.HasField("observations")
    images = np.stack([pixels(file) for file in answer.images])[:, None]
    assert np.abs(images.astype(int) - expected).max() <= 1


def test_observations_come_in_float16(calls: Any) -> None:
    floats = calls.Decode(pb.DecodeRequest(model=MODEL, latents=tensor(LATENTS)))
    halves = calls.Decode(
        pb.DecodeRequest(
            model=MODEL,
            latents=tensor(LATENTS),
            observation_encoding=pb.OBSERVATION_ENCODING_FLOAT16,
        )
    )
    assert halves.observations.data_type == DATA_TYPE_FLOAT16
    np.testing.assert_allclose(array(halves.observations), array(floats.observations), atol=5e-4)


def test_encode_takes_image_files(calls: Any, levels: NDArray[np.uint8]) -> None:
    files = [_png(item[0]) for item in levels]
    by_file = calls.Encode(pb.EncodeRequest(model=MODEL, images=files))
    by_tensor = calls.Encode(pb.EncodeRequest(model=MODEL, observations=tensor(levels)))
    np.testing.assert_allclose(array(by_file.mean), array(by_tensor.mean), atol=1e-6)


def test_an_answer_says_how_it_was_computed(calls: Any, levels: NDArray[np.uint8]) -> None:
    executions = [
        calls.Sample(pb.SampleRequest(model=MODEL, sample_count=70)).execution,
        calls.Encode(pb.EncodeRequest(model=MODEL, observations=tensor(levels))).execution,
        calls.Decode(pb.DecodeRequest(model=MODEL, latents=tensor(LATENTS))).execution,
        calls.Score(pb.ScoreRequest(model=MODEL, observations=tensor(levels))).execution,
    ]
    for execution in executions:
        assert execution.provider == "CPUExecutionProvider"
        assert execution.compute_seconds > 0
        assert execution.queue_seconds >= 0
        assert execution.reproducibility != pb.REPRODUCIBILITY_UNSPECIFIED
    assert [execution.batch_size for execution in executions] == [64, 5, 3, 5]


@pytest.mark.parametrize(
    ("method", "request_", "field", "text"),
    [
        ("Interpolate", {"steps": 1}, "steps", "expected 2 to"),
        ("Interpolate", {"steps": 10**6}, "steps", "expected 2 to"),
        ("Interpolate", {"interpolation": 9}, "interpolation", "INTERPOLATION_SPHERICAL"),
        ("Interpolate", {"end": pb.Points(latents=tensor(LATENTS[:2]))}, "end", "expected 3 items"),
        ("Interpolate", {"labels": [1]}, "labels", "not conditional"),
        ("Interpolate", {"start": pb.Points()}, "start.latents.data_type", "FLOAT32"),
        ("Interpolate", {"start": pb.Points(images=[b"no"])}, "start.images[0]", "PNG or JPEG"),
        ("Interpolate", {"end": pb.Points(images=[b"no"])}, "end.images[0]", "PNG or JPEG"),
        ("Encode", {"images": [HUGE_FILE]}, "images[0]", "expected 8 x 8 pixels, not 9000 x 9000"),
        ("Traverse", {"unit": 8}, "unit", "expected 0 to 7"),
        ("Traverse", {"steps": 0}, "steps", "expected 2 to"),
        ("Traverse", {"minimum": 1.0}, "minimum", "or neither"),
        ("Traverse", {"minimum": 1.0, "maximum": float("nan")}, "minimum", "finite"),
        ("Score", {"draws": -1}, "draws", "expected 1 to"),
        ("Score", {"draws": 10**6}, "draws", "expected 1 to"),
        ("Score", {"observations": Tensor()}, "observations.data_type", "FLOAT32"),
        ("Reconstruct", {"start_index": 1}, "start_index", "only used with a seed"),
        ("Reconstruct", {"images": [b""]}, "images", "not both"),
        ("Reconstruct", {"observation_encoding": 7}, "observation_encoding", "ENCODING_PNG"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    calls: Any, method: str, request_: dict[str, Any], field: str, text: str
) -> None:
    seen = tensor(np.zeros((3, 1, 8, 8), np.float32))
    ends = {
        "start": pb.Points(latents=tensor(LATENTS)),
        "end": pb.Points(latents=tensor(LATENTS)),
    }
    good: dict[str, dict[str, Any]] = {
        "Interpolate": {**ends, "steps": 3},
        "Traverse": {"steps": 3},
        "Encode": {},
        "Score": {"observations": seen},
        "Reconstruct": {"observations": seen},
    }
    message = getattr(pb, f"{method}Request")(**{"model": MODEL, **good[method], **request_})
    error = refusal(getattr(calls, method), message)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.field == field
    assert text in str(error)


def test_points_of_another_latent_space_are_refused(calls: Any) -> None:
    points = pb.Points(latents=tensor(LATENTS), latent_space="other")
    error = refusal(calls.Traverse, pb.TraverseRequest(model=MODEL, points=points, steps=2))
    assert error.reason == "LATENT_SPACE_MISMATCH"


def test_the_client_goes_through_the_latent_space(
    client: VaeClient, levels: NDArray[np.uint8]
) -> None:
    rebuilt = client.reconstruct("digits", levels)
    way = client.interpolate("digits", levels[:2], levels[2:4], 4, observed=True, spherical=True)
    moved = client.traverse("digits", 0, 3, points=LATENTS, minimum=-1, maximum=1, uint8=True)

    assert rebuilt.observations.shape == levels.shape
    np.testing.assert_allclose(way.latents[[0, 4]], rebuilt.latents[:2], atol=1e-6)
    np.testing.assert_allclose(way.latents[[3, 7]], rebuilt.latents[2:4], atol=1e-6)
    np.testing.assert_array_equal(moved.latents[:, 0], [-1, 0, 1] * 3)
    assert moved.observations.dtype == np.uint8
    again = client.decode("digits", way.latents, latent_space=way.latent_space)
    np.testing.assert_allclose(again.observations, way.observations, atol=1e-5)


def test_the_client_scores(client: VaeClient, levels: NDArray[np.uint8]) -> None:
    scores = client.score("digits", levels, draws=20, seed=3)

    assert scores.elbo.shape == scores.importance_bound.shape == (5,)
    assert scores.percentile is not None
    assert scores.seed == 3
