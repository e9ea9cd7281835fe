"""The builder's decisions, with a stand-in for TensorRT; test_vendor.py has the real parser."""

import sys
import threading
import time
from concurrent.futures import Future

import pytest
from stand_in_tensorrt import ParserError, stand_in

from edgekit.errors import EnvironmentLacks, MissingPackage, ModelError, UsageError
from edgekit.runtime.engines import BuildOptions, ShapeRange, engine_for
from edgekit.runtime.engines.builder import build_engine
from edgekit.runtime.engines.versions import api_of, import_flavour

PLAIN = BuildOptions()


def build(module, options=PLAIN, **callbacks):
    return build_engine(b"model", options, module, **callbacks)


@pytest.mark.parametrize(
    ("version", "flags", "builder_flags"),
    [
        ("8.6.2", 1 << 0, {"INT8", "FP16"}),
        ("10.3.0", 1 << 1, set()),
        ("10.13.3.9", 1 << 1, set()),
        ("11.4.0.106", 1 << 1, set()),
    ],
)
def test_types_are_the_models_on_each_version(version, flags, builder_flags):
    module = stand_in(version=version)
    module = stand_in(
        version=version,
        layers=[
            (module.LayerType.DEQUANTIZE, "float32"),
            (module.LayerType.CONVOLUTION, "float16"),
        ],
    )
    assert build(module).engine
    assert module.network_flags == [flags]
    assert module.configs[0].flags == builder_flags
    assert (module.configs[0].progress_monitor is None) == version.startswith("8")


def test_a_float_model_of_8_6_is_built_without_precision_flags():
    module = stand_in(version="8.6.1", layers=[("convolution", "float32")])
    assert build(module).engine and module.configs[0].flags == set()


def test_memory_is_limited_where_it_was_asked_for():
    module = stand_in()
    build(module)
    build(module, BuildOptions(memory_mb=512))
    assert [config.limits for config in module.configs] == [{}, {0: 512 << 20}]


def test_timings_go_from_one_build_to_the_next():
    module = stand_in()
    first = build(module)
    second = build(module, timing_cache=first.timing_cache)
    assert module.timings == [b"", b"timed "] and second.timing_cache == b"timed timed "


def test_rtx_times_nothing_and_builds_for_the_gpus_that_are_named():
    module = stand_in("tensorrt_rtx", "1.7.1.116")
    assert build(module, BuildOptions(compute_capabilities=("8.6", "12.0"))).timing_cache == b""
    (config,) = module.configs
    assert config.timing_cache is None and config.num_compute_capabilities == 2
    assert config.capabilities == {0: 86, 1: 120}
    with pytest.raises(UsageError, match=r"builds for .* 7.5, 8.0, 8.6, 12.0; got 9.0"):
        build(module, BuildOptions(compute_capabilities=("9.0",)))


def test_tensorrt_builds_for_the_gpu_that_is_there_only():
    with pytest.raises(UsageError, match=r"for TensorRT-RTX; TensorRT 10.3.0 builds for the GPU"):
        build(stand_in(), BuildOptions(compute_capabilities=("8.6",)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"memory_mb": 0}, "1 to"),
        ({"memory_mb": 1 << 50}, "1 to"),
        ({"compute_capabilities": ("sm86",)}, "like 8.6; got 'sm86'"),
        ({"compute_capabilities": ("8.6", "8.6")}, "repeat"),
    ],
)
def test_options_that_cannot_be(wrong, message):
    with pytest.raises(UsageError, match=message):
        BuildOptions(**wrong)


def test_every_error_of_the_parser_is_told_with_its_node():
    errors = [
        ParserError("zero point is\nnot 0", "quantize\x1b[2J", "QuantizeLinear", 3),
        ParserError("no such operator", "odd", "Bogus", 4),
    ]
    with pytest.raises(ModelError) as caught:
        build(stand_in(parser_errors=errors))
    message = str(caught.value)
    assert "QuantizeLinear 'quantize [2J': zero point is not 0; Bogus 'odd': no such" in message
    assert "TensorRT 10.3.0 refuses the model" in message and "edgekit inspect" in message
    with pytest.raises(ModelError, match="node 3: zero point is not 0; node 4: no such"):
        build(stand_in(version="8.6.1", parser_errors=errors))


