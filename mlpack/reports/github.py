"""A gate as workflow commands: lines that GitHub Actions shows beside a pull request.

Source: GitHub's documentation, "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlpack.core.gate import Gated

_LEVELS = {"fail": "error", "inconclusive": "error", "unstable": "error", "none": "error", "likely": "warning"}


def workflow_commands(found: Gated) -> tuple[str, ...]:
    """One line for each check that a reader has to look at; none where all passed."""
    return tuple(
        f"::{_LEVELS[check.verdict]} title={_property(f'mlpack: {check.name}')}::"
        + _message(f"{check.verdict}: {check.says}" + (f" (allowed {check.allowed})" if check.allowed else ""))
        for check in found.checks
        if check.verdict in _LEVELS
    )


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
