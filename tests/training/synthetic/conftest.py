"""The recipe is a script's own package: its folder comes before others, as when the script runs."""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "training" / "synthetic"))
