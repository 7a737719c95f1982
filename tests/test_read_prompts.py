"""Texts that were read once give what they give when they are read anew each time."""

import copy
import pickle
import sys
import threading

import pytest
import torch
from test_generation import EIGHT
from test_modeling import close
from tiny_models import CLIP, FAMILIES, batch_of, clips_of, inputs_of, tiny_model
from transformers import GenerationConfig

from transformers_eilev.shared_prefix import ATTENTION, SharedPrefixCache


PREFIX = [2, *CLIP, 10, 11, *CLIP, 12]
# Of unequal lengths, with a clip each.
RESTS = [[*CLIP, 20, 21], [*CLIP, 22, 23, 24, 25], [*CLIP, 26]]
CLASSES = [[60], [60, 61], [60, 61, 62], [60, 61, 63], [64, 65, 66], [60]]


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param)


@pytest.fixture
def opt():
    return tiny_model("opt")


def whole(model):
    """The texts with their beginnings, as one would give them to `generate`."""
    clips = clips_of(5)
    rows = [clip for own in clips[2:] for clip in (clips[0], clips[1], own)]
    return {**batch_of(model, [PREFIX + rest for rest in RESTS]), "pixel_values": torch.stack(rows)}


def read_apart(model):
    """The same, the beginning read once."""
    clips = clips_of(5)
    prefix = model.read_prompts(torch.tensor([PREFIX]), pixel_values=clips[:2])
    return model.read_prompts(**batch_of(model, RESTS), prefix=prefix, pixel_values=clips[2:])


def class_ids_of(model):
    pad = model.config.text_config.pad_token_id
    length = max(map(len, CLASSES))
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in CLASSES])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in CLASSES])
    return ids, mask


@torch.no_grad()
def plain_scores(model, inputs, given=()):
    """One full pass for each text and class."""
    scores = []
    for row in range(len(inputs["input_ids"])):
        is_token = inputs["attention_mask"][row].bool()
        text = inputs["input_ids"][row][is_token].tolist()
        num_clips = len(inputs["pixel_values"]) // len(inputs["input_ids"])
        clips = inputs["pixel_values"][row * num_clips : (row + 1) * num_clips]
        for ids in CLASSES:
            if model.config.is_encoder_decoder:
                start = torch.tensor([[0, *given, *ids[:-1]]])
                logits = model(torch.tensor([text]), pixel_values=clips, decoder_input_ids=start).logits[0]
            else:
                logits = model(torch.tensor([text + [*given] + ids[:-1]]), pixel_values=clips).logits[0]
            told = logits[-len(ids) :].log_softmax(-1)[range(len(ids)), ids]
            scores.append(told.mean())
    return torch.stack(scores).view(-1, len(CLASSES))


GENERATION = [
    {},
    {"num_beams": 3, "length_penalty": -1.0},
    {"num_beams": 3, "num_return_sequences": 2, "early_stopping": True},
    {"num_beams": 4, "repetition_penalty": 1.8},
    {"do_sample": True, "num_return_sequences": 3, "top_k": 10},
    {"do_sample": True, "num_beams": 3, "temperature": 2.0},
    {"min_new_tokens": 0, "max_new_tokens": 20},
]


@pytest.mark.parametrize("settings", GENERATION, ids=str)
def test_generating_after_a_shared_beginning(opt, settings):
    settings = {**EIGHT, **settings}
    torch.manual_seed(0)
    expected = opt.generate(**whole(opt), **settings)
    prompts = read_apart(opt)
    for _ in range(2):  # what was read stays as it was
        torch.manual_seed(0)
        generated = prompts.generate(**settings)
        length = max(map(len, RESTS))
        assert generated[:, len(PREFIX) + length :].tolist() == expected[:, len(PREFIX) + length :].tolist()


@pytest.mark.parametrize("settings", GENERATION, ids=str)
def test_generating_from_what_was_read(model, settings):
    settings = {**EIGHT, **settings}
    torch.manual_seed(0)
    expected = model.generate(**inputs_of(model), **settings)
    prompts = model.read_prompts(**inputs_of(model))
    for _ in range(2):
        torch.manual_seed(0)
        assert prompts.generate(**settings).tolist() == expected.tolist()


def test_prompt_lookup_after_a_shared_beginning(opt):
    """What is drafted and refused is cropped off each row's own."""
    clips = clips_of(3)
    prefix = opt.read_prompts(torch.tensor([PREFIX]), pixel_values=clips[:2])
    prompts = opt.read_prompts(torch.tensor([RESTS[0]]), prefix=prefix, pixel_values=clips[2:])
    expected = opt.generate(torch.tensor([PREFIX + RESTS[0]]), pixel_values=clips, **EIGHT)
    assert prompts.generate(prompt_lookup_num_tokens=3, **EIGHT).tolist() == expected.tolist()


@pytest.mark.parametrize("size", [None, 1, 2, 4])
def test_scores(model, size):
    inputs = whole(model)
    expected = plain_scores(model, inputs)
    ids, mask = class_ids_of(model)
    close(model.read_prompts(**inputs).score(ids, mask, class_batch_size=size), expected)
    if not model.config.is_encoder_decoder:
        close(read_apart(model).score(ids, mask, class_batch_size=size), expected)


