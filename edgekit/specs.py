"""What a model takes and gives, as frozen values that travel in the bundle."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from edgekit.errors import UsageError, expect_one_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Task = Literal["classification", "segmentation", "sequence", "regression"]
Resize = Literal["stretch", "letterbox", "center_crop", "tile"]
Interpolation = Literal["nearest", "linear", "area", "cubic"]
Color = Literal["rgb", "bgr", "gray"]
Layout = Literal["nhwc", "nchw", "as_is"]
Activation = Literal["none", "softmax", "sigmoid"]
Precision = Literal["fp32", "fp16", "dynamic", "int8", "int16x8", "auto"]
"""``int8``: ``static_wi8_ai8``, int8 inputs too, outputs int8 or int16; ``int16x8``:
``static_wi8_ai16``, int16 inputs and outputs; ``dynamic``: ``dynamic_wi8_afp32``; ``auto``: the
cheapest mix of int8, int16x8 and fp32 layers that keeps an accuracy budget."""

TASKS: tuple[str, ...] = get_args(Task)
PRECISIONS: tuple[str, ...] = get_args(Precision)


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output tensor.

    Attributes:
        name: as in the model file.
        shape: batch first, all dimensions fixed.
        dtype: a numpy name: ``float32``, ``int8``, ``uint8`` …
        scale: quantization step; real value = (q - zero_point) * scale. None: not quantized.
        zero_point: the integer that stands for 0.0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    @property
    def is_image(self) -> bool:
        """Whether this is a batch of grey or colour images, channels first or last."""
        return self.image_layout != "as_is"

    @property
    def image_layout(self) -> Layout:
        """``nhwc`` or ``nchw`` for images of 1 or 3 channels, else ``as_is``."""
        if len(self.shape) == 4:
            if self.shape[3] in (1, 3):
                return "nhwc"
            if self.shape[1] in (1, 3):
                return "nchw"
        return "as_is"

    def quantize(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return real `values` (any shape) in this tensor's dtype, rounded and saturated."""
        import numpy as np

        if self.scale is None and np.dtype(self.dtype).kind not in "iu":
            return np.asarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(np.asarray(values, np.float64) / (self.scale or 1)) + (self.zero_point or 0)
        quantized: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return quantized

    def dequantize(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return `values` of this tensor's dtype as real float32 values of the same shape.

        Floats of a quantized tensor are real values already, as the blended scores of tiles are.
        """
        import numpy as np

        real = np.asarray(values, np.float32)
        if self.scale is None or values.dtype.kind == "f":
            return real
        return (real - np.float32(self.zero_point or 0)) * np.float32(self.scale)


def class_count(task: Task, output: TensorSpec, layout: Layout) -> int | None:
    """Return how many classes an output tells apart, or None where it tells numbers.

    Args:
        task: what the output means.
        output: batch first.
        layout: of the input; pictures come out as they went in.

    >>> class_count("classification", TensorSpec("y", (1, 10), "float32"), "nhwc")
    10
    """
    if task == "classification":
        count = output.shape[-1]
    elif task == "segmentation" and len(output.shape) == 4:
        count = output.shape[1 if layout == "nchw" else 3]
    else:
        return 2 if task == "segmentation" else None
    return 2 if count == 1 else count


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a frame becomes the model's input: real value = (pixel * scale - mean) / std.

    What is no image (layout ``as_is``) is scaled element by element, floats as well as integers,
    and cut into windows where the model takes several steps at a time.

    Attributes:
        size: (height, width) in pixels of the model's input; None: not an image, or not yet known.
        resize: ``stretch`` ignores the aspect ratio, ``letterbox`` keeps it and fills the rest
            with `pad`, ``center_crop`` cuts the largest centred part of the right aspect ratio,
            ``tile`` runs a segmentation on overlapping parts of the frame as it is, and blends.
        interpolation: as OpenCV's INTER_* of that name, on uint8 pixels.
        color: channel order that the model was trained with.
        scale: factor on pixels 0..255, or on the numbers of what is no image.
        mean: subtracted after scaling; one value, or one a channel in the order of `color`; where
            the input is no image, one a feature (its last axis).
        std: divisor after that; one value, or one a channel or feature.
        layout: order of dimensions; ``as_is``: no image, element-wise scaling only.
        pad: grey level 0..255 around a letterboxed frame.
        window: steps that the model takes at a time, of an input [1, window, features]; None: it
            takes no sequence.
        hop: steps from the start of a window to that of the next one; None: `window`, so that
            windows follow each other without overlap.
        overlap: of neighbouring tiles, pixels; None: an eighth of the model's input, see
            `for_input`.
    """

    size: tuple[int, int] | None = None
    resize: Resize = "stretch"
    interpolation: Interpolation = "linear"
    color: Color = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "nhwc"
    pad: int = 0
    window: int | None = None
    hop: int | None = None
    overlap: int | None = None

    @property
    def leaves_values(self) -> bool:
        """Whether scale, mean and std change nothing."""
        return self.scale == 1 and not any(self.mean) and all(std == 1 for std in self.std)

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read a preset, pairs, or a preset followed by pairs.

        >>> Preprocess.parse("unit,color=bgr,size=96x128").size
        (96, 128)

        Raises:
            UsageError: unknown preset, key or value.
        """
        first, *rest = text.split(",")
        pairs = text.split(",") if "=" in first else rest
        start = cls() if "=" in first else _preset(first.strip())
        changes: dict[str, Any] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"`preprocess` takes PRESET,key=value,…; got {pair!r} in {text!r}")
            changes[key.strip()] = _value(key.strip(), value.strip())
        return msgspec.structs.replace(start, **changes)

    def as_text(self) -> str:
        """Return pairs that `parse` reads as the same, but for size, window and layout.

        >>> Preprocess.parse("unit,color=bgr").as_text()
        'color=bgr,scale=0.00392156862745098'
        """
        plain = Preprocess()
        pairs = []
        names = (
            "resize",
            "interpolation",
            "color",
            "scale",
            "mean",
            "std",
            "pad",
            "hop",
            "overlap",
        )
        for key in names:
            value = getattr(self, key)
            if value != getattr(plain, key):
                text = ":".join(map(repr, value)) if isinstance(value, tuple) else str(value)
                pairs.append(f"{key}={text}")
        return ",".join(pairs) or "raw"

    def for_input(self, spec: TensorSpec) -> Preprocess:
        """Return this with size, window, layout, grey colour and overlap for the input `spec`.

        The overlap that nobody chose is an eighth of the input's smaller side, in multiples of 16,
        which keep tiles on the grid of a network with four poolings; at most half of that side.
        """
        if not spec.is_image:
            self._check_channels(spec.shape[-1] if len(spec.shape) > 1 else 1)
            window = self._window_of(spec)
            if self.resize == "tile":
                raise UsageError(
                    "`preprocess` resize=tile needs a model of pictures; "
                    f"this one's input is {list(spec.shape)}"
                )
            self._overlap_of(0)
            return msgspec.structs.replace(self, size=None, layout="as_is", window=window)
        self._window_of(spec)
        layout = spec.image_layout
        height, width, channels = (
            (spec.shape[1], spec.shape[2], spec.shape[3])
            if layout == "nhwc"
            else (spec.shape[2], spec.shape[3], spec.shape[1])
        )
        if self.size is not None and self.size != (height, width):
            raise UsageError(
                f"`preprocess` size {self.size[0]}x{self.size[1]} is not the model's input "
                f"{height}x{width}; leave it out, or fix the model with --input-shape"
            )
        if channels == 3 and self.color == "gray":
            raise UsageError("`preprocess` color=gray needs a 1-channel input; the model takes 3")
        self._check_channels(channels)
        color: Color = "gray" if channels == 1 else self.color
        return msgspec.structs.replace(
            self,
            size=(height, width),
            layout=layout,
            color=color,
            overlap=self._overlap_of(min(height, width)),
        )

    def _overlap_of(self, side: int) -> int | None:
        if self.resize != "tile":
            if self.overlap is not None:
                raise UsageError(
                    f"`preprocess` overlap={self.overlap} is for resize=tile; got "
                    f"resize={self.resize}"
                )
            return None
        if self.overlap is None:
            return min(side // 2, 16 * -(-side // 128))
        if not 0 <= self.overlap <= side // 2:
            raise UsageError(
                f"`preprocess` overlap={self.overlap} must be 0 to {side // 2}, half of the "
                "model's input"
            )
        return self.overlap

    def _window_of(self, spec: TensorSpec) -> int | None:
        """Return how many steps an input [1, steps, features] takes at a time; None for others."""
        is_sequence = not spec.is_image and len(spec.shape) == 3
        window = spec.shape[1] if is_sequence else None
        if self.window not in (None, window) or (self.hop is not None and window in (None, 1)):
            name = "hop" if self.window in (None, window) else "window"
            takes = f"takes windows of {window} steps" if is_sequence else "takes no windows"
            raise UsageError(
                f"`preprocess` {name}={getattr(self, name)} does not fit the model's input "
                f"{spec.name!r} {list(spec.shape)}, which {takes}; leave it out"
            )
        return window

    def _check_channels(self, channels: int) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise UsageError(
                    f"`preprocess` {name} has {len(values)} values; "
                    f"the model's input takes {'1' if channels == 1 else f'1 or {channels}'}"
                )


class Postprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How raw outputs become a value.

    Attributes:
        activation: applied to the first output before it is read: ``softmax`` or ``sigmoid`` where
            the model ends in logits, ``none`` where it ends in probabilities or plain numbers.
        top_k: classes kept for a classification.
        threshold: probability from which a one-channel segmentation says class 1.
        upsample: how a segmentation gets to the frame's size: ``linear`` interpolates the scores
            and then chooses classes, ``nearest`` repeats the classes.
    """

    activation: Activation = "none"
    top_k: int = 5
    threshold: float = 0.5
    upsample: Literal["nearest", "linear"] = "nearest"


_SIGNED = Preprocess(scale=1 / 127.5, mean=(1.0,))
_IMAGENET = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CAFFE = Preprocess(color="bgr", mean=(103.939, 116.779, 123.68))
PRESETS = {
    "raw": Preprocess(),
    "unit": Preprocess(scale=1 / 255),
    "signed": _SIGNED,
    "imagenet": _IMAGENET,
    "caffe": _CAFFE,
}
# keras.applications.NAME.preprocess_input, by mode: "tf", "caffe", "torch" or nothing.
# A test compares each with Keras itself.
KERAS_APPLICATIONS = {
    **dict.fromkeys(
        ("inception_resnet_v2", "inception_v3", "mobilenet", "mobilenet_v2", "nasnet"), _SIGNED
    ),
    **dict.fromkeys(("resnet_v2", "xception"), _SIGNED),
    **dict.fromkeys(("resnet", "resnet50", "vgg16", "vgg19"), _CAFFE),
    "densenet": _IMAGENET,
    **dict.fromkeys(
        ("convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3"), PRESETS["raw"]
    ),
}


def _preset(name: str) -> Preprocess:
    if name.startswith("keras:"):
        application = expect_one_of("preprocess", name[6:], KERAS_APPLICATIONS)
        return KERAS_APPLICATIONS[application]
    if name not in PRESETS:
        raise UsageError(
            f"`preprocess` must be {', '.join(PRESETS)}, keras:NAME or pairs key=value; "
            f"got {name!r}"
        )
    return PRESETS[name]


def _value(key: str, text: str) -> Any:
    """Convert one pair's text: 1/255, 0.485:0.456:0.406, 224x224 or a word."""
    try:
        if key == "size":
            height, width = (int(part) for part in text.split("x"))
            if height < 1 or width < 1:
                raise ValueError(text)
            return height, width
        if key == "overlap":
            if int(text) < 0:
                raise ValueError(text)
            return int(text)
        if key == "pad":
            if not 0 <= int(text) <= 255:
                raise ValueError(text)
            return int(text)
        if key in ("window", "hop"):
            if int(text) < 1:
                raise ValueError(text)
            return int(text)
        if key == "scale":
            return float(Fraction(text))
        if key in ("mean", "std"):
            numbers = tuple(float(Fraction(part)) for part in text.split(":"))
            if key == "std" and min(numbers) <= 0:
                raise ValueError(text)
            return numbers
    except (ValueError, ArithmeticError) as error:
        raise UsageError(
            f"`preprocess` {key}={text!r} cannot be read; write size=HxW, pad=0..255, "
            f"scale=1/255, mean=0.485:0.456:0.406, std=… above 0, hop=STEPS, 1 or more, "
            f"overlap=PIXELS"
        ) from error
    words = {"resize": Resize, "interpolation": Interpolation, "color": Color, "layout": Layout}
    if key not in words:
        known = ", ".join(Preprocess.__struct_fields__)
        raise UsageError(f"`preprocess` has no key {key!r}; it has {known}")
    return expect_one_of(f"preprocess {key}", text, get_args(words[key]))
