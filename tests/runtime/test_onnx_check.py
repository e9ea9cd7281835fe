"""What `_onnx` lets through to an engine; the models are written by the package `onnx`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import ModelError
from edgekit.runtime.backends import _onnx
from edgekit.runtime.backends._onnx import check_onnx


def varint(value):
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def field(number, content):
    """Return a field of protobuf's wire type 2."""
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.fixture
def external(onnx_models):
    """Return a function that makes a tensor whose content is in the file `location`."""
    onnx = pytest.importorskip("onnx")

    def make(location, name="w"):
        tensor = onnx_models.from_array(np.ones((1, 3), np.float32), name)
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        return tensor

    return make


def test_the_table_of_messages_is_that_of_the_format():
    onnx = pytest.importorskip("onnx")
    for kind, known in _onnx.MESSAGES.items():
        fields = getattr(onnx, kind).DESCRIPTOR.fields
        inner = {f.number: f.message_type.name for f in fields if f.message_type is not None}
        assert known == {n: name for n, name in inner.items() if name in _onnx.MESSAGES}


def test_a_whole_model_is_summarized(onnx_models):
    summary = check_onnx(onnx_models.save(onnx_models.classifier()))
    assert summary.operators == {"ReduceMean", "Gemm", "Softmax"}
    assert not summary.has_float16
    assert check_onnx(onnx_models.save(onnx_models.classifier("float16"))).has_float16


@pytest.mark.parametrize("location", ["w.bin", "/etc/passwd", "../w.bin", "sub/../../w", ""])
def test_weights_in_another_file_are_refused(onnx_models, external, location):
    model = onnx_models.elementwise(["float32"])
    model.graph.initializer.append(external(location))
    with pytest.raises(ModelError, match="the tensor 'w' is stored in another file") as caught:
        check_onnx(onnx_models.save(model))
    assert "\n" not in str(caught.value)


def constant(models, tensor):
    return models.helper.make_node("Constant", [], ["c"], value=tensor)


def in_a_constant(models, model, tensor):
    model.graph.node.append(constant(models, tensor))


def in_a_branch(models, model, tensor):
    branch = models.helper.make_graph([constant(models, tensor)], "branch", [], [])
    model.graph.node.append(models.helper.make_node("If", ["x"], ["z"], then_branch=branch))


def in_a_function(models, model, tensor):
    node = constant(models, tensor)
    opsets = [models.helper.make_opsetid("", 17)]
    model.functions.append(models.helper.make_function("own", "F", [], ["c"], [node], opsets))


def in_a_sparse_tensor(models, model, tensor):
    indices = models.from_array(np.arange(3), "i")
    model.graph.sparse_initializer.append(models.helper.make_sparse_tensor(tensor, indices, [1, 9]))


def in_a_list(models, model, tensor):
    model.graph.node.append(models.helper.make_node("Own", [], ["c"], domain="own", all=[tensor]))


@pytest.mark.parametrize(
    "place", [in_a_constant, in_a_branch, in_a_function, in_a_sparse_tensor, in_a_list]
)
def test_they_are_found_wherever_they_hide(onnx_models, external, place):
    model = onnx_models.elementwise(["float32"])
    check_onnx(onnx_models.save(model))
    place(onnx_models, model, external("/etc/passwd"))
    with pytest.raises(ModelError, match="stored in another file"):
        check_onnx(onnx_models.save(model))


@pytest.mark.parametrize("keep", ["external_data", "data_location"])
def test_half_a_reference_is_refused_too(onnx_models, external, keep):
    tensor = external("w.bin")
    tensor.ClearField({"external_data", "data_location"}.difference({keep}).pop())
    model = onnx_models.elementwise(["float32"])
    model.graph.initializer.append(tensor)
    with pytest.raises(ModelError, match="stored in another file"):
        check_onnx(onnx_models.save(model))


def test_an_engine_compiled_elsewhere_is_refused(onnx_models):
    model = onnx_models.elementwise(["float32"], "EPContext")
    with pytest.raises(ModelError, match="holds an engine compiled elsewhere"):
        check_onnx(onnx_models.save(model))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model",
        b"<?xml version='1.0'?><net name='m' version='11'></net>",
        b"\x80\x04\x95pickle",
        bytes(64),
        b"\xff" * 64,
        b"\x3a\xff\xff\xff\xff\x0f",  # a graph of 4 GB in 6 bytes
        b"\x08\x09",  # a version and nothing else
    ],
    ids=["empty", "text", "xml", "pickle", "zeros", "ones", "huge", "no graph"],
)
def test_what_is_no_onnx_file_is_told_in_one_line(onnx_models, content):
    with pytest.raises(ModelError, match=r"model\.onnx is no \.onnx file, or a damaged") as caught:
        check_onnx(onnx_models.save(content))
    assert "\n" not in str(caught.value)


def test_a_field_number_that_other_readers_see_cut_off_is_refused(onnx_models):
    model = onnx_models.elementwise(["float32"]).SerializeToString()
    with pytest.raises(ModelError, match="field number"):
        check_onnx(onnx_models.save(model + field((1 << 29) + 7, b"abc")))


def test_a_file_cut_off_anywhere_is_refused_or_whole(onnx_models):
    content = onnx_models.classifier().SerializeToString()
    refused = 0
    for length in range(len(content)):
        try:
            check_onnx(onnx_models.save(content[:length]))
        except ModelError:
            refused += 1
    assert refused > 0.9 * len(content)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200), start=st.integers(0, 200))
def test_random_bytes_are_a_model_error_at_most(tmp_path_factory, content, start):
    path = tmp_path_factory.getbasetemp() / "fuzzed.onnx"
    path.write_bytes(b"\x3a\x0a\x0a\x08"[: start % 5] + content)
    try:
        assert isinstance(check_onnx(path).operators, frozenset)
    except ModelError as error:
        assert "\n" not in str(error)


def test_the_work_for_a_hostile_file_is_bounded(onnx_models, monkeypatch):
    monkeypatch.setattr(_onnx, "_FIELD_LIMIT", 1000)
    with pytest.raises(ModelError, match="too deep or too many fields"):
        check_onnx(onnx_models.save(b"\x08\x01" * 1001))


def test_the_depth_of_a_hostile_file_is_bounded(onnx_models):
    content = b""
    for number in [*[6, 5, 1] * 40, 7]:  # from within: a graph of an attribute of a node …
        content = field(number, content)
    with pytest.raises(ModelError, match="too deep or too many fields"):
        check_onnx(onnx_models.save(content))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_file_that_cannot_be_read(tmp_path, make):
    make(tmp_path / "there.onnx")
    with pytest.raises(ModelError, match=r"cannot read model .*there\.onnx: "):
        check_onnx(tmp_path / "there.onnx")
