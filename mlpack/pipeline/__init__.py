"""What happens before and after a model: the same files run in checks, in `predict` and in every serving package.

Nothing here imports the rest of mlpack: these files are copied into packages as they are. They need numpy and PyYAML,
and what a pipeline's kind needs: tokenizers for texts, Pillow for images.
"""

from __future__ import annotations

from .columns import datatypes, packed
from .faults import PipelineError
from .pipeline import FILE, Pipeline, read_document

__all__ = ["FILE", "Pipeline", "PipelineError", "datatypes", "packed", "read_document"]
