"""The metrics against scikit-learn's on random predictions, and on what has no good answer."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import CheckFailed, DataError
from edgekit.evaluation.metrics import (
    Classification,
    Regression,
    Segmentation,
    format_difference,
    format_metric,
    metrics_for,
)
from edgekit.evaluation.metrics import classification as classification_module
from edgekit.runtime.postprocess import SegmentationMap


@pytest.fixture(scope="module")
def sklearn():
    reason = "scikit-learn is not installed: pip install -e '.[dev]'"
    return pytest.importorskip("sklearn.metrics", reason=reason)


quick = settings(max_examples=40, deadline=None)
nothing = {"zero_division": 0}


def collected(metrics, answers, labels):
    for answer, label in zip(answers, labels, strict=True):
        metrics.add(answer, label)
    return metrics


def classification(scores, labels):
    return collected(Classification(scores.shape[1], len(labels)), scores, labels)


def segmentation(found, right, classes=None):
    metrics = Segmentation() if classes is None else Segmentation(classes)
    return collected(metrics, [SegmentationMap(one, ()) for one in found], right)


def whole(metrics):
    return {name: v[0] for name, v in metrics.statistics().of_the_set().whole.items()}


def each(metrics, name):
    return metrics.statistics().of_the_set().classes[name][0]


@st.composite
def predictions(draw):
    """Scores float32 [n, classes], of few values so that they tie, and labels."""
    classes, n = draw(st.integers(2, 7)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = draw(st.sampled_from([3, 16, 1 << 20]))
    labels = random.integers(0, draw(st.integers(1, classes)), n)
    scores = random.integers(0, steps, (n, classes)) + steps * 0.4 * np.eye(classes)[labels]
    powers = np.exp(scores / steps)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32), labels


@quick
@given(predictions())
def test_classification_equals_scikit_learn(sklearn, made):
    scores, labels = made
    metrics = classification(scores, labels)
    answers = scores.argmax(1)
    occurring = np.unique([*labels, *answers])
    found = whole(metrics)
    assert found["accuracy"] == metrics.score() == sklearn.accuracy_score(labels, answers)
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn, f"{name}_score")
        expected = theirs(labels, answers, average=None, labels=occurring, **nothing)
        np.testing.assert_allclose(each(metrics, name)[occurring], expected, rtol=1e-12)
        average = theirs(labels, answers, average="macro", **nothing)
        assert found[f"macro_{name}"] == pytest.approx(average, rel=1e-12)
        absent = np.setdiff1d(np.arange(scores.shape[1]), occurring)
        assert np.isnan(each(metrics, name)[absent]).all()
    matrix = sklearn.confusion_matrix(labels, answers, labels=range(scores.shape[1]))
    np.testing.assert_array_equal(metrics.confusion(), matrix)


@quick
@given(predictions())
def test_roc_auc_equals_scikit_learn(sklearn, made):
    scores, labels = made
    aucs = each(metrics := classification(scores, labels), "roc_auc")
    for index, auc in enumerate(aucs):
        is_class = labels == index
        if is_class.all() or not is_class.any():
            assert np.isnan(auc)
        else:
            assert auc == pytest.approx(sklearn.roc_auc_score(is_class, scores[:, index]), abs=1e-6)
            alarms, hits, _ = sklearn.roc_curve(is_class, scores[:, index])
            off_corners = np.linspace(0, 1, 101)[1:-1]
            off_corners = [x for x in off_corners if np.abs(alarms - x).min() > 1e-9]
            found = np.interp(off_corners, np.linspace(0, 1, 101), metrics.ranking.curves[index])
            np.testing.assert_allclose(found, np.interp(off_corners, alarms, hits), atol=1e-9)
    if not np.isnan(aucs).all():
        assert whole(metrics)["macro_roc_auc"] == pytest.approx(np.nanmean(aucs), abs=1e-6)


def test_macro_roc_auc_equals_scikit_learns_one_against_the_rest(sklearn):
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, 400)
    scores = random.dirichlet(np.ones(5), 400) + 0.2 * np.eye(5)[labels]
    scores /= scores.sum(1, keepdims=True)
    expected = sklearn.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    found = whole(classification(scores.astype(np.float32), labels))
    assert found["macro_roc_auc"] == pytest.approx(expected, abs=1e-6)
    assert found["top5_accuracy"] == 1


def test_top5_equals_scikit_learn(sklearn):
    random = np.random.default_rng(4)
    labels, scores = random.integers(0, 30, 200), random.random((200, 30), np.float32)
    expected = sklearn.top_k_accuracy_score(labels, scores, k=5, labels=range(30))
    assert whole(classification(scores, labels))["top5_accuracy"] == expected


def test_equal_scores_rank_by_class_number_as_the_runtimes_answers_do():
    scores = np.full((2, 8), 0.125, np.float32)
    found = whole(classification(scores, np.array([4, 5])))
    assert (found["accuracy"], found["top5_accuracy"]) == (0, 0.5)


def test_calibration_error_is_the_mean_gap_of_fifteen_bins():
    """Guo et al. 2017: |accuracy - confidence| of each bin, weighted by its share of samples."""
    random = np.random.default_rng(5)
    scores = random.dirichlet(np.ones(3), 500).astype(np.float32)
    labels = random.integers(0, 3, 500)
    confidence, right = scores.max(1), scores.argmax(1) == labels
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    metrics = classification(scores, labels)
    assert whole(metrics)["calibration_error"] == pytest.approx(error, abs=1e-6)
    count, _, accuracy = metrics.calibration()
    assert count.sum() == 500
    assert np.nansum(count * accuracy) == pytest.approx(right.sum())


def test_scores_that_are_no_probabilities_have_no_calibration():
    metrics = classification(np.array([[2.0, -3.0], [0.0, 9.0]], np.float32), np.array([0, 1]))
    assert np.isnan(whole(metrics)["calibration_error"])
    assert metrics.calibration() is None
    assert whole(metrics)["accuracy"] == 1


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4))
def test_segmentation_equals_scikit_learn(sklearn, seed, n, classes):
    random = np.random.default_rng(seed)
    found = random.integers(0, classes + 1, (n, 6, 9)).astype(np.uint8)
    right = np.where(
        random.random(found.shape) < 0.6, found, random.integers(0, classes, (n, 6, 9))
    )
    metrics = segmentation(found, right, classes + 2)
    a, b = right.ravel(), found.ravel()
    occurring = np.unique([*a, *b])
    iou = sklearn.jaccard_score(a, b, average=None, labels=occurring, **nothing)
    dice = sklearn.f1_score(a, b, average=None, labels=occurring, **nothing)
    np.testing.assert_allclose(each(metrics, "iou")[occurring], iou, rtol=1e-12)
    np.testing.assert_allclose(each(metrics, "dice")[occurring], dice, rtol=1e-12)
    assert whole(metrics) == pytest.approx(
        {
            "pixel_accuracy": sklearn.accuracy_score(a, b),
            "mean_iou": iou.mean(),
            "mean_dice": dice.mean(),
        }
    )
    np.testing.assert_array_equal(
        metrics.confusion(), sklearn.confusion_matrix(a, b, labels=range(classes + 2))
    )


def test_segmentation_leaves_out_pixels_that_are_not_labelled_or_not_seen():
    found = np.array([[[0, 1, 255, 1]]], np.uint8)
    right = np.array([[[0, 1, 1, 255]]])
    expected = {"pixel_accuracy": 1.0, "mean_iou": 1.0, "mean_dice": 1.0}
    assert whole(segmentation(found, right)) == expected
    nowhere = np.full_like(right, 255)
    assert set(whole(segmentation(found, nowhere)).values()) == {0.0}


def test_segmentation_brings_the_map_to_the_masks_size():
    found = np.array([[[0, 1], [1, 0]]], np.uint8)
    right = np.kron(found[0], np.ones((4, 4), int))[None]
    assert segmentation(found, right).score() == 1.0


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 4), st.booleans())
def test_regression_equals_scikit_learn(sklearn, seed, n, width, is_flat):
    random = np.random.default_rng(seed)
    right = random.normal(1e3, 5, (n, width)) if not is_flat else np.full((n, width), 0.25)
    found = right + random.normal(scale=2, size=right.shape)
    a, b = right.ravel(), found.ravel()
    metrics = collected(Regression(), found, right)
    expected = {
        "mae": sklearn.mean_absolute_error(a, b),
        "rmse": sklearn.root_mean_squared_error(a, b),
    }
    if a.size > 1:  # of one number scikit-learn says NaN, we 0 or 1: no spread to explain
        expected["r2"] = sklearn.r2_score(a, b)
    assert {name: whole(metrics)[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert whole(collected(Regression(), right, right))["r2"] == 1


def test_a_class_for_each_step_counts_steps_and_resamples_sequences():
    random = np.random.default_rng(6)
    labels = random.integers(0, 3, (20, 7))
    output = random.random((20, 7, 3)).astype(np.float32)
    metrics = metrics_for("sequence", labels, None, (1, 7, 3))
    found = whole(collected(metrics, output, labels))
    assert found["accuracy"] == (output.argmax(-1) == labels).mean()
    assert metrics.statistics().sums.n == len(metrics.goodness()) == 20
    with pytest.raises(DataError, match="a label has 6 steps; the model's output has 7"):
        metrics.add(output[0], labels[0, :6])


@pytest.mark.parametrize(
    ("labels", "shape"),
    [
        (np.zeros((4, 7), np.float32), (1, 7, 3)),
        (np.zeros((4, 7, 3), np.int64), (1, 7, 3)),
        (np.zeros((4, 7), np.int64), (1, 7, 1)),
        (np.zeros(4, np.int64), (1, 3)),
    ],
)
def test_other_labels_of_sequences_are_numbers(labels, shape):
    assert isinstance(metrics_for("sequence", labels, None, shape), Regression)


def test_nan_is_never_counted_as_an_answer():
    with pytest.raises(CheckFailed, match="sample 0: the scores hold NaN"):
        classification(np.array([[np.nan, 1.0]], np.float32), np.array([1]))
    with pytest.raises(CheckFailed, match="sample 1: the output holds NaN or infinity"):
        collected(Regression(), [1.0, np.inf], [1.0, 1.0])


def test_minus_infinity_is_a_score_as_of_a_masked_class():
    scores = np.array([[-np.inf, 0.5, 0.2], [0.1, -np.inf, 0.3]], np.float32)
    metrics = classification(scores, np.array([1, 2]))
    assert whole(metrics)["accuracy"] == 1


@pytest.mark.parametrize("classes", [1, 2])
def test_one_sample_and_one_class_are_enough_for_what_can_be_told(classes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = classification(np.ones((1, classes), np.float32), np.array([0]))
        found = whole(metrics)
        metrics.statistics().of_resamples()
    assert found["accuracy"] == found["macro_f1"] == 1
    assert np.isnan(found["macro_roc_auc"])


def test_scores_beyond_what_memory_allows_are_kept_of_every_so_many_samples(monkeypatch):
    random = np.random.default_rng(7)
    labels = random.integers(0, 4, 101)
    scores = random.random((101, 4)).astype(np.float32)
    everything = whole(classification(scores, labels))
    monkeypatch.setattr(classification_module, "MOST_SCORES", 150)
    metrics = classification(scores, labels)
    found = whole(metrics)
    (note,) = metrics.notes
    assert "every 3th sample, 34 of 101" in note
    assert found["accuracy"] == everything["accuracy"]
    of_third = whole(classification(scores[::3], labels[::3]))
    assert found["macro_roc_auc"] == pytest.approx(of_third["macro_roc_auc"])


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("classification", np.zeros((4, 2), np.int64)),
        ("classification", np.zeros(4, np.float32)),
        ("segmentation", np.zeros(4, np.int64)),
    ],
)
def test_labels_of_a_form_that_the_task_has_no_use_for_are_refused(task, labels):
    with pytest.raises(DataError, match=f"{task} expects"):
        metrics_for(task, labels)


def test_a_regression_label_of_another_length_is_refused():
    with pytest.raises(DataError, match="a label has 2 numbers; the model's output has 3"):
        Regression().add(np.zeros(3, np.float32), np.zeros(2))


def test_mask_values_that_are_no_classes_are_refused():
    with pytest.raises(DataError, match="mask values must be 0..255"):
        Segmentation().add(SegmentationMap(np.zeros((2, 2), np.uint8), ()), np.full((2, 2), 300))


def test_figures_for_people():
    assert format_metric("macro_f1", 0.5) == "50.00 %"
    assert format_difference("r2", 0.25) == "+0.25"
    assert format_difference("accuracy", -0.0045) == "-0.45 points"
