"""Every way of generating says what a plain loop over `forward` says."""

import pytest
import torch
from test_modeling import close
from tiny_models import FAMILIES, TEXTS, VIDEO, VOCAB_SIZE, inputs_of, tiny_config, tiny_model
from transformers import (
    CompileConfig,
    OPTForCausalLM,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    T5ForConditionalGeneration,
)
from transformers.generation.streamers import BaseStreamer


# As many tokens in every row, so that rows of batches can be compared.
EIGHT = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param)


def argmax_loop(model, inputs, num_tokens=8, processor=None):
    """The new tokens, by one full pass for each, without cache and without `generate`."""
    inputs = dict(inputs)
    is_encoder_decoder = model.config.is_encoder_decoder
    suppressed = [VIDEO, model.config.text_config.eos_token_id]
    new = torch.zeros(len(inputs["input_ids"]), 0, dtype=torch.long)
    for _ in range(num_tokens):
        with torch.no_grad():
            if is_encoder_decoder:
                start = torch.zeros(len(new), 1, dtype=torch.long)
                outputs = model(**inputs, decoder_input_ids=torch.cat([start, new], dim=1), use_cache=False)
            else:
                ids = torch.cat([inputs["input_ids"], new], dim=1)
                mask = torch.cat([inputs["attention_mask"], torch.ones_like(new)], dim=1)
                outputs = model(**{**inputs, "input_ids": ids, "attention_mask": mask}, use_cache=False)
        scores = outputs.logits[:, -1]
        if processor is not None:
            scores = processor(new, scores)
        scores[:, suppressed] = -torch.inf
        new = torch.cat([new, scores.argmax(-1, keepdim=True)], dim=1)
    return new


