"""What can be taken from EILEV's training, each by itself, as its paper does; and the weights that come of it."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


# By what the training is called then.
ABLATIONS = {
    "random": "contexts drawn whatever their verbs and nouns",
    "fixed_words": "words that always mean the same",
    "common": "clips of the 100 most frequent actions alone",
    "shuffled": "clips exchanged among a context's narrations",
}
NUM_COMMON_PAIRS = 100

# What a narrator's training changes.
_LEARNED = ("qformer.", "language_projection.", "query_tokens")


def save_learned(checkpoint: Path, path: Path) -> None:
    """Writes of a narrator's checkpoint, in float16, what its training changed."""
    weights = load_file(checkpoint / "model.safetensors")
    learned = {name: value.half() for name, value in weights.items() if name.startswith(_LEARNED)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(learned, path)


def load_learned(model: nn.Module, path: Path) -> None:
    """Gives a narrator what another training on the same frozen parts has learned."""
    learned = load_file(path)
    wanted = {name for name, _ in model.named_parameters() if name.startswith(_LEARNED)}
    if wanted != set(learned):
        raise ValueError(f"{path} is of another model: it has not {sorted(wanted ^ set(learned))[0]!r} alike")
    with torch.no_grad():
        for name, value in learned.items():
            model.get_parameter(name).copy_(value)


__all__ = ["ABLATIONS", "NUM_COMMON_PAIRS", "load_learned", "save_learned"]
