"""How the recipe measures narration: with models of which every number can be worked out on paper, and a real one."""

import json
import math
import shutil
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor
from transformers_eilev.data import EpisodeNames, load_clip_store
from transformers_eilev.training import VisionFeatureStore, extract_vision_features


ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "examples" / "training" / "synthetic"))

from recipe.evaluation import CONDITIONS, evaluate_shots, say_majority, say_unseen_pair  # noqa: E402
from recipe.predictions import bootstrap_interval, parse_narration, score  # noqa: E402


VERBS, NOUNS = ["wipe", "cut", "open", "take"], ["cup", "carrot", "door", "spoon"]
SHOTS = (0, 1, 2, 4, 8)
NUM_QUERIES = 20


@pytest.fixture(scope="module")
def clips():
    """Of each verb with each noun four clips, without frames."""
    pairs = [(verb, noun) for verb in VERBS for noun in NOUNS for _ in range(4)]
    rows = [
        {
            "frame_path": f"video|{index}",
            "narration_text": f"#C C {verb}s the {noun}",
            "structured_verb": verb,
            "structured_noun": noun,
        }
        for index, (verb, noun) in enumerate(pairs)
    ]
    return datasets.Dataset.from_list(rows)


class LabelsAsFeatures:
    """Of a clip, its verb's and its noun's number, from 1 on, where a vision model's output would be."""

    dtype = torch.float32

    def load(self, row):
        numbers = VERBS.index(row["structured_verb"]) + 1, NOUNS.index(row["structured_noun"]) + 1
        return torch.tensor(numbers).float().view(1, 1, 2)


class ContextReader:
    """
    Learns from the context what each number of a clip is called, and says what those of the last clip are called;
    nothing where it lacks a clip or a name.
    """

    device = torch.device("cpu")

    def __init__(self, processor, stop_after=None):
        self.processor, self.stop_after, self.num_calls = processor, stop_after, 0

    def generate(self, input_ids, attention_mask, vision_hidden_states=None, **kwargs):
        assert kwargs == {"do_sample": False, "num_beams": 1, "max_new_tokens": 24}
        if self.num_calls == self.stop_after:
            raise KeyboardInterrupt
        self.num_calls += 1
        tokenizer, clip = self.processor.tokenizer, "<video>" * self.processor.num_query_tokens
        clips = [] if vision_hidden_states is None else vision_hidden_states.view(-1, 2).int().tolist()
        answers = []
        for ids, mask in zip(input_ids, attention_mask):
            text = tokenizer.decode(ids[mask.bool()], skip_special_tokens=False).replace(clip, "@")
            names = [{}, {}]
            *blocks, query = text.removeprefix("</s>").split("Q?")
            numbers = [clips.pop(0) if "@" in block else None for block in [*blocks, query][: len(blocks)]]
            # Behind each question but the last one is what its clip is called.
            said = [parse_narration(block.split("\n")[0].strip()) for block in blocks[1:]]
            for number, words in zip(numbers, said):
                for name, n, word in zip(names, number or (), words):
                    name[n] = word
            words = [name.get(n) for name, n in zip(names, numbers[-1] or (0, 0))]
            answers.append(f"The camera wearer {words[0]} the {words[1]}." if None not in words else "")
        new = [
            tokenizer(f" {answer}\n" if answer else "", add_special_tokens=False)["input_ids"] for answer in answers
        ]
        length = max(1, *map(len, new))
        new = [ids + [tokenizer.pad_token_id] * (length - len(ids)) for ids in new]
        return torch.cat([input_ids, torch.tensor(new)], 1)


@pytest.fixture(scope="module")
def processor(golden_opt):
    return golden_opt.interleaved


def evaluate(clips, processor, model=None, **kwargs):
    settings = {"num_queries": NUM_QUERIES, "questions": ["Q?"], "batch_size": 8, "seed": 3, "shots": SHOTS}
    model = model or ContextReader(processor)
    return evaluate_shots(model, processor, clips, vision_features=LabelsAsFeatures(), **{**settings, **kwargs})


