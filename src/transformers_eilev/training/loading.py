"""The model and the processor that a training starts from, ready to be trained."""

import torch
from transformers import GenerationConfig

from ..adapters import base_of_adapter
from ..checkpoint_types import check_architecture
from ..embedded_checkpoints import find_checkpoint
from ..legacy_checkpoints import LegacyCheckpoint
from ..modeling_video_blip_2 import VideoBlip2ForConditionalGeneration
from ..processing_video_blip_2 import VideoBlip2Processor
from .arguments import ModelArguments
from .freezing import freeze


def load_model_and_processor(arguments: ModelArguments, *, prompt_layout: str, is_trained: bool = True):
    """
    Loads what a training starts from, freezes what stays as it is, and adds adapters if there shall be some.

    Args:
        arguments ([`ModelArguments`]): which checkpoint, and what of it is trained.
        prompt_layout (`str`): "interleaved" (EILEV) or "prepended" (VideoBLIP), which the trained checkpoint has then.
        is_trained (`bool`): Whether it shall be trained, and not evaluated alone.

    Returns:
        `tuple[PreTrainedModel | PeftModel, VideoBlip2Processor]`: what is trained is float32.

    Raises:
        ValueError: if the checkpoint is one of another architecture, with what it says it is; if it is an adapter
            and shall be trained.
        OSError: if there is no such checkpoint.
    """
    name = find_checkpoint(arguments.model_name_or_path)
    revision = {} if arguments.model_revision is None else {"revision": arguments.model_revision}
    if is_trained and base_of_adapter(name) is not None:
        raise ValueError(
            f"{name} holds an adapter. To train on from it, merge it into its model first, by "
            "examples/training/run_merge_lora.py; to go on with its own run, set `resume_from_checkpoint`"
        )
    check_architecture(name, **revision)
    processor = VideoBlip2Processor.from_pretrained(name, prompt_layout=prompt_layout, **revision)
    options = {"dtype": torch.float32, **revision}
    if arguments.attn_implementation is not None:
        options["attn_implementation"] = arguments.attn_implementation
    if arguments.load_in_8bit or arguments.load_in_4bit:
        from .lora import quantization_config

        options["quantization_config"] = quantization_config(
            load_in_8bit=arguments.load_in_8bit, load_in_4bit=arguments.load_in_4bit
        )
    model = VideoBlip2ForConditionalGeneration.from_pretrained(name, **options)
    if is_trained and hasattr(model.config, "notice"):
        del model.config.notice  # it was said of what the model learned before
    _agree(model, processor, arguments.num_subsample_frames)
    frozen_dtype = None if arguments.frozen_dtype is None else getattr(torch, arguments.frozen_dtype)
    freeze(model, frozen_dtype=frozen_dtype, frozen_dropout=arguments.frozen_dropout)
    if not arguments.use_lora:
        return model, processor
    from .lora import add_lora

    model = add_lora(
        model,
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules,
    )
    return model, processor


def _agree(model, processor, num_frames: int):
    """Makes model and processor say the same, and what the trained checkpoint shall say."""
    if processor.num_query_tokens != model.config.num_query_tokens:
        raise ValueError(
            f"The processor gives a clip {processor.num_query_tokens} tokens, the model "
            f"{model.config.num_query_tokens}: they are not of one checkpoint"
        )
    model.config.video_token_id = processor.video_token_id
    settings = {"num_frames": num_frames, "fps": None, "start": 0.0, "end": 8.0}
    for name, value in settings.items():
        setattr(processor.video_processor, name, value)

    tokenizer, is_decoder_only = processor.tokenizer, processor.is_decoder_only
    # BLIP-2's OPT says that a newline ends a text, which is so where a model generates; what it learns ends by this.
    model.config.text_config.eos_token_id = tokenizer.eos_token_id
    defaults = LegacyCheckpoint(
        is_video_blip=True,
        prompt_layout=processor.prompt_layout,
        is_decoder_only=is_decoder_only,
        num_query_tokens=processor.num_query_tokens,
        video_token_id=processor.video_token_id,
        newline_token_id=tokenizer.convert_tokens_to_ids("Ċ") if is_decoder_only else None,
    ).generation_defaults
    model.generation_config = GenerationConfig(
        **{
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "decoder_start_token_id": model.config.text_config.decoder_start_token_id if not is_decoder_only else None,
            **defaults,
        }
    )


__all__ = ["load_model_and_processor"]
