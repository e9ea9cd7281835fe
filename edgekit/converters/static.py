"""Source model + calibration set -> float .tflite with a range table, to be written in integers."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.feedback import Feedback
from edgekit.converters.observe import Extremes, Samples, clipped_ranges, observe
from edgekit.converters.quantize.aware.read import is_quantize_aware, trained_table
from edgekit.converters.quantize.graph import Graph
from edgekit.converters.quantize.linear import litert_kernel, weights_of
from edgekit.converters.quantize.ranges import Observer, RangeTable
from edgekit.converters.quantize.static import Prepared, prepare_static
from edgekit.converters.quantize.taps import traced_by_layers
from edgekit.converters.quantize.walk import fused_tensors
from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.converters.sources.tflite import TfliteSource
from edgekit.converters.tflite.convert import convert_graph
from edgekit.converters.tflite.flatbuffer import (
    drop_unread,
    kinds_of,
    pack,
    unpack,
    with_constants_of,
)
from edgekit.converters.tflite.graph import FloatGraph
from edgekit.converters.tflite.head import LARGEST_SHARE, wide_layers
from edgekit.converters.tflite.observe import TfliteProbe
from edgekit.converters.tflite.operators import OPERATORS
from edgekit.converters.tflite.plan import LayerPrecision
from edgekit.converters.tflite.quantize_static import Quantized, quantize_static
from edgekit.errors import ModelError
from edgekit.isolated import Progress


@dataclass(frozen=True)
class FloatTwin:
    """A float .tflite that is ready to be written in integers.

    Attributes:
        content: the file.
        names: what its activations are called, by their index: their layer's name, where known.
        table: ranges by name.
        notes: what was done to the model before, for people.
        extremes: of its activations in each calibration sample; None where nothing was observed.
        unrounded: weights and biases as they were before they were rounded and corrected, by the
            index of the constant.
        states: how many of the last inputs are the last outputs of the run before.
        wide: layers that compute an output in 16 bits where the model is int8.
    """

    content: bytes
    names: Mapping[int, str]
    table: RangeTable
    notes: tuple[str, ...] = ()
    extremes: Extremes[int] | None = None
    unrounded: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    states: int = 0
    wide: tuple[str, ...] = ()

    def reference(self) -> bytes:
        """Return the float model that integers are compared with: its weights are not rounded."""
        return with_constants_of(self.content, self.unrounded)

    def layers(self) -> list[tuple[str, int]]:
        """Return name and index of every real activation, in order of execution."""
        graph = FloatGraph(self.content, self.names)
        outputs = [index for operator in graph.operators for index in operator.outputs]
        return [(graph.label(index), index) for index in graph.activations(outputs)]

    def named_extremes(self) -> Extremes[str] | None:
        """Return the extremes by the names that the table has for the tensors."""
        seen = self.extremes
        if seen is None:
            return None
        names = tuple(self.names[index] for index in seen.tensors)
        return Extremes(names, seen.low, seen.high)

    def fed_back(self, feedback: Feedback) -> FloatTwin:
        """Return the same with one range for each state, going in and coming out."""
        graph = unpack(self.content).subgraphs[0]
        inputs, outputs = (
            [self.names[int(index)] for index in found] for found in (graph.inputs, graph.outputs)
        )
        table = feedback.over(self.table, inputs, outputs, [*self.names.values()])
        return replace(self, table=table, states=len(feedback))

    def with_table(self, table: RangeTable) -> FloatTwin:
        """Return the same with another table."""
        return replace(self, table=table)

    def quantize(
        self,
        precision: LayerPrecision,
        precisions: Mapping[str, LayerPrecision] | None = None,
    ) -> Quantized:
        """Return it in integers, but for layers of other precisions: the table's, or these."""
        tensors = self.table.tensors
        chosen = self.table.precisions if precisions is None else precisions
        return quantize_static(
            with_constants_of(self.content, self._unrounded_of(precision, chosen)),
            {index: tensors[name] for index, name in self.names.items() if name in tensors},
            names=self.names,
            precision=precision,
            precisions=chosen,
            scheme=self.table.scheme,
            states=self.states,
            wide=self.wide,
        )

    def with_outputs(self, bits: int | None) -> FloatTwin:
        """Return the same with outputs of 8 or 16 bits where it becomes int8.

        None: 16 where that costs next to nothing, but for what was trained for 8.
        """
        if bits == 8 or (bits is None and self.table.origin == "trained"):
            return self
        graph = FloatGraph(self.content, self.names)
        largest_share = LARGEST_SHARE if bits is None else 1.0
        wide = wide_layers(graph, largest_share, states=self.states)
        if not wide and bits is not None:
            raise ModelError(
                f"`output_bits` {bits}: no output of this model is made by a dense layer that "
                "nothing else reads; leave it out, or choose `precision` int16x8"
            )
        if not wide:
            return self
        note = f"outputs of 16 bits, by {', '.join(wide)} in int16; --output-bits 8 for int8"
        return replace(self, wide=wide, notes=(*self.notes, note))

    def _unrounded_of(
        self, precision: LayerPrecision, precisions: Mapping[str, LayerPrecision]
    ) -> dict[int, NDArray[np.float32]]:
        """Return what float layers had before they were corrected for int8 around them."""
        graph = FloatGraph(self.content, self.names)
        read = {
            index
            for operator in graph.operators
            if precisions.get(graph.label(operator.outputs[0]), precision) == "fp32"
            for index in operator.inputs
        }
        return {index: values for index, values in self.unrounded.items() if index in read}