def by_condition(records):
    return {(record["condition"], record["shots"]): record for record in records}


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("narration", "words"),
    [
        ("The camera wearer picks up the left glove.", ("picks up", "left glove")),
        ("The camera wearer cuts the carrot", ("cuts", "carrot")),
        ("The camera wearer puts the lid on the pot.", ("puts", "lid on the pot")),
        ("The camera wearer cuts a carrot.", None),
        ("The camera wearer cuts the", None),
        ("The camera wearer cuts the .", None),
        ("The camera wearer  cuts the carrot.", None),
        ("the camera wearer cuts the carrot.", None),
        ("Answer: The camera wearer cuts the carrot.", None),
        ("The camera wearer cuts the carrot.\nQuestion:", None),
        ("", None),
    ],
)
def test_a_narration_is_parsed_or_refused(narration, words):
    assert parse_narration(narration) == words


def test_scores_count_what_is_right_what_is_empty_and_what_is_no_sentence():
    said = ["The camera wearer cuts the cup.", "The camera wearer cuts the cup", "The camera wearer cuts the door."]
    said += ["The camera wearer opens the cup.", "", " ", "cuts the cup", "The camera wearer cuts."]
    reference = "The camera wearer cuts the cup."
    scores = score([{"narration": narration, "reference": reference} for narration in said], 0)
    assert scores["n"] == 8
    assert scores["exact"] == 1 / 8
    assert scores["verb"] == 3 / 8
    assert scores["noun"] == 3 / 8
    assert scores["empty"] == 2
    assert scores["unparsable"] == 2


def test_the_bootstrap_interval_is_that_of_the_binomial_distribution():
    # Of four draws from one 1 and three 0: none in 32 %, three and more in 5 %, four in 0.4 % of the resamples.
    assert bootstrap_interval([1, 0, 0, 0], 0) == (0.0, 0.75)
    assert bootstrap_interval([True] * 9, 0) == (1.0, 1.0)
    n, ones = 200, 60
    chances = np.cumsum([math.comb(n, k) * 0.3**k * 0.7 ** (n - k) for k in range(n + 1)])
    expected = np.searchsorted(chances, [0.025, 0.975]) / n
    found = bootstrap_interval([1] * ones + [0] * (n - ones), 5)
    np.testing.assert_allclose(found, expected, atol=0.0101)
    assert found == bootstrap_interval([1] * ones + [0] * (n - ones), 5)
    assert found != bootstrap_interval([1] * ones + [0] * (n - ones), 6)


def test_rules_answer_with_the_words_of_a_context():
    context = [
        "The camera wearer cuts the cup.",
        "The camera wearer cuts the door.",
        "The camera wearer opens the cup.",
    ]
    rngs = [np.random.default_rng(seed) for seed in range(40)]
    assert {say_majority(context, rng) for rng in rngs} == {"The camera wearer cuts the cup."}
    assert {say_unseen_pair(context, rng) for rng in rngs} == {"The camera wearer opens the door."}
    # A tie of the verbs and one of the nouns, each by itself.
    said = Counter(say_majority(context[1:], rng) for rng in rngs)
    assert {parse_narration(narration) for narration in said} == {
        (verb, noun) for verb in ("cuts", "opens") for noun in ("cup", "door")
    }
    # What stands there is not to be said again.
    assert {say_unseen_pair(context[1:], rng) for rng in rngs} == {
        "The camera wearer cuts the cup.",
        "The camera wearer opens the door.",
    }
    assert say_unseen_pair(context[:1], rngs[0]) == context[0]


# --------------------------------------------------------------------------------------------------------- evaluations


