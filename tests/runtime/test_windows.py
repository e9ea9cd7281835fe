"""Windows out of steps, from every kind of source, against numpy's own windows."""

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

import edgekit
from edgekit.data import load_data
from edgekit.errors import DataError, UsageError
from edgekit.runtime.camera import open_camera
from edgekit.runtime.events import FrameDropped, Reset
from edgekit.runtime.recordings import cut, whole
from edgekit.runtime.run import run
from edgekit.runtime.windows import SequenceCamera, Windows
from edgekit.specs import Preprocess, TensorSpec

LENGTH, FEATURES = 4, 2
SPEC = TensorSpec("steps", (1, LENGTH, FEATURES), "float32")
ONE_STEP = TensorSpec("step", (1, FEATURES), "float32")
VECTOR = TensorSpec("y", (1, 3), "float32")
EACH_STEP = TensorSpec("y", (1, LENGTH, 3), "float32")


def steps(count, features=FEATURES, first=0):
    """Return float32 [count, features], all values different."""
    return np.arange(first, first + count * features, dtype=np.float32).reshape(count, features)


def windows_of(sequence, length, hop):
    """Return the windows as numpy has them: float32 [n, length, features]."""
    if len(sequence) < length:
        return np.empty((0, length, sequence.shape[1]), np.float32)
    return sliding_window_view(sequence, length, axis=0).transpose(0, 2, 1)[::hop]


def given_by(source, spec=SPEC, hop=None):
    """Return the arrays that a source gives, and the positions where a sequence starts."""
    arrays, starts = [], []
    with closing(SequenceCamera(open_camera(source), spec, hop)) as camera:
        while camera.grab() is not None:
            if camera.starts_sequence:
                starts.append(len(arrays))
            arrays.append(camera.retrieve())
    return arrays, starts


def complete(hop=None):
    return Preprocess(hop=hop).for_input(SPEC)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 12), st.integers(1, 3), st.data())
def test_windows_are_those_of_numpy_however_the_steps_arrive(count, length, hop, features, data):
    sequence = steps(count, features)
    windows = Windows(length, hop, features)
    found = []
    at = 0
    while at < count:
        chunk = sequence[at : at + data.draw(st.integers(1, 7))]
        at += len(chunk)
        found += [window.copy() for step in chunk if (window := windows.push(step)) is not None]
    expected = windows_of(sequence, length, hop)
    assert len(found) == len(expected)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 15), min_size=1, max_size=5),
    st.integers(2, 6),
    st.integers(1, 8),
    st.sampled_from(["steps", "sequences", "text", "set"]),
)
def test_a_window_never_spans_two_sequences(tmp_path_factory, lengths, length, hop, how):
    sequences = [steps(count, first=100 * i) for i, count in enumerate(lengths)]
    # One step alone is taken as a step that goes on, one whole window as a window.
    sequences = [s for s in sequences if how == "steps" or len(s) != 1]
    expected = [w for s in sequences for w in windows_of(s, length, hop)]
    spec = TensorSpec("steps", (1, length, FEATURES), "float32")
    if how == "sequences":
        source = sequences
    elif how == "steps":
        source = [step for s in sequences for step in (*s, None)]
    else:
        path = tmp_path_factory.mktemp("text") / "steps.csv"
        blocks = ["".join(f"{a},{b}\n" for a, b in s.tolist()) for s in sequences]
        path.write_text("\n".join(blocks))
        source = str(path)
    if not expected:
        if sum(map(len, sequences)):
            with pytest.raises(DataError, match=f"takes windows of {length}"):
                given_by(source, spec, hop)
        return
    if how == "set":
        data = cut(load_data(source), Preprocess(hop=hop).for_input(spec), spec, VECTOR)
        found = list(data)
    else:
        found, _ = given_by(source, spec, hop)
    np.testing.assert_array_equal(found, expected)


def test_a_window_holds_until_the_next_step_and_a_cameras_for_ever():
    windows = Windows(2, 1, 1)
    windows.push([1])
    first = windows.push([2])
    assert not first.flags.owndata
    kept, _ = given_by(steps(9), hop=1)
    np.testing.assert_array_equal(kept[0], steps(4))


