"""The model against numbers of the original implementation."""

import pytest
import torch


def ids_of(case, golden, layout):
    """A case's `input_ids` and `attention_mask`, with our token where the original had padding tokens for clips."""
    ids = torch.tensor(case["input_ids"])
    if layout == "interleaved":
        return ids.masked_fill(torch.tensor(case["video_input_mask"]).bool(), golden.model.config.video_token_id)
    clip = torch.full((len(ids), golden.model.config.num_query_tokens), golden.model.config.video_token_id)
    return torch.cat([clip, ids], dim=1)


def mask_of(case, ids):
    return torch.tensor(case["attention_mask"]) if "attention_mask" in case else torch.ones_like(ids)


def labels_of(case):
    return torch.tensor(case["labels"])


def closeness(actual, expected, **tolerances):
    torch.testing.assert_close(actual, expected, rtol=0, **tolerances)


def test_video_features(golden, model):
    with torch.no_grad():
        outputs = model.get_video_features(golden.pixel_values)
    tensors = golden.tensors
    closeness(outputs.last_hidden_state, tensors["features/vision_last_hidden_state"], atol=1e-4)
    pooled = outputs.vision_outputs.pooler_output.unflatten(0, (3, 8))
    closeness(pooled, tensors["features/vision_pooler_output"].view_as(pooled), atol=1e-4)
    closeness(outputs.qformer_outputs.last_hidden_state, tensors["features/qformer_last_hidden_state"], atol=1e-4)
    closeness(outputs.pooler_output, tensors["features/language_projection"], atol=1e-4)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_logits_and_loss(golden, model, attn_implementation):
    model.set_attn_implementation(attn_implementation)
    cases = golden.tables["model_interleaved"]["forward_single"]
    assert len(cases) == 8
    for case in cases:
        ids = ids_of(case, golden, "interleaved")
        with torch.no_grad():
            outputs = model(input_ids=ids, pixel_values=golden.clips(case["video_indices"]), labels=labels_of(case))
        assert outputs.loss.item() == pytest.approx(case["loss"], abs=1e-4), case["name"]
        tail = case.get("logits_tail_len", 0)
        expected = golden.tensors[case.get("logits") or case["logits_tail"]]
        closeness(outputs.logits[:, -tail:], expected, atol=1e-4)
    model.set_attn_implementation("sdpa")


def test_batches(golden, model):
    """Unequal lengths and numbers of clips, padded on either side."""
    for case in golden.tables["model_interleaved"]["forward_batch"]:
        ids, labels = ids_of(case, golden, "interleaved"), labels_of(case)
        if golden.family == "t5":
            # The original pads an encoder-decoder's labels on the left too, and the decoder starts at padding.
            labels = torch.stack([torch.cat([row[row != -100], row[row == -100]]) for row in labels])
        mask = mask_of(case, ids)
        with torch.no_grad():
            outputs = model(
                input_ids=ids, attention_mask=mask, pixel_values=golden.clips(case["video_indices"]), labels=labels
            )
        if golden.family == "opt" or case["padding_side"] == "right":
            assert outputs.loss.item() == pytest.approx(case["loss"], abs=1e-4), case["name"]
        else:
            assert outputs.loss.item() != pytest.approx(case["loss"], abs=1e-2), "the original's fault is gone?"
            right = next(
                other
                for other in golden.tables["model_interleaved"]["forward_batch"]
                if other["name"] == case["name"].replace("left", "right")
            )
            assert outputs.loss.item() == pytest.approx(right["loss"], abs=1e-4), case["name"]
        if golden.family == "opt" and case["name"] == "two_zero/left/None":
            real = mask.bool()
            closeness(outputs.logits[real], golden.tensors[case["logits"]][real], atol=1e-4)


def test_gradients(golden, model):
    expected = golden.tables["model_interleaved"]["gradients"]
    case = next(
        case
        for case in golden.tables["model_interleaved"]["forward_batch"]
        if case["name"] == f"two_zero/{expected['padding_side']}/None"
    )
    ids = ids_of(case, golden, "interleaved")
    outputs = model(
        input_ids=ids,
        attention_mask=mask_of(case, ids),
        pixel_values=golden.clips(case["video_indices"]),
        labels=labels_of(case),
    )
    outputs.loss.backward()
    norms = {name: weight.grad.norm().item() for name, weight in model.named_parameters() if weight.grad is not None}
    # Weights that are tied appear once here, under another name than in the original's list perhaps.
    assert len(norms) >= len(expected["grad_norms"]) - 2
    for name, norm in expected["grad_norms"].items():
        if name in norms:
            assert norms[name] == pytest.approx(norm, rel=1e-4, abs=1e-6), name