@pytest.mark.parametrize("renamed", [False, True])
def test_who_reads_the_context_is_right_where_it_tells(clips, processor, renamed):
    rename = (
        EpisodeNames(["daxes", "wugs", "blicks", "gorps"], ["toma", "fep", "zup", "modi"], share=1.0)
        if renamed
        else None
    )
    records = by_condition(evaluate(clips, processor, conditions=list(CONDITIONS), rename=rename))
    assert [k for name, k in records if name == "clips"] == [0, 1, 2, 4, 8]
    assert [k for name, k in records if name == "text_only"] == [1, 2, 4, 8]
    assert [k for name, k in records if name == "shuffled"] == [2, 4, 8]

    def numbers(*key):
        return tuple(records[key][name] for name in ("exact", "verb", "noun", "empty", "unparsable"))

    assert all(record["n"] == NUM_QUERIES for record in records.values())
    # Nothing to learn from; one of two words; both.
    assert numbers("clips", 0) == (0, 0, 0, NUM_QUERIES, 0)
    assert numbers("clips", 1) == (0, 0, 0, NUM_QUERIES, 0)
    for k in (2, 4, 8):
        assert numbers("clips", k) == (1, 1, 1, 0, 0)
        assert records["clips", k]["exact_interval"] == [1, 1]
        assert numbers("text_only", k) == (0, 0, 0, NUM_QUERIES, 0)
        assert numbers("any", k)[:3] == (1, 1, 1)
        # The verb's word is right in half of the cases, the noun's too; who takes what does not stand there has both
        # or none.
        assert records["unseen_pair", k]["verb"] == records["unseen_pair", k]["noun"]
        assert records["unseen_pair", k]["exact"] == records["unseen_pair", k]["verb"]
        assert 0.2 < records["unseen_pair", k]["exact"] < 0.8
    # Either clip with the other's narration: what is right is never said.
    assert numbers("shuffled", 2) == (0, 0, 0, 0, 0)
    # Half of the queries are shown their verb, half their noun.
    assert numbers("majority", 1) == (0, 0.5, 0.5, 0, 0)
    assert records["majority", 8]["exact"] < 0.6


def test_queries_and_contexts_are_the_same_in_every_condition(clips, processor, tmp_path):
    path = tmp_path / "predictions.jsonl"
    evaluate(clips, processor, conditions=["clips", "text_only", "majority"], predictions_path=path)
    header, *lines = read_lines(path)
    assert header["settings"]["num_queries"] == NUM_QUERIES
    rows = {row["frame_path"]: row for row in clips}
    queries = {(line["condition"], line["shots"]): [] for line in lines}
    for line in lines:
        queries[line["condition"], line["shots"]].append(line["query"])
    assert len(queries) == 13
    assert all(asked == queries["clips", 8] for asked in queries.values())
    assert len(set(queries["clips", 8])) == NUM_QUERIES
    contexts = {condition: [] for condition in ("clips", "text_only", "majority")}
    for line in lines:
        query, context = rows[line["query"]], [rows[name] for name in line["context"]]
        assert line["reference"] == f"The camera wearer {query['structured_verb']}s the {query['structured_noun']}."
        assert len(context) == line["shots"]
        contexts[line["condition"]].append((line["shots"], line["context"]))
        for kind in ("verb", "noun"):
            shared = sum(row[f"structured_{kind}"] == query[f"structured_{kind}"] for row in context)
            if line["shots"] > 1:
                assert shared == line["shots"] / 2
                assert len({row[f"structured_{kind}"] for row in context}) == 2
    assert contexts["clips"][NUM_QUERIES:] == contexts["text_only"] == contexts["majority"]


def test_contexts_are_of_the_other_clips_if_there_are_any(clips, processor, tmp_path):
    queries, others = clips.select(range(0, 64, 4)), clips.select([i for i in range(64) if i % 4])
    path = tmp_path / "predictions.jsonl"
    with pytest.warns(UserWarning, match="`num_queries` is 20, but only 16 of 16 clips"):
        evaluate_shots(
            ContextReader(processor),
            processor,
            queries,
            others,
            shots=(1, 4),
            num_queries=20,
            vision_features=LabelsAsFeatures(),
            questions=["Q?"],
            predictions_path=path,
        )
    _, *lines = read_lines(path)
    assert {line["query"] for line in lines} == set(queries["frame_path"])
    assert {name for line in lines for name in line["context"]} <= set(others["frame_path"])


def test_labels_are_in_every_record(clips, processor):
    records = evaluate(clips, processor, shots=(0,), conditions=["clips"], labels={"method": "eilev", "seed": 2})
    assert [(record["method"], record["seed"]) for record in records] == [("eilev", 2)]


# ------------------------------------------------------------------------------------------------------------ resuming

RUN = {"conditions": ["clips", "majority"], "shots": (1, 2)}


