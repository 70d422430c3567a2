"""Triton's model repository: which versions a config.pbtxt serves, and what one config for all of them allows."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from mlpack.errors import MissingLibrary, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLICY = re.compile(r"^[ \t]*version_policy\s*:?\s*(?=\{)", re.MULTILINE)
_STEP_VERSION = re.compile(r"(\bmodel_version\s*:\s*)-?\d+")
_ENSEMBLE = "ensemble_scheduling"
_TITLES = {"input": "inputs", "output": "outputs"}
_FIELDS = ("platform", "backend", "max_batch_size", "default_model_filename")
_THREADS = ("intra_op_thread_count", "threads", "INFERENCE_NUM_THREADS")
_JUDGED = {*_FIELDS, *_TITLES, "name", "version_policy", "parameters", "optimization", _ENSEMBLE}


class TritonRepository:
    """Triton has one configuration for all versions of a model, and the policy in it says which are served."""

    folder = "model_repository"
    config = "config.pbtxt"

    def differences(self, old: str, new: str) -> tuple[str, ...]:
        """Platform, backend, batch limit, tensors, how the model is executed, and what an ensemble asks.

        Raises:
            MissingLibrary: tritonclient, which has Triton's own schema, is not installed.
            UsageError: the old one is none of Triton's.
        """
        there, given = _parsed(old), _parsed(new)
        return tuple(_differences(there, given))

    def kept(self, old: str, new: str) -> tuple[str, ...]:
        """Batching, instances, threads, warm-up: what every version of a model shares and no answer depends on."""
        there, given = _parsed(old), _parsed(new)
        names = [field.name for field in there.DESCRIPTOR.fields if field.name not in _JUDGED]
        return (
            *(name for name in names if getattr(there, name) != getattr(given, name)),
            *(key for key in _THREADS if there.parameters[key] != given.parameters[key]),
        )

    def active(self, config: str) -> tuple[int, ...]:
        """The versions of its policy `specific`; none where another policy decides."""
        return tuple(sorted(_parsed(config).version_policy.specific.versions))

    def steps(self, config: str) -> tuple[tuple[str, int], ...]:
        """The models of an ensemble's steps with the version that each asks; -1: the latest. Of others none."""
        if _ENSEMBLE not in config:
            return ()
        return tuple((each.model_name, each.model_version) for each in _parsed(config).ensemble_scheduling.step)

    def activated(self, config: str, versions: tuple[int, ...]) -> str:
        """The same text with another policy, and an ensemble's steps with it; comments and what is set by hand stay."""
        policy = f"version_policy {{ specific {{ versions: [ {', '.join(map(str, versions))} ] }} }}"
        found = _POLICY.search(config)
        if found is None:
            text = f"{config.rstrip()}\n\n{policy}\n"
        else:
            text = config[: found.start()] + policy + config[_closed(config, found.end()) :]
        expected = _parsed(config)
        expected.version_policy.Clear()
        expected.version_policy.specific.versions.extend(versions)
        if expected.HasField(_ENSEMBLE):
            # An ensemble is served in one version, which is that of all of its steps.
            text = _STEP_VERSION.sub(rf"\g<1>{versions[-1]}", text)
            for step in expected.ensemble_scheduling.step:
                step.model_version = versions[-1]
        if _parsed(text) != expected:
            raise UsageError(
                "version_policy of config.pbtxt stands where it cannot be replaced", f"write by hand: {policy}"
            )
        return text

    def look_again(self, name: str) -> tuple[str, ...]:
        """For --model-control-mode=explicit; with poll the server looks by itself."""
        return (shlex.join(["curl", "-fsX", "POST", f"http://127.0.0.1:8000/v2/repository/models/{name}/load"]),)


def _parsed(text: str) -> Any:
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise MissingLibrary(
            "reading a config.pbtxt needs tritonclient", "pip install 'mlpack-toolchain[server]'"
        ) from error
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise UsageError(f"config.pbtxt is none of Triton's: {error}", "mend it, or take another repository") from error


def _differences(old: Any, new: Any) -> Iterator[str]:
    for name in _FIELDS:
        values = [getattr(config, name) for config in (old, new)]
        if values[0] != values[1]:
            yield f"{name} is {values[0]!r} there and {values[1]!r} here"
    for side, title in _TITLES.items():
        there, here = ({each.name: each for each in getattr(config, side)} for config in (old, new))
        if list(there) != list(here):
            yield f"{title} are {', '.join(there)} there and {', '.join(here)} here"
            continue
        for name, tensor in there.items():
            told = [_told(each) for each in (tensor, here[name])]
            if told[0] != told[1]:
                yield f"{name} is {told[0]} there and {told[1]} here"
    options = [
        {key: each.string_value for key, each in config.parameters.items() if key not in _THREADS}
        for config in (old, new)
    ]
    if options[0] != options[1] or old.optimization != new.optimization:
        yield "it is executed with other options, which its accuracy was not measured with"
    if _asked(old) != _asked(new):
        yield "it asks other models, or these in another way"


def _asked(config: Any) -> Any:
    """An ensemble's steps, whatever versions they ask."""
    scheduling = type(config.ensemble_scheduling)()
    scheduling.CopyFrom(config.ensemble_scheduling)
    for step in scheduling.step:
        step.ClearField("model_version")
    return scheduling


def _told(tensor: Any) -> str:
    kind = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    reshaped = f" reshaped to {list(tensor.reshape.shape)}" if tensor.HasField("reshape") else ""
    return f"{kind.removeprefix('TYPE_')} {list(tensor.dims)}{reshaped}"


def _closed(text: str, start: int) -> int:
    """The place behind the brace that closes the one at `start`; comments and strings have none that count."""
    depth = 0
    for token in re.finditer(r"#[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if token[0] == "}" and depth == 0:
            return start + token.end()
    return len(text)
