"""Finds what a pickle would import by reading its opcodes, never by running them."""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fickling.fickle import Pickled

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First object of a file by torch.save before version 1.6."""
_HEAD_BYTES = 64
"""Enough for the protocol, a frame's length and the magic number."""
_TENSORS = re.compile(
    r"""^(collections\.(OrderedDict|Counter|defaultdict)
    |torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|sparse_tensor
        |device_tensor_from_numpy|device_tensor_from_cpu_tensor|meta_tensor_no_storage|qtensor|sparse_csr_tensor)
    |torch\._tensor\._rebuild_from_type_v2
    |torch\.nn\.parameter\.(Parameter|Buffer)|torch\.(Tensor|Size|device|\w+Storage)
    |torch\.storage\.(UntypedStorage|TypedStorage)|torch\.serialization\._get_layout
    |torch\.(float|bfloat|complex|u?int|q?u?int)\d+\w*|torch\.bool
    |numpy\.(_core|core)\.multiarray\.(scalar|_reconstruct)|numpy\.(dtype|ndarray)|_codecs\.encode
    |(__builtin__|builtins)\.(set|frozenset|dict|list|tuple|int|float|bool|str|bytes|bytearray|complex|slice))$""",
    re.VERBOSE,
)
"""Globals that only hold or rebuild tensors and plain values: what torch.load(weights_only=True) may run."""
_STRINGS = {
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "UNICODE",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
}


@dataclass(frozen=True)
class Scan:
    """`imports` are dotted names in order of first use; `suspicious` those that can run code or reach files.

    `readable` is False where the opcodes could not be followed to the end: then nothing about it is trusted.
    """

    imports: tuple[str, ...]
    suspicious: tuple[str, ...]
    readable: bool

    @property
    def only_tensors(self) -> bool:
        """Whether nothing but tensors and plain values can come out of it."""
        return self.readable and all(_TENSORS.match(name) for name in self.imports)


def scan_zip(path: Path) -> Scan:
    """Scan `data.pkl` of a file by torch.save."""
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        return _scan(io.BytesIO(archive.read(member)))


def is_legacy(path: Path) -> bool:
    """Whether the file begins as files by torch.save before 1.6 do."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    return head.startswith(b"\x80") and _LEGACY_MAGIC.to_bytes(10, "little") in head


def scan_legacy(path: Path) -> Scan:
    """Scan the leading pickles of an old file by torch.save: magic, protocol, machine, object, storage keys.

    The raw tensor bytes behind them are not read.
    """
    with path.open("rb") as stream:
        scans = [_scan(stream) for _ in range(5)]
    return Scan(
        tuple(dict.fromkeys(name for scan in scans for name in scan.imports)),
        tuple(dict.fromkeys(name for scan in scans for name in scan.suspicious)),
        all(scan.readable for scan in scans),
    )


def scan_plain(path: Path) -> Scan | None:
    """Scan a file that is one plain pickle; None where it is none."""
    with path.open("rb") as stream:
        if not stream.read(2).startswith(b"\x80"):
            return None
        stream.seek(0)
        found = _scan(stream)
    return found if found.readable or found.imports else None


def _scan(stream: io.BufferedReader | io.BytesIO) -> Scan:
    from fickling.fickle import Pickled, PickleDecodeError

    start = stream.tell()
    try:
        # fickling prints warnings about malformed pickles; they are told by `readable` here.
        with contextlib.redirect_stderr(io.StringIO()):
            pickled = Pickled.load(stream)
            followed = {
                f"{node.module}.{alias.name}"
                for node in pickled.properties.imports
                for alias in node.names
                if hasattr(node, "module")
            }
            readable = not (
                pickled.has_invalid_opcode or pickled.has_interpretation_error or pickled.has_resource_exhaustion
            )
    except (
        PickleDecodeError,
        ValueError,
        IndexError,
        KeyError,
        RecursionError,
        NotImplementedError,
        EOFError,
        MemoryError,
    ):
        pickled, followed, readable = None, set(), False
    named, surely = _named_globals(stream, start, pickled)
    imports = tuple(dict.fromkeys([*named, *sorted(followed - set(named))]))
    return Scan(imports, tuple(name for name in imports if _is_suspicious(name)), readable and surely)


def _named_globals(
    stream: io.BufferedReader | io.BytesIO, start: int, pickled: Pickled | None
) -> tuple[list[str], bool]:
    """Globals in the raw opcodes, and whether each one's name was written out plainly.

    A second opinion: it also sees what a malformed pickle names before the place where it breaks.
    """
    stream.seek(start)
    found: list[str] = []
    strings = _Strings()
    surely = pickled is not None
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in {"GLOBAL", "INST"}:
                found.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.append(".".join(strings.seen[-2:]))
                surely = surely and len(strings.seen) > 1
            surely = surely and not opcode.name.startswith("EXT")
            strings.follow(opcode.name, argument)
    except (ValueError, MemoryError):  # MemoryError: a string that says it is longer than any memory
        surely = False
    return list(dict.fromkeys(found)), surely


class _Strings:
    """The strings pushed so far, those from the memo included: STACK_GLOBAL takes the last two."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._memo: dict[int, str] = {}
        self._top = ""

    def follow(self, opcode: str, argument: object) -> None:
        """Take one opcode in."""
        if opcode in _STRINGS:
            self._top = str(argument)
            self.seen.append(self._top)
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self._top
        elif opcode in {"BINPUT", "LONG_BINPUT", "PUT"}:
            self._memo[int(str(argument))] = self._top
        elif opcode in {"BINGET", "LONG_BINGET", "GET"}:
            self._top = self._memo.get(int(str(argument)), "")
            self.seen.append(self._top)
        else:
            self._top = ""


def _is_suspicious(name: str) -> bool:
    from fickling.analysis import UnsafeImportsML
    from fickling.fickle import BUILTIN_MODULE_NAMES, SAFE_BUILTINS, UNSAFE_IMPORTS

    module, _, attribute = name.rpartition(".")
    if _TENSORS.match(name):
        return False
    if module in BUILTIN_MODULE_NAMES:
        return attribute not in {*SAFE_BUILTINS, "set"}
    parts = module.split(".")
    prefixes = {".".join(parts[: end + 1]) for end in range(len(parts))}
    return (
        bool(prefixes & UNSAFE_IMPORTS)
        or bool(prefixes & set(UnsafeImportsML.UNSAFE_MODULES))
        or attribute in UnsafeImportsML.UNSAFE_IMPORTS.get(module, {})
        or attribute in {"eval", "exec", "system", "popen", "__import__"}
    )
