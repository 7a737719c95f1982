"""
Checks the model cards of this repository: metadata that the Hub takes, evaluation results that come through, code that
compiles, links and paths that lead somewhere. Run by `make check`; for other cards: `check_cards.py FILE...`.
"""

import re
import sys
from pathlib import Path

from transformers_eilev.hub.card_checks import find_faults


ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "src/transformers_eilev/embedded"
_PATH = re.compile(r"`((?:src|examples|tests|docs|utils|model_cards|benchmarks)/[\w./-]+)`")


def find_cards() -> list[Path]:
    """All cards; not the README.md that lists those of `model_cards`."""
    proposed = [path for path in sorted((ROOT / "model_cards").glob("*.md")) if path.name != "README.md"]
    return [*proposed, *sorted(path.parent / "README.md" for path in EMBEDDED.glob("*/config.json"))]


def check_card(path: Path) -> list[str]:
    """What is wrong with one, a line for each fault."""
    if not path.is_file():
        return ["there is no such file"]
    content = path.read_text(encoding="utf-8")
    missing = sorted({name for name in _PATH.findall(content) if not (ROOT / name).exists()})
    return find_faults(content, folder=path.parent) + [f"it names {name}, which is not there" for name in missing]


def main():
    cards = [Path(name) for name in sys.argv[1:]] or find_cards()
    faults = [f"{path}: {fault}" for path in cards for fault in check_card(path)]
    print("\n".join(faults) or f"{len(cards)} model cards are sound.")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
