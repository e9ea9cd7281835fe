"""Which operator of the graph a kernel of an engine is, and what follows from that.

Engines fuse, split and drop operators, and few keep their names. Names count where an engine keeps
them. What is left is laid side by side in order, as many pairs of a kind (and of a shape, where
the engine tells it) as there can be; a pair counts only if it is the same whether the pairs
are made from the front or from the back. So nothing is guessed: where two answers are possible
there is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from edgekit.profiling.operators._timing import Kernel
from edgekit.profiling.results import LayerCost, Operator, Roofline
from edgekit.profiling.roofline import least_ms

# What a graph's operator is, where it is not its own name in lower case without separators.
_FAMILY = {
    "conv2d": "conv",
    "depthwiseconv2d": "depthwise",
    "transposeconv": "deconv",
    "convtranspose": "deconv",
    "fullyconnected": "dense",
    "gemm": "dense",
    "matmul": "dense",
    "batchmatmul": "dense",
    "maxpool2d": "maxpool",
    "averagepool2d": "avgpool",
    "averagepool": "avgpool",
    "globalaveragepool": "mean",
    "reducemean": "mean",
    "logistic": "sigmoid",
    "concatenation": "concat",
    "relu": "clamp",
    "relu6": "clamp",
    "relun1to1": "clamp",
    "clip": "clamp",
    "resizebilinear": "resize",
    "resizenearestneighbor": "resize",
    "padv2": "pad",
    "mirrorpad": "pad",
    "stridedslice": "slice",
    "quantize": "convert",
    "dequantize": "convert",
    "cast": "convert",
}
# What a kernel may be, where it is not what an operator of that name is.
_FAMILIES = {
    "convolution": {"conv", "depthwise"},
    "convolutiondw": {"depthwise"},
    "groupconvolution": {"conv", "depthwise"},
    "deconvolution": {"deconv"},
    "convolutionbackpropdata": {"deconv"},
    "fullyconnected": {"dense", "conv"},  # XNNPACK runs 1x1 convolutions so
    "dynamicfullyconnected": {"dense"},
    "batchmatrixmultiply": {"dense"},
    "maxpooling": {"maxpool"},
    "averagepooling": {"avgpool", "mean"},
    "avgpool": {"avgpool", "mean"},
    "globalaveragepooling": {"mean"},
    "constantpad": {"pad"},
    "staticreshape": {"reshape"},
    "staticexpanddims": {"expanddims"},
    "copy": {"concat"},
    "subtract": {"sub"},
    "multiply": {"mul"},
    "divide": {"div"},
    "negate": {"neg"},
    "squareroot": {"sqrt"},
    "reciprocalsquareroot": {"rsqrt"},
    "interpolate": {"resize"},
}
_PREFIXES = ("nhwc", "fused", "qlinear")
_UNTOLD = ("", "subgraph")  # kinds of kernels that say nothing of what they compute


def join(
    kernels: Sequence[Kernel], layers: Sequence[LayerCost], roofline: Roofline | None
) -> tuple[Operator, ...]:
    """Return the kernels as operators, with what the graph and the roofline say of them.

    Args:
        kernels: in the order they ran.
        layers: the graph's operators, in its order.
        roofline: None leaves out what bounds them.
    """
    total_ms = sum(kernel.ms for kernel in kernels)
    found = match(kernels, layers)
    return tuple(
        _operator(kernel, total_ms, None if index is None else layers[index], roofline)
        for kernel, index in zip(kernels, found, strict=True)
    )


def match(kernels: Sequence[Kernel], layers: Sequence[LayerCost]) -> list[int | None]:
    """Return the index of each kernel's operator in `layers`, None where it cannot be told."""
    by_name = {layer.name: index for index, layer in enumerate(layers)}
    found = [_named(kernel, by_name, layers) for kernel in kernels]
    taken = set(found)
    rest = [place for place, index in enumerate(found) if index is None]
    free = [index for index in range(len(layers)) if index not in taken]
    open_kernels = [kernels[place] for place in rest]
    open_layers = [layers[index] for index in free]
    pairs = _aligned(open_kernels, open_layers)
    backwards = _aligned(open_kernels[::-1], open_layers[::-1])
    last = len(open_kernels) - 1, len(open_layers) - 1
    for one, other in pairs & {(last[0] - i, last[1] - j) for i, j in backwards}:
        found[rest[one]] = free[other]
    return found


