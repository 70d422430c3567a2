"""`bench --server` against servers that others wrote: MLServer and Triton, each in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from other_servers import NUMPY, environment, triton_command, triton_environment, triton_home
from serving import free_port

from mlpack import bench_server
from mlpack.errors import MlpackError, StageFailed
from mlpack.measure.server_time import NETWORK, PARTS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MLSERVER = "mlserver==1.7.1"
START_SECONDS = 300

MLSERVER_MODEL = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Double(MLModel):
    async def predict(self, payload):
        doubled = NumpyCodec.decode_input(payload.inputs[0]) * 2
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", doubled)])
"""

TRITON_MODEL = """
import time

import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.004)
        found = []
        for request in requests:
            x = backend.get_input_tensor_by_name(request, "x").as_numpy()
            if x.shape[0] == 7:
                raise ValueError("seven rows are too odd")
            found.append(backend.InferenceResponse([backend.Tensor("y", x * 2)]))
        return found
"""

TRITON_CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
dynamic_batching { max_queue_delay_microseconds: 1000 }
instance_group { kind: KIND_CPU count: 1 }
"""


@contextlib.contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str], url: str, model: str):
    """The server, from when the model answers; ended with its whole process group."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            with contextlib.suppress(MlpackError):
                bench_server(url, model=model, clients=(1,), seconds=0.1)
                break
            time.sleep(0.5)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def mlserver(kept, tmp_path_factory):
    """HTTP and gRPC addresses of an MLServer with one model, `double`."""
    bin_folder = environment(kept / "mlserver", MLSERVER)
    place = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_port(), free_port(), free_port()
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (place / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    described = {
        "name": "double", "implementation": "doubling.Double",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 8]}],
    }  # fmt: skip
    (place / "model-settings.json").write_text(json.dumps(described))
    (place / "doubling.py").write_text(MLSERVER_MODEL)
    urls = (f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc}")
    with running([str(bin_folder / "mlserver"), "start", str(place)], place, {}, urls[1], "double"):
        yield urls


@pytest.fixture(scope="module")
def triton(kept, tmp_path_factory):
    """HTTP and gRPC addresses of a Triton with one model, `double`, on its Python backend."""
    bin_folder = environment(kept / "triton", NUMPY)
    home = triton_home(kept)
    place = tmp_path_factory.mktemp("triton")
    (place / "models" / "double" / "1").mkdir(parents=True)
    (place / "models" / "double" / "config.pbtxt").write_text(TRITON_CONFIG)
    (place / "models" / "double" / "1" / "model.py").write_text(TRITON_MODEL)
    http, grpc = free_port(), free_port()
    command = triton_command(home, place / "models", http, grpc)
    libraries = triton_environment(kept, bin_folder)
    urls = (f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc}")
    with running(command, place, libraries, urls[0], "double"):
        yield urls


@pytest.mark.parametrize(("door", "form"), [(0, "json"), (1, "protobuf")])
def test_mlserver_tells_its_latency_and_no_parts(mlserver, door, form):
    done = bench_server(mlserver[door], clients=(2,), seconds=1, batch=3)
    (result,) = done.loads
    assert (done.model, done.server, done.form) == ("double", "mlserver 1.7.1", form)
    assert result.load.good == result.load.requests > 6
    assert result.load.quantile("p50").ms > 0
    assert "no statistics" in result.split.reason
    (opened,) = bench_server(mlserver[door], rates=(30,), seconds=1).loads
    assert opened.load.errors == {}


@pytest.mark.parametrize(("door", "form"), [(0, "binary"), (1, "protobuf")])
def test_triton_tells_where_the_time_goes(triton, door, form):
    done = bench_server(triton[door], clients=(1, 4), seconds=1)
    assert (done.model, done.version, done.server, done.form) == ("double", "1", "triton 2.51.0", form)
    for each in done.loads:
        assert each.load.good == each.load.requests > 6
        parts = {part.name: part for part in each.split.parts}
        assert list(parts) == [NETWORK, *PARTS]
        assert sum(part.share for part in parts.values()) == pytest.approx(1)
        # The model sleeps 4 ms.
        assert parts["compute"].mean_ms >= 4
        assert each.load.quantile("p50").ms >= 4


@pytest.mark.parametrize("door", [0, 1])
def test_tritons_own_message_is_told(triton, door):
    with pytest.raises(StageFailed, match="seven rows are too odd"):
        bench_server(triton[door], seconds=1, batch=7)
