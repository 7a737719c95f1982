"""How likely each of many continuations of one prompt is, for decoder-only and encoder-decoder language models."""

import copy

import torch


def score_continuations(model, inputs, class_input_ids, class_attention_mask=None, class_batch_size=None):
    """
    The mean log-likelihood of each continuation's tokens; what `VideoBlip2ForConditionalGeneration.classify` returns.

    The prompt is read once. Its key-value cache (or the text encoder's output) is repeated for `class_batch_size`
    continuations at a time, so that memory is bounded.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]): the model to score with.
        inputs (`dict`): `input_ids`, `attention_mask`, `pixel_values` and `frame_mask` of a batch of prompts.
        class_input_ids (`torch.LongTensor` of shape `(num_classes, class_length)`): padded on the right.
        class_attention_mask (`torch.LongTensor` of shape `(num_classes, class_length)`, *optional*): 0 for padding; by
            default where the padding token stands at the end.
        class_batch_size (`int`, *optional*): continuations at a time; all if `None`.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_classes)`.
    """
    device = inputs["input_ids"].device
    class_input_ids = class_input_ids.to(device)
    if class_attention_mask is None:
        # A padding token that no other token follows.
        is_token = class_input_ids != model.config.text_config.pad_token_id
        class_attention_mask = is_token.flip(1).cummax(1).values.flip(1).long()
    class_attention_mask = class_attention_mask.to(device)
    _check_classes(class_input_ids, class_attention_mask)
    if class_batch_size is not None and class_batch_size < 1:
        raise ValueError(f"`class_batch_size` must be at least 1, but is {class_batch_size}")

    score = _score_decoded if model.config.is_encoder_decoder else _score_continued
    read = _read_with_encoder if model.config.is_encoder_decoder else _read_with_cache
    prompt = read(model, inputs)
    chunk = class_batch_size or len(class_input_ids)
    return torch.cat(
        [
            score(model, prompt, ids, mask)
            for ids, mask in zip(class_input_ids.split(chunk), class_attention_mask.split(chunk))
        ],
        dim=1,
    )


def _check_classes(input_ids, attention_mask):
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
        raise ValueError(
            "`class_input_ids` and `class_attention_mask` must both be of shape (num_classes, class_length), but are "
            f"of shapes {tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
        )
    lengths = attention_mask.sum(-1)
    if (empty := (lengths == 0).nonzero().flatten().tolist()) or not input_ids.numel():
        raise ValueError(f"Every class needs at least one token; those at {empty} have none")
    left = (attention_mask.cumprod(-1).sum(-1) != lengths).nonzero().flatten().tolist()
    if left:
        raise ValueError(f"Classes are padded on the right; those at {left} are not")


def _read_with_cache(model, inputs):
    """Log-probabilities after the prompt, of shape (batch_size, vocab_size), and the cache to go on from."""
    input_ids = inputs["input_ids"]
    attention_mask = inputs["attention_mask"]
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    # Padding to the left, so that every row ends with its last token and continues after it.
    order = attention_mask.argsort(dim=1, stable=True)
    attention_mask = attention_mask.gather(1, order)
    outputs = model(
        **{**inputs, "input_ids": input_ids.gather(1, order), "attention_mask": attention_mask},
        use_cache=True,
        logits_to_keep=1,
    )
    return outputs.logits[:, -1].float().log_softmax(-1), outputs.past_key_values, attention_mask


def _score_continued(model, prompt, class_input_ids, class_attention_mask):
    first_log_probs, cache, attention_mask = prompt
    batch_size, num_classes = len(attention_mask), len(class_input_ids)
    # (batch_size, num_classes)
    log_likelihoods = first_log_probs[:, class_input_ids[:, 0]].unsqueeze(-1)
    if class_input_ids.shape[1] > 1:
        cache = copy.deepcopy(cache)
        cache.batch_repeat_interleave(num_classes)
        prompt_mask = attention_mask.repeat_interleave(num_classes, dim=0)
        ids = class_input_ids.repeat(batch_size, 1)
        mask = class_attention_mask.repeat(batch_size, 1)
        offsets = torch.arange(ids.shape[1] - 1, device=ids.device)
        outputs = model(
            input_ids=ids[:, :-1],
            attention_mask=torch.cat([prompt_mask, mask[:, :-1]], dim=1),
            position_ids=prompt_mask.sum(-1, keepdim=True) + offsets,
            past_key_values=cache,
            use_cache=True,
        )
        # (batch_size * num_classes, class_length - 1) -> (batch_size, num_classes, class_length - 1)
        rest = _token_log_likelihoods(outputs.logits, ids[:, 1:]).view(batch_size, num_classes, -1)
        log_likelihoods = torch.cat([log_likelihoods, rest], dim=-1)
    return _mean(log_likelihoods, class_attention_mask)


def _read_with_encoder(model, inputs):
    """The text encoder's output, the clips merged into its input."""
    attention_mask = inputs["attention_mask"]
    if attention_mask is None:
        attention_mask = torch.ones_like(inputs["input_ids"])
    start = torch.full_like(inputs["input_ids"][:, :1], model.config.text_config.decoder_start_token_id)
    outputs = model(**{**inputs, "attention_mask": attention_mask}, decoder_input_ids=start, use_cache=False)
    return outputs.encoder_last_hidden_state, attention_mask


def _score_decoded(model, prompt, class_input_ids, class_attention_mask):
    hidden_states, attention_mask = prompt
    batch_size, num_classes = len(attention_mask), len(class_input_ids)
    ids = class_input_ids.repeat(batch_size, 1)
    outputs = model(
        encoder_outputs=(hidden_states.repeat_interleave(num_classes, dim=0),),
        attention_mask=attention_mask.repeat_interleave(num_classes, dim=0),
        decoder_input_ids=model.language_model.prepare_decoder_input_ids_from_labels(ids),
        use_cache=False,
    )
    log_likelihoods = _token_log_likelihoods(outputs.logits, ids).view(batch_size, num_classes, -1)
    return _mean(log_likelihoods, class_attention_mask)


def _token_log_likelihoods(logits, ids):
    return logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _mean(log_likelihoods, attention_mask):
    """(batch_size, num_classes, class_length) -> (batch_size, num_classes), over the tokens that are no padding."""
    return log_likelihoods.masked_fill(attention_mask == 0, 0).sum(-1) / attention_mask.sum(-1)
