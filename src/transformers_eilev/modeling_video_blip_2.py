"""VideoBLIP-2: BLIP-2 that reads text in which video clips stand."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, initialization
from transformers.modeling_outputs import CausalLMOutputWithPast, Seq2SeqLMOutput
from transformers.modeling_utils import slice_logits_to_keep

# Not from `transformers`: that registers this package, which would import this module while it is being imported.
from transformers.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.blip_2.modeling_blip_2 import (
    BaseModelOutputWithVisionQformerOutputs,
    Blip2PreTrainedModel,
    Blip2QFormerModel,
    Blip2VisionModel,
)
from transformers.utils import can_return_tuple

from .adapters import base_of_adapter
from .configuration_video_blip_2 import VideoBlip2Config
from .generation_video_blip_2 import VideoBlip2GenerationMixin
from .read_prompts import ReadPrompts, read_prompts
from .shared_prefix import AttentionTurns


@dataclass
class VideoBlip2CausalLMOutputWithPast(CausalLMOutputWithPast):
    r"""
    [`~transformers.modeling_outputs.CausalLMOutputWithPast`] of the language model (OPT), and beside it:

    video_hidden_states (`torch.Tensor` of shape `(num_videos, num_query_tokens, hidden_size)`, *optional*):
        What stands in the text for each clip.
    """

    video_hidden_states: torch.Tensor | None = None


@dataclass
class VideoBlip2Seq2SeqLMOutput(Seq2SeqLMOutput):
    r"""
    [`~transformers.modeling_outputs.Seq2SeqLMOutput`] of the language model (Flan-T5), and beside it:

    video_hidden_states (`torch.Tensor` of shape `(num_videos, num_query_tokens, hidden_size)`, *optional*):
        What stands in the text for each clip.
    """

    video_hidden_states: torch.Tensor | None = None


class VideoBlip2ForConditionalGeneration(Blip2PreTrainedModel, VideoBlip2GenerationMixin):
    r"""
    A language model that reads text with video clips in it (EILEV, https://arxiv.org/abs/2311.17041).

    The frames of a clip go through the vision model one by one; one pass of the Q-Former over the tokens of all of
    them gives `num_query_tokens` features, which, projected, stand in the text in place of the clip's `<video>`
    tokens. Any number of clips may stand anywhere in a text.

    Args:
        config ([`VideoBlip2Config`]): the model's shape; loading no weights.
    """

    config: VideoBlip2Config
    config_class = VideoBlip2Config
    main_input_name = "input_ids"
    input_modalities = ("video", "text")
    _can_compile_fullgraph = True
    # The Q-Former's activations overflow in half precision; the language model may add parts of its own.
    _keep_in_fp32_modules = ["query_tokens", "qformer"]
    _no_split_modules = [*Blip2PreTrainedModel._no_split_modules, "Blip2QFormerLayer"]

    def __init__(self, config: VideoBlip2Config):
        super().__init__(config)
        _use_supported_attention(config)
        self.vision_model = Blip2VisionModel._from_config(config.vision_config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.qformer = Blip2QFormerModel._from_config(config.qformer_config)
        self.language_projection = nn.Linear(config.qformer_config.hidden_size, config.text_config.hidden_size)
        auto_class = AutoModelForCausalLM if config.use_decoder_only_language_model else AutoModelForSeq2SeqLM
        self.language_model = auto_class.from_config(config.text_config)
        if config.text_config.model_type == "t5" and not config.text_config.scale_decoder_outputs:
            _untie_t5_head(self.language_model)
        self.attention_turns = AttentionTurns()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, VideoBlip2ForConditionalGeneration):
            # Not zeros, as transformers' BLIP-2 has it: queries that start equal get equal gradients and stay equal.
            initialization.normal_(module.query_tokens, std=self.config.qformer_config.initializer_range)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As transformers' own, and of a folder with an adapter and the configs of the model that it is for."""
        base = base_of_adapter(pretrained_model_name_or_path)
        if base is not None:
            folder, pretrained_model_name_or_path = pretrained_model_name_or_path, base
            kwargs["adapter_kwargs"] = {**(kwargs.get("adapter_kwargs") or {}), "_adapter_model_path": str(folder)}
            for name, config_class in (("config", cls.config_class), ("generation_config", GenerationConfig)):
                if kwargs.get(name) is None:
                    kwargs[name] = config_class.from_pretrained(folder)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @property
    def dtype(self):
        """Not the first parameter's: `query_tokens` stay in fp32, and what is saved would be loaded as fp32."""
        return self.language_model.dtype

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings):
        self.language_model.set_output_embeddings(new_embeddings)

    def get_encoder(self, modality=None):
        return self.vision_model if modality in ("image", "video") else self.language_model.get_encoder()

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        frame_mask: torch.BoolTensor | None = None,
        interpolate_pos_encoding: bool = False,
        vision_hidden_states: torch.FloatTensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithVisionQformerOutputs:
        r"""
        The features that stand in the text for each clip.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(num_videos, num_frames, 3, height, width)`, *optional*):
                Frames of each clip, as the video processor returns them.
            frame_mask (`torch.BoolTensor` of shape `(num_videos, num_frames)`, *optional*):
                False where a clip has fewer frames than the longest and its frames are filled up.
            interpolate_pos_encoding (`bool`): For frames of another size than the vision model was trained on.
            vision_hidden_states (`torch.FloatTensor` of shape `(num_videos, num_frames, tokens_per_frame,
            vision_hidden_size)`, *optional*):
                What the vision model made of each frame before, in any floating-point type, instead of
                `pixel_values`: the vision model is not run.

        Returns:
            The features as `pooler_output`, of shape `(num_videos, num_query_tokens, hidden_size)` with the language
            model's `hidden_size`; the vision model's tokens as `last_hidden_state`, of shape `(num_videos,
            num_frames * tokens_per_frame, vision_hidden_size)`; both parts' outputs as `vision_outputs` (frame by
            frame) and `qformer_outputs`.

        Raises:
            ValueError: if `pixel_values` has another number of dimensions or of channels, or is not normalized;
                if `vision_hidden_states` has another number of dimensions or width; for both of them, or neither.
        """
        if (pixel_values is None) == (vision_hidden_states is None):
            raise ValueError("Give either `pixel_values` or `vision_hidden_states`, and not both")
        vision_outputs = None
        if vision_hidden_states is None:
            _check_pixel_values(pixel_values)
            # Activation checkpointing makes the embeddings of the frames require gradients: where nothing before the
            # Q-Former learns, the backward pass would go through the whole vision model for nothing.
            learns = torch.is_grad_enabled() and (
                pixel_values.requires_grad or any(p.requires_grad for p in self.vision_model.parameters())
            )
            with torch.set_grad_enabled(learns):
                vision_outputs = self.vision_model(
                    pixel_values.flatten(0, 1),
                    interpolate_pos_encoding=interpolate_pos_encoding,
                    return_dict=True,
                    **kwargs,
                )
            vision_hidden_states = vision_outputs.last_hidden_state.unflatten(0, pixel_values.shape[:2])
        else:
            _check_vision_hidden_states(vision_hidden_states, self.config.vision_config.hidden_size)
            vision_hidden_states = vision_hidden_states.to(self.dtype)
        num_videos, _, tokens_per_frame, _ = vision_hidden_states.shape
        # (num_videos, num_frames, tokens, hidden) -> (num_videos, num_frames * tokens, hidden)
        frame_tokens = vision_hidden_states.flatten(1, 2)
        if frame_mask is not None:
            frame_mask = frame_mask.to(frame_tokens.device).repeat_interleave(tokens_per_frame, dim=1)

        query_embeds = self.query_tokens.expand(num_videos, -1, -1)
        if self.training and not query_embeds.requires_grad and torch.is_grad_enabled():
            # Reentrant activation checkpointing gives no gradients to a layer of whose inputs none requires any, and
            # under adapters the queries are frozen.
            query_embeds = query_embeds.detach().requires_grad_(
                any(p.requires_grad for p in self.qformer.parameters())
            )
        qformer_outputs = self.qformer(
            query_embeds=query_embeds,
            encoder_hidden_states=frame_tokens,
            encoder_attention_mask=frame_mask,
            return_dict=True,
            **kwargs,
        )
        # The Q-Former stays in fp32 (see `_keep_in_fp32_modules`). Not to the projection's own type: that may be int8.
        queries = qformer_outputs.last_hidden_state.to(frame_tokens.dtype)
        return BaseModelOutputWithVisionQformerOutputs(
            last_hidden_state=frame_tokens,
            pooler_output=self.language_projection(queries),
            vision_outputs=vision_outputs,
            qformer_outputs=qformer_outputs,
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.LongTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        encoder_outputs: Any | None = None,
        labels: torch.LongTensor | None = None,
        frame_mask: torch.BoolTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        interpolate_pos_encoding: bool = False,
        mm_encoder_outputs: dict | None = None,
        vision_hidden_states: torch.FloatTensor | None = None,
        **kwargs,
    ) -> VideoBlip2CausalLMOutputWithPast | VideoBlip2Seq2SeqLMOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Text with `config.video_token_id`, `config.num_query_tokens` times, in place of each clip.
            pixel_values (`torch.FloatTensor` of shape `(num_videos, num_frames, 3, height, width)`, *optional*):
                The clips of all texts of the batch, in reading order.
            frame_mask (`torch.BoolTensor` of shape `(num_videos, num_frames)`, *optional*):
                See [`~VideoBlip2ForConditionalGeneration.get_video_features`].
            labels (`torch.LongTensor`, *optional*):
                Tokens to predict, -100 where none is: parallel to `input_ids`, of shape `(batch_size,
                sequence_length)`, for a decoder-only language model; of shape `(batch_size, target_length)` for an
                encoder-decoder one.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                The positions to compute logits of, as in [`~transformers.OPTForCausalLM`]: an `int` is the number of
                the last ones, 0 all. With `labels`, the loss of a decoder-only language model is over what these
                positions predict: the whole loss, if they are those of all labels and the one before the first. An
                encoder-decoder's loss is over all labels in any case.
            decoder_input_ids, decoder_attention_mask, decoder_inputs_embeds, encoder_outputs:
                For an encoder-decoder language model, as in [`~transformers.T5ForConditionalGeneration`].
            mm_encoder_outputs (`dict`, *optional*):
                `{"video": output}` with an output of `get_video_features`, instead of `pixel_values`.
            vision_hidden_states (`torch.FloatTensor` of shape `(num_videos, num_frames, tokens_per_frame,
            vision_hidden_size)`, *optional*):
                Instead of `pixel_values`; see [`~VideoBlip2ForConditionalGeneration.get_video_features`].

        The other arguments are those of the language model.

        Raises:
            ValueError: if the `<video>` tokens in the text are not as many as the clips have features.
        """
        video_outputs = (mm_encoder_outputs or {}).get("video")
        if pixel_values is not None or vision_hidden_states is not None:
            if video_outputs is not None:
                given = "pixel_values" if pixel_values is not None else "vision_hidden_states"
                raise ValueError(f"Give either `{given}` or `mm_encoder_outputs`, not both")
            video_outputs = self.get_video_features(
                pixel_values,
                frame_mask=frame_mask,
                interpolate_pos_encoding=interpolate_pos_encoding,
                vision_hidden_states=vision_hidden_states,
            )
        video_features = None if video_outputs is None else video_outputs.pooler_output

        if encoder_outputs is None:
            starts_text = past_key_values is None or past_key_values.get_seq_length() == 0
            inputs_embeds = self._embed(input_ids, inputs_embeds, video_features, starts_text=starts_text)
        inputs = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "use_cache": use_cache}
        if self.config.use_decoder_only_language_model:
            return self._decode(
                labels=labels,
                video_features=video_features,
                past_key_values=past_key_values,
                position_ids=position_ids,
                logits_to_keep=logits_to_keep,
                **inputs,
                **kwargs,
            )
        return self._encode_and_decode(
            labels=labels,
            video_features=video_features,
            past_key_values=past_key_values,
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_inputs_embeds=decoder_inputs_embeds,
            logits_to_keep=logits_to_keep,
            **inputs,
            **kwargs,
        )

    def _decode(self, labels, video_features, logits_to_keep, num_items_in_batch=None, **inputs):
        with self.attention_turns.take(self.language_model, inputs["past_key_values"]) as shared:
            outputs = self.language_model(**inputs, **shared, logits_to_keep=logits_to_keep, return_dict=True)
        loss = None
        if labels is not None:
            # What each position predicts, shifted before positions are chosen, so that any may be.
            shift_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
            loss = self.loss_function(
                logits=outputs.logits,
                labels=None,
                shift_labels=slice_logits_to_keep(shift_labels.unsqueeze(-1), logits_to_keep).squeeze(-1).contiguous(),
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        return VideoBlip2CausalLMOutputWithPast(**{**outputs, "loss": loss, "video_hidden_states": video_features})

    def _encode_and_decode(self, labels, video_features, logits_to_keep, num_items_in_batch=None, **inputs):
        if labels is not None and inputs["decoder_input_ids"] is None and inputs["decoder_inputs_embeds"] is None:
            inputs["decoder_input_ids"] = self.language_model.prepare_decoder_input_ids_from_labels(labels)
            inputs["use_cache"] = False
        with self.attention_turns.take(self.language_model, inputs["past_key_values"]) as shared:
            outputs = self.language_model(**inputs, **shared, return_dict=True)
        loss = None
        if labels is not None:
            # Not the language model's own loss: it is a mean over each micro-batch, not over `num_items_in_batch`.
            loss = self.loss_function(
                logits=outputs.logits,
                labels=None,
                shift_labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        logits = slice_logits_to_keep(outputs.logits, logits_to_keep)
        return VideoBlip2Seq2SeqLMOutput(
            **{**outputs, "loss": loss, "logits": logits, "video_hidden_states": video_features}
        )

    def get_placeholder_mask(self, input_ids, inputs_embeds) -> torch.BoolTensor:
        """Where the features of the clips stand: a mask of shape `(batch_size, sequence_length)`."""
        if self.config.video_token_id is None:
            raise ValueError(
                "`config.video_token_id` is not set, so no place in the text can be that of a clip. Set it to the "
                "processor's `video_token_id`"
            )
        if input_ids is not None:
            return input_ids == self.config.video_token_id
        video_token_id = torch.tensor(self.config.video_token_id, device=inputs_embeds.device)
        return (inputs_embeds == self.get_input_embeddings()(video_token_id)).all(-1)

    def _embed(self, input_ids, inputs_embeds, video_features, starts_text: bool):
        """The text with the clips' features in it, of shape (batch_size, sequence_length, hidden_size)."""
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if video_features is None:
            # A token that is generated may be a `<video>` that a draft proposes; one of a prompt has lost its clip.
            has_id = input_ids is not None and self.config.video_token_id is not None
            # In this order: `starts_text` is a tensor where the cache is static.
            if has_id and not torch.compiler.is_compiling() and starts_text:
                num_lost = (input_ids == self.config.video_token_id).sum().item()
                if num_lost:
                    raise ValueError(
                        f"The text has {num_lost} `<video>` tokens (id {self.config.video_token_id}), but there are "
                        "no `pixel_values` for them"
                    )
            return inputs_embeds
        mask = self.get_placeholder_mask(input_ids, inputs_embeds)
        self._check_clips(mask, video_features)
        video_features = video_features.to(inputs_embeds.device, inputs_embeds.dtype)
        return inputs_embeds.masked_scatter(mask.unsqueeze(-1), video_features)

    def _check_clips(self, mask, video_features):
        """Whether the clips' features fit the places that the text has for them, `mask`."""
        if video_features.shape[-1] != self.config.text_config.hidden_size:
            raise ValueError(
                f"The clips' features are {video_features.shape[-1]} wide, the language model is "
                f"{self.config.text_config.hidden_size}: they are another model's"
            )
        num_features = video_features.shape[:-1].numel()
        if not torch.compiler.is_compiling() and mask.sum().item() != num_features:
            raise ValueError(
                f"The text has {mask.sum().item()} `<video>` tokens (id {self.config.video_token_id}), but the clips "
                f"have {num_features} features ({self.config.num_query_tokens} each). Every clip needs its "
                "`<video>` in the text, expanded by a processor with the same `num_query_tokens` and token, and not "
                "truncated"
            )

    def read_prompts(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        prefix: ReadPrompts | None = None,
        **clips,
    ) -> ReadPrompts:
        r"""
        Reads texts with clips once, to go on from as often as one likes: [`ReadPrompts.score`] tells how likely
        continuations are, [`ReadPrompts.generate`] generates.

        Args:
            input_ids, attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                The texts, as for `forward`; padding may be on either side.
            prefix (`ReadPrompts`, *optional*):
                What was read before, which the texts go on after: one text for all, or one for each; for a
                decoder-only language model. All rows share what was read of one, and no copy of it is made.
            clips:
                `pixel_values`, `frame_mask`, `vision_hidden_states` or `mm_encoder_outputs`, as for `forward`.

        Raises:
            ValueError: as `forward`; for a prefix of another number of texts, or before an encoder-decoder.
        """
        return read_prompts(self, input_ids, attention_mask, prefix, **clips)

    def classify(
        self,
        input_ids: torch.LongTensor,
        class_input_ids: torch.LongTensor,
        class_attention_mask: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        frame_mask: torch.BoolTensor | None = None,
        class_batch_size: int | None = 256,
        vision_hidden_states: torch.FloatTensor | None = None,
    ) -> torch.FloatTensor:
        r"""
        How likely each of many continuations of a text with clips is.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`), attention_mask, pixel_values,
            frame_mask, vision_hidden_states:
                The texts and clips to continue, as for `forward`; padding may be on either side.
            class_input_ids (`torch.LongTensor` of shape `(num_classes, class_length)`):
                Tokens of each continuation, padded on the right; for an encoder-decoder language model, what the
                decoder would generate.
            class_attention_mask (`torch.LongTensor` of shape `(num_classes, class_length)`, *optional*):
                0 where a continuation is padded; by default, where the padding token stands at its end.
            class_batch_size (`int`, *optional*, defaults to 256):
                How many continuations to score at a time, to bound memory; all if `None`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_classes)`: the mean log-likelihood of each continuation's
            tokens.

        Raises:
            ValueError: if a continuation has no token, or is padded on the left.
        """
        clips = {
            "pixel_values": pixel_values,
            "frame_mask": frame_mask,
            "vision_hidden_states": vision_hidden_states,
        }
        prompts = self.read_prompts(input_ids, attention_mask, **clips)
        return prompts.score(class_input_ids, class_attention_mask, class_batch_size=class_batch_size)


