"""Frames that the GPU preprocesses into an engine's input, over stand-ins and on a real GPU.

The stand-in engine computes from what lies at its input's address when its turn comes, and hands it
through: a copy that is missing, memory that is stale and orders in the wrong place all show.
"""

import itertools

import msgspec
import numpy as np
import pytest
from kernel_on_cpu import assert_equal

import edgekit
from edgekit.bundle import Bundle, Provenance, read_bundle
from edgekit.converters.assemble import draft_manifest
from edgekit.errors import BackendError, DataError, EnvironmentLacks, UsageError
from edgekit.profiling.recording import Recording, Until
from edgekit.profiling.scenarios import STAGES, Work, offline
from edgekit.runtime.backends import onnxruntime as onnxruntime_backend
from edgekit.runtime.backends import tensorrt
from edgekit.runtime.gpu_preprocess import GpuPreprocessor
from edgekit.runtime.model import Model
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Postprocess, Preprocess, TensorSpec

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[onnx]'")

ON_GPU = "frames preprocessed on the GPU"
NHWC, NCHW = (1, 20, 24, 3), (1, 3, 20, 24)
INPUTS = [
    (NHWC, ("float32", None, None), "imagenet"),
    (NCHW, ("float16", None, None), "signed,resize=letterbox,pad=114"),
    (NHWC, ("int8", 1.0, -128), "raw,resize=center_crop"),
    (NCHW, ("int8", 0.0187, -14), "imagenet"),
    ((1, 1, 20, 24), ("uint8", 1.0, 0), "raw,color=gray"),
]
FRAMES = [(30, 40, 3), (40, 30, 3), (30, 40), (9, 50, 3), (31, 7, 4), (20, 24, 3), (33, 5, 1)]


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def stand_in(install, kernel, request):
    """Return the stand-in TensorRT, of a machine with nvcc."""
    return install(integrated=request.param, kernel=kernel)


@pytest.fixture
def opened(onnx_models):
    """Return a function that opens a model which returns its inputs; it is closed at the end."""
    models, names = [], itertools.count()

    def opened(shape=NHWC, dtype=("float32", None, None), text="imagenet", more=(), **choices):
        shapes = [shape, *more]
        graph = onnx_models.model(
            [onnx_models.helper.make_node("Identity", [f"x{i}"], [f"y{i}"]) for i, _ in
             enumerate(shapes)],
            [(f"x{i}", dtype[0], s) for i, s in enumerate(shapes)],
            [(f"y{i}", dtype[0], s) for i, s in enumerate(shapes)],
        )  # fmt: skip
        path = onnx_models.save(graph, f"model{next(names)}")
        backend = choices.pop("backend", tensorrt).Backend(path, 1)
        specs = [TensorSpec(f"x{i}", s, *dtype) for i, s in enumerate(shapes)]
        manifest = draft_manifest(
            backend,
            format="onnx",
            model_file=path.name,
            task="segmentation" if "tile" in text else "regression",
            precision="fp32",
            preprocess=Preprocess.parse(text).for_input(specs[0]),
            postprocess=Postprocess(),
            target=None,
            fallbacks=(),
            recipe={},
            provenance=Provenance("identity", "onnx", None, None, {}),
        )
        manifest = msgspec.structs.replace(manifest, inputs=tuple(specs))
        with_bundle = Bundle(path.parent, manifest, ())
        try:
            models.append(Model(with_bundle, backend, "tensorrt", **choices))
        except Exception:
            backend.close()
            raise
        return models[-1]

    yield opened
    for model in models:
        model.close()


def random_frame(random, shape):
    return random.integers(0, 256, shape, np.uint8)


def on_cpu(model):
    manifest = model.bundle.manifest
    return Preprocessor(manifest.preprocess, manifest.inputs[0])


def expected(model, frame):
    preprocessor = on_cpu(model)
    out = np.empty(preprocessor.spec.shape, preprocessor.spec.dtype)
    preprocessor(frame, out)
    return out


