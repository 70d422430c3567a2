"""BackendOptions: how a backend runs a model; stored in the artifact and handed to the server verbatim."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mlpack.core.provider import Provider
from mlpack.core.words import Frozen


class BackendOptions(Frozen):
    """Threads, execution precision, graph optimization and device of one backend session."""

    threads: int | None = Field(default=None, ge=1, description="intra-op threads; None: as many as the job has")
    most_threads: int | None = Field(
        default=None, ge=1, description="more were measured and are slower for this model; None: no such bound"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="precision that float parts of the graph are executed in"
    )
    graph_optimizations: Literal["all", "off"] = Field(
        default="all", description="off runs Q/DQ literally in fp32: how another target's graph is simulated"
    )
    waiting: Literal["spin", "sleep"] = Field(
        default="spin", description="of threads without work; sleep leaves the CPU to others, and takes time to wake up"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="device; never silently another")
    provider: Provider | None = Field(
        default=None, description="what ONNX Runtime computes with on the device; None: its own CUDA kernels"
    )

    @model_validator(mode="after")
    def _provider_of_a_card(self) -> Self:
        if self.provider is not None and self.device == "cpu":
            raise ValueError("a provider computes on a card, and the device is the CPU")
        return self

    def with_threads(self, threads: int) -> BackendOptions:
        """As many threads as that, or the fewer that are faster."""
        return self.model_copy(update={"threads": min(threads, self.most_threads or threads)})
