"""From a stage to an ONNX file."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lotus2_ros.model.export.stages import Stage, StageModule
from lotus2_ros.model.torch_model import InferenceModel

if TYPE_CHECKING:
    import onnx_ir

OPSET = 18  # TensorRT 8.6 and later read it; it has group norms and layer norms as the exporter writes them
WEIGHTS = "weights.bin"
INSTALL = "pip install onnx onnxscript"
ALIGNMENT = 4096  # of tensors in the weights file, so that runtimes can map them
SHARED_BYTES = 1024  # smaller tensors stay in the graph's own file


def check_installed() -> None:
    """Raise ValueError unless the exporter's packages are there."""
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"lotus2 export needs the package {error.name}; install it: {INSTALL}") from None


class WeightsFile:
    """One file for the weights of several graphs. A tensor that several of them have is stored once."""

    def __init__(self, path: Path) -> None:
        self._path, self._places = path, dict[str, tuple[int, int]]()
        path.touch()

    def take(self, graph: onnx_ir.Graph) -> None:
        """Move the large tensors of a graph to the file."""
        import onnx_ir

        with self._path.open("ab") as file:
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < SHARED_BYTES:
                    continue
                content = tensor.tobytes()
                digest = hashlib.blake2b(content, digest_size=20).hexdigest()
                if digest not in self._places:
                    file.write(b"\0" * (-file.tell() % ALIGNMENT))
                    self._places[digest] = (file.tell(), len(content))
                    file.write(content)
                value.const_value = onnx_ir.ExternalTensor(
                    self._path.name,
                    *self._places[digest],
                    dtype=tensor.dtype,
                    shape=onnx_ir.Shape(tensor.shape.numpy()),
                    name=value.name or "",
                    base_dir=self._path.parent,
                )


def write_graph(model: InferenceModel, stage: Stage, path: Path, weights: WeightsFile | None) -> None:
    """Write a stage as an ONNX file; its weights to another file, if one is given."""
    import onnx_ir

    with _quiet():
        program = torch.onnx.export(
            StageModule(model, stage),
            tuple(torch.zeros(shape) for shape in stage.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(stage.inputs),
            output_names=[stage.output],
            optimize=False,  # takes minutes for a transformer; `_simplify` does what matters in a second
            verbose=False,
        )
        assert program is not None
        exported = program.model
        _simplify(exported)
    exported.producer_name, exported.producer_version = "lotus2_ros", None
    if weights is not None:
        weights.take(exported.graph)
    onnx_ir.save(exported, path)


def _simplify(model: Any) -> None:
    """Compute what is constant, drop what is not used, and the exporter's notes, which name files of this machine."""
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    fold_constants(model)
    common.ShapeInferencePass()(model)
    _cast_plainly(model)
    fold_constants(model)
    for simplification in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        simplification(model)


def _cast_plainly(model: Any) -> None:
    """CastLike, which the exporter writes and not every runtime has, as Cast."""
    import onnx_ir

    for node in model.graph:
        if node.op_type == "CastLike" and node.inputs[1].dtype is not None:
            node.attributes["to"] = onnx_ir.AttrInt64("to", node.inputs[1].dtype.value)
            node.op_type = "Cast"
            node.resize_inputs(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, and torch's trace of its work."""
    names = ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
