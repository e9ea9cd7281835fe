"""From a bundle's .onnx to an engine, with the `tensorrt` or `tensorrt_rtx` that is given."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from edgekit.errors import EdgeKitError, EnvironmentLacks, ModelError, UsageError
from edgekit.runtime.engines.options import BuildOptions, EngineEvent, OnEvent, OnProgress
from edgekit.runtime.engines.versions import Api, api_of

# To be raised with every change below that makes another engine: it is part of their keys.
REVISION = 1
_ERRORS_TOLD = 3
_LINTER = "edgekit inspect FILE.onnx names nodes and remedies"


class Built(msgspec.Struct, frozen=True):
    """An engine, and what was timed for it: the next build's `timing_cache`, or b""."""

    engine: bytes
    timing_cache: bytes


def build_engine(
    onnx: bytes,
    options: BuildOptions,
    module: Any,
    *,
    timing_cache: bytes = b"",
    on_event: OnEvent | None = None,
    on_progress: OnProgress | None = None,
) -> Built:
    """Build the engine of an ONNX model.

    TensorRT works in a thread of its own: Ctrl-C reaches only the main thread, which would
    otherwise be in TensorRT's code until the build ends.

    Args:
        onnx: a serialized ModelProto, all weights inside.
        options: of the build.
        module: `tensorrt` or `tensorrt_rtx`, imported.
        timing_cache: what an earlier build returned, from the same machine.
        on_event: told TensorRT's warnings, after the build.
        on_progress: told phases and steps from TensorRT 10.0 on, in the thread of the build.

    Raises:
        ModelError: TensorRT refuses the model or finds no engine for it.
        UsageError: options that do not fit this model or TensorRT.
        EnvironmentLacks: TensorRT finds no GPU, or is too old.
    """
    api = api_of(module)
    build = _Build(api, module, options, on_progress)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="tensorrt") as thread:
            try:
                return thread.submit(build.run, onnx, timing_cache).result()
            except BaseException:
                build.stop.set()
                raise
    finally:
        for warning in build.warnings():
            if on_event is not None:
                on_event(EngineEvent("tensorrt", warning))


