"""The page of an evaluation: what changed is shown as what it is, and the page stays small."""

import re
from base64 import b64decode

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.data import load_data
from edgekit.evaluation.changed import ChangedSamples
from edgekit.evaluation.evaluate import Assessment, assess, summary_of
from edgekit.evaluation.metrics import Classification, Regression, Segmentation
from edgekit.evaluation.pictures import changed_picture, map_picture, sample_picture
from edgekit.evaluation.report import evaluation_report
from edgekit.reports import render
from edgekit.runtime.postprocess import ClassScore, SegmentationMap

pytest.importorskip("jinja2")


def page(assessment):
    return render(evaluation_report(assessment, summary_of(assessment), "m.edgekit", "edgekit …"))


def pictures_in(html):
    found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)"', html)
    return [cv2.imdecode(np.frombuffer(b64decode(one), np.uint8), 1) for one in found]


def decoded(picture):
    return cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)


def scores_of(answer, classes=4, best=0.7):
    scores = np.full(classes, (1 - best) / (classes - 1), np.float32)
    scores[answer] = best
    return scores


def classified(samples, labels, source, ours, names=("red", "green", "blue", "white")):
    """Return the assessment of two models that answer as told."""
    changed = ChangedSamples("classification")
    sides = [Classification(4, len(labels)) for _ in range(2)]
    for index, (label, *answers) in enumerate(zip(labels, source, ours, strict=True)):
        for side, answer in zip(sides, answers, strict=True):
            side.add(scores_of(answer), label)
        first, second = ((ClassScore(a, names[a], 0.7),) for a in answers)
        changed.add(index, label, first, second)
    data = load_data((samples, np.asarray(labels)))
    return Assessment("classification", data, names, sides[1], sides[0], None, changed)


def numbers(labels, source, ours, task="sequence"):
    changed = ChangedSamples(task)
    sides = [Regression(), Regression()]
    for index, (label, *answers) in enumerate(zip(labels, source, ours, strict=True)):
        for side, answer in zip(sides, answers, strict=True):
            side.add(answer, label)
        changed.add(index, label, *answers)
    data = load_data((np.zeros((len(labels), 8), np.float32), np.asarray(labels, np.float32)))
    return Assessment(task, data, (), sides[1], sides[0], None, changed)


def test_frames_that_changed_their_class_are_shown_with_both_answers():
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 60, 3)).astype(np.uint8)
    html = page(classified(frames, [0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 0, 2], [0, 1, 2, 0, 0, 1]))
    assert len(pictures_in(html)) == 2
    lost = "sample 3: label white; source white 0.70; bundle red 0.70"
    mended = "sample 5: label green; source blue 0.70; bundle green 0.70"
    assert html.index(f"<figcaption>{lost}") < html.index(f"<figcaption>{mended}")
    assert "2 of 6 samples" in html
    assert "The bundle is better than its source on 1 of 6 samples and worse on 1." in html
    for part in ("Confusion matrix", "ROC", "Reliability", "F1 of each class", "95 % interval"):
        assert part in html


def test_samples_that_are_no_pictures_are_listed():
    samples = np.zeros((3, 5), np.float32)
    html = page(classified(samples, [0, 1, 2], [0, 1, 2], [0, 1, 3]))
    assert pictures_in(html) == []
    assert re.search(r"<td[^>]*>2</td><td>blue</td><td>blue</td><td[^>]*>0.700</td><td>white", html)


def test_a_page_with_many_large_changes_stays_below_two_megabytes():
    frames = np.random.default_rng(1).integers(0, 256, (40, 300, 400, 3)).astype(np.uint8)
    html = page(classified(frames, [0] * 40, [0] * 40, [1] * 40))
    assert len(pictures_in(html)) == 24
    assert len(html) < 2_000_000


def test_models_that_answer_alike_have_nothing_to_show():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    assert "None: both models answer alike" in page(classified(frames, [0, 1], [0, 1], [0, 1]))


def test_a_bundle_alone_is_compared_with_nothing(classifier_bundle):
    data = load_data((np.zeros((3, 16, 16, 3), np.uint8), np.array([0, 1, 1])))
    with edgekit.open(classifier_bundle) as model:
        html = page(assess(model, data))
    assert "difference" not in html and "source" not in html
    assert "of each class" in html


