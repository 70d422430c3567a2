"""Makes the helpers of this folder importable here and in the children."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
