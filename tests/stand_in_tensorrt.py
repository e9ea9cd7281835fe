"""A stand-in for TensorRT's Python module, where there is no TensorRT and no GPU.

It has the classes that EdgeKit's builder uses, with the behaviour that TensorRT-RTX 1.7.1 was seen
to have: errors in a list, None for a failed or cancelled build, callbacks from the building thread.
What it calls an engine runs nowhere. `stand_in(...)` makes a module; its settings are attributes.
"""

import enum
import hashlib
import types


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    Severity = Severity


class IProgressMonitor:
    """What TensorRT's own is to Python: a base with three methods to write."""


class ParserError:
    def __init__(self, desc, name="", operator="", number=-1):
        self._values = (desc, name, operator, number)

    def desc(self):
        return self._values[0]

    def node_name(self):
        return self._values[1]

    def node_operator(self):
        return self._values[2]

    def node(self):
        return self._values[3]


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, smallest, usual, largest):
        self.shapes[name] = (smallest, usual, largest)


class TimingCache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return self.content


class Config:
    def __init__(self):
        self.flags = {"TF32"}  # on by default
        self.limits, self.profiles, self.capabilities = {}, [], {}
        self.progress_monitor = self.timing_cache = None
        self.num_compute_capabilities = 0

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool, size):
        self.limits[pool] = size

    def create_timing_cache(self, content):
        return TimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.timing_cache = cache
        return True

    def get_timing_cache(self):
        return self.timing_cache

    def set_compute_capability(self, capability, index):
        self.capabilities[index] = capability
        return True

    def add_optimization_profile(self, profile):
        fits = all(small <= usual <= large for small, usual, large in profile.shapes.values())
        self.profiles.append(profile)
        return len(self.profiles) - 1 if fits else -1


def stand_in(name="tensorrt", version="10.3.0", **settings):
    """Return a module with that name and version; the settings are those set below."""
    module = types.ModuleType(name)
    module.__version__ = version
    module.has_gpu = True
    module.parser_errors = []  # ParserError
    module.inputs = {"x": (1, 8, 16, 16)}
    module.layers = []  # types of layers, as LayerType
    module.outputs = 1
    module.warnings, module.errors = [], []  # what a build logs
    module.fails = False
    module.steps = 3
    module.engine = None  # content of every engine; None: some that differs by what it is made of
    module.on_step = lambda step: None  # called in each step of a build
    module.configs, module.network_flags, module.timings = [], [], []
    vars(module).update(settings)

    class Network:
        num_outputs = module.outputs
        num_inputs = len(module.inputs)
        num_layers = len(module.layers)
        content = b""

        def get_input(self, index):
            found, shape = list(module.inputs.items())[index]
            return types.SimpleNamespace(name=found, shape=shape)

        def get_layer(self, index):
            kind, dtype = module.layers[index]
            output = types.SimpleNamespace(dtype=dtype)
            return types.SimpleNamespace(type=kind, get_output=lambda number: output)

    class OnnxParser:
        def __init__(self, network, log):
            self.network = network
            self.num_errors = len(module.parser_errors)

        def parse(self, content):
            self.network.content = content
            return not module.parser_errors

        def get_error(self, index):
            return module.parser_errors[index]

    class Builder:
        def __init__(self, log):
            self.log = log
            if not module.has_gpu:
                log.log(Severity.ERROR, "CUDA initialization failure with error: 100")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags):
            module.network_flags.append(flags)
            return Network()

        def create_builder_config(self):
            module.configs.append(Config())
            return module.configs[-1]

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            module.timings.append(config.timing_cache and config.timing_cache.content)
            for text in module.warnings:
                self.log.log(Severity.WARNING, text)
            if not self._goes_on(config.progress_monitor):
                self.log.log(Severity.ERROR, "BuildCanceled (Build canceled by user)")
                return None
            for text in module.errors:
                self.log.log(Severity.ERROR, text)
            if module.fails:
                return None
            if config.timing_cache:
                config.timing_cache.content += b"timed "
            if module.engine is not None:
                return module.engine
            made = f"{len(module.configs)} {version} {config.limits} {config.capabilities}"
            return hashlib.sha256(network.content + made.encode()).digest() * 100

        def _goes_on(self, monitor):
            if monitor is not None:
                monitor.phase_start("Building engine", None, module.steps)
            for step in range(module.steps):
                module.on_step(step)
                if monitor is not None and not monitor.step_complete("Building engine", step):
                    return False
            if monitor is not None:
                monitor.phase_finish("Building engine")
            return True

    module.ILogger, module.IProgressMonitor = ILogger, IProgressMonitor
    module.Builder, module.OnnxParser = Builder, OnnxParser
    module.MemoryPoolType = enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0})
    module.NetworkDefinitionCreationFlag = types.SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
    module.BuilderFlag = types.SimpleNamespace(FP16="FP16", INT8="INT8", TF32="TF32")
    module.LayerType = types.SimpleNamespace(DEQUANTIZE="dequantize", CONVOLUTION="convolution")
    module.float32, module.float16 = "float32", "float16"
    names = {"NONE": 0, "CURRENT": 1, "SM75": 75, "SM80": 80, "SM86": 86, "SM120": 120}
    module.ComputeCapability = enum.IntEnum("ComputeCapability", names)
    return module
