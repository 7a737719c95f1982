"""The model: ViT, Q-Former and language model of the same classes as EILEV's, a thousandth of their size."""

from transformers import OPTConfig, T5Config

from transformers_eilev import VideoBlip2Config, VideoBlip2Processor

from .tokenizer import IMAGE_SIZE, NUM_QUERY_TOKENS


WIDTH = 128
_LAYER = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4, "initializer_range": 0.02}


def build_config(family: str, processor: VideoBlip2Processor) -> VideoBlip2Config:
    """
    Args:
        family (`str`): "opt" or "t5".
        processor ([`VideoBlip2Processor`]): whose tokens the language model reads.
    """
    tokenizer = processor.tokenizer
    shared = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if family == "opt":
        text_config = OPTConfig(
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            ffn_dim=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            dropout=0.0,
            init_std=WIDTH**-0.5,
            **shared,
        )
    else:
        text_config = T5Config(
            d_model=WIDTH,
            d_kv=32,
            d_ff=2 * WIDTH,
            num_layers=3,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=tokenizer.pad_token_id,
            relative_attention_max_distance=256,
            **shared,
        )
    return VideoBlip2Config(
        vision_config={**_LAYER, "num_hidden_layers": 3, "image_size": IMAGE_SIZE, "patch_size": 8},
        qformer_config={
            **_LAYER,
            "num_hidden_layers": 2,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": WIDTH,
            # It has no words of its own.
            "vocab_size": 1,
            "max_position_embeddings": 1,
            "use_qformer_text_input": False,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=text_config,
        num_query_tokens=NUM_QUERY_TOKENS,
        video_token_id=processor.video_token_id,
    )
