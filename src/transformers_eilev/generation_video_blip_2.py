"""How `generate` treats the clips of a text; all else is transformers' own."""

import torch
from transformers import GenerationConfig, GenerationMixin, RepetitionPenaltyLogitsProcessor

from .legacy_checkpoints import read_legacy_checkpoint
from .read_prompts import check_length
from .shared_prefix import SharedPrefixCache


class VideoBlip2GenerationMixin(GenerationMixin):
    """
    `generate` for texts with clips.

    The clips are encoded once, before the text is read (transformers' `mm_encoder_outputs`), and handed to every beam.
    """

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor, model_kwargs, model_input_name, generation_config
    ):
        """The text encoder of an encoder-decoder language model reads the clips too, so they are merged before it."""
        if model_kwargs.get("pixel_values") is None:
            model_kwargs.pop("pixel_values", None)
        if model_kwargs.get("vision_hidden_states") is None:
            model_kwargs.pop("vision_hidden_states", None)
        else:
            model_kwargs = self._encode_vision_hidden_states(model_kwargs)
        if not self.config.is_encoder_decoder or model_kwargs.get("encoder_outputs") is not None:
            return super()._maybe_prepare_encoder_kwargs_for_generation(
                inputs_tensor, model_kwargs, model_input_name, generation_config
            )
        model_kwargs = self._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)
        # They stay among the arguments for a model that drafts: it is given the same.
        video_outputs = (model_kwargs.get("mm_encoder_outputs") or {}).get("video")
        inputs_embeds = self._embed(
            inputs_tensor if model_input_name == "input_ids" else None,
            inputs_tensor if model_input_name == "inputs_embeds" else None,
            None if video_outputs is None else video_outputs.pooler_output,
            starts_text=True,
        )
        model_kwargs.pop("inputs_embeds", None)
        return self._prepare_text_encoder_decoder_kwargs_for_generation(
            inputs_embeds, model_kwargs, "inputs_embeds", generation_config
        )

    def _encode_vision_hidden_states(self, model_kwargs):
        """As transformers does with `pixel_values`, the only name that it knows."""
        if (model_kwargs.get("mm_encoder_outputs") or {}).get("video") is not None:
            raise ValueError("Give either `vision_hidden_states` or `mm_encoder_outputs`, not both")
        model_kwargs = dict(model_kwargs)
        names = ("vision_hidden_states", "pixel_values", "frame_mask")
        video_outputs = self.get_video_features(
            **{name: model_kwargs.pop(name) for name in names if name in model_kwargs}, return_dict=True
        )
        return {**model_kwargs, "mm_encoder_outputs": {"video": video_outputs}}

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs):
        """
        Every beam gets the clips of its text; an encoder-decoder's encoder has read them already.

        Transformers' own drops clips that the text has no place for, and writes into the features it was given.
        """
        repeated = {}
        if expand_size > 1:
            cache = model_kwargs.get("past_key_values")
            if isinstance(cache, SharedPrefixCache):
                cache.batch_repeat_interleave(expand_size)  # what is each row's own; the prefix they share
            video_outputs = (model_kwargs.pop("mm_encoder_outputs", None) or {}).get("video")
            if video_outputs is not None and not is_encoder_decoder:
                is_embedded = input_ids.shape[1] == 0
                mask = self.get_placeholder_mask(None if is_embedded else input_ids, model_kwargs.get("inputs_embeds"))
                features = self._repeat_clips(video_outputs.pooler_output, mask, cache, expand_size)
                repeated = {"mm_encoder_outputs": {"video": type(video_outputs)(pooler_output=features)}}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, {**model_kwargs, **repeated}

    def _repeat_clips(self, features, mask, cache, expand_size):
        """The features of each text's clips, `expand_size` times, of shape (expand_size * num_videos, ...)."""
        if cache is not None and mask.sum() > features.shape[:-1].numel():
            mask = mask[:, cache.get_seq_length() :]  # the cache has the text's beginning, and the clips in it
        self._check_clips(mask, features)
        num_tokens, num_queries = mask.sum(-1), self.config.num_query_tokens
        if (num_tokens % num_queries).any():
            raise ValueError(
                f"The texts have {num_tokens.tolist()} `<video>` tokens, but every clip has {num_queries} of them"
            )
        clips_of_texts = features.split((num_tokens // num_queries).tolist())
        return torch.cat([clips.repeat(expand_size, 1, 1) for clips in clips_of_texts])

    def prepare_inputs_for_generation(
        self,
        input_ids,
        next_sequence_length=None,
        past_key_values=None,
        inputs_embeds=None,
        is_first_iteration=False,
        **kwargs,
    ):
        """A model that drafts for another is never told that it begins, and would go without its clips."""
        if past_key_values is not None and not past_key_values.is_compileable:
            is_first_iteration = is_first_iteration or past_key_values.get_seq_length() == 0
        if isinstance(past_key_values, SharedPrefixCache) and next_sequence_length is None:
            # Decoding with drafts takes it that nothing was read before.
            next_sequence_length = input_ids.shape[1] - past_key_values.get_seq_length()
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )

    def _validate_generated_length(self, generation_config, input_ids_length, has_default_max_length):
        """A text that is longer than the language model can read is told so, and not an index out of range."""
        super()._validate_generated_length(generation_config, input_ids_length, has_default_max_length)
        if not self.config.is_encoder_decoder:
            check_length(self, input_ids_length)

    def _get_logits_processor(self, generation_config, input_ids_seq_length=None, **kwargs):
        """
        A penalty for repeating counts what is generated alone, as in the original, which generated from embeddings: a
        narration shall use the words of the question and of the demonstrations.
        """
        processors = super()._get_logits_processor(generation_config, input_ids_seq_length, **kwargs)
        for processor in processors:
            if isinstance(processor, RepetitionPenaltyLogitsProcessor) and not self.config.is_encoder_decoder:
                processor.prompt_ignore_length = input_ids_seq_length
        return processors

    def _prepare_generation_config(self, generation_config, **kwargs):
        """`<video>` is never generated: nothing could stand for it, and drafts of assisted decoding keep off it."""
        generation_config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        if self.config.video_token_id is not None:
            suppressed = set(generation_config.suppress_tokens or ())
            generation_config.suppress_tokens = sorted(suppressed | {self.config.video_token_id})
        return generation_config, model_kwargs

    def adjust_generation_fn(self, generation_config, from_auto, from_pipeline, name_or_path, **kwargs):
        """A legacy checkpoint says nothing of how it generates: it does as its authors' sample scripts do."""
        super().adjust_generation_fn(generation_config, from_auto, from_pipeline, name_or_path, **kwargs)
        if generation_config is not None or name_or_path is None:
            return
        legacy = read_legacy_checkpoint(name_or_path, **kwargs)
        if legacy is not None and self.config.video_token_id is None:
            # AutoConfig knows a folder's name, but not a subfolder or another cache; here all of that is known.
            self.config.video_token_id = legacy.video_token_id
        if legacy is not None and legacy.is_video_blip:
            # Only the special tokens of what was found: old files also list that time's default of every setting.
            names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
            special_tokens = {name: getattr(self.generation_config, name) for name in names}
            self.generation_config = GenerationConfig(**{**special_tokens, **legacy.generation_defaults})


__all__ = ["VideoBlip2GenerationMixin"]