def assert_sees(model, frame):
    """See that the engine computes from what the CPU makes of the frame."""
    model.preprocess(frame)
    assert_equal(model.infer()[0], expected(model, frame), on_cpu(model))


@pytest.mark.parametrize(("shape", "dtype", "text"), INPUTS)
def test_whatever_is_done_the_engine_sees_what_it_sees_without_the_gpu(
    stand_in, opened, shape, dtype, text
):
    """Frames, tensors and hand-written buffers in any order, on a model that has the GPU do it."""
    model = opened(shape, dtype, text)
    plain = opened(shape, dtype, text, preprocess_on="cpu")
    assert model.backend.executes.endswith(ON_GPU)
    assert not plain.backend.executes.endswith(ON_GPU)
    random, done = np.random.default_rng(1), {}
    for _ in range(150):
        action = random.choice(["frame", "region", "tensor", "write", "add", "look", "infer"])
        done[action] = done.get(action, 0) + 1
        frame = random_frame(random, FRAMES[random.integers(len(FRAMES))])
        for one in (model, plain):
            buffer = one.backend.input_buffer
            if action == "frame":
                one.preprocess(frame)
            elif action == "region":  # a view, as of a region of interest
                one.preprocess(np.repeat(frame, 2, axis=1)[1:, ::2])
            elif action == "tensor":
                one.preprocess(np.full(shape, frame[0].max() / 99, np.float32))
            elif action == "write":
                buffer(0)[...] = frame[0].min()
            elif action == "add":  # to what is there, which the GPU may have written
                buffer(0)[0, 0] += np.dtype(dtype[0]).type(1)
            elif action == "infer":
                one.infer()
        if action == "look":
            assert_equal(*(m.backend.input_buffer(0) for m in (model, plain)), on_cpu(model))
        assert_equal(model.infer()[0], plain.infer()[0], on_cpu(model))
    assert min(done.values()) > 9


def test_frames_in_turn_are_not_mixed_up_where_nobody_infers_between(stand_in, opened):
    model, random = opened(), np.random.default_rng(2)
    frames = [random_frame(random, shape) for shape in FRAMES]
    for frame in (*frames, *frames[::-1]):
        model.preprocess(frame)
    assert_equal(model.infer()[0], expected(model, frames[0]), on_cpu(model))
    frame = frames[1].copy()
    model.preprocess(frame)
    frame[...] = 0  # the caller's own again
    assert_equal(model.infer()[0], expected(model, frames[1]), on_cpu(model))


def test_a_frame_is_copied_once_and_waited_for_once(stand_in, opened):
    model = opened()
    frame = random_frame(np.random.default_rng(0), FRAMES[0])
    assert_sees(model, frame)
    driver = stand_in.driver
    driver.calls.clear()
    model.preprocess(frame)
    model.infer()
    times = ("record", "time_since")
    calls = [call for call in driver.calls if call not in times]
    if driver.integrated:
        assert calls == ["launch", "execute_async_v3", "synchronize"]
    else:
        copied = ["memcpy_htod_async", "launch", "execute_async_v3", "memcpy_dtoh_async"]
        assert calls == [*copied, "synchronize"]


def test_times_begin_with_the_copy_of_the_frame(stand_in, opened):
    """The stand-in's events are a millisecond apart: two of preprocessing, four of a run."""
    model = opened()
    frame = random_frame(np.random.default_rng(0), FRAMES[0])
    with pytest.raises(UsageError, match="no times before the first run"):
        _ = model.backend.last_times_ms
    model(frame)
    assert model.backend.last_times_ms == tensorrt.RunTimes(compute_ms=1, total_ms=4)
    model.preprocess(frame)  # the next one's, before the times of the last run are read
    assert model.backend.last_times_ms == tensorrt.RunTimes(compute_ms=1, total_ms=4)
    model.infer()
    model.infer()  # what is there once more
    assert model.backend.last_times_ms == tensorrt.RunTimes(compute_ms=1, total_ms=3)
    model.preprocess(frame)
    model.backend.input_buffer(0)[...] = 1
    model.infer()
    assert model.backend.last_times_ms == tensorrt.RunTimes(compute_ms=1, total_ms=3)


