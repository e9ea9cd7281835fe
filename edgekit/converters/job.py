"""What a conversion works on: model, sets and settings, opened and checked."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from edgekit import plugins
from edgekit.converters.audit import audit
from edgekit.converters.recipe import CALIBRATED, Recipe, read_labels
from edgekit.converters.samples import model_inputs, subset, synthetic, tiles_of
from edgekit.converters.sources import SourceModel, open_source
from edgekit.converters.sources.onnx import OnnxSource
from edgekit.converters.sources.tflite import TfliteSource
from edgekit.converters.streaming.source import StreamSource, stream_source
from edgekit.data import Dataset, load_data
from edgekit.errors import ModelError, UsageError
from edgekit.runtime.recordings import cut
from edgekit.runtime.tiles import Tiles
from edgekit.specs import Preprocess

_CONFIG_LIMIT_BYTES = 64 << 20
GOLDEN_SAMPLES = 4
PARITY_SAMPLES = 64
LAYER_SAMPLES = 16
NEEDS_DATA = (
    "needs `data`, a calibration set of real samples (100 to 500 are enough); nothing is "
    "calibrated on invented data"
)


class Job(msgspec.Struct, frozen=True):
    """What a conversion works on, opened and checked.

    Attributes:
        recipe: resolved.
        source: fitted to the format.
        preprocess: complete.
        calibration: set that ranges come from.
        evaluation: labelled set.
        labels: class names.
        stream: the source as a model of one step too, where that is what is asked for.
    """

    recipe: Recipe
    source: SourceModel
    preprocess: Preprocess
    calibration: Dataset | None
    evaluation: Dataset | None
    labels: tuple[str, ...]
    stream: StreamSource | None = None

    @property
    def compiled_source(self) -> SourceModel:
        """What becomes the bundle's model: the source, or one step of it."""
        return self.source if self.stream is None else self.stream.step

    @property
    def format(self) -> str:
        """What the model becomes, a module of `edgekit.converters.formats`."""
        return self.recipe.format or "litert"

    @property
    def precision(self) -> str:
        """In what precision."""
        return self.recipe.precision or "fp32"

    @property
    def samples(self) -> Dataset:
        """Real samples where there are any, to compare and to keep as golden ones.

        With resize ``tile`` they are tiles: how those are blended depends on no machine.
        """
        real = self.calibration or self.evaluation
        if real is None:
            return synthetic(self.preprocess, self.source.inputs, GOLDEN_SAMPLES)
        return tiles_of(real, self.preprocess)

    def unlabelled(self, count: int) -> Dataset:
        """Samples for parity alone: accuracy on what calibrated the model would flatter it."""
        return msgspec.structs.replace(subset(self.samples, count), labels=None)

    def calibration_inputs(self) -> Callable[[], Iterator[tuple[NDArray[Any], ...]]] | None:
        """Return what starts a pass over the calibration set, or None without one."""
        if self.calibration is None:
            return None
        if self.stream is not None and self.precision in CALIBRATED:
            steps = self.steps_of(subset(self.calibration, self.recipe.calibration_samples))
            return lambda: iter(steps)
        tiles = tiles_of(self.calibration, self.preprocess)
        chosen = subset(tiles, self.recipe.calibration_samples)
        return lambda: model_inputs(chosen, self.preprocess, self.source.inputs)

    def steps_of(self, data: Dataset) -> list[tuple[NDArray[Any], ...]]:
        """Return single steps of sequences with their states, as a stream's model takes them."""
        assert self.stream is not None
        return self.stream.calibration(model_inputs(data, self.preprocess, self.source.inputs))

    @property
    def calibrates(self) -> bool:
        """Whether ranges come from the calibration set; an int8 .tflite has its own already."""
        files = TfliteSource | OnnxSource
        is_done = isinstance(self.source, files) and self.source.precision == self.precision
        return self.calibration is not None and self.precision in CALIBRATED and not is_done

    def warnings(self, on_sample: Callable[[int, int], None] | None = None) -> tuple[str, ...]:
        """What the user should know before trusting the result; reads both sets.

        Args:
            on_sample: called with (done, total) while a set that calibrates is audited.

        Raises:
            DataError: a sample that cannot be read.
        """
        found = []
        if self.preprocess.size is not None and self.recipe.preprocess is None:
            found.append(
                "no preprocess was given: frames go in as raw RGB 0..255; if the model was trained "
                "otherwise its predictions will be wrong"
            )
        for data in (self.calibration, self.evaluation):
            if data is None:
                continue
            sample = data.read(0)
            is_scaled = self.preprocess.size is None and not self.preprocess.leaves_values
            if not is_scaled and (isinstance(sample, tuple) or sample.dtype != "uint8"):
                found.append(f"{data.name} holds model inputs, taken as they are, not preprocessed")
        if self.calibration is None and self.evaluation is None:
            found.append(
                "no data was given: parity and golden samples come from seeded synthetic inputs"
            )
        if self.calibration is not None and self.calibrates:
            chosen = subset(self.calibration, self.recipe.calibration_samples)
            inputs = self.source.inputs
            findings = audit(chosen, self.evaluation, self.preprocess, inputs, on_sample)
            found.extend(finding.message for finding in findings)
        return tuple(found)


