"""A bundle on labelled sets whose right answer is known by construction."""

import numpy as np
import pytest

import edgekit
from edgekit.data import load_data
from edgekit.errors import DataError, ModelError, UsageError
from edgekit.evaluation.evaluate import (
    BundleModel,
    ReferenceModel,
    assess,
    compare_with_source,
    evaluate,
    main_metric,
    open_beside,
    summary_of,
)
from edgekit.specs import TensorSpec

# RGB, in the order of the classifier's labels: red, green, blue, white
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)


def pictures(labels):
    return np.broadcast_to(COLOURS[labels][:, None, None], (len(labels), 16, 16, 3)).copy()


def test_a_bundle_is_right_where_labels_are_right_and_wrong_where_not(classifier_bundle):
    labels = np.array([0, 1, 2, 3] * 5)
    said = labels.copy()
    said[:5] = (said[:5] + 1) % 4
    with edgekit.open(classifier_bundle) as model:
        evaluation = evaluate(model, load_data((pictures(labels), said)))
    assert evaluation.metrics["accuracy"] == 0.75
    assert (evaluation.task, evaluation.n) == ("classification", 20)


def test_class_folders_are_matched_by_name_not_by_order(classifier_bundle, tmp_path):
    import cv2

    for name, rgb in zip(("red", "green", "blue", "white"), COLOURS, strict=True):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), np.full((20, 20, 3), rgb[::-1], np.uint8))
    with edgekit.open(classifier_bundle) as model:
        assert evaluate(model, load_data(tmp_path)).metrics["accuracy"] == 1.0
        (tmp_path / "red").rename(tmp_path / "purple")
        with pytest.raises(DataError, match="classes that the model has not: purple"):
            evaluate(model, load_data(tmp_path))


def test_masks_are_compared_at_the_frames_size(segmenter_bundle):
    frame = np.zeros((1, 48, 64, 3), np.uint8)
    frame[:, :, 32:, 0] = 255  # the right half is red
    mask = np.zeros((1, 48, 64), np.int64)
    mask[:, :, 32:] = 1
    with edgekit.open(segmenter_bundle) as model:
        assert evaluate(model, load_data((frame, mask))).metrics["mean_iou"] > 0.95


def test_data_without_labels_is_refused(classifier_bundle):
    with (
        edgekit.open(classifier_bundle) as model,
        pytest.raises(DataError, match="has no labels; give an array y"),
    ):
        evaluate(model, load_data(pictures(np.array([0, 1]))))


class Source:
    """A source model that gives what it is told to; stands in for TensorFlow."""

    inputs = (TensorSpec("x", (1, 16, 16, 3), "float32"),)

    def __init__(self, output):
        self.output = np.asarray(output, np.float32)
        self.outputs = (TensorSpec("y", self.output.shape, "float32"),)

    def predict(self, inputs):
        return (self.output,)


def test_a_source_that_gives_nan_cannot_be_compared(classifier_bundle):
    data = load_data(pictures(np.array([0])))
    with (
        edgekit.open(classifier_bundle) as model,
        pytest.raises(ModelError, match="NaN or infinity on sample 0"),
    ):
        compare_with_source(Source([[np.nan, 0, 0, 0]]), model, data)


def test_a_source_with_other_outputs_is_refused(classifier_bundle):
    data = load_data(pictures(np.array([0])))
    with edgekit.open(classifier_bundle) as model, pytest.raises(ModelError, match="outputs"):
        compare_with_source(Source([[1, 0]]), model, data)


def test_both_models_are_measured_on_the_same_samples(classifier_bundle):
    labels = np.array([0, 1, 2, 3])
    with edgekit.open(classifier_bundle) as model:
        comparison = compare_with_source(
            Source([[1, 0, 0, 0]]), model, load_data((pictures(labels), labels))
        )
    assert comparison.accuracy.source == 0.25
    assert comparison.accuracy.converted == 1.0
    assert comparison.accuracy.drop == -0.75
    assert comparison.parity.agreement == 0.25
    test = summary_of(comparison.assessment).sign_test
    assert (test.better, test.worse) == (3, 0)
    assert test.p_value == pytest.approx(0.25)


