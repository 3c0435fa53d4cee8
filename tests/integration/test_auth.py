"""Bearer tokens over a real socket, with both transports."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inference import inference_service_pb2 as oip
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub
from vae.v1 import model_service_pb2, model_service_pb2_grpc, vae_service_pb2_grpc
from vae.v1.vae_service_pb2 import DecodeStreamRequest, SampleRequest, SampleStreamRequest

from scripts.launch import ServiceProcess, running_service
from service.auth.tokens import entry
from tests.service.auth.issuer import AUDIENCE, ISSUER, SigningKey, content, write_keys
from tests.service.transport.certificates import issue, make_authority
from vae_client import VaeClient
from vae_client.errors import VaeError, error_of

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
SAMPLE = SampleRequest(model="models/digits", sample_count=1)
Denied = grpc.StatusCode.PERMISSION_DENIED
Unknown = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokens.toml with a token for each right, of the same name, and keys.json."""
    made = tmp_path_factory.mktemp("auth")
    tokens = made / "tokens.toml"
    tokens.touch(0o600)
    tokens.write_text("".join(entry(right, right, [right]) for right in ("infer", "read", "admin")))
    return made


@pytest.fixture(scope="module")
def key(folder: Path) -> SigningKey:
    made = SigningKey("EdDSA", "first")
    write_keys(folder / "keys.json", made.public())
    return made


@pytest.fixture(scope="module")
def options(folder: Path, key: SigningKey) -> list[str]:
    claims = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE]
    return ["--tokens", f"{folder}/tokens.toml", "--jwt-keys", f"{folder}/keys.json", *claims]


@pytest.fixture(scope="module")
def guarded(digits_repository: Path, transport: str, options: list[str]) -> Iterator[grpc.Channel]:
    with (
        running_service(digits_repository, "--transport", transport, *options) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        yield channel


def shown(token: str | None) -> Any:
    return () if token is None else (("authorization", f"Bearer {token}"),)


def sample(channel: grpc.Channel, token: str | None) -> Any:
    stub = vae_service_pb2_grpc.VaeServiceStub(channel)
    return stub.Sample(SAMPLE, metadata=shown(token), timeout=10)


def sample_stream(channel: grpc.Channel, token: str | None) -> Any:
    stub = vae_service_pb2_grpc.VaeServiceStub(channel)
    request = SampleStreamRequest(request=SAMPLE)
    return list(stub.SampleStream(request, metadata=shown(token), timeout=10))


def decode_stream(channel: grpc.Channel, token: str | None) -> Any:
    stub = vae_service_pb2_grpc.VaeServiceStub(channel)
    return list(
        stub.DecodeStream(iter([DecodeStreamRequest()] * 50), metadata=shown(token), timeout=10)
    )


def infer(channel: grpc.Channel, token: str | None) -> Any:
    stub = GRPCInferenceServiceStub(channel)
    return stub.ModelInfer(oip.ModelInferRequest(), metadata=shown(token), timeout=10)


def list_models(channel: grpc.Channel, token: str | None) -> Any:
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = model_service_pb2.ListModelsRequest()
    return stub.ListModels(request, metadata=shown(token), timeout=10)


def metadata_of(channel: grpc.Channel, token: str | None) -> Any:
    stub = GRPCInferenceServiceStub(channel)
    return stub.ServerMetadata(oip.ServerMetadataRequest(), metadata=shown(token), timeout=10)


CALLS = [
    (sample, "infer"),
    (sample_stream, "infer"),
    (decode_stream, "infer"),
    (infer, "infer"),
    (list_models, "read"),
    (metadata_of, "read"),
]


def refusal(call: Callable[..., Any], channel: grpc.Channel, token: str | None) -> VaeError:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, token)
    return error_of(caught.value)


@pytest.mark.parametrize(("call", "right"), CALLS)
def test_a_call_without_a_token_is_unauthenticated(
    guarded: grpc.Channel, call: Callable[..., Any], right: str
) -> None:
    error = refusal(call, guarded, None)
    assert (error.code, error.reason) == (Unknown, "CREDENTIALS_MISSING")


@pytest.mark.parametrize(("call", "right"), CALLS)
def test_a_call_with_a_wrong_token_is_unauthenticated(
    guarded: grpc.Channel, call: Callable[..., Any], right: str
) -> None:
    error = refusal(call, guarded, "hunter2")
    assert (error.code, error.reason) == (Unknown, "CREDENTIALS_INVALID")
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(("call", "right"), CALLS)
def test_a_call_of_a_known_caller_without_its_right_is_denied(
    guarded: grpc.Channel, call: Callable[..., Any], right: str
) -> None:
    for other in {"infer", "read", "admin"} - {right}:
        error = refusal(call, guarded, other)
        assert (error.code, error.reason) == (Denied, "RIGHT_MISSING")
        assert f"the right {right}" in str(error)


def test_a_call_with_its_right_is_answered(guarded: grpc.Channel, key: SigningKey) -> None:
    for token in ("infer", key.sign(scope="infer")):
        assert sample(guarded, token).observations.shape == [1, 1, 8, 8]
        assert len(sample_stream(guarded, token)) == 1
    for token in ("read", key.sign(scope=["read"])):
        assert len(list_models(guarded, token).models) == 1
        assert metadata_of(guarded, token).name == "vae-serving"