def test_a_failed_build_tells_the_last_errors_and_what_to_do():
    module = stand_in(fails=True, errors=["first", "second", "third", "no tactics\nin limit"])
    with pytest.raises(
        ModelError, match="second; third; no tactics in limit; edgekit inspect"
    ) as caught:
        build(module)
    assert "first" not in str(caught.value)
    with pytest.raises(ModelError, match="allow more than --memory-mb 1; edgekit"):
        build(module, BuildOptions(memory_mb=1))
    with pytest.raises(ModelError, match="builds no engine: no reason given"):
        build(stand_in(fails=True))


def test_memory_that_runs_out_is_the_machines_lack():
    with pytest.raises(EnvironmentLacks, match="runs out of GPU memory: .*--memory-mb"):
        build(stand_in(fails=True, errors=["Cuda Runtime (out of memory)"]))


def test_open_dimensions_need_shapes():
    module = stand_in(inputs={"x": (-1, 3, 8, 8), "y": (1, 4)})
    with pytest.raises(ModelError, match=r"'x' has the open shape \[-1, 3, 8, 8\].*--input-shape"):
        build(module)
    with pytest.raises(UsageError, match="`shapes` names y; inputs with open dimensions are: x"):
        build(module, BuildOptions(shapes={"y": ShapeRange((1,), (1,), (1,))}))
    shapes = {"x": ShapeRange((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}
    build(module, BuildOptions(shapes=shapes))
    (profile,) = module.configs[-1].profiles
    assert profile.shapes == {"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}
    with pytest.raises(UsageError, match="smallest <= usual <= largest"):
        build(module, BuildOptions(shapes={"x": ShapeRange((4, 3), (2, 3), (1, 3))}))


def test_a_model_without_outputs_is_refused():
    with pytest.raises(ModelError, match="no outputs"):
        build(stand_in(outputs=0))


def test_without_a_gpu_tensorrt_says_so():
    with pytest.raises(EnvironmentLacks, match=r"TensorRT 10.3.0 cannot start here: CUDA init"):
        build(stand_in(has_gpu=False))


@pytest.mark.parametrize("version", ["8.5.3", "7.1", "strange"])
def test_too_old_a_version_is_named(version):
    with pytest.raises(EnvironmentLacks, match=f"TensorRT {version} is installed; .* 8.6 or later"):
        build(stand_in(version=version))


def test_a_version_after_all_that_are_known_is_taken_for_the_last():
    api = api_of(stand_in(version="12.1"))
    assert api.has("IProgressMonitor") and not api.has("BuilderFlag.INT8")


def test_a_tensorrt_that_is_not_there(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match="JetPack.*edgekit doctor"):
        import_flavour("tensorrt")
    with pytest.raises(MissingPackage, match=r"pip install 'edgekit\[rtx\]'"):
        import_flavour("tensorrt_rtx")
    with pytest.raises(UsageError, match="tensorrt, tensorrt_rtx; got 'cuda'"):
        import_flavour("cuda")


def test_progress_and_warnings_are_told(events):
    steps = []
    module = stand_in(warnings=["slow\x07 path", "slow\x07 path", "another"])
    build(module, on_event=events.append, on_progress=lambda *step: steps.append(step))
    assert steps[:2] == [("Building engine", 0, 3), ("Building engine", 1, 3)]
    assert steps[-1] == ("Building engine", 3, 3)
    assert [(e.kind, e.text) for e in events] == [
        ("tensorrt", "slow path"),
        ("tensorrt", "another"),
    ]


def test_what_progress_raises_ends_the_build_and_comes_out():
    reached = []

    def show(phase, done, total):
        if done == 1:
            raise ZeroDivisionError("a bug in the caller's progress")

    with pytest.raises(ZeroDivisionError):
        build(stand_in(steps=50, on_step=reached.append), on_progress=show)
    assert reached == [0]


def test_ctrl_c_stops_the_build_at_its_next_step(monkeypatch):
    """The main thread waits, so that a signal reaches it; then it waits for the build's end."""
    started, reached = threading.Event(), []

    def on_step(step):
        reached.append(step)
        started.set()
        time.sleep(0.01)

    def interrupted(future):
        assert started.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(stand_in(steps=1000, on_step=on_step))
    assert 1 <= len(reached) < 900
    assert not any(thread.name.startswith("tensorrt") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "no .onnx file"), (b"junk" * 100, "no .onnx file")],
)
def test_what_is_no_model_never_reaches_tensorrt(content, message, tmp_path, tensorrt):
    file = tmp_path / "m.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        engine_for(file)
    assert tensorrt.configs == []