def _check_pixel_values(pixel_values):
    if pixel_values.ndim != 5 or pixel_values.shape[2] != 3:
        raise ValueError(
            "`pixel_values` must be of shape (num_videos, num_frames, 3, height, width), "
            f"but is of shape {tuple(pixel_values.shape)}"
        )
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"`pixel_values` are {pixel_values.dtype}, so they are not normalized: give what the video processor's "
            "`normalize_frames` makes of them"
        )


def _check_vision_hidden_states(vision_hidden_states, hidden_size):
    shape = tuple(vision_hidden_states.shape)
    if len(shape) != 4 or shape[-1] != hidden_size or not vision_hidden_states.is_floating_point():
        raise ValueError(
            f"`vision_hidden_states` must be floats of shape (num_videos, num_frames, tokens_per_frame, {hidden_size})"
            f", but are {vision_hidden_states.dtype} and of shape {shape}"
        )


def _use_supported_attention(config: VideoBlip2Config):
    """Flash attention where it can be: the parts that have none (the Q-Former, T5) run SDPA instead."""
    parts = [config.qformer_config]
    if config.text_config.model_type == "t5":
        parts.append(config.text_config)
    for part in parts:
        if "flash" in (part._attn_implementation or ""):
            part._attn_implementation = "sdpa"


def _untie_t5_head(language_model):
    """
    Gives Flan-T5 its own head back.

    T5 1.1 and Flan-T5 have a head apart from the embedding, and say so with `tie_word_embeddings=False`. Transformers
    5 keeps of that only `scale_decoder_outputs=False`, ties all the same, and would overwrite the head.
    """
    language_model._tied_weights_keys = {
        target: source for target, source in language_model._tied_weights_keys.items() if target != "lm_head.weight"
    }
    language_model.all_tied_weights_keys.pop("lm_head.weight", None)
    head = language_model.lm_head
    head.weight = nn.Parameter(torch.empty_like(head.weight))
    initialization.normal_(head.weight, std=language_model.config.initializer_factor)


__all__ = [
    "VideoBlip2CausalLMOutputWithPast",
    "VideoBlip2ForConditionalGeneration",
    "VideoBlip2Seq2SeqLMOutput",
]
