"""What EdgeKit uses of TensorRT and pycuda is there, in every version that it says it works with.

TensorRT's bindings are imported, of three versions, beside empty libraries (see vendor_api.py);
pycuda is read as source, because it cannot be imported without NVIDIA's driver. So names and
signatures are real; what the calls do is not shown here.
"""

import functools
import inspect

import pycuda_source
import pytest
import stand_in_gpu
import vendor
import vendor_api
from api_uses import (
    MODULE,
    NAMES,
    OF_FILE,
    RUNTIME,
    Api,
    of_unknown_class,
    problems,
    uses,
    uses_of_tensorrt,
)

from edgekit.runtime import cuda
from edgekit.runtime.engines import versions

pytestmark = pytest.mark.vendor

BINDINGS = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.13": "tensorrt-cu12-bindings==10.13.3.9.post1",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
PYCUDA = ("pycuda==2024.1", "pycuda==2026.1")
# What comes and goes with a row of the table of differences.
ROW_OF = {
    "IBuilderConfig.num_compute_capabilities": "ComputeCapability",
    "IBuilderConfig.set_compute_capability": "ComputeCapability",
    "IBuilderConfig.progress_monitor": "IProgressMonitor",
    "ParserError.node_operator": "ParserError.node_name",
}
ROWS = {difference.name for difference in versions.DIFFERENCES}
PYCUDA_NAMES = {
    "driver": MODULE,
    "self._driver": MODULE,
    "compiler": MODULE,
    "device": "Device",
    "self._context": "Context",
    "flat.base": "HostPointer",
}


@functools.cache
def bindings(version):
    return Api(vendor_api.tensorrt_bindings(BINDINGS[version]))


@functools.cache
def tensorrt_rtx():
    return Api(vendor_api.described(vendor.installed(vendor.PACKAGE), "tensorrt_rtx"))


@functools.cache
def pycuda(package):
    return Api(pycuda_source.described(vendor.source_of(package)))


def may_lack(flavour, version):
    """Return whether the table says that a version has not a name."""
    table = versions.Api(flavour, version)

    def lacks(name):
        row = ROW_OF.get(name, name)
        return row in ROWS and not table.has(row)

    return lacks


@pytest.mark.parametrize("version", BINDINGS)
def test_what_is_used_of_tensorrt_is_there(version):
    api = bindings(version)
    found = uses_of_tensorrt(api)
    used = {use.name for use in found}
    assert {"IExecutionContext.execute_async_v3", "Builder.build_serialized_network"} <= used
    assert {"IProfiler.report_layer_time", "ILogger.log", "IProgressMonitor.phase_start"} <= used
    assert problems(found, api, may_lack("tensorrt", api.version)) == []


def test_what_is_used_of_tensorrt_rtx_is_there():
    api = tensorrt_rtx()
    assert problems(uses_of_tensorrt(api), api, may_lack("tensorrt_rtx", api.version)) == []


@pytest.mark.parametrize("version", BINDINGS)
def test_the_table_of_differences_is_that_of_the_bindings(version):
    api = bindings(version)
    table = versions.Api("tensorrt", api.version)
    for row in sorted(ROWS):
        assert table.has(row) == (api.find(row) is not None), row


@pytest.mark.parametrize("row", sorted(ROWS))
def test_what_the_table_says_of_tensorrt_rtx_is_there(row):
    if versions.Api("tensorrt_rtx", tensorrt_rtx().version).has(row):
        assert tensorrt_rtx().find(row) is not None


@pytest.mark.parametrize("file", ["backends/tensorrt.py", "engines/builder.py"])
def test_nothing_of_tensorrt_is_used_unseen(file):
    api, names = bindings("10.3"), NAMES | OF_FILE.get(file, {})
    source, found = (RUNTIME / file).read_text(), uses_of_tensorrt(api)
    assert of_unknown_class(source, names, api, found) == set()
    renamed = source.replace("self._engine", "self._thing").replace("network", "graph")
    assert of_unknown_class(renamed, names, api, found) != set()


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("execute_async_v3", "execute_async_v4", "has no IExecutionContext.execute_async_v4"),
        ("TensorIOMode.INPUT", "TensorIOMode.IN", "has no TensorIOMode.IN"),
        ("num_io_tensors", "num_bindings", "has no ICudaEngine.num_bindings"),
        (".profiler =", ".profilers =", "has no IExecutionContext.profilers"),
        ("def report_layer_time", "def report_layer", "has no IProfiler.report_layer"),
        ("layer_name: str, ms: float", "name: str", "IProfiler.report_layer_time is called with"),
        ("module.Runtime(self._log)", "module.Runtime()", "Runtime(0 arguments) does not fit"),
        ("tensor.name, tensor.address", "tensor.name", "set_tensor_address(1 arguments) does not"),
        ("tensor.address)", "address=tensor.address)", "(1 arguments, address=) does not fit"),
    ],
)
@pytest.mark.parametrize("version", BINDINGS)
def test_a_seeded_mistake_is_caught(version, right, wrong, message):
    api, file = bindings(version), "backends/tensorrt.py"
    source = (RUNTIME / file).read_text()
    assert right in source
    (line,) = problems(uses(source.replace(right, wrong), file, NAMES, api), api)
    assert message in line
    assert line.startswith(file)