def new_tokens(model, inputs, **kwargs):
    sequences = model.generate(**inputs, **{**EIGHT, **kwargs})
    if model.config.is_encoder_decoder:
        return sequences[:, 1:]
    return sequences[:, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else sequences


@torch.no_grad()
def without_clips(model, inputs):
    """The same prompts as embeddings with the clips' features in them: there is no clip left to go astray."""
    inputs = dict(inputs)
    input_ids, pixel_values = inputs.pop("input_ids"), inputs.pop("pixel_values", None)
    embeds = model.get_input_embeddings()(input_ids)
    if pixel_values is not None:
        embeds[input_ids == VIDEO] = model.get_video_features(pixel_values).pooler_output.flatten(0, 1)
    return {**inputs, "inputs_embeds": embeds}


@pytest.mark.parametrize("kwargs", [{}, {"use_cache": False}, {"pixel_values": None}])
def test_greedy_equals_an_argmax_loop(model, kwargs):
    inputs = inputs_of(model, [2]) if "pixel_values" in kwargs else inputs_of(model)
    expected = argmax_loop(model, inputs)
    assert len({tuple(row) for row in expected.tolist()}) == len(expected)
    assert new_tokens(model, inputs, **kwargs).tolist() == expected.tolist()


@pytest.mark.parametrize("cache_implementation", ["static", "dynamic"])
def test_caches(model, cache_implementation):
    inputs = inputs_of(model)
    generated = new_tokens(model, inputs, cache_implementation=cache_implementation)
    assert generated.tolist() == argmax_loop(model, inputs).tolist()


@pytest.mark.parametrize("cache_implementation", ["static", "dynamic"])
def test_a_decoder_deeper_than_its_encoder(cache_implementation):
    """Caches have as many layers as the decoder, which transformers takes from the encoder's number."""
    model = tiny_model("t5-deep-decoder")
    inputs = inputs_of(model)
    generated = new_tokens(model, inputs, cache_implementation=cache_implementation)
    assert generated.tolist() == argmax_loop(model, inputs).tolist()


def test_static_cache_compiles_without_a_graph_break(model):
    compile_config = CompileConfig(fullgraph=True, backend="eager", mode=None)
    compile_config._compile_all_devices = True
    inputs = inputs_of(model, [0, 1])
    torch.compiler.reset()
    generated = new_tokens(model, inputs, cache_implementation="static", compile_config=compile_config)
    assert generated.tolist() == argmax_loop(model, inputs).tolist()


@pytest.mark.parametrize("kwargs", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_beams_of_a_batch_equal_those_of_each_text(model, kwargs):
    """Each text has another number of clips, and each of its beams needs them all."""
    returned = kwargs.get("num_return_sequences", 1)
    batch = new_tokens(model, inputs_of(model), **kwargs)
    assert batch.shape == (3 * returned, 8)
    for i in range(3):
        single = new_tokens(model, without_clips(model, inputs_of(model, [i])), **kwargs)
        assert batch[i * returned : (i + 1) * returned].tolist() == single.tolist(), TEXTS[i]


def test_sampling_follows_the_seed(model):
    inputs = inputs_of(model)
    kwargs = {"do_sample": True, "num_return_sequences": 2}
    torch.manual_seed(5)
    first = new_tokens(model, inputs, **kwargs)
    assert first.shape == (6, 8)
    torch.manual_seed(5)
    assert new_tokens(model, inputs, **kwargs).tolist() == first.tolist()
    assert new_tokens(model, inputs, **kwargs).tolist() != first.tolist()


class Listener(BaseStreamer):
    def __init__(self):
        self.tokens = []
        self.has_ended = False

    def put(self, value):
        self.tokens.append(value.flatten().tolist())

    def end(self):
        self.has_ended = True


def test_a_streamer_gets_the_prompt_and_every_new_token(model):
    inputs = inputs_of(model, [0])
    listener = Listener()
    expected = new_tokens(model, inputs, streamer=listener)[0].tolist()
    prompt, *new = listener.tokens
    assert prompt == ([0] if model.config.is_encoder_decoder else TEXTS[0])
    assert new == [[token] for token in expected]
    assert listener.has_ended


def test_ends(model):
    """At any of several ending tokens; or where a criterion says so."""
    inputs = inputs_of(model, [0])
    plain = argmax_loop(model, inputs)[0].tolist()
    ends = [plain[6], plain[4]]
    expected = plain[: min(map(plain.index, ends)) + 1]
    kwargs = {"min_new_tokens": None, "suppress_tokens": [model.config.text_config.eos_token_id]}
    assert new_tokens(model, inputs, eos_token_id=ends, **kwargs)[0].tolist() == expected

    class AtThird(StoppingCriteria):
        def __call__(self, input_ids, scores, **_):
            length = 1 + 3 if model.config.is_encoder_decoder else len(TEXTS[0]) + 3
            return torch.full((len(input_ids),), input_ids.shape[1] >= length)

    criteria = StoppingCriteriaList([AtThird()])
    assert new_tokens(model, inputs, stopping_criteria=criteria)[0].tolist() == plain[:3]


def test_stop_strings(golden):
    processor = golden.interleaved
    inputs = processor.pad([processor.encode("<video>Question: What is the camera wearer doing? Answer:")])
    inputs["pixel_values"] = golden.pixel_values[:1]
    start = 1 if golden.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    kwargs = {"max_new_tokens": 10, "min_new_tokens": 10, "num_beams": 1, "do_sample": False}
    plain = golden.model.generate(**inputs, **kwargs)[0, start:].tolist()
    texts = processor.tokenizer.batch_decode([[token] for token in plain])
    before = [processor.tokenizer.decode(plain[:i]) for i in range(len(plain))]
    stop, at = next((text, i) for i, text in enumerate(texts) if i >= 2 and text.strip() and text not in before[i])
    kwargs["min_new_tokens"] = None
    stopped = golden.model.generate(**inputs, **kwargs, stop_strings=[stop], tokenizer=processor.tokenizer)
    assert stopped[0, start:].tolist() == plain[: at + 1]


# Drafts


@pytest.mark.parametrize("which", [[0], [2]])
def test_assisted_by_a_smaller_model(model, which):
    inputs = inputs_of(model, which)
    expected = argmax_loop(model, inputs).tolist()
    other = tiny_model("flan-t5" if model.config.is_encoder_decoder else "opt", seed=7)
    assert new_tokens(model, inputs, assistant_model=other).tolist() == expected
    assert new_tokens(model, inputs, assistant_model=model).tolist() == expected


@pytest.mark.parametrize("which", [[0], [2]])
def test_assisted_by_a_model_of_text_alone(model, which):
    inputs = inputs_of(model, which)
    language_class = T5ForConditionalGeneration if model.config.is_encoder_decoder else OPTForCausalLM
    torch.manual_seed(8)
    assistant = language_class(model.config.text_config).eval()
    generated = new_tokens(model, inputs, assistant_model=assistant)
    assert generated.tolist() == argmax_loop(model, inputs).tolist()


@pytest.mark.parametrize("which", [[0], [2]])
def test_drafts_from_the_prompt(model, which):
    inputs = inputs_of(model, which)
    generated = new_tokens(model, inputs, prompt_lookup_num_tokens=4)
    assert generated.tolist() == argmax_loop(model, inputs).tolist()


def favour(model, token, factor=50.0):
    """Makes the model say `token` whenever it may."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.text_config.tie_word_embeddings = False

    def add(module, args, output):
        output[..., token] += factor

    head.register_forward_hook(add)
    return model


def test_drafts_of_video_tokens_are_refused():
    """The prompt's clips are runs of `<video>`, which a draft continues; the model itself would like to, too."""
    inputs = inputs_of(tiny_model("opt"), [0])
    text_end = [*[VIDEO] * 3, 10, *[VIDEO] * 3, 10]
    inputs["input_ids"] = torch.tensor([[2, *text_end]])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for model in (favour(tiny_model("opt"), 10, 4.0), favour(tiny_model("opt"), VIDEO)):
        expected = argmax_loop(model, inputs).tolist()
        listener = Listener()
        generated = new_tokens(model, inputs, prompt_lookup_num_tokens=3, max_matching_ngram_size=1, streamer=listener)
        assert generated.tolist() == expected


@pytest.mark.parametrize(
    "kwargs", [{}, {"num_beams": 2}, {"do_sample": True}, {"suppress_tokens": [50]}, {"prompt_lookup_num_tokens": 3}]
)
def test_video_token_is_never_generated(model, kwargs):
    model = favour(model, VIDEO)
    inputs = inputs_of(model, [0])
    with torch.no_grad():
        start = {"decoder_input_ids": torch.tensor([[0]])} if model.config.is_encoder_decoder else {}
        assert model(**inputs, **start).logits[0, -1].argmax() == VIDEO
    generated = new_tokens(model, inputs, **kwargs)
    assert VIDEO not in generated
    assert 50 not in generated or "suppress_tokens" not in kwargs
    assert model.generation_config.suppress_tokens is None, "the settings stay the user's"


# Other inputs


@pytest.mark.parametrize("prefill_chunk_size", [1, 2, 4, 7])
@pytest.mark.parametrize("which", [[0], [0, 1, 2]])
def test_prefill_in_chunks(prefill_chunk_size, which):
    """Chunks end within clips."""
    model = tiny_model("opt")
    inputs = inputs_of(model, which)
    generated = new_tokens(model, inputs, prefill_chunk_size=prefill_chunk_size)
    assert generated.tolist() == argmax_loop(model, inputs).tolist()


@torch.no_grad()
@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 2}])
def test_embeddings_in_place_of_tokens(model, kwargs):
    inputs = inputs_of(model)
    expected = new_tokens(model, inputs, **kwargs).tolist()
    assert new_tokens(model, without_clips(model, inputs), **kwargs).tolist() == expected
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert new_tokens(model, {**inputs, "inputs_embeds": embeds}, **kwargs).tolist() == expected


