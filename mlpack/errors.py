"""Every error that a user can fix, drawn as a tree, with its exit code.

MlpackError
├── UsageError 2            a flag, a name, a reference that is wrong
│   ├── RecipeError 2       a recipe that does not hold together
│   ├── ModelError 2        a model file or factory that cannot be used
│   ├── DataError 2         data or a metric that cannot be used
│   └── UnsupportedNumerics 2   the target lacks what was asked for
├── MissingLibrary 3        a package to install
├── MissingHardware 3       a device that this machine lacks
├── MachineError 3          disk full, store read-only, port taken
├── StageFailed 4           a library refused this model
│   └── Crashed 4           a native library ended the process
├── GateFailed 5            works, is not good enough
│   └── Tampered 5          files differ from what the artifact says
└── GateInconclusive 6      too few samples or too noisy to tell

Anything else is a bug of ours: a traceback and exit code 70.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class MlpackError(Exception):
    """What is wrong (`message`) and what to do about it (`hint`, one line that can be pasted)."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def kind(self) -> str:
        """The class name, as `--json` prints it."""
        return type(self).__name__


class UsageError(MlpackError):
    """A flag, a name or a reference that is wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that does not hold together."""


class ModelError(UsageError):
    """A model file or factory that cannot be used."""


class DataError(UsageError):
    """Data or a metric that cannot be used."""


class UnsupportedNumerics(UsageError):
    """Numerics that the target does not have."""


class MissingLibrary(MlpackError):
    """A package that has to be installed first."""

    exit_code = 3


class MissingHardware(MlpackError):
    """A device that this machine does not have."""

    exit_code = 3


class MachineError(MlpackError):
    """The machine refuses: disk full, store read-only, port taken."""

    exit_code = 3


class StageFailed(MlpackError):
    """A library refused this model, or its process died."""

    exit_code = 4


class Crashed(StageFailed):
    """A native library ended the process: a signal, or an exit of its own."""


class GateFailed(MlpackError):
    """The model works and is not good enough."""

    exit_code = 5


class Tampered(GateFailed):
    """Files differ from what the artifact or package says."""


class GateInconclusive(MlpackError):
    """Too few samples, or too much noise, to tell."""

    exit_code = 6


KINDS: dict[str, type[MlpackError]] = {
    each.__name__: each
    for each in (
        UsageError, RecipeError, ModelError, DataError, UnsupportedNumerics, MissingLibrary, MissingHardware,
        MachineError, StageFailed, Crashed, GateFailed, Tampered, GateInconclusive,
    )
}  # fmt: skip


def unknown(kind: str, word: str, known: Iterable[str]) -> UsageError:
    """A UsageError for a name that is not known, with the nearest right spelling as its hint."""
    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"unknown {kind} {word!r}", hint)
