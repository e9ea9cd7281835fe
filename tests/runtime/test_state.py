"""Bundles of one step: the state goes round, ends where the bundle says, and is one a stream."""

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.bundle import Golden, Provenance, read_bundle, write_bundle
from edgekit.converters.assemble import draft_manifest, golden_samples
from edgekit.data import load_data
from edgekit.errors import BackendError, BundleError, CheckFailed, DataError
from edgekit.evaluation.evaluate import evaluate
from edgekit.golden import write_golden
from edgekit.profiling.frames import golden_frames
from edgekit.runtime.backends.onnxruntime import Backend
from edgekit.runtime.events import FrameDropped, Gap, Reset, SourceBack, SourceLost
from edgekit.runtime.model import Model
from edgekit.runtime.recordings import samples_for
from edgekit.specs import Postprocess, Preprocess
from edgekit.streaming import DEFAULT_RESETS, RESETS, StatePair, Streaming

pytest.importorskip("onnxruntime")

EVENTS = {
    "gap": Gap(3, 80.0),
    "dropped": FrameDropped(3, "superseded"),
    "source_back": SourceBack(0, 900.0),
    "end_of_sequence": Reset(3, "end of sequence"),
}
SEQUENCES = np.arange(24, dtype=np.float32).reshape(3, 4, 2)


def sums(onnx_models):
    """Return the path of a model that adds up what it is given."""
    node, row = onnx_models.helper.make_node, ("float32", [1, 2])
    model = onnx_models.model(
        [node("Add", ["x", "sum"], ["y"]), node("Identity", ["y"], ["sum_next"])],
        [("x", *row), ("sum", *row)],
        [("y", *row), ("sum_next", *row)],
    )
    return onnx_models.save(model)


def write_stream(onnx_models, folder, every_step=True, task="sequence", reset_on=DEFAULT_RESETS):
    """Write a bundle of `sums` that streams; return its path."""
    file = sums(onnx_models)
    with Backend(file, 1) as backend:
        manifest = draft_manifest(
            backend,
            format="onnx",
            model_file="model.onnx",
            task=task,
            precision="fp32",
            preprocess=Preprocess().for_input(backend.inputs[0]),
            postprocess=Postprocess(),
            target=None,
            fallbacks=(),
            recipe={},
            provenance=Provenance("sums", "onnx", None, None, {}),
            streaming=Streaming((StatePair(1, 1),), every_step, reset_on),
        )
        model = Model(edgekit.Bundle(file.parent, manifest, ()), backend, "onnxruntime")
        samples = golden_samples(model, load_data(SEQUENCES), True)
    manifest = msgspec.structs.replace(manifest, golden=Golden(len(samples), False, False))
    files = {"model.onnx": file.read_bytes(), "golden.npz": write_golden(samples)}
    return write_bundle(folder / "sums.edgekit", manifest, files).path


@pytest.fixture
def bundle(onnx_models, tmp_path):
    return write_stream(onnx_models, tmp_path)


def opened(path, **options):
    return edgekit.open(path, backend="onnxruntime", **options)


def step(*values):
    return np.array(values, np.float32)


def test_the_state_goes_from_call_to_call_until_it_is_reset(bundle):
    with opened(bundle) as model:
        assert model(step(1, 2)).value.tolist() == [1, 2]
        assert model(step(10, 20)[None]).value.tolist() == [11, 22]
        first = model(step(0, 1)).raw
        model.reset()
        assert model(step(5, 5)).value.tolist() == [5, 5]
    assert first.tolist() == [[11, 23]]  # its own, though the state's arrays are used again


def test_golden_sequences_are_replayed_from_zero_and_leave_nothing(bundle, tmp_path):
    golden = read_bundle(bundle).golden()
    assert [sample.inputs[0].shape for sample in golden] == [(4, 1, 2)] * 3
    assert golden[1].outputs[0][:, 0].tolist() == np.cumsum(SEQUENCES[1], axis=0).tolist()
    with opened(bundle, check=True) as model:
        assert model(step(1, 1)).value.tolist() == [1, 1]


def test_a_device_that_computes_the_state_otherwise_is_found(bundle):
    golden = [
        msgspec.structs.replace(
            sample, outputs=(sample.outputs[0] + np.float32([[[0]], [[0]], [[9]], [[0]]]),)
        )
        for sample in read_bundle(bundle).golden()
    ]
    manifest = read_bundle(bundle).manifest
    model = {"model.onnx": (bundle / "model.onnx").read_bytes()}
    write_bundle(bundle, manifest, {**model, "golden.npz": write_golden(golden)})
    with pytest.raises(CheckFailed, match="golden sample 0"):
        opened(bundle)


