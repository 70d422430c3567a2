"""Recognises by content what a user handed in; imports neither torch nor onnx and never unpickles."""

from __future__ import annotations

import ast
import difflib
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.model import sha256_of
from mlpack.core.user_code import find_reference, is_reference, source_sha256
from mlpack.errors import ModelError
from mlpack.sources import pickle_scan
from mlpack.sources.safetensors_header import read_safetensors_header
from mlpack.sources.source import Detected

if TYPE_CHECKING:
    from typing import BinaryIO

    from mlpack.core.loader import Kind
    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Container

_TAKES = "give a .pt2, TorchScript, .onnx, weights with --factory, a Hugging Face folder, or package.module:function"
_LARGEST_HEADER = 100_000_000
_ONNX_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_ONNX_GRAPH = 7


def detect(spec: SourceSpec) -> Detected:
    """What the model is, with its sha256 and that of the factory.

    Raises:
        ModelError: nothing there, not a model, cut off, a pickle that was not allowed, or weights without a
            factory (the message is then a help page).
    """
    path = Path(spec.model).expanduser()
    if not path.exists() and is_reference(spec.model):
        return _detect_factory(spec)
    if (path / "config.json").is_file():
        from mlpack.sources.hf_folder import detect_folder

        return detect_folder(path, spec)
    _check_is_file(path, spec.model)
    kind, container, scan = _recognise(path)
    factory = None if spec.factory is None else find_reference(spec.factory, "--factory", ModelError)
    found = Detected(
        kind=kind,
        container=container,
        sha256=sha256_of(path),
        path=path.resolve(),
        factory=factory,
        factory_sha256=None if factory is None else source_sha256(factory),
        imports=() if scan is None else scan.imports,
        suspicious=() if scan is None else scan.suspicious,
    )
    _refuse(found, spec)
    return found


def _detect_factory(spec: SourceSpec) -> Detected:
    if spec.factory is not None:
        raise ModelError(
            f"two factories: {spec.model} and --factory {spec.factory}",
            "leave --factory out, or give it a weights file",
        )
    reference = find_reference(spec.model, "factory", ModelError)
    return Detected(kind="factory", container="code", sha256=source_sha256(reference), factory=reference)


def _refuse(found: Detected, spec: SourceSpec) -> None:
    if found.kind == "pickled_module" and not spec.allow_pickle:
        from mlpack.sources.pickled_module import refuse

        refuse(found, spec.model)
    if found.kind == "state_dict" and found.factory is None:
        from mlpack.sources.state_dict import refuse_without_factory

        refuse_without_factory(found, spec.model)
    if found.kind in {"exported_program", "torchscript", "onnx_file"} and found.factory is not None:
        raise ModelError(
            f"{spec.model} is a whole model ({found.kind.replace('_', ' ')}): it needs no factory",
            "leave --factory out",
        )


def _check_is_file(path: Path, given: str) -> None:
    if path.is_dir():
        raise ModelError(f"{given} is a folder without a config.json, not a model", _TAKES)
    if not path.exists():
        names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1)
        raise ModelError(
            f"there is no file {given}",
            f"did you mean {path.with_name(near[0])}?" if near else "check the path",
        )
    if not path.is_file():
        raise ModelError(f"{given} is not a regular file", _TAKES)
    if path.stat().st_size == 0:
        raise ModelError(f"{given} is empty (0 bytes)", "save or download it again")


def _recognise(path: Path) -> tuple[Kind, Container, pickle_scan.Scan | None]:
    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(path)
    if pickle_scan.is_legacy(path):
        return _by_pickle(pickle_scan.scan_legacy(path), "torch_legacy")
    if _is_safetensors(path, head):
        return "state_dict", "safetensors", None
    if _is_onnx(path):
        return "onnx_file", "onnx", None
    _refuse_unknown(path)
    raise AssertionError(path)


