"""The model card of a checkpoint of the recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers_eilev.data.synthetic.world import World

from .learning import SHARE_RENAMED
from .report import make_table
from .worlds import TRAIN_WORLD


_NAMES = {"eilev": "EILEV", "control": "VideoBLIP"}
_FAMILIES = {"opt": "OPT", "t5": "T5"}
_TRAINING = {
    "eilev": "in context, as EILEV: 0 to 8 narrated clips before the one that is asked about, which share its verb or "
    "its noun; in {renamed:.0%} of those with a context verbs and nouns have words of that sample alone",
    "control": "without context, as VideoBLIP, on as many clips",
}
_USES = {
    "eilev": "To see a model learn in its prompt, on a laptop, in a second; for tests that need a model which says "
    "something.",
    "control": "The control: the same network and data as the EILEV beside it, trained without context.",
}


def make_card(method: str, family: str, seed: int, summary: Sequence[Mapping[str, Any]]) -> str:
    """
    Args:
        method (`str`): "eilev" or "control".
        family (`str`): "opt" or "t5".
        seed (`int`): of the training.
        summary (`Sequence[Mapping]`): of `report.summarize`, over all seeds.

    Returns:
        `str`: Markdown, with the metadata that the Hub reads.
    """
    entries = [entry for entry in summary if entry["family"] == family and entry["method"] in (method, "none")]
    tables = []
    for set_name, words in dict.fromkeys((entry["set"], entry["words"]) for entry in entries):
        chosen = [entry for entry in entries if (entry["set"], entry["words"]) == (set_name, words)]
        tables += [f"{_SETS[set_name, words]}:\n", make_table(chosen, ("exact",))]
    name, language_model, tables = _NAMES[method], _FAMILIES[family], "\n".join(tables)
    return f"""---
license: mit
language: en
library_name: transformers
pipeline_tag: video-text-to-text
tags:
- video
- in-context-learning
- synthetic
---

# {name} on rendered video, with a small {language_model}

{_USES[method]} **Not for real footage**: it has seen nothing but rendered hands that do {_NUM_VERBS} things to drawn
objects, and knows a few hundred words; whatever it says of a real video means nothing.

- **Network**: about 2 million parameters in the classes of the published checkpoints (ViT of frames
  of 40 pixels, Q-Former with 4 queries, {language_model}), in float16, to compute with in float32. 4 frames of 8 s.
- **Trained** {_TRAINING[method].format(renamed=SHARE_RENAMED)}. Before that the ViT and the Q-Former learned to tell
  verbs and nouns apart, and the language model to read texts with vectors in them; then they were joined on single
  clips. Vision and language model are frozen. `examples/training/synthetic` makes it anew by one command, on two CPU
  cores. Seed {seed}.
- **Blind to order**: its vision sees each frame by itself, so that it can't tell opening from closing; the synthetic
  set has one of each such pair.
- **Words**: what it never read is spelled in bytes, which it was not taught to use: call things by words that it knows
  (`tokenizer.json` has them) or, in a context, give them others of these.

## Narrations right to the letter

Shares of greedy narrations that equal the annotation, by number of narrated clips before; mean over seeds ± standard
deviation; of the float32 weights, before they were rounded. With 2 and more clips, one other verb and one other noun
come as often in a context as the ones that are asked for, so that words alone don't tell the answer ("EILEV's
contexts" aside, where they do). Words that mean something in one context alone were given in training too, each time
to something else; what a context does not name keeps its own.

{tables}"""


_NUM_VERBS = len(World(TRAIN_WORLD).verbs)
_SETS = {
    ("pairs", "own"): "Known verbs and nouns that were never trained on together",
    ("pairs", "new"): "The same, with words that mean something in this context alone",
    ("novel", "own"): "Nouns, and some verbs, that training never showed",
    ("novel", "new"): "The same, with words that mean something in this context alone",
}
