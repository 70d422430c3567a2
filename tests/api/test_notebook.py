"""A real notebook: its progress, what it shows, and that nothing runs it a second time."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[2]
TINY = ROOT / "sample_models" / "tiny-mlp"
CELLS = (
    """
from pathlib import Path
with Path("runs.txt").open("a") as file:
    file.write("run\\n")
""",
    """
import mlpack
from torch import nn
try:
    mlpack.optimize(nn.Linear(64, 10), data="tiny-mlp/eval.npz")
except mlpack.errors.UsageError as error:
    print(error.message)
""",
    """
quick = ("profile_latency.launches=2", "profile_latency.seconds=0.05")
done = mlpack.optimize("tiny-mlp/model.py:model", data="tiny-mlp/eval.npz", settings=quick)
done
""",
    "print(mlpack.predict(data='tiny-mlp/eval.npz', out='answers.npz').samples)",
    "mlpack.list_artifacts()",
    """
from mlpack.core.notebook import Cell
try:
    with Cell("mlpack.optimize") as told:
        told.say("<script>", 1, 4)
        told.stage_done("export: 1 s")
        told.say("quantize")
        raise KeyError
except KeyError:
    pass
""",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The cells after they ran in a kernel of their own, the folder, and every message that they sent."""
    from nbclient import NotebookClient

    class Listening(NotebookClient):
        sent: list

        def process_message(self, msg, cell, cell_index):
            self.sent.append((cell_index, msg))
            return super().process_message(msg, cell, cell_index)

    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(TINY, folder / "tiny-mlp")
    # The kernel of this environment, whatever kernels the user has installed.
    kernel = folder / "jupyter" / "kernels" / "here"
    kernel.mkdir(parents=True)
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "here", "language": "python"}))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    (folder / "use.ipynb").write_text(nbformat.writes(notebook))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLPACK_")]:
            patch.delenv(name)
        patch.setenv("MLPACK_CACHE", str(folder / "cache"))
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        client = Listening(notebook, timeout=300, kernel_name="here", resources={"metadata": {"path": str(folder)}})
        client.sent = []
        client.execute()
    return notebook.cells, folder, client.sent


pytestmark = [
    pytest.mark.slow,
    # What the kernel's client does to sockets as it ends is its own affair.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


def html_of(outputs):
    return [each["data"]["text/html"] for each in outputs if "text/html" in each.get("data", {})]


def displays(sent, cell):
    kinds = {"display_data", "update_display_data"}
    found = [message["content"] for index, message in sent if index == cell and message["msg_type"] in kinds]
    return [each["data"]["text/html"] for each in found]


def test_the_processes_that_work_do_not_run_the_notebook(run):
    _, folder, _ = run
    assert (folder / "runs.txt").read_text() == "run\n"


def test_a_module_in_memory_is_refused_in_one_line(run):
    cells, _, _ = run
    (told,) = cells[1]["outputs"]
    assert told["text"] == "model is a Linear in memory; mlpack takes a file, or a function by its name\n"


def test_a_cell_ends_with_the_verdict_and_what_it_rests_on(run):
    cells, folder, _ = run
    last = cells[2]["outputs"][-1]
    assert last["output_type"] == "execute_result"
    (html,) = html_of([last])
    artifact = json.loads((folder / "artifacts" / "tiny-mlp" / "1" / "artifact.json").read_text())
    verdict = artifact["accuracy"]["verdict"]
    assert f"<b>tiny-mlp@1   {verdict.upper()}: " in html
    errors = f"errors {artifact['accuracy']['errors_baseline']} → {artifact['accuracy']['errors_optimized']}"
    for part in (errors, "drop ", "allowed", " × [", "P50 ", "at batch 1", "threads", "kB → ", "It lies in"):
        assert part in html, part
    for forbidden in ("<script", "http", "src=", "href="):
        assert forbidden not in html


def test_progress_appears_while_it_runs_and_leaves_one_line(run):
    cells, _, sent = run
    bars = displays(sent, 2)
    assert sum("<progress" in bar for bar in bars) > 3
    assert any(' max="' in bar for bar in bars)
    shown = [each for each in cells[2]["outputs"] if each["output_type"] == "display_data"]
    (kept,) = html_of(shown)
    assert "<progress" not in kept
    assert kept.startswith("<details><summary>mlpack.optimize: ")
    assert "quantize" in kept


def test_other_verbs_work_there_too(run):
    cells, folder, _ = run
    assert cells[3]["outputs"][-1]["text"] == "800\n"
    (html,) = html_of([cells[4]["outputs"][-1]])
    assert "tiny-mlp@1" in html
    assert str(folder / "artifacts") in html


def test_a_verb_that_fails_leaves_what_it_was_doing(run):
    _, _, sent = run
    first, second, last = displays(sent, 5)
    assert '<progress value="1" max="4"></progress> &lt;script&gt; 1/4' in first
    assert "<progress></progress> quantize" in second
    assert "export: 1 s" in second
    assert "ended after" in last
    assert "quantize" in last
