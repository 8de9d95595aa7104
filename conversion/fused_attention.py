"""Attention of an ONNX graph as one operator of ONNX Runtime, MultiHeadAttention.

Its kernel takes a block of queries through both products and the softmax, so that scores stay in the cache. It does so
only without a mask. So the mask is one more component of the keys, which queries multiply by 1: the weights of both get
a column of zeros for each head, and the bias of the queries gets ones there. The mask takes the place of the keys'
bias, which adds the same to all scores of a query, and a softmax does not see that.

Against attention written out, int8 takes 4 to 18 % less time in tiny shapes, up to 10 % less in slim ones and 1 to 4 %
less in base ones (two threads of a Zen 4, benchmarks/results/onnx_attention.json). One product for queries, keys and
values was slower for long texts, as its parts have to be copied.

Axes: B batch, H heads, L padded length, E width of a head, F one more than that, D width of the model, I inputs of a
map; 1 is an axis of one.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

DOMAIN = "com.microsoft"
# What lies between a product of attention and the maps that it reads.
MOVES = ("Div", "Transpose")


def fuse_attention(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """A graph whose attention was written out, with one row of mask for all queries, with an operator in each layer.

    The operators that multiply with the weights of queries and keys keep their names.
    """
    from onnx import helper, numpy_helper, utils

    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    read_by = {name: node for node in graph.node for name in node.input}
    stored = _constants(model)

    def store(name: str, values: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def split_above(name: str) -> "onnx.NodeProto":
        """The Reshape that tells the heads of a map apart."""
        while made_by[name].op_type in MOVES:
            name = made_by[name].input[0]
        assert made_by[name].op_type == "Reshape", f"attention reads {made_by[name].op_type}"
        return made_by[name]

    for number, softmax in enumerate([node for node in graph.node if node.op_type == "Softmax"]):
        scores, mask = sorted(made_by[softmax.input[0]].input, key=lambda name: made_by[name].op_type != "MatMul")
        mixed = read_by[softmax.output[0]]
        joined = read_by[read_by[mixed.output[0]].output[0]]
        splits = [split_above(name) for name in (*made_by[scores].input, mixed.input[1])]
        width = int(stored[splits[0].input[1]][-1])
        if number == 0:
            heads = len(stored[_product(splits[0], made_by).input[1]].T) // width
            ones_HF = np.zeros((heads, width + 1), dtype=np.float32)
            ones_HF[:, -1] = 1
            shape, ones = store("mask_shape", np.array([0, -1, 1])), store("ones_of_queries", ones_HF.reshape(1, 1, -1))
            place = [*graph.node].index(made_by[mask]) + 1
            graph.node.insert(place, helper.make_node("Mul", ["mask_column", ones], ["mask_of_keys"]))
            graph.node.insert(place, helper.make_node("Reshape", [mask, shape], ["mask_column"]))
        query, key = (made_by[split.input[0]] for split in splits[:2])
        (bias,) = (stored[name] for name in query.input if name in stored)
        added = {"query": store(f"query_bias_{number}", _widened(bias, width, 1.0)), "key": "mask_of_keys"}
        for (kind, other), split, addition in zip(added.items(), splits[:2], (query, key), strict=True):
            product = _product(split, made_by)
            product.input[1] = store(f"{kind}_weight_{number}", _widened(stored[product.input[1]], width, 0.0))
            del addition.input[:]
            addition.input.extend([product.output[0], other])
        operator = helper.make_node(
            "MultiHeadAttention",
            [split.input[0] for split in splits],
            [joined.output[0]],
            name=mixed.name,
            domain=DOMAIN,
            num_heads=heads,
            scale=1 / math.sqrt(width),
        )
        joined.CopyFrom(operator)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    ends = ([value.name for value in part] for part in (graph.input, graph.output))
    return utils.Extractor(model).extract_model(*ends)


def _constants(model: "onnx.ModelProto") -> dict[str, NDArray[Any]]:
    """What does not depend on the inputs, by name; the exporter gives equal weights several."""
    from onnx import numpy_helper

    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            stored[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    return stored


def _product(split: "onnx.NodeProto", made_by: Mapping[str, "onnx.NodeProto"]) -> "onnx.NodeProto":
    """The product with weights of the map whose heads a Reshape tells apart."""
    (found,) = (made_by[name] for name in made_by[split.input[0]].input if made_by.get(name, split).op_type == "MatMul")
    return found


def _widened(values: NDArray[Any], width: int, last: float) -> NDArray[Any]:
    """Weights (I, H × E) or a bias (H × E) with one more component for each head: (I, H × F), (H × F)."""
    split = values.reshape(*values.shape[:-1], -1, width)
    column = np.full((*split.shape[:-1], 1), last, dtype=values.dtype)
    return np.concatenate([split, column], axis=-1).reshape(*values.shape[:-1], -1)
