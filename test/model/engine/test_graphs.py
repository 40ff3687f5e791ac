from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from benchmarks.models import TINY, make_fused
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.model.engine.graphs import CudaRecorder, Graphs, RecordedGraph
from lotus2_ros.model.lotus2.fused import FusedLotus2


class Recorder:
    """As CUDA graphs do it: what is recorded reads and writes the same memory at each replay."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, run):
        self.recorded += 1
        output = run()

        def replay() -> None:
            output.copy_(run())

        return RecordedGraph(output, replay)


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_each_key_shape_and_dtype_is_recorded_once():
    record = Recorder()
    graphs = Graphs(record)
    for _ in range(3):
        for key in (("decode",), ("transform", ("a",)), ("transform", ("b",))):
            for size in (2, 3):
                for dtype in (torch.float32, torch.float64):
                    x = torch.rand(size, dtype=dtype)
                    assert torch.equal(graphs(key, double, x), 2 * x)
    assert record.recorded == len(graphs) == 3 * 2 * 2


def test_a_result_outlives_the_next_replay_and_its_inputs():
    graphs = Graphs(Recorder())
    x = torch.tensor([1.0, 2.0])
    first = graphs(("f",), double, x)
    x.add_(10)
    second = graphs(("f",), double, x)
    first_again = first.clone()
    graphs(("f",), double, torch.zeros(2))
    assert first.tolist() == first_again.tolist() == [2.0, 4.0]
    assert second.tolist() == [22.0, 24.0]


def test_views_are_recorded_as_what_they_show():
    graphs = Graphs(Recorder())
    x = torch.arange(6.0).reshape(2, 3)
    for view in (x.t(), x[:1].expand(3, -1), x[:, ::2]):
        for _ in range(2):
            assert torch.equal(graphs(("f",), double, view), 2 * view)


def test_the_recording_used_longest_ago_makes_room():
    record = Recorder()
    graphs = Graphs(record, limit=2)
    one, two, three = (torch.rand(size) for size in (1, 2, 3))
    for x in (one, two, one, three):  # two is the one used longest ago
        graphs(("f",), double, x)
    assert (record.recorded, len(graphs)) == (3, 2)
    graphs(("f",), double, one)
    assert record.recorded == 3
    graphs(("f",), double, two)
    assert record.recorded == 4


def test_what_cannot_be_recorded_runs_as_it_is(caplog):
    def refuse(run):
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    graphs = Graphs(refuse)
    x = torch.rand(2)
    for _ in range(3):
        assert torch.equal(graphs(("decode",), double, x), 2 * x)
    assert [record.getMessage() for record in caplog.records] == [
        "decode runs without a CUDA graph: operation not permitted when stream is capturing"
    ]


def test_a_second_thread_is_told():
    entered, leave = threading.Event(), threading.Event()

    def wait(x: Tensor) -> Tensor:
        entered.set()
        assert leave.wait(allowed(60))
        return x

    graphs = Graphs(Recorder())
    thread = threading.Thread(target=graphs, args=(("f",), wait, torch.ones(1)))
    thread.start()
    try:
        assert entered.wait(allowed(60))
        with pytest.raises(RuntimeError, match="another thread"):
            graphs(("f",), double, torch.ones(2))
    finally:
        leave.set()
        thread.join()
    assert graphs(("f",), double, torch.ones(2)).tolist() == [2.0, 2.0]  # one after the other may


def test_an_error_inside_leaves_the_model_usable():
    def fail(x: Tensor) -> Tensor:
        raise ValueError("no")

    graphs = Graphs(Recorder())
    with pytest.raises(ValueError, match="no"):
        graphs(("f",), fail, torch.ones(1))
    assert graphs(("g",), double, torch.ones(1)).item() == 2


def outputs(model: FusedLotus2, height: int, width: int) -> list[Tensor]:
    """Of every function that the model launches, on the CPU and in float32."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        latent = model.encode(image.to(model.device))
        cores = model.predict(latent, model.tasks)
        steps = [model.velocity(cores["depth"], "depth", sigma) for sigma in (1.0, 0.5)]
        results = [latent, *cores.values(), *steps, model.core(latent, "normals"), model.decode(cores["normals"])]
    return [result.float().cpu() for result in results]


def test_a_model_s_results_are_the_same_when_replayed():
    model = make_fused(TINY, "float32", torch.device("cpu"), torch.float32)
    sizes = ((48, 64), (64, 64))
    expected = [outputs(model, *size) for size in sizes]
    record = Recorder()
    model.executor = Graphs(record)
    for _ in range(2):
        for size, wanted in zip(sizes, expected, strict=True):
            for result, plain in zip(outputs(model, *size), wanted, strict=True):
                assert torch.equal(result, plain)
    # Encoder, both cores at once, sharpener, normals alone, decoder.
    assert record.recorded == len(sizes) * 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float8", "int8", "nf4"])
def test_a_gpu_s_results_are_the_same_when_replayed(precision):
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    model = make_fused(TINY, precision, torch.device("cuda"), dtype)
    expected = outputs(model, 96, 128)
    model.executor = Graphs(CudaRecorder())
    for _ in range(2):
        for result, plain in zip(outputs(model, 96, 128), expected, strict=True):
            assert (result - plain).norm() <= 1e-2 * plain.norm()
    assert len(model.executor) == 5