def float_twin(
    source: SourceModel,
    samples: Samples | None,
    *,
    steps: Sequence[str],
    observer: Observer,
    given: RangeTable | None,
    on_progress: Progress,
    read: Samples | None = None,
) -> FloatTwin:
    """Return the source as a float .tflite with the ranges of its activations.

    Args:
        source: without loops.
        samples: starts a pass over the calibration set; None: `given` has all ranges.
        steps: of `INT8_STEPS`, for models that Keras 3 loads.
        observer: how ranges are chosen from what is observed.
        given: ranges in the place of observed ones.
        on_progress: called with (phase, done, total).
        read: the same passes as `samples`, for the steps.

    Raises:
        UsageError: `given` belongs to other steps, or ranges are missing without samples.
        DataError: `given` names what the model does not have.
    """
    steps = () if has_trained_ranges(source) else steps
    twin = _converted(source, read or samples, steps, on_progress)
    if given is not None:  # before a long pass over the set
        given.over(twin.table, twin.names.values())
    if samples is not None:
        twin = _observed(twin, samples, observer)
    if isinstance(source, FrozenGraph) and source.feedback is not None:
        twin = twin.fed_back(source.feedback)
    if given is None:
        return twin
    return twin.with_table(given.over(twin.table, twin.names.values()))


def has_trained_ranges(source: SourceModel) -> bool:
    """Whether a source comes from quantization-aware training, which brings its ranges."""
    if not isinstance(source, FrozenGraph) or source.model is None:
        return False
    return is_quantize_aware(source.model)


def _observed(twin: FloatTwin, samples: Samples, observer: Observer) -> FloatTwin:
    """Return the twin with the ranges of the samples, but for those that were trained."""
    probe = TfliteProbe(twin.content)
    extremes = observe(probe, samples)
    found = extremes.ranges()
    if observer != "minmax":
        found = clipped_ranges(probe, found, samples, observer)
    tensors = {twin.names[index]: one for index, one in found.items()}
    if twin.table.origin == "trained":
        table = twin.table.with_ranges({**tensors, **twin.table.tensors})
    else:
        table = RangeTable(origin=observer, steps=twin.table.steps, tensors=tensors)
    return replace(twin, table=table, extremes=extremes)


