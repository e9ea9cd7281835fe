"""An opened bundle: a callable from frame to prediction."""

from __future__ import annotations

import math
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit import plugins
from edgekit.bundle import Bundle, read_bundle
from edgekit.errors import BundleError, CheckFailed, DataError, UsageError
from edgekit.golden import GoldenSample
from edgekit.runtime.backends import Backend, default_threads
from edgekit.runtime.closing import Closing
from edgekit.runtime.postprocess import Postprocessor, Value, to_json
from edgekit.runtime.preprocess import preprocessors
from edgekit.runtime.tiles import Tiles
from edgekit.specs import TensorSpec
from edgekit.targets import read_target, target_names

Frame = NDArray[Any] | tuple[NDArray[Any], ...]

# For bundles of no target; the last of a list is taken where none says that it can run.
_BACKENDS = {"litert": ("litert",), "onnx": ("tensorrt", "onnxruntime")}


class Prediction:
    """What a model says of one frame; owns its arrays.

    Attributes:
        value: decoded: a tuple of `ClassScore`, a `SegmentationMap`, or float32 numbers.
    """

    __slots__ = ("_outputs", "_specs", "value")

    def __init__(
        self, value: Value, outputs: list[NDArray[Any]], specs: tuple[TensorSpec, ...]
    ) -> None:
        self.value = value
        self._outputs = outputs
        self._specs = specs

    @property
    def raw(self) -> NDArray[np.float32] | tuple[NDArray[np.float32], ...]:
        """The dequantized outputs, batch 1: an array for one output, else a tuple."""
        real = tuple(s.dequantize(o) for s, o in zip(self._specs, self._outputs, strict=True))
        return real[0] if len(real) == 1 else real

    @property
    def outputs(self) -> list[NDArray[Any]]:
        """The outputs in the model's own dtypes, batch 1."""
        return self._outputs

    def __repr__(self) -> str:
        return f"Prediction({self.value!r})"


class Model(Closing):
    """A verified bundle in a backend. Not for several threads at once: open it once a thread.

    Calling it with a frame does `preprocess`, `infer` and `postprocess`, which can also be called
    one by one, in this order, to time or overlap them.
    """

    def __init__(self, bundle: Bundle, backend: Backend, backend_name: str) -> None:
        self.bundle = bundle
        self.backend = backend
        self.backend_name = backend_name
        manifest = bundle.manifest
        self._preprocessors = preprocessors(manifest.preprocess, backend.inputs)
        self._postprocessor = Postprocessor(
            manifest.task,
            manifest.postprocess,
            backend.outputs[0],
            bundle.labels,
            self._preprocessors[0],
        )
        self._tiles = Tiles.of(manifest.task, manifest.preprocess, backend.inputs, backend.outputs)
        self._frame: NDArray[Any] | None = None  # whose tiles `infer` cuts
        self._output_layout = [(spec.shape, np.dtype(spec.dtype)) for spec in backend.outputs]

    def __call__(self, frame: Frame) -> Prediction:
        """Return the prediction for `frame`.

        Args:
            frame: uint8 BGR [h, w, 3], BGRA or grey picture, or a float model input; a tuple of
                those for a model of several inputs.

        Raises:
            DataError: a frame that the model cannot take.
        """
        self.preprocess(frame)
        return self.postprocess(frame, self.infer())

    def preprocess(self, frame: Frame) -> None:
        """Write `frame` into the backend's input buffers."""
        if not isinstance(frame, tuple):
            frame = (frame,)
        if len(frame) != len(self._preprocessors):
            raise DataError(
                f"the model takes {len(self._preprocessors)} inputs; got {len(frame)}: "
                "give a tuple of arrays in the order of the bundle's inputs"
            )
        for index, part in enumerate(frame):
            try:
                self._preprocessors[index](part, self.backend.input_buffer(index))
            except DataError as error:
                # Its frames hold the buffer, and LiteRT does not run while anyone does.
                traceback.clear_frames(error.__traceback__)
                raise
        self._frame = None if self._tiles is None or self._tiles.is_one(frame[0]) else frame[0]

    def infer(self) -> list[NDArray[Any]]:
        """Run the backend on what its input buffers hold; return the outputs, freshly allocated.

        With resize ``tile``, a larger frame's tiles are cut, preprocessed and run here, and the
        output is their blended scores, float32.
        """
        frame, self._frame = self._frame, None  # who fills the buffers by hand means those
        if self._tiles is None or frame is None:
            return self._run()
        return [self._tiles(frame, self._infer_tile)]

    def _infer_tile(self, part: NDArray[np.uint8]) -> NDArray[Any]:
        self._preprocessors[0](part, self.backend.input_buffer(0))
        return self._run()[0]

    def _run(self) -> list[NDArray[Any]]:
        outputs = [np.empty(shape, dtype) for shape, dtype in self._output_layout]
        self.backend.run(outputs)
        return outputs

    def postprocess(self, frame: Frame, outputs: list[NDArray[Any]]) -> Prediction:
        """Decode `outputs`; `frame` gives the size for a class map."""
        picture = frame[0] if isinstance(frame, tuple) else frame
        value = self._postprocessor(outputs[0], picture)
        return Prediction(value, outputs, self.backend.outputs)

    def class_scores(self, prediction: Prediction) -> NDArray[np.float32]:
        """Return the scores of all classes of a classification, [classes], not of the best only."""
        return self._postprocessor.class_scores(prediction.outputs[0])

    def probabilities(self, frame: Frame, prediction: Prediction) -> NDArray[np.float32]:
        """Return the probability of each class at each pixel: [height, width, classes], float32.

        Of a model with one channel: [height, width, 1], the probability of class 1. They have the
        size of `frame`, or of a float model input the output's, and are 0 beside a centre crop.

        Args:
            frame: what `prediction` was made of.
            prediction: of this model.

        Raises:
            UsageError: the model is no segmentation.
        """
        picture = frame[0] if isinstance(frame, tuple) else frame
        return self._postprocessor.segmenter().probabilities(prediction.outputs[0], picture)

    def close(self) -> None:
        """Release the backend."""
        self.backend.close()