def test_train_steps(golden):
    """Q-Former, queries and projection learn, all else is frozen: the original's losses, step by step."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(golden.checkpoint)
    expected = golden.tables["model_interleaved"]["train_steps"]
    for name, weight in model.named_parameters():
        weight.requires_grad = not name.startswith(("vision_model", "language_model"))
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert sorted(trainable) == sorted(expected["trainable"])
    case = next(
        case for case in golden.tables["model_interleaved"]["forward_batch"] if case["name"] == "two_zero/right/None"
    )
    ids = ids_of(case, golden, "interleaved")
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-3, weight_decay=0.01)
    losses = []
    for _ in expected["losses"]:
        outputs = model(
            input_ids=ids,
            attention_mask=mask_of(case, ids),
            pixel_values=golden.clips(case["video_indices"]),
            labels=labels_of(case),
        )
        outputs.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(outputs.loss.item())
    assert losses == pytest.approx(expected["losses"], abs=2e-4)
    closeness(model.query_tokens.data, golden.tensors["train_steps/query_tokens_after"], atol=5e-3)


def text_of(prompts):
    """The blocks of a text, from pairs of a prompt and the number of clips before it."""
    return ["<video>" * num_clips + prompt for prompt, num_clips in prompts]


def texts_of(golden, case, layout):
    if layout == "prepended":
        prompts = case["prompts"] if "prompts" in case else [case["prompt"]]
        return [f"<video>{prompt}" for prompt in prompts]
    prompts = {
        tokens["name"].removesuffix(f"/without_text/q{golden.model.config.num_query_tokens}"): tokens["prompts"]
        for tokens in golden.tables["tokens_interleaved"]
    }
    return [text_of(prompts[name]) for name in case["cases"]]


def inputs_of(golden, case, layout, padding_side):
    processor = getattr(golden, layout)
    inputs = processor.pad(
        [processor.encode(text) for text in texts_of(golden, case, layout)], padding_side=padding_side
    )
    return {**inputs, "pixel_values": golden.clips(case["video_indices"])}


@pytest.mark.parametrize("layout", ["interleaved", "prepended"])
@pytest.mark.parametrize("kind", ["greedy", "beam", "sample_script"])
def test_generate(golden, layout, kind):
    # The original's cases start from transformers' defaults, not from the checkpoint's own.
    eos_token_id = 2 if golden.family == "opt" else 1
    defaults = {"eos_token_id": eos_token_id, "repetition_penalty": 1.0, "length_penalty": 1.0, "do_sample": False}
    num_compared = 0
    for case in golden.tables[f"model_{layout}"]["generate"]:
        side = case.get("padding_side")
        if not case["name"].startswith(kind) or "no_text" in case["name"]:
            continue
        if side == "right" and golden.family == "opt":
            continue  # wrong for a decoder-only model, which goes on after its last token
        if layout == "prepended" and side == "left" and golden.family == "t5":
            continue  # the original puts the padding between clip and text, which changes T5's distances
        inputs = inputs_of(golden, case, layout, padding_side=side or "left")
        new = golden.model.generate(**inputs, **{**defaults, **case["generate_kwargs"]})
        # The original's begin with a token that its OPT never saw, T5's with the decoder's start.
        new = new[:, inputs["input_ids"].shape[1] if golden.family == "opt" else 1 :]
        expected = [row[1:] for row in case["sequences"]]
        eos_token_id = case["generate_kwargs"].get("eos_token_id", defaults["eos_token_id"])
        pad_token_id = golden.model.generation_config.pad_token_id
        ends = (eos_token_id, pad_token_id)
        assert up_to_end(new.tolist(), *ends) == up_to_end(expected, *ends), case["name"]
        num_compared += 1
    assert num_compared >= {"greedy": 6, "beam": 6, "sample_script": 2 if layout == "interleaved" else 0}[kind]


def up_to_end(rows, eos_token_id, pad_token_id):
    """Rows without what fills them up after their end: padding, or ends again (beam search, if padding is token 0)."""
    rows = [row[: row.index(eos_token_id) + 1] if eos_token_id in row else row for row in rows]
    return [row[: max((i + 1 for i, token in enumerate(row) if token != pad_token_id), default=0)] for row in rows]


@pytest.mark.parametrize("class_batch_size", [None, 3, 1])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_classify(golden_opt, class_batch_size, padding_side):
    """The original's, for decoder-only language models."""
    golden = golden_opt
    table = golden.tables["model_interleaved"]
    classes = table["classify_classes"]
    for case in table["classify"]:
        has_mask = case["name"] != "no_class_attention_mask"
        scores = golden.model.classify(
            **inputs_of(golden, case, "interleaved", padding_side=padding_side),
            class_input_ids=torch.tensor(classes["class_input_ids"]),
            class_attention_mask=torch.tensor(classes["class_attention_mask"]) if has_mask else None,
            class_batch_size=class_batch_size,
        )
        if not has_mask:
            # Without a mask the original counts padding as tokens; we know the padding token.
            expected = golden.tensors["classify/classify_verb/None"].view_as(scores)
            fault = golden.tensors[case["log_likelihood_None"]].view_as(scores)
            assert (fault - expected).abs().max() > 1, "the original's fault is gone?"
        else:
            expected = golden.tensors[case[f"log_likelihood_{class_batch_size}"]].view_as(scores)
            assert scores.argmax(-1).tolist() == case["argmax"]
        closeness(scores, expected, atol=1e-4, msg=lambda message, case=case: f"{case['name']}: {message}")