@pytest.mark.parametrize("package", PYCUDA)
def test_what_is_used_of_pycuda_is_there(package):
    api = pycuda(package)
    source = (RUNTIME / "cuda.py").read_text()
    found = uses(source, "cuda.py", PYCUDA_NAMES, api)
    used = {use.name for use in found}
    assert {"pagelocked_empty", "memcpy_htod_async", "Device.retain_primary_context"} <= used
    assert {"Context.push", "HostPointer.get_device_pointer", "SourceModule"} <= used
    assert problems(found, api) == []
    keywords = api.signatures("function_call")[0][0]
    assert {"grid", "block", "stream"} <= set(keywords)  # of `PyCuda.launch`


@pytest.mark.parametrize("package", PYCUDA)
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("memcpy_htod_async", "memcpy_to_device_async"),
        ("mem_flags=", "flags="),
        ("source, stream)", "source, 0, 0, stream)"),
        ("retain_primary_context", "retain_context"),
        ("device_attribute.INTEGRATED", "device_attribute.IS_INTEGRATED"),
        ("no_extern_c=", "extern_c="),
        ("self._driver.MemoryError", "self._driver.OutOfMemory"),
    ],
)
def test_a_seeded_mistake_with_pycuda_is_caught(package, right, wrong):
    source = (RUNTIME / "cuda.py").read_text()
    assert right in source
    found = uses(source.replace(right, wrong), "cuda.py", PYCUDA_NAMES, pycuda(package))
    assert problems(found, pycuda(package)) != []


@pytest.mark.parametrize("package", PYCUDA)
@pytest.mark.parametrize(
    ("protocol", "theirs"),
    [
        (cuda.Stream, "Stream"),
        (cuda.Event, "Event"),
        (cuda.DeviceMemory, "DeviceAllocation"),
        (cuda.Module, "Module"),
        (cuda.Module, "SourceModule"),
    ],
)
def test_objects_of_pycuda_are_what_the_interface_says(package, protocol, theirs):
    members = {name for name in vars(protocol) if not name.startswith("_")}
    members |= set(protocol.__annotations__) | ({"__int__"} & vars(protocol).keys())
    assert members
    assert members <= pycuda(package).find(theirs)["members"].keys()


@pytest.mark.parametrize("package", PYCUDA)
def test_the_stand_in_for_pycuda_has_no_names_of_its_own(package):
    driver, api = stand_in_gpu.Driver(), pycuda(package)
    helpers = {"integrated", "capacity", "calls", "memory", "stack", "streams", "clock_ms"}
    helpers |= {"told", "content", "copies", "kernel", "mistakes", "spoil"}
    names = {*vars(driver), *vars(type(driver))}  # `dir` of a module leaves its class out
    public = {name for name in names if not name.startswith("_")} - helpers
    assert {"mem_alloc", "memcpy_htod_async", "pagelocked_empty"} <= public
    assert {name for name in public if api.find(name) is None} == set()
    for name in ("Context", "Device", "Stream", "Event"):
        methods = {m for m in vars(getattr(driver, name)) if not m.startswith("_")}
        assert methods <= api.find(name)["members"].keys(), name
    module = stand_in_gpu.Compiler(driver).SourceModule
    assert {m for m in vars(module) if m[0] != "_"} <= api.find("SourceModule")["members"].keys()


@pytest.mark.parametrize("version", BINDINGS)
def test_the_stand_in_for_tensorrt_has_no_names_of_its_own(version):
    api = bindings(version)
    for stand_in, name in (
        (stand_in_gpu.DataType, "DataType"),
        (stand_in_gpu.TensorIOMode, "TensorIOMode"),
        (stand_in_gpu.ILogger.Severity, "ILogger.Severity"),
    ):
        assert set(stand_in.__members__) <= api.find(name)["members"].keys()
    for stand_in, name in (
        (stand_in_gpu.Engine, "ICudaEngine"),
        (stand_in_gpu.ExecutionContext, "IExecutionContext"),
    ):
        for method, function in inspect.getmembers(stand_in, inspect.isfunction):
            if method.startswith("_") or method in ("compute", "tensor"):
                continue
            names = list(inspect.signature(function).parameters)[1:]
            signatures = api.signatures(f"{name}.{method}")
            assert any(names == theirs[: len(names)] for theirs, _ in signatures), method
