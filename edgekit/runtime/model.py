"""An opened bundle: a callable from frame to prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from edgekit import plugins
from edgekit.bundle import Bundle, read_bundle
from edgekit.errors import BundleError, DataError, UsageError, expect_one_of
from edgekit.runtime.backends import Backend, default_threads
from edgekit.runtime.closing import Closing
from edgekit.runtime.events import Event
from edgekit.runtime.inputs import InputWriter, PreprocessOn
from edgekit.runtime.postprocess import Postprocessor, Value
from edgekit.runtime.preprocess import preprocessors
from edgekit.runtime.replay import replay_golden
from edgekit.runtime.state import StateKeeper
from edgekit.runtime.tiles import Tiles
from edgekit.specs import TensorSpec
from edgekit.targets import read_target, target_names

Frame = NDArray[Any] | tuple[NDArray[Any], ...]

_MOST_THREADS = 1024
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

    A bundle that streams takes one step of a sequence as a frame, [features], and keeps its state
    from call to call, until `reset`.

    Attributes:
        states: the state of a bundle that streams; None for others.
        preprocess_on: as in `open_model`.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        backend_name: str,
        preprocess_on: PreprocessOn = "auto",
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.backend_name = backend_name
        self.preprocess_on = preprocess_on
        manifest = bundle.manifest
        self._specs = manifest.data_outputs
        on_cpu = preprocessors(manifest.preprocess, manifest.data_inputs)
        self._write = [InputWriter(backend, i, p, preprocess_on) for i, p in enumerate(on_cpu)]
        self._postprocessor = Postprocessor(
            manifest.task,
            manifest.postprocess,
            backend.outputs[0],
            bundle.labels,
            on_cpu[0],
        )
        self._tiles = Tiles.of(manifest.task, manifest.preprocess, backend.inputs, backend.outputs)
        self._frame: NDArray[Any] | None = None  # whose tiles `infer` cuts
        self._output_layout = [(spec.shape, np.dtype(spec.dtype)) for spec in self._specs]
        streaming = manifest.streaming
        self.states = None if streaming is None else StateKeeper(streaming, backend)

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
        """Write `frame` into the backend's inputs; a GPU that does it may still be at it then."""
        if not isinstance(frame, tuple):
            frame = (frame,)
        if len(frame) != len(self._write):
            raise DataError(
                f"the model takes {len(self._write)} inputs; got {len(frame)}: "
                "give a tuple of arrays in the order of the bundle's inputs"
            )
        for write, part in zip(self._write, frame, strict=True):
            write(part)
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
        self._write[0](part)
        return self._run()[0]

    def _run(self) -> list[NDArray[Any]]:
        outputs = [np.empty(shape, dtype) for shape, dtype in self._output_layout]
        if self.states is None:
            self.backend.run(outputs)
        else:
            self.states.run(outputs)
        return outputs

    def postprocess(self, frame: Frame, outputs: list[NDArray[Any]]) -> Prediction:
        """Decode `outputs`; `frame` gives the size for a class map."""
        picture = frame[0] if isinstance(frame, tuple) else frame
        value = self._postprocessor(outputs[0], picture)
        return Prediction(value, outputs, self._specs)

    def predict_sample(self, sample: Frame) -> Prediction:
        """Return the prediction for one sample of a set, which does not continue the one before.

        Args:
            sample: a frame; for a bundle that streams a sequence of them, [steps, features]. Its
                outputs are then those of the last step, or of all steps, [1, steps, …], where the
                source gives them.

        Raises:
            DataError: a sample that the model cannot take.
        """
        streaming = self.bundle.manifest.streaming
        if streaming is None:
            return self(sample)
        self.reset()
        steps = []
        for frame in steps_of(sample):
            self.preprocess(frame)
            steps.append(self.infer())
        if not streaming.every_step:
            return self.postprocess(frame, steps[-1])
        together = [np.concatenate(arrays)[None] for arrays in zip(*steps, strict=True)]
        return self.postprocess(frame, together)

    def on_event(self, event: Event) -> None:
        """Take what happened to a stream: the bundle says whether its state ends there."""
        if self.states is not None:
            self.states.on_event(event)

    def reset(self) -> None:
        """Begin a new sequence: make the state zero, where the bundle has one."""
        if self.states is not None:
            self.states.reset()

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


def steps_of(sample: Frame) -> Iterator[Frame]:
    """Yield the frames of a sequence.

    Raises:
        DataError: it has no steps, or its arrays not as many each.
    """
    parts = sample if isinstance(sample, tuple) else (sample,)
    lengths = {len(part) if np.ndim(part) else 0 for part in parts}
    if lengths == {0} or len(lengths) != 1:
        raise DataError(
            f"a sequence must be [steps, features], at least one step; got "
            f"{', '.join(str(list(np.shape(part))) for part in parts)}"
        )
    for step in zip(*parts, strict=True):
        yield step if isinstance(sample, tuple) else step[0]


def open_model(
    path: str | Path | Bundle,
    *,
    backend: str | None = None,
    threads: int | None = None,
    check: bool = True,
    preprocess_on: PreprocessOn = "auto",
) -> Model:
    """Open a bundle for inference: `edgekit.open`.

    Args:
        path: the bundle's folder, or a bundle that was read.
        backend: name of a backend; by default the first that can run here, of those that the
            bundle's target names for its format, or of tensorrt, onnxruntime (onnx); litert.
        threads: CPU threads; by default the physical cores less one, at least one.
        check: replay the golden samples and compare.
        preprocess_on: ``auto``: where the backend's GPU can preprocess pictures and is seen to do
            what the CPU does, it does, else the CPU, which is told; ``cpu``; ``gpu``: or fail.

    Raises:
        BundleError: missing, damaged, or not what its manifest says.
        CheckFailed: this machine does not compute what the workstation did.
        UsageError: unknown backend, or one that cannot read the bundle's format, or that cannot
            preprocess where `preprocess_on` says.

    >>> with edgekit.open("shapes.edgekit") as model:
    ...     print(model(frame).value[0].label)
    """
    expect_one_of("preprocess_on", preprocess_on, get_args(PreprocessOn))
    bundle = path if isinstance(path, Bundle) else read_bundle(path)
    if threads is not None and threads < 1:
        raise UsageError(f"`threads` must be at least 1; got {threads}")
    if threads is not None and threads > _MOST_THREADS:  # LiteRT crashes where the system has none
        raise UsageError(f"`threads` must be at most {_MOST_THREADS}; got {threads}")
    format_ = bundle.manifest.format
    name = backend or _default_backend(format_, bundle.manifest.target)
    module = plugins.load("backend", name)
    if format_ not in module.READS:
        raise UsageError(f"backend {name} reads {', '.join(module.READS)}; the bundle is {format_}")
    engine: Backend = module.Backend(bundle.model_path, threads or default_threads())
    with ExitStack() as unless_opened:
        unless_opened.callback(engine.close)
        _check_against_manifest(bundle, engine)
        model = Model(bundle, engine, name, preprocess_on)
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
