"""Summed up records for a model card: the `model-index` that the Hub shows as evaluation results."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from .records import METRIC_NAMES, Cell, metrics_of, summarize, words_of_shots


# The Hub's names of tasks (https://huggingface.co/tasks) ...
_TASKS = {
    "generation": ("video-text-to-text", "Video narration"),
    "classification": ("video-classification", "Verbs and nouns of actions"),
}
# ... and of metrics (https://huggingface.co/metrics), with what tells their kinds apart. Others keep their own.
_METRICS: dict[str, tuple[str, dict[str, Any]]] = {
    "exact": ("exact_match", {}),
    "verb": ("accuracy", {"of": "verb"}),
    "noun": ("accuracy", {"of": "noun"}),
    "rouge_l": ("rouge", {"rouge_type": "rougeL"}),
    "bleu": ("bleu", {}),
    "meteor": ("meteor", {}),
    "bert_score": ("bertscore", {}),
    **{f"{kind}_macro_f1": ("f1", {"of": kind, "average": "macro"}) for kind in ("verb", "noun")},
    **{f"{kind}_top_{k}": ("accuracy", {"of": kind, "top_k": k}) for kind in ("verb", "noun") for k in (1, 5)},
}


def make_eval_results(
    records: Sequence[Mapping[str, Any]], model: str, *, dataset_ids: Mapping[str, str] | None = None
) -> list[EvalResult]:
    """
    What a model's card says: each metric of each data set, condition and number of shots, as mean over seeds. Which
    shots and condition they are, and the spread, is in `metric_name` and `metric_args`.

    Args:
        records (`Sequence[Mapping]`): as of [`read_records`], of any models.
        model (`str`): whose results are wanted.
        dataset_ids (`Mapping[str, str]`, *optional*): of data sets that are on the Hub, their ids by the records'
            names; of others the name is written as ids are.

    Returns:
        `list[huggingface_hub.EvalResult]`: what could not be computed is left out.

    Raises:
        ValueError: if no record is of the model; `dataset_ids` of data sets that are not there; data sets whose ids
            would be the same.
    """
    own = [record for record in records if record["model"] == model]
    if not own:
        raise ValueError(f"No record is of the model {model!r}, but of {sorted({r['model'] for r in records})}")
    ids = _ids_of({record["dataset"] for record in own}, dataset_ids or {})
    cells = [cell for metric in metrics_of(own) for cell in summarize(own, metric) if cell.mean is not None]
    return [_eval_result(cell, ids[cell.dataset]) for cell in cells]


def make_model_index(
    records: Sequence[Mapping[str, Any]],
    model: str,
    *,
    card_name: str | None = None,
    dataset_ids: Mapping[str, str] | None = None,
) -> str:
    """
    The `model-index` block of a model card, in YAML, to stand among the card's metadata.

    Args:
        records, model, dataset_ids: as of [`make_eval_results`].
        card_name (`str`, *optional*): what the card calls the model; by default `model`.

    Raises:
        ValueError: as [`make_eval_results`].
    """
    results = make_eval_results(records, model, dataset_ids=dataset_ids)
    return ModelCardData(model_name=card_name or model, eval_results=results).to_yaml() + "\n"


# ------------------------------------------------------------------------------------------------------------ details


def _ids_of(datasets: set[str], given: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(given.keys() - datasets)
    if unknown:
        raise ValueError(f"`dataset_ids` names {unknown[0]!r}, which is none of the data sets {sorted(datasets)}")
    ids = {name: given.get(name) or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in sorted(datasets)}
    for name, own in ids.items():
        others = [other for other in ids if other != name and ids[other] == own]
        if others:
            raise ValueError(f"The data sets {name!r} and {others[0]!r} would both have the id {own!r}: set it")
    return ids


def _eval_result(cell: Cell, dataset_id: str) -> EvalResult:
    task_type, task_name = _TASKS.get(cell.task, (cell.task, cell.task))
    metric_type, args = _METRICS.get(cell.metric, (cell.metric, {}))
    spread = {"std": cell.std, "interval": cell.interval and [round(bound, 4) for bound in cell.interval]}
    if cell.std is not None:
        spread["std"] = round(cell.std, 4)
    asked = {"condition": cell.condition, "shots": cell.shots, "num_seeds": cell.num_seeds}
    spread = {name: value for name, value in spread.items() if value is not None}
    name = f"{METRIC_NAMES.get(cell.metric, cell.metric)}, {cell.condition}, {words_of_shots(cell.shots)}"
    return EvalResult(
        task_type=task_type,
        task_name=task_name,
        dataset_type=dataset_id,
        dataset_name=cell.dataset,
        metric_type=metric_type,
        metric_name=name,
        metric_value=round(cell.mean, 4),
        metric_args={**args, **asked, "num_queries": cell.num_queries, **spread},
    )


__all__ = ["make_eval_results", "make_model_index"]
