import threading
import time

import numpy as np
import pytest

import edgekit
from edgekit.errors import DataError, UsageError
from edgekit.runtime.camera import open_camera
from edgekit.runtime.events import FrameDropped

RED = np.full((20, 30, 3), (0, 0, 255), np.uint8)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert "edgekit-camera" not in {t.name for t in set(threading.enumerate()) - before}


def numbered(count):
    for number in range(count):
        yield np.full((4, 4, 3), number, np.uint8)


def test_every_frame_of_an_iterable_through_a_callable_in_order():
    results = list(edgekit.stream(numbered(20), lambda frame: int(frame[0, 0, 0])))
    assert [r.value for r in results] == list(range(20))
    assert [r.frame_id for r in results] == list(range(20))
    assert all(set(r.stages_ns) == {"capture", "infer"} for r in results)
    assert all(r.age_ms >= 0 for r in results)
    times = [r.captured_ns for r in results]
    assert times == sorted(times)


def test_frames_through_a_model(classifier_bundle):
    with edgekit.open(classifier_bundle) as model:
        (result,) = edgekit.stream([RED], model)
    assert result.value[0].label == "red"
    assert result.frame is RED
    assert set(result.stages_ns) == {"capture", "preprocess", "infer", "postprocess"}


@pytest.mark.parametrize("policy", ["every", "latest"])
def test_max_frames_ends_an_endless_source(policy):
    source = "test://64x48"
    results = list(edgekit.stream(source, np.mean, policy=policy, max_frames=7))
    assert len(results) == 7


def test_every_delivers_all_however_slow_the_model():
    events = []
    results = list(
        edgekit.stream(numbered(10), lambda frame: time.sleep(0.01), on_event=events.append)
    )
    assert [r.frame_id for r in results] == list(range(10))
    assert events == []


def test_latest_drops_what_is_superseded_and_the_ledger_adds_up():
    events = []
    told_before = {}

    def slow(frame):
        time.sleep(0.05)

    results = []
    for result in edgekit.stream("test://64x48@200", slow, on_event=events.append, max_frames=8):
        told_before[result.frame_id] = len(events)
        results.append(result)
    delivered = [r.frame_id for r in results]
    dropped = [e.frame_id for e in events if isinstance(e, FrameDropped)]
    assert delivered == sorted(delivered)
    assert sorted(delivered + dropped) == list(range(1 + max(delivered + dropped)))
    reasons = [e.reason for e in events if isinstance(e, FrameDropped)]
    assert reasons.count("superseded") > len(results)
    assert "undecodable" not in reasons
    # Each result comes after the events of the frames before it.
    for number, result in enumerate(results):
        earlier = events[: told_before[result.frame_id]]
        told = {e.frame_id for e in earlier if isinstance(e, FrameDropped)}
        before = set(range(result.frame_id)) - set(delivered[:number])
        assert before <= told


def test_what_was_captured_after_the_last_result_is_told_at_the_end():
    events = []
    source = "test://64x48@200"
    (result,) = edgekit.stream(
        source, lambda frame: time.sleep(0.1), on_event=events.append, max_frames=1
    )
    drops = [event for event in events if isinstance(event, FrameDropped)]
    drops.sort(key=lambda drop: drop.frame_id)
    last = drops[-1].frame_id
    assert [e.frame_id for e in drops] == [n for n in range(last + 1) if n != result.frame_id]
    # How many are in hand at the end is a matter of threads; the last one always is.
    assert {e.reason for e in drops} == {"superseded", "interrupted"}
    assert drops[-1].reason == "interrupted"


def test_results_of_a_slow_model_are_of_fresh_frames():
    """The age stays near the model's own time, instead of growing with each frame."""
    results = list(edgekit.stream("test://64x48@200", lambda f: time.sleep(0.05), max_frames=10))
    in_model_times = [r.age_ms / (r.stages_ns["infer"] / 1e6) for r in results]
    assert np.median(in_model_times) < 2


def test_events_are_told_in_the_thread_that_takes_the_results():
    threads = set()
    stream = edgekit.stream(
        "test://64x48@500",
        lambda frame: time.sleep(0.01),
        on_event=lambda event: threads.add(threading.current_thread()),
        max_frames=5,
    )
    list(stream)
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("policy", ["every", "latest"])
def test_leaving_early_releases_camera_and_thread(policy):
    closed = threading.Event()

    def endless():
        try:
            while True:
                time.sleep(0.001)
                yield RED
        finally:
            closed.set()

    results = edgekit.stream(endless(), np.mean, policy=policy)
    next(results)
    results.close()
    assert closed.wait(5)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("end", [lambda results: results.close(), lambda results: None])
def test_a_stream_that_is_never_read_releases_camera_and_thread(end):
    threads = set(threading.enumerate())
    results = edgekit.stream("test://64x48@100", np.mean)
    started = set(threading.enumerate()) - threads
    assert started
    end(results)
    del results
    for thread in started:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("policy", ["every", "latest"])
@pytest.mark.parametrize("error", [RuntimeError("camera bug"), DataError("torn")])
def test_an_error_in_the_source_reaches_the_caller_after_the_frames_before(policy, error):
    def breaking():
        yield RED
        time.sleep(0.2)
        raise error

    values = []
    with pytest.raises(type(error)) as caught:
        for result in edgekit.stream(breaking(), lambda frame: "seen", policy=policy):
            values.append(result.value)
    assert caught.value is error
    assert values == ["seen"]


@pytest.mark.parametrize("source", ["test://64x48@100", "test://64x48"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_model_that_is_interrupted_gives_its_frame_up_and_the_camera_back(source, error):
    events, seen = [], []

    def fail_at_third(frame):
        if len(seen) == 2:
            raise error
        seen.append(frame)

    results = []
    with pytest.raises(error):
        for result in edgekit.stream(source, fail_at_third, on_event=events.append):
            results.append(result.frame_id)
    dropped = [e.frame_id for e in events if isinstance(e, FrameDropped)]
    assert "interrupted" in [e.reason for e in events if isinstance(e, FrameDropped)]
    assert sorted(results + dropped) == list(range(1 + max(results + dropped)))


def test_an_undecodable_picture_is_told_and_the_others_come(tmp_path):
    import cv2

    for name in ("a", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), RED)
    (tmp_path / "b.png").write_bytes(b"no picture")
    events = []
    results = list(edgekit.stream(str(tmp_path), np.mean, on_event=events.append))
    assert [r.frame_id for r in results] == [0, 2]
    (event,) = events
    assert (event.frame_id, event.reason) == (1, "undecodable")
    assert "b.png" in event.detail


def test_a_wrong_frame_is_a_data_error(classifier_bundle):
    with (
        edgekit.open(classifier_bundle) as model,
        pytest.raises(DataError, match="numpy array; got list"),
    ):
        list(edgekit.stream([[1, 2, 3]], model))


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"max_frames": 0}, "`max_frames` must be at least 1; got 0"),
        ({"policy": "newest"}, "`policy` must be one of every, latest, bounded:N; got 'newest'"),
    ],
)
def test_wrong_choices_are_told_at_once(choices, says):
    with pytest.raises(UsageError, match=says):
        edgekit.stream("test://64x48", np.mean, **choices)


def test_a_source_that_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(DataError, match="no such video"):
        edgekit.stream(str(tmp_path / "absent.mp4"), np.mean)


def test_an_empty_iterable_is_an_empty_stream():
    assert list(edgekit.stream([], np.mean)) == []


def test_a_paced_source_is_live_and_an_unpaced_one_is_not():
    assert open_camera("test://64x48@30").live
    assert not open_camera("test://64x48").live
