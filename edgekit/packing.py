"""A bundle as one file, for shipping: an uncompressed zip."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgekit import atomic
from edgekit.bundle import FILE_NAME, MANIFEST, Bundle, decode_manifest, read_bundle, write_bundle
from edgekit.errors import BundleError, EdgeKitError


def pack(folder: str | Path, file: str | Path) -> Path:
    """Write the bundle `folder` as one uncompressed zip `file` and return its path."""
    bundle = read_bundle(folder)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in (MANIFEST, *sorted(bundle.manifest.files)):
            # A fixed date: the same bundle packs to the same bytes.
            archive.writestr(zipfile.ZipInfo(name), (bundle.path / name).read_bytes())
    atomic.write_file(Path(file), content.getvalue())
    return Path(file)


def unpack(file: str | Path, folder: str | Path) -> Bundle:
    """Write the packed bundle `file` as `folder` and return it, verified.

    Raises:
        BundleError: no packed bundle, or one whose content does not match its hashes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check_entries(Path(file), archive.infolist())
            contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        if MANIFEST not in contents:
            raise BundleError(f"{file} holds no {MANIFEST}: it is no packed bundle")
    except FileNotFoundError as error:
        raise BundleError(f"no such file: {file}") from error
    except EdgeKitError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged files
        raise BundleError(f"{file} is no packed bundle: {error}") from error
    manifest = decode_manifest(Path(file), contents.pop(MANIFEST))
    for name, digest in manifest.files.items():
        if name not in contents or hashlib.sha256(contents[name]).hexdigest() != digest:
            raise BundleError(
                f"{file}: {name} is missing or does not match its hash; copy the file again"
            )
    return write_bundle(Path(folder), manifest, {name: contents[name] for name in manifest.files})


def _check_entries(file: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    for entry in entries:
        # Stored, not deflated: an entry cannot be larger than the archive itself.
        if not FILE_NAME.fullmatch(entry.filename) or entry.compress_type != zipfile.ZIP_STORED:
            raise BundleError(
                f"{file}: refused entry {entry.filename[:80]!r}; expected plain file names, stored "
                "uncompressed, as edgekit pack writes them"
            )
    # Entries may overlap: many that share one body would unpack to far more than the file.
    if sum(entry.file_size for entry in entries) > file.stat().st_size:
        raise BundleError(f"{file}: refused, its entries are larger than the file")