def resolve(recipe: Recipe, model: Any, data: Any, eval_data: Any) -> Recipe:
    """Return the recipe with its format and precision; nothing has been read yet.

    Raises:
        UsageError: settings that cannot be, or sets that are missing.
    """
    suffix = Path(model).suffix.lower() if isinstance(model, str | Path) else ""
    brings_ranges = recipe.ranges is not None or _is_trained_for_integers(model)
    recipe = recipe.resolved(suffix, can_calibrate=data is not None or brings_ranges)
    has_ranges = brings_ranges or suffix in (".tflite", ".onnx")  # which may be int8 already
    if recipe.precision in CALIBRATED and data is None and not has_ranges:
        raise UsageError(f"`precision` {recipe.precision} {NEEDS_DATA}")
    if recipe.precision == "auto" and eval_data is None:
        raise UsageError(
            "`precision` auto needs `eval_data`, a labelled set to measure the drop on"
        )
    if recipe.max_drop is not None and eval_data is None:
        raise UsageError("`max_drop` needs `eval_data`, a labelled set to measure the drop on")
    return recipe


def _is_trained_for_integers(model: Any) -> bool:
    """Whether a Keras model seems to bring its ranges; without opening it."""
    if not isinstance(model, str | Path):
        layers = getattr(model, "layers", ())
        return any(type(layer).__module__.startswith("edgekit.") for layer in layers)
    path = Path(model)
    if path.suffix.lower() != ".keras":
        return False
    try:
        with zipfile.ZipFile(path) as archive, archive.open("config.json") as config:
            return b'"edgekit>' in config.read(_CONFIG_LIMIT_BYTES)
    except Exception:  # zipfile raises many kinds on what is damaged, which is said later
        return False


def open_job(
    recipe: Recipe,
    model: Any,
    data: Any,
    eval_data: Any,
    custom_objects: Mapping[str, Any] | None,
    scratch: Path,
) -> Job:
    """Open the sets and the model; `scratch` is a folder that outlives the job.

    Raises:
        DataError: a set that cannot be used.
        ModelError: a model that cannot be read.
        UsageError: a preprocess that does not fit the model.
    """
    calibration = None if data is None else load_data(data)
    evaluation = None if eval_data is None else load_data(eval_data)
    source = open_source(
        model, scratch=scratch, input_shape=recipe.input_shape, custom_objects=custom_objects
    )
    stream = stream_source(source) if recipe.streaming else None
    if stream is None:
        source = plugins.load("format", recipe.format or "litert").fitted(source)
    if not source.inputs[0].is_image and any(spec.is_image for spec in source.inputs[1:]):
        raise ModelError(
            "the model takes a picture, but not as its first input; build it with the picture "
            "first: only that one is preprocessed"
        )
    given = Preprocess.parse(recipe.preprocess or "raw")
    preprocess = given.for_input(source.inputs[0])
    calibration, evaluation = (
        None if data is None else cut(data, preprocess, source.inputs[0], source.outputs[0])
        for data in (calibration, evaluation)
    )
    # Refused here, before minutes of work, if the model cannot be run on tiles.
    Tiles.of(recipe.task or "segmentation", preprocess, source.inputs, source.outputs)
    if stream is not None:
        preprocess = given.for_input(stream.step.inputs[0])
    labels = _labels(recipe, calibration, evaluation)
    job = Job(recipe, source, preprocess, calibration, evaluation, labels, stream)
    if stream is not None:
        few = subset(job.samples, GOLDEN_SAMPLES)
        stream.check(model_inputs(few, preprocess, source.inputs))
    return job


def _labels(recipe: Recipe, *sets: Dataset | None) -> tuple[str, ...]:
    if recipe.labels is not None:
        return read_labels(recipe.labels) if isinstance(recipe.labels, str) else recipe.labels
    return next((data.classes for data in sets if data is not None and data.classes), ())
