"""CSI cameras: `csi://0?width=1280&height=720&fps=30`, by the target's own pipeline.

Through Argus on a Jetson (`sensor-mode` too) and through libcamera on a Raspberry Pi, where
`csi://0` is its first camera and others go by name: `csi:///base/soc/…/imx219@10`.
"""

from __future__ import annotations

import re

from edgekit.errors import EnvironmentLacks, UsageError
from edgekit.runtime import camera
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._options import read_options, whole
from edgekit.runtime.camera.gstreamer import open_pipeline
from edgekit.targets import Target, read_target, target_names
from edgekit.targets.probe import probe

_DEFAULTS = {"width": 1280, "height": 720, "fps": 30}
_OPTIONS = {
    "width": whole(1, 16384),
    "height": whole(1, 16384),
    "fps": whole(1, 1000),
    "sensor-mode": whole(0, 99),
}
_FORM = "csi://0?width=1280&height=720&fps=30"


def Camera(uri: str, timeouts: Timeouts) -> camera.Camera:  # noqa: N802
    """Open a CSI camera of this machine."""
    device, options = _parse(uri)
    machine = probe()
    target = read_target(machine.target) if machine.target else None
    if target is None or not any(pipeline.kind == "csi" for pipeline in target.cameras):
        have = [n for n in target_names() if any(c.kind == "csi" for c in read_target(n).cameras)]
        raise EnvironmentLacks(
            f"csi:// opens cameras of {', '.join(have)}; this machine is none of them "
            f"({machine.because}); use 0 or /dev/video0 for a USB camera, or gstreamer:PIPELINE"
        )
    pipeline = csi_pipeline(target, device, options)
    size = "{width}x{height} at {fps} Hz".format(**{**_DEFAULTS, **options})
    return open_pipeline(pipeline, f"csi://{device} ({size})", timeouts)


def csi_pipeline(target: Target, device: str, options: dict[str, int]) -> str:
    """Return the text of a target's pipeline for a CSI camera.

    Args:
        target: one that has a camera of kind ``csi``.
        device: number of the sensor; on libcamera 0, or the camera's name.
        options: width, height and fps; sensor-mode for Argus.

    Raises:
        UsageError: a device or an option that this kind of camera has not.
    """
    text = next(c.gstreamer for c in target.cameras if c.kind == "csi")
    source, _, rest = text.partition(" ! ")
    is_argus = source.startswith("nvarguscamerasrc")
    if is_argus and not re.fullmatch(r"\d{1,2}", device):
        raise UsageError(f"`source` csi://{device}: expected a sensor's number, like {_FORM}")
    if not is_argus and device == "0":
        source = source.replace(" camera-name={device}", "")
    elif not is_argus and not device.startswith("/"):
        raise UsageError(
            f"`source` csi://{device}: on libcamera expected csi://0, its first camera, or the "
            "name in brackets that rpicam-hello --list-cameras writes: csi:///base/…"
        )
    if "sensor-mode" in options:
        if not is_argus:
            raise UsageError("`source` csi://: sensor-mode is for Jetsons; give width and height")
        source += f" sensor-mode={options['sensor-mode']}"
    values = {**_DEFAULTS, **options}
    values.pop("sensor-mode", None)
    return f"{source} ! {rest}".format(device=device, **values)


def _parse(uri: str) -> tuple[str, dict[str, int]]:
    """Return a URI's device and options; nothing in them can add to a pipeline's text."""
    address, options = read_options(uri, "?", _OPTIONS)
    form = re.fullmatch(r"csi:(?://)?(\d{1,2}|/\w[\w/@.-]*)", address, re.IGNORECASE | re.ASCII)
    if form is None:
        raise UsageError(
            f"`source` {uri!r}: expected csi://NUMBER or csi:///NAME and options, like {_FORM}"
        )
    return form[1], options