def test_samples_of_the_models_shape_pass_as_they_are():
    windows = [steps(4), steps(4)[None], steps(4).astype(np.float64)]
    found, starts = given_by(windows)
    assert [one is other for one, other in zip(found, windows, strict=True)] == [True] * 3
    assert starts == [0]


def test_sequences_are_told_apart_where_a_model_takes_one_step():
    sequences = [steps(3), steps(2, first=50)]
    found, starts = given_by(sequences, ONE_STEP)
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(sequences))
    assert starts == [0, 3]
    assert given_by([*steps(2), None, *steps(2)], ONE_STEP)[1] == [0, 2]
    assert given_by([steps(3), *steps(2)], ONE_STEP)[1] == [0, 3]


def test_one_number_a_step():
    spec = TensorSpec("steps", (1, 3, 1), "float32")
    for source in (list(np.arange(6.0)), np.arange(6.0)[:, None], [np.arange(6.0)]):
        found, _ = given_by(source, spec)
        assert [window.ravel().tolist() for window in found] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([steps(3, 3)], r"gives \[3, 3\]; the model takes \[4, 2\], or steps of 2 numbers$"),
        (steps(3, 3), r"gives \[3\].*if a column holds labels, name it: FILE\.csv::NAME"),
        ([np.zeros((2, 3, 2), np.float32)], r"gives \[2, 3, 2\]"),
        (steps(3), "the longest sequence of an iterable has 3 steps; .* windows of 4"),
        ([*steps(3), None, *steps(2)], "longest sequence of an iterable has 3 steps"),
    ],
)
def test_what_fills_no_window_is_refused(source, says):
    with pytest.raises(DataError, match=says) as caught:
        given_by(source)
    assert "\n" not in str(caught.value)


class Sensor:
    """Stands for a live source of steps, given as (ms since the last one, step)."""

    live = True
    rate_hz = 100.0
    description = "a sensor"

    def __init__(self, script):
        self._script = iter(script)
        self._now_ns = 1

    def grab(self):
        after_ms, self._step = next(self._script, (0, None))
        if self._step is None:
            return None
        self._now_ns += round(after_ms * 1e6)
        return self._now_ns

    def retrieve(self):
        if isinstance(self._step, Exception):
            raise self._step
        return self._step

    def close(self):
        """Nothing is open."""


def test_a_window_spans_no_silence_and_no_lost_step():
    late = [(10, step) for step in steps(6)]
    late[3] = (26, late[3][1])
    camera = SequenceCamera(Sensor(late), TensorSpec("x", (1, 3, 2), "float32"), 1)
    assert camera.rate_hz == 100
    assert camera.grab()
    np.testing.assert_array_equal(camera.retrieve(), steps(6)[:3])
    assert camera.grab()
    np.testing.assert_array_equal(camera.retrieve(), steps(6)[3:])
    broken = [(10, step) for step in steps(7)]
    broken[2] = (10, DataError("torn"))
    camera = SequenceCamera(Sensor(broken), TensorSpec("x", (1, 3, 2), "float32"), None)
    assert camera.grab()
    with pytest.raises(DataError, match="torn"):
        camera.retrieve()
    assert camera.grab()
    np.testing.assert_array_equal(camera.retrieve(), steps(7)[3:6])
    assert camera.rate_hz == pytest.approx(100 / 3)


@pytest.mark.parametrize("hop", [None, 1, 3])
def test_labels_of_windows(hop):
    every = hop or LENGTH
    x, y = steps(11), np.arange(11)
    data = cut(load_data((x, y)), complete(hop), SPEC, VECTOR)
    np.testing.assert_array_equal(list(data), windows_of(x, LENGTH, every))
    assert data.labels.tolist() == [LENGTH - 1 + every * i for i in range(len(data))]
    each = cut(load_data((x, y)), complete(hop), SPEC, EACH_STEP)
    np.testing.assert_array_equal(each.labels, sliding_window_view(y, LENGTH)[::every])


