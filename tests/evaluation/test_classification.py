"""Verbs and nouns told apart: as the model's likelihoods say, with the labels of the clip itself."""

import json

import datasets
import numpy as np
import pytest
import torch
from made_clips import NOUNS, VERBS, make_clips, make_rows

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor, embedded_checkpoint
from transformers_eilev.data import DataCollatorForVideoNarration, FrameLoader
from transformers_eilev.evaluation.classification import evaluate_classification
from transformers_eilev.evaluation.conditions import find_condition
from transformers_eilev.evaluation.narrators import VideoBlipNarrator
from transformers_eilev.evaluation.prediction_journal import read_predictions
from transformers_eilev.evaluation.queries import EvaluationQueries
from transformers_eilev.evaluation.runs import RunSettings
from transformers_eilev.evaluation.taxonomies import Candidates, Taxonomy


TAXONOMY = Taxonomy(
    verbs={
        "wash_(clean)": ["washes", "cleans"],
        "cut_(slice)": ["cuts"],
        "open": ["opens"],
        "take_(pick,_grab)": ["takes", "picks up"],
    },
    nouns={label: [f"the {word}"] for label, word in NOUNS.items()},
)
PROMPT = "What is the camera wearer doing?"


@pytest.fixture(scope="module", params=["opt", "t5"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def narrator(family, request):
    if family == "t5":
        golden = request.getfixturevalue("golden_t5")
        return VideoBlipNarrator(golden.model, golden.interleaved)
    name = embedded_checkpoint()
    model = VideoBlip2ForConditionalGeneration.from_pretrained(name, dtype=torch.float32)
    return VideoBlipNarrator(model, VideoBlip2Processor.from_pretrained(name))


def run(narrator, queries, folder, conditions=("in_context",), taxonomy=TAXONOMY, **settings):
    given = {"dataset": "made", "prompts": (PROMPT,), "progress": False, "batch_size": 4, **settings}
    return evaluate_classification(
        narrator, queries, RunSettings(output_dir=folder, conditions=conditions, **given), taxonomy=taxonomy
    )


def likelihood(narrator, sample, said, word):
    """The mean log-likelihood of a word's tokens after a sample and what was said: the plain way, by the loss."""
    processor, model = narrator.processor, narrator.model
    encoded = [processor.encode_classes([text])["class_input_ids"][0].tolist() for text in (*said, word)]
    num_said = sum(map(len, encoded[:-1]))
    tokens = torch.tensor([[token for part in encoded for token in part]])
    batch = DataCollatorForVideoNarration(processor)([sample])
    if model.config.is_encoder_decoder:
        logits = model(**batch, labels=tokens).logits[0]
    else:
        input_ids = torch.cat([batch["input_ids"], tokens], dim=1)
        logits = model(input_ids=input_ids, pixel_values=batch["pixel_values"]).logits[0]
        logits = logits[batch["input_ids"].shape[1] - 1 : -1]
    told = logits.log_softmax(-1).gather(1, tokens[0].unsqueeze(1))[num_said:, 0]
    return float(told.mean())


@torch.no_grad()
def test_classes_are_ranked_by_the_plain_likelihoods(narrator, tmp_path):
    queries = EvaluationQueries(make_clips(24), shots=(2,), num_queries=3)
    run(narrator, queries, tmp_path)
    loader = FrameLoader(narrator.processor.video_processor.num_frames)
    samples = queries.samples(2, find_condition("in_context"), load_clip=loader, prompts=(PROMPT,))
    for line, sample in zip(read_predictions(tmp_path / "in_context-2"), (samples[i] for i in range(3))):
        said = ["The camera wearer"]
        for kind, words_of in (("verb", TAXONOMY.verbs), ("noun", TAXONOMY.nouns)):
            scores = {
                (label, word): likelihood(narrator, sample, said, word)
                for label in words_of
                for word in words_of[label]
            }
            by_class = {label: max(scores[label, word] for word in words_of[label]) for label in words_of}
            best = sorted(by_class, key=by_class.get, reverse=True)
            assert [label for label, _ in line[f"best_{kind}s"]] == best[:5] and line[kind] == best[0]
            assert np.allclose(
                [score for _, score in line[f"best_{kind}s"]], sorted(by_class.values())[::-1][:5], atol=2e-4
            )
            assert line[f"{kind}_rank"] == best.index(line[f"structured_{kind}"])
            said.append(max(scores, key=scores.get)[1])


def test_numbers_are_those_of_the_predictions(narrator, tmp_path):
    rows = make_clips(40).to_list()
    rows[3]["structured_verb"] = "juggle"  # not of the taxonomy
    rows[5]["structured_noun"] = None
    queries = EvaluationQueries(datasets.Dataset.from_list(rows), shots=(1,))
    record, majority = run(narrator, queries, tmp_path, conditions=("text_only", "majority"))
    lines = read_predictions(tmp_path / "text_only-1")
    assert record["num_queries"] == 40 and record["num_unlabelled_verbs"] == 1 and record["num_unlabelled_nouns"] == 1
    labelled = [line for line in lines if line["structured_verb"] in VERBS]
    right = [line["verb"] == line["structured_verb"] for line in labelled]
    assert len(labelled) == 39 and record["metrics"]["verb_top_1"]["value"] == pytest.approx(np.mean(right))
    assert record["metrics"]["noun_top_5"]["value"] == 1.0  # of five classes
    assert record["condition"] == "text_only" and record["task"] == "classification"
    assert json.loads((tmp_path / "text_only-1" / "results.json").read_text()) == record
    # With a single example, the majority is its label.
    assert majority["model"] == "none" and "verb_top_5" not in majority["metrics"]
    names = {row["frame_path"]: row["structured_verb"] for row in rows}
    for line in read_predictions(tmp_path / "majority-1"):
        assert line["verb"] == names[line["context"][0]]


def test_what_cannot_be_told_apart(narrator, tmp_path):
    queries = EvaluationQueries(make_clips(24), shots=(1,))
    foreign = Taxonomy(verbs={"fly": ["flies"]}, nouns=TAXONOMY.nouns)
    with pytest.raises(ValueError, match=r"No query has a verb of the taxonomy: 'wash_\(clean\)' is none of its 1"):
        run(narrator, queries, tmp_path, taxonomy=foreign)
    with pytest.raises(ValueError, match="'majority_sentence' answers by sentences"):
        run(narrator, queries, tmp_path, conditions=("majority_sentence",))
    assert not any(tmp_path.iterdir())


def test_the_taxonomies():
    fho = Taxonomy.fho()
    assert (len(fho.verbs), len(fho.nouns)) == (117, 521)
    assert sum(map(len, fho.verbs.values())) == 187 and sum(map(len, fho.nouns.values())) == 792
    of_labels = Taxonomy.of_labels(["put-down", "", None, "put-down"], ["board:chopping", "[other]"])
    assert of_labels.verbs == {"put-down": ["puts down"]} and of_labels.nouns == {
        "board:chopping": ["the chopping board"]
    }
    with pytest.raises(ValueError, match="There is no class among the verbs"):
        Taxonomy.of_labels([""], ["cup"])


def test_a_class_is_as_likely_as_its_best_word():
    candidates = Candidates.of({"a": ["x", "y"], "b": ["z"]})
    scores = candidates.class_scores(np.array([[-3.0, -1.0, -2.0], [-5.0, -6.0, -1.0]]))
    assert candidates.words == ["x", "y", "z"] and np.array_equal(scores, [[-1.0, -2.0], [-5.0, -1.0]])


def test_words_from_files(tmp_path):
    verbs, nouns = tmp_path / "verbs.csv", tmp_path / "nouns.csv"
    verbs.write_text("prompt,structured_verb\nwashes,wash_(clean)\ncleans,wash_(clean)\n")
    nouns.write_text("prompt,structured_noun\na cup,cup_(mug)\n")
    taxonomy = Taxonomy.from_csv(verbs, nouns)
    assert taxonomy.verbs == {"wash_(clean)": ["washes", "cleans"]} and taxonomy.nouns == {"cup_(mug)": ["a cup"]}
    nouns.write_text("prompt,structured_noun\n,cup_(mug)\n")
    with pytest.raises(ValueError, match=r"nouns.csv, line 2: `prompt` or `structured_noun` is empty"):
        Taxonomy.from_csv(verbs, nouns)
    with pytest.raises(ValueError, match="must have the columns prompt and structured_noun"):
        Taxonomy.from_csv(verbs, verbs)
    assert make_rows(1)[0]["structured_verb"] in VERBS
