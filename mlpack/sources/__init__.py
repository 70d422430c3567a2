"""What a user hands in, recognised by content, written as a Model folder. Its table lists the kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.table import Table

if TYPE_CHECKING:
    from mlpack.sources.source import Source

SOURCES: Table[Source] = Table(
    "kind of source",
    {
        "exported_program": "mlpack.sources.exported_program:SOURCE",
        "torchscript": "mlpack.sources.torchscript:SOURCE",
        "pickled_module": "mlpack.sources.pickled_module:SOURCE",
        "state_dict": "mlpack.sources.state_dict:SOURCE",
        "onnx_file": "mlpack.sources.onnx_file:SOURCE",
        "factory": "mlpack.sources.factory:SOURCE",
        "hf_folder": "mlpack.sources.hf_folder:SOURCE",
    },
)