def open_model(
    path: str | Path | Bundle,
    *,
    backend: str | None = None,
    threads: int | None = None,
    check: bool = True,
) -> Model:
    """Open a bundle for inference: `edgekit.open`.

    Args:
        path: the bundle's folder, or a bundle that was read.
        backend: name of a backend; by default the first that can run here, of those that the
            bundle's target names for its format, or of tensorrt, onnxruntime (onnx); litert.
        threads: CPU threads; by default the physical cores less one, at least one.
        check: replay the golden samples and compare.

    Raises:
        BundleError: missing, damaged, or not what its manifest says.
        CheckFailed: this machine does not compute what the workstation did.
        UsageError: unknown backend, or one that cannot read the bundle's format.

    >>> with edgekit.open("shapes.edgekit") as model:
    ...     print(model(frame).value[0].label)
    """
    bundle = path if isinstance(path, Bundle) else read_bundle(path)
    if threads is not None and threads < 1:
        raise UsageError(f"`threads` must be at least 1; got {threads}")
    format_ = bundle.manifest.format
    name = backend or _default_backend(format_, bundle.manifest.target)
    module = plugins.load("backend", name)
    if format_ not in module.READS:
        raise UsageError(f"backend {name} reads {', '.join(module.READS)}; the bundle is {format_}")
    engine: Backend = module.Backend(bundle.model_path, threads or default_threads())
    with ExitStack() as unless_opened:
        unless_opened.callback(engine.close)
        _check_against_manifest(bundle, engine)
        model = Model(bundle, engine, name)
        if check:
            replay_golden(model, bundle.golden())
        unless_opened.pop_all()
    return model


def _default_backend(format_: str, target: str | None) -> str:
    """Return the first backend that can run here; without the function `available`, one can."""
    names = _BACKENDS.get(format_, (format_,))
    if target in target_names():
        runs = (support for support in read_target(target).runs if support.format == format_)
        names = next((support.backends for support in runs), names)
    for name in names[:-1]:
        if getattr(plugins.load("backend", name), "available", lambda: True)():
            return name
    return names[-1]


def _check_against_manifest(bundle: Bundle, engine: Backend) -> None:
    manifest = bundle.manifest
    for said, found in ((manifest.inputs, engine.inputs), (manifest.outputs, engine.outputs)):
        if [(s.shape, s.dtype) for s in said] != [(f.shape, f.dtype) for f in found]:
            raise BundleError(
                f"bundle {bundle.path}: {manifest.model} has tensors "
                f"{[(list(f.shape), f.dtype) for f in found]}; the manifest says "
                f"{[(list(s.shape), s.dtype) for s in said]}"
            )


