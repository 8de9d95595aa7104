"""One int8 table for the word embeddings and for the head's product with the vocabulary, which have the same weights.

The exporter writes them twice, once transposed, and each copy is quantised by itself. Most bytes of a small model are
here: a tiny student of 30,522 tokens, 264 wide, takes 10.7 MiB with one table and 18.4 with two.

Axes: V vocabulary, D width.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx


class Tied(NamedTuple):
    """Names, in the fp32 graph, of two initializers with the same numbers."""

    table_VD: str
    weight_DV: str


def tied_embeddings(model: "onnx.ModelProto") -> Tied | None:
    """The table that a Gather of an fp32 graph reads and the equal weights of a MatMul; None where there are none."""
    from onnx.numpy_helper import to_array

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    tables = [node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in stored]
    weights = [node.input[1] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in stored]
    for table in tables:
        for weight in weights:
            is_transposed = list(stored[table].dims) == list(stored[weight].dims)[::-1]
            if is_transposed and np.array_equal(to_array(stored[table]), to_array(stored[weight]).T):
                return Tied(table, weight)
    return None


def share_tied_embeddings(model: "onnx.ModelProto", tied: Tied) -> None:
    """Let the Gather of a graph that `quantize_dynamic` has made read the weights of the product.

    Their zeros must be in the middle. They have a scale for each token, where the table of the Gather had one for all.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    table, weight, scale = f"{tied.table_VD}_quantized", f"{tied.weight_DV}_quantized", f"{tied.weight_DV}_scale"
    stored = {tensor.name: tensor for tensor in graph.initializer}
    if table not in stored or weight not in stored:
        return
    zeros = numpy_helper.to_array(stored[f"{tied.weight_DV}_zero_point"])
    assert not zeros.any(), "weights with zeros of their own have to stay apart"
    gather = next(node for node in graph.node if node.op_type == "Gather" and node.input[0] == table)
    dequantize = next(node for node in graph.node if node.input and node.input[0] == gather.output[0])
    stored[table].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored[weight]).T.copy(), table))
    unused = {weight, *dequantize.input[1:]}
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), f"{table}_last_axis"))
    scaled = [
        helper.make_node("Gather", [scale, gather.input[1]], [f"{table}_scales"]),
        helper.make_node("Unsqueeze", [f"{table}_scales", f"{table}_last_axis"], [f"{table}_scale_columns"]),
        helper.make_node("Cast", [gather.output[0]], [f"{table}_floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{table}_floats", f"{table}_scale_columns"], list(dequantize.output)),
    ]
    place = list(graph.node).index(dequantize)
    nodes = [*graph.node[:place], *scaled, *graph.node[place + 1 :]]
    del graph.node[:]
    # Runtimes transpose it once, when they load the graph.
    graph.node.extend([helper.make_node("Transpose", [table], [weight], perm=[1, 0]), *nodes])
    kept = [tensor for tensor in graph.initializer if tensor.name not in unused]
    del graph.initializer[:]
    graph.initializer.extend(kept)