def test_labels_of_windows_of_whole_recordings():
    x = np.stack([steps(7), steps(7, first=100)])
    one = cut(load_data((x, np.array([5, 6]))), complete(3), SPEC, VECTOR)
    assert one.labels.tolist() == [5, 5, 6, 6]
    y = np.arange(14).reshape(2, 7)
    assert cut(load_data((x, y)), complete(3), SPEC, VECTOR).labels.tolist() == [3, 6, 10, 13]
    each = cut(load_data((x, y)), complete(3), SPEC, EACH_STEP)
    assert each.labels.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [7, 8, 9, 10], [10, 11, 12, 13]]


def test_a_set_of_windows_or_pictures_is_not_cut():
    whole = load_data((np.stack([steps(4)] * 3), np.arange(3)))
    assert cut(whole, complete(1), SPEC, VECTOR) is whole
    pictures = load_data(np.zeros((2, 4, 4, 3), np.uint8))
    assert cut(pictures, Preprocess(), TensorSpec("x", (1, 4, 4, 3), "float32"), VECTOR) is pictures
    with pytest.raises(DataError, match=r"gives \[4, 4, 3\]; the model takes \[4, 2\]"):
        cut(pictures, complete(), SPEC, VECTOR)
    once = cut(load_data(steps(9)), complete(1), SPEC, VECTOR)
    assert cut(once, complete(1), SPEC, VECTOR) is once


def test_recordings_of_different_lengths_from_python():
    recordings = [steps(4), steps(9), steps(2), steps(6)]
    data = cut(load_data(recordings), complete(2), SPEC, VECTOR)
    expected = [window for r in recordings for window in windows_of(r, LENGTH, 2)]
    np.testing.assert_array_equal(list(data), expected)


@pytest.mark.parametrize("answers_each", [False, True])
def test_a_bundle_that_streams_takes_recordings_whole(tmp_path, answers_each):
    lines = [f"{a},{b},{i}" for i, (a, b) in enumerate(steps(6).tolist())]
    path = tmp_path / "steps.csv"
    path.write_text("\n".join([*lines[:3], "", *lines[3:]]))
    data = whole(load_data(f"{path}::last"), ONE_STEP, answers_each)
    np.testing.assert_array_equal(list(data), steps(6).reshape(2, 3, 2))
    assert data.labels.tolist() == ([[0, 1, 2], [3, 4, 5]] if answers_each else [2, 5])
    sequences = load_data((steps(6).reshape(2, 3, 2), np.array([7, 8])))
    assert whole(sequences, ONE_STEP, answers_each) is sequences


