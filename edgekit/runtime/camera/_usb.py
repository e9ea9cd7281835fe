"""Which USB camera stands behind a device, so that it is found again under another number.

Source: kernel.org, Documentation/ABI/stable/sysfs-bus-usb (idVendor, idProduct, serial) and
Documentation/userspace-api/media (index of a video device).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgekit.errors import SourceError

SYSFS = Path("/sys/class/video4linux")
DEV = Path("/dev")
_first_seen: dict[str, UsbCamera] = {}


class UsbCamera(msgspec.Struct, frozen=True):
    """What identifies a camera: model, serial number (often empty), place, which of its nodes."""

    model: str
    serial: str
    port: str
    index: str

    def rank(self, other: UsbCamera) -> int:
        """Return how surely `other` is this camera: 0 not at all, 3 at the most."""
        if (self.model, self.index) != (other.model, other.index):
            return 0
        if self.port == other.port:
            return 3  # also one of the same model that was put in its place
        same_serial = bool(self.serial) and self.serial == other.serial
        return 2 if same_serial else int(not self.serial and not other.serial)


def device_of(device: str) -> str:
    """Return the path under which the camera that `device` first named is to be found now.

    Args:
        device: ``/dev/video0`` or a link to one; the first call in this process binds it to the
            camera that is there.

    Raises:
        SourceError: another camera has taken its place.
    """
    now = _camera(Path(device).resolve().name)
    first = _first_seen.setdefault(device, now) if now is not None else _first_seen.get(device)
    if first is None or first == now:
        return device
    others = {name: c for name in _names() if (c := _camera(name)) is not None}
    best = max((first.rank(camera) for camera in others.values()), default=0)
    found = [name for name, camera in others.items() if best and first.rank(camera) == best]
    if found and (best > 1 or len(found) == 1):
        return str(DEV / found[0])
    if now is None:
        return device  # it is away
    raise SourceError(
        f"{device} was camera {first.model} at USB port {first.port} and is camera {now.model} at "
        f"{now.port} now; plug the first one in again, or start anew"
    )


def _names() -> list[str]:
    return sorted(path.name for path in SYSFS.glob("video*"))


def _camera(name: str) -> UsbCamera | None:
    """Return what sysfs tells of ``video0``; None if it is not there or not on USB."""
    node = SYSFS / name
    usb = (node / "device").resolve().parent  # of the interface: the device
    vendor, product = _text(usb / "idVendor"), _text(usb / "idProduct")
    if not vendor or not product:
        return None
    return UsbCamera(f"{vendor}:{product}", _text(usb / "serial"), usb.name, _text(node / "index"))


def _text(path: Path) -> str:
    """Return a file's text, which is empty where the kernel has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