@torch.no_grad()
@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 2}])
def test_video_features_in_place_of_pixel_values(model, kwargs):
    inputs = inputs_of(model)
    expected = new_tokens(model, inputs, **kwargs).tolist()
    features = model.get_video_features(inputs.pop("pixel_values"))
    for _ in range(2):  # features are there to be used again
        assert new_tokens(model, inputs, mm_encoder_outputs={"video": features}, **kwargs).tolist() == expected
        assert features.pooler_output.shape == (3, 3, 32)


def test_settings_of_a_clip_reach_the_vision_model(model):
    inputs = inputs_of(model, num_frames=3)
    frame_mask = torch.tensor([[True, True, False], [True, False, False], [True] * 3])
    masked = {**inputs, "frame_mask": frame_mask}
    expected = argmax_loop(model, masked).tolist()
    assert expected != argmax_loop(model, inputs).tolist()
    assert new_tokens(model, masked).tolist() == expected
    larger = {**inputs, "pixel_values": torch.randn(3, 2, 3, 42, 42), "interpolate_pos_encoding": True}
    assert new_tokens(model, larger).tolist() == argmax_loop(model, larger).tolist()


def test_encoder_outputs_of_an_earlier_call():
    model = tiny_model("flan-t5")
    inputs = inputs_of(model)
    outputs = model.generate(**inputs, **EIGHT, return_dict_in_generate=True, output_hidden_states=True)
    from transformers.modeling_outputs import BaseModelOutput

    encoder_outputs = BaseModelOutput(last_hidden_state=outputs.encoder_hidden_states[-1])
    again = model.generate(encoder_outputs=encoder_outputs, attention_mask=inputs["attention_mask"], **EIGHT)
    assert again.tolist() == outputs.sequences.tolist()


