"""What the linter says, and what it does with models that nobody would write on purpose."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from lint_cases import CASES
from onnx import TensorProto, helper
from onnx_graphs import GraphWriter

from edgekit.converters.onnx.lint import is_clean, lint, scope
from edgekit.errors import ModelError

RULES = Path(__file__).parents[3] / "docs" / "tensorrt-rules.md"


def model_of(name):
    return next(case.model for case in CASES if case.name == name)


def told(model, folder=None):
    return [(finding.severity, finding.rule, finding.node) for finding in lint(model, folder)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_gets_its_findings_and_no_other(case):
    findings = lint(case.model)
    assert {(finding.severity, finding.rule) for finding in findings} == case.found
    assert is_clean(findings) == all(severity == "note" for severity, _ in case.found)
    for finding in findings:
        assert finding.node and finding.message and finding.remedy
        assert "\n" not in finding.message + finding.remedy


def test_every_rule_is_tried_and_documented():
    tried = {rule for case in CASES for _, rule in case.found}
    documented = set(re.findall(r"^\| `([a-z0-9-]+)`", RULES.read_text("utf-8"), re.M))
    elsewhere = {"external-data", "no-output", "plugin", "not-everywhere"}  # below
    assert documented == tried | elsewhere


@pytest.mark.parametrize(
    ("name", "node", "words"),
    [
        ("zero_point", "QuantizeLinear_3", "zero point 3"),
        ("int32_bias", "DequantizeLinear_3", "the bias of Conv_12"),
        ("negative_scale_of_one_channel", "DequantizeLinear_4", "scale -0.01"),
        ("residual_with_a_float_skip", "Add_18", "from Sigmoid_11"),
        ("concat_of_two_scales", "Concat_25", "0.02, 0.05"),
        ("conv_along_its_inputs", "Conv_10", "along axis 1; along any but 0"),
        ("float_island", "island", "Conv in float between int8 layers"),
        ("open_batch", "x", "open shape Nx8x16x16"),
        ("relu_without_q", None, "comes in float from Relu"),
        ("unknown_operator", "Det_1", "no operator Det"),
        ("contrib_operator", "FusedConv_1", "no operator com.microsoft.FusedConv"),
    ],
)
def test_a_finding_names_the_node_and_what_is_wrong(name, node, words):
    finding = lint(model_of(name))[0]
    assert words in finding.message
    assert node is None or finding.node == node


def test_a_node_without_a_name_is_told_by_its_output():
    graph = GraphWriter()
    model = graph.model(graph.op("Det", graph.input((1, 4, 4))))
    model.graph.node[0].name = ""
    assert [finding.node for finding in lint(model)] == ["Det -> Det_1_out"]


def test_the_gravest_comes_first_and_a_pair_is_told_once():
    graph = GraphWriter()
    x = graph.qdq(graph.input((None, 8, 16, 16)), zero=3)
    model = graph.model(graph.conv(x, axis=1))
    assert told(model) == [
        ("refused", "dynamic-shape", "x"),
        ("refused", "zero-point", "QuantizeLinear_3"),
        ("not fused", "weight-axis", "Conv_10"),
    ]


def test_what_only_some_tensorrt_has_is_a_note():
    graph = GraphWriter()
    boxes, scores = graph.input((1, 10, 4)), graph.input((1, 2, 10), "scores")
    for operator in ("NonMaxSuppression", "EfficientNMS_TRT"):
        made = graph.op(operator, boxes, scores)
    assert [rule for _, rule, _ in told(graph.model(made))] == ["not-everywhere", "plugin"]


def test_operators_in_functions_are_seen_and_functions_are_operators():
    graph = GraphWriter()
    model = graph.model(graph.op("Own", graph.input((1, 4, 4)), domain="own"))
    opsets = [helper.make_opsetid("", 17)]
    inside = helper.make_node("Det", ["a"], ["b"], name="inside")
    model.functions.append(helper.make_function("own", "Own", ["a"], ["b"], [inside], opsets))
    assert told(model) == [("refused", "operator", "inside")]


def test_a_model_without_outputs_or_nodes():
    graph = GraphWriter()
    graph.op("Relu", graph.input())
    assert told(graph.model()) == [("refused", "no-output", "model")]
    assert ("refused", "no-output", "model") in told(onnx.ModelProto())


def stored_outside(location, **more):
    """Return a model whose only weights are said to be in the file `location`."""
    graph = GraphWriter()
    model = graph.model(graph.op("Mul", graph.input((4,)), graph.constant(np.ones(4, np.float32))))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return model


@pytest.fixture
def folder(tmp_path):
    """A folder with weights, links out of it and a secret beside it."""
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    for file in (inside / "w.data", inside / "deep" / "w.data", tmp_path / "secret"):
        file.write_bytes(np.ones(4, np.float32).tobytes())
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "linked").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside / "loop")
    return inside


@pytest.mark.parametrize("location", ["w.data", "deep/w.data", "./w.data"])
def test_external_data_in_the_folder_is_fine(folder, location):
    assert told(stored_outside(location), folder) == []


@pytest.mark.parametrize(
    "location",
    ["", "gone", "../secret", "deep/../../secret", "/etc/passwd", "link", "linked/secret", "deep",
     "loop", "w.data\0", "x" * 5000, "~/secret", "C:\\secret"],
)  # fmt: skip
def test_external_data_elsewhere_is_refused_and_never_read(folder, location, monkeypatch):
    def opened(*arguments, **options):
        raise AssertionError(f"read {arguments}")

    monkeypatch.setattr("builtins.open", opened)
    ((severity, rule, _),) = told(stored_outside(location), folder)
    assert (severity, rule) == ("refused", "external-data")


def test_without_a_folder_no_external_data_is_accepted():
    assert [rule for _, rule, _ in told(stored_outside("w.data"))] == ["external-data"]


def with_external_scale(location):
    graph = GraphWriter()
    model = graph.model(graph.qdq(graph.input((4,)), [-1.0] * 4, axis=0))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def test_scales_beside_the_model_are_judged_too(folder):
    (folder / "w.data").write_bytes(np.full(4, -1, np.float32).tobytes())
    assert ("refused", "scale") in {
        found[:2] for found in told(with_external_scale("w.data"), folder)
    }
    assert "scale" not in {rule for _, rule, _ in told(with_external_scale("link"), folder)}


def test_a_scale_file_that_is_too_short_is_one_error(folder):
    (folder / "w.data").write_bytes(b"abc")
    with pytest.raises(ModelError, match="is damaged: it has not the values"):
        lint(with_external_scale("w.data"), folder)


def test_a_tensor_that_claims_more_than_it_holds_is_one_error():
    model = model_of("zero_point")
    damaged = onnx.ModelProto.FromString(model.SerializeToString())
    damaged.graph.initializer[0].dims[:] = [1 << 40]
    with pytest.raises(ModelError, match="is damaged"):
        lint(damaged)


def test_a_chain_of_thousands_of_nodes_is_no_trouble():
    graph = GraphWriter()
    x = graph.qdq(graph.input())
    for _ in range(3000):
        x = graph.op("Identity", x)
    assert told(graph.model(graph.qdq(graph.conv(x)))) == []


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_damage_gives_findings_or_one_error(data):
    """Bytes are changed at random; whatever still parses must be judged.

    Without onnx's inference, which is native code and not ours; `edgekit inspect` runs it apart.
    """
    content = bytearray(model_of("zero_point_in_a_loop").SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        model = onnx.ModelProto.FromString(bytes(content))
    except Exception:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scope, "_inferred", lambda model: model)
        try:
            lint(model)
        except ModelError as error:
            assert "\n" not in str(error)


def test_an_attribute_of_another_type_is_one_error():
    graph = GraphWriter()
    model = graph.model(graph.op("Cast", graph.input(), to="float"))
    with pytest.raises(ModelError, match="attribute 'to' of Cast_1 is no int; export it again"):
        lint(model)