@pytest.mark.parametrize("source", [None, "test://64x48@200"])
def test_a_profile_has_the_times_of_the_gpu(stand_in, onnx_bundle, source):
    with edgekit.open(onnx_bundle, backend="tensorrt") as model:
        (measured,) = edgekit.profile(model, runs=20, source=source).profiles
    stages = measured.stages_ms
    assert (stages["gpu_compute"].p50, stages["gpu_with_transfers"].p50) == (1, 4)
    assert set(STAGES) < set(stages)
    assert measured.executes.endswith(ON_GPU)


def test_copies_that_run_side_by_side_preprocess_where_the_model_does(
    stand_in, onnx_bundle, monkeypatch
):
    opened = []
    monkeypatch.setattr(offline, "_run_side_by_side", lambda work, models, _: opened.extend(models))
    for place in ("cpu", "gpu"):
        with edgekit.open(onnx_bundle, backend="tensorrt", preprocess_on=place) as model:
            work = Work(model, itertools.repeat(np.zeros((9, 9, 3), np.uint8)), Until(1, None))
            offline.measure(work, Recording(STAGES))
    assert [m.backend.executes.endswith(ON_GPU) for m in opened] == [False, False, True, True]


def test_layers_are_timed_on_what_the_gpu_wrote(stand_in, opened):
    model = opened()
    frame = random_frame(np.random.default_rng(0), FRAMES[0])
    model.preprocess(frame)
    assert model.backend.layer_times() == [("the whole network", 0.5)]
    assert_equal(model.infer()[0], expected(model, frame), on_cpu(model))


def other_kernels():
    """Return kernels that compute something else, by name."""

    def shift(output):
        output[1:] = output[:-1].copy()

    def swap(output):
        output[:] = output[::-1].copy()

    def nothing(output):
        output[:] = 0xA5

    def one_value(output):
        output[-1] ^= 0x40

    def not_a_number(output):
        output[-2:] = 0xFF, 0x7F

    return [shift, swap, nothing, one_value, not_a_number]


@pytest.mark.parametrize("spoil", other_kernels(), ids=lambda spoil: spoil.__name__)
def test_a_gpu_that_computes_otherwise_is_found_and_the_cpu_preprocesses(
    stand_in, opened, caplog, spoil
):
    stand_in.driver.spoil = lambda content: spoil(np.frombuffer(content, np.uint8))
    model = opened()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(
        "frames are preprocessed on the CPU: the GPU preprocesses a frame [480, 640, 3] otherwise"
    )
    assert not model.backend.executes.endswith(ON_GPU)
    for shape in FRAMES:
        assert_sees(model, random_frame(np.random.default_rng(0), shape))
    with pytest.raises(BackendError, match=r"otherwise than the CPU: they differ by .* one grey"):
        opened(preprocess_on="gpu")


def test_a_kernel_that_is_wrong_for_grey_frames_alone_is_found(stand_in, opened, caplog):
    launches = itertools.count()

    def spoil(content):
        if next(launches):
            np.frombuffer(content, np.uint8)[0] ^= 0x40

    stand_in.driver.spoil = spoil
    opened(NHWC, ("int8", 1.0, -128), "raw")
    assert "a frame [37, 31] otherwise than the CPU: they differ by 64" in caplog.text


def test_without_nvcc_the_cpu_preprocesses_and_the_reason_is_told_once(install, opened, caplog):
    install()
    model = opened()
    (record,) = caplog.records
    assert "preprocessed on the CPU: kernels are compiled by nvcc" in record.getMessage()
    assert "install it, or put it on PATH" in record.getMessage()
    frame = random_frame(np.random.default_rng(0), FRAMES[0])
    assert_sees(model, frame)
    assert_sees(model, frame)
    assert len(caplog.records) == 1
    with pytest.raises(EnvironmentLacks, match="compiled by nvcc"):
        opened(preprocess_on="gpu")


