"""The settings of a conversion, as the command line, Python and recipe files give them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgekit import plugins, targets
from edgekit.bundle import read_bundle
from edgekit.converters.quantize import INT8_STEPS
from edgekit.converters.quantize.ranges import OBSERVERS, Observer
from edgekit.errors import DataError, InputError, UsageError, expect_one_of
from edgekit.specs import PRECISIONS, TASKS, Preprocess, Task
from edgekit.streaming import RESETS, ResetOn

CALIBRATED = ("int8", "int16x8", "auto")
"""Precisions that need ranges."""
OUTPUT_BITS = (8, 16)
_INT8 = ("int8", "auto")
_FORMATS_OF = {".tflite": ("litert",), ".onnx": ("onnx",)}


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to convert a model; `docs/converting.md` describes every setting.

    Attributes:
        precision: see `edgekit.specs.Precision`; None: the best that `target` runs and that needs
            no data that is not given, or fp32 without a target.
        format: of the compiled model, a module of `edgekit.converters.formats`; None: the best of
            `target` that the model can become, or LiteRT without a target (ONNX for .onnx).
        target: name of a device, or None: whatever runs the format.
        data: calibration set, as `edgekit.data.load_data` takes it.
        eval_data: labelled evaluation set.
        preprocess: preset and pairs, as `Preprocess.parse` takes it; None: `raw`, with a warning.
        labels: file of class names, one a line, or the names.
        task: what the output means; None: told from its shape and values.
        input_shape: fixes open dimensions, batch first.
        max_drop: largest loss of the task's metric that is accepted, 0..1.
        calibration_samples: most samples used for calibration, spread over the set.
        int8_steps: what is done to a Keras model before it is made int8, of
            `edgekit.converters.quantize.INT8_STEPS`; empty: ranges alone.
        observer: how ranges of activations are chosen, one of `OBSERVERS`.
        ranges: file or bundle with ranges that replace observed ones.
        output_bits: of an int8 .tflite's outputs, 8 or 16; None: 16 where that costs next to
            nothing, see `edgekit.converters.tflite.head`.
        golden_frames: keep the raw frames of the golden samples in the bundle.
        streaming: compile a recurrent model to one step of its sequence, with the state outside.
        reset_on: what makes the state zero in a stream, of `edgekit.streaming.RESETS`; None:
            `edgekit.streaming.DEFAULT_RESETS`.
    """

    precision: str | None = None
    format: str | None = None
    target: str | None = None
    data: str | None = None
    eval_data: str | None = None
    preprocess: str | None = None
    labels: str | tuple[str, ...] | None = None
    task: Task | None = None
    input_shape: tuple[int, ...] | None = None
    max_drop: float | None = None
    calibration_samples: int = 512
    int8_steps: tuple[str, ...] = INT8_STEPS
    observer: Observer = "minmax"
    ranges: str | None = None
    output_bits: int | None = None
    golden_frames: bool = True
    streaming: bool = False
    reset_on: tuple[ResetOn, ...] | None = None

    def check(self) -> Recipe:
        """Return this, or raise `UsageError` for a setting that cannot be."""
        if self.precision is not None:
            expect_one_of("precision", self.precision, PRECISIONS)
        if self.task is not None:
            expect_one_of("task", self.task, TASKS)
        if self.format is not None:
            expect_one_of("format", self.format, plugins.names("format"))
        if self.target is not None:
            targets.read_target(self.target)
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise UsageError(f"`max_drop` must be 0%..100%; got {self.max_drop}")
        if self.calibration_samples < 1:
            raise UsageError(
                f"`calibration_samples` must be at least 1; got {self.calibration_samples}"
            )
        if self.precision == "auto" and self.max_drop is None:
            raise UsageError(
                "`precision` auto needs `max_drop`, the largest loss it may cost: --max-drop 0.5%"
            )
        if self.reset_on is not None and not self.streaming:
            raise UsageError("`reset_on` is about the state of a stream: say --streaming too")
        if self.streaming and self.precision == "auto":
            raise UsageError(
                "`precision` auto mixes precisions layer by layer, and a stream has its own mix "
                "already: choose int8, int16x8, fp16 or fp32"
            )
        for step in self.int8_steps:
            expect_one_of("int8_steps", step, INT8_STEPS)
        expect_one_of("observer", self.observer, OBSERVERS)
        if self.output_bits not in (None, *OUTPUT_BITS):
            raise UsageError(f"`output_bits` must be 8 or 16; got {self.output_bits}")
        if self.input_shape is not None and (
            len(self.input_shape) < 2 or min(self.input_shape) < 1 or self.input_shape[0] != 1
        ):
            raise UsageError(
                f"`input_shape` must be 1xHxWxC or the like, batch 1; got "
                f"{'x'.join(map(str, self.input_shape))}"
            )
        if self.preprocess is not None:
            Preprocess.parse(self.preprocess)
        return self

    def resolved(self, suffix: str, can_calibrate: bool) -> Recipe:
        """Return this, checked, with a format and a precision.

        Args:
            suffix: of the model's file, in lower case; empty for a model in memory or a folder.
            can_calibrate: whether ranges are to be had, from data or with the model.

        Raises:
            UsageError: the model cannot become that, or the target does not run it.
        """
        self.check()
        possible = _FORMATS_OF.get(suffix, tuple(plugins.names("format")))
        device = None if self.target is None else targets.read_target(self.target)
        offered = possible if device is None else device.formats
        chosen = self.format or next((name for name in offered if name in possible), possible[0])
        if chosen not in possible:
            raise UsageError(f"a {suffix} becomes {' or '.join(possible)}; got `format` {chosen!r}")
        precisions = plugins.load("format", chosen).PRECISIONS
        runs = precisions if device is None else device.precisions(chosen)
        precision = self.precision or "fp32"
        if device is not None and self.precision is None:
            ready = (p for p in runs if p in precisions and (p not in CALIBRATED or can_calibrate))
            precision = next((p for p in ready if p != "auto"), "fp32")
        if device is not None and precision not in runs:
            able = "; ".join(f"{f} in {', '.join(device.precisions(f))}" for f in device.formats)
            raise UsageError(
                f"`target` {self.target} runs {able}; got `format` {chosen!r}, `precision` "
                f"{precision!r}"
            )
        if precision not in precisions:
            raise UsageError(
                f"`format` {chosen} comes in {', '.join(precisions)}; got `precision` {precision!r}"
            )
        if self.ranges is not None and precision not in CALIBRATED:
            raise UsageError(
                f"`ranges` are for {', '.join(CALIBRATED)}; got `precision` {precision!r}: leave "
                "them out, or choose one of those"
            )
        if self.output_bits is not None and (chosen != "litert" or precision not in _INT8):
            raise UsageError(
                f"`output_bits` is about int8 models of litert; got `format` {chosen}, `precision` "
                f"{precision!r}: leave it out"
            )
        return msgspec.structs.replace(self, format=chosen, precision=precision)


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe with these settings, which may come from Python, TOML or options.

    Raises:
        UsageError: a setting that there is not, or of the wrong type.
    """
    given = dict(settings)
    if isinstance(given.get("max_drop"), str):
        given["max_drop"] = parse_drop(given["max_drop"])
    for name, known in (("task", TASKS), ("observer", OBSERVERS)):
        if isinstance(given.get(name), str):
            expect_one_of(name, given[name], known)
    for cause in given.get("reset_on") or ():
        expect_one_of("reset_on", cause, RESETS)
    try:
        return msgspec.convert(given, Recipe)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"a setting cannot be used: {error}; settings are {', '.join(Recipe.__struct_fields__)}"
        ) from error


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the settings in a recipe: a TOML file, or a bundle made with one.

    Raises:
        InputError: no such file, no TOML, or settings that there are not.
    """
    try:
        if path.is_dir():
            settings = read_bundle(path).manifest.recipe
        else:
            settings = msgspec.toml.decode(path.read_bytes())
        given = recipe_of(settings)
    except OSError as error:
        raise DataError(f"cannot read recipe {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InputError(f"recipe {path} cannot be used: {error}") from error
    return {name: getattr(given, name) for name in settings}


def parse_drop(text: str) -> float:
    """Read `0.5%` as 0.005, half a percentage point; a plain number is a share already."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise UsageError(f"`max_drop` must look like 0.5%; got {text!r}") from error


def parse_list(text: str) -> tuple[str, ...]:
    """Read `equalize,round`; `none` is empty."""
    return () if text == "none" else tuple(text.split(","))


def parse_shape(text: str) -> tuple[int, ...]:
    """Read `1x224x224x3`."""
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError as error:
        raise UsageError(f"`input_shape` must look like 1x224x224x3; got {text!r}") from error


def read_labels(path: str) -> tuple[str, ...]:
    """Read class names, one a line.

    Raises:
        DataError: no such file, or no UTF-8 text.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"labels {path} are not UTF-8 text") from error
    return tuple(line.strip() for line in lines if line.strip())
