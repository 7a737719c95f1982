"""VideoMAE learns verbs and nouns by the script, goes on where it was stopped, and narrates with both."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score
from transformers import EvalPrediction, VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from transformers.modeling_outputs import ImageClassifierOutput

from transformers_eilev.data import ClipStoreWriter, InContextDataset, PresampledContexts, load_narrated_clips
from transformers_eilev.evaluation.video_mae import (
    LabelledClips,
    VideoMaeNarrator,
    check_image_size,
    classes_of,
    classification_loss,
    classification_metrics,
    to_pixel_values,
)


SCRIPT = Path(__file__).parents[2] / "examples" / "evaluation" / "run_video_mae.py"
# Red is washed and green is cut; bright things are cups, dark ones carrots. The last of each split of "val" is new.
ACTIONS = [
    ("wash", "cup", (240, 30, 30)),
    ("wash", "carrot", (110, 0, 0)),
    ("cut", "cup", (30, 240, 30)),
    ("cut", "carrot", (0, 110, 0)),
]
UNSEEN = ("open", "door", (30, 30, 240))


def write_store(folder):
    (folder / "data").mkdir(parents=True)
    for split, actions in (("train", [*ACTIONS, ("[other]", "", (9, 9, 9))]), ("val", [*ACTIONS, UNSEEN])):
        with ClipStoreWriter(folder / "data" / f"{split}-00000.parquet", encoding="png") as writer:
            for index, (verb, noun, colour) in enumerate(actions):
                row = {
                    "frame_path": f"{split}|{index}",
                    "video_uid": split,
                    "clip_index": index,
                    "narration_timestamp_sec": float(index),
                    "narration_text": f"#C C {verb}s the {noun}",
                    "structured_verb": verb,
                    "structured_noun": noun,
                }
                noise = np.random.default_rng([index, len(split)]).integers(-9, 9, (8, 40, 40, 3))
                frames = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                writer.write(row, torch.from_numpy(frames).permute(0, 3, 1, 2), frame_sec=[0.0] * 8)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store") / "clips")


@pytest.fixture(scope="module")
def image_processor():
    return VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def make_model(**settings):
    config = VideoMAEConfig(
        **{
            "image_size": 32,
            "patch_size": 16,
            "num_frames": 16,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            **settings,
        }
    )
    torch.manual_seed(0)
    return VideoMAEForVideoClassification(config).eval()


@pytest.fixture(scope="module")
def checkpoint(image_processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videomae")
    make_model(num_labels=400).save_pretrained(folder)  # as one of Kinetics
    image_processor.save_pretrained(folder)
    return folder


def train(label, store, checkpoint, output_dir, *more):
    command = [
        sys.executable,
        SCRIPT,
        "--label",
        label,
        "--model_name_or_path",
        checkpoint,
        "--output_dir",
        output_dir,
    ]
    command += ["--train_frames_dir", store, "--val_frames_dir", store, "--seed", 1, "--report_to", "none"]
    command += ["--per_device_train_batch_size", 4, "--use_cpu", "--disable_tqdm", True, *more]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def verbs(store, checkpoint, tmp_path_factory):
    """All clips right after 30 steps: evaluated after 15 and 30, the better one kept."""
    folder = tmp_path_factory.mktemp("verbs") / "run"
    more = ["--max_steps", 30, "--learning_rate", 3e-3, "--augment", False, "--metric_for_best_model", "top_1"]
    more += ["--eval_strategy", "steps", "--eval_steps", 15, "--save_steps", 15]
    errors = train("verb", store, checkpoint, folder, *more)
    assert "1 of 5 clips have no `structured_verb` and are left out" in errors
    assert "16 frames of each clip are wanted, but the clips of" in errors
    return folder


@pytest.fixture(scope="module")
def nouns(store, checkpoint, tmp_path_factory):
    """Augmented, in two processes of which one goes on with what the other left; and the folder of the whole run."""
    whole, resumed = (tmp_path_factory.mktemp("nouns") / name for name in ("whole", "resumed"))
    more = [
        "--max_steps",
        6,
        "--save_steps",
        3,
        "--per_device_train_batch_size",
        2,
        "--resume_from_checkpoint",
        "last",
    ]
    train("noun", store, checkpoint, whole, *more)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoint-6")
    (resumed / "model.safetensors").unlink()
    train("noun", store, checkpoint, resumed, *more)
    return whole, resumed


# ----------------------------------------------------------------------------------------------------------- training


def test_four_clips_are_learned_and_the_unseen_label_is_wrong(verbs):
    metrics = json.loads((verbs / "eval_results.json").read_text())
    assert metrics["eval_top_1"] == 4 / 5 and metrics["eval_top_5"] == 4 / 5
    assert metrics["eval_num_unseen"] == 1
    # The blue clip is taken for one of both verbs (precision 2/3 of it), and its own class is never found.
    assert metrics["eval_macro_f1"] == pytest.approx((0.8 + 1.0 + 0.0) / 3)
    assert np.isfinite(metrics["eval_loss"]) and metrics["eval_loss"] < 0.3
    config = VideoMAEConfig.from_pretrained(verbs)
    assert config.id2label == {0: "cut", 1: "wash"} and config.label2id == {"cut": 0, "wash": 1}


def test_a_resumed_training_is_the_one_that_was_not_stopped(nouns):
    whole, resumed = (load_file(folder / "model.safetensors") for folder in nouns)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    before = load_file(nouns[0] / "checkpoint-3" / "model.safetensors")
    assert not all(torch.equal(whole[name], before[name]) for name in whole)


def test_it_narrates_in_whole_sentences(verbs, nouns, store):
    narrator = VideoMaeNarrator.from_pretrained(verbs, nouns[0], name="VideoMAE")
    samples = samples_of(store, narrator.load_clip)
    said = narrator(samples)
    verb_scores, noun_scores = narrator.scores(samples)
    assert verb_scores.shape == noun_scores.shape == (5, 2)
    torch.testing.assert_close(verb_scores.exp().sum(1), torch.ones(5))
    noun_of = [["carrot", "cup"][number] for number in noun_scores.argmax(1).tolist()]
    verb_of = ["washes", "washes", "cuts", "cuts"]
    assert said[:4] == [f"The camera wearer {v} the {n}." for v, n in zip(verb_of, noun_of)]
    assert [narrator([sample])[0] for sample in samples] == said
    assert narrator([]) == [] and narrator.name == "VideoMAE"


# ----------------------------------------------------------------------------------------------------------- narrator


def samples_of(store, load_clip, **controls):
    clips = load_narrated_clips(store, split="val")
    contexts = PresampledContexts([[(row + 1) % 5] for row in range(5)], range(5))
    dataset = InContextDataset(clips, contexts, load_clip=load_clip, with_target=False, **controls)
    return [dataset[index] for index in range(5)]


@pytest.fixture(scope="module")
def narrator(image_processor):
    verb_model = make_model(id2label={0: "wash", 1: "cut_(slice)"}, label2id={"wash": 0, "cut_(slice)": 1})
    noun_model = make_model(id2label={0: "cup", 1: "door", 2: ""}, label2id={"cup": 0, "door": 1, "": 2})
    return VideoMaeNarrator(verb_model, noun_model, image_processor)


def test_its_scores_are_the_models(narrator, image_processor, store):
    samples = samples_of(store, narrator.load_clip)
    verbs, nouns = narrator.scores(samples)
    assert nouns.shape == (5, 3)
    for row, sample in enumerate(samples):
        frames = [frame for frame in sample["videos"][-1] for _ in range(2)]
        inputs = image_processor(frames, return_tensors="pt")
        with torch.no_grad():
            logits = narrator.verb_model(**inputs).logits
        torch.testing.assert_close(verbs[row], logits[0].log_softmax(-1), rtol=1e-4, atol=1e-5)


def test_the_context_changes_nothing(narrator, store):
    scores = narrator.scores(samples_of(store, narrator.load_clip))
    without = narrator.scores(samples_of(store, narrator.load_clip, demonstration_clips=False))
    assert all(torch.equal(one, other) for one, other in zip(scores, without))
    with pytest.raises(ValueError, match=r"sees the query alone, but the sample of 'val\|0' hides it"):
        narrator(samples_of(store, narrator.load_clip, query_clip=False))


def test_sentences_may_be_made_otherwise(narrator, store):
    def sentence(verb, noun):
        return f"{verb}+{noun}" if noun == "door" else None

    other = VideoMaeNarrator(narrator.verb_model, narrator.noun_model, narrator.image_processor, sentence=sentence)
    samples = samples_of(store, narrator.load_clip)
    best = [scores.argmax(-1).tolist() for scores in narrator.scores(samples)]
    verbs, nouns = ["wash", "cut_(slice)"], ["cup", "door", ""]
    assert other(samples) == [sentence(verbs[verb], nouns[noun]) or "" for verb, noun in zip(*best)]
    assert other.fingerprint() != narrator.fingerprint()


def test_the_fingerprint_knows_weights_labels_and_pixels(narrator, image_processor):
    labels = {0: "wash", 1: "cut_(slice)"}
    again = VideoMaeNarrator(make_model(id2label=labels), narrator.noun_model, image_processor)
    assert again.fingerprint() == narrator.fingerprint()
    with torch.no_grad():
        again.verb_model.classifier.bias[0] += 1
    renamed = VideoMaeNarrator(make_model(id2label={0: "wash", 1: "cut"}), narrator.noun_model, image_processor)
    other_pixels = VideoMAEImageProcessor(**{**image_processor.to_dict(), "image_mean": [0.4, 0.5, 0.5]})
    rescaled = VideoMaeNarrator(narrator.verb_model, narrator.noun_model, other_pixels)
    assert len({n.fingerprint() for n in (narrator, again, renamed, rescaled)}) == 4


def test_models_that_do_not_fit_are_refused(narrator, image_processor):
    with pytest.raises(ValueError, match="`verb_model` takes clips of 8 frames, but `noun_model` of 16"):
        VideoMaeNarrator(make_model(num_frames=8), narrator.noun_model, image_processor)
    with pytest.raises(ValueError, match=r"frames of 32 times 32 pixels, but the image processor gives.*224"):
        check_image_size(VideoMAEConfig(image_size=32), VideoMAEImageProcessor())


# --------------------------------------------------------------------------------------------------- clips and labels


def test_pixels_are_resized_cropped_and_normalized(image_processor):
    """By hand, with PIL."""
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)) for _ in range(8)]
    pixel_values = to_pixel_values(frames, image_processor, 4)
    assert pixel_values.shape == (4, 3, 32, 32)
    for place, stored in enumerate((0, 2, 4, 7)):
        resized = np.asarray(frames[stored].resize((48, 32), Image.Resampling.BILINEAR).crop((8, 0, 40, 32)))
        expected = torch.from_numpy(resized / 255 - 0.5).permute(2, 0, 1).float() / 0.5
        torch.testing.assert_close(pixel_values[place], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_frames, taken", [(16, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]), (8, range(8))])
def test_stored_frames_repeat_evenly(image_processor, num_frames, taken):
    frames = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 32, 32) * 30
    seen = to_pixel_values(frames, image_processor, num_frames)[:, 0, 0, 0]
    assert ((seen / 2 + 0.5) * 255 / 30).round().int().tolist() == list(taken)


def test_clips_have_the_numbers_of_their_labels(store, image_processor):
    clips = {split: load_narrated_clips(store, split=split) for split in ("train", "val")}
    everything = PresampledContexts([[]] * 5, range(5))
    samples = {split: InContextDataset(own, everything) for split, own in clips.items()}
    assert classes_of(samples["train"], "verb") == ["cut", "wash"]
    assert classes_of(samples["train"], "noun") == ["carrot", "cup"]
    with pytest.warns(UserWarning, match="1 of 5 clips have no `structured_noun`"):
        train = LabelledClips(samples["train"], "noun", ["carrot", "cup"], image_processor, 16)
    assert len(train) == 4 and train.names == ["carrot", "cup"] and train.numbers == [1, 0, 1, 0]
    val = LabelledClips(samples["val"], "noun", ["carrot", "cup"], image_processor, 16)
    assert val.names == ["carrot", "cup", "door"] and val.numbers == [1, 0, 1, 0, 2]
    with pytest.raises(ValueError, match="None of 1 clips has a `structured_verb`"):
        LabelledClips(
            InContextDataset(clips["train"], PresampledContexts([[]], [4])), "verb", ["cut"], image_processor, 16
        )


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 7)), rng.integers(0, 9, 50)
    metrics = classification_metrics(EvalPrediction(logits, labels), names=list("abcdefghi"))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(1), average="macro", zero_division=0))
    seen = labels < 7
    for k in (1, 5):
        top = top_k_accuracy_score(labels[seen], logits[seen], k=k, labels=range(7), normalize=False)
        assert metrics[f"top_{k}"] == pytest.approx(top / 50)
    assert metrics["num_unseen"] == 50 - seen.sum() > 0
    assert metrics["loss"] == pytest.approx(log_loss(labels[seen], softmax(logits[seen], axis=1), labels=range(7)))


def test_the_loss_is_the_mean_over_known_labels():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 2, 5, 1, 3, 2])
    outputs = ImageClassifierOutput(logits=logits)
    known = labels < 3
    expected = torch.nn.functional.cross_entropy(logits[known], labels[known])
    torch.testing.assert_close(classification_loss(outputs, labels), expected)
    torch.testing.assert_close(classification_loss(outputs, labels, torch.tensor(6)), expected)
    # Two batches of one step: their losses are summed.
    logits_of_halves, labels_of_halves = logits[known].split(2), labels[known].split(2)
    halves = [
        classification_loss(ImageClassifierOutput(logits=half), numbers, torch.tensor(4))
        for half, numbers in zip(logits_of_halves, labels_of_halves)
    ]
    torch.testing.assert_close(sum(halves), expected)
    assert classification_loss(ImageClassifierOutput(logits=logits), torch.full((6,), 9)) == 0
