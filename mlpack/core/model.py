"""Model: a folder, its entry file, its format and the specs of what goes in and comes out."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mlpack.core.backend_options import BackendOptions
from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

Format = Literal["torch", "onnx", "openvino", "tensorrt", "hf", "aotinductor", "torchscript", "coreml", "litert"]
Dim = int | str


class TensorSpec(Frozen):
    """One input or output: a name, a numpy dtype name, and dims that are numbers or symbols."""

    name: str
    dtype: str
    dims: tuple[Dim, ...]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The numpy dtype of this name; bfloat16, which numpy lacks, is ml_dtypes'."""
        import numpy as np

        if self.dtype == "bfloat16":
            import ml_dtypes

            brain_float: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
            return brain_float
        return np.dtype(self.dtype)

    def __str__(self) -> str:
        return f"{self.name}={self.dtype}:{','.join(str(dim) for dim in self.dims)}"


class Quantization(Frozen):
    """How the numerics got into the graph: the rule set and what the quantizer was told and did."""

    rules: str
    method: str
    details: dict[str, Any] = Field(default_factory=dict)


class Model(Frozen):
    """A folder with an entry file. Never a loaded graph, so that external weights just work."""

    path: Path = Field(exclude=True)
    entry: str
    format: Format
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    largest: dict[str, int] = Field(default_factory=dict, description="largest size of a named dim that has one")
    numerics: str = "fp32"
    numerics_share: float = 1.0
    quantization: Quantization | None = None
    only: str | None = Field(default=None, description="the one backend that has the graph's operators; None: any")
    on_disk: bool = Field(
        default=False,
        description="float weights that are too many for the memory: whoever runs it reads them as they are needed",
    )
    backend: str | None = None
    backend_options: BackendOptions = BackendOptions()

    @property
    def entry_path(self) -> Path:
        """Where the entry file lies."""
        return self.path / self.entry

    @property
    def dynamic_batch(self) -> bool:
        """Whether the first dim of the inputs is a symbol."""
        return all(spec.dims and isinstance(spec.dims[0], str) for spec in self.inputs)

    @property
    def size_bytes(self) -> int:
        """The size of all files of the folder, in bytes."""
        return sum(path.stat().st_size for path in self.files())

    def files(self) -> Iterator[Path]:
        """All files of the folder, in the order of their names."""
        return (path for path in sorted(self.path.rglob("*")) if path.is_file())

    def fingerprint(self) -> str:
        """Sha256 over the description and the content of every file: what a cache key holds."""
        digest = hashlib.sha256(self.model_dump_json().encode())
        for relative, file_digest in self.digests().items():
            digest.update(f"\n{relative} {file_digest}".encode())
        return digest.hexdigest()

    def digests(self) -> dict[str, str]:
        """Sha256 of each file, by its path relative to the folder."""
        return {path.relative_to(self.path).as_posix(): _known_sha256(path) for path in self.files()}


def _known_sha256(path: Path) -> str:
    """Sha256 of a file that this process may have read before: model files are asked for again and again."""
    status = path.stat()
    return _sha256_at(path, status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _sha256_at(path: Path, *_unchanged: int) -> str:
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """Sha256 of one file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
