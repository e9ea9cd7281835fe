"""Samples of a `.npz` or `.npy`: steps [t, features], sequences [n, t, features] or pictures."""

from __future__ import annotations

from edgekit.data import load_data
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._iterable import Camera as IterableCamera


class Camera(IterableCamera):
    """Each sample of `FILE.npz` (array x), `FILE.npz::NAME` or `FILE.npy`, in order."""

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        data = load_data(uri.removeprefix("npz://"))
        super().__init__(data)
        self.description = data.name
        first = data.read(0)
        self.gives_pictures = not isinstance(first, tuple) and first.dtype == "uint8"
