"""What sets a changed module apart from the one that its loader makes, as a record; and the record done again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mlpack.core.loader import Changed, Plain, Surgery
from mlpack.core.weights import load_weights
from mlpack.errors import ModelError, StageFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# What every module has: its mode, its hooks, and where its tensors and parts are kept.
_EVERY = set(vars(nn.Module()))
_LISTS = (nn.ModuleList, nn.Sequential)
_SHOWN = 3


@dataclass
class _Found:
    removed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    attributes: dict[str, dict[str, Plain]] = field(default_factory=dict)


def surgery_of(original: nn.Module, changed: nn.Module) -> Surgery:
    """What has to be done to `original` for it to be built as `changed` is; tensors are not looked at.

    Raises:
        StageFailed: something else was changed than a record can say.
    """
    found = _Found()
    _compare(original, changed, "", "", found)
    return Surgery(removed=tuple(found.removed), skipped=tuple(found.skipped), attributes=found.attributes)


def _compare(one: nn.Module, other: nn.Module, before: str, after: str, found: _Found) -> None:
    """Modules that take one another's place; `before` and `after` are their paths there."""
    if isinstance(other, nn.Identity) and not isinstance(one, nn.Identity):
        found.skipped.append(after)
        return
    if _kind(one) != _kind(other):
        raise _unkept(after, f"was a {type(one).__name__} and is a {type(other).__name__}")
    had, has = _numbers(one), _numbers(other)
    # What is set in one alone was computed on the way; whether that matters, the answers show.
    differing = {name: value for name, value in has.items() if name in had and not _same(had[name], value)}
    if differing:
        found.attributes[after] = differing
    mine, theirs = dict(one.named_children()), dict(other.named_children())
    if isinstance(one, _LISTS) and len(theirs) < len(mine):
        places = _left(list(mine.values()), list(theirs.values()), after)
        found.removed += [_joined(before, str(at)) for at in range(len(mine)) if at not in places]
        pairs = [(list(mine)[at], name) for at, name in zip(places, theirs, strict=True)]
    elif mine.keys() != theirs.keys():
        raise _unkept(after, f"gained or lost {', '.join(sorted(mine.keys() ^ theirs.keys())[:_SHOWN])}")
    else:
        pairs = [(name, name) for name in mine]
    for its, new in pairs:
        _compare(mine[its], theirs[new], _joined(before, its), _joined(after, new), found)


def _left(mine: Sequence[nn.Module], theirs: Sequence[nn.Module], path: str) -> list[int]:
    """Places in `mine` of modules that are built as `theirs`, in their order.

    Which of several that are built alike does not matter: numbers and tensors are those of the changed module.
    """
    places: list[int] = []
    for each in theirs:
        start = places[-1] + 1 if places else 0
        at = next((at for at in range(start, len(mine)) if _built(mine[at]) == _built(each)), None)
        if at is None:
            raise _unkept(path, "holds modules in another order, or other ones")
        places.append(at)
    return places


def _kind(module: nn.Module) -> tuple[str, str]:
    """Its class by name: a function that makes modules may define their classes anew each time."""
    return type(module).__module__, type(module).__qualname__


def _built(module: nn.Module) -> list[tuple[str, tuple[str, str]]]:
    return [(path, _kind(each)) for path, each in module.named_modules(remove_duplicate=False)]


def _numbers(module: nn.Module) -> dict[str, Any]:
    """Its own attributes that are numbers, or some of them in a row."""
    return {name: value for name, value in vars(module).items() if name not in _EVERY and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(type(each) is int for each in value)
    return value is None or type(value) in {bool, int, float}


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _unkept(path: str, what: str) -> StageFailed:
    return StageFailed(
        f"module {path or 'itself'!r} {what}: that cannot be written down beside the code that makes the model",
        "change sizes and weights, and take modules out of lists; for anything else change the factory",
    )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def replay(module: nn.Module, changed: Changed, folder: Path) -> nn.Module:
    """The module as the loader makes it, changed again; its mode stays.

    Raises:
        ModelError: the user's code no longer makes the module that was changed.
    """
    surgery = changed.surgery
    try:
        # The last first: what comes before it keeps its place.
        for path in reversed(surgery.removed):
            parent, _, place = path.rpartition(".")
            del module.get_submodule(parent)[int(place)]
        for path in surgery.skipped:
            module.set_submodule(path, nn.Identity().train(module.training))
        for path, numbers in surgery.attributes.items():
            _set_numbers(module.get_submodule(path), numbers)
        _set_tensors(module, load_weights(folder / changed.weights, changed.shared))
    except (AttributeError, IndexError, TypeError) as error:
        raise _another(str(error)) from error
    return module


def _set_numbers(module: nn.Module, numbers: dict[str, Plain]) -> None:
    for name, value in numbers.items():
        had = getattr(module, name)
        setattr(module, name, type(had)(value) if isinstance(value, tuple) and isinstance(had, list | tuple) else value)


def _set_tensors(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Every tensor is set anew, of whatever size: those that were one and no longer are come apart, too."""
    names = set(module.state_dict())
    if names != state.keys():
        raise _another(f"it has other tensors: {', '.join(sorted(names ^ state.keys())[:_SHOWN])}")
    parameters: dict[int, nn.Parameter] = {}
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        had = getattr(owner, leaf)
        if isinstance(had, nn.Parameter):
            made = parameters.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=had.requires_grad))
            setattr(owner, leaf, made)
        else:
            setattr(owner, leaf, tensor)


def _another(reason: str) -> ModelError:
    return ModelError(
        f"the model's code no longer makes the module that was changed: {reason}", "run it again from the start"
    )
