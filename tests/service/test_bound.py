"""Bound runs of real graphs; here on the CPU, where only the device and its graphs are missing."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import service.bound
from service.bound import Arrays, BoundRuns
from service.device_gate import DeviceGate
from tests.service.fake_runtime import FakeRuntime

BUCKETS = (1, 2, 4)
TYPES = {"real": TensorProto.FLOAT, "code": TensorProto.INT64, "level": TensorProto.UINT8}
OUTPUTS = {
    "doubled": TensorProto.FLOAT,
    "half": TensorProto.FLOAT16,
    "next_code": TensorProto.INT64,
    "next_level": TensorProto.UINT8,
}


class Spy:
    """A session that notes who runs it, with which graph's number, and whether nobody else may."""

    def __init__(self, session: ort.InferenceSession, gate: DeviceGate) -> None:
        self._inner = session
        self._gate = gate
        self.threads: set[int] = set()
        self.runs: list[tuple[int, bool]] = []

    def io_binding(self) -> ort.IOBinding:
        return self._inner.io_binding()

    def run_with_iobinding(self, binding: ort.IOBinding, options: ort.RunOptions) -> None:
        self.threads.add(threading.get_ident())
        number = int(options.get_run_config_entry("gpu_graph_id"))
        self.runs.append((number, self._gate._claimant == threading.get_ident()))
        self._inner.run_with_iobinding(binding, options)


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    """Doubles numbers, in two precisions, and counts codes and levels on."""
    one = {kind: helper.make_tensor(f"one_{kind}", kind, [], [1]) for kind in (7, 2)}
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["real", "real"], ["doubled"]),
            helper.make_node("Cast", ["doubled"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Add", ["code", "one_7"], ["next_code"]),
            helper.make_node("Cast", ["level"], ["wide"], to=TensorProto.INT64),
            helper.make_node("Add", ["wide", "one_7"], ["wide_next"]),
            helper.make_node("Cast", ["wide_next"], ["next_level"], to=TensorProto.UINT8),
        ],
        "types",
        [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in TYPES.items()],
        [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in OUTPUTS.items()],
        [one[7]],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def batch(items: int, seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "real": random.standard_normal((items, 3), np.float32),
        "code": random.integers(0, 100, (items, 3)),
        "level": random.integers(0, 255, (items, 3), np.uint8),
    }


def plain(session: ort.InferenceSession, inputs: Arrays) -> Arrays:
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), dict(inputs)), strict=True))


def examples(
    session: ort.InferenceSession, outputs: tuple[str, ...] = tuple(OUTPUTS)
) -> list[tuple[Arrays, Arrays]]:
    batches = [batch(items) for items in BUCKETS]
    answers = [plain(session, inputs) for inputs in batches]
    return [
        (inputs, {name: answer[name] for name in outputs})
        for inputs, answer in zip(batches, answers, strict=True)
    ]


def bound(session: object, gate: DeviceGate, *, capture: bool = False) -> BoundRuns:
    return BoundRuns(session, "cpu", gate, capture=capture)


@pytest.fixture(params=[False, True], ids=["ordinary", "pinned"])
def runs(
    session: ort.InferenceSession, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> BoundRuns:
    """With answers in ordinary and in pinned memory."""
    monkeypatch.setattr(service.bound, "_PINNED_BYTES", 0)
    runtime = FakeRuntime() if request.param else None
    return BoundRuns(session, "cpu", DeviceGate(), capture=False, runtime=runtime)


@pytest.mark.parametrize("items", BUCKETS)
@pytest.mark.parametrize("capture", [False, True])
def test_a_bound_run_gives_what_a_plain_run_gives_in_every_type(
    session: ort.InferenceSession, items: int, capture: bool
) -> None:
    run = bound(session, DeviceGate(), capture=capture).bind(examples(session))
    for seed in (1, 2):
        inputs = batch(items, seed)
        expected, actual = plain(session, inputs), run(inputs)
        assert list(actual) == list(OUTPUTS)
        for name, array in expected.items():
            assert actual[name].dtype == array.dtype
            np.testing.assert_array_equal(actual[name], array)


def test_an_answer_stays_when_the_next_batch_comes(
    session: ort.InferenceSession, runs: BoundRuns
) -> None:
    run = runs.bind(examples(session))
    first = run(batch(4, 1))
    kept = {name: array.copy() for name, array in first.items()}
    second = run(batch(4, 2))
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)
        assert not np.shares_memory(first[name], second[name])