@pytest.mark.parametrize("cause", RESETS)
def test_what_ends_a_state_is_what_the_bundle_says(onnx_models, tmp_path, cause):
    with opened(write_stream(onnx_models, tmp_path, reset_on=(cause,))) as model:
        for other in RESETS:
            model.reset()
            model(step(1, 1))
            model.on_event(EVENTS[other])
            expected = [1, 1] if other == cause else [2, 2]
            assert model(step(1, 1)).value.tolist() == expected, other


def test_a_source_that_is_back_begins_anew_by_either_of_its_events(bundle):
    with opened(bundle) as model:
        for event in (SourceBack(0, 900.0), Reset(7, "source back")):
            model(step(1, 1))
            model.on_event(SourceLost(0, "gone"))
            assert model(step(1, 1)).value.tolist() == [2, 2]
            model.on_event(event)
            assert model(step(1, 1)).value.tolist() == [1, 1]
            model.reset()


def test_each_stream_has_a_state_of_its_own(bundle):
    with opened(bundle) as model:
        model(step(1, 1))
        model.states.select("second")
        assert model(step(5, 5)).value.tolist() == [5, 5]
        model.states.select("")
        assert model(step(1, 1)).value.tolist() == [2, 2]
        model.on_event(Gap(1, 80.0))  # of the stream without a name
        model.states.select("second")
        assert model(step(5, 5)).value.tolist() == [10, 10]


def test_a_run_that_fails_leaves_the_state_as_it_was(bundle, monkeypatch):
    with opened(bundle) as model:
        model(step(1, 1))

        def fails(outputs):
            outputs[-1][...] = 99
            raise BackendError("no power")

        with monkeypatch.context() as patched:
            patched.setattr(model.backend, "run", fails)
            with pytest.raises(BackendError):
                model(step(1, 1))
        assert model(step(1, 1)).value.tolist() == [2, 2]


def test_a_stream_begins_at_zero_and_goes_on_from_frame_to_frame(bundle):
    with opened(bundle) as model:
        for _ in range(2):
            results = list(edgekit.stream(list(SEQUENCES[0]), model))
            found = [result.value.tolist() for result in results]
            assert found == np.cumsum(SEQUENCES[0], axis=0).tolist()


def test_a_sample_of_a_set_is_a_whole_sequence(onnx_models, tmp_path):
    totals = SEQUENCES.sum(axis=1)
    with opened(write_stream(onnx_models, tmp_path)) as model:
        model(step(7, 7))  # which the samples do not continue
        whole = model.predict_sample(SEQUENCES[1])
        assert whole.value.tolist() == np.cumsum(SEQUENCES[1], axis=0).tolist()
        assert whole.raw.shape == (1, 4, 2)
        steps = np.cumsum(SEQUENCES, axis=1)
        assert evaluate(model, load_data((SEQUENCES, steps))).metrics["mae"] == 0
    with opened(write_stream(onnx_models, tmp_path, every_step=False)) as model:
        assert model.predict_sample(SEQUENCES[1]).value.tolist() == totals[1].tolist()
        assert evaluate(model, load_data((SEQUENCES, totals))).metrics["mae"] == 0


def test_steps_of_a_set_are_joined_to_recordings(onnx_models, tmp_path):
    steps, labels = SEQUENCES.reshape(12, 2), np.arange(12, dtype=np.float32)
    data = msgspec.structs.replace(load_data((steps, labels)), starts=(4, 6))
    with opened(write_stream(onnx_models, tmp_path, every_step=False)) as model:
        found = samples_for(model, data)
        assert [sample.shape for sample in found] == [(4, 2), (2, 2), (6, 2)]
        assert found.labels.tolist() == [3, 5, 11]
        assert samples_for(model, load_data(SEQUENCES)).count == 3
    with opened(write_stream(onnx_models, tmp_path)) as model:
        with pytest.raises(DataError, match="recordings of 2 to 6 steps"):
            samples_for(model, data)
        even = samples_for(model, msgspec.structs.replace(data, starts=(6,)))
        assert even.labels.tolist() == labels.reshape(2, 6).tolist()