def test_classify_is_the_mean_of_single_likelihoods(golden):
    """Against a plain forward pass for each class, for both kinds of language model."""
    table = golden.tables["model_interleaved"]
    case = next(case for case in table["forward_single"] if case["name"] == "two_shot")
    processor = golden.interleaved
    pixel_values = golden.clips(case["video_indices"])
    prompt = processor.encode(text_of(case["prompts"]))
    classes = [processor._tokenize(text) for text in (" picks up", " drops", " pours the water into the bowl")]
    batch = processor.pad(
        [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in classes], padding_side="right"
    )
    scores = golden.model.classify(
        torch.tensor([prompt["input_ids"]]), batch["input_ids"], batch["attention_mask"], pixel_values=pixel_values
    )
    for ids, score in zip(classes, scores[0]):
        if golden.family == "opt":
            input_ids = torch.tensor([prompt["input_ids"] + ids])
            labels = torch.tensor([[-100] * len(prompt["input_ids"]) + ids])
        else:
            input_ids, labels = torch.tensor([prompt["input_ids"]]), torch.tensor([ids])
        with torch.no_grad():
            loss = golden.model(input_ids=input_ids, pixel_values=pixel_values, labels=labels).loss
        assert score.item() == pytest.approx(-loss.item(), abs=1e-4)


def test_prepended_forward(golden, model):
    """VideoBLIP: the clip before the text and its beginning-of-text token."""
    for case in golden.tables["model_prepended"]["forward"]:
        if case["name"] == "batch_left" and golden.family == "t5":
            continue  # the original puts the padding between clip and text, which changes T5's distances
        text_ids = torch.tensor(case["input_ids"])
        ids = ids_of(case, golden, "prepended")
        text_mask = mask_of(case, text_ids)
        mask = torch.cat([torch.ones_like(ids[:, : -text_ids.shape[1]]), text_mask], dim=1)
        labels = labels_of(case)
        if golden.family == "opt":
            labels = torch.cat([torch.full((len(ids), ids.shape[1] - labels.shape[1]), -100), labels], dim=1)
        with torch.no_grad():
            outputs = model(
                input_ids=ids, attention_mask=mask, pixel_values=golden.clips(case["video_indices"]), labels=labels
            )
        assert outputs.loss.item() == pytest.approx(case["loss"], abs=1e-4), case["name"]
        if case["logits"] in golden.tensors:
            expected = golden.tensors[case["logits"]]
            logits = outputs.logits[:, -expected.shape[1] :]
            real = text_mask.bool() if golden.family == "opt" else labels != -100
            closeness(logits[real], expected[real], atol=1e-4)
        if case.get("logits_without_labels") in golden.tensors:
            closeness(outputs.logits, golden.tensors[case["logits_without_labels"]], atol=1e-4)
