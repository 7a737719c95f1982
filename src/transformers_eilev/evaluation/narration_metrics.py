"""How well narrations fit references: to the letter, by words and by meaning, with intervals over the queries."""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from ..data.narrations import SUBJECT
from ..data.plain_narrations import parse_narration
from .bootstrap import percentile_interval, resamples
from .measurements import Measurement, MetricUnavailable, measure_each
from .meteor import Meteor
from .overlap_metrics import Bleu, Cider, RougeL
from .sentence_similarity import BertScore, BiEncoderSimilarity, CrossEncoderSimilarity


DEFAULT_METRICS = (
    "exact",
    "sts_bi_encoder",
    "sts_cross_encoder",
    "bert_score",
    "rouge_l",
    "bleu",
    "cider",
    "meteor",
)
# Of "The camera wearer VERB the NOUN." alone.
PLAIN_METRICS = ("verb", "noun")


@dataclass(frozen=True, kw_only=True)
class NarrationScores:
    """
    What [`NarrationMetrics`] found.

    Attributes:
        metrics (`dict[str, dict]`): of each metric its `value` and its 95 % bootstrap `interval`, or `None`.
        per_query (`dict[str, list[float]]`): of each metric that narrations have one by one, in their order.
        unavailable (`dict[str, str]`): metrics that could not be computed, and why.
        num_empty (`int`): predictions without a word, which count as 0 in every metric.
        num_unparsable (`int`, *optional*): other predictions without verb and noun, if "verb" or "noun" is asked for.
        settings (`dict`): those of [`NarrationMetrics`].
    """

    metrics: dict[str, dict[str, Any]]
    per_query: dict[str, list[float]]
    unavailable: dict[str, str]
    num_empty: int
    num_unparsable: int | None
    settings: dict[str, Any]


class NarrationMetrics:
    """
    Metrics of narrations, to be called for many runs: models are loaded at the first call and kept. What can't be
    loaded then is not tried again.

    Args:
        metrics (`Sequence[str]`, *optional*, defaults to `DEFAULT_METRICS`): of these and `PLAIN_METRICS`:
            "exact" (equal to the letter, but for space around), "sts_bi_encoder", "sts_cross_encoder", "bert_score",
            "rouge_l", "bleu", "cider", "meteor"; "verb" and "noun" of "The camera wearer VERB the NOUN.".
        bi_encoder, cross_encoder, bert_score_model (`str`): ids or folders. See `sentence_similarity`.
        bert_score_layers (`int`, *optional*), bert_score_baseline (`str`, *optional*): for models that bert-score does
            not know.
        device (`str`, *optional*): of the models, by default a GPU if there is one.
        batch_size (`int`, defaults to 64): sentences at a time.
        seed (`int`, defaults to 0): of the intervals.
        num_resamples (`int`, defaults to 1000): of the bootstrap; 0 for no intervals.

    Attributes:
        settings (`dict`): all that decides the numbers, as JSON holds it: options, libraries and their versions.

    Raises:
        ValueError: for an unknown metric, by name, or numbers out of range.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        *,
        bi_encoder: str = "all-mpnet-base-v2",
        cross_encoder: str = "cross-encoder/stsb-roberta-large",
        bert_score_model: str = "roberta-large",
        bert_score_layers: int | None = None,
        bert_score_baseline: str | None = None,
        device: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        num_resamples: int = 1000,
    ):
        known = (*DEFAULT_METRICS, *PLAIN_METRICS)
        unknown = [name for name in metrics if name not in known]
        if isinstance(metrics, str) or unknown or not metrics:
            raise ValueError(f"`metrics` must be a list of {', '.join(known)}, but is {metrics!r}")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("num_resamples", num_resamples, 0),
        ):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, but is {value}")
        self.names = tuple(dict.fromkeys(metrics))
        self.seed, self.num_resamples = seed, num_resamples
        on = {"device": device, "batch_size": batch_size}
        of_bert_score = {"num_layers": bert_score_layers, "baseline": bert_score_baseline}
        makers: dict[str, Callable[[], Callable[..., Measurement]]] = {
            "exact": lambda: measure_exact,
            "verb": lambda: partial(measure_words, 0),
            "noun": lambda: partial(measure_words, 1),
            "sts_bi_encoder": lambda: BiEncoderSimilarity(bi_encoder, **on),
            "sts_cross_encoder": lambda: CrossEncoderSimilarity(cross_encoder, **on),
            "bert_score": lambda: BertScore(bert_score_model, **of_bert_score, **on),
            "rouge_l": RougeL,
            "bleu": Bleu,
            "cider": Cider,
            "meteor": Meteor,
        }
        libraries = {
            "sts_bi_encoder": {**_library("sentence-transformers"), "model": bi_encoder},
            "sts_cross_encoder": {**_library("sentence-transformers"), "model": cross_encoder},
            "bert_score": {**_library("bert-score"), "model": bert_score_model, **of_bert_score, "idf": False},
            "rouge_l": {**_library("rouge-score"), "stemmer": True},
            "bleu": {**_library("sacrebleu"), **_bleu_signature()} if "bleu" in self.names else {},
            "cider": {**_library("pycocoevalcap"), "tokenizer": _library("nltk")},
            "meteor": _library("pycocoevalcap"),
        }
        self._makers = {name: makers[name] for name in self.names}
        self._made: dict[str, Callable[..., Measurement] | MetricUnavailable] = {}
        self.settings = {
            "metrics": list(self.names),
            "seed": seed,
            "num_resamples": num_resamples,
            **{name: libraries[name] for name in self.names if name in libraries},
        }

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> NarrationScores:
        """
        Scores the narrations of all queries.

        Args:
            predictions (`Sequence[str]`): some may be empty: they count as 0.
            references (`Sequence[str]`): one for each.

        Raises:
            ValueError: if there is no prediction, or not as many references; for a reference that is missing, or,
                for "verb" and "noun", of another form, by its index.
        """
        predictions, references = list(predictions), list(references)
        self._check(predictions, references)
        # Models with options that are wrong fail before anything is computed.
        self._make_all()
        metrics, per_query, unavailable = {}, {}, {}
        for name, metric in self._made.items():
            try:
                if isinstance(metric, MetricUnavailable):
                    raise metric
                measurement = metric(predictions, references)
                metrics[name] = self._summarize(measurement, len(predictions))
            except MetricUnavailable as reason:
                unavailable[name] = str(reason)
                continue
            if measurement.per_query is not None:
                per_query[name] = measurement.per_query.tolist()
        said = [prediction for prediction in predictions if prediction.strip()]
        is_plain = any(name in PLAIN_METRICS for name in self.names)
        return NarrationScores(
            metrics=metrics,
            per_query=per_query,
            unavailable=unavailable,
            num_empty=len(predictions) - len(said),
            num_unparsable=sum(parse_narration(text.strip()) is None for text in said) if is_plain else None,
            settings=self.settings,
        )

    def close(self) -> None:
        """Drops the models, and ends METEOR's program; the next call starts them again."""
        if isinstance(self._made.get("meteor"), Meteor):
            self._made["meteor"].close()
        self._made.clear()

    def _make_all(self) -> None:
        for name, make in self._makers.items():
            if name not in self._made:
                try:
                    self._made[name] = make()
                except MetricUnavailable as reason:
                    self._made[name] = reason

    def _summarize(self, measurement: Measurement, num_queries: int) -> dict[str, Any]:
        everything = [np.arange(num_queries)]
        if not self.num_resamples:
            (value,) = measurement.statistic(everything)
            return {"value": float(value), "interval": None}
        drawn = resamples(num_queries, seed=self.seed, num_resamples=self.num_resamples)
        value, *others = measurement.statistic(chain(everything, drawn))
        return {"value": float(value), "interval": list(percentile_interval(others))}

    def _check(self, predictions: list, references: list) -> None:
        if not predictions:
            raise ValueError("There is no prediction to score")
        if len(predictions) != len(references):
            raise ValueError(f"There are {len(predictions)} predictions, but {len(references)} references")
        for index, (prediction, reference) in enumerate(zip(predictions, references)):
            if not isinstance(prediction, str):
                raise ValueError(f"predictions[{index}] must be a text, but is {prediction!r}")
            if not isinstance(reference, str) or not reference.strip():
                raise ValueError(f"references[{index}] must be a narration, but is {reference!r}")
            if any(name in PLAIN_METRICS for name in self.names) and parse_narration(reference.strip()) is None:
                raise ValueError(
                    f"references[{index}] has no verb and noun like '{SUBJECT} VERB the NOUN.': {reference!r}"
                )