def test_scores_after_given_words(model):
    """The same words for all texts, and other ones for each."""
    inputs, (ids, mask) = whole(model), class_ids_of(model)
    prompts = model.read_prompts(**inputs) if model.config.is_encoder_decoder else read_apart(model)
    close(prompts.score(ids, mask, given=[[70, 71]] * 3), plain_scores(model, inputs, (70, 71)))
    scores = prompts.score(ids, mask, given=[[70, 71], [72], [70, 71]])
    close(scores[[0, 2]], plain_scores(model, inputs, (70, 71))[[0, 2]])
    close(scores[1], plain_scores(model, inputs, (72,))[1])
    close(prompts.score(ids, mask), plain_scores(model, inputs))


def test_likelihoods_of_what_each_text_goes_on_with(model):
    inputs, (ids, mask) = whole(model), class_ids_of(model)
    prompts = model.read_prompts(**inputs)
    rows = [2, 1, 4]
    expected = plain_scores(model, inputs)[range(3), rows]
    close(prompts.log_likelihood(ids[rows], mask[rows]), expected)
    assert prompts.log_likelihood(ids[rows], torch.zeros_like(mask[rows])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["MAX_LOGITS", "MAX_SCORES"])
def test_small_blocks_give_the_same(model, monkeypatch, name):
    ids, mask = class_ids_of(model)
    expected = model.read_prompts(**whole(model)).score(ids, mask)
    module = "read_prompts" if name == "MAX_LOGITS" else "shared_prefix"
    monkeypatch.setattr(f"transformers_eilev.{module}.{name}", 1)
    close(model.read_prompts(**whole(model)).score(ids, mask), expected)


def test_the_beginning_is_not_copied(opt):
    """Each row's cache holds its own tokens alone, whatever the number of beams, and refers to one beginning."""
    prompts = read_apart(opt)
    prefix_keys = prompts.cache.layers[0].prefix_keys
    assert prefix_keys.shape[:3] == (1, 2, len(PREFIX)) and prompts.cache.layers[0].keys.shape[2] == 7
    outputs = prompts.generate(num_beams=4, return_dict_in_generate=True, **EIGHT)
    layer = outputs.past_key_values.layers[0]
    assert isinstance(outputs.past_key_values, SharedPrefixCache)
    assert layer.prefix_keys.data_ptr() == prefix_keys.data_ptr()
    assert layer.keys.shape[:3] == (12, 2, 7 + 7)  # the last token was not read


def test_beams_share_what_the_encoder_said():
    model = tiny_model("flan-t5")
    prompts = model.read_prompts(**inputs_of(model))
    outputs = prompts.generate(num_beams=4, return_dict_in_generate=True, **EIGHT)
    cross = outputs.past_key_values.cross_attention_cache.layers[0]
    assert cross.keys.data_ptr() == prompts.cross.layers[0].keys.data_ptr() and len(cross.keys) == 3


def test_the_attention_of_the_model_is_as_before(model):
    """Also if something fails on the way."""
    config = model.language_model.get_decoder().config
    before = config._attn_implementation
    prompts = model.read_prompts(**inputs_of(model))

    class Stop(Exception):
        pass

    def stop(*_):
        assert config._attn_implementation == ATTENTION
        raise Stop

    hook = model.language_model.get_decoder().register_forward_hook(stop)
    with pytest.raises(Stop):
        prompts.score(*class_ids_of(model))
    hook.remove()
    prompts.generate(num_beams=2, **EIGHT)
    assert config._attn_implementation == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_lower_precision(model, dtype):
    """As close to float32 as the plain path is."""
    ids, mask = class_ids_of(model)
    inputs = whole(model)
    exact = model.read_prompts(**inputs).score(ids, mask)
    low = model.to(dtype)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    plain = (plain_scores(low, inputs).float() - exact).abs().max()
    ours = (low.read_prompts(**inputs).score(ids, mask) - exact).abs().max()
    assert ours <= 2 * plain + 1e-2


def test_bad_input(model):
    ids, mask = class_ids_of(model)
    prompts = model.read_prompts(**whole(model))
    with pytest.raises(ValueError, match="3 texts, but `given` has 2"):
        prompts.score(ids, mask, given=[[1], [2]])
    with pytest.raises(ValueError, match="class_batch_size.*0"):
        prompts.score(ids, mask, class_batch_size=0)
    prefix = model.read_prompts(torch.tensor([[2, 10], [2, 11]]))
    match = "encoder reads all" if model.config.is_encoder_decoder else "2 texts.*one, or as many as go on: 3"
    with pytest.raises(ValueError, match=match):
        model.read_prompts(**batch_of(model, RESTS), prefix=prefix, pixel_values=clips_of(3))


