"""Header blocks mean what HPACK says, whatever was remembered of those before."""

import grpc
import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.transport.http2 import headers

NAMES = ["grpc-timeout", "user-agent", ":path", "x-a", "x-b", "te"]
VALUES = ["", "1S", "2S", "/a.B/C", "long" * 40, "trailers"]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=6)
# A list of headers to send, or a new size of the client's table.
STEPS = st.lists(FIELDS | st.sampled_from([0, 64, 200, 4096]), max_size=30)


@given(steps=STEPS, indexed=st.booleans())
@settings(max_examples=300, deadline=None)
def test_blocks_are_read_as_by_a_decoder_that_remembers_nothing(
    steps: list[list[tuple[str, str]] | int], indexed: bool
) -> None:
    encoder, reference, reader = hpack.Encoder(), hpack.Decoder(), headers.HeaderReader()
    for step in steps:
        if isinstance(step, int):
            if step != encoder.header_table_size:  # twice the same, and hpack forgets to say it
                encoder.header_table_size = step
            continue
        fields = step if indexed else [(n, v, True) for n, v in step]  # True: enters no table
        block = encoder.encode(fields)
        read = reader.read(block)
        expected = tuple((bytes(n), bytes(v)) for n, v in reference.decode(block, raw=True))
        assert read.fields == expected


def test_a_block_that_repeats_is_remembered_until_the_table_changes() -> None:
    encoder, reader = hpack.Encoder(), headers.HeaderReader()
    fields = [(":method", "POST"), (":path", "/a"), ("content-type", "application/grpc")]
    reader.read(encoder.encode(fields))
    again = encoder.encode(fields)
    first = reader.read(again)
    assert reader.read(encoder.encode(fields)) is first
    reader.read(encoder.encode([("x-new", "value")]))
    assert reader.read(encoder.encode(fields)).path == b"/a"


CALL = [(":method", "POST"), (":path", "/a"), ("content-type", "application/grpc")]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ([*CALL, ("x-a", "1\n2")], "a null or an end of line"),
        ([*CALL, ("X-a", "1")], "upper case"),
        ([*CALL, ("", "1")], "empty"),
        ([*CALL[:2], (":path", "/b"), CALL[2]], "twice, or after"),
        ([CALL[0], CALL[2], CALL[1]], "twice, or after"),
    ],
)
def test_what_no_client_of_http2_may_send_is_refused(
    fields: list[tuple[str, str]], wrong: str
) -> None:
    code, words = headers.HeaderReader().read(hpack.Encoder().encode(fields)).fault or (None, "")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words.startswith("metadata: ")
    assert wrong in words


def test_metadata_may_be_there_twice() -> None:
    fields = [*CALL, ("x-a", "1"), ("x-a", "2")]
    assert headers.HeaderReader().read(hpack.Encoder().encode(fields)).fault is None


def test_trailers_carry_any_text() -> None:
    block = headers.trailers(3, "100 % größer\n", b"\x00\xff")
    fields = dict(hpack.Decoder().decode(block))
    assert fields["grpc-status"] == "3"
    assert fields["grpc-message"] == "100 %25 gr%C3%B6%C3%9Fer%0A"
    assert fields["grpc-status-details-bin"] == "AP8"


def test_a_long_text_is_written_as_hpack_wants_it() -> None:
    text = "x" * 1000
    fields = dict(hpack.Decoder().decode(headers.block((("grpc-message", text),))))
    assert fields["grpc-message"] == text
