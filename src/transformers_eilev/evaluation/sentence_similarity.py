"""Metrics that compare meanings, by models: of whole sentences (STS-BE and STS-CE of EILEV's paper) and of words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .measurements import Measurement, measure_each, needed


# RoBERTa's, for tokenizers that don't say where they cut.
_MAX_TOKENS = 512


class BiEncoderSimilarity:
    """
    Cosine of the two sentences' vectors, from -1 to 1.

    Args:
        model (`str`): of sentence-transformers: id or folder.
        device (`str`, *optional*): by default a GPU if there is one.
        batch_size (`int`, defaults to 64): sentences at a time.

    Raises:
        MetricUnavailable: without sentence-transformers; if the model can't be had.
    """

    def __init__(self, model: str, *, device: str | None = None, batch_size: int = 64):
        with needed("sentence-transformers", model):
            from sentence_transformers import SentenceTransformer

            self._model = SentenceTransformer(model, device=device)
        self._batch_size = batch_size

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
        return measure_each(self._score, predictions, references)

    def _score(self, predictions: list[str], references: list[str]) -> list[float]:
        places = {text: place for place, text in enumerate(dict.fromkeys([*predictions, *references]))}
        vectors = self._model.encode(
            list(places), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        left, right = ([places[text] for text in texts] for texts in (predictions, references))
        # Rounding may take a cosine past 1.
        return np.einsum("nd,nd->n", vectors[left], vectors[right]).clip(-1, 1).tolist()


class CrossEncoderSimilarity:
    """
    What a model says that reads both sentences, prediction first: from 0 to 1, a sigmoid of its output.

    Args:
        model (`str`): of sentence-transformers, with one output: id or folder.
        device (`str`, *optional*): by default a GPU if there is one.
        batch_size (`int`, defaults to 64): pairs at a time.

    Raises:
        MetricUnavailable: without sentence-transformers; if the model can't be had.
        ValueError: for a model of several outputs.
    """

    def __init__(self, model: str, *, device: str | None = None, batch_size: int = 64):
        with needed("sentence-transformers", model):
            from sentence_transformers import CrossEncoder
            from torch.nn import Sigmoid

            self._model = CrossEncoder(model, device=device, activation_fn=Sigmoid())
        if self._model.num_labels != 1:
            raise ValueError(f"`cross_encoder` {model} has {self._model.num_labels} outputs instead of one")
        self._batch_size = batch_size

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
        return measure_each(self._score, predictions, references)

    def _score(self, predictions: list[str], references: list[str]) -> list[float]:
        pairs = list(zip(predictions, references))
        return self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False).tolist()


class BertScore:
    """
    F1 of BERTScore: words of the one sentence matched with the most similar ones of the other, without idf weights,
    and rescaled so that unrelated sentences have about 0: it may be below.

    Args:
        model (`str`): id or folder.
        num_layers (`int`, *optional*): whose output is compared; by default what bert-score has found best for the
            model, 17 for roberta-large.
        baseline (`str`, *optional*): CSV file with the columns `LAYER,P,R,F` and a row for each layer from 0 on, by
            which scores are rescaled; by default the one that bert-score carries for the model.
        device (`str`, *optional*): by default a GPU if there is one.
        batch_size (`int`, defaults to 64): sentences at a time.

    Raises:
        MetricUnavailable: without bert-score; if the model can't be had.
        ValueError: if bert-score does not know the model's best layer or baseline, and they are not given.
    """

    def __init__(
        self,
        model: str,
        *,
        num_layers: int | None = None,
        baseline: str | None = None,
        device: str | None = None,
        batch_size: int = 64,
    ):
        with needed("bert-score", model):
            from bert_score import BERTScorer
            from bert_score.utils import model2layers

            if num_layers is None and model not in model2layers:
                raise ValueError(f"bert-score does not know which layer of {model} is best: give `bert_score_layers`")
            if baseline is not None and not Path(baseline).is_file():
                raise ValueError(f"`bert_score_baseline`: there is no file {baseline}")
            scorer = BERTScorer(
                model,
                num_layers=num_layers,
                baseline_path=baseline,
                lang="en",
                rescale_with_baseline=True,
                device=device,
            )
            scorer._tokenizer = _load_tokenizer(model)
        if not Path(scorer.baseline_path).is_file():
            raise ValueError(f"bert-score has no baseline for {model}: give `bert_score_baseline`")
        self._scorer, self._batch_size = scorer, batch_size

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
        return measure_each(self._score, predictions, references)

    def _score(self, predictions: list[str], references: list[str]) -> list[float]:
        _, _, f1 = self._scorer.score(predictions, references, batch_size=self._batch_size)
        return f1.tolist()


def _load_tokenizer(model: str):
    """
    The tokenizer as bert-score means it: with a space before the first word for RoBERTa and GPT-2, which its baselines
    are made with. bert-score asks for it in each call, and transformers 5 takes it at loading alone.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer, RobertaTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if isinstance(tokenizer, GPT2Tokenizer | RobertaTokenizer):
        tokenizer = AutoTokenizer.from_pretrained(model, add_prefix_space=True)
    tokenizer.model_max_length = min(tokenizer.model_max_length, _MAX_TOKENS)
    return tokenizer


__all__ = ["BertScore", "BiEncoderSimilarity", "CrossEncoderSimilarity"]
