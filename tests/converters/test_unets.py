"""U-Nets become int8 with each way of enlarging, and run on frames larger than their input."""

import json

import cv2
import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.converters.against import evaluate_against
from edgekit.converters.samples import tiles_of
from edgekit.data import load_data
from edgekit.errors import UsageError
from edgekit.evaluation.evaluate import evaluate
from edgekit.runtime.model import open_model
from edgekit.specs import Preprocess, TensorSpec

SIDE = 32
RANDOM = np.random.default_rng(0)


def blobs(count, height, width):
    """Return noisy pictures RGB uint8 [n, h, w, 3] of bright blobs, and where those are."""
    coarse = RANDOM.random((count, height // 8, width // 8)).astype(np.float32)
    smooth = np.array([cv2.resize(one, (width, height)) for one in coarse])
    masks = (smooth > 0.55).astype(np.uint8)
    noise = RANDOM.integers(0, 60, (count, height, width, 3))
    return (60 + 120 * masks[..., None] + noise).astype(np.uint8), masks


FRAMES, MASKS = blobs(5, 72, 96)


@pytest.fixture(scope="module")
def unet():
    """Return a function: how it enlarges -> a U-Net that finds bright pixels, of one channel."""
    keras = pytest.importorskip("keras")
    layers = keras.layers

    def unet(upsampling):
        keras.utils.set_random_seed(1)

        def block(tensor, channels):
            tensor = layers.Conv2D(channels, 3, padding="same", use_bias=False)(tensor)
            return layers.ReLU()(layers.BatchNormalization(momentum=0.7)(tensor))

        picture = keras.Input((SIDE, SIDE, 3))
        top = block(picture, 6)
        low = block(layers.MaxPooling2D()(top), 8)
        if upsampling == "transposed":
            large = layers.Conv2DTranspose(6, 2, 2)(low)
        else:
            large = layers.Conv2D(6, 2, padding="same")(
                layers.UpSampling2D(interpolation=upsampling)(low)
            )
        tensor = block(layers.Concatenate()([large, top]), 6)
        model = keras.Model(picture, layers.Conv2D(1, 1, activation="sigmoid")(tensor))
        pictures, masks = blobs(32, SIDE, SIDE)
        model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", jit_compile=False)
        data = pictures.astype(np.float32) / 255, masks[..., None]
        model.fit(*data, batch_size=8, epochs=10, verbose=0)
        return model

    return unet


@pytest.mark.convert
@pytest.mark.parametrize(
    ("upsampling", "format_"),
    [("transposed", "litert"), ("nearest", "litert"), ("bilinear", "onnx")],
)
def test_an_int8_unet_segments_large_frames_on_tiles_as_its_source_does(
    unet, tmp_path, upsampling, format_
):
    source = tmp_path / "unet.keras"
    unet(upsampling).save(source)
    bundle = edgekit.convert(
        source,
        tmp_path / "m.edgekit",
        precision="int8",
        format=format_,
        data=FRAMES,
        eval_data=(FRAMES, MASKS),
        preprocess="unit,resize=tile,overlap=16",
        labels=["ground", "blob"],
    )
    manifest = bundle.manifest
    assert manifest.fallbacks == ()
    assert (manifest.task, manifest.postprocess.upsample) == ("segmentation", "linear")
    assert manifest.preprocess.overlap == 16
    assert manifest.accuracy.n == len(FRAMES)  # whole frames, though what calibrates are tiles
    assert manifest.accuracy.source > 0.9
    assert manifest.accuracy.drop < 0.02
    assert manifest.parity.snr_db > 20
    assert manifest.parity.agreement > 0.98
    assert [sample.frame.shape for sample in bundle.golden()] == [(SIDE, SIDE, 3)] * 4
    with open_model(bundle) as model:  # replays the golden samples
        found = evaluate(model, load_data((FRAMES, MASKS)))
        frame = np.ascontiguousarray(FRAMES[0, :, :, ::-1])
        prediction = model(frame)
        probabilities = model.probabilities(frame, prediction)
    assert found.metrics["mean_iou"] == pytest.approx(manifest.accuracy.converted)
    assert probabilities.shape == (72, 96, 1)
    np.testing.assert_array_equal(prediction.value.class_map, probabilities[..., 0] >= 0.5)
    assert 0 <= probabilities.min() < 0.2 < 0.8 < probabilities.max() <= 1
    np.savez(tmp_path / "set.npz", x=FRAMES, y=MASKS)
    beside = evaluate_against(
        str(bundle.path), str(tmp_path / "set.npz"), str(source), lambda *progress: None
    )
    assert beside["metrics"]["source_mean_iou"] == pytest.approx(manifest.accuracy.source)
    assert "tile" in json.loads((bundle.path / "bundle.json").read_text())["recipe"]["preprocess"]


@pytest.mark.convert
def test_a_model_that_cannot_be_run_on_tiles_is_refused_before_it_is_compiled(tmp_path):
    keras = pytest.importorskip("keras")
    picture = keras.Input((8, 8, 3))
    mean = keras.layers.GlobalAveragePooling2D()(picture)
    model = keras.Model(picture, keras.layers.Dense(3)(mean))
    with pytest.raises(UsageError, match="resize=tile needs a `task` segmentation"):
        edgekit.convert(model, tmp_path / "m.edgekit", preprocess="unit,resize=tile")
    assert not (tmp_path / "m.edgekit").exists()


SPEC = TensorSpec("x", (1, SIDE, SIDE, 3), "float32")


@pytest.mark.parametrize("count", [1, 5, 200])
def test_few_frames_give_enough_tiles_and_many_frames_one_each(count):
    frames = RANDOM.integers(0, 256, (count, 50, 40, 3), np.uint8)
    tiles = tiles_of(load_data(frames), Preprocess.parse("raw,resize=tile").for_input(SPEC))
    each = {1: 128, 5: 26, 200: 1}[count]
    assert len(tiles) == each * count
    assert tiles.labels is None
    for index in (0, len(tiles) // 2, len(tiles) - 1):
        tile, frame = tiles.read(index), frames[index // each, :, :, ::-1]
        assert tile.shape == (SIDE, SIDE, 3)
        np.testing.assert_array_equal(tile, tiles.read(index))
        windows = np.lib.stride_tricks.sliding_window_view(frame, tile.shape)
        assert (windows == tile).all((-3, -2, -1)).any()
    assert len({tiles.read(index).tobytes() for index in range(len(tiles))}) > 0.7 * len(tiles)


def test_sets_that_are_not_cut_stay_what_they_are():
    frames = load_data(RANDOM.integers(0, 256, (3, 50, 40, 3), np.uint8))
    stretched = Preprocess().for_input(SPEC)
    assert tiles_of(frames, stretched) is frames
    floats = load_data(RANDOM.random((3, SIDE, SIDE, 3), np.float32))
    tiled = msgspec.structs.replace(stretched, resize="tile", overlap=8)
    np.testing.assert_array_equal(tiles_of(floats, tiled).read(0), floats.read(0))