@pytest.mark.parametrize("call", [infer, decode_stream])
def test_with_its_right_a_bad_request_is_told_what_was_expected(
    guarded: grpc.Channel, call: Callable[..., Any]
) -> None:
    assert refusal(call, guarded, "infer").reason not in ("RIGHT_MISSING", "CREDENTIALS_MISSING")


def test_health_needs_no_token(guarded: grpc.Channel) -> None:
    request = health_pb2.HealthCheckRequest(service="vae.v1.VaeService")
    health = health_pb2_grpc.HealthStub(guarded)
    assert health.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    stub = GRPCInferenceServiceStub(guarded)
    assert stub.ServerReady(oip.ServerReadyRequest(), timeout=10).ready


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1}, "CREDENTIALS_EXPIRED"),
        ({"aud": "other"}, "CREDENTIALS_INVALID"),
        ({"iss": "other"}, "CREDENTIALS_INVALID"),
        ({"nbf": 2**40}, "CREDENTIALS_INVALID"),
    ],
)
def test_a_signed_token_whose_claims_do_not_hold_is_refused(
    guarded: grpc.Channel, key: SigningKey, claims: dict[str, Any], reason: str
) -> None:
    assert refusal(sample, guarded, key.sign(**claims)).reason == reason


def test_an_unsigned_token_is_refused(guarded: grpc.Channel) -> None:
    token = jwt.encode(content(scope="infer"), None, "none", headers={"kid": "first"})
    assert refusal(sample, guarded, token).reason == "CREDENTIALS_INVALID"


def test_a_message_of_a_caller_without_rights_is_not_parsed(guarded: grpc.Channel) -> None:
    method = guarded.unary_unary("/vae.v1.VaeService/Decode")
    with pytest.raises(grpc.RpcError) as caught:
        method(b"\xff" * 2**20, timeout=10)
    assert caught.value.code() is Unknown


def test_many_refused_calls_harm_nobody_on_their_connection(guarded: grpc.Channel) -> None:
    stub = vae_service_pb2_grpc.VaeServiceStub(guarded)
    tokens = ["infer", None, "wrong", "read"] * 50
    calls = [stub.Sample.future(SAMPLE, metadata=shown(t), timeout=20) for t in tokens]
    codes = [call.code() for call in calls]
    assert codes == [grpc.StatusCode.OK, Unknown, Unknown, Denied] * 50


def test_keys_and_tokens_are_renewed_without_a_restart(
    start_service: StartService, tmp_path: Path, folder: Path, options: list[str]
) -> None:
    old, new = SigningKey("EdDSA", "old"), SigningKey("ES256", "new")
    shutil.copy(folder / "tokens.toml", tmp_path)
    write_keys(tmp_path / "keys.json", old.public())
    own = [option.replace(str(folder), str(tmp_path)) for option in options]
    before, after = old.sign(), new.sign()
    with start_service(*own) as service, grpc.insecure_channel(service.target) as channel:
        sample(channel, before)
        (tmp_path / "tokens.toml").write_text(entry("infer", "renewed", ["infer"]))
        write_keys(tmp_path / "keys.json", new.public())
        while outcome(channel, "infer") is not Unknown:
            pass  # the files are looked at once a second
        while outcome(channel, before) is not Unknown:
            pass
        sample(channel, after)
        sample(channel, "renewed")


def test_files_are_read_again_though_nobody_calls(
    start_service: StartService, tmp_path: Path, folder: Path
) -> None:
    make_authority(tmp_path)
    issue(tmp_path, "server")
    shutil.copy(folder / "tokens.toml", tmp_path)
    tls = grpc.ssl_channel_credentials((tmp_path / "ca.crt").read_bytes())
    files = ["--tls-certificate", f"{tmp_path}/server.crt", "--tls-key", f"{tmp_path}/server.key"]
    files += ["--tokens", f"{tmp_path}/tokens.toml"]
    with start_service(*files, credentials=tls) as service:
        (tmp_path / "tokens.toml").write_text(entry("infer", "renewed", ["infer"]))
        assert service.wait_for("file_reloaded")["file"] == f"{tmp_path}/tokens.toml"
        issue(tmp_path, "server")
        assert service.wait_for("file_reloaded")["file"] == f"{tmp_path}/server.crt"


def outcome(channel: grpc.Channel, token: str) -> grpc.StatusCode:
    try:
        sample(channel, token)
    except grpc.RpcError as error:
        return error_of(error).code
    return grpc.StatusCode.OK


def test_the_client_shows_a_token_over_tls(
    start_service: StartService, tmp_path: Path, options: list[str]
) -> None:
    make_authority(tmp_path)
    issue(tmp_path, "server")
    tls = grpc.ssl_channel_credentials((tmp_path / "ca.crt").read_bytes())
    both = grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials("infer"))
    files = ["--tls-certificate", f"{tmp_path}/server.crt", "--tls-key", f"{tmp_path}/server.key"]
    events: list[str] = []
    with start_service(*options, *files, credentials=tls, echo=events.append) as service:
        with VaeClient(service.target, credentials=both) as client:
            assert len(client.sample("digits", 2).observations) == 2
            with pytest.raises(VaeError, match="the right read"):
                client.models()
        with VaeClient(service.target, credentials=tls) as client, pytest.raises(VaeError):
            client.sample("digits", 1)
    assert not any("tokens_without_tls" in event for event in events)
