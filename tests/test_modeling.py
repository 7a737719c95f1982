"""What a user of transformers relies on, of `forward` and of training: small random models, no reference needed."""

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from tiny_models import (
    FAMILIES,
    NUM_QUERIES,
    TARGETS,
    TEXTS,
    TOKENS_PER_FRAME,
    VIDEO,
    VOCAB_SIZE,
    clips_of,
    decoded,
    inputs_of,
    tiny_config,
    tiny_model,
    training_inputs_of,
)
from transformers import DynamicCache, StaticCache

from transformers_eilev import VideoBlip2ForConditionalGeneration


def close(actual, expected, atol=2e-5):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=atol)


def gradients(model, **inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


def close_gradients(actual, expected):
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], rtol=1e-3, atol=5e-6, msg=lambda message, name=name: f"{name}: {message}"
        )


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param)


@torch.no_grad()
def test_each_clip_changes_the_logits(model):
    inputs = decoded(model, inputs_of(model, [0]))
    logits = model(**inputs).logits[:, -1]
    for clip in range(2):
        changed = inputs["pixel_values"].clone()
        changed[clip, 1] += 1
        assert (model(**{**inputs, "pixel_values": changed}).logits[:, -1] - logits).abs().max() > 1e-2
    swapped = model(**{**inputs, "pixel_values": inputs["pixel_values"].flip(0)}).logits[:, -1]
    assert (swapped - logits).abs().max() > 1e-2


# Outputs


@torch.no_grad()
def test_tuple_is_the_values_of_the_dict(model):
    inputs = training_inputs_of(model)
    as_dict = model(**inputs)
    as_tuple = model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == len(as_dict.to_tuple())
    close(as_tuple[0], as_dict.loss)
    close(as_tuple[1], as_dict.logits)
    close(as_tuple[-1], as_dict.video_hidden_states)
    features = model.get_video_features(inputs["pixel_values"], return_dict=False)
    close(features[1], as_dict.video_hidden_states)


@torch.no_grad()
def test_hidden_states_and_attentions(model):
    model.set_attn_implementation("eager")
    inputs = decoded(model, inputs_of(model))
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    batch, length = inputs["input_ids"].shape
    if model.config.is_encoder_decoder:
        assert [tuple(state.shape) for state in outputs.encoder_hidden_states] == [(batch, length, 32)] * 4
        assert [tuple(state.shape) for state in outputs.decoder_hidden_states] == [(batch, 3, 32)] * 3
        assert [tuple(weights.shape) for weights in outputs.encoder_attentions] == [(batch, 4, length, length)] * 3
        assert [tuple(weights.shape) for weights in outputs.decoder_attentions] == [(batch, 4, 3, 3)] * 2
        assert [tuple(weights.shape) for weights in outputs.cross_attentions] == [(batch, 4, 3, length)] * 2
        close(outputs.encoder_last_hidden_state, outputs.encoder_hidden_states[-1])
    else:
        assert [tuple(state.shape) for state in outputs.hidden_states] == [(batch, length, 32)] * 3
        assert [tuple(weights.shape) for weights in outputs.attentions] == [(batch, 2, length, length)] * 2


@torch.no_grad()
def test_video_features(model):
    model.set_attn_implementation("eager")
    outputs = model.get_video_features(
        clips_of(3, num_frames=4), output_hidden_states=True, output_attentions=True, return_dict=True
    )
    assert outputs.pooler_output.shape == (3, NUM_QUERIES, 32)
    assert outputs.last_hidden_state.shape == (3, 4 * TOKENS_PER_FRAME, 32)
    assert outputs.vision_outputs.last_hidden_state.shape == (12, TOKENS_PER_FRAME, 32)
    assert outputs.qformer_outputs.last_hidden_state.shape == (3, NUM_QUERIES, 32)
    assert len(outputs.vision_outputs.hidden_states) == 3
    assert [tuple(w.shape) for w in outputs.vision_outputs.attentions] == [(12, 2, 5, 5)] * 2
    assert [tuple(w.shape) for w in outputs.qformer_outputs.cross_attentions] == [(3, 2, NUM_QUERIES, 20)]
    one_by_one = [model.get_video_features(clip.unsqueeze(0)).pooler_output for clip in clips_of(3, num_frames=4)]
    close(torch.cat(one_by_one), outputs.pooler_output)