def test_labels_of_all_steps_need_recordings_of_one_length(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text("1,2,0\n1,2,0\n\n1,2,0\n")
    data = load_data(f"{path}::last")
    assert len(whole(data, ONE_STEP, False)) == 2
    with pytest.raises(DataError, match="recordings of 1 to 2 steps, and the model is rated at"):
        whole(data, ONE_STEP, True)


def test_sets_that_cannot_be_cut_are_refused():
    with pytest.raises(DataError, match="longest sequence of the array has 3 steps"):
        cut(load_data(steps(3)), complete(), SPEC, VECTOR)
    with pytest.raises(DataError, match=r"gives \[3\]; the model takes \[4, 2\], or steps of 2"):
        cut(load_data(steps(9, 3)), complete(), SPEC, VECTOR)


@pytest.fixture
def echo(make_bundle):
    """Return a function that opens a model whose results are the windows that it got."""
    opened = []

    def echo(preprocess="raw"):
        path = make_bundle(name="echo", precision="fp32", preprocess=preprocess)
        opened.append(edgekit.open(path, threads=1))
        return opened[-1]

    yield echo
    for model in opened:
        model.close()


def results(source, model, **options):
    return [r.value.reshape(LENGTH, FEATURES) for r in edgekit.stream(source, model, **options)]


@pytest.mark.parametrize("kind", ["csv", "json lines", "npz", "npy", "array", "iterator", "stdin"])
def test_every_source_of_steps_through_a_bundle(echo, tmp_path, standard_input, kind):
    sequence = steps(9)
    text = "x,y\n" + "".join(f"{a},{b}\n" for a, b in sequence.tolist())
    source = str(tmp_path / f"steps.{kind}")
    if kind == "csv":
        (tmp_path / "steps.csv").write_text(text)
    elif kind == "json lines":
        source = f"csv://{tmp_path}/steps.jsonl"
        (tmp_path / "steps.jsonl").write_text("".join(f"{s}\n" for s in sequence.tolist()))
    elif kind == "npz":
        np.savez(tmp_path / "steps.npz", readings=sequence)
        source += "::readings"
    elif kind == "npy":
        np.save(tmp_path / "steps.npy", sequence)
    elif kind == "stdin":
        standard_input(text)
        source = "-"
    else:
        source = sequence if kind == "array" else iter(sequence)
    model = echo("mean=1:2,std=2:4,hop=2")
    expected = (windows_of(sequence, LENGTH, 2) - [1, 2]) / [2, 4]
    np.testing.assert_allclose(results(source, model), expected, rtol=1e-6)


def test_a_window_goes_through_the_same_preprocess_when_it_is_called_with(echo):
    model = echo("mean=1:2,std=2:4")
    found = model(steps(4)).value.reshape(LENGTH, FEATURES)
    np.testing.assert_allclose(found, (steps(4) - [1, 2]) / [2, 4], rtol=1e-6)


def test_the_end_of_a_sequence_is_an_event_before_the_first_result_of_the_next(echo):
    told = []
    stream = edgekit.stream([steps(9), steps(8, first=50)], echo(), on_event=told.append)
    for result in stream:
        told.append(result.frame_id)
    assert told == [0, 1, Reset(2, "end of sequence", "an iterable"), 2, 3]


def test_under_latest_windows_are_dropped_and_not_steps(echo):
    told = []
    source = [(0.1, step) for step in steps(400)]
    found = results(Listed(source), echo("hop=2"), policy="latest", on_event=told.append)
    expected = windows_of(steps(400), LENGTH, 2)
    dropped = [event for event in told if isinstance(event, FrameDropped)]
    assert len(found) + len(dropped) == len(expected)
    rows = {window[0, 0]: window for window in expected}
    for window in found:
        np.testing.assert_array_equal(window, rows[window[0, 0]])


class Listed(list):
    """An iterable of the steps alone."""

    def __iter__(self):
        return (step for _, step in super().__iter__())


def test_an_error_in_a_text_ends_the_run_with_the_number_of_its_line(echo, tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text("1,2\n" * 9 + "1,two\n")
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match=r"steps\.csv, line 10 holds 'two', which is no number"):
        run(echo(), str(path), [str(out)])
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize("text", ["", "x,y\n", "# nothing\n"])
def test_a_text_without_steps_gave_no_frame(echo, tmp_path, text):
    path = tmp_path / "steps.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"steps\.csv.* gave no frame"):
        run(echo(), str(path))


@pytest.mark.parametrize("sink", ["out.mp4", "pictures/", "display://"])
@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_sinks_that_draw_are_refused_before_anything_is_written(echo, tmp_path, sink, kind):
    path = tmp_path / f"steps.{kind}"
    path.write_text("1,2\n" * 9) if kind == "csv" else np.save(path, steps(9))
    uri = sink if "://" in sink else f"{tmp_path}/{sink}"
    with pytest.raises(UsageError, match="draws on pictures, and .* gives numbers") as caught:
        run(echo(), str(path), [uri])
    assert caught.value.exit_code == 2
    assert {entry.name for entry in tmp_path.iterdir()} <= {path.name, "echo_fp32.edgekit"}


def test_a_set_of_pictures_in_npz_is_a_source_of_frames(classifier_bundle, tmp_path):
    red = np.zeros((2, 20, 20, 3), np.uint8)
    red[..., 0] = 255
    np.savez(tmp_path / "x.npz", x=red)
    with edgekit.open(classifier_bundle) as model:
        summary = run(model, str(tmp_path / "x.npz"), [f"{tmp_path}/out/", f"{tmp_path}/o.jsonl"])
    assert summary.frames == 2
    assert '"label":"red"' in (tmp_path / "o.jsonl").read_text()
    assert len(list((tmp_path / "out").iterdir())) == 2
