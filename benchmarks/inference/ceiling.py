"""GFLOP/s of one square product in a runtime: the process that ``run.py`` asks.

The best of the sizes is the ceiling. The largest is not: a product of 4096 × 4096 bytes leaves 64 MiB of fp32 to write,
and reached half of what one of 512 × 768 × 768 does (OpenVINO int8, one thread of a Xeon with AMX: 1290 and 2661).
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from distilrubert.evaluation.speed.speed_worker import serve
from distilrubert.modeling.runtimes import openvino_core


def _passes(size: int) -> int:
    """More of those that are soon done."""
    return 5 * max(1, 4096 // size)


def _best(forward: Callable[[], object], size: int) -> float:
    forward()
    seconds = []
    for _ in range(_passes(size)):
        begin = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds) / 1e9


def openvino(size: int, threads: int) -> dict[str, float]:
    """Of the CPU plugin."""
    import openvino
    from openvino import opset13 as ops

    def measure(precision: str) -> float:
        parameter = ops.parameter([size, size], np.float32)
        weights = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
        left = parameter
        right = ops.constant(weights)
        if precision == "int8":
            edges = [ops.constant(np.float32(edge)) for edge in (-4, 4, -4, 4)]
            left = ops.fake_quantize(parameter, *edges, 256)
            steps = np.clip(np.round(weights * 32), -127, 127).astype(np.int8)
            right = ops.multiply(ops.convert(ops.constant(steps), "f32"), ops.constant(np.float32(1 / 32)))
        # Only the product is timed: the profile leaves out how its input is made and its output is copied.
        model = openvino.Model([ops.matmul(left, right, False, True)], [parameter])
        hint = "bf16" if precision == "bf16" else "f32"
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": True}
        request = openvino_core().compile_model(model, "CPU", settings).create_infer_request()
        given = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
        best = float("inf")
        for _ in range(1 + _passes(size)):
            request.infer([given])
            products = [node for node in request.profiling_info if node.node_type.startswith(("FullyConn", "MatMul"))]
            best = min(best, sum(node.real_time.total_seconds() for node in products))
        return 2 * size**3 / best / 1e9

    return {precision: measure(precision) for precision in ("fp32", "bf16", "int8")}


def onnx(size: int, threads: int) -> dict[str, float]:
    """Of ONNX Runtime's CPU provider."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def measure(precision: str) -> float:
        random = np.random.default_rng(0)
        whole = precision == "int8"
        weights = random.integers(-64, 64, (size, size)).astype(np.int8 if whole else np.float32)
        kind, result = (TensorProto.UINT8, TensorProto.INT32) if whole else (TensorProto.FLOAT, TensorProto.FLOAT)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger" if whole else "MatMul", ["a", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("a", kind, [size, size])],
            [helper.make_tensor_value_info("y", result, [size, size])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        left = random.integers(0, 255, (size, size)).astype(np.uint8 if whole else np.float32)
        return _best(lambda: session.run(None, {"a": left}), size)

    return {precision: measure(precision) for precision in ("fp32", "int8")}


def pytorch(size: int, threads: int) -> dict[str, float]:
    """Of PyTorch."""
    import torch

    torch.set_num_threads(threads)
    found = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        with torch.inference_mode():
            found[precision] = _best(lambda left=left, right=right: torch.nn.functional.linear(left, right), size)
    return found


class Ceiling:
    """Answers the commands of the measuring process."""

    def measure(self, *, runtime: str, threads: int, sizes: Sequence[int]) -> dict[str, float]:
        """The best over the sizes, by precision."""
        found = [{"openvino": openvino, "onnx": onnx, "pytorch": pytorch}[runtime](size, threads) for size in sizes]
        return {precision: max(of_size[precision] for of_size in found) for precision in found[0]}


if __name__ == "__main__":
    serve(Ceiling())