def _converted(
    source: SourceModel, samples: Samples | None, steps: Sequence[str], on_progress: Progress
) -> FloatTwin:
    notes: tuple[str, ...] = ()
    if has_trained_ranges(source):
        assert isinstance(source, FrozenGraph)
        graph, table = trained_table(source.model)
        on_progress("convert", 0, 0)
        trained = Prepared(graph, (f"ranges trained for {table.scheme}; no steps before int8",))
        return _tapped(source, trained, ()).with_table(table)
    if isinstance(source, FrozenGraph) and source.model is not None:
        if samples is not None or not steps:
            prepared = prepare_static(source, samples, steps, on_progress)
            if prepared.graph is not None:
                on_progress("convert", 0, 0)
                return _tapped(source, prepared, steps)
            notes = prepared.notes
    elif steps:
        notes = (f"{', '.join(steps)}: only for models that Keras 3 loads, not done here",)
    on_progress("convert", 0, 0)
    assert isinstance(source, FrozenGraph | TfliteSource)
    content = source.content if isinstance(source, TfliteSource) else convert_graph(source)
    graph = unpack(content).subgraphs[0]
    names = {index: tensor.name.decode() for index, tensor in enumerate(graph.tensors)}
    return FloatTwin(content, names, RangeTable(origin="minmax", tensors={}), notes)


def _tapped(source: FrozenGraph, prepared: Prepared, steps: Sequence[str]) -> FloatTwin:
    """Convert a prepared graph such that the tensors of its layers can be told in the file.

    They are outputs of the model while TensorFlow converts it, and no more after that.
    """
    graph = prepared.graph
    assert graph is not None
    frozen, labels = traced_by_layers(source, graph)
    names = graph.names()
    gc.collect()  # traces refer to themselves; without this the peak of memory is a tenth higher
    file = unpack(convert_graph(frozen))
    main = file.subgraphs[0]
    found = dict(zip(map(int, main.inputs), (names[id(t)] for t in graph.inputs), strict=True))
    for index, label in zip(map(int, main.outputs), labels, strict=True):
        found.setdefault(index, label)
    main.outputs = np.array(main.outputs[: len(graph.outputs)], np.int32)
    kinds = {id(op): kind for op, kind in zip(main.operators, kinds_of(file), strict=True)}
    for operator in drop_unread(main):
        # What it moved is what its layer computed: the reshape behind a convolution of rank 1.
        rule, output = OPERATORS.get(kinds[id(operator)]), int(operator.outputs[0])
        if rule is not None and rule.output == "input" and output in found:
            found.setdefault(int(operator.inputs[0]), found.pop(output))
    taken = set(found.values())
    for index, tensor in enumerate(main.tensors):
        text = tensor.name.decode()
        if index in found and index not in main.outputs and index not in main.inputs:
            tensor.name = found[index]
        elif index not in found:
            found[index] = text if text not in taken else f"{text}#{index}"
    table = RangeTable(origin="minmax", steps=tuple(steps), tensors={})
    content = pack(file)
    unrounded = _unrounded(FloatGraph(content, found), graph, prepared.weights)
    return FloatTwin(content, found, table, prepared.notes, unrounded=unrounded)


def _unrounded(
    file: FloatGraph,
    graph: Graph,
    weights: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
) -> dict[int, NDArray[np.float32]]:
    """Return what to put in the place of the file's constants to have the weights unrounded."""
    names, fused, users = graph.names(), fused_tensors(graph), graph.users()
    layers = {}
    for step in graph.steps:
        if step.layer.name in weights:
            (output,) = step.outputs
            (reader,) = users[id(output)] if id(output) in fused else [None]
            layers[names[id(output if reader is None else reader.outputs[0])]] = step.layer
    found = {}
    for operator, kind in zip(file.operators, file.kinds, strict=True):
        rule = OPERATORS.get(kind)
        layer = layers.get(file.label(operator.outputs[0]))
        if rule is None or rule.weights is None or rule.bias is None or layer is None:
            continue
        now, before = weights_of(layer), weights[layer.name]
        kernels = [litert_kernel(layer, kernel) for kernel in (now[0], before[0])]
        places = (rule.weights, rule.bias)
        for place, is_now, was in zip(
            places, (kernels[0], now[1]), (kernels[1], before[1]), strict=True
        ):
            index = operator.inputs[place] if place < len(operator.inputs) else -1
            stored = file.constants.get(index)
            if stored is None or stored.size != is_now.size:
                continue
            if np.allclose(stored.reshape(is_now.shape), is_now, rtol=1e-4, atol=1e-6):
                found[index] = was.reshape(stored.shape).astype(np.float32)
    return found
