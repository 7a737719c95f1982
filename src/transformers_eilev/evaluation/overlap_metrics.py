"""Metrics that compare words: ROUGE-L, BLEU and CIDEr, each by the library that others report it with."""

from collections.abc import Iterable, Sequence

import numpy as np

from .measurements import Measurement, measure_each, needed, sums_of


class RougeL:
    """
    F1 of the longest common subsequence, by rouge-score with its stemmer: "washes" and "washed" are the same word.
    Upper case and punctuation don't count.

    Raises:
        MetricUnavailable: without rouge-score.
    """

    def __init__(self):
        with needed("rouge-score"):
            from rouge_score.rouge_scorer import RougeScorer
        self._scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
        return measure_each(self._score, predictions, references)

    def _score(self, predictions: list[str], references: list[str]) -> Iterable[float]:
        scores = map(self._scorer.score, references, predictions)
        return (score["rougeL"].fmeasure for score in scores)


class Bleu:
    """
    BLEU of all narrations together, by sacrebleu with its defaults, from 0 to 1. The interval comes from the counts of
    n-grams of each narration, which are all that it depends on.

    Attributes:
        signature (`str`): sacrebleu's own, which says how it was computed.

    Raises:
        MetricUnavailable: without sacrebleu.
    """

    def __init__(self):
        with needed("sacrebleu"):
            from sacrebleu.metrics import BLEU
        # Of a single sentence sacrebleu wants "effective order", which its counts don't depend on.
        self._of_sentence = BLEU(effective_order=True)
        self._of_corpus = BLEU(references=[[""]])
        self.signature = str(self._of_corpus.get_signature())

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
        counts = {pair: self._count(*pair) for pair in dict.fromkeys(zip(predictions, references))}
        counts = np.array([counts[pair] for pair in zip(predictions, references)])
        return Measurement(lambda samples: map(self._score, sums_of(counts, samples)))

    def _count(self, prediction: str, reference: str) -> list[int]:
        found = self._of_sentence.sentence_score(prediction, [reference])
        return [*found.counts, *found.totals, found.sys_len, found.ref_len]

    def _score(self, sums: np.ndarray) -> float:
        *counts, sys_len, ref_len = sums.tolist()
        bleu = self._of_corpus
        order = bleu.max_ngram_order
        score = bleu.compute_bleu(
            counts[:order],
            counts[order:],
            sys_len,
            ref_len,
            smooth_method=bleu.smooth_method,
            smooth_value=bleu.smooth_value,
            effective_order=bleu.effective_order,
            max_ngram_order=order,
        )
        return score.score / 100


class Cider:
    """
    CIDEr-D by pycocoevalcap, from 0 to 10. What a word weighs depends on how many of the references have it, so that a
    single query always gets 0; the interval takes these weights as given.

    Words are split by nltk, in lower case and without the punctuation that pycocoevalcap drops. Its own tokenizer, of
    the same rules (Penn Treebank), is a Java program; it differs where a text has several sentences, "#" or emoji.

    Raises:
        MetricUnavailable: without pycocoevalcap or nltk.
    """

    def __init__(self):
        with needed("pycocoevalcap"):
            from pycocoevalcap.cider.cider import Cider as Scorer
            from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS
        with needed("nltk"):
            from nltk.tokenize import NLTKWordTokenizer
        self._scorer, self._tokenizer, self._dropped = Scorer(), NLTKWordTokenizer(), {*PUNCTUATIONS}

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
        texts = {text: [self.tokenize(text)] for text in {*predictions, *references}}
        found, expected = ({row: texts[text] for row, text in enumerate(own)} for own in (predictions, references))
        _, per_query = self._scorer.compute_score(expected, found)
        return Measurement(lambda samples: (per_query[rows].mean() for rows in samples), per_query)

    def tokenize(self, text: str) -> str:
        """Words with spaces between them."""
        words = (word.lower() for word in self._tokenizer.tokenize(text, convert_parentheses=True))
        return " ".join(word for word in words if word not in self._dropped)


__all__ = ["Bleu", "Cider", "RougeL"]
