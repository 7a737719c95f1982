"""What evaluations have in common: a run for each condition and number of shots, its predictions made by any number of
processes and gone on with where it was stopped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from ..data.narrations import PROMPTS
from .conditions import Condition
from .prediction_journal import PredictionJournal
from .processes import join_processes
from .queries import EvaluationQueries
from .results import fingerprint_of


# Gives what is added to each prediction of a batch, by the samples' places.
Predict = Callable[[Sequence[int]], list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """
    How predictions are made, whatever is predicted.

    Attributes:
        output_dir (`Path`): for a folder of each run, such as `in_context-4`.
        dataset (`str`): what the queries are of, to show.
        conditions (`Sequence[str]`): see `conditions.find_condition`. Numbers of shots that one makes no sense for are
            left out of it.
        prompts (`Sequence[str]`), rename (`Callable`), sentences (`Mapping[str, str]`): as of
            [`EvaluationQueries.samples`].
        training_seed (`int`, *optional*): of the model's training, where several trainings are asked the same: their
            records have it as `seed` instead of that of the queries, so that means and spreads are over trainings.
            What a rule says is the same beside each of them, and has the queries'.
        batch_size (`int`): queries at a time, in each process.
        overwrite (`bool`): drop predictions of other settings that are there.
        progress (`bool`): show a bar.
        arguments (`Mapping`): what the user asked for, as JSON takes it, to stand in the records.

    Raises:
        ValueError: if `conditions` has one twice.
    """

    output_dir: Path
    dataset: str
    conditions: Sequence[str] = ("in_context",)
    prompts: Sequence[str] = PROMPTS
    rename: Callable | None = field(default=None, repr=False)
    sentences: Any = field(default=None, repr=False)
    training_seed: int | None = None
    batch_size: int = 8
    overwrite: bool = False
    progress: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if len({*self.conditions}) < len(self.conditions):
            raise ValueError(f"`conditions` must be different ones, but are {list(self.conditions)}")


def iter_runs(
    settings: RunSettings,
    queries: EvaluationQueries,
    *,
    task: str,
    model: str,
    fingerprint: str,
    load_clip: Callable,
    find: Callable[[str], Condition],
    predictor: Callable[[Any, list[dict], Condition], Predict],
) -> Iterator[tuple[Path, dict[str, Any], list[dict[str, Any]]]]:
    """
    Makes the predictions of one run after the other; in several processes (`torchrun`, `accelerate launch`) each makes
    a part.

    Args:
        settings ([`RunSettings`]), queries ([`EvaluationQueries`]): what is asked, and how.
        task (`str`): "generation" or "classification".
        model, fingerprint (`str`): whose predictions they are, and a hash of all of it that decides them.
        load_clip (`Callable`): as of [`EvaluationQueries.samples`].
        find (`Callable[[str], Condition]`): the condition of a name.
        predictor (`Callable`): makes of the samples of a run, what is known of each, and the condition what predicts.

    Yields:
        `tuple`: the folder of a run, what decides its predictions, and all of these, in order. In other processes than
        the first, nothing.

    Raises:
        ValueError: an unknown condition, by name, before anything is done; predictions of other settings.
    """
    conditions = [(name, find(name)) for name in settings.conditions]
    jobs = [(name, condition, k) for name, condition in conditions for k in queries.shots if k >= condition.min_shots]
    if not jobs:
        raise ValueError(f"`conditions` {list(settings.conditions)} need more examples than {list(queries.shots)}")
    state = join_processes()
    for name, condition, num_shots in jobs:
        samples = queries.samples(
            num_shots,
            condition,
            load_clip=load_clip,
            prompts=settings.prompts,
            rename=settings.rename,
            sentences=settings.sentences,
        )
        narrations = [samples.narrations(index) for index in range(len(samples))]
        expected = queries.expected(samples, narrations)
        of_run = {
            "task": task,
            "model": "none" if condition.rule else model,
            "dataset": settings.dataset,
            "condition": name,
            "shots": num_shots,
            **_seeds(queries.seed, None if condition.rule else settings.training_seed),
            "fingerprints": {
                "model": None if condition.rule else fingerprint,
                # Narrations as they are said, of contexts and references.
                "prompts": fingerprint_of([*settings.prompts, *narrations]),
                "queries": fingerprint_of([[line["query"], line["context"]] for line in expected]),
                "frames": None if condition.rule else queries.fingerprint_of_frames(),
            },
        }
        folder = settings.output_dir / f"{name}-{num_shots}"
        journal = PredictionJournal(
            folder, expected, of_run, batch_size=settings.batch_size, overwrite=settings.overwrite
        )
        missing = broadcast_object_list([journal.prepare() if state.is_main_process else None])[0]
        try:
            _complete(journal, missing, predictor(samples, expected, condition), state, settings.progress)
        except ValueError as error:
            raise ValueError(f"{folder.name}: {error}") from error
        state.wait_for_everyone()
        if state.is_main_process:
            yield folder, journal.settings, journal.finish()


def _seeds(of_queries: int, of_training: int | None) -> dict[str, int]:
    return {"seed": of_queries} if of_training is None else {"seed": of_training, "queries_seed": of_queries}


def _complete(
    journal: PredictionJournal, batches: Sequence[range], predict: Predict, state: PartialState, progress: bool
) -> None:
    mine = batches[state.process_index :: state.num_processes]
    is_shown = progress and state.is_main_process
    with tqdm(total=sum(map(len, mine)), desc=journal.folder.name, unit="query", disable=not is_shown) as bar:
        journal.complete(mine, predict, rank=state.process_index, progress=bar.update)


__all__ = ["Predict", "RunSettings", "iter_runs"]