@pytest.mark.parametrize("short", [0, 1])
def test_only_answers_that_are_large_enough_lie_in_pinned_memory(
    session: ort.InferenceSession, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    runtime = FakeRuntime()
    runs = BoundRuns(session, "cpu", DeviceGate(), capture=False, runtime=runtime)
    size = sum(array.nbytes for array in plain(session, batch(4)).values())
    monkeypatch.setattr(service.bound, "_PINNED_BYTES", size + short)
    runs.bind(examples(session))(batch(4, 1))
    assert bool(runtime.allocated) == (short == 0)


def test_the_batch_and_the_examples_are_left_as_they_were(
    session: ort.InferenceSession, runs: BoundRuns
) -> None:
    given = examples(session)
    run = runs.bind(given)
    inputs = batch(4, 1)
    run(inputs)
    for arrays, expected in ((inputs, batch(4, 1)), (given[-1][0], batch(4))):
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)


def test_a_batch_need_not_be_contiguous(session: ort.InferenceSession, runs: BoundRuns) -> None:
    run = runs.bind(examples(session))
    inputs = batch(4, 1)
    codes = np.broadcast_to(np.array([5, 6, 7]), (4, 3))
    np.testing.assert_array_equal(run({**inputs, "code": codes})["next_code"], codes + 1)


def test_other_outputs_of_the_same_session_have_buffers_of_their_own(
    session: ort.InferenceSession, runs: BoundRuns
) -> None:
    reals = runs.bind(examples(session, ("doubled",)))
    levels = runs.bind(examples(session, ("next_level",)))
    inputs = batch(2, 1)
    assert list(reals(inputs)) == ["doubled"]
    np.testing.assert_array_equal(levels(inputs)["next_level"], inputs["level"] + 1)
    np.testing.assert_array_equal(reals(inputs)["doubled"], 2 * inputs["real"])


def test_a_batch_of_another_size_is_refused(session: ort.InferenceSession, runs: BoundRuns) -> None:
    run = runs.bind(examples(session))
    with pytest.raises(ValueError, match="expected a batch of a bound size, not of 3 items"):
        run(batch(3))


@pytest.mark.parametrize(
    ("real", "reason"),
    [
        (np.zeros((2, 3)), r"real: expected float32 of \(2, 3\), not float64 of \(2, 3\)"),
        (np.zeros((2, 6), np.float32), r"real: expected float32 of \(2, 3\), not float32 of \(2,"),
    ],
)
def test_arrays_that_do_not_fit_a_buffer_are_refused(
    session: ort.InferenceSession, runs: BoundRuns, real: np.ndarray, reason: str
) -> None:
    run = runs.bind(examples(session))
    with pytest.raises(ValueError, match=reason):
        run({**batch(2), "real": real})
    inputs = batch(2, 1)
    np.testing.assert_array_equal(run(inputs)["doubled"], 2 * inputs["real"])  # it goes on


def test_threads_take_turns_on_one_that_runs_the_session(session: ort.InferenceSession) -> None:
    gate = DeviceGate()
    spy = Spy(session, gate)
    run = bound(spy, gate).bind(examples(session))
    batches = [batch(4, seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(run, batches))
    for inputs, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer["doubled"], 2 * inputs["real"])
    assert len(spy.threads) == 1
    assert threading.get_ident() not in spy.threads


def test_every_bucket_is_captured_alone_under_a_number_of_its_own_after_regular_runs(
    session: ort.InferenceSession,
) -> None:
    gate = DeviceGate()
    spy = Spy(session, gate)
    run = bound(spy, gate, capture=True).bind(examples(session))
    warm_up = [(-1, False)] * 2
    capturing = [[(number, True)] * 4 for number in (1, 2, 3)]
    assert spy.runs == [*warm_up, *capturing[0], *warm_up, *capturing[1], *warm_up, *capturing[2]]

    run(batch(2))
    assert spy.runs[-1] == (2, False)


def test_without_capture_no_run_has_a_graph(session: ort.InferenceSession) -> None:
    gate = DeviceGate()
    spy = Spy(session, gate)
    bound(spy, gate).bind(examples(session))(batch(1))
    assert set(spy.runs) == {(-1, False)}


def test_the_thread_ends_when_nobody_holds_its_runs(session: ort.InferenceSession) -> None:
    before = set(threading.enumerate())
    run = bound(session, DeviceGate()).bind(examples(session))
    run(batch(1))
    (thread,) = set(threading.enumerate()) - before
    del run
    thread.join(10)
    assert not thread.is_alive()
