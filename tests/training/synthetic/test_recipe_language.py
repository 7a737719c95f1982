"""The language model of the recipe: its texts are the processor's, it learns, and a killed training ends alike."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, OPTConfig, OPTForCausalLM, T5Config

from transformers_eilev.data.in_context import build_blocks


RECIPE = Path(__file__).parents[3] / "examples" / "training" / "synthetic"
sys.path.insert(0, str(RECIPE))

from recipe import episodes, language  # noqa: E402
from recipe.episodes import (  # noqa: E402
    BIND,
    CONTRADICTED,
    COPY,
    NUM_KINDS,
    Difficulty,
    EpisodeText,
    draw_episodes,
)
from recipe.language import build_language_model, measure_accuracy, train_language_model  # noqa: E402
from recipe.tokenizer import build_processor  # noqa: E402
from recipe.worlds import Words  # noqa: E402


FAMILIES = ["opt", "t5"]
WIDTH = 16
WORDS = Words(
    tuple(f"verb{i}" for i in range(12)),
    tuple(f"noun{i}" for i in range(12)),
    tuple(f"spareverb{i}" for i in range(9)),
    tuple(f"sparenoun{i}" for i in range(9)),
)


@pytest.fixture(autouse=True)
def few_held_out_episodes(monkeypatch):
    monkeypatch.setattr(language, "NUM_HELD_OUT", 12)


@pytest.fixture(params=FAMILIES)
def processor(request):
    return build_processor(request.param, WORDS)


def config_of(processor, width=WIDTH):
    shared = {"vocab_size": len(processor.tokenizer), "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    if processor.is_decoder_only:
        return OPTConfig(
            hidden_size=width,
            word_embed_proj_dim=width,
            ffn_dim=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
            dropout=0.0,
            **shared,
        )
    return T5Config(
        d_model=width,
        d_kv=8,
        d_ff=width,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=1,
        **shared,
    )


def drawn(processor, demonstrations, seed=0, **kwargs):
    text = EpisodeText(processor, WORDS)
    return draw_episodes(text, WIDTH, 6, demonstrations, np.random.default_rng(seed), **kwargs)


def spoken(processor, ids):
    """Tokens as text, the clips' as `<video>`."""
    return processor.tokenizer.decode([i for i in ids if i >= 0], skip_special_tokens=False)


@pytest.mark.parametrize("with_clips", [True, False])
@pytest.mark.parametrize("demonstrations", [0, 3])
def test_texts_are_those_of_the_processor(processor, demonstrations, with_clips):
    episodes = drawn(processor, demonstrations, mode=COPY, demonstration_clips=with_clips)
    for ids, answer in zip(episodes.input_ids.tolist(), episodes.answers.tolist(), strict=True):
        told = spoken(processor, answer).removesuffix("</s>").strip()
        text = spoken(processor, ids).replace("<video>" * 4, "").removeprefix("<s>").removesuffix("</s>")
        *before, last = [line for line in text.split("\n") if line]
        questions, narrations = [], []
        for line in before:
            question, _, rest = line.partition(" The camera wearer")
            questions.append(question)
            narrations.append("The camera wearer" + rest)
        questions.append(last.removesuffix(" " + told))
        blocks = build_blocks(questions, narrations, demonstration_clips=with_clips)
        expected = processor.encode(blocks, target=told)
        assert len(blocks) == demonstrations + 1
        assert ids == expected["input_ids"]
        assert answer == [label for label in expected["labels"] if label != -100]


def test_a_code_is_told_by_the_words_that_came_with_it(processor):
    episodes = drawn(processor, 8, mode=BIND, difficulty=Difficulty(noise=0.0))
    embeddings = torch.nn.Embedding(len(processor.tokenizer), WIDTH)
    codes = torch.cat([part.vectors(embeddings) for part in episodes.codes], 2)
    text = EpisodeText(processor, WORDS)
    read = episodes.embed(embeddings, text.video_token)
    is_clip = episodes.input_ids == text.video_token
    assert torch.equal(read[is_clip].view(codes.shape), codes)
    assert torch.equal(read[~is_clip], embeddings(episodes.input_ids[~is_clip]))
    for row in range(len(codes)):
        ids = [*episodes.input_ids[row].tolist()]
        if not processor.is_decoder_only:
            ids += episodes.answers[row].tolist()
        said = [i for i in ids if i in set(text.words.tolist())]
        assert len(said) == 18
        for part, words in enumerate((said[::2], said[1::2])):
            seen = {}
            for block, word in enumerate(words):
                code = tuple(codes[row, block, 2 * part : 2 * part + 2].flatten().tolist())
                assert seen.setdefault(code, word) == word
            assert len(set(seen.values())) == len(seen) <= NUM_KINDS


