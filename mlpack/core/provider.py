"""Provider: what ONNX Runtime computes with on an NVIDIA card, and the options that decide answers and speed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mlpack.core.words import Frozen

_TF32 = "let float32 be multiplied in TF32, with 10 bits of mantissa"


class Cuda(Frozen):
    """ONNX Runtime's own CUDA kernels, and cuDNN's for convolutions."""

    name: Literal["cuda"] = "cuda"
    tf32: bool = Field(default=False, description=_TF32)
    convolutions: Literal["exhaustive", "heuristic", "default"] = Field(
        default="exhaustive",
        description="a convolution's kernel: the fastest of all, by cuDNN's rules, always the same",
    )
    memory_mib: int | None = Field(default=None, ge=1, description="most device memory for tensors, in MiB")


class TensorRt(Frozen):
    """TensorRT for all parts of the graph that it takes, in the types that the graph has; CUDA kernels for the rest."""

    name: Literal["tensorrt"] = "tensorrt"
    tf32: bool = Field(default=False, description=_TF32)
    level: int = Field(default=3, ge=0, le=5, description="how long the builder looks for faster kernels")
    workspace_mib: int | None = Field(default=None, ge=1, description="most device memory for one layer, in MiB")


Provider = Annotated[Cuda | TensorRt, Field(discriminator="name")]
