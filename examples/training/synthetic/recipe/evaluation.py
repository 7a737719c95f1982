"""
What the trained models are asked, of which each run leaves a record; see `transformers_eilev.evaluation`.

Two sets that no training showed, each in its own words and in words that mean something in one prompt alone. With 2
and more narrated clips, contexts are "balanced": half of them have the query's verb and one other noun, half its noun
and one other verb, so that no word is more frequent than the other that it could be. The same queries are also asked
after such contexts as EILEV's training draws them, kind "eilev".
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers_eilev.evaluation.generation import evaluate_generation
from transformers_eilev.evaluation.narration_metrics import NarrationMetrics
from transformers_eilev.evaluation.narrators import Narrator
from transformers_eilev.evaluation.queries import EvaluationQueries
from transformers_eilev.evaluation.runs import RunSettings

from .ablations import ABLATIONS


METRICS = ("exact", "verb", "noun")
# As of `model.generate`.
GREEDY = {"do_sample": False, "num_beams": 1, "max_new_tokens": 24}
# Of each training, by kind of context. EILEV's is also asked without the examples' clips and with their clips
# exchanged, and beside it stands what words alone would tell.
ASKED = {
    "eilev": {
        "balanced": ("in_context", "text_only", "shuffled", "unseen_pair", "majority"),
        "eilev": ("in_context", "shuffled"),
    },
    "control": {"balanced": ("in_context", "text_only")},
    **{f"eilev-{name}": {"balanced": ("in_context", "text_only")} for name in ABLATIONS},
}

METHOD_NAMES = {"eilev": "EILEV", "control": "VideoBLIP"} | {
    f"eilev-{name}": f"EILEV trained on {summary}" for name, summary in ABLATIONS.items()
}
FAMILY_NAMES = {"opt": "OPT", "t5": "T5"}
_SETS = {"pairs": "new pairs", "novel": "new nouns"}
_WORDS = {"own": "own words", "new": "words of one prompt"}
_KINDS = {"balanced": "", "eilev": ", EILEV's contexts"}


def name_of_model(method: str, family: str) -> str:
    """What a training is called in records and tables, such as "EILEV (OPT)"."""
    return f"{METHOD_NAMES[method]} ({FAMILY_NAMES[family]})"


def ask(
    narrator: Narrator,
    sets: Mapping[str, tuple[Any, Any]],
    output_dir: Path,
    *,
    asked: Mapping[str, Sequence[str]],
    rename: Callable,
    questions: Sequence[str],
    shots: Sequence[int],
    num_queries: int,
    training_seed: int,
    metrics: Sequence[str] = METRICS,
    batch_size: int = 32,
    seed: int = 0,
) -> None:
    """
    Narrates and scores; goes on where it was stopped.

    Args:
        narrator ([`Narrator`]): who is asked.
        sets (`Mapping`): "pairs" and "novel": the clips to ask about, and those that contexts are of, frames encoded.
        output_dir (`Path`): gets a folder for each set, words and kind of context, such as "novel-new-balanced", with
            one for each condition and number of shots.
        asked (`Mapping`): of `ASKED`.
        rename ([`EpisodeNames`]): gives words of one prompt.
        questions (`Sequence[str]`): of which one is drawn for each clip.
        shots (`Sequence[int]`), num_queries (`int`): as of [`EvaluationQueries`].
        training_seed (`int`), batch_size (`int`): as of [`RunSettings`].
        metrics (`Sequence[str]`): as of [`NarrationMetrics`].
        seed (`int`, defaults to 0): of the queries, the same for all trainings.
    """
    scores = NarrationMetrics(metrics)
    for name, (clips, contexts) in sets.items():
        by_kind = _draw(clips, contexts, shots, num_queries, seed)
        for words in _WORDS:
            for kind, conditions in asked.items():
                settings = RunSettings(
                    output_dir=output_dir / f"{name}-{words}-{kind}",
                    dataset=f"{_SETS[name]}, {_WORDS[words]}{_KINDS[kind]}",
                    conditions=conditions,
                    prompts=questions,
                    rename=rename if words == "new" else None,
                    training_seed=training_seed,
                    batch_size=batch_size,
                    progress=False,
                )
                evaluate_generation(narrator, by_kind[kind], settings, metrics=scores)


def _draw(clips, contexts, shots: Sequence[int], num_queries: int, seed: int) -> dict[str, EvaluationQueries]:
    """By kind. A query's own pair is in no context, and so the query is not, though its set has it."""
    balanced = EvaluationQueries(clips, contexts, shots=shots, kind="balanced", num_queries=num_queries, seed=seed)
    asked = clips.select(balanced.queries(max(shots)))
    # Without a context there is one kind alone.
    as_trained = EvaluationQueries(asked, contexts, shots=[k for k in shots if k], kind="eilev", seed=seed)
    return {"balanced": balanced, "eilev": as_trained}
