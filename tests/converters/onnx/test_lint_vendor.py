"""The linter against a real parser and builder: TensorRT-RTX, which needs no GPU for that."""

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")

import onnx
from lint_cases import CASES
from onnx_graphs import GraphWriter
from vendor import tensorrt_rtx

from edgekit.converters.onnx.lint import lint
from edgekit.converters.onnx.lint.operators import ONLY_ON_RTX, SUPPORTED
from edgekit.converters.onnx.qdq import insert_qdq
from edgekit.converters.quantize.ranges import Range

pytestmark = pytest.mark.vendor

INT8_KERNELS = {"correlation", "gemm"}  # convolution and matrix product, as the engine calls them
RUNS_IN_FLOAT = {"one-sided", "float-island", "weight-axis", "per-channel-activation"}


def products(model):
    """Return the nodes that the engine can do in int8."""
    return [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]


def int8_nodes(verdict):
    """Return the nodes that read int8 inputs and int8 weights in the engine."""
    return {
        node
        for layer in verdict.layers
        for node in layer.nodes
        if layer.kind in INT8_KERNELS and "Int8" in set(layer.inputs) & set(layer.constants)
    }


def has_pairs(model):
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


QUANTIZED = [
    case
    for case in CASES
    if has_pairs(case.model)
    and products(case.model)
    and not any(severity == "refused" for severity, _ in case.found)
]


@pytest.fixture(scope="module")
def rtx():
    return tensorrt_rtx()


@pytest.fixture(scope="module")
def verdicts(rtx, tmp_path_factory):
    """Return what became of each case, by name."""
    folder = tmp_path_factory.mktemp("models")
    files = [folder / f"{case.name}.onnx" for case in CASES]
    for case, file in zip(CASES, files, strict=True):
        file.write_bytes(case.model.SerializeToString())
    return dict(zip((case.name for case in CASES), rtx.verdicts(files), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_is_what_parser_and_builder_refuse(case, verdicts):
    findings = [finding for finding in lint(case.model) if finding.severity == "refused"]
    verdict = verdicts[case.name]
    assert bool(findings) == (verdict.refused_by is not None), (findings, verdict.messages)


@pytest.mark.parametrize("case", QUANTIZED, ids=lambda case: case.name)
def test_int8_is_where_no_finding_says_float(case, verdicts):
    """Each convolution and matrix product between Q/DQ reads int8, but for those that are named."""
    in_float = {node.name for node in products(case.model)} - int8_nodes(verdicts[case.name])
    findings = [finding for finding in lint(case.model) if finding.rule in RUNS_IN_FLOAT]
    if any(finding.rule == "per-channel-activation" for finding in findings):
        assert in_float  # the finding names the Q, not what reads it
    else:
        assert in_float == {finding.node for finding in findings}


def network():
    """Return a float network with all that Q/DQ are placed for, and its weighted layers."""
    graph = GraphWriter()
    x = graph.op("Relu", graph.conv(graph.input((1, 3, 16, 16)), inputs=3, is_int8=False))
    x = graph.op("Add", graph.conv(x, is_int8=False), x)
    small = graph.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    small = graph.op("HardSwish", graph.conv(small, is_int8=False, groups=8))
    large = graph.op("ConvTranspose", small, graph.weights(8, 8, 2, 2), strides=[2, 2])
    x = graph.conv(graph.op("Concat", x, large, axis=1), inputs=16, is_int8=False)
    x = graph.op("Flatten", graph.op("GlobalAveragePool", x))
    x = graph.op("Gemm", x, graph.weights(4, 8), graph.weights(4), transB=1)
    model = onnx.shape_inference.infer_shapes(graph.model(graph.op("Softmax", x)))
    return model, {node.name for node in products(model)}


def test_the_qdq_that_we_write_passes_clean_and_becomes_int8(rtx, tmp_path):
    model, layers = network()
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    ranges = {name: Range(-1.0 - len(name) / 10, 2.0) for name in names}
    quantized = insert_qdq(model, ranges).model
    assert lint(quantized) == ()
    (tmp_path / "m.onnx").write_bytes(quantized.SerializeToString())
    (verdict,) = rtx.verdicts([tmp_path / "m.onnx"], tmp_path)
    assert verdict.refused_by is None, verdict.messages
    assert (tmp_path / "m.engine").stat().st_size > 0
    assert layers <= int8_nodes(verdict)


def test_a_transposed_convolution_runs_in_float_on_rtx(verdicts):
    """Per tensor too: TensorRT-RTX has no int8 kernel for it, as docs/tensorrt-rules.md says."""
    for name in ("per_tensor", "per_input", "per_output"):
        layers = verdicts[f"deconvolution_{name}"].layers
        (layer,) = [layer for layer in layers if layer.kind == "deconv"]
        assert set(layer.inputs) == {"Float"}


def test_scales_around_a_concat_that_differ_cost_a_rounding_each(verdicts):
    def roundings(name):
        joining = [v for v in verdicts[name].layers if any("Concat" in node for node in v.nodes)]
        return sum(layer.tactic.count("Roun") for layer in joining)

    assert roundings("concat") == roundings("concat_without_q") == 2  # one for each branch
    assert roundings("concat_of_two_scales") == 3
    assert roundings("concat_to_another_scale") > 3


def test_the_operators_are_those_that_the_parser_knows(rtx):
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    told = rtx.supports(sorted(known | SUPPORTED | ONLY_ON_RTX))
    assert {name for name, is_known in told.items() if is_known} == (
        (SUPPORTED - {"DeformConv"}) | ONLY_ON_RTX
    )


def test_external_data_in_the_folder_builds_and_elsewhere_does_not(rtx, tmp_path):
    model = next(case.model for case in CASES if case.name == "float_model")
    for folder in ("whole", "torn"):
        (tmp_path / folder).mkdir()
        stored = onnx.ModelProto.FromString(model.SerializeToString())
        onnx.save(
            stored,
            tmp_path / folder / "m.onnx",
            save_as_external_data=True,
            location="m.data",
            size_threshold=0,
        )
    (tmp_path / "torn" / "m.data").unlink()
    files = [tmp_path / folder / "m.onnx" for folder in ("whole", "torn")]
    whole, torn = rtx.verdicts(files)
    assert (whole.refused_by, torn.refused_by) == (None, "parse")
    for file, is_refused in zip(files, (False, True), strict=True):
        found = lint(onnx.load(file, load_external_data=False), file.parent)
        assert bool(found) == is_refused
        assert {(f.severity, f.rule) for f in found} <= {("refused", "external-data")}