class _Build:
    """One build: what its steps share."""

    def __init__(
        self,
        api: Api,
        module: Any,
        options: BuildOptions,
        on_progress: OnProgress | None,
    ) -> None:
        self._api, self._module, self._options = api, module, options
        self.stop = threading.Event()
        self._log = engine_logger(module)
        self._log.errors.clear()
        self._log.warnings.clear()
        self._failures: list[Exception] = []
        self._monitor = (
            _progress_monitor(module, on_progress, self.stop, self._failures)
            if api.has("IProgressMonitor")
            else None
        )

    def run(self, onnx: bytes, timing_cache: bytes) -> Built:
        builder = self._builder()
        network = builder.create_network(self._network_flags())
        self._parse(onnx, network)
        config = builder.create_builder_config()
        self._set_memory(config)
        self._set_compute_capabilities(config)
        self._set_shapes(builder, network, config)
        self._set_precisions(network, config)
        if self._monitor is not None:
            config.progress_monitor = self._monitor
        if self._api.has("ITimingCache"):
            timings = config.create_timing_cache(timing_cache) or config.create_timing_cache(b"")
            config.set_timing_cache(timings, ignore_mismatch=False)
        engine = builder.build_serialized_network(network, config)
        if self._failures:
            raise self._failures[0]
        if engine is None:
            raise self._why_none()
        timings = config.get_timing_cache() if self._api.has("ITimingCache") else None
        return Built(_content(engine), _content(timings.serialize()) if timings else b"")

    def warnings(self) -> list[str]:
        return list(self._log.warnings)

    def _builder(self) -> Any:
        try:
            return self._module.Builder(self._log)
        except (TypeError, RuntimeError) as error:  # a constructor that returned nothing
            raise EnvironmentLacks(
                f"{self._api.name} cannot start here: {self._told() or error}; "
                "it builds only beside the NVIDIA GPU that runs the engine"
            ) from error

    def _network_flags(self) -> int:
        flags = self._module.NetworkDefinitionCreationFlag
        typed = self._api.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
        return 1 << int(flags.STRONGLY_TYPED if typed else flags.EXPLICIT_BATCH)

    def _parse(self, onnx: bytes, network: Any) -> None:
        parser = self._module.OnnxParser(network, self._log)
        if not parser.parse(onnx):
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            told = "; ".join(self._place(error) + one_line(error.desc()) for error in errors)
            what = told or self._told() or "no reason given"
            raise ModelError(f"{self._api.name} refuses the model: {what}; {_LINTER}")
        if network.num_outputs < 1:
            raise ModelError("the .onnx file is empty: it has no outputs; convert the model again")

    def _place(self, error: Any) -> str:
        if self._api.has("ParserError.node_name"):
            name, operator = one_line(error.node_name()), one_line(error.node_operator())
            return f"{operator} {name!r}: " if name or operator else ""
        return f"node {error.node()}: " if error.node() >= 0 else ""

    def _set_memory(self, config: Any) -> None:
        if self._options.memory_mb is not None:
            pool = self._module.MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, self._options.memory_mb << 20)

    def _set_compute_capabilities(self, config: Any) -> None:
        wanted = self._options.compute_capabilities
        if not wanted:
            return
        if not self._api.has("ComputeCapability"):
            raise UsageError(
                f"`compute_capabilities` are for TensorRT-RTX; {self._api.name} builds for the GPU "
                "of the machine it runs on"
            )
        members = self._module.ComputeCapability.__members__
        known = {f"{n[2:-1]}.{n[-1]}": member for n, member in members.items() if n[:2] == "SM"}
        config.num_compute_capabilities = len(wanted)
        for index, capability in enumerate(wanted):
            member = known.get(capability)
            if member is None or not config.set_compute_capability(member, index):
                raise UsageError(
                    f"{self._api.name} builds for the compute capabilities "
                    f"{', '.join(sorted(known, key=float))}; got {capability}"
                )

    def _set_shapes(self, builder: Any, network: Any, config: Any) -> None:
        """Add the optimization profile, if the model has open dimensions."""
        shapes = self._options.shapes
        inputs = {tensor.name: tuple(tensor.shape) for tensor in _inputs(network)}
        is_open = {name for name, shape in inputs.items() if min(shape, default=0) < 0}
        if unknown := sorted(shapes.keys() - is_open):
            raise UsageError(
                f"`shapes` names {', '.join(unknown)}; inputs with open dimensions are: "
                f"{', '.join(sorted(is_open)) or 'none'}"
            )
        if missing := sorted(is_open - shapes.keys()):
            raise ModelError(
                f"input {one_line(missing[0])!r} has the open shape {list(inputs[missing[0]])}: "
                "TensorRT needs fixed ones, or `shapes`; convert with --input-shape"
            )
        if not is_open:
            return
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, shape.smallest, shape.usual, shape.largest)
        if config.add_optimization_profile(profile) < 0:
            raise UsageError(
                f"`shapes` make no optimization profile: {self._told() or 'no reason given'}; "
                "each must fit its input, smallest <= usual <= largest"
            )

    def _set_precisions(self, network: Any, config: Any) -> None:
        """Allow the types that the model holds, and no others in their place."""
        # On by default: float32 with 10 bits of mantissa.
        config.clear_flag(self._module.BuilderFlag.TF32)
        if self._api.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED"):
            return
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        if any(layer.type == self._module.LayerType.DEQUANTIZE for layer in layers):
            config.set_flag(self._module.BuilderFlag.INT8)
        if any(layer.get_output(0).dtype == self._module.float16 for layer in layers):
            config.set_flag(self._module.BuilderFlag.FP16)

    def _told(self) -> str:
        return "; ".join(self._log.errors[-_ERRORS_TOLD:])

    def _why_none(self) -> EdgeKitError:
        if "out of memory" in self._told().lower():
            return EnvironmentLacks(
                f"{self._api.name} runs out of GPU memory: {self._told()}; end other programs, or "
                "limit the scratch memory of a layer with --memory-mb"
            )
        limit = self._options.memory_mb
        advice = f"allow more than --memory-mb {limit}; " if limit else ""
        what = self._told() or "no reason given"
        return ModelError(f"{self._api.name} builds no engine: {what}; {advice}{_LINTER}")


def one_line(text: str) -> str:
    """Return `text` on one line, without what steers a terminal: a model's names may."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _inputs(network: Any) -> Iterator[Any]:
    return (network.get_input(index) for index in range(network.num_inputs))


def _content(memory: Any) -> bytes:
    return bytes(memoryview(memory))


@functools.cache
def engine_logger(module: Any) -> Any:
    """Return the logger of TensorRT: `errors` in order, and `warnings`, each once, on one line.

    There is one for the whole process: TensorRT keeps a single pointer to a logger as long as any
    builder or runtime lives, warns of a second one, and would go on using one that is gone.

    Args:
        module: `tensorrt` or `tensorrt_rtx`, imported.
    """
    severities = module.ILogger.Severity

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: dict[str, None] = {}

        def log(self, severity: Any, message: str) -> None:
            line = one_line(message)
            if int(severity) <= int(severities.ERROR):
                self.errors.append(line)
            elif int(severity) == int(severities.WARNING):
                self.warnings[line] = None

    return Log()


def _progress_monitor(
    module: Any,
    on_progress: OnProgress | None,
    stop: threading.Event,
    failures: list[Exception],
) -> Any:
    """Return TensorRT's progress monitor; an exception may not pass through TensorRT's code."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._totals[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._totals.pop(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            if on_progress is None or stop.is_set():
                return
            try:
                on_progress(one_line(phase), done, self._totals.get(phase, done))
            except Exception as error:
                failures.append(error)
                stop.set()

    return Monitor()
