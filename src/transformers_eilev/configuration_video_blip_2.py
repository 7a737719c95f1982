"""Configuration of VideoBLIP-2: BLIP-2 over the frames of video clips."""

import copy

from transformers import Blip2Config

from .legacy_checkpoints import only_hub_kwargs, upgrade_config_dict, without_code_fields


class VideoBlip2Config(Blip2Config):
    r"""
    Configuration of [`VideoBlip2ForConditionalGeneration`]: a [`Blip2Config`] with the token that stands for a clip.

    Everything of [`Blip2Config`] is here, its three parts (`vision_config`, `qformer_config`, `text_config`) too. A
    `config.json` of a plain BLIP-2 checkpoint, or of one published by EILEV's or VideoBLIP's authors, is read as well.

    Args:
        video_token_id (`int`, *optional*):
            Token that holds a clip's place in `input_ids`, `num_query_tokens` times for each clip. It uses a row of
            the embedding that no token of the language model uses (OPT: 50265 of 50272 rows, Flan-T5: 32100 of 32128),
            so that no embedding has to be resized.

    Raises:
        ValueError: if `video_token_id` is not a row of the language model's embedding.

    Example:

    ```python
    >>> from transformers_eilev import VideoBlip2Config

    >>> config = VideoBlip2Config(video_token_id=50265)
    >>> config.num_query_tokens
    32
    ```
    """

    model_type = "video_blip_2"
    # The trainer gathers what the model returns beside the loss; of that only the logits are predictions.
    keys_to_ignore_at_inference = [
        "past_key_values",
        "hidden_states",
        "attentions",
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
        "encoder_last_hidden_state",
        "encoder_hidden_states",
        "encoder_attentions",
        "video_hidden_states",
    ]

    video_token_id: int | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        vocab_size = self.text_config.vocab_size
        if self.video_token_id is not None and not 0 <= self.video_token_id < vocab_size:
            raise ValueError(
                f"`video_token_id` is {self.video_token_id}, which is no row of the language model's embedding "
                f"(`text_config.vocab_size` is {vocab_size})"
            )

    def get_text_config(self, decoder=None, encoder=None):
        """As transformers' own; of T5's decoder, by which `generate` sizes caches, with the decoder's own depth."""
        text_config = super().get_text_config(decoder=decoder, encoder=encoder)
        if decoder and not encoder and text_config.model_type == "t5":
            text_config = copy.deepcopy(text_config)
            text_config.num_layers = text_config.num_decoder_layers
        return text_config

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        hub_kwargs = only_hub_kwargs(kwargs)
        return upgrade_config_dict(config_dict, pretrained_model_name_or_path, **hub_kwargs), unused_kwargs

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        if config_dict.get("model_type") == "blip-2":
            # AutoConfig reads the file by itself and comes here; it leaves the folder's or the model's name.
            config_dict = upgrade_config_dict(config_dict, kwargs.get("name_or_path"))
        if not cls.__module__.startswith("transformers_modules."):
            # Of code beside the weights, `pipeline` would take its own; where this package is, this package's goes.
            config_dict = {key: value for key, value in config_dict.items() if key != "custom_pipelines"}
        return super().from_dict(without_code_fields(config_dict), **kwargs)


__all__ = ["VideoBlip2Config"]