def test_class_maps_are_shown_beside_their_frame_and_what_changed_in_magenta():
    frames = np.full((1, 40, 80, 3), 200, np.uint8)
    masks = np.zeros((1, 40, 80), np.int64)
    ours = np.zeros((40, 80), np.uint8)
    ours[:, 60:] = 1
    value = SegmentationMap(masks[0].astype(np.uint8), ()), SegmentationMap(ours, ())
    sides = [Segmentation(2), Segmentation(2)]
    changed = ChangedSamples("segmentation")
    for side, one in zip(sides, value, strict=True):
        side.add(one, masks[0])
    changed.add(0, masks[0], *value)
    data = load_data((frames, masks))
    names = ("dark", "bright")
    html = page(Assessment("segmentation", data, names, sides[1], sides[0], None, changed))
    frame, label, source, bundle, marked = pictures_in(html)
    assert {picture.shape for picture in (frame, label, source, bundle, marked)} == {(100, 200, 3)}
    assert abs(int(frame[50, 50, 0]) - 200) < 5
    np.testing.assert_array_equal(label, source)
    assert (bundle[:, :150] == source[:, :150]).all() and (bundle[:, 150:] != source[:, 150:]).any()
    assert (marked[:, 150:] == (255, 0, 255)).all() and (marked[:, :150] == 100).all()
    assert "25.00 % of the pixels changed" in html
    assert "IoU of each class" in html and "ROC" not in html


def test_one_changed_pixel_of_a_large_frame_is_seen():
    changed = np.zeros((2000, 3000), bool)
    changed[777, 1234] = True
    marked = decoded(changed_picture(np.zeros((2000, 3000, 3), np.uint8), changed, ""))
    assert (marked == (255, 0, 255)).all(-1).sum() >= 1
    assert max(marked.shape) == 200


def test_sequences_are_drawn_as_traces_with_the_label():
    steps = np.linspace(0, 1, 20)
    labels = np.stack([np.sin(steps), np.cos(steps)])[..., None]
    html = page(numbers(labels, labels + 0.01, labels + np.array([[[0.3]], [[0.1]]])))
    assert html.count("<svg class=") == 2
    assert html.index("Sample 0: differs by 0.29") < html.index("Sample 1: differs by 0.09")
    for name in ("bundle", "source", "label"):
        assert f">{name}</text>" in html
    assert "samples changed" not in html


def test_single_numbers_are_listed():
    right, source, ours = [[1.0, 7.0], [2.0, 8.0]], [[1.0, 7.0], [2.5, 8.25]], [[1.0, 7.0]] * 2
    html = page(numbers(right, source, ours, "regression"))
    assert "<svg" not in html
    (row,) = re.findall(r"<td[^>]*>1</td>.*?</tr>", html[html.index("Largest differences") :])
    cells = [float(cell) for cell in re.findall(r"<td[^>]*>([^<]+)</td>", row)]
    assert cells == [1, 0, 2, 2.5, 1]


def test_a_class_for_each_step_is_drawn_by_step():
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, (2, 9))
    source, ours = random.random((2, 2, 9, 3)).astype(np.float32)
    changed = ChangedSamples("sequence")
    sides = [Classification(3, 2), Classification(3, 2)]
    for index in range(2):
        for side, answers in zip(sides, (source, ours), strict=True):
            side.add(answers[index], labels[index])
        changed.add(index, labels[index], source[index], ours[index])
    data = load_data((np.zeros((2, 9, 4), np.float32), labels))
    assessment = Assessment("sequence", data, (), sides[1], sides[0], None, changed)
    assert ">class</text>" in page(assessment)
    assert summary_of(assessment).changed.n is None


@pytest.mark.parametrize(
    ("sample", "shape"),
    [
        (np.zeros((30, 60), np.uint8), (100, 200, 3)),
        (np.zeros((30, 60, 4), np.uint8), (100, 200, 3)),
        (np.zeros((49, 10), np.float32), (41, 200, 3)),
        (np.zeros((32, 64, 1), np.float32), (200, 100, 3)),
        (np.zeros((1, 32, 64), np.float32), (200, 100, 3)),
        (np.random.default_rng(0).normal(size=(20, 40, 3)).astype(np.float32), (100, 200, 3)),
        ((np.zeros((30, 60, 3), np.uint8), np.zeros(2, np.float32)), (100, 200, 3)),
    ],
)
def test_any_sample_of_two_dimensions_becomes_a_picture(sample, shape):
    assert decoded(sample_picture(sample, "")).shape == shape


@pytest.mark.parametrize("shape", [(5,), (1, 9), (2, 3, 4, 5), (4, 5, 6)])
def test_what_has_no_two_dimensions_has_no_picture(shape):
    assert sample_picture(np.zeros(shape, np.float32), "") is None


def test_classes_of_a_map_have_colours_of_their_own_and_what_was_not_seen_is_grey():
    shown = decoded(map_picture(np.array([[0, 1, 2, 255]]), 3, ""))
    colours = [tuple(shown[0, x]) for x in (10, 60, 110, 160)]
    assert len(set(colours)) == 4
    assert colours[3] == (128, 128, 128)