@torch.no_grad()
def test_video_features_in_place_of_pixel_values(model):
    inputs = decoded(model, inputs_of(model))
    expected = model(**inputs)
    pixel_values = inputs.pop("pixel_values")
    features = model.get_video_features(pixel_values)
    close(expected.video_hidden_states, features.pooler_output)
    outputs = model(**inputs, mm_encoder_outputs={"video": features})
    close(outputs.logits, expected.logits)
    close(outputs.video_hidden_states, features.pooler_output)
    stored = torch.zeros(3, 2, TOKENS_PER_FRAME, 32)
    for twice in (
        {"mm_encoder_outputs": {"video": features}, "pixel_values": pixel_values},
        {"mm_encoder_outputs": {"video": features}, "vision_hidden_states": stored},
        {"pixel_values": pixel_values, "vision_hidden_states": stored},
    ):
        with pytest.raises(ValueError, match="not both"):
            model(**inputs, **twice)
    with pytest.raises(ValueError, match="Give either"):
        model.get_video_features()


@torch.no_grad()
def test_embeddings_in_place_of_tokens(model):
    inputs = decoded(model, inputs_of(model))
    expected = model(**inputs).logits
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    close(model(inputs_embeds=embeds, **inputs).logits, expected)


@torch.no_grad()
def test_frames_of_another_size(model):
    larger = torch.randn(1, 2, 3, 42, 42)
    features = model.get_video_features(larger, interpolate_pos_encoding=True)
    assert features.last_hidden_state.shape == (1, 2 * 10, 32)
    inputs = decoded(model, {**inputs_of(model, [1]), "pixel_values": larger})
    outputs = model(**inputs, interpolate_pos_encoding=True)
    close(outputs.video_hidden_states, features.pooler_output)


# Equalities


@torch.no_grad()
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_batch_equals_single(model, padding_side, attn_implementation):
    model.set_attn_implementation(attn_implementation)
    batch = decoded(model, inputs_of(model, padding_side=padding_side))
    logits = model(**batch).logits
    for i in range(3):
        expected = model(**decoded(model, inputs_of(model, [i]))).logits[0]
        actual = logits[i] if model.config.is_encoder_decoder else logits[i][batch["attention_mask"][i].bool()]
        close(actual, expected)


@torch.no_grad()
def test_eager_equals_sdpa(model):
    inputs = decoded(model, inputs_of(model))
    inputs["frame_mask"] = torch.tensor([[True, True], [True, False], [True, True]])
    real = ... if model.config.is_encoder_decoder else inputs["attention_mask"].bool()
    assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")} == {"sdpa"}
    sdpa = model(**inputs)
    model.set_attn_implementation("eager")
    eager = model(**inputs)
    close(eager.video_hidden_states, sdpa.video_hidden_states)
    close(eager.logits[real], sdpa.logits[real])


