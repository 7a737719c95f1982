"""The model card of a checkpoint of the recipe."""

from collections.abc import Sequence

from transformers_eilev.data.synthetic.world import World
from transformers_eilev.evaluation.records import NO_MODEL, Cell
from transformers_eilev.evaluation.tables import make_table

from .evaluation import FAMILY_NAMES, METHOD_NAMES, name_of_model
from .learning import SHARE_RENAMED
from .worlds import TRAIN_WORLD


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


def make_card(method: str, family: str, seed: int, cells: Sequence[Cell]) -> str:
    """
    Args:
        method (`str`): "eilev" or "control".
        family (`str`): "opt" or "t5".
        seed (`int`): of the training.
        cells (`Sequence[Cell]`): of all models, summed up over all seeds.

    Returns:
        `str`: Markdown, with the metadata that the Hub reads.
    """
    shown = [cell for cell in cells if cell.model in (name_of_model(method, family), NO_MODEL)]
    shown = [cell for cell in shown if cell.metric == "exact"]
    tables = "\n".join(
        make_table([cell for cell in shown if cell.dataset == dataset], counts=False)
        for dataset in dict.fromkeys(cell.dataset for cell in shown)
    )
    language_model = FAMILY_NAMES[family]
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

# {METHOD_NAMES[method]} on rendered video, with a small {language_model}

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
contexts" aside, where they do). New pairs are of known verbs and nouns that were never trained on together; new nouns,
and some of their verbs, training never showed. Words of one prompt mean something in it alone; they were given in
training too, each time to something else; what a context does not name keeps its own.

{tables}"""


_NUM_VERBS = len(World(TRAIN_WORLD).verbs)
