"""Small random models, and texts with clips for them."""

import torch
from transformers import OPTConfig, T5Config

from transformers_eilev import VideoBlip2Config, VideoBlip2ForConditionalGeneration


FAMILIES = ["opt", "flan-t5"]
VOCAB_SIZE = 100
VIDEO = 96
NUM_QUERIES = 3
TOKENS_PER_FRAME = 5
CLIP = [VIDEO] * NUM_QUERIES
# Texts of unequal lengths with two clips, one and none.
TEXTS = [[2, *CLIP, 10, 11, *CLIP, 12], [2, 20, *CLIP, 21], [2, 30, 31]]
NUM_CLIPS = [2, 1, 0]
TARGETS = [[40, 41, 42], [43, 44], [45]]


def tiny_config(family, text=None, **kwargs):
    """Without dropout, and with weights so large that unequal inputs give unequal outputs."""
    if family.startswith("opt"):
        text_config = OPTConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
            dropout=0.0,
            init_std=0.3,
            **{"tie_word_embeddings": family != "opt-untied", **(text or {})},
        )
    else:
        is_flan = family == "flan-t5"
        text_config = T5Config(
            vocab_size=VOCAB_SIZE,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2 if family == "t5-deep-decoder" else 3,
            num_decoder_layers=4 if family == "t5-deep-decoder" else 2,
            num_heads=4,
            dropout_rate=0.0,
            decoder_start_token_id=0,
            feed_forward_proj="gated-gelu" if is_flan else "relu",
            tie_word_embeddings=not is_flan,
            **(text or {}),
        )
    shared = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return VideoBlip2Config(
        vision_config={**shared, "image_size": 28, "patch_size": 14, "initializer_range": 0.2},
        qformer_config={
            **shared,
            "vocab_size": 20,
            "initializer_range": 0.2,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=text_config,
        initializer_range=0.2,
        **{"num_query_tokens": NUM_QUERIES, "video_token_id": VIDEO, **kwargs},
    )


def tiny_model(family, seed=0, **kwargs):
    torch.manual_seed(seed)
    return VideoBlip2ForConditionalGeneration(tiny_config(family, **kwargs)).eval()


def clips_of(num_clips, num_frames=2, seed=1):
    return torch.randn(num_clips, num_frames, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


def batch_of(model, texts, padding_side="left"):
    length = max(map(len, texts))
    pads = [[model.config.text_config.pad_token_id] * (length - len(text)) for text in texts]
    rows = [pad + text if padding_side == "left" else text + pad for pad, text in zip(pads, texts)]
    masks = [[0] * len(pad) + [1] * len(text) for pad, text in zip(pads, texts)]
    if padding_side == "right":
        masks = [mask[::-1] for mask in masks]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def inputs_of(model, which=(0, 1, 2), padding_side="left", num_frames=2):
    """Some of `TEXTS` with their clips, which are the same whatever is chosen."""
    owner = [text for text, num_clips in enumerate(NUM_CLIPS) for _ in range(num_clips)]
    clips = clips_of(sum(NUM_CLIPS), num_frames)[[i for i, text in enumerate(owner) if text in which]]
    inputs = batch_of(model, [TEXTS[i] for i in which], padding_side)
    return {**inputs, "pixel_values": clips} if len(clips) else inputs


def training_inputs_of(model, which=(0, 1, 2)):
    """The same with labels: the targets after the texts, or apart from them for an encoder-decoder."""
    inputs = inputs_of(model, which, padding_side="right")
    length = max(len(TARGETS[i]) for i in which)
    if model.config.is_encoder_decoder:
        return {**inputs, "labels": torch.tensor([TARGETS[i] + [-100] * (length - len(TARGETS[i])) for i in which])}
    inputs.update(batch_of(model, [TEXTS[i] + TARGETS[i] for i in which], "right"))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for row, i in zip(labels, which):
        row[: len(TEXTS[i])] = -100
    return {**inputs, "labels": labels}


def decoded(model, inputs, decoder_input_ids=((0, 50, 51),)):
    """`inputs` for a call that needs no labels: an encoder-decoder gets something to decode."""
    if not model.config.is_encoder_decoder:
        return inputs
    return {**inputs, "decoder_input_ids": torch.tensor(decoder_input_ids).expand(len(inputs["attention_mask"]), -1)}
