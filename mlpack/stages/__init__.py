"""Stages: one file per verb. This table is the only place that lists them."""

from __future__ import annotations

from mlpack.core.stage import Stage
from mlpack.core.table import Table

STAGES: Table[type[Stage]] = Table(
    "stage",
    {
        "load": "mlpack.stages.load:Load",
        "prune": "mlpack.stages.prune:Prune",
        "distill": "mlpack.stages.distill:Distill",
        "export": "mlpack.stages.export:Export",
        "simplify": "mlpack.stages.simplify:Simplify",
        "quantize": "mlpack.stages.quantize:Quantize",
        "compile_ahead": "mlpack.stages.compile_ahead:CompileAhead",
        "trace_module": "mlpack.stages.trace_module:TraceModule",
        "convert_coreml": "mlpack.stages.convert_coreml:ConvertCoreml",
        "convert_litert": "mlpack.stages.convert_litert:ConvertLitert",
        "build_engine": "mlpack.stages.build_engine:BuildEngine",
        "compile": "mlpack.stages.compile:Compile",
        "check_accuracy": "mlpack.stages.check_accuracy:CheckAccuracy",
        "golden": "mlpack.stages.golden:Golden",
        "measure_sensitivity": "mlpack.stages.measure_sensitivity:MeasureSensitivity",
        "time_layers": "mlpack.stages.time_layers:TimeLayers",
        "profile_latency": "mlpack.stages.profile_latency:ProfileLatency",
    },
)
