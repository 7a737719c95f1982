"""ROUGE-L, BLEU and CIDEr: against the libraries' published examples, and against numbers computed otherwise."""

import sys
from collections import Counter

import numpy as np
import pytest
from paper_set import PREDICTIONS, REFERENCES
from sacrebleu.metrics import BLEU

from transformers_eilev.evaluation.bootstrap import resamples
from transformers_eilev.evaluation.measurements import MetricUnavailable
from transformers_eilev.evaluation.overlap_metrics import Bleu, Cider, RougeL


EVERYTHING = [np.arange(len(PREDICTIONS))]


def test_rouge_l_is_that_of_rouge_scores_readme():
    found = RougeL()(
        ["The quick brown dog jumps on the log."], ["The quick brown fox jumps over the lazy dog"]
    ).per_query
    # Precision 0.625, recall 0.555...
    assert found == pytest.approx([0.5882352941176471], abs=1e-12)


def test_rouge_l_stems():
    pairs = [("He washed cups.", "He washes cups"), ("He ran", "He runs")]
    assert RougeL()(*zip(*pairs)).per_query == pytest.approx([1, 1 / 2])


def test_bleu_is_that_of_sacrebleus_readme():
    # "BLEU = 48.53 82.4/50.0/45.5/37.5 (BP = 0.943 ratio = 0.944 hyp_len = 17 ref_len = 18)"
    counts = np.array([14, 7, 5, 3, 17, 14, 11, 8, 17, 18])
    assert (100 * counts[:4] / counts[4:8]).round(1).tolist() == [82.4, 50.0, 45.5, 37.5]
    assert round(100 * Bleu()._score(counts), 2) == 48.53


def test_bleu_of_resamples_is_that_of_their_sentences():
    bleu = Bleu()
    measurement = bleu(PREDICTIONS, REFERENCES)
    assert measurement.per_query is None
    drawn = [*EVERYTHING, *resamples(len(PREDICTIONS), seed=3, num_resamples=20), np.array([17, 18, 19]), [18, 19]]
    library = BLEU()
    expected = [
        library.corpus_score([PREDICTIONS[row] for row in rows], [[REFERENCES[row] for row in rows]]).score / 100
        for rows in drawn
    ]
    assert list(measurement.statistic(drawn)) == pytest.approx(expected, abs=1e-12)
    assert expected[-1] == 0
    assert bleu.signature == str(library.get_signature())


def test_cider_is_what_its_formula_says():
    cider = Cider()
    predictions = [cider.tokenize(text).split() for text in PREDICTIONS]
    references = [cider.tokenize(text).split() for text in REFERENCES]
    found = cider(PREDICTIONS, REFERENCES)
    expected = np.zeros(len(PREDICTIONS))
    for n in range(1, 5):
        # Of each n-gram of anybody, a column; of each sentence, a row.
        counts = [[Counter(zip(*(words[i:] for i in range(n)))) for words in own] for own in (predictions, references)]
        ngrams = sorted({ngram for own in counts for count in own for ngram in count})
        own, true = (np.array([[count[ngram] for ngram in ngrams] for count in side]) for side in counts)
        weights = np.log(len(references)) - np.log(np.maximum(1, (true > 0).sum(0)))
        own, true = own * weights, true * weights
        norms = np.linalg.norm(own, axis=1) * np.linalg.norm(true, axis=1)
        expected += (np.minimum(own, true) * true).sum(1) / np.where(norms > 0, norms, 1)
    # The penalty of lengths, which CIDEr-D counts in pairs of words.
    pairs = np.array([[max(0, len(words) - 1) for words in side] for side in (predictions, references)])
    expected *= 10 / 4 * np.exp(-((pairs[0] - pairs[1]) ** 2) / (2 * 6**2))
    assert found.per_query == pytest.approx(expected, abs=1e-9)
    assert found.per_query[:7] == pytest.approx([10] * 7)
    assert found.per_query[18:].tolist() == [0, 0]
    assert list(found.statistic([*EVERYTHING, [0, 18]])) == pytest.approx([expected.mean(), 5])


@pytest.mark.parametrize(
    "text, words",
    [
        ("The camera wearer picks up the cup.", "the camera wearer picks up the cup"),
        ("C doesn't stop; she's fine, isn't she?", "c does n't stop she 's fine is n't she"),
        ('Puts (the red) cup - fast - on "tables"!', "puts -lrb- the red -rrb- cup fast on tables"),
        ("one\ttwo\nthree co-worker's 3.5 kg, 50%", "one two three co-worker 's 3.5 kg 50 %"),
        (" . ", ""),
    ],
)
def test_words_are_those_of_pycocoevalcaps_tokenizer(text, words):
    # What its `PTBTokenizer` gave, which needs Java.
    assert Cider().tokenize(text) == words


@pytest.mark.parametrize(
    "metric, module, library",
    [
        (RougeL, "rouge_score.rouge_scorer", "rouge-score"),
        (Bleu, "sacrebleu.metrics", "sacrebleu"),
        (Cider, "pycocoevalcap.cider.cider", "pycocoevalcap"),
        (Cider, "nltk.tokenize", "nltk"),
    ],
)
def test_without_its_library_a_metric_says_what_to_install(monkeypatch, metric, module, library):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MetricUnavailable, match=rf'{library} can\'t.*pip install "transformers-eilev\[evaluation\]"'):
        metric()