@pytest.mark.parametrize(
    ("shape", "text", "told"),
    [
        (NHWC, "raw,interpolation=area", "the kernel resizes with interpolation=linear, not area"),
        (NHWC, "raw,resize=tile", "tiles are cut from the frame in the host's memory"),
        ((1, 4), "raw", None),
    ],
)
def test_what_the_kernel_cannot_do_is_told_where_there_are_pictures(
    stand_in, opened, caplog, shape, text, told
):
    model = opened(shape, text=text)
    start = "frames are preprocessed on the CPU: the GPU cannot preprocess: "
    assert [r.getMessage() for r in caplog.records] == [f"{start}{why}" for why in [told] if why]
    assert not model.backend.executes.endswith(ON_GPU)
    with pytest.raises(UsageError, match="the GPU cannot preprocess"):
        opened(shape, text=text, preprocess_on="gpu")
    caplog.clear()
    opened(shape, text=text, preprocess_on="cpu")
    assert caplog.records == []


def test_a_backend_that_leaves_it_to_the_cpu_says_so_where_the_gpu_is_asked_for(
    opened, onnx_bundle, caplog
):
    with pytest.raises(UsageError, match=r"needs a backend that does it, tensorrt .* \(ONNX Runt"):
        opened(backend=onnxruntime_backend, preprocess_on="gpu")
    with pytest.raises(UsageError, match="must be one of auto, cpu, gpu; got 'cuda'"):
        edgekit.open(onnx_bundle, preprocess_on="cuda")
    assert_sees(opened(backend=onnxruntime_backend), np.zeros((9, 9, 3), np.uint8))
    assert caplog.records == []


def test_of_several_inputs_each_picture_is_the_gpus(stand_in, opened):
    model = opened(NHWC, more=(NHWC, (1, 5)))
    plain = opened(NHWC, more=(NHWC, (1, 5)), preprocess_on="cpu")
    random = np.random.default_rng(0)
    for one, other in ((0, 1), (2, 0), (1, 4)):
        frames = (*(random_frame(random, FRAMES[i]) for i in (one, other)), np.ones(5, np.float32))
        outputs = []
        for each in (model, plain):
            each.preprocess(frames)
            outputs.append(each.infer())
        for ours, theirs in zip(*outputs, strict=True):
            assert_equal(ours, theirs, on_cpu(model))
    assert model.backend.last_times_ms.total_ms == 5  # a millisecond for each picture


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int16),
        7,
    ],
)
def test_what_is_no_frame_is_told_as_on_the_cpu(stand_in, opened, frame):
    model = opened()
    with pytest.raises(DataError) as ours:
        model.preprocess(frame)
    with pytest.raises(DataError) as theirs:
        opened(preprocess_on="cpu").preprocess(frame)
    assert str(ours.value) == str(theirs.value)
    assert_sees(model, np.full((9, 9, 3), 7, np.uint8))


def test_a_frame_that_is_too_large_for_the_gpus_memory_is_told(install, kernel, opened):
    trt = install(kernel=kernel, capacity=1 << 20)
    model = opened()
    small, large = (np.full((side, side, 3), 99, np.uint8) for side in (50, 900))
    assert_sees(model, small)
    for _ in range(2):
        with pytest.raises(BackendError, match="too little free memory"):
            model.preprocess(large)
    assert_sees(model, small)
    model.close()
    assert trt.driver.memory == {}


@pytest.mark.parametrize("is_under_way", [False, True])
@pytest.mark.parametrize("is_wrong", [False, True])
def test_closing_frees_all(stand_in, opened, is_under_way, is_wrong):
    driver = stand_in.driver
    if is_wrong:
        driver.spoil = lambda content: other_kernels()[0](np.frombuffer(content, np.uint8))
    model = opened(NHWC, ("int8", 1.0, -128), "raw")
    frame = random_frame(np.random.default_rng(0), FRAMES[0])
    model(frame)
    if is_under_way:
        model.preprocess(frame)
    model.close()
    assert driver.memory == {}
    assert stand_in.alive == []
    assert all(stream.work == [] for stream in driver.streams.values())
    with pytest.raises(UsageError, match="the model is closed; open it again"):
        model.preprocess(frame)