def _named(kernel: Kernel, by_name: dict[str, int], layers: Sequence[LayerCost]) -> int | None:
    """Return the operator with most arithmetic of those that the engine says it was made of.

    It must be of the kernel's kind: a fused convolution may have the name of its activation.
    """
    fused = [by_name[name] for name in kernel.layers if name in by_name]
    if _plain(kernel.kind) not in _UNTOLD:
        families = _families(kernel)
        fused = [index for index in fused if _family(layers[index].kind) in families]
    return max(fused, key=lambda index: layers[index].macs, default=None)


def _aligned(kernels: Sequence[Kernel], layers: Sequence[LayerCost]) -> set[tuple[int, int]]:
    """Return most pairs (kernel, layer) in order; of several such choices that with the earliest.

    The longest common subsequence of both, by the table of how many pairs their tails can have.
    """
    wanted = [(_families(kernel), _sizes(kernel.shape)) for kernel in kernels]
    given = [(_family(layer.kind), _sizes(layer.shape)) for layer in layers]

    def fits(i: int, j: int) -> bool:
        (families, sizes), (family, layer_sizes) = wanted[i], given[j]
        return family in families and (sizes is None or sizes == layer_sizes)

    most = [[0] * (len(layers) + 1) for _ in range(len(kernels) + 1)]
    for i in reversed(range(len(kernels))):
        for j in reversed(range(len(layers))):
            pair = 1 + most[i + 1][j + 1] if fits(i, j) else 0
            most[i][j] = max(most[i + 1][j], most[i][j + 1], pair)
    pairs = set()
    i = j = 0
    while i < len(kernels) and j < len(layers):
        if fits(i, j) and most[i][j] == 1 + most[i + 1][j + 1]:
            pairs.add((i, j))
            i, j = i + 1, j + 1
        elif most[i][j] == most[i][j + 1]:
            j += 1
        else:
            i += 1
    return pairs


def _sizes(shape: tuple[int, ...] | None) -> list[int] | None:
    """Return a shape without its order: engines keep channels first or last as they like."""
    return None if shape is None else sorted(shape)


def _families(kernel: Kernel) -> set[str]:
    plain = _plain(kernel.kind)
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    return _FAMILIES.get(plain) or {_FAMILY.get(plain, plain)}


def _family(kind: str) -> str:
    plain = _plain(kind)
    return _FAMILY.get(plain, plain)


def _plain(kind: str) -> str:
    return re.sub(r"[^a-z0-9]", "", kind.lower())


def _operator(
    kernel: Kernel, total_ms: float, layer: LayerCost | None, roofline: Roofline | None
) -> Operator:
    operator = Operator(
        name=kernel.name,
        kind=kernel.kind,
        ms=kernel.ms,
        share=kernel.ms / total_ms if total_ms else 0.0,
        shape=kernel.shape,
        dtype=kernel.dtype,
    )
    if layer is None:
        return operator
    moved = layer.read_bytes + layer.written_bytes
    operator = msgspec.structs.replace(
        operator,
        kind=layer.kind,
        layer=layer.name,
        shape=kernel.shape or layer.shape,
        dtype=kernel.dtype or layer.dtype,
        macs=layer.macs,
        bytes=moved,
        gflops=2e-6 * layer.macs / kernel.ms if layer.macs and kernel.ms else None,
    )
    if roofline is None or not kernel.ms:
        return operator
    least, bound = least_ms(roofline, layer.macs, moved)
    return msgspec.structs.replace(operator, bound=bound, roofline_share=least / kernel.ms)
