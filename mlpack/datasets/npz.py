"""A `.npz`: one array per model input under its name, optional `labels`, `group`, `cluster`.

Members that are stored uncompressed are memory-mapped at their offset inside the zip. Compressed members are
decompressed once, in a stream, into `<cache>/datasets/<sha256 of the file>/` as `.npy` and mapped there.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.filesystem import refused_by_machine, temporary_name
from mlpack.core.model import sha256_of
from mlpack.datasets.cache import cache_folder
from mlpack.datasets.rows import ArrayDataset, StoredArray, check_arrays, check_values
from mlpack.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from mlpack.datasets.rows import RowDataset

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a zip member: 26 bytes that the directory repeats, then the lengths of its name and extra field."""
_COPY_BYTES = 1 << 20


def open_npz(path: Path, fingerprint: str | None = None) -> RowDataset:
    """The dataset in a `.npz`. With the fingerprint of an earlier opening its values are not read again.

    Raises:
        DataError: not a readable zip of arrays, or arrays that do not make a dataset.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if not members:
                raise DataError(f"{path} holds no arrays", "np.savez(path, x=x, labels=labels)")
            digest = fingerprint or sha256_of(path)
            arrays = {}
            for info in members:
                array = _stored(archive, info, path, digest)
                arrays[array.name] = array
    except zipfile.BadZipFile as error:
        with path.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        raise DataError(
            f"{path} is a zip that ends too early or is damaged ({error})"
            if is_zip
            else f"{path} is no .npz (not a zip)",
            "copy or save it again" if is_zip else "np.savez(path, x=x, labels=labels)",
        ) from error
    check_arrays(arrays, str(path))
    if fingerprint is None:
        check_values(arrays, str(path))
    return ArrayDataset(arrays, digest)


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, digest: str) -> StoredArray:
    name = info.filename.removesuffix(".npy")
    if info.flag_bits & 1:
        raise DataError(f"{path} is encrypted", "save it without a password")
    if info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as stream:
            stream.seek(info.header_offset)
            name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            stream.seek(start)
            return read_header(stream, name, path, start + info.file_size)
    unpacked = cache_folder() / "datasets" / digest / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npy"
    if not unpacked.is_file():
        _unpack(archive, info, path, unpacked)
    with unpacked.open("rb") as stream:
        return read_header(stream, name, unpacked, unpacked.stat().st_size)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, to: Path) -> None:
    temporary = temporary_name(to)
    with refused_by_machine(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(info) as packed, temporary.open("wb") as stream:
                shutil.copyfileobj(packed, stream, _COPY_BYTES)
            temporary.replace(to)
        except (zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(f"{path} is damaged at {info.filename} ({error})", "copy or save it again") from error
        finally:
            temporary.unlink(missing_ok=True)


def read_header(stream: BinaryIO, name: str, path: Path, end: int) -> StoredArray:
    """The array whose `.npy` header begins where the stream stands; it ends at byte `end` at the latest.

    Raises:
        DataError: no `.npy`, an array of Python objects, or one that is cut off.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError) as error:
        raise DataError(
            f"array {name!r} in {path} has no readable .npy header ({error})", "np.save it again"
        ) from error
    if dtype.hasobject:
        raise DataError(
            f"array {name!r} in {path} holds Python objects, which only unpickling could read",
            f"make it numbers of one shape: {name} = np.stack({name}).astype('float32')",
        )
    array = StoredArray(name, path, stream.tell(), dtype, tuple(shape), fortran)
    if array.offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64)) > end:
        raise DataError(f"array {name!r} in {path} is cut off", "copy or save it again")
    return array
