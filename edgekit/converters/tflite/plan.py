"""Which operators become integers, and over which range each activation's grid lies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from edgekit.bundle import Fallback
from edgekit.converters.quantize.ranges import Range
from edgekit.converters.tflite.graph import FloatGraph, extent
from edgekit.converters.tflite.operators import OPERATORS, Operator

LayerPrecision = Literal["int8", "int16x8", "fp32"]
_WIDER = 2.0


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    Attributes:
        precisions: of each operator; None: it touches no real numbers.
        ranges: of every activation that becomes integers, by index.
        imposed: ranges that tensors take over from the one operator that reads them.
        fallbacks: operators that are not in the model's precision, and why.
    """

    precisions: list[LayerPrecision | None]
    ranges: dict[int, Range]
    imposed: dict[int, Range]
    fallbacks: list[Fallback]


def plan_of(
    graph: FloatGraph,
    ranges: Mapping[int, Range],
    precision: LayerPrecision,
    precisions: Mapping[str, LayerPrecision],
    wide: Collection[str] = (),
) -> Plan:
    """Return the plan for a float model.

    Args:
        graph: the model.
        ranges: of its activations, by index.
        precision: of every operator that `precisions` does not name.
        precisions: by the name of the operator's output.
        wide: names of those that are int16x8 by design, and no fallbacks.
    """
    plan = Plan([], dict(ranges), {}, [])
    _spread_back(graph, plan)
    for operator, kind in zip(graph.operators, graph.kinds, strict=True):
        if not graph.activations([*operator.inputs, *operator.outputs]):
            plan.precisions.append(None)
            continue
        name = graph.label(operator.outputs[0])
        wanted = precisions.get(name, precision)
        reason = None if wanted == "fp32" else _obstacle(graph, plan, operator, kind, wanted)
        if reason is not None:
            wanted, reason = "fp32", f"{reason}, so it runs in float"
        elif wanted != precision and not (wanted == "int16x8" and name in wide):
            reason = f"{wanted}, as it was asked to be"
        if reason is not None:
            plan.fallbacks.append(Fallback(what=f"{kind} {name}", reason=reason))
        plan.precisions.append(wanted)
        _follow(graph, plan, operator, kind)
    _impose(graph, plan)
    return plan


def _spread_back(graph: FloatGraph, plan: Plan) -> None:
    """Give tensors without a range that of what only moves their values.

    A trained table knows layers, and the converter makes some of several operators: a convolution
    of rank 3 is one of rank 4 between two RESHAPE, whose tensors no table can name.
    """
    for operator, kind in zip(reversed(graph.operators), reversed(graph.kinds), strict=True):
        rule = OPERATORS.get(kind)
        found = plan.ranges.get(operator.outputs[0])
        if rule is not None and rule.output == "input" and found is not None:
            for index in graph.activations(operator.inputs):
                plan.ranges.setdefault(index, found)


def _obstacle(
    graph: FloatGraph, plan: Plan, operator: Any, kind: str, wanted: LayerPrecision
) -> str | None:
    """Return why an operator cannot become integers, or None."""
    rule = OPERATORS.get(kind)
    if rule is None:
        return "LiteRT has no integer kernel for it that is known to work"
    if wanted == "int16x8" and not rule.has_int16:
        return "LiteRT has no kernel for it with int16 activations"
    if any(index not in graph.constants for index in parameters_of(rule, operator)):
        return "its weights are computed or sparse, not plain constants"
    needed = graph.activations(operator.inputs)
    if rule.output == "own":
        needed = needed + graph.activations(operator.outputs)
    missing = [graph.label(index) for index in needed if index not in plan.ranges]
    if missing:
        return f"the range table has no range for {', '.join(missing)}"
    return None


def _follow(graph: FloatGraph, plan: Plan, operator: Any, kind: str) -> None:
    """Give outputs the range that their operator gives them, where it is not one of their own."""
    rule = OPERATORS.get(kind)
    if rule is None or rule.output == "own":
        return
    outputs = graph.activations(operator.outputs)
    if rule.output == "fixed":
        low = -rule.scales[0] * (128 + rule.zero_point)
        found = Range(low, low + 255 * rule.scales[0])
    else:
        computed = graph.activations(operator.inputs)
        given = [plan.ranges[index] for index in computed if index in plan.ranges]
        given += [extent(graph.constants[i]) for i in operator.inputs if i in graph.constants]
        own = [plan.ranges[index] for index in outputs if index in plan.ranges]
        if not given:
            return
        # Several inputs: what was found for the whole, which a table may have made narrower.
        found = own[0] if own and len(given) > 1 else reduce(Range.union, given)
    plan.ranges.update(dict.fromkeys(outputs, found))


def _impose(graph: FloatGraph, plan: Plan) -> None:
    """Let tensors take over the grid of what they go into, such as a Concatenation.

    What nothing else reads is then rounded once. What others read too takes it over if its step
    becomes little larger: that costs less than the second rounding, and an operator less.
    """
    made_in = {
        index: precision
        for operator, precision in zip(graph.operators, plan.precisions, strict=True)
        for index in operator.outputs
    }
    for place in reversed(range(len(graph.operators))):
        operator, rule = graph.operators[place], OPERATORS.get(graph.kinds[place])
        precision = plan.precisions[place]
        if precision in (None, "fp32") or rule is None or rule.output != "input":
            continue
        outputs = graph.activations(operator.outputs)
        wanted = {plan.imposed.get(index) for index in outputs}
        found = wanted.pop() if len(wanted) == 1 else None
        joins = shares_grid(graph, operator)
        if found is None and joins:
            found = plan.ranges[outputs[0]]
        if found is None:
            continue
        for index in graph.activations(operator.inputs):
            own = plan.ranges.get(index)
            if own is None or made_in.get(index) != precision or index in plan.imposed:
                continue
            # An average of clipped values is not the clipped average.
            is_whole = found.union(own) == found
            is_alone = graph.uses[index] == 1 and (joins or is_whole)
            if is_alone or (is_whole and found.width <= _WIDER * own.width):
                plan.imposed[index] = found


def shares_grid(graph: FloatGraph, operator: Any) -> bool:
    """Whether an operator brings several tensors, or a constant, to one grid."""
    return len([index for index in operator.inputs if index in graph.real]) > 1


def parameters_of(rule: Operator, operator: Any) -> list[int]:
    """Return the indices of an operator's weights and bias, as far as it has them."""
    places = [place for place in (rule.weights, rule.bias) if place is not None]
    found = [operator.inputs[place] for place in places if place < len(operator.inputs)]
    return [index for index in found if index >= 0]