@pytest.fixture(scope="module")
def whole_run(clips, processor, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "predictions.jsonl"
    return path, evaluate(clips, processor, predictions_path=path, **RUN)


@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_a_run_that_is_stopped_goes_on_with_what_is_left(clips, processor, whole_run, tmp_path, stop_after):
    whole, records = whole_run
    path = tmp_path / "deep" / "predictions.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(clips, processor, ContextReader(processor, stop_after), predictions_path=path, **RUN)
    # Batches of 8, 8 and 4.
    assert len(read_lines(path)) == 1 + {0: 0, 1: 8, 4: 28}[stop_after]
    model = ContextReader(processor)
    assert evaluate(clips, processor, model, predictions_path=path, **RUN) == records
    assert path.read_bytes() == whole.read_bytes()
    # Three batches for each of two numbers of shots, without those that were there.
    assert model.num_calls == 6 - stop_after


@pytest.mark.parametrize("where", ["nothing", "in the header", "the header", "in a line", "in a batch", "all"])
def test_a_file_that_was_cut_is_filled_up(clips, processor, whole_run, tmp_path, where):
    whole, records = whole_run
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    length = {
        "nothing": 0,
        "in the header": 30,
        "the header": len(lines[0]),
        "in a line": len(b"".join(lines[:10])) + 25,
        "in a batch": len(b"".join(lines[:12])),
        "all": len(content),
    }[where]
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(content[:length])
    model = ContextReader(processor)
    assert evaluate(clips, processor, model, predictions_path=path, **RUN) == records
    assert path.read_bytes() == content
    assert model.num_calls == {"in a line": 5, "in a batch": 5, "all": 0}.get(where, 6)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 4}, "seed"),
        ({"shots": (1, 4)}, "shots"),
        ({"conditions": ["clips"]}, "conditions"),
        ({"num_queries": 19}, "num_queries"),
        ({"batch_size": 7}, "batch_size"),
        ({"questions": ["Question?"]}, "questions"),
        ({"rename": EpisodeNames(["daxes", "wugs"], ["fep", "zup"])}, "rename"),
        ({"labels": {"seed": 1}}, "labels"),
    ],
)
def test_predictions_of_other_settings_are_not_mixed(clips, processor, whole_run, tmp_path, change, name):
    path = Path(shutil.copy(whole_run[0], tmp_path))
    with pytest.raises(ValueError, match=f"predictions.jsonl has predictions of other settings: {name} "):
        evaluate(clips, processor, predictions_path=path, **{**RUN, **change})
    assert path.read_bytes() == whole_run[0].read_bytes()


def test_other_words_are_other_settings(clips, processor, tmp_path):
    path = tmp_path / "predictions.jsonl"
    for words in (["toma", "fep"], ["toma", "fep", "zup"]):
        rename = EpisodeNames(["daxes", "wugs"], words, share=1.0)
        settings = {"shots": (2,), "conditions": ["majority"], "rename": rename, "predictions_path": path}
        if len(words) == 2:
            evaluate(clips, processor, **settings)
        else:
            with pytest.raises(ValueError, match="other settings: rename "):
                evaluate(clips, processor, **settings)


def test_other_clips_are_other_settings(clips, processor, whole_run, tmp_path):
    path = Path(shutil.copy(whole_run[0], tmp_path))
    with pytest.raises(ValueError, match="other settings: clips, context_clips "):
        evaluate(clips.select(range(63)), processor, predictions_path=path, **RUN)


@pytest.mark.parametrize("content", ["a diary", "a diary\n", '{"a": 1}\n'])
def test_a_file_of_something_else_is_left_alone(clips, processor, tmp_path, content):
    path = tmp_path / "diary.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match="diary.txt"):
        evaluate(clips, processor, predictions_path=path, **RUN)
    assert path.read_text() == content


def test_a_prediction_that_was_changed_is_found(clips, processor, whole_run, tmp_path):
    lines = whole_run[0].read_text().splitlines(keepends=True)
    lines[5] = lines[5].replace('"index": 4', '"index": 5')
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match="predictions.jsonl, line 6: "):
        evaluate(clips, processor, predictions_path=path, **RUN)


# -------------------------------------------------------------------------------------------------------- a real model

