"""`pipeline("video-narration")`: clips in, sentences out."""

import warnings

import torch
from transformers import Pipeline
from transformers.utils import logging

from .notices import notice_of
from .processing_video_blip_2 import DEFAULT_PROMPT, VIDEO_TOKEN
from .video_processing_video_blip_2 import is_clip


logger = logging.get_logger(__name__)

_CLIP_SETTINGS = ("num_frames", "fps", "start", "end")


class VideoNarrationPipeline(Pipeline):
    r"""
    Narrates video clips, in the manner of a few narrated ones if there are any.

    ```python
    >>> from transformers import pipeline
    >>> import transformers_eilev

    >>> narrate = pipeline("video-narration", model="kpyu/eilev-blip2-opt-2.7b")
    >>> narrate("mixer.mp4")
    [{'generated_text': 'The camera wearer hits the scraper on the dough mixer guard.'}]
    >>> narrate(
    ...     ["mixer.mp4", "sink.mp4"],
    ...     demonstrations=[("oven.mp4", "The camera wearer opens the oven."), ("cup.mp4", "She washes a cup.")],
    ...     batch_size=2,
    ... )
    ```

    A clip is whatever [`VideoBlip2VideoProcessor`] takes: a path, a URL, bytes, a file object or frames.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _pipeline_calls_generate = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokenizer = self.processor.tokenizer
        for name in ("num_query_tokens", "video_token_id"):
            of_model, of_processor = getattr(self.model.config, name), getattr(self.processor, name)
            if of_model != of_processor:
                raise ValueError(
                    f"Model and processor don't belong together: `{name}` is {of_model} in the model's config, "
                    f"{of_processor} in the processor"
                )
        if notice := notice_of(self.model.config):
            logger.warning(notice)

    def __call__(self, videos, **kwargs):
        """
        Narrates one clip or many.

        Args:
            videos: a clip, a list (or dataset, or generator) of clips, or of `dict`s with a "video" and, if it has its
                own, a "prompt" and "demonstrations".
            prompt (`str`, *optional*): the question; "Question: What is the camera wearer doing? Answer:" by default.
                Together with demonstrations it is asked of every clip.
            demonstrations (`list[tuple]`, *optional*): pairs of a clip and its narration, to be narrated like.
            num_frames, fps, start, end (*optional*): which frames of each clip; see [`VideoBlip2VideoProcessor`].
            batch_size (`int`, *optional*): clips at a time.
            generate_kwargs (`dict`, *optional*): settings of `model.generate`; they may also be given as such
                (`max_new_tokens=...`, `num_beams=...`, ...).

        Returns:
            For each clip a list of `num_return_sequences` (1 by default) `dict`s with the narration as
            "generated_text"; for one clip that list, for many a list of such lists.

        Raises:
            VideoReadError, FileNotFoundError: for a clip that can't be read.
        """
        if is_clip(videos):
            videos = {"video": videos}  # one clip, if it is a list (of frames) or a dict too
        elif isinstance(videos, tuple):
            videos = list(videos)
        return super().__call__(videos, **kwargs) if not isinstance(videos, list) or videos else []

    def _sanitize_parameters(self, prompt=None, demonstrations=None, generate_kwargs=None, **kwargs):
        clip_settings = {name: kwargs.pop(name) for name in _CLIP_SETTINGS if name in kwargs}
        preprocess_params = {"clip_settings": clip_settings} if clip_settings else {}
        if prompt is not None:
            preprocess_params["prompt"] = prompt
        if demonstrations is not None:
            # Read once, not once for each clip that is narrated after them.
            preprocess_params["demonstrations"] = self._read_demonstrations(demonstrations, clip_settings)
        generate_kwargs = {**(generate_kwargs or {}), **kwargs}
        return preprocess_params, {"generate_kwargs": generate_kwargs} if generate_kwargs else {}, {}

    def preprocess(self, inputs, prompt=None, demonstrations=None, clip_settings=None):
        clip_settings = clip_settings or {}
        if isinstance(inputs, dict) and not is_clip(inputs):
            if unknown := set(inputs) - {"video", "prompt", "demonstrations"}:
                raise ValueError(
                    f"A dict has a 'video', a 'prompt' and 'demonstrations', but here is {sorted(unknown)}"
                )
            prompt = inputs.get("prompt") or prompt
            if inputs.get("demonstrations") is not None:
                demonstrations = self._read_demonstrations(inputs["demonstrations"], clip_settings)
            inputs = inputs["video"]
        demonstrations = demonstrations or []
        text = self.processor.build_prompt([narration for _, narration in demonstrations], prompt or DEFAULT_PROMPT)
        if text.count(VIDEO_TOKEN) != len(demonstrations) + 1:
            raise ValueError(f"Neither prompt nor narrations may contain {VIDEO_TOKEN!r}, but here is {text!r}")
        features = self.processor.encode(text)
        return {
            **{name: torch.tensor([ids]) for name, ids in features.items()},
            # A list, which batching joins: clips may differ in their number of frames.
            "clips": [*(clip for clip, _ in demonstrations), self._read_clip(inputs, clip_settings)],
        }

    def _forward(self, model_inputs, generate_kwargs=None):
        clips = model_inputs.pop("clips")
        if isinstance(clips[0], list):
            clips = [clip for clips_of_text in clips for clip in clips_of_text]
        video_inputs = self.processor.video_processor.pad_frames(clips)
        generate_kwargs = self._prepare_generate_kwargs(generate_kwargs or {}, return_dict_in_generate=False)
        generated_ids = self.model.generate(**model_inputs, **video_inputs, **generate_kwargs)
        batch_size = len(model_inputs["input_ids"])
        generated_ids = self.processor.without_prompt(generated_ids, model_inputs)
        # (batch_size * num_return_sequences, length) -> (batch_size, num_return_sequences, length)
        return {"generated_ids": generated_ids.reshape(batch_size, -1, generated_ids.shape[-1])}

    def postprocess(self, model_outputs):
        texts = self.processor.post_process_narrations(model_outputs["generated_ids"].flatten(0, 1))
        if not all(texts):
            warnings.warn(
                "The model ended a narration before its first word: a 'generated_text' is empty", stacklevel=2
            )
        return [{"generated_text": text} for text in texts]

    def _read_clip(self, clip, clip_settings):
        return self.processor.video_processor(clip, **clip_settings)["pixel_values"].to(self.dtype)[0]

    def _read_demonstrations(self, demonstrations, clip_settings):
        for index, demonstration in enumerate(demonstrations):
            is_pair = isinstance(demonstration, (tuple, list)) and len(demonstration) == 2
            if not is_pair or not isinstance(demonstration[1], str) or not demonstration[1].strip():
                raise ValueError(f"Demonstration {index} must be a clip and its narration, but is {demonstration!r}")
        return [(self._read_clip(clip, clip_settings), narration) for clip, narration in demonstrations]


__all__ = ["VideoNarrationPipeline"]
