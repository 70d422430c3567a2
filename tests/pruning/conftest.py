"""Pruning needs torch-pruning; the nets lie beside the tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("torch_pruning")
