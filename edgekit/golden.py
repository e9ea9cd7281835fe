"""`golden.npz`: samples with what the workstation computed from them (`docs/bundle.md`)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from edgekit.errors import BundleError, EdgeKitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekit.bundle import Manifest

_LIMIT_BYTES = 1 << 30


class GoldenSample(msgspec.Struct, frozen=True):
    """One golden sample.

    Attributes:
        frame: uint8 BGR picture as a camera gives it, or None.
        inputs: model inputs, batch 1, in the model's dtypes.
        outputs: raw model outputs that the workstation computed.
        value: the decoded result as JSON.

    In a bundle that streams a sample is a sequence: all arrays have the steps in front, and the
    value is that of the last step.
    """

    frame: NDArray[np.uint8] | None
    inputs: tuple[NDArray[Any], ...]
    outputs: tuple[NDArray[Any], ...]
    value: bytes

    def steps(self) -> Iterator[GoldenSample]:
        """Yield the steps of a sequence; only the last has a value, the others' is empty."""
        count = len(self.inputs[0])
        for step in range(count):
            yield GoldenSample(
                frame=None if self.frame is None else self.frame[step],
                inputs=tuple(array[step] for array in self.inputs),
                outputs=tuple(array[step] for array in self.outputs),
                value=self.value if step == count - 1 else b"",
            )


def write_golden(samples: list[GoldenSample]) -> bytes:
    """Return the bytes of `golden.npz` (`docs/bundle.md` lists its arrays)."""
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {}
    for i, sample in enumerate(samples):
        if sample.frame is not None:
            arrays[f"frame_{i}"] = sample.frame
        arrays |= {f"input_{i}_{j}": array for j, array in enumerate(sample.inputs)}
        arrays |= {f"output_{i}_{j}": array for j, array in enumerate(sample.outputs)}
        arrays[f"value_{i}"] = np.frombuffer(sample.value, np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def read_golden(content: bytes, manifest: Manifest) -> list[GoldenSample]:
    """Read `golden.npz`; nothing in it is unpickled.

    Raises:
        BundleError: arrays are missing, damaged or absurdly large.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LIMIT_BYTES:
                raise BundleError("golden.npz unpacks to more than 1 GiB; refused")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [_golden_sample(arrays, i, manifest) for i in range(manifest.golden.count)]
    except EdgeKitError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many kinds on damaged files
        raise BundleError(f"golden.npz cannot be read: {error}; convert the model again") from error


def _golden_sample(arrays: Mapping[str, Any], i: int, manifest: Manifest) -> GoldenSample:
    import numpy as np

    def array(name: str) -> NDArray[Any]:
        found = arrays[name]  # bytes, where an entry is no array
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "uif":
            raise BundleError(f"golden.npz: {name} is no array of numbers; convert the model again")
        return found

    frame = array(f"frame_{i}") if manifest.golden.frames else None
    if frame is not None and frame.dtype != np.uint8:
        raise BundleError(f"golden.npz: frame_{i} is {frame.dtype}, not uint8 pixels")
    sample = GoldenSample(
        frame=frame,
        inputs=tuple(array(f"input_{i}_{j}") for j in range(len(manifest.data_inputs))),
        outputs=tuple(array(f"output_{i}_{j}") for j in range(len(manifest.data_outputs))),
        value=array(f"value_{i}").tobytes(),
    )
    if manifest.streaming is not None:
        _check_steps(sample, i)
    return sample


def _check_steps(sample: GoldenSample, i: int) -> None:
    arrays = [*sample.inputs, *sample.outputs, *([] if sample.frame is None else [sample.frame])]
    if len({len(array) if array.ndim else 0 for array in arrays} | {0}) != 2:
        raise BundleError(
            f"golden.npz: the arrays of sequence {i} do not have as many steps each, at least one; "
            "convert the model again"
        )
