"""Hidden states: which modules of student and teacher belong together, and what they gave in the last run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from mlpack.errors import ModelError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = "name them: --set distill.hidden=[layer.1,layer.3]"


def pairs(
    student: torch.nn.Module, teacher: torch.nn.Module, wanted: Literal["none", "auto"] | Sequence[str]
) -> list[tuple[str, str]]:
    """Paths of modules, the student's with the teacher's.

    `auto`: the entries of each list of modules that both have, which are the layers of a transformer; a student with
    fewer is matched with the last of as many equal pieces. Where there are no lists: the parts that both have,
    but for the last, whose output is the model's.

    Raises:
        UsageError: there is no module of such a name.
        ModelError: none belong together.
    """
    if wanted == "none":
        return []
    if wanted != "auto":
        named = [(one, two or one) for one, _, two in (each.partition("=") for each in wanted)]
        for module, names in ((student, [one for one, _ in named]), (teacher, [two for _, two in named])):
            known = [path for path, _ in module.named_modules() if path]
            stranger = next((name for name in names if name not in known), None)
            if stranger is not None:
                raise unknown("module", stranger, known)
        return named
    found = _layers(student, teacher) or _parts(student, teacher)
    if not found:
        raise ModelError("student and teacher have no modules of the same names whose outputs could be matched", _NAME)
    return found


def _layers(student: torch.nn.Module, teacher: torch.nn.Module) -> list[tuple[str, str]]:
    lists = {path: len(each) for path, each in teacher.named_modules() if isinstance(each, torch.nn.ModuleList)}
    found: list[tuple[str, str]] = []
    taken: list[str] = []
    for path, each in student.named_modules():
        if not isinstance(each, torch.nn.ModuleList) or not len(each) or not lists.get(path):
            continue
        if any(path.startswith(f"{outer}.") for outer in taken):
            continue
        taken.append(path)
        found += [(f"{path}.{at}", f"{path}.{(at + 1) * lists[path] // len(each) - 1}") for at in range(len(each))]
    return [(one, two) for one, two in found if not two.endswith(".-1")]


def _parts(student: torch.nn.Module, teacher: torch.nn.Module) -> list[tuple[str, str]]:
    theirs = dict(teacher.named_children())
    *parts, _ = [name for name, each in student.named_children() if list(each.parameters())] or [""]
    return [(name, name) for name in parts if name in theirs]


class States:
    """What these modules gave in the last run, by their paths."""

    def __init__(self, module: torch.nn.Module, paths: Sequence[str]) -> None:
        self._given: dict[str, torch.Tensor] = {}
        for path in paths:
            module.get_submodule(path).register_forward_hook(self._keeper(path))

    def __getitem__(self, path: str) -> torch.Tensor:
        """The tensor that it gave, the first of several.

        Raises:
            ModelError: it gave none, or was not run.
        """
        if path not in self._given:
            raise ModelError(f"module {path!r} was not run, or gives no tensor of floats", _NAME)
        return self._given[path]

    def _keeper(self, path: str) -> Any:
        def keep(_: Any, __: Any, given: Any) -> None:
            first = next(iter(given), None) if isinstance(given, tuple | list) else given
            if isinstance(first, torch.Tensor) and first.is_floating_point():
                self._given[path] = first

        return keep
