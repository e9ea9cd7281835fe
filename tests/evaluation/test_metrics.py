"""The metrics against formulas written out the long way."""

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.evaluation.metrics import Classification, Regression, Segmentation, metrics_for
from edgekit.runtime.postprocess import ClassScore, SegmentationMap


def scores(*order):
    return tuple(ClassScore(index, str(index), 1 / (rank + 1)) for rank, index in enumerate(order))


def test_accuracy_counts_the_best_class_and_the_best_five():
    metrics = Classification()
    metrics.add(scores(3, 1, 2), 3)
    metrics.add(scores(1, 3, 2), 3)
    metrics.add(scores(0, 1, 2, 4, 5, 3), 3)
    metrics.add(scores(0, 1, 2, 4, 5), 9)
    assert metrics.results() == {"accuracy": 0.25, "top5_accuracy": 0.5}


def test_segmentation_equals_intersection_over_union_by_sets():
    random = np.random.default_rng(0)
    metrics = Segmentation()
    found = random.integers(0, 3, (4, 20, 30)).astype(np.uint8)
    right = np.where(random.random((4, 20, 30)) < 0.7, found, random.integers(0, 3, (4, 20, 30)))
    for one, other in zip(found, right, strict=True):
        metrics.add(SegmentationMap(one, ()), other)
    ious = [
        ((found == c) & (right == c)).sum() / ((found == c) | (right == c)).sum() for c in range(3)
    ]
    results = metrics.results()
    assert results["mean_iou"] == pytest.approx(np.mean(ious))
    assert results["pixel_accuracy"] == pytest.approx((found == right).mean())


def test_segmentation_leaves_out_pixels_that_are_not_labelled_or_not_seen():
    found = np.array([[0, 1, 255, 1]], np.uint8)
    right = np.array([[0, 1, 1, 255]])
    metrics = Segmentation()
    metrics.add(SegmentationMap(found, ()), right)
    assert metrics.results() == {"pixel_accuracy": 1.0, "mean_iou": 1.0}


def test_segmentation_brings_the_map_to_the_masks_size():
    found = np.array([[0, 1], [1, 0]], np.uint8)
    metrics = Segmentation()
    metrics.add(SegmentationMap(found, ()), np.kron(found, np.ones((4, 4), int)))
    assert metrics.results()["mean_iou"] == 1.0


def test_regression_equals_its_formulas():
    random = np.random.default_rng(1)
    right = random.normal(size=(50, 3))
    found = right + random.normal(scale=0.1, size=right.shape)
    metrics = Regression()
    for one, other in zip(found, right, strict=True):
        metrics.add(one, other)
    error = found - right
    results = metrics.results()
    assert results["mae"] == pytest.approx(np.abs(error).mean())
    assert results["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert results["r2"] == pytest.approx(
        1 - (error**2).sum() / ((right - right.mean()) ** 2).sum()
    )


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