def test_a_prefix_for_each_text(opt):
    clips = clips_of(5)
    prefixes = [[2, 10, 11], [2, 12, 13]]
    prefix = opt.read_prompts(torch.tensor(prefixes))
    prompts = opt.read_prompts(torch.tensor([RESTS[0], RESTS[0]]), prefix=prefix, pixel_values=clips[:2])
    rows = torch.tensor([before + RESTS[0] for before in prefixes])
    expected = opt.generate(rows, pixel_values=clips[:2], num_beams=2, **EIGHT)
    assert prompts.generate(num_beams=2, **EIGHT).tolist() == expected.tolist()
    only_second = prompts.select(torch.tensor([1]))
    assert only_second.generate(**EIGHT).tolist() == opt.generate(rows[1:], pixel_values=clips[1:2], **EIGHT).tolist()


def test_no_more_is_cropped_than_a_row_has(opt):
    cache = read_apart(opt).cache.fork()
    with pytest.raises(ValueError, match="8 tokens can't be removed: the rows have 7"):
        cache.crop(-8)


READ_AGAIN = [
    {"use_cache": False},
    {"generation_config": "uncached"},
    {"cache_implementation": "static"},
    {"assistant_model": "itself"},
    {"output_scores": True, "return_dict_in_generate": True},
]
OF_ONE_FAMILY = {
    "opt": [{"prefill_chunk_size": 4}],
    "flan-t5": [{"encoder_repetition_penalty": 1.8}, {"encoder_no_repeat_ngram_size": 1}],
}


@pytest.mark.parametrize(
    "family, settings",
    [(family, settings) for family in FAMILIES for settings in (*READ_AGAIN, *OF_ONE_FAMILY[family])],
    ids=str,
)
def test_settings_that_read_the_texts_themselves(family, settings):
    """They say what `generate` says, with or without a common beginning."""
    model = tiny_model(family)
    settings = {**EIGHT, **settings}
    if "generation_config" in settings:
        settings = {"generation_config": GenerationConfig(**EIGHT, use_cache=False, pad_token_id=0, eos_token_id=1)}
        settings["generation_config"].decoder_start_token_id = 0
    if "assistant_model" in settings:
        settings["assistant_model"] = model
    clips = clips_of(3)
    if model.config.is_encoder_decoder:
        inputs = {"input_ids": torch.tensor([PREFIX + RESTS[0]]), "pixel_values": clips}
        prompts = model.read_prompts(**inputs)
    else:
        inputs = {"input_ids": torch.tensor([PREFIX + RESTS[0]]), "pixel_values": clips}
        prefix = model.read_prompts(torch.tensor([PREFIX]), pixel_values=clips[:2])
        prompts = model.read_prompts(torch.tensor([RESTS[0]]), prefix=prefix, pixel_values=clips[2:])
    expected, said = model.generate(**inputs, **settings), prompts.generate(**settings)
    expected, said = (getattr(outputs, "sequences", outputs) for outputs in (expected, said))
    assert said.tolist() == expected.tolist()


def test_other_threads_run_the_model_as_ever(model):
    """A plain pass waits while another thread runs shared attention, and the other way round; none is left behind."""
    inputs, (ids, mask) = inputs_of(model), class_ids_of(model)
    decoder_ids = {"decoder_input_ids": torch.zeros(3, 4, dtype=torch.long)} if model.config.is_encoder_decoder else {}
    before = model.language_model.get_decoder().config._attn_implementation
    with torch.no_grad():
        expected = model(**inputs, **decoder_ids).logits
    prompts = model.read_prompts(**inputs)
    scores = prompts.score(ids, mask)
    faults = []

    def plain():
        with torch.no_grad():
            for _ in range(30):
                faults.append((model(**inputs, **decoder_ids).logits - expected).abs().max().item())

    def shared():
        for _ in range(30):
            faults.append((prompts.score(ids, mask) - scores).abs().max().item())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=target) for target in (plain, shared, plain, shared)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(faults) == 120 and max(faults) < 1e-4
    assert model.language_model.get_decoder().config._attn_implementation == before


def test_a_copy_of_the_model_waits_for_nobody(model):
    with model.attention_turns.take(model.language_model, None):
        copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    close(
        copied.read_prompts(**inputs_of(model)).score(*class_ids_of(model)),
        model.read_prompts(**inputs_of(model)).score(*class_ids_of(model)),
    )


def test_longer_than_can_be_read(opt):
    prompts = opt.read_prompts(**inputs_of(opt))
    with pytest.raises(ValueError, match="tokens and 200 more are longer than the 128"):
        prompts.generate(max_new_tokens=200)
    with pytest.raises(ValueError, match="longer than the 128"):
        prompts.score(torch.full((1, 150), 60))


def test_tokens_that_are_none(model):
    prompts = model.read_prompts(**inputs_of(model))
    with pytest.raises(ValueError, match="has not: .*1000"):
        prompts.score(torch.tensor([[60, 1000]]), torch.ones(1, 2))
    with pytest.raises(ValueError, match="of shape"):
        prompts.score(torch.tensor([60, 61]))


def test_many_given_words():
    model = tiny_model("flan-t5")
    prompts = model.read_prompts(**inputs_of(model, [0]))
    assert prompts.score(torch.tensor([[60]]), given=[[61] * 1500]).shape == (1, 1)