def test_words_are_asked_in_all_blocks_where_they_can_be_told():
    processor = build_processor("opt", WORDS)
    words = set(EpisodeText(processor, WORDS).words.tolist())
    for mode in (BIND, COPY, CONTRADICTED):
        episodes = drawn(processor, 8, mode=mode)
        for ids, labels in zip(episodes.input_ids.tolist(), episodes.labels.tolist(), strict=True):
            said, asked = zip(*[(i, label != -100) for i, label in zip(ids, labels, strict=True) if i in words])
            known = {
                # What came before; all that names itself; and what contradicts it, never.
                BIND: [word in said[:place] for place, word in enumerate(said)],
                COPY: [True] * 18,
                CONTRADICTED: [False] * 16 + [True] * 2,
            }
            assert list(asked) == known[mode]
            assert all(label in (-100, i) for i, label in zip(ids, labels, strict=True))


@pytest.mark.parametrize("mode", [COPY, CONTRADICTED])
def test_a_name_is_told_whatever_was_said_before(processor, mode):
    episodes = drawn(processor, 4, mode=mode, difficulty=Difficulty(noise=0.0))
    embeddings = torch.nn.Embedding(len(processor.tokenizer), WIDTH)
    # The verb is the query's in two of four examples.
    said_before = 0
    for part, place in zip(episodes.codes, (1, 3), strict=True):
        name = episodes.answers[:, place]
        assert torch.equal(part.vectors(embeddings)[:, -1], embeddings(name)[:, None].expand(-1, 2, -1))
        context = episodes.input_ids[:, :-7] if processor.is_decoder_only else episodes.input_ids
        said_before += (context == name[:, None]).any(1).sum().item()
    assert said_before == (12 if mode == COPY else 0)


def test_without_their_clips_demonstrations_tell_only_the_query_is_asked():
    processor = build_processor("opt", WORDS)
    episodes = drawn(processor, 4, demonstration_clips=False)
    assert ((episodes.input_ids == processor.video_token_id).sum(1) == 4).all()
    assert (episodes.labels[:, :-7] == -100).all()


def test_it_learns_to_copy(tmp_path, monkeypatch):
    for module in (language, episodes):
        monkeypatch.setattr(module, "EASY_SHARE", 0.0)
    monkeypatch.setattr(language, "SHARE_WITHOUT_CONTEXT", 1.0)
    processor = build_processor("opt", WORDS)
    config = config_of(processor, 32)
    config.init_std = 0.1
    model = train_language_model(
        tmp_path,
        config,
        processor,
        WORDS,
        steps=150,
        save_every=150,
        learning_rate=4e-3,
        matrix_learning_rate=2e-2,
        progress=False,
    )
    monkeypatch.setattr(language, "NUM_HELD_OUT", 60)
    accuracy = measure_accuracy(model, EpisodeText(processor, WORDS), seed=5)
    # By chance one word of 21.
    assert min(accuracy["copy 0"]) > 0.4
    entry = json.loads((tmp_path / "training_log.jsonl").read_text())
    assert entry["step"] == 150 and entry["loss"] > 0 and entry["accuracy"].keys() == accuracy.keys()
    again = OPTForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


class Killed(BaseException):
    pass


def test_a_killed_training_ends_alike(processor, tmp_path, monkeypatch):
    def train(folder, **kwargs):
        return train_language_model(
            tmp_path / folder,
            config_of(processor),
            processor,
            WORDS,
            **{"steps": 7, "batch_size": 2, "save_every": 3, "progress": False, **kwargs},
        )

    straight = train("straight")
    learn, calls = language._Training._learn, []

    def learn_until_killed(self, episodes):
        calls.append(self.step)
        # In the middle of an interval, and of one whose predecessor was saved.
        if len(calls) in (2, 7):
            raise Killed
        return learn(self, episodes)

    monkeypatch.setattr(language._Training, "_learn", learn_until_killed)
    for _ in range(2):
        with pytest.raises(Killed):
            train("killed")
    resumed = train("killed")
    assert calls == [0, 1, 0, 1, 2, 3, 4, 3, 4, 5, 6]
    for (name, a), b in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    logs = [(tmp_path / folder / "training_log.jsonl").read_bytes() for folder in ("straight", "killed")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == [3, 6, 7]
    assert not (tmp_path / "killed" / "training_state.pt").exists()

    train("killed")
    assert len(calls) == 11, "what is done is not done again"
    with pytest.raises(ValueError, match="other settings"):
        train("killed", seed=1)


def test_global_randomness_is_neither_used_nor_touched(processor):
    torch.manual_seed(1)
    first = build_language_model(config_of(processor), seed=3).state_dict()
    state = torch.get_rng_state()
    second = build_language_model(config_of(processor), seed=3).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_what_is_wrong_is_named(processor, tmp_path):
    def train(config=None, words=WORDS, **kwargs):
        train_language_model(tmp_path, config or config_of(processor), processor, words, **{"steps": 1, **kwargs})

    with pytest.raises(ValueError, match="' unheard' must be one token"):
        train(words=Words(("unheard", *WORDS.verb_words), WORDS.noun_words, (), ()))
    with pytest.raises(ValueError, match="An episode needs 40 words, got 3"):
        train(words=Words(WORDS.verb_words[:3], (), (), ()))
    with pytest.raises(ValueError, match="'gpt2'"):
        train(config=GPT2Config(n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train(steps=0)
