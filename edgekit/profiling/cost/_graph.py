"""What operators cost, whatever the format their graph was read from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekit.errors import ModelError
from edgekit.profiling.results import Cost, LayerCost
from edgekit.runtime.tflite import BITS

_BITS = BITS | {"uint4": 4, "uint2": 2, "float8": 8, "float4": 4, "complex128": 128}
# They give their input's memory another shape: engines copy nothing.
_VIEWS = frozenset(
    ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
)
# They read of their largest input no more than they write.
_PICKS = frozenset(
    (
        *("GATHER", "GATHER_ND", "SLICE", "STRIDED_SLICE", "EMBEDDING_LOOKUP"),
        *("Gather", "GatherND", "GatherElements", "Slice"),
    )
)
_MOST = 1 << 56  # far above any network, far below what JSON can hold


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor; two are the same if they are the same object.

    Attributes:
        name: as in the file.
        shape: None where the file does not tell.
        dtype: a numpy name, ``int4``, ``bfloat16`` …
        is_constant: whether its content stands in the file.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    is_constant: bool = False

    @property
    def elements(self) -> int:
        """Numbers in it; 0 where its shape is not known."""
        return 0 if self.shape is None else math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of its content; 0 where shape or dtype do not tell."""
        return (self.elements * _BITS.get(self.dtype, 0) + 7) // 8


@dataclass(frozen=True, eq=False)
class Node:
    """One operator.

    Attributes:
        name: of its first output, as in the file.
        kind: its name in the format.
        inputs: tensors it reads, weights too.
        outputs: tensors it writes.
        macs: None where they are not known.
        weights: those of the inputs that are parameters.
        note: what is to be known.
        is_in_place: whether its output may take the memory of its first input, if no other reads
            that.
        runs: how often it runs in one inference.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    macs: int | None
    weights: tuple[Tensor, ...] = ()
    note: str = ""
    is_in_place: bool = False
    runs: int = 1


def cost_of_graph(
    nodes: Sequence[Node],
    bodies: Sequence[Sequence[Node]],
    kept: Sequence[Tensor],
    size_bytes: int,
    notes: Sequence[str] = (),
) -> Cost:
    """Return what a graph costs.

    Args:
        nodes: of the main graph, in the order they run.
        bodies: of loops and branches.
        kept: inputs, outputs and states of the model, which live to its end.
        size_bytes: of the file.
        notes: what is to be known of the whole.

    Raises:
        ModelError: shapes that no machine could hold.
    """
    every = [*nodes, *(node for body in bodies for node in body)]
    layers = tuple(_layer(node) for node in every)
    weights = {id(tensor): tensor for node in every for tensor in node.weights}
    said = dict.fromkeys(f"{layer.kind}: {layer.note}" for layer in layers if layer.note)
    moved = sum(layer.read_bytes + layer.written_bytes for layer in layers)
    cost = Cost(
        parameters=sum(tensor.elements for tensor in weights.values()),
        macs=sum(layer.macs for layer in layers),
        activations_bytes=peak_bytes(nodes, kept)
        + max((peak_bytes(body, ()) for body in bodies), default=0),
        size_bytes=size_bytes,
        layers=layers,
        notes=(*notes, *said),
    )
    if max(cost.parameters, cost.macs, cost.activations_bytes, moved) > _MOST:
        raise ModelError("a model with shapes that no machine could hold; convert it again")
    return cost


def peak_bytes(nodes: Sequence[Node], kept: Sequence[Tensor]) -> int:
    """Return the most bytes of tensors that live at once, in the order of `nodes`.

    A tensor lives from the operator that writes it to the last that reads it; one that nothing
    writes, from the beginning. What an allocator adds is not in it: gaps, alignment, and memory
    that a kernel wants for itself.
    """
    shares = _shared(nodes, kept)
    sizes: dict[int, int] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, node in enumerate(nodes):
        for is_output, tensors in ((False, node.inputs), (True, node.outputs)):
            for tensor in tensors:
                root = shares.get(id(tensor), id(tensor))
                if not tensor.is_constant:
                    sizes[root] = max(sizes.get(root, 0), tensor.size_bytes)
                    first.setdefault(root, place if is_output else 0)
                    last[root] = place
    for tensor in kept:
        root = shares.get(id(tensor), id(tensor))
        if root in last and not tensor.is_constant:
            last[root] = len(nodes)
    changes = [0] * (len(nodes) + 2)
    for root, size in sizes.items():
        changes[first[root]] += size
        changes[last[root] + 1] -= size
    living = peak = 0
    for change in changes:
        living += change
        peak = max(peak, living)
    return peak


def _shared(nodes: Sequence[Node], kept: Sequence[Tensor]) -> dict[int, int]:
    """Return, by tensor, the one whose memory it takes, where that is another's."""
    shares: dict[int, int] = {}
    readers = Counter(id(tensor) for node in nodes for tensor in node.inputs)
    readers.update(id(tensor) for tensor in kept)
    for node in nodes:
        if not node.inputs or not node.outputs or node.inputs[0].is_constant:
            continue
        source = id(node.inputs[0])
        if node.kind in _VIEWS or (node.is_in_place and readers[source] == 1):
            shares[id(node.outputs[0])] = shares.get(source, source)
    return shares


def _layer(node: Node) -> LayerCost:
    output = node.outputs[0] if node.outputs else Tensor("", (), "")
    missing = output.shape is None or node.macs is None
    note = node.note or ("its shapes are not in the file" if missing else "")
    return LayerCost(
        name=node.name,
        kind=node.kind,
        shape=output.shape or (),
        dtype=output.dtype,
        macs=node.runs * (node.macs or 0),
        parameters=sum(tensor.elements for tensor in node.weights),
        read_bytes=node.runs * _read_bytes(node),
        written_bytes=0 if node.kind in _VIEWS else node.runs * _bytes(node.outputs),
        weights=node.weights[0].dtype if node.weights else "",
        note=note,
    )


def _read_bytes(node: Node) -> int:
    if node.kind in _VIEWS:
        return 0
    read = _bytes(node.inputs)
    if node.kind in _PICKS and node.inputs:
        largest = max(tensor.size_bytes for tensor in node.inputs)
        read -= max(0, largest - _bytes(node.outputs))
    return read


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.size_bytes for tensor in {id(tensor): tensor for tensor in tensors}.values())
