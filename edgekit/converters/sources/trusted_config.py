"""Check what a Keras model's configuration would load, before anything is loaded.

A configuration names classes and functions, and may carry Python bytecode. Only Keras' own
modelling objects and what the caller passes in `custom_objects` (or has registered with
`keras.saving.register_keras_serializable`, as EdgeKit does with its own layers) are let through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekit.errors import ModelError, UnsafeModelError, require

_DEPTH_LIMIT = 200
# Where Keras keeps the classes that models are made of. Its other modules hold utilities, of which
# some download and unpack files.
_MODELLING = (
    *("activations", "applications", "constraints", "dtype_policies", "initializers"),
    *("layers", "losses", "metrics", "models", "ops", "optimizers", "quantizers", "random"),
    "regularizers",
)
_TRUSTED_MODULES = tuple(f"{root}.{name}" for root in ("keras", "keras.src") for name in _MODELLING)
_FUNCTION_MODULES = (
    *("activations", "constraints", "initializers", "losses", "metrics", "regularizers"),
)
# Plain data that Keras writes in the form of an object.
_DATA = {
    "__keras_tensor__",
    "__tensor__",
    "__numpy__",
    "__bytes__",
    "__ellipsis__",
    "__slice__",
    "__tuple__",
    "TensorShape",
}
# Classes of Keras 2 that Keras 3 has no more, or under another name.
_KERAS_2 = {"Functional", "Model", "Policy", "ThresholdedReLU", "LocallyConnected1D"} | {
    "LocallyConnected2D",
    "CuDNNLSTM",
    "CuDNNGRU",
    "SyncBatchNormalization",
    "BatchNormalizationV1",
    "BatchNormalizationV2",
    "SlicingOpLambda",
}
_PURE_SYMBOLS = {
    *(
        "__operators__.add",
        "__operators__.getitem",
        "cast",
        "clip_by_value",
        "concat",
        "expand_dims",
    ),
    *("identity", "image.resize", "math.abs", "math.add", "math.add_n", "math.divide", "math.exp"),
    *("math.log", "math.maximum", "math.minimum", "math.multiply", "math.negative", "math.pow"),
    *("math.reduce_max", "math.reduce_mean", "math.reduce_min", "math.reduce_sum", "math.rsqrt"),
    *("math.sigmoid", "math.softplus", "math.sqrt", "math.square", "math.subtract", "math.tanh"),
    *("math.truediv", "linalg.matmul", "nn.gelu", "nn.leaky_relu", "nn.relu", "nn.relu6"),
    *("nn.sigmoid", "nn.silu", "nn.softmax", "nn.space_to_depth", "nn.depth_to_space", "pad"),
    *("reshape", "split", "squeeze", "stack", "strided_slice", "tile", "transpose", "unstack"),
}


def check_config(config: Any, custom_objects: dict[str, Any], where: str) -> None:
    """Check the configuration of a .keras or .h5 file.

    Args:
        config: its JSON, decoded.
        custom_objects: what the caller trusts, by name.
        where: the file, for messages.

    Raises:
        UnsafeModelError: it holds code or needs objects that the caller did not pass.
        ModelError: it is no configuration, or nested too deeply.
    """
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ModelError(f"{where} holds no Keras model configuration; save it again")
    # Opened without compiling, a model's own loss, metrics and optimizer are never made.
    loaded = {key: value for key, value in config.items() if key != "compile_config"}
    for entry, layer in _objects(loaded, where):
        _check_object(entry, layer, custom_objects, where)


def _objects(config: Any, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each object of the configuration with the name of the layer that it stands in."""
    pending: list[tuple[Any, str, int]] = [(config, "the model", 0)]
    while pending:
        value, layer, depth = pending.pop()
        if depth > _DEPTH_LIMIT:
            raise ModelError(f"{where}: its configuration is nested too deeply; it is refused")
        if isinstance(value, dict):
            if "class_name" in value:
                inner = value.get("config")
                name = inner.get("name") if isinstance(inner, dict) else None
                layer = f"layer {name!r}" if isinstance(name, str) else layer
                yield value, layer
            pending += [(item, layer, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            pending += [(item, layer, depth + 1) for item in value]


def _check_object(
    entry: dict[str, Any], layer: str, custom_objects: dict[str, Any], where: str
) -> None:
    kind = entry["class_name"]
    if not isinstance(kind, str):
        raise ModelError(f"{where}: {layer} has a class that is no name; save the model again")
    inner = entry.get("config")
    if kind in _DATA:
        return
    if kind == "__lambda__" or (kind == "Lambda" and not _names_function(inner, custom_objects)):
        raise UnsafeModelError(
            f"{where}: {layer} is a Lambda, Python code inside the file, which EdgeKit never runs; "
            f"build the model in Python and pass it itself to edgekit.convert, or save it with a "
            f"named function in the Lambda and pass that as custom_objects={{'name': function}}"
        )
    if kind in ("TFOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"):
        symbol = inner.get("function") if isinstance(inner, dict) else None
        if kind == "TFOpLambda" and symbol in _PURE_SYMBOLS:
            return
        raise UnsafeModelError(
            f"{where}: {layer} calls {symbol or kind} of TensorFlow by name, which is not among "
            f"the operators that EdgeKit knows to be harmless; rebuild it from Keras layers"
        )
    vocabulary = inner.get("vocabulary") if isinstance(inner, dict) else None
    if kind == "TFSMLayer" or isinstance(vocabulary, str):
        raise UnsafeModelError(
            f"{where}: {layer} is a {kind} that reads {vocabulary or 'a SavedModel'} from disk "
            f"when the model is loaded; export the whole model as a SavedModel and convert that"
        )
    if not _is_known(entry, kind, inner, custom_objects):
        name = inner if kind == "function" else entry.get("registered_name") or kind
        raise UnsafeModelError(
            f"{where}: {layer} needs {name!r} (module {entry.get('module')}), which is not Keras' "
            f"own; pass custom_objects={{{name!r}: …}} to edgekit.convert from Python"
        )


def _names_function(inner: Any, custom_objects: dict[str, Any]) -> bool:
    """Whether a Lambda's configuration only names a function that the caller passed."""
    if not isinstance(inner, dict) or isinstance(inner.get("output_shape"), str):
        return False
    function = inner.get("function")
    if isinstance(function, dict):
        function = function.get("config") if function.get("class_name") == "function" else None
    return isinstance(function, str) and function in custom_objects


def _is_known(entry: dict[str, Any], kind: str, inner: Any, custom_objects: dict[str, Any]) -> bool:
    keras = require("keras", "convert")
    name = inner if kind == "function" else kind
    if not isinstance(name, str):
        return False
    registered = entry.get("registered_name")
    for key in (registered, name):
        if isinstance(key, str) and (
            key in custom_objects or keras.saving.get_registered_object(key) is not None
        ):
            return True
    module = entry.get("module")
    if module is None:
        return name in _KERAS_2 or _is_modelling(keras, name)
    if module == "builtins" and kind == "function":
        return any(hasattr(getattr(keras, part), name) for part in _FUNCTION_MODULES)
    if not isinstance(module, str):
        return False
    if kind == "function":
        return module in {f"keras.{part}" for part in (*_FUNCTION_MODULES, "ops", "random")}
    return module == "keras" or any(
        module == trusted or module.startswith(f"{trusted}.") for trusted in _TRUSTED_MODULES
    )


def _is_modelling(keras: Any, name: str) -> bool:
    """Whether a name without a module, as Keras 2 wrote it, is a class or function of Keras."""
    parts = ("layers", "models", "initializers", "regularizers", "constraints", "dtype_policies")
    return any(hasattr(getattr(keras, part), name) for part in (*parts, "activations"))
