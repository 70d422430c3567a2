"""Workers of a Ray cluster: a stage runs on whichever of its machines is free; what they share is a file system."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlpack
from mlpack.core.filesystem import make_folder, temporary_name
from mlpack.engine.run import run
from mlpack.engine.workers import Begun, Heard, Task
from mlpack.errors import KINDS, MachineError, MissingLibrary, MlpackError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from mlpack.engine.cache import Done
    from mlpack.engine.context import Context


_CONNECT_S = 10.0


@dataclass(frozen=True)
class Caller:
    """Who asks: the version of mlpack, the working folder, where modules are found, and a file in the cache."""

    version: str
    folder: str
    modules: tuple[str, ...]
    seen: str


class Cluster(Begun):
    """As many workers as the cluster has room for, each with so many threads.

    Every machine needs this version of mlpack, and the cache, the model and the data under the same paths.

    Raises:
        MissingLibrary: ray is not installed.
        UsageError: nothing answers at this address.
    """

    def __init__(self, address: str, threads: int, cache: Path) -> None:
        super().__init__()
        try:
            import ray
        except ImportError as error:
            raise MissingLibrary("--ray needs the package ray", "pip install 'mlpack-toolchain[ray]'") from error
        self._ray = ray
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"no Ray cluster answers at {address}: {str(error).splitlines()[0]}",
                "start one with `ray start --head` and give its address as HOST:PORT, or auto",
            ) from error
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.count = max(1, int(resources.get("CPU", 1)) // threads)
        # A killed task is not begun again: what killed it, most often memory, would do so again.
        self._there: Any = ray.remote(num_cpus=threads, max_retries=0)(run_there)
        self._asked: dict[Future[Done], Any] = {}
        make_folder(cache)
        self._seen = temporary_name(cache / "ray")
        self._seen.touch()
        self._caller = Caller(mlpack.__version__, str(Path.cwd()), tuple(sys.path), str(self._seen))

    def submit(self, task: Task, context: Context) -> Future[Done]:
        """Begin it on some machine."""
        told = Heard()
        asked = self._there.remote(task, replace(context, reporter=Heard()), self._caller)
        future: Future[Done] = Future()

        def ended(answer: Future[dict[str, Any]]) -> None:
            lost = answer.exception()
            if lost is not None:
                why = str(lost).splitlines()[0]
                future.set_exception(MachineError(f"the cluster lost a task: {why}", "run the same command again"))
                return
            found = answer.result()
            told.lines += found["lines"]
            if "error" in found:
                error = found["error"]
                future.set_exception(KINDS[error["kind"]](error["message"], error["hint"]))
            else:
                future.set_result(found["done"])

        asked.future().add_done_callback(ended)
        self._begun[future] = told, context.reporter
        self._asked[future] = asked
        return future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._begun:
            self._ray.cancel(self._asked[future], force=True)
        self._seen.unlink(missing_ok=True)
        self._ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself waits for minutes where nobody listens."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def run_there(task: Task, context: Context, caller: Caller) -> dict[str, Any]:
    """Run a stage on this machine of the cluster: its `done` or its `error`, and the `lines` to tell."""
    assert isinstance(context.reporter, Heard)
    try:
        _check(caller)
        sys.path += [path for path in caller.modules if path not in sys.path]
        with contextlib.chdir(caller.folder):
            done = run(task.stage, task.model, context, label=task.label)
    except MlpackError as error:
        told = {"kind": error.kind, "message": error.message, "hint": error.hint}
        return {"error": told, "lines": context.reporter.lines}
    return {"done": done, "lines": context.reporter.lines}


def _check(caller: Caller) -> None:
    here = socket.gethostname()
    if mlpack.__version__ != caller.version:
        raise MachineError(
            f"{here} has mlpack {mlpack.__version__}, and {caller.version} asks it to work",
            "install the same version on every machine of the cluster",
        )
    for path in (caller.seen, caller.folder):
        if not Path(path).exists():
            raise MachineError(
                f"{here} does not see {path}",
                "put cache, model and data on a file system that all machines of the cluster share: MLPACK_CACHE=PATH",
            )