def test_closing_frees_all_after_the_gpu_failed(stand_in, opened, monkeypatch):
    driver = stand_in.driver
    model = opened()

    def fails(output):
        raise driver.LogicError("cuStreamSynchronize failed: an illegal memory access")

    driver.spoil = fails
    model.preprocess(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(BackendError, match="illegal memory access") as failed:
        model.infer()
    assert str(failed.value).startswith("CUDA failed on Stand-in GPU: ")
    model.preprocess(np.zeros((9, 9, 3), np.uint8))
    model.close()
    assert driver.memory == {}
    assert stand_in.alive == []


def test_a_bundle_opened_from_a_folder_runs_on_it(stand_in, onnx_bundle, caplog):
    """Its golden frames go through the kernel as well, and are compared."""
    with edgekit.open(onnx_bundle, backend="tensorrt", preprocess_on="gpu") as model:
        assert model.backend.executes.endswith(ON_GPU)
        with edgekit.open(onnx_bundle, backend="onnxruntime") as other:
            for sample in read_bundle(onnx_bundle).golden():
                ours, theirs = model(sample.frame), other(sample.frame)
                assert ours.value[0].label == theirs.value[0].label
                np.testing.assert_allclose(ours.raw, theirs.raw, atol=0.01)
        results = list(edgekit.stream("test://64x48@30", model, policy="every", max_frames=3))
        assert [len(result.value) for result in results] == [4, 4, 4]
    assert caplog.records == []


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "dtype", "text"), INPUTS)
def test_on_a_gpu_frames_become_the_input_that_the_cpu_makes(opened, shape, dtype, text):
    """Without TensorRT: CUDA's own memory takes the place of the engine's input."""
    from edgekit.runtime.cuda import open_cuda
    from edgekit.runtime.gpu_tensor import GpuTensor

    open_cuda.cache_clear()
    try:
        cuda = open_cuda()
    except EnvironmentLacks as error:
        pytest.skip(str(error))
    spec = TensorSpec("x", shape, *dtype)
    preprocessor = Preprocessor(Preprocess.parse(text).for_input(spec), spec)
    gpu, random = GpuPreprocessor(preprocessor, cuda), np.random.default_rng(0)
    with cuda.active():
        tensor, stream = GpuTensor(cuda, spec), cuda.stream()
    for frame in (random_frame(random, shape) for shape in FRAMES):
        gpu(frame, tensor.address, stream)
        with cuda.active():
            tensor.to_host(stream)
            stream.synchronize()
        assert gpu.last_ms > 0
        out = np.empty(shape, dtype[0])
        preprocessor(frame, out)
        assert_equal(tensor.array, out, preprocessor)
    gpu.close()
    with cuda.active():
        tensor.free()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_on_a_gpu_a_bundle_says_the_same_with_either_preprocessing(
    onnx_bundle, name, monkeypatch, tmp_path
):
    from edgekit import plugins

    if not plugins.load("backend", name).available():
        pytest.skip(f"no NVIDIA GPU, or {name} or pycuda is not installed")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    random = np.random.default_rng(0)
    with (
        edgekit.open(onnx_bundle, backend=name, preprocess_on="gpu") as model,
        edgekit.open(onnx_bundle, backend=name, preprocess_on="cpu") as plain,
    ):
        for shape in (*FRAMES, *FRAMES):
            frame = random_frame(random, shape)
            np.testing.assert_allclose(model(frame).raw, plain(frame).raw, atol=0.02)
            times = model.backend.last_times_ms
            assert 0 < times.compute_ms < times.total_ms
