"""What the Q-Former of the recipe learns from, and that it learns, goes on where it stopped and is handed on."""

from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from recipe.export import NOTICE, export_checkpoint
from recipe.learning import Mixture, samples_in_context, samples_without_context, train_narrator
from recipe.model import build_config
from recipe.tokenizer import NUM_FRAMES, build_processor
from recipe.worlds import TRAIN_WORLD, make_words
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_eilev import VideoBlip2ForConditionalGeneration
from transformers_eilev.data import KnownWords
from transformers_eilev.data.synthetic.world import World


WORDS = make_words()
KNOWN = KnownWords(WORDS.verb_words, WORDS.noun_words)
SHOTS = (0, 1, 2, 4)


@pytest.fixture(scope="module")
def clips():
    world, rng = World(TRAIN_WORLD), np.random.default_rng(0)
    verbs, nouns = rng.integers(6, size=400), rng.integers(18, 26, size=400)
    return datasets.Dataset.from_dict(
        {
            "frame_path": [f"clip{row}" for row in range(400)],
            "video_uid": ["video"] * 400,
            "clip_index": list(range(400)),
            "narration_text": [
                f"#C C {world.verbs[verb].words[0][0]} the {world.nouns[noun].words[0]}"
                for verb, noun in zip(verbs, nouns)
            ],
            "structured_verb": [world.verbs[verb].structured for verb in verbs],
            "structured_noun": [world.nouns[noun].structured for noun in nouns],
        }
    )


class Features:
    """Of a clip, something that tells its verb and noun and no other's."""

    def load(self, row):
        seed = [sum(map(ord, row["structured_verb"])), sum(map(ord, row["structured_noun"]))]
        return torch.from_numpy(np.random.default_rng(seed).standard_normal((NUM_FRAMES, 26, 128)).astype(np.float16))


@pytest.fixture(scope="module")
def mixture(clips):
    return samples_in_context(clips, Features(), WORDS, known=KNOWN, shots=SHOTS, seed=0)


def test_a_quarter_has_no_context_and_longer_ones_come_more_often(mixture):
    samples = [mixture[index] for index in range(len(mixture))]
    shares = {shots: count / len(samples) for shots, count in Counter(len(s["text"]) - 1 for s in samples).items()}
    assert shares[0] == pytest.approx(0.25, abs=0.06)
    assert all(shares[shots] == pytest.approx(0.75 * shots / 7, abs=0.06) for shots in (1, 2, 4))
    renamed = [any(word in s["text_target"] for word in WORDS.spare_verb_words) for s in samples if len(s["text"]) > 2]
    assert np.mean(renamed) == pytest.approx(0.6, abs=0.1)
    assert not any(word in s["text_target"] for s in samples if len(s["text"]) == 1 for word in WORDS.spare_verb_words)


def test_a_single_example_shows_the_verb_as_often_as_the_noun(mixture):
    single = [mixture[index] for index in range(len(mixture)) if len(mixture[index]["text"]) == 2]
    shared = []
    for sample in single:
        verb = sample["text_target"].removeprefix("The camera wearer ").split(" the ")[0]
        shared.append(verb in sample["text"][0])
    assert np.mean(shared) == pytest.approx(0.5, abs=0.15)


def test_a_sample_depends_on_seed_epoch_and_index_alone(clips, mixture):
    again = samples_in_context(clips, Features(), WORDS, known=KNOWN, shots=SHOTS, seed=0)
    first = [again[index]["text"] for index in range(20)]
    assert first == [mixture[index]["text"] for index in range(20)]
    again.set_epoch(1)
    assert first != [again[index]["text"] for index in range(20)]
    again.set_epoch(0)
    assert first == [again[index]["text"] for index in range(20)]


def test_each_of_a_mixture_is_drawn_by_its_weight(clips):
    datasets_ = [samples_without_context(clips, Features(), seed=seed) for seed in (0, 1)]
    mixture = Mixture(datasets_, [3, 1], seed=0)
    ours = sum(mixture[index]["text"] == datasets_[0][index]["text"] for index in range(len(mixture)))
    # One in ten of the other's has the same question.
    assert ours / len(mixture) == pytest.approx(0.775, abs=0.06)


@pytest.fixture(scope="module")
def narrator(tmp_path_factory, mixture):
    folder = tmp_path_factory.mktemp("narrator")
    processor = build_processor("opt", WORDS)
    torch.manual_seed(0)
    model = VideoBlip2ForConditionalGeneration(build_config("opt", processor))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    train_narrator(folder, model, processor, mixture, steps=4, batch_size=4)
    return folder, before


def test_only_what_is_between_vision_and_language_learns(narrator):
    folder, before = narrator
    after = VideoBlip2ForConditionalGeneration.from_pretrained(folder).state_dict()
    changed = {name.split(".")[0] for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {"qformer", "query_tokens", "language_projection"}


def test_a_checkpoint_is_handed_on_in_half_the_size_and_computed_with_whole(narrator, tmp_path):
    folder, _ = narrator
    export_checkpoint(folder, tmp_path / "out", "# Card\n")
    halves, whole = ((path / "model.safetensors").stat().st_size for path in (tmp_path / "out", folder))
    assert halves < 0.52 * whole
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32} and model.config.notice == NOTICE
    assert (tmp_path / "out" / "README.md").read_text() == "# Card\n"
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.num_query_tokens == 4 and processor.video_processor.num_frames == NUM_FRAMES
