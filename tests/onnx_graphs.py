"""Small ONNX graphs, written node by node, for tests of what reads or judges them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 8, 16, 16)
TYPE = helper.np_dtype_to_tensor_dtype


class GraphWriter:
    """Writes a graph: each method adds nodes and returns the name of the tensor they make.

    Weights are seeded. `real` is the float type of weights, scales and inputs.
    """

    def __init__(self, opset=17, real=np.float32):
        self.opset, self.real = opset, np.dtype(real)
        self.nodes, self.stored, self.given = [], [], []
        self._random = np.random.default_rng(0)
        self._names = 0

    def name(self, base):
        self._names += 1
        return f"{base}_{self._names}"

    def input(self, shape=SHAPE, name="x", dtype=None):
        kind = TYPE(self.real) if dtype is None else dtype
        self.given.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, values, name=None):
        name = name or self.name("stored")
        self.stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weights(self, *shape):
        return self.constant(self._random.normal(0, 0.1, shape).astype(self.real))

    def op(self, operator, *inputs, outputs=1, name=None, domain="", **attributes):
        name = name or self.name(operator)
        made = [f"{name}_out{index or ''}" for index in range(outputs)]
        node = helper.make_node(operator, inputs, made, name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return made[0] if outputs == 1 else made

    def _grid(self, scale, zero, dtype):
        scale = np.asarray(scale, self.real)
        names = [self.constant(scale)]
        if zero is not None:
            names.append(self.constant(np.full(scale.shape, zero, dtype)))
        return names

    def q(self, x, scale=0.05, zero=0, dtype=np.int8, **attributes):
        return self.op("QuantizeLinear", x, *self._grid(scale, zero, dtype), **attributes)

    def dq(self, x, scale=0.05, zero=0, dtype=np.int8, **attributes):
        return self.op("DequantizeLinear", x, *self._grid(scale, zero, dtype), **attributes)

    def qdq(self, x, scale=0.05, zero=0, dtype=np.int8, **attributes):
        grid = self._grid(scale, zero, dtype)
        quantized = self.op("QuantizeLinear", x, *grid, **attributes)
        return self.op("DequantizeLinear", quantized, *grid, **attributes)

    def int8_weights(self, *shape, axis=0):
        """Stored int8 weights and their DQ; `axis` None: one scale."""
        values = self.constant(self._random.integers(-127, 128, shape).astype(np.int8))
        if axis is None:
            return self.dq(values, 0.01)
        return self.dq(values, self._random.uniform(0.005, 0.01, shape[axis]), axis=axis)

    def conv(self, x, outputs=8, inputs=8, axis=0, is_int8=True, name=None, groups=1):
        """A padded 3x3 convolution; `axis` is that of the weights' scales."""
        shape = (outputs, inputs // groups, 3, 3)
        weights = self.int8_weights(*shape, axis=axis) if is_int8 else self.weights(*shape)
        bias = self.weights(outputs)
        return self.op("Conv", x, weights, bias, pads=[1] * 4, group=groups, name=name)

    def model(self, *outputs, dtype=None):
        kind = TYPE(self.real) if dtype is None else dtype
        made = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.given, made, self.stored)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def body(nodes, inputs, outputs, stored=()):
    """Return the graph of a branch or loop; `inputs` and `outputs`: (name, type, shape)."""
    given = [helper.make_tensor_value_info(*value) for value in inputs]
    made = [helper.make_tensor_value_info(*value) for value in outputs]
    return helper.make_graph(nodes, "body", given, made, stored)


def loop(graph, nodes, stored=()):
    """Add a Loop that applies `nodes` (from `v` to `v2`) to an input of 4 values three times."""
    flags = [("i", TensorProto.INT64, []), ("c", TensorProto.BOOL, [])]
    nodes = [*nodes, helper.make_node("Identity", ["c"], ["c2"], name="goes on")]
    made = [("c2", TensorProto.BOOL, []), ("v2", TensorProto.FLOAT, [4])]
    inner = body(nodes, [*flags, ("v", TensorProto.FLOAT, [4])], made, stored)
    count, flag = graph.constant(np.int64(3)), graph.constant(np.array(True))
    return graph.op("Loop", count, flag, graph.input((4,)), body=inner)
