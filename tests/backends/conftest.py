"""The graphs written by hand lie beside the tests of the numerics."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "quantization"))
