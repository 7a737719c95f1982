"""Samples of any number of clips to a batch for the model."""

from collections.abc import Sequence
from typing import Any

import torch

from ..processing_video_blip_2 import VIDEO_TOKEN, count_video_tokens, with_clips_in_front


_SHAPES = {
    "pixel_values": "(num_frames, 3, height, width)",
    "vision_hidden_states": "(num_frames, tokens_per_frame, vision_hidden_size)",
}

# By name, and whether they are floats.
_KINDS = {
    ("pixel_values", True): "normalized `pixel_values`",
    ("pixel_values", False): "frames that are not to be normalized",
    ("vision_hidden_states", True): "`vision_hidden_states`",
}


class DataCollatorForVideoNarration:
    r"""
    Makes batches for [`VideoBlip2ForConditionalGeneration`], to train, to evaluate and to generate.

    A feature is a dict with

    - `text`: the prompt with `<video>` for each clip, or a list of its blocks (see [`VideoBlip2Processor.encode`]). A
      text without `<video>` gets its clips in front.
    - `text_target` (*optional*): what the model shall say. Without it, a batch has no `labels`.
    - `videos` (*optional*): a list of clips in the order of the text, in any form that the video processor takes, such
      as paths or frames; or `pixel_values`: a list of processed clips, each of shape `(num_frames, 3, height, width)`,
      or a tensor of all of them; or `vision_hidden_states`: what the vision model made of each clip before, of shape
      `(num_frames, tokens_per_frame, vision_hidden_size)`. None at all is a text alone.

    Anything else in it is left out, but for `keep`. The loss is on `text_target` alone.

    Args:
        processor ([`VideoBlip2Processor`]): of the model.
        padding_side (`str`, *optional*): "left" or "right", by default the tokenizer's, left. To generate with a
            decoder-only language model it must be left.
        pad_to_multiple_of (`int`, *optional*): length to round up to; 8 suits half-precision training.
        keep (`Sequence[str]`, *optional*): what else of each feature to hand on, as lists, such as `frame_path`.
        normalize (`bool`, *optional*, defaults to `True`): `False` leaves the frames of `videos` uint8, resized
            alone, a quarter of the bytes to hand from worker to device. What the model takes is made of them there by
            `processor.video_processor.normalize_frames(batch["pixel_values"])`.

    Raises:
        ValueError: for settings that can't be; on a call, if texts and clips don't match, some features have a
            target and others none, or clips of one kind and others of another, with the feature's number.

    In training on several devices every batch of each needs a clip, or the Q-Former gets no gradient on one of them
    and the others wait for it.
    """

    def __init__(
        self,
        processor,
        *,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        keep: Sequence[str] = (),
        normalize: bool = True,
    ):
        if padding_side not in (None, "left", "right"):
            raise ValueError(f"`padding_side` must be 'left' or 'right', but is {padding_side!r}")
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ValueError(f"`pad_to_multiple_of` must be at least 1, but is {pad_to_multiple_of}")
        if isinstance(keep, str):
            raise ValueError(f"`keep` must be a list of names, but is {keep!r}")
        self.processor = processor
        self.padding_side = padding_side
        self.pad_to_multiple_of = pad_to_multiple_of
        self.keep = tuple(keep)
        self._settings = {} if normalize else {"do_rescale": False, "do_normalize": False}

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """
        Args:
            features (`list[dict]`): as said above; they are left as they are.

        Returns:
            `input_ids`, `attention_mask` and, with targets, `labels`, of shape `(batch_size, sequence_length)` (the
            `labels` of an encoder-decoder are of their own length); if there are clips, `pixel_values` of shape
            `(num_videos, num_frames, 3, height, width)` or `vision_hidden_states` of shape `(num_videos, num_frames,
            tokens_per_frame, vision_hidden_size)`, of the type that they have, in reading order; if they have unequal
            numbers of frames, `frame_mask` of shape `(num_videos, num_frames)`.
        """
        if not features:
            raise ValueError("A batch needs at least one feature")
        with_target = [feature.get("text_target") is not None for feature in features]
        if len(set(with_target)) > 1:
            first = with_target.index(not with_target[0])
            raise ValueError(
                f"Feature {first} has {'a' if with_target[first] else 'no'} `text_target`, but feature 0 has "
                f"{'one' if with_target[0] else 'none'}; a batch is either to learn from or to generate for"
            )
        clips, encoded, kind = [], [], None
        for index, feature in enumerate(features):
            name, clips_of_feature = self._clips(feature, index)
            encoded.append(self._encode(feature, index, len(clips_of_feature)))
            if clips_of_feature:
                # Neither can stand in one tensor with the other, nor uint8 with what is normalized.
                new = (name, clips_of_feature[0].is_floating_point())
                if kind not in (None, new):
                    raise ValueError(
                        f"Feature {index} has {_KINDS[new]}, but those before have {_KINDS[kind]}; the clips of a "
                        "batch must be of one kind"
                    )
                kind = new
            clips += clips_of_feature
        batch = self.processor.pad(encoded, padding_side=self.padding_side, pad_to_multiple_of=self.pad_to_multiple_of)
        if clips:
            batch.update(self.processor.video_processor.pad_frames(clips, name=kind[0]))
        for name in self.keep:
            batch[name] = [feature[name] for feature in features]
        return batch

    def _encode(self, feature: dict[str, Any], index: int, num_clips: int) -> dict[str, list[int]]:
        text = feature.get("text")
        if text is None:
            raise ValueError(f"Feature {index} has no `text`")
        blocks = [text] if isinstance(text, str) else list(text)
        if not blocks:
            raise ValueError(f"Feature {index} has a `text` of no blocks")
        num_marks = count_video_tokens(blocks)
        if num_marks == 0:
            blocks = with_clips_in_front(blocks, num_clips)
        elif num_marks != num_clips:
            raise ValueError(f"Feature {index} has {num_marks} `{VIDEO_TOKEN}` in its text, but {num_clips} clips")
        return self.processor.encode(blocks, feature.get("text_target"))

    def _clips(self, feature: dict[str, Any], index: int) -> tuple[str, list[torch.Tensor]]:
        """What the model calls the clips of a feature, and each of them, of shape (num_frames, ...)."""
        given = [name for name in ("videos", "pixel_values", "vision_hidden_states") if feature.get(name) is not None]
        if len(given) > 1:
            raise ValueError(f"Feature {index} has both `{given[0]}` and `{given[1]}`")
        if not given:
            return "pixel_values", []
        clips = feature[given[0]]
        if given[0] == "videos":
            # One by one, since clips of unequal length are padded with those of the whole batch.
            process = self.processor.video_processor
            return "pixel_values", [process(clip, **self._settings)["pixel_values"][0] for clip in clips]
        clips = [torch.as_tensor(clip) for clip in clips]
        shape = _SHAPES[given[0]]
        for clip in clips:
            if clip.ndim != len(shape.split(",")) or not clip.is_floating_point():
                hint = "; give raw frames as `videos`" if given[0] == "pixel_values" else ""
                raise ValueError(
                    f"Feature {index} has `{given[0]}` of a clip of shape {tuple(clip.shape)} and {clip.dtype}, but "
                    f"they must be floats of shape {shape}{hint}"
                )
        return given[0], clips


__all__ = ["DataCollatorForVideoNarration"]
