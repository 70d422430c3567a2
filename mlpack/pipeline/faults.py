"""What can be wrong with a pipeline or with a sample that is given to it."""

from __future__ import annotations


class PipelineError(ValueError):
    """A pipeline that cannot be read, or a raw sample that it cannot take.

    `row` is the sample's place among those that were given together; None where it is about no single one.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.row = row
