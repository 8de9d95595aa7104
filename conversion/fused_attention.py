"""Attention of an ONNX graph as one operator of ONNX Runtime, MultiHeadAttention.

Its kernel takes a block of queries through both products and the softmax, so that scores stay in the cache. It does so
only without a mask. So the mask is one more component of the keys, which queries multiply by 1: the weights of both get
a column of zeros for each head, and the bias of the queries gets ones there. The mask takes the place of the keys'
bias, which adds the same to all scores of a query, and a softmax does not see that.

Against attention written out, int8 takes 4 to 18 % less time in tiny shapes, from 10 % less to 1 % more in slim ones
and 1 to 4 % less in base ones (two threads of a Zen 4, benchmarks/results/onnx_attention.json). One product for
queries, keys and values was slower for long texts, as its parts have to be copied.

Axes: B batch, H heads, L padded length, E width of a head, F one more than that, I inputs; 1 is an axis of one.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

DOMAIN = "com.microsoft"
# What lies between a product of attention and the maps that it reads.
MOVES = ("Div", "Transpose")
MASK_OF_KEYS = "mask_of_keys"


def fuse_attention(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """A graph whose attention was written out, with one row of mask for all queries, with an operator in each layer.

    The operators that multiply with weights keep their names. `model` changes, too.
    """
    from onnx import helper, utils

    graph = _Graph(model)
    for number, softmax in enumerate(graph.all("Softmax")):
        scores, mask = sorted(graph.made_by[softmax.input[0]].input, key=lambda name: not graph.is_product(name))
        mixed = graph.read_by[softmax.output[0]]
        joined = graph.read_by[graph.read_by[mixed.output[0]].output[0]]
        query, key, value = (graph.map_above(name) for name in (*graph.made_by[scores].input, mixed.input[1]))
        if number == 0:
            graph.insert_mask_of_keys(mask, query)
        ones = graph.store(f"query_bias_{number}", _widened(query.bias, query.width, 1.0))
        for name, own, added in ((f"query_weight_{number}", query, ones), (f"key_weight_{number}", key, MASK_OF_KEYS)):
            own.product.input[1] = graph.store(name, _widened(own.weight, own.width, 0.0))
            del own.addition.input[:]
            own.addition.input.extend([own.product.output[0], added])
        operator = helper.make_node(
            "MultiHeadAttention",
            [own.addition.output[0] for own in (query, key, value)],
            [joined.output[0]],
            name=mixed.name,
            domain=DOMAIN,
            num_heads=query.heads,
            scale=1 / math.sqrt(query.width),
        )
        joined.CopyFrom(operator)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    ends = ([value.name for value in part] for part in (model.graph.input, model.graph.output))
    return utils.Extractor(model).extract_model(*ends)


@dataclasses.dataclass(frozen=True)
class _Map:
    """A linear map whose output is split into heads.

    Attributes:
        product: multiplies with the weights.
        addition: adds the bias.
        weight: (I, H × E).
        bias: (H × E).
        width: E.
    """

    product: "onnx.NodeProto"
    addition: "onnx.NodeProto"
    weight: NDArray[Any]
    bias: NDArray[Any]
    width: int

    @property
    def heads(self) -> int:
        return len(self.bias) // self.width


class _Graph:
    """A graph and who makes, reads and stores each of its tensors."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        from onnx import numpy_helper

        self._graph = model.graph
        self.made_by = {output: node for node in model.graph.node for output in node.output}
        self.read_by = {name: node for node in model.graph.node for name in node.input}
        self._stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for node in self.all("Constant"):
            self._stored[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        # The exporter gives equal weights several names.
        for node in self.all("Identity"):
            if node.input[0] in self._stored:
                self._stored[node.output[0]] = self._stored[node.input[0]]

    def all(self, operator: str) -> "list[onnx.NodeProto]":
        return [node for node in self._graph.node if node.op_type == operator]

    def is_product(self, name: str) -> bool:
        return name in self.made_by and self.made_by[name].op_type == "MatMul"

    def store(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def map_above(self, name: str) -> _Map:
        """The map whose heads a product of attention reads."""
        while (split := self.made_by[name]).op_type in MOVES:
            name = split.input[0]
        assert split.op_type == "Reshape", f"attention reads {split.op_type}"
        addition = self.made_by[split.input[0]]
        bias, product = sorted(addition.input, key=self.is_product)
        multiply = self.made_by[product]
        width = int(self._stored[split.input[1]][-1])
        return _Map(multiply, addition, self._stored[multiply.input[1]], self._stored[bias], width)

    def insert_mask_of_keys(self, mask_B11L: str, query: _Map) -> None:
        """The mask as what is added to the keys of every layer, (B, L, H × F)."""
        from onnx import helper

        ones = _widened(np.zeros((1, 1, len(query.bias)), dtype=query.bias.dtype), query.width, 1.0)
        names = self.store("mask_column_shape", np.array([0, -1, 1])), self.store("mask_component", ones)
        place = [*self._graph.node].index(self.made_by[mask_B11L]) + 1
        self._graph.node.insert(place, helper.make_node("Mul", ["mask_column", names[1]], [MASK_OF_KEYS]))
        self._graph.node.insert(place, helper.make_node("Reshape", [mask_B11L, names[0]], ["mask_column"]))


def _widened(values: NDArray[Any], width: int, last: float) -> NDArray[Any]:
    """Weights or a bias, (…, H × E), with one more component for each head: (…, H × F)."""
    split = values.reshape(*values.shape[:-1], -1, width)
    column = np.full((*split.shape[:-1], 1), last, dtype=values.dtype)
    return np.concatenate([split, column], axis=-1).reshape(*values.shape[:-1], -1)