def score_narrations(
    predictions: Sequence[str], references: Sequence[str], *, metrics: Sequence[str] = DEFAULT_METRICS, **options
) -> NarrationScores:
    """
    Scores narrations once; see [`NarrationMetrics`] for scoring more than once.

    Args:
        predictions (`Sequence[str]`): some may be empty: they count as 0.
        references (`Sequence[str]`): one for each.
        metrics (`Sequence[str]`, *optional*, defaults to `DEFAULT_METRICS`): by name.
        options: other options of [`NarrationMetrics`].

    Raises:
        ValueError: as [`NarrationMetrics`] and its call.
    """
    scorer = NarrationMetrics(metrics, **options)
    try:
        return scorer(predictions, references)
    finally:
        scorer.close()


def measure_exact(predictions: Sequence[str], references: Sequence[str]) -> Measurement:
    """Which narrations equal their reference to the letter, but for space around."""
    return measure_each(_equal(str.strip), predictions, references)


def measure_words(place: int, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
    """
    Which narrations "The camera wearer VERB the NOUN." have a word of their reference, which is of this form, too. Any
    other narration is wrong.

    Args:
        place (`int`): 0 for the verb, 1 for the noun.
    """

    def word_of(text: str) -> str | None:
        words = parse_narration(text.strip())
        return words and words[place]

    return measure_each(_equal(word_of), predictions, references)


def _equal(part_of: Callable[[str], str | None]) -> Callable[[list[str], list[str]], list[bool]]:
    return lambda predictions, references: [part_of(a) == part_of(b) for a, b in zip(predictions, references)]


def _bleu_signature() -> dict[str, str]:
    try:
        return {"signature": Bleu().signature}
    except MetricUnavailable:
        return {}


def _library(name: str) -> dict[str, str | None]:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return {"library": name, "version": version}


__all__ = [
    "DEFAULT_METRICS",
    "PLAIN_METRICS",
    "NarrationMetrics",
    "NarrationScores",
    "measure_exact",
    "measure_words",
    "score_narrations",
]
