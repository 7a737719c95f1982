"""Random models to measure with: one that fits two cores, one of EILEV's proportions, and one of its full size."""

from pathlib import Path

import torch
from transformers import AutoProcessor, OPTConfig, T5Config

from transformers_eilev import VideoBlip2Config, VideoBlip2ForConditionalGeneration


SHAPES = {
    "yardstick": "vision model and Q-Former of 4 layers and width 128, 112 pixels; language model of 8 x 512",
    "midsize": "vision model of 12 layers and width 512, 112 pixels; language model of 8 x 512; as in EILEV's own, "
    "the vision model costs 13 times the reading of the prompt",
    "full": "EILEV's own",
}
_CHECKPOINTS = Path(__file__).parents[1] / "tests/fixtures/golden"


def make_model(shape: str, video_token_id: int, family: str = "opt") -> VideoBlip2ForConditionalGeneration:
    """A model of random weights, of one of `SHAPES`, with OPT or Flan-T5."""
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    parts = {"vision_config": {}, "qformer_config": {}}
    if shape == "yardstick":
        parts = {"vision_config": {**small, "image_size": 112}, "qformer_config": {**small, "vocab_size": 20}}
        parts["qformer_config"]["encoder_hidden_size"] = 128
    elif shape == "midsize":
        wide = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
        parts = {"vision_config": {**wide, "image_size": 112}, "qformer_config": {**small, "vocab_size": 20}}
        parts["qformer_config"]["encoder_hidden_size"] = 512
    text_config = _opt_config(shape) if family == "opt" else _t5_config(shape)
    config = VideoBlip2Config(**parts, text_config=text_config, num_query_tokens=32, video_token_id=video_token_id)
    torch.manual_seed(0)
    return VideoBlip2ForConditionalGeneration(config).eval()


def make_processor(model_config: VideoBlip2Config | None = None, family: str = "opt"):
    """A processor with a small tokenizer, for the frames of a model."""
    size = 112 if model_config is None else model_config.vision_config.image_size
    return AutoProcessor.from_pretrained(
        _CHECKPOINTS / family / "checkpoint",
        prompt_layout="interleaved",
        num_query_tokens=32,
        size={"height": size, "width": size},
    )


def _opt_config(shape: str) -> OPTConfig:
    if shape == "full":
        return OPTConfig(
            hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=2560
        )
    # As large a part of the whole as OPT-2.7B's.
    vocab_size = 8192 if shape == "midsize" else 50272
    return OPTConfig(
        hidden_size=512,
        ffn_dim=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
        word_embed_proj_dim=512,
        vocab_size=vocab_size,
    )


def _t5_config(shape: str) -> T5Config:
    shared = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    if shape == "full":
        sizes = {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "vocab_size": 32128}
    elif shape == "midsize":  # of OPT's size what Flan-T5-XL's encoder is of OPT-2.7B's
        sizes = {"d_model": 384, "d_kv": 64, "d_ff": 960, "num_layers": 6, "num_heads": 6, "vocab_size": 8192}
    else:
        sizes = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 8, "vocab_size": 32128}
    return T5Config(**sizes, **shared)