def test_a_quantized_source_is_compared_by_its_real_values(classifier_bundle):
    """An int8 .tflite as source gives int8; its bundle must not differ from it."""
    from edgekit.converters.sources import open_source

    labels = np.array([0, 1, 2, 3])
    with edgekit.open(classifier_bundle) as model:
        source = open_source(classifier_bundle / "model.tflite", scratch=classifier_bundle)
        comparison = compare_with_source(source, model, load_data((pictures(labels), labels)))
    assert comparison.parity.snr_db == 200
    assert comparison.accuracy.source == 1.0


def test_labels_that_the_model_has_no_class_for_are_refused(classifier_bundle):
    data = load_data((pictures(np.array([0, 1, 2, 3])), np.array([1, 2, 3, 4])))
    with (
        edgekit.open(classifier_bundle) as model,
        pytest.raises(DataError, match="labels go from 1 to 4; the model has 4 classes"),
    ):
        evaluate(model, data)


def test_one_implementation_serves_the_budget_and_the_evaluation(classifier_bundle):
    labels = np.array([0, 1, 2, 3, 0, 0])
    data = load_data((pictures(labels), (labels + (labels == 0)) % 4))
    with edgekit.open(classifier_bundle) as model:
        alone = evaluate(model, data)
        beside = compare_with_source(Source([[1, 0, 0, 0]]), model, data)
        assert main_metric(BundleModel(model), model, data) == alone.metrics["accuracy"] == 0.5
        assert main_metric(ReferenceModel(Source([[1, 0, 0, 0]]), model), model, data) == 0
    assert (beside.accuracy.source, beside.accuracy.converted) == (0, 0.5)
    together = summary_of(beside.assessment)
    for name, value in alone.metrics.items():
        assert together.metrics[name] == value
        assert together.intervals[name] == alone.intervals[name]


def test_each_class_has_its_figures_and_an_absent_one_has_none(classifier_bundle):
    labels = np.array([0, 0, 1, 1])
    with edgekit.open(classifier_bundle) as model:
        found = evaluate(model, load_data((pictures(labels), labels)))
    red, green, blue, white = found.classes
    assert (red.name, red.n, red.metrics["f1"]) == ("red", 2, 1.0)
    assert (green.n, green.metrics["roc_auc"]) == (2, 1.0)
    assert blue.n == white.n == 0
    assert set(blue.metrics.values()) == set(blue.intervals.values()) == {None}
    assert found.confusion == [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert sum(one.n for one in found.calibration) == 4


def test_the_gravest_changes_come_first(classifier_bundle):
    """A source that says red: right answers that became wrong, then others, then mended ones."""
    shown, said = np.array([0, 1, 2, 1]), np.array([0, 0, 3, 1])
    data = load_data((pictures(shown), said))
    with edgekit.open(classifier_bundle) as model:
        beside = compare_with_source(Source([[1, 0, 0, 0]]), model, data)
    changed = summary_of(beside.assessment).changed
    assert changed.n == 3
    assert [one.index for one in changed.samples] == [1, 2, 3]
    first = changed.samples[0]
    assert (first.label, first.source, first.converted) == ("red", "red", "green")
    assert first.source_score == 1


def test_two_bundles_are_compared_without_a_converter(make_bundle, segmenter_bundle):
    labels = np.array([0, 1, 2, 3])
    data = load_data((pictures(labels), labels))
    with edgekit.open(make_bundle()) as model:
        with open_beside(model, make_bundle(precision="fp32"), None) as other:
            found = summary_of(assess(model, data, other))
        assert found.metrics["source_accuracy"] == found.metrics["accuracy"] == 1
        assert 30 < found.metrics["snr_db"] < 200
        assert found.changed.n == 0
        with (
            pytest.raises(UsageError, match="only bundles of the same task and classes compare"),
            open_beside(model, segmenter_bundle, None),
        ):
            pass


def test_maps_that_changed_are_kept_of_the_worst_samples_only(segmenter_bundle):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (9, 16, 16, 3)).astype(np.uint8)
    masks = random.integers(0, 3, (9, 16, 16))
    with edgekit.open(segmenter_bundle) as model:
        beside = compare_with_source(
            Source(np.eye(3)[random.integers(0, 3, (1, 8, 8))]), model, load_data((frames, masks))
        )
    changed = summary_of(beside.assessment).changed
    assert changed.n == 9
    amounts = [one.amount for one in changed.samples]
    assert len(amounts) == 6
    assert amounts == sorted(amounts, reverse=True)
    assert 0.2 < amounts[0] <= 1
