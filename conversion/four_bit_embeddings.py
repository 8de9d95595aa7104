"""Word embeddings in 4 bits: signed numbers in blocks of a row, each block with a scale in fp16.

A block's scale takes its largest number to -8, so a number takes 4.25 bits. Only rows that are read are widened.
OpenVINO's table is made by NNCF, in blocks of the same size where 64 divides the width.

Axes: V vocabulary, D width, K blocks of a row, S numbers of a block.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx
    import openvino

BLOCK = 64


def tokens_gather(model: "onnx.ModelProto") -> "onnx.NodeProto":
    """The Gather of a graph that reads the rows of input_ids."""
    return next(node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "input_ids")


def pack_onnx_table(model: "onnx.ModelProto") -> None:
    """Replace the Gather of a graph's word embeddings, a table in fp32 of an even width, by ONNX Runtime's operator."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    gather = tokens_gather(model)
    stored = next(tensor for tensor in graph.initializer if tensor.name == gather.input[0])
    table_VD = numpy_helper.to_array(stored)
    rows, width = table_VD.shape
    blocks = -(-width // BLOCK)
    blocks_VKS = np.zeros((rows, blocks * BLOCK), np.float32)
    blocks_VKS[:, :width] = table_VD
    blocks_VKS = blocks_VKS.reshape(rows, blocks, BLOCK)
    largest_VK1 = np.take_along_axis(blocks_VKS, np.abs(blocks_VKS).argmax(axis=-1)[..., None], axis=-1)
    scales_VK1 = (largest_VK1 / -8).astype(np.float16)
    # Of a block of zeros, or of numbers that are too small for fp16.
    scales_VK1[scales_VK1 == 0] = 1
    steps_VKS = np.clip(np.rint(blocks_VKS / scales_VK1.astype(np.float32)), -8, 7)
    # Two in a byte, the first one in its lower half; the operator takes 8 for zero.
    nibbles_VD = (steps_VKS + 8).astype(np.uint8).reshape(rows, -1)[:, :width]
    bytes_VD = nibbles_VD[:, ::2] | nibbles_VD[:, 1::2] << 4

    scales, narrow = f"{stored.name}_scales", f"{gather.output[0]}_fp16"
    packed = [
        helper.make_node(
            "GatherBlockQuantized", [stored.name, gather.input[1], scales], [narrow], name=gather.name,
            domain="com.microsoft", gather_axis=0, quantize_axis=1, block_size=BLOCK, bits=4,
        ),
        helper.make_node("Cast", [narrow], list(gather.output), name=f"{gather.name}_Cast", to=TensorProto.FLOAT),
    ]  # fmt: skip
    place = list(graph.node).index(gather)
    nodes = [*graph.node[:place], *packed, *graph.node[place + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    stored.CopyFrom(numpy_helper.from_array(bytes_VD, stored.name))
    graph.initializer.append(numpy_helper.from_array(scales_VK1[..., 0], scales))
    if "com.microsoft" not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def openvino_gather(graph: "openvino.Model") -> "openvino.Node":
    """The Gather of a graph that reads the rows of input_ids."""

    def read(node: "openvino.Node") -> "openvino.Node":
        return node.input_value(0).get_node() if node.get_type_name() == "Convert" else node

    ids = next(parameter for parameter in graph.get_parameters() if "input_ids" in parameter.output(0).names)
    gathers = (node for node in graph.get_ops() if node.get_type_name() == "Gather")
    return next(node for node in gathers if read(node.input_value(1).get_node()) == ids)


def pack_openvino_table(graph: "openvino.Model") -> "openvino.Model":
    """The graph with its table of word embeddings, in fp32, in 4 bits; nothing else of it changes."""
    import nncf

    gather = openvino_gather(graph)
    width = gather.get_output_partial_shape(0)[-1].get_length()
    others = [
        node.get_friendly_name()
        for node in graph.get_ops()
        if node.get_type_name() in ("Gather", "MatMul") and node.get_friendly_name() != gather.get_friendly_name()
    ]
    packed: openvino.Model = nncf.compress_weights(
        graph,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=max(size for size in range(1, BLOCK + 1) if width % size == 0),
        # Embeddings are left in 8 bits otherwise.
        all_layers=True,
        ignored_scope=nncf.IgnoredScope(names=others),
    )
    return packed