def replay_golden(model: Model, samples: list[GoldenSample]) -> None:
    """Compute the golden samples here and compare with what the workstation computed.

    Tolerances: preprocessing one grey level (resize kernels round differently); int8 outputs
    4 steps for 99 % of the values (kernels differ by 3-4); float outputs 1 % of the largest, or the
    share of it that the backend names as its `float_tolerance`.

    Raises:
        CheckFailed: outside the tolerances.
    """
    for number, sample in enumerate(samples):
        for index, array in enumerate(sample.inputs):
            _same_form(f"input {index}", array, model.backend.inputs[index])
        if sample.frame is not None:
            model.preprocess(sample.frame)
            _compare_input(model, number, sample)
        for index, array in enumerate(sample.inputs):
            model.backend.input_buffer(index)[...] = array
        for index, output in enumerate(model.infer()):
            _same_form(f"output {index}", sample.outputs[index], model.backend.outputs[index])
            _compare_output(model, number, output, sample.outputs[index])
        _compare_value(model, number, sample)


def _compare_value(model: Model, number: int, sample: GoldenSample) -> None:
    """Decode the stored outputs: the decoder has no tolerance but that of the last digits."""
    frame = sample.inputs[0] if sample.frame is None else sample.frame
    value = model.postprocess(frame, list(sample.outputs)).value
    try:
        there = msgspec.json.decode(sample.value)
    except msgspec.DecodeError as error:
        raise BundleError(f"golden sample {number}: its value is no JSON") from error
    here = msgspec.json.decode(to_json(value))
    if model.bundle.manifest.postprocess.upsample == "linear":
        here, there = _comparable_maps(here, there)
    if not _is_close(here, there):
        raise CheckFailed(
            f"golden sample {number}: the outputs decode to {str(to_json(value))[:80]} here, to "
            f"{str(sample.value)[:80]} on the workstation; use the EdgeKit that made the bundle"
        )


def _comparable_maps(here: Any, there: Any) -> tuple[Any, Any]:
    """Return class maps as equal where they differ by 0.2 % of the pixels: ties of interpolation.

    What is no class map is returned as it is.
    """
    if not all(isinstance(v, dict) and isinstance(v.get("shares"), dict) for v in (here, there)):
        return here, there
    one, other = here["shares"], there["shares"]
    names = one.keys() | other.keys()
    if not all(isinstance(share, float | int) for share in other.values()):
        return here, there
    same = all(math.isclose(one.get(n, 0), other.get(n, 0), abs_tol=0.002) for n in names)
    return (here | {"shares": {}}, there | {"shares": {}}) if same else (here, there)


def _is_close(here: Any, there: Any) -> bool:
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(_is_close(here[k], there[k]) for k in here)
    if isinstance(here, list) and isinstance(there, list):
        pairs = zip(here, there, strict=False)
        return len(here) == len(there) and all(_is_close(one, other) for one, other in pairs)
    if isinstance(here, float) and isinstance(there, float | int):
        return math.isclose(here, there, rel_tol=1e-4, abs_tol=1e-6)
    return bool(here == there)


def _same_form(what: str, array: NDArray[Any], spec: TensorSpec) -> None:
    if array.shape != spec.shape or array.dtype != spec.dtype:
        raise BundleError(
            f"golden {what} is {array.dtype} {list(array.shape)}; "
            f"the model has {spec.dtype} {list(spec.shape)}"
        )


def _compare_input(model: Model, number: int, sample: GoldenSample) -> None:
    spec, preprocess = model.backend.inputs[0], model.bundle.manifest.preprocess
    grey_level = abs(preprocess.scale) / min(preprocess.std) / (spec.scale or 1.0)
    here = model.backend.input_buffer(0).astype(np.float64)
    difference = float(np.abs(here - sample.inputs[0]).max())
    if not difference <= 1.01 * grey_level + (1 if spec.scale else 1e-6):
        raise CheckFailed(
            f"golden sample {number}: preprocessing differs by {difference:.4g} here, at most one "
            f"grey level ({grey_level:.4g}) is expected; check the OpenCV build"
        )


def _compare_output(model: Model, number: int, here: NDArray[Any], there: NDArray[Any]) -> None:
    difference = np.abs(here.astype(np.float64) - there.astype(np.float64))
    if here.dtype.kind in "iu":
        agrees = float((difference <= 4).mean()) >= 0.99
    else:
        share = getattr(model.backend, "float_tolerance", 0.01)
        agrees = bool((difference <= share * np.abs(there).max() + 1e-6).all())
    if not agrees:
        raise CheckFailed(
            f"golden sample {number}: {model.backend_name} ({model.backend.executes}) computes "
            f"other outputs here than the workstation did (largest difference "
            f"{difference.max():.4g}); try another backend or check=False"
        )
