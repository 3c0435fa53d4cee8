"""The names of requests, in answers and in logs, over a real socket with both transports."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest
from vae.v1 import vae_service_pb2_grpc
from vae.v1.vae_service_pb2 import DecodeStreamRequest, SampleRequest, SampleStreamRequest

from scripts.launch import ServiceProcess

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
GOOD = SampleRequest(model="models/digits", sample_count=2)
BAD = SampleRequest(model="models/digits")
LARGE = SampleRequest(model="models/digits", sample_count=2000)
MADE = re.compile(r"[0-9a-f]{32}")


def ids_of(call: Any) -> list[str]:
    return [value for key, value in call.trailing_metadata() or () if key == "x-request-id"]


def name_of(channel: grpc.Channel, request: SampleRequest, *given: str) -> list[str]:
    """The ids that come with the answer to a unary call."""
    metadata = [("x-request-id", value) for value in given]
    stub = vae_service_pb2_grpc.VaeServiceStub(channel)
    try:
        _, call = stub.Sample.with_call(request, metadata=metadata, timeout=10)
    except grpc.RpcError as error:
        return ids_of(error)
    return ids_of(call)


@pytest.mark.parametrize("request_", [GOOD, BAD, LARGE], ids=["good", "bad", "large"])
def test_the_id_of_a_client_comes_back(channel: grpc.Channel, request_: SampleRequest) -> None:
    for given in ("a", "b" * 128, "0af7651916cd43dd8448eb211c80319c", "app:7/x.y_z=+-"):
        assert name_of(channel, request_, given) == [given]


def test_the_id_of_a_stream_comes_back(channel: grpc.Channel) -> None:
    stub = vae_service_pb2_grpc.VaeServiceStub(channel)
    metadata = (("x-request-id", "mine"),)
    answers = stub.SampleStream(SampleStreamRequest(request=GOOD), metadata=metadata, timeout=10)
    assert len(list(answers)) == 1
    assert ids_of(answers) == ["mine"]
    refused = stub.DecodeStream(iter([DecodeStreamRequest()]), metadata=metadata, timeout=10)
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ids_of(refused) == ["mine"]


def test_a_failure_gets_an_id_if_its_client_gave_none(channel: grpc.Channel) -> None:
    [first], [second] = name_of(channel, BAD), name_of(channel, BAD)
    assert MADE.fullmatch(first)
    assert MADE.fullmatch(second)
    assert first != second


def test_what_goes_well_and_fast_needs_no_id(channel: grpc.Channel) -> None:
    assert name_of(channel, GOOD) == []


@pytest.mark.parametrize("given", [("x" * 129,), ("",), ("a b",), ('"}{',), ("one", "two")])
def test_an_id_that_cannot_be_is_not_repeated(
    channel: grpc.Channel, given: tuple[str, ...]
) -> None:
    [name] = name_of(channel, BAD, *given)
    assert MADE.fullmatch(name)


def test_failures_and_slow_calls_are_logged_with_their_ids(start_service: StartService) -> None:
    lines: list[str] = []
    options = ("--slow-request-seconds", "0.000001", "--log-level", "debug")
    with (
        start_service(*options, echo=lines.append) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        name_of(channel, GOOD, "given")
        [made] = name_of(channel, GOOD)
        [failed] = name_of(channel, BAD)
        service.stop()
    events = [json.loads(line) for line in lines]
    slow = {event["request_id"]: event for event in events if event["event"] == "request_slow"}
    refused = [event for event in events if event["event"] == "request_refused"]
    assert {"given", made, failed} <= slow.keys()
    assert slow["given"]["method"] == "vae.v1.VaeService/Sample"
    assert slow["given"]["code"] == "OK"
    assert slow["given"]["seconds"] >= 0
    [event] = refused
    assert (event["request_id"], event["code"]) == (failed, "INVALID_ARGUMENT")
