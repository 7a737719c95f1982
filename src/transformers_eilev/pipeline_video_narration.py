"""`pipeline("video-narration")`: clips in, sentences out."""

import warnings

import torch
from transformers import Pipeline
from transformers.utils import logging

from .notices import notice_of
from .processing_video_blip_2 import DEFAULT_PROMPT, VIDEO_TOKEN
from .read_prompts import CommonBeginning, as_inputs
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
        self._beginning = None
        self.tokenizer = self.processor.tokenizer
        self.processor.check_config(self.model.config)
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
            demonstrations (`list[tuple]`, *optional*): pairs of a clip and its narration, to be narrated like. They
                are encoded once, and a decoder-only language model reads them once, for all clips of the call. Or a
                function from a clip to such a list, to choose for each, such as a `DemonstrationFinder` of videos.
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
        self._beginning = None  # the model may have learned since
        if is_clip(videos):
            videos = {"video": videos}  # one clip, if it is a list (of frames) or a dict too
        elif isinstance(videos, tuple):
            videos = list(videos)
        return super().__call__(videos, **kwargs) if not isinstance(videos, list) or videos else []

    def save_pretrained(self, save_directory, **kwargs):
        """Saves what `pipeline` loads: transformers' own leaves out the video processor."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(self, prompt=None, demonstrations=None, generate_kwargs=None, **kwargs):
        clip_settings = {name: kwargs.pop(name) for name in _CLIP_SETTINGS if name in kwargs}
        preprocess_params = {"clip_settings": clip_settings} if clip_settings else {}
        if prompt is not None:
            preprocess_params["prompt"] = prompt
        forward_params = {}
        if callable(demonstrations):
            preprocess_params["demonstrations"] = demonstrations
        elif demonstrations is not None:
            # Read once, not once for each clip that is narrated after them.
            demonstrations = self._read_demonstrations(demonstrations, clip_settings)
            preprocess_params["demonstrations"] = forward_params["demonstrations"] = demonstrations
        generate_kwargs = {**(generate_kwargs or {}), **kwargs}
        if generate_kwargs:
            forward_params["generate_kwargs"] = generate_kwargs
        return preprocess_params, forward_params, {}

    def preprocess(self, inputs, prompt=None, demonstrations=None, clip_settings=None):
        clip_settings = clip_settings or {}
        own = None
        if isinstance(inputs, dict) and not is_clip(inputs):
            if unknown := set(inputs) - {"video", "prompt", "demonstrations"}:
                raise ValueError(
                    f"A dict has a 'video', a 'prompt' and 'demonstrations', but here is {sorted(unknown)}"
                )
            prompt = inputs.get("prompt") or prompt
            own, inputs = inputs.get("demonstrations"), inputs["video"]
        if own is None and callable(demonstrations):
            own = demonstrations(inputs)
        if own is not None:
            demonstrations = self._read_demonstrations(own, clip_settings)
        demonstrations = demonstrations or []
        text = self.processor.build_prompt([narration for _, narration in demonstrations], prompt or DEFAULT_PROMPT)
        if text.count(VIDEO_TOKEN) != len(demonstrations) + 1:
            raise ValueError(f"Neither prompt nor narrations may contain {VIDEO_TOKEN!r}, but here is {text!r}")
        features = self.processor.encode(text)
        in_front = [] if own is None else [clip for clip, _ in demonstrations]
        return {
            **{name: torch.tensor([ids]) for name, ids in features.items()},
            # A list, which batching joins: clips may differ in their number of frames. Of demonstrations that all
            # clips share `_forward` knows.
            "clips": [*in_front, self._read_clip(inputs, clip_settings)],
            "shares": own is None,
        }

    def _forward(self, model_inputs, generate_kwargs=None, demonstrations=None):
        clips, shares = model_inputs.pop("clips"), model_inputs.pop("shares")
        if not isinstance(clips[0], list):
            clips, shares = [clips], [shares]
        features = self._encode([clip for own in clips for clip in own]).split([len(own) for own in clips])
        generate_kwargs = self._prepare_generate_kwargs(generate_kwargs or {}, return_dict_in_generate=False)
        rows = model_inputs["input_ids"]
        beginning = self._begin(demonstrations) if demonstrations else None
        is_common = beginning is not None and all(shares) and bool((rows == rows[:1]).all())
        if is_common and self.processor.is_decoder_only:
            generated_ids = beginning.go_on(rows[:1], torch.cat(features)).generate(**generate_kwargs)
        else:
            if beginning is not None:
                in_front = beginning.features
                features = [torch.cat([in_front, own]) if share else own for own, share in zip(features, shares)]
            generated_ids = self.model.generate(**model_inputs, **as_inputs(torch.cat(features)), **generate_kwargs)
        generated_ids = self.processor.without_prompt(generated_ids, model_inputs)
        # (batch_size * num_return_sequences, length) -> (batch_size, num_return_sequences, length)
        return {"generated_ids": generated_ids.reshape(len(rows), -1, generated_ids.shape[-1])}

    def _begin(self, demonstrations) -> CommonBeginning:
        if self._beginning is None or self._beginning[0] is not demonstrations:
            features = self._encode([clip for clip, _ in demonstrations])
            self._beginning = demonstrations, CommonBeginning(self.model, features)
        return self._beginning[1]

    def _encode(self, clips):
        video_inputs = self.processor.video_processor.pad_frames(clips)
        return self.model.get_video_features(**self._ensure_tensor_on_device(video_inputs, self.device)).pooler_output

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