@torch.no_grad()
@pytest.mark.parametrize("make_cache", [lambda model: None, lambda model: StaticCache(model.config, max_cache_len=32)])
def test_decoding_step_by_step_equals_one_pass(make_cache):
    model = tiny_model("opt")
    inputs = inputs_of(model, [0, 1])
    new = torch.tensor([[60, 61, 62], [63, 64, 65]])
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(new)], dim=1)
    ids = torch.cat([inputs["input_ids"], new], dim=1)
    expected = model(input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"]).logits
    outputs = model(**inputs, past_key_values=make_cache(model), use_cache=True)
    close(outputs.logits[:, -1], expected[:, -4])
    for step in range(3):
        outputs = model(
            input_ids=new[:, step : step + 1],
            attention_mask=mask[:, : mask.shape[1] - 2 + step],
            past_key_values=outputs.past_key_values,
            use_cache=True,
        )
        assert outputs.video_hidden_states is None
        close(outputs.logits[:, 0], expected[:, -3 + step])


@torch.no_grad()
def test_decoding_step_by_step_equals_one_pass_with_an_encoder():
    model = tiny_model("flan-t5")
    inputs = inputs_of(model)
    decoder_ids = torch.tensor([[0, 60, 61, 62]] * 3)
    full = model(**inputs, decoder_input_ids=decoder_ids)
    encoder_outputs, cache = (full.encoder_last_hidden_state,), None
    for step in range(4):
        outputs = model(
            encoder_outputs=encoder_outputs,
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=decoder_ids[:, step : step + 1],
            past_key_values=cache,
            use_cache=True,
        )
        cache = outputs.past_key_values
        close(outputs.logits[:, 0], full.logits[:, step])


@torch.no_grad()
def test_masked_frames_do_not_count(model):
    clips = clips_of(2, num_frames=5)
    short = clips[:1, :3]
    clips[0, 3:] = 100 * torch.randn(2, 3, 28, 28)
    frame_mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    masked = model.get_video_features(clips, frame_mask=frame_mask).pooler_output
    close(masked[:1], model.get_video_features(short).pooler_output)
    close(masked[1:], model.get_video_features(clips[1:]).pooler_output)
    inputs = decoded(model, inputs_of(model, [0]))
    close(model(**{**inputs, "pixel_values": clips}, frame_mask=frame_mask).video_hidden_states, masked)


@torch.no_grad()
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_positions_are_those_of_the_tokens_that_are_no_padding(padding_side):
    model = tiny_model("opt")
    inputs = inputs_of(model, padding_side=padding_side)
    real = inputs["attention_mask"].bool()
    position_ids = (inputs["attention_mask"].cumsum(-1) - 1).masked_fill(~real, 0)
    logits = model(**inputs).logits
    close(model(**inputs, position_ids=position_ids).logits[real], logits[real])
    assert (model(**inputs, position_ids=position_ids * 2).logits[real] - logits[real]).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("keep", [1, 2, torch.tensor([0, 2])])
def test_logits_to_keep(model, keep):
    inputs = decoded(model, inputs_of(model))
    logits = model(**inputs).logits
    expected = logits[:, -keep:] if isinstance(keep, int) else logits[:, keep]
    close(model(**inputs, logits_to_keep=keep).logits, expected)


# Training


@torch.no_grad()
def test_loss_is_the_mean_over_the_targets_or_over_num_items_in_batch(model):
    inputs = training_inputs_of(model)
    outputs = model(**inputs)
    log_probs = outputs.logits.log_softmax(-1)
    tokens = []
    for row, target in enumerate(TARGETS):
        start = 0 if model.config.is_encoder_decoder else len(TEXTS[row]) - 1
        tokens += [(row, start + i, token) for i, token in enumerate(target)]
    total = -sum(log_probs[token] for token in tokens)
    close(outputs.loss, total / 6)
    close(model(**inputs, num_items_in_batch=24).loss, total / 24)
    close(model(**inputs, num_items_in_batch=torch.tensor(24)).loss, total / 24)


def test_accumulated_gradients_equal_those_of_one_batch(model):
    loss, expected = gradients(model, **training_inputs_of(model))
    assert not expected["query_tokens"].isnan().any() and expected["query_tokens"].abs().max() > 0
    assert {name.split(".")[0] for name in expected} == {
        "vision_model",
        "query_tokens",
        "qformer",
        "language_projection",
        "language_model",
    }
    model.zero_grad()
    losses = []
    for which in ([0, 2], [1]):
        part = model(**training_inputs_of(model, which), num_items_in_batch=6).loss
        part.backward()
        losses.append(part.detach())
    close(sum(losses), loss)
    close_gradients({n: w.grad for n, w in model.named_parameters() if w.grad is not None}, expected)


def count_layer_calls(model):
    """How often each part's layers are run, by the part's name."""
    counts = {}

    def count(name):
        def hook(*_):
            counts[name] = counts.get(name, 0) + 1

        return hook

    model.vision_model.encoder.layers[0].mlp.register_forward_pre_hook(count("vision"))
    model.qformer.encoder.layer[0].attention.register_forward_pre_hook(count("qformer"))
    language_model = model.language_model
    if model.config.is_encoder_decoder:
        language_model.encoder.block[0].layer[0].register_forward_pre_hook(count("text encoder"))
        language_model.decoder.block[0].layer[0].register_forward_pre_hook(count("text decoder"))
    else:
        language_model.model.decoder.layers[0].self_attn.register_forward_pre_hook(count("text"))
    return counts


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(model, use_reentrant):
    inputs = training_inputs_of(model)
    model.train()
    loss, expected = gradients(model, **inputs)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    counts = count_layer_calls(model)
    checkpointed_loss, actual = gradients(model, **inputs)
    close(checkpointed_loss, loss)
    close_gradients(actual, expected)
    assert set(counts.values()) == {2}, "every part is run again for its gradients"


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_with_frozen_parts(model, use_reentrant):
    """As EILEV trains: the vision model and the language model are frozen."""
    inputs = training_inputs_of(model)
    model.train()
    model.vision_model.requires_grad_(False)
    model.language_model.requires_grad_(False)
    _, expected = gradients(model, **inputs)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    close_gradients(gradients(model, **inputs)[1], expected)
    model.gradient_checkpointing_disable()
    model.disable_input_require_grads()
    close_gradients(gradients(model, **inputs)[1], expected)


# Errors


@torch.no_grad()
@pytest.mark.parametrize(
    ("which", "changes", "message"),
    [
        ([2], {"pixel_values": clips_of(1)}, "0 `<video>` tokens.*3 features"),
        ([1], {"pixel_values": None}, "3 `<video>` tokens.*no `pixel_values`"),
        ([0], {"pixel_values": clips_of(3)}, "6 `<video>` tokens.*9 features"),
        ([0], {"pixel_values": clips_of(1)}, "6 `<video>` tokens.*3 features"),
        ([1], {"pixel_values": clips_of(1)[0]}, r"\(2, 3, 28, 28\)"),
        ([1], {"pixel_values": clips_of(1)[:, :, :1]}, r"\(1, 2, 1, 28, 28\)"),
        ([1], {"pixel_values": clips_of(1).movedim(2, -1)}, r"\(1, 2, 28, 28, 3\)"),
        ([1], {"pixel_values": clips_of(1).to(torch.uint8)}, "uint8.*not normalized"),
        ([1], {"pixel_values": None, "vision_hidden_states": torch.zeros(1, 10, 32)}, r"\(1, 10, 32\)"),
        ([1], {"pixel_values": None, "vision_hidden_states": torch.zeros(1, 2, 5, 31)}, r", 32\).*\(1, 2, 5, 31\)"),
        ([0], {"pixel_values": None, "vision_hidden_states": torch.zeros(1, 2, 5, 32)}, "6 `<video>`.*3 features"),
    ],
)
def test_texts_and_clips_that_do_not_match(model, which, changes, message):
    inputs = decoded(model, {**inputs_of(model, which), **changes})
    with pytest.raises(ValueError, match=message):
        model(**inputs)
    inputs.pop("decoder_input_ids", None)
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs, max_new_tokens=2)
    with pytest.raises(ValueError, match="`<video>` tokens|of shape|uint8"):
        model.generate(**inputs, max_new_tokens=2, num_beams=2)


