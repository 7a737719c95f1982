"""Where the pages are, and the clips that they show."""

import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "examples" / "narration"
# The modules of the pages.
sys.path.insert(0, str(ROOT / "examples" / "demo"))