def _recognise_zip(path: Path) -> tuple[Kind, Container, pickle_scan.Scan | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.partition("/")[2] or name for name in archive.namelist()}
            bare = set(archive.namelist())
            start = min((info.header_offset for info in archive.infolist()), default=0)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ModelError(f"{path} is a zip that ends too early ({error})", "copy or download it again") from error
    if start > 0:
        # Archives hold archives: where the end is cut off, the directory that is found is an inner one's.
        raise ModelError(f"{path} is a zip that ends too early (its directory is missing)", "copy or download it again")
    if any("aotinductor" in name for name in bare):
        raise ModelError(
            f"{path} is a compiled AOTInductor package, not an exported program",
            "give the .pt2 by torch.export.save",
        )
    old = "serialized_exported_program.json"
    if old in bare or ("archive_format" in members and any(name.startswith("models/") for name in members)):
        return "exported_program", "pt2", None
    if "constants.pkl" in members and any(name.startswith("code/") for name in members):
        return "torchscript", "torchscript", None
    if "data.pkl" in members or "data.pkl" in bare:
        try:
            return _by_pickle(pickle_scan.scan_zip(path), "torch_zip")
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
            raise ModelError(f"{path} is damaged ({error})", "copy or download it again") from error
    if any(name.endswith(".npy") for name in bare):
        raise ModelError(f"{path} holds arrays, not a model", f"give the model first and the arrays as --data {path}")
    raise ModelError(f"{path} is a zip, but no model that mlpack knows", _TAKES)


def _by_pickle(scan: pickle_scan.Scan, container: Container) -> tuple[Kind, Container, pickle_scan.Scan]:
    return ("state_dict" if scan.only_tensors else "pickled_module"), container, scan


def _is_safetensors(path: Path, head: bytes) -> bool:
    size = path.stat().st_size
    if head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if length > _LARGEST_HEADER:
        return False
    cut_off = ModelError(f"{path} is a safetensors file that ends too early", "copy or download it again")
    if 8 + length > size:
        raise cut_off
    try:
        header = read_safetensors_header(path)
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        complete = all(isinstance(tensor["shape"], list) for tensor in header.values())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
        return False
    if 8 + length + end > size:
        raise cut_off
    return complete


def _is_onnx(path: Path) -> bool:
    """Walk the top-level fields of the protobuf message; bodies are skipped, not read."""
    size = path.stat().st_size
    seen: set[int] = set()
    complete = False
    with path.open("rb") as stream:
        while stream.tell() < size:
            tag = _varint(stream)
            field, wire = (tag or 0) >> 3, (tag or 0) & 7
            if tag is None or field not in _ONNX_FIELDS or wire not in {0, 2}:
                break
            value = _varint(stream)
            if value is None:
                break
            seen.add(field)
            if wire == 2:  # noqa: PLR2004 - protobuf's number for "length-delimited"
                at = stream.tell() + value
                if at > size:
                    break
                stream.seek(at)
        else:
            complete = True
    if {1, _ONNX_GRAPH} <= seen and not complete:
        raise ModelError(f"{path} looks like an ONNX file that ends too early", "copy or download it again")
    return complete and _ONNX_GRAPH in seen


def _varint(stream: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:  # noqa: PLR2004 - the last byte of a protobuf varint has its top bit clear
            return value
    return None


def _refuse_unknown(path: Path) -> None:
    if path.suffix == ".py":
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            names = []
        else:
            names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        raise ModelError(
            f"{path} is Python code: say which function gives the module",
            f"{path}:{names[-1] if names else 'FUNCTION'}",
        )
    plain = pickle_scan.scan_plain(path)
    if plain is not None:
        listed = ", ".join(plain.imports[:6]) or "none"
        raise ModelError(
            f"{path} is a plain Python pickle, not a file by torch.save (it would import: {listed})",
            "where you trust it: torch.export.save(torch.export.export(model.eval(), args), 'model.pt2')",
        )
    raise ModelError(f"{path} is no model that mlpack knows", _TAKES)