@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 2}])
def test_continues_from_a_cache(kwargs):
    """The first clip has been read already; the call gets the whole text, but only the clips after that."""
    model = tiny_model("opt")
    inputs = inputs_of(model, [0])
    expected = new_tokens(model, inputs, **kwargs)
    num_read = 5  # <s>, the first clip and a token
    with torch.no_grad():
        cache = model(
            input_ids=inputs["input_ids"][:, :num_read], pixel_values=inputs["pixel_values"][:1], use_cache=True
        ).past_key_values
    if kwargs:
        cache.batch_repeat_interleave(kwargs["num_beams"])
    rest = {**inputs, "pixel_values": inputs["pixel_values"][1:]}
    assert new_tokens(model, rest, past_key_values=cache, **kwargs).tolist() == expected.tolist()


def test_a_turn_after_a_turn():
    """The cache of one call goes to the next, which has a clip of its own."""
    model = tiny_model("opt")
    inputs = inputs_of(model, [1])
    first = model.generate(**inputs, **EIGHT, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, torch.tensor([[*[VIDEO] * 3, 33]])], dim=1)
    both = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    clips = inputs_of(model, [0])["pixel_values"]
    expected = argmax_loop(model, {**both, "pixel_values": torch.cat([inputs["pixel_values"], clips[:1]])})
    generated = new_tokens(model, {**both, "pixel_values": clips[:1]}, past_key_values=first.past_key_values)
    assert generated.tolist() == expected.tolist()


# What comes out


def test_scores(model):
    inputs = inputs_of(model)
    outputs = model.generate(**inputs, **EIGHT, return_dict_in_generate=True, output_scores=True, output_logits=True)
    assert len(outputs.scores) == len(outputs.logits) == 8
    assert outputs.scores[0].shape == (3, VOCAB_SIZE)
    assert (outputs.scores[0][:, VIDEO] == -torch.inf).all() and outputs.logits[0][:, VIDEO].isfinite().all()
    start = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    new = outputs.sequences[:, start:]
    assert [scores.argmax(-1).tolist() for scores in outputs.scores] == new.T.tolist()
    transition = model.compute_transition_scores(outputs.sequences, outputs.scores, normalize_logits=True)
    assert transition.shape == new.shape
    expected = torch.stack([s.log_softmax(-1).gather(1, t[:, None])[:, 0] for s, t in zip(outputs.scores, new.T)], 1)
    close(transition, expected)