REAL = {"shots": (0, 2), "questions": ["What is this?"], "max_new_tokens": 5, "num_queries": 5}


@pytest.fixture(scope="module")
def real_clips(clip_store):
    return load_clip_store(clip_store, split="train")


def test_narrations_are_those_of_generate_on_each_prompt(checkpoint, real_clips, tmp_path):
    path = tmp_path / "predictions.jsonl"
    conditions = ["clips", "text_only"]
    evaluate_shots(checkpoint, None, real_clips, conditions=conditions, predictions_path=path, **REAL)
    header, *lines = read_lines(path)
    assert header["model"] == str(checkpoint)
    assert len(lines) == 5 * 3
    model = VideoBlip2ForConditionalGeneration.from_pretrained(checkpoint)
    processor = VideoBlip2Processor.from_pretrained(checkpoint)
    rows = {row["frame_path"]: row for row in real_clips}
    for line in lines:
        with_context = line["condition"] != "text_only"
        text, videos = "", []
        for name in line["context"]:
            verb, noun = rows[name]["structured_verb"], rows[name]["structured_noun"]
            text += f"{'<video>' * with_context}What is this? The camera wearer {verb}s the {noun}.\n"
            videos += [rows[name]["frames"]] * with_context
        text += "<video>What is this?"
        videos.append(rows[line["query"]]["frames"])
        inputs = processor(text=[text.split("\n")], videos=[videos])
        generated = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=5)
        assert processor.post_process_narrations(generated, inputs) == [line["narration"]], line
    # Of a random model, that clips matter can be seen all the same.
    assert len({line["narration"] for line in lines}) > 1


def test_stored_features_say_the_same_as_frames(checkpoint, real_clips, tmp_path):
    model = VideoBlip2ForConditionalGeneration.from_pretrained(checkpoint)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    processor = VideoBlip2Processor.from_pretrained(checkpoint)
    # Fewer than are stored.
    processor.video_processor.num_frames = 3
    store = extract_vision_features(
        model, processor, real_clips, tmp_path / "features", dtype=torch.float32, progress=False
    )
    model.train()
    light = real_clips.remove_columns("frames")
    for name, clips, features in (("frames", real_clips, None), ("features", light, store)):
        path = tmp_path / f"{name}.jsonl"
        settings = {**REAL, "conditions": ["clips", "shuffled"], "predictions_path": path}
        evaluate_shots(model, processor, clips, vision_features=features, **settings)
    assert model.training
    (_, *frames), (_, *features) = (read_lines(tmp_path / f"{name}.jsonl") for name in ("frames", "features"))
    assert frames == features
    with torch.no_grad():
        model.query_tokens += 1
    with pytest.raises(ValueError, match="other settings: weights "):
        evaluate_shots(model, processor, light, vision_features=VisionFeatureStore(tmp_path / "features"), **settings)


def test_what_cannot_be_evaluated_is_refused(clips, processor):
    with pytest.raises(ValueError, match="`conditions` must be of .*'sideways'"):
        evaluate(clips, processor, conditions=["sideways"])
    with pytest.raises(ValueError, match="`shots` must be different numbers"):
        evaluate(clips, processor, shots=(2, 2))
    with pytest.raises(ValueError, match="`batch_size` and `num_queries`"):
        evaluate(clips, processor, num_queries=0)
    with pytest.raises(ValueError, match="no balanced context of 16 examples"):
        evaluate(clips, processor, shots=(16,))
    with pytest.raises(ValueError, match=r"has no \['structured_noun'\]"):
        evaluate_shots(None, processor, clips.remove_columns("structured_noun"))
    odd = clips.map(lambda row, i: {"narration_text": "#C C cuts a cup"} if i == 9 else {}, with_indices=True)
    with pytest.raises(ValueError, match=r"'video\|9' in `clips` is 'The camera wearer cuts a cup.'"):
        evaluate(odd, processor)
    with pytest.raises(ValueError, match="no `frames`; give `vision_features`"):
        evaluate_shots(ContextReader(processor), processor, clips, num_queries=9)
    with pytest.raises(ValueError, match="`processor` is `None`"):
        evaluate_shots(ContextReader(processor), None, clips)
