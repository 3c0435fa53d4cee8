"""Answers in pinned memory; a heap of ours stands for the device and for the host's memory."""

import gc
import threading

import numpy as np
import pytest

import service.pinned
from service.device_gate import DeviceGate
from service.pinned import Answers, cuda_runtime
from tests.service.fake_runtime import FakeRuntime

OUTPUT = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def answers(runtime: FakeRuntime) -> Answers:
    return Answers(runtime, DeviceGate(), OUTPUT)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_an_answer_is_the_output_in_shape_and_dtype(runtime: FakeRuntime, dtype: str) -> None:
    output = OUTPUT.astype(dtype)
    answer = Answers(runtime, DeviceGate(), output).read(output.ctypes.data)
    assert answer.dtype == output.dtype
    np.testing.assert_array_equal(answer, output)
    assert answer.flags.writeable
    assert answer.ctypes.data in runtime.allocated


def test_memory_is_used_again_once_the_last_view_of_an_answer_is_gone(
    runtime: FakeRuntime, answers: Answers
) -> None:
    answer = answers.read(OUTPUT.ctypes.data)
    row, sent = answer[1:2], memoryview(answer)
    del answer
    other = answers.read((OUTPUT + 1).ctypes.data)
    np.testing.assert_array_equal(row[0], OUTPUT[1])
    assert bytes(sent) == OUTPUT.tobytes()
    assert not np.shares_memory(row, other)
    address = row.__array_interface__["data"][0] - OUTPUT[0].nbytes
    del row, sent
    gc.collect()
    assert answers.read(OUTPUT.ctypes.data).ctypes.data == address
    assert len(runtime.allocated) == 2


@pytest.mark.parametrize(("most", "blocks"), [(2**26, 4), (3 * OUTPUT.nbytes - 1, 2), (1, 0)])
def test_many_answers_at_once_take_no_more_than_some_pinned_memory(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, most: int, blocks: int
) -> None:
    monkeypatch.setattr(service.pinned, "_KEPT_BYTES", most)
    answers = Answers(runtime, DeviceGate(), OUTPUT)
    kept = [answers.read((OUTPUT + number).ctypes.data) for number in range(20)]
    for number, answer in enumerate(kept):
        np.testing.assert_array_equal(answer, OUTPUT + number)
    assert len(runtime.allocated) == blocks


def test_without_pinned_memory_answers_have_ordinary_memory(
    runtime: FakeRuntime, answers: Answers
) -> None:
    runtime.refuses = True
    np.testing.assert_array_equal(answers.read(OUTPUT.ctypes.data), OUTPUT)


def test_memory_goes_back_with_the_last_answer_through_the_gate(runtime: FakeRuntime) -> None:
    gate = DeviceGate()
    answers = Answers(runtime, gate, OUTPUT)
    answer = answers.read(OUTPUT.ctypes.data)
    del answers
    np.testing.assert_array_equal(answer, OUTPUT)
    holder = [answer]
    del answer
    assert len(runtime.allocated) == 1
    with gate.alone():
        thread = threading.Thread(target=holder.clear)
        thread.start()
        thread.join(0.05)
        assert len(runtime.allocated) == 1  # a capture has the device alone
    thread.join()
    assert runtime.allocated == {}


def test_an_error_of_the_device_is_raised_and_takes_no_memory_away(
    runtime: FakeRuntime, answers: Answers
) -> None:
    for _ in range(20):
        runtime.fails = True
        with pytest.raises(RuntimeError, match="lost"):
            answers.read(OUTPUT.ctypes.data)
        runtime.fails = False
    assert answers.read(OUTPUT.ctypes.data).ctypes.data in runtime.allocated


def test_there_is_no_runtime_where_no_library_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.pinned, "_LIBRARIES", ("libnowhere.so.1",))
    assert cuda_runtime() is None