def test_the_next_sequence_of_a_source_begins_at_zero(bundle):
    events = []
    with opened(bundle) as model:
        results = list(edgekit.stream(SEQUENCES, model, on_event=events.append))
        assert model(step(1, 1)).value.tolist() == [1, 1]
    found = [result.value.tolist() for result in results]
    # A sequence of its own each: the source says where the next begins.
    assert found == np.cumsum(SEQUENCES, axis=1).reshape(-1, 2).tolist()
    assert [event.reason for event in events] == ["end of sequence"] * 2


def test_profiling_takes_the_steps_of_the_golden_sequences(bundle):
    with opened(bundle) as model:
        frames = golden_frames(model)
        assert [next(frames).tolist() for _ in range(5)] == [
            [row] for row in SEQUENCES.reshape(-1, 2)[:5].tolist()
        ]


@pytest.mark.parametrize(
    "sample", [np.zeros((0, 2), np.float32), np.float32(3), (SEQUENCES[0], SEQUENCES[0][:2])]
)
def test_what_is_no_sequence_is_refused(bundle, sample):
    with opened(bundle) as model, pytest.raises(DataError):
        model.predict_sample(sample)


def test_a_step_of_another_size_is_refused(bundle):
    with opened(bundle) as model:
        model(step(1, 1))
        with pytest.raises(DataError, match="takes"):
            model(step(1, 1, 1))
        assert model(step(1, 1)).value.tolist() == [2, 2]


@pytest.mark.parametrize(
    "states",
    [
        (),
        (StatePair(0, 1),),
        (StatePair(1, 0),),
        (StatePair(1, 7),),
        (StatePair(-1, -1),),
        (StatePair(0, 0), StatePair(1, 1)),
    ],
)
def test_states_that_cannot_be_are_refused(bundle, states):
    manifest = read_bundle(bundle).manifest
    text = msgspec.json.encode(manifest)
    wrong = msgspec.json.decode(text)
    wrong["streaming"]["states"] = msgspec.to_builtins(states)
    (bundle / "bundle.json").write_bytes(msgspec.json.encode(wrong))
    with pytest.raises(BundleError, match="states"):
        read_bundle(bundle)


def test_a_state_that_comes_out_in_another_grid_is_refused(bundle):
    wrong = msgspec.json.decode((bundle / "bundle.json").read_bytes())
    wrong["outputs"][1] |= {"dtype": "int8", "scale": 0.5, "zero_point": 0}
    (bundle / "bundle.json").write_bytes(msgspec.json.encode(wrong))
    with pytest.raises(BundleError, match="goes in as 'sum' and comes out otherwise"):
        read_bundle(bundle)


def test_golden_sequences_of_unequal_length_are_refused(bundle):
    golden = read_bundle(bundle).golden()
    golden[0] = msgspec.structs.replace(golden[0], inputs=(golden[0].inputs[0][:2],))
    files = {"model.onnx": (bundle / "model.onnx").read_bytes(), "golden.npz": write_golden(golden)}
    write_bundle(bundle, read_bundle(bundle).manifest, files)
    with pytest.raises(BundleError, match="as many steps"):
        opened(bundle)


def test_sequences_of_a_text_are_added_up_one_by_one(bundle, tmp_path):
    """The running sums start again where the text says that a sequence ends."""
    steps = tmp_path / "steps.csv"
    lines = [",".join(map(str, row)) for row in SEQUENCES.reshape(-1, 2).tolist()]
    steps.write_text("\n\n".join("\n".join(lines[at : at + 4]) for at in (0, 4, 8)))
    expected = np.cumsum(SEQUENCES, axis=1).reshape(-1, 2)
    with opened(bundle) as model:
        for source in (str(steps), SEQUENCES):
            found = [result.value for result in edgekit.stream(source, model)]
            np.testing.assert_array_equal(found, expected)


def test_a_recording_is_rated_at_its_last_step(onnx_models, tmp_path):
    path = write_stream(onnx_models, tmp_path, every_step=False, task="classification")
    recordings = tmp_path / "set.csv"
    recordings.write_text("1,0,9\n0,3,1\n\n5,0,9\n0,1,0\n1,1,0\n")  # sums 1 3, then 6 2
    with opened(path) as model:
        data = samples_for(model, load_data(f"{recordings}::last"))
        assert len(data) == 2
        assert evaluate(model, data).metrics["accuracy"] == 1