def test_hidden_states_of_generation(model):
    outputs = model.generate(
        **inputs_of(model), **EIGHT, return_dict_in_generate=True, output_hidden_states=True, num_beams=2
    )
    states = outputs.decoder_hidden_states if model.config.is_encoder_decoder else outputs.hidden_states
    assert len(states) == 8 and all(len(step) == 3 for step in states)


def test_repetition_penalty_counts_what_is_generated_alone():
    model = tiny_model("opt")
    inputs = inputs_of(model, [0])
    plain = argmax_loop(model, inputs)
    # The prompt has every token that would be generated.
    inputs["input_ids"][0, [4, 5, 9]] = plain[0, :3]
    plain = argmax_loop(model, inputs)
    penalty = RepetitionPenaltyLogitsProcessor(1.8)
    expected = argmax_loop(model, inputs, processor=penalty)
    assert expected.tolist() != plain.tolist()
    for kwargs in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
        assert new_tokens(model, inputs, repetition_penalty=1.8, **kwargs).tolist() == expected.tolist()
    assert new_tokens(model, without_clips(model, inputs), repetition_penalty=1.8).tolist() == expected.tolist()


@pytest.mark.parametrize("kwargs", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 3}])
def test_repetition_penalty_in_other_modes(kwargs):
    model = tiny_model("opt")
    inputs = inputs_of(model, [0])
    if "prompt_lookup_num_tokens" in kwargs:
        expected = argmax_loop(model, inputs, processor=RepetitionPenaltyLogitsProcessor(1.8))
    else:  # from embeddings, there is no token of a prompt to count
        expected = new_tokens(model, without_clips(model, inputs), repetition_penalty=1.8, **kwargs)
    assert new_tokens(model, inputs, repetition_penalty=1.8, **kwargs).tolist() == expected.tolist()


def test_repetition_penalty_with_an_encoder():
    model = tiny_model("flan-t5")
    inputs = inputs_of(model)
    start = torch.zeros(3, 1, dtype=torch.long)
    penalty = RepetitionPenaltyLogitsProcessor(1.8)
    expected = argmax_loop(model, inputs, processor=lambda new, scores: penalty(torch.cat([start, new], 1), scores))
    assert new_tokens(model, inputs, repetition_penalty=1.8).tolist() == expected.tolist()


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_classes_of_a_batch_equal_those_of_each_text(model, padding_side):
    pad = model.config.text_config.pad_token_id
    class_ids = torch.tensor([[60, pad, pad], [61, 62, pad], [63, 64, 65]])
    batch = model.classify(**inputs_of(model, padding_side=padding_side), class_input_ids=class_ids)
    assert batch.shape == (3, 3)
    for i in range(3):
        close(batch[i : i + 1], model.classify(**inputs_of(model, [i]), class_input_ids=class_ids))
    for chunk in (1, 2):
        inputs = inputs_of(model, padding_side=padding_side)
        close(model.classify(**inputs, class_input_ids=class_ids, class_batch_size=chunk), batch)


def test_a_config_object_is_left_as_it_was(model):
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=3, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    before = config.to_dict()
    model.generate(**inputs_of(model), generation_config=config)
    assert config.to_dict() == before


def test_config_without_a_video_token_generates_text():
    torch.manual_seed(0)
    model = type(tiny_model("opt"))(tiny_config("opt", video_token_id=None)).eval()
    assert model.generate(**inputs_of(model, [2]), **EIGHT).shape == (1, 11)


def test_a_text_that_is_too_long_is_told_so():
    """And not an index that is out of range, or on a GPU a failed assertion."""
    model = tiny_model("opt")
    longest = model.config.text_config.max_position_embeddings
    input_ids = torch.full((1, longest), 10)
    with pytest.raises(ValueError, match=f"A text of {longest} tokens and 1 more are longer than the {longest}"):
        model.generate(input_ids, attention_mask=torch.ones_like(input_ids), max_new_tokens=1)
    shorter = input_ids[:, 1:]
    assert model.generate(shorter, attention_mask=torch.ones_like(shorter), max_new_tokens=1).shape[1] == longest
