"""A model's stages run by ONNX Runtime, for comparison. Needs onnx, onnxscript and onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ClassVar

import onnxruntime
import torch
from torch import Tensor

from lotus2_ros.model.engine.openvino import TracedFunction

OPSET = 18


class OnnxStages:
    """A `TorchModel.executor` that exports each stage, without its unused inputs, for each shape of its tensors."""

    exported: ClassVar[dict[tuple, bytes]] = {}  # of one model; takes minutes, and serves any number of threads

    def __init__(self, threads: int) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._sessions: dict[tuple, onnxruntime.InferenceSession] = {}

    def __call__(self, key: tuple, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        case = (key, *(tuple(tensor.shape) for tensor in tensors))
        if case not in self._sessions:
            if case not in self.exported:
                self.exported[case] = self._export(function, tensors)
            self._sessions[case] = onnxruntime.InferenceSession(
                self.exported[case], self._options, providers=["CPUExecutionProvider"]
            )
        session = self._sessions[case]
        given = {f"input{number}": tensor.contiguous().numpy() for number, tensor in enumerate(tensors)}
        return torch.from_numpy(session.run(None, {item.name: given[item.name] for item in session.get_inputs()})[0])

    @staticmethod
    def _export(function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> bytes:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = tuple(tensor.clone() for tensor in tensors)
            names = [f"input{number}" for number in range(len(inputs))]
            program = torch.onnx.export(
                TracedFunction(function).eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                optimize=False,  # takes minutes; ONNX Runtime optimizes by itself
                verbose=False,
            )
            assert program is not None
        return program.model_proto.SerializeToString()