@torch.no_grad()
def test_a_processor_with_another_number_of_query_tokens(model):
    ids = torch.tensor([[2, *[VIDEO] * (NUM_QUERIES + 1), 10]])
    inputs = decoded(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    with pytest.raises(ValueError, match="4 `<video>` tokens.*3 features.*3 each"):
        model(**inputs, pixel_values=clips_of(1))


@torch.no_grad()
def test_no_video_token(model):
    model.config.video_token_id = None
    model(**decoded(model, inputs_of(model, [2])))
    with pytest.raises(ValueError, match="video_token_id"):
        model(**decoded(model, inputs_of(model, [1])))


@torch.no_grad()
def test_video_token_zero(model):
    """The first row is a token like any other."""
    model.config.video_token_id = 0
    ids = torch.tensor([[2, 0, 0, 0, 10]])
    inputs = decoded(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    with pytest.raises(ValueError, match="3 `<video>` tokens"):
        model(**inputs)


@pytest.mark.parametrize("video_token_id", [-1, VOCAB_SIZE, 50265])
def test_video_token_that_is_no_row(video_token_id):
    with pytest.raises(ValueError, match=f"{video_token_id}.*{VOCAB_SIZE}"):
        tiny_config("opt", video_token_id=video_token_id)


# Changes of the model


@pytest.mark.parametrize("family", ["opt", "opt-untied", "flan-t5", "t5"])
def test_resized_embedding(family, tmp_path):
    model = tiny_model(family)
    inputs = decoded(model, inputs_of(model))
    with torch.no_grad():
        before = model(**inputs).logits
    model.resize_token_embeddings(VOCAB_SIZE + 28)
    assert model.config.text_config.vocab_size == model.language_model.config.vocab_size == VOCAB_SIZE + 28
    assert model.get_output_embeddings().weight.shape == model.get_input_embeddings().weight.shape == (128, 32)
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert is_tied == (family in ("opt", "t5"))
    with torch.no_grad():
        logits = model(**inputs).logits
    close(logits[..., :VOCAB_SIZE], before)
    assert torch.isfinite(model(**training_inputs_of(model)).loss)
    generated = model.generate(**inputs_of(model), max_new_tokens=3)
    model.save_pretrained(tmp_path)
    loaded = VideoBlip2ForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, logits)
    assert torch.equal(loaded.generate(**inputs_of(model), max_new_tokens=3), generated)


COMPILE = {"fullgraph": True, "backend": "eager"}


@torch.no_grad()
@pytest.mark.parametrize("which", [[0, 1, 2], [2]])
def test_compiled_forward(model, which):
    """Without a graph break, with clips and without."""
    inputs = decoded(model, inputs_of(model, which))
    expected = model(**inputs, use_cache=False).logits
    torch.compiler.reset()
    close(torch.compile(model, **COMPILE)(**inputs, use_cache=False).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("cache_class", [DynamicCache, StaticCache])
def test_compiled_decoding_step(cache_class):
    model = tiny_model("opt")
    inputs = inputs_of(model, [0, 1])
    cache = (
        DynamicCache(config=model.config.text_config)
        if cache_class is DynamicCache
        else StaticCache(model.config.text_config, max_cache_len=32)
    )
    new = torch.tensor([[60], [61]])
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(new)], dim=1)
    ids = torch.cat([inputs["input_ids"], new], dim=1)
    expected = model(input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"]).logits[:, -1]
    cache = model(**inputs, past_key_values=cache, use_cache=True).past_key_values
    torch.compiler.reset()
    compiled = torch.compile(model, **COMPILE)
    outputs = compiled(input_ids=new, attention_mask=mask, past_key_values=cache, use_cache=True)
    close(outputs.logits[:, 0], expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora(family, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=2,
        target_modules=r"language_model\..*\.(q_proj|v_proj|q|v)|qformer\..*\.(query|value)",
        modules_to_save=["language_projection"],
    )
    torch.manual_seed(3)
    model = peft.get_peft_model(tiny_model(family), config).train()
    inputs = training_inputs_of(model.base_model.model)
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    for part in ("language_model", "qformer", "language_projection"):
        assert any(part in name for name in trainable), part
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    losses = []
    for _ in range(4):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path).eval()
    with torch.no_grad():
        close(loaded(**inputs).logits, logits)
    merged = loaded.merge_and_unload()
    assert type(merged) is VideoBlip2ForConditionalGeneration
    with torch.no_grad():
        close(merged(**inputs).logits, logits, atol=1e-4)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_lora_with_gradient_checkpointing(model, use_reentrant):
    """Every adapter learns, though all around it is frozen."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=2,
        target_modules=r"language_model\..*\.(q_proj|v_proj|q|v)|qformer\..*\.(query|value)",
        init_lora_weights=False,
    )
    inputs = training_inputs_of(model)
    peft_model = peft.get_peft_model(model, config).train()
    _, expected = gradients(peft_model, **inputs)
    assert len(expected) == sum(weight.requires_grad for weight in peft_model.parameters())
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    close_gradients(gradients(peft_model, **inputs)[1], expected)


@torch.no_grad()
def test_loss_function_ignores_padding_labels_alone(model):
    """-100 anywhere in the labels, and nothing else, is not predicted."""
    inputs = training_inputs_of(model, [0])
    logits = model(**inputs).logits[0]
    if not model.config.is_encoder_decoder:
        logits = logits[len(TEXTS[0]) - 1 : -1]
    labels = inputs["labels"].clone()
    labels[0, -2] = -100
    target = torch.tensor(TARGETS[0])
    target[-2] = -100
    if model.config.is_encoder_decoder:
        # The decoder reads padding where there is no label, so its later logits are others.
        inputs["decoder_input_ids"] = torch.tensor([[0, *TARGETS[0][:-1]]])
    close(model(**{**inputs, "labels": labels}).loss, F.cross_entropy(logits, target))
