"""Which module of the user's an operator was called by: marks around every module's forward in a profile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import record_function

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "module "
# Modules of ours around the user's.
_WRAPPERS = ("inner", "program_module")


@contextmanager
def marked_modules(module: torch.nn.Module) -> Iterator[None]:
    """Within it every forward of a submodule is a range of the profile, named by the submodule's path.

    A scripted module takes no such marks: it runs outside Python.
    """
    open_ranges: list[Any] = []
    handles = []

    def entering(name: str) -> Any:
        def hook(*_: Any) -> None:
            mark = record_function(_MARK + name)
            mark.__enter__()
            open_ranges.append(mark)

        return hook

    def leaving(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    for path, each in module.named_modules():
        first, _, rest = path.partition(".")
        name = rest if first in _WRAPPERS else path
        if name and not isinstance(each, torch.jit.ScriptModule):
            handles.append(each.register_forward_pre_hook(entering(name), with_kwargs=True))
            handles.append(each.register_forward_hook(leaving, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def module_of(event: Any) -> str:
    """The path of the innermost marked module around an event of a profile; empty outside of all."""
    around = event.cpu_parent
    while around is not None:
        if around.name.startswith(_MARK):
            return str(around.name.removeprefix(_MARK))
        around = around.cpu_parent
    return ""
