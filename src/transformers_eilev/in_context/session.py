"""Many clips narrated, or scored, in the manner of the same few: what is the same for all of them is done once."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from ..processing_video_blip_2 import DEFAULT_PROMPT, VIDEO_TOKEN
from ..read_prompts import CommonBeginning, ReadPrompts, as_inputs, check_length
from ..video_processing_video_blip_2 import is_clip
from ..weight_hashes import PartsHash, look_over
from .clip_features import CLIP_SETTINGS, ClipEncoder
from .library import Demonstration, as_demonstrations, check_demonstrations, check_words, held, span_of


class InContextSession:
    r"""
    A model with demonstrations, ready for one clip after another.

    Each demonstration's clip is encoded once. A decoder-only language model reads the demonstrations once, and all
    clips, beams and candidates go on from one copy of what it has read; an encoder-decoder reads them with each clip,
    from the stored features. What is said is what `model.generate` says of the whole prompt.

    Demonstrations and prompt may be changed between calls: what depends on them is done anew, the clips' features
    stay. So it is if the model learns in between.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]): of any device and type.
        processor ([`VideoBlip2Processor`]): of the same checkpoint.
        demonstrations (`Sequence`, *optional*): [`Demonstration`]s, or pairs of a clip and its narration, in the order
            of the prompt. A clip is what the video processor takes.
        prompt (`str`, *optional*): the question, asked of every clip.
        encoder ([`ClipEncoder`], *optional*): which keeps the clips' features, to share with others or on disk; by
            default one of its own, in memory.
        finder ([`DemonstrationFinder`], *optional*): finds each clip demonstrations of its own, instead of
            `demonstrations`. All of the prompt is then read for each clip. Or an object with its `find`,
            `demonstrations` and `compares_texts`.
        clip_settings: of the video processor for all clips that are files: `num_frames`, `fps`, `start`, `end`.

    Raises:
        TypeError: for another setting.
        ValueError: if a demonstration can't be used, by its place and what is wrong with it; if model and processor
            don't belong together; for both `demonstrations` and `finder`.

    Example:

    ```python
    >>> session = InContextSession(model, processor, [("cup.mp4", "The camera wearer washes a cup.")])
    >>> session.narrate(["mixer.mp4", ClipSpan("kitchen.mp4", start=12.0)], num_beams=5)
    >>> session.score(["mixer.mp4"], ["The camera wearer hits the scraper.", "The camera wearer opens a door."])
    ```
    """

    def __init__(
        self,
        model,
        processor,
        demonstrations: Sequence = (),
        *,
        prompt: str = DEFAULT_PROMPT,
        encoder: ClipEncoder | None = None,
        finder=None,
        **clip_settings: Any,
    ):
        processor.check_config(model.config)
        unknown = sorted(clip_settings.keys() - set(CLIP_SETTINGS))
        if unknown:
            raise TypeError(f"A session has the settings {', '.join(CLIP_SETTINGS)} of clips, but not {unknown}")
        self.model, self.processor = model, processor
        self.encoder = ClipEncoder(model, processor) if encoder is None else encoder
        _check_encoder(self.encoder, model, processor)
        self.clip_settings = clip_settings
        self.prompt = prompt
        self.finder = finder
        self._weights = PartsHash()
        self._beginning: tuple[Any, CommonBeginning] | None = None
        self.demonstrations = demonstrations

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """The narrated clips before each that is asked about. May be set."""
        return self._demonstrations

    @demonstrations.setter
    def demonstrations(self, demonstrations: Sequence):
        demonstrations = as_demonstrations(demonstrations)
        if demonstrations and self.finder is not None:
            raise ValueError("Give either `demonstrations` or a `finder` of them, not both")
        check_demonstrations(demonstrations)
        self._demonstrations = tuple(map(held, demonstrations))

    def fingerprints(self) -> dict[str, str]:
        """
        Hashes of all that decides what is said of a clip but the settings of a call, by what they are of: "model"
        (weights and configs), "processor", "demonstrations" (also those that a finder finds from) and "prompt".

        Raises:
            ValueError: if a weight is offloaded, by its name.
        """
        model, processor = self.model, self.processor
        shown = self._demonstrations if self.finder is None else self.finder.demonstrations
        keys = self.encoder.keys([span_of(own) for own in shown], **self.clip_settings)
        text_config, generation_config = model.config.text_config.to_dict(), model.generation_config.to_dict()
        settings = {
            "model": [self._weights({"language_model": model.language_model}), text_config, generation_config],
            "processor": [self.encoder.fingerprint, processor.tokenizer.backend_tokenizer.to_str()],
            "demonstrations": [[key, own.narration, own.verb, own.noun] for key, own in zip(keys, shown)],
            "prompt": [self.prompt, processor.prompt_layout, self.clip_settings],
        }
        return {
            name: hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
            for name, value in settings.items()
        }

    @torch.no_grad()
    def find(
        self,
        clips: Sequence,
        *,
        prompt: str | None = None,
        origins: Sequence | None = None,
        indices: Sequence[int] | None = None,
    ) -> list[list[Demonstration]]:
        """
        What the session's finder finds for each clip. Where it compares texts, a clip's is what the model says of it
        without demonstrations, greedily; if that is nothing, there are no demonstrations for it.

        Args:
            clips (`Sequence`): to ask about.
            prompt (`str`, *optional*): instead of the session's, for this call.
            origins (`Sequence`, *optional*): of clips that are given as frames, the [`ClipSpan`] that each is from.
            indices (`Sequence[int]`, *optional*): of the clips; another one, another draw. By default their places.

        Warns:
            UserWarning: if there is nothing to find by.

        Raises:
            ValueError: if the session has no finder; as [`DemonstrationFinder.find`].
        """
        if self.finder is None:
            raise ValueError("This session has no `finder`")
        self._encode(clips)  # all at once: the finder asks for them one by one, and finds them stored
        texts = [None] * len(clips)
        if self.finder.compares_texts:
            prompts = self.read(clips, prompt=prompt, demonstrations=[()] * len(clips))
            drafts = self._generate(prompts, num_beams=1, do_sample=False, num_return_sequences=1)
            texts = self.processor.post_process_narrations(drafts)
        found = []
        origins, indices = origins or [None] * len(clips), indices or range(len(clips))
        for clip, text, origin, index in zip(clips, texts, origins, indices, strict=True):
            if text == "":
                warnings.warn(f"Clip {index} has no draft to find demonstrations by: it gets none", stacklevel=2)
            found.append([] if text == "" else self.finder.find(clip, text=text, origin=origin, index=index))
        return found

    @torch.no_grad()
    def read(
        self,
        clips: Sequence,
        *,
        prompt: str | None = None,
        demonstrations: Sequence[Sequence] | None = None,
        index: int = 0,
    ) -> ReadPrompts:
        """
        The model reads the prompt of each clip up to where its narration begins.

        Args:
            clips (`Sequence`): to ask about, all at once.
            prompt (`str`, *optional*): instead of the session's, for this call.
            demonstrations (`Sequence[Sequence]`, *optional*): of each clip its own, instead of the session's.
            index (`int`, *optional*, defaults to 0): of the first clip, for a finder that draws; see `find`.

        Returns:
            [`ReadPrompts`]: to generate from and to score with as often as one likes, such as nouns after verbs.

        Raises:
            ValueError: if there is no clip, or the prompt is longer than the language model can read.
            VideoReadError, FileNotFoundError: for a clip that can't be read.
        """
        _check_clips(clips)
        if not clips:
            raise ValueError("There is no clip to read")
        prompt = prompt or self.prompt
        if demonstrations is None and self.finder is not None:
            demonstrations = self.find(clips, prompt=prompt, indices=range(index, index + len(clips)))
        if demonstrations is not None:
            if len(demonstrations) != len(clips):
                raise ValueError(f"There are {len(clips)} clips, but demonstrations for {len(demonstrations)}")
            demonstrations = [as_demonstrations(own) for own in demonstrations]
            check_words([own for row in demonstrations for own in row])
            rows = [[*map(span_of, own), clip] for own, clip in zip(demonstrations, clips)]
            return self._read_whole(prompt, demonstrations, self._encode([clip for row in rows for clip in row]))
        # Those of the demonstrations too: a clip on disk may have changed, or the model.
        features = self._encode([*map(span_of, self._demonstrations), *clips])
        shared, features = features.split([len(self._demonstrations), len(clips)])
        if self.model.config.is_encoder_decoder:
            features = torch.cat([part for own in features.split(1) for part in (shared, own)])
            return self._read_whole(prompt, [self._demonstrations] * len(clips), features)
        input_ids = torch.tensor([self._tokens(prompt, self._demonstrations)], device=self.model.device)
        return self._common_beginning(shared).go_on(input_ids, features)

    def narrate(
        self,
        clips: Iterable,
        *,
        prompt: str | None = None,
        demonstrations: Iterable[Sequence] | None = None,
        batch_size: int = 8,
        return_scores: bool = False,
        **generate_kwargs: Any,
    ) -> list:
        """
        Says what happens in each clip.

        Args:
            clips (`Iterable`): any number; they are read as they come, `batch_size` at a time.
            prompt (`str`, *optional*): instead of the session's, for this call.
            demonstrations (`Iterable[Sequence]`, *optional*): of each clip its own, instead of the session's.
            batch_size (`int`, *optional*, defaults to 8): clips at a time.
            return_scores (`bool`, *optional*, defaults to `False`): also how likely each narration is.
            generate_kwargs: settings of `model.generate`.

        Returns:
            A narration for each clip, or a list of `num_return_sequences` of them; with `return_scores` pairs of a
            narration and the mean log-likelihood of its tokens.

        Raises:
            As `read`.
        """
        settings = {"prompt": prompt, "demonstrations": demonstrations, "batch_size": batch_size}
        return list(self.iter_narrations(clips, **settings, return_scores=return_scores, **generate_kwargs))

    def iter_narrations(
        self,
        clips: Iterable,
        *,
        prompt: str | None = None,
        demonstrations: Iterable[Sequence] | None = None,
        batch_size: int = 8,
        return_scores: bool = False,
        **generate_kwargs: Any,
    ) -> Iterator:
        """As `narrate`, one narration after the other, as they are done."""
        _check_clips(clips, batch_size)
        clips = iter(clips)
        own, number = None if demonstrations is None else iter(demonstrations), 0
        while batch := list(islice(clips, batch_size)):
            of_batch = None if own is None else list(islice(own, len(batch)))
            prompts = self.read(batch, prompt=prompt, demonstrations=of_batch, index=number)
            number += len(batch)
            generated_ids = self._generate(prompts, **generate_kwargs)
            said = self.processor.post_process_narrations(generated_ids)
            if not all(said):
                warnings.warn("The model ended a narration before its first word: it is empty", stacklevel=2)
            if return_scores:
                said = list(zip(said, self._score_generated(prompts, generated_ids, generate_kwargs)))
            each = len(said) // len(batch)
            yield from said if each == 1 else (said[i : i + each] for i in range(0, len(said), each))

    @torch.no_grad()
    def score(
        self,
        clips: Sequence,
        candidates: Sequence[str],
        *,
        prompt: str | None = None,
        batch_size: int = 8,
        class_batch_size: int | None = 256,
    ) -> torch.FloatTensor:
        """
        How likely each of many narrations of each clip is.

        Args:
            clips (`Sequence`): to ask about.
            candidates (`Sequence[str]`): any number, the same for all clips.
            prompt (`str`, *optional*): instead of the session's, for this call.
            batch_size (`int`, *optional*, defaults to 8): clips at a time.
            class_batch_size (`int`, *optional*, defaults to 256): candidates at a time.

        Returns:
            `torch.FloatTensor` of shape `(num_clips, num_candidates)`: the mean log-likelihood of the tokens of each.

        Raises:
            ValueError: if a candidate has no word; as `read`.
        """
        _check_clips(clips, batch_size)
        if isinstance(candidates, str) or not candidates:
            raise ValueError(f"`candidates` must be a list of texts, but is {candidates!r}")
        classes = self.processor.encode_classes(list(candidates))
        clips, scores = list(clips), [torch.empty(0, len(candidates), device=self.model.device)]
        for start in range(0, len(clips), batch_size):
            prompts = self.read(clips[start : start + batch_size], prompt=prompt, index=start)
            scores.append(prompts.score(**classes, class_batch_size=class_batch_size))
        return torch.cat(scores)

    # ------------------------------------------------------------------------------------------------------- details

    def _common_beginning(self, features: torch.Tensor) -> CommonBeginning:
        """What all prompts begin with; another if its clips' features or the language model are others than before."""
        language_model, device_type = self.model.language_model, self.model.device.type
        if language_model.training:
            return CommonBeginning(self.model, features)  # dropout is in what it reads
        # Under autocast the cache is of another type.
        autocast = torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type)
        version = look_over({"language_model": language_model}), autocast
        before = self._beginning
        if before is None or before[0] != version or not torch.equal(before[1].features, features):
            self._beginning = before = None  # before another takes as much memory
            self._beginning = version, CommonBeginning(self.model, features)
        return self._beginning[1]

    def _read_whole(self, prompt: str, demonstrations: Sequence[Sequence[Demonstration]], features) -> ReadPrompts:
        """All of each clip's prompt; `features` are of all its clips, in reading order."""
        rows = [self._tokens(prompt, own) for own in demonstrations]
        batch = self.processor.pad([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows])
        batch = {name: values.to(self.model.device) for name, values in batch.items()}
        return self.model.read_prompts(**batch, **as_inputs(features))

    def _tokens(self, prompt: str, demonstrations: Sequence[Demonstration]) -> list[int]:
        text = self.processor.build_prompt([demonstration.narration for demonstration in demonstrations], prompt)
        if text.count(VIDEO_TOKEN) != len(demonstrations) + 1:
            raise ValueError(f"Neither prompt nor narrations may contain {VIDEO_TOKEN!r}, but here is {text!r}")
        input_ids = self.processor.encode(text)["input_ids"]
        check_length(self.model, len(input_ids))
        return input_ids

    def _encode(self, clips: Sequence) -> torch.Tensor:
        """(num_videos, num_query_tokens, hidden_size), on the model's device and of its type."""
        features = self.encoder.encode(clips, **self.clip_settings)
        stacked = torch.stack([own.video_hidden_states for own in features])
        return stacked.to(self.model.device, self.model.dtype)

    def _generate(self, prompts: ReadPrompts, **settings: Any) -> torch.LongTensor:
        """What comes after the prompts."""
        generated_ids = prompts.generate(**{**settings, "return_dict_in_generate": False})
        return self.processor.without_prompt(generated_ids, {"input_ids": prompts.input_ids})

    def _score_generated(self, prompts: ReadPrompts, generated_ids: torch.LongTensor, settings: dict) -> list[float]:
        """Of each narration, without what begins and ends it."""
        repeats = len(generated_ids) // len(prompts)
        if repeats > 1:
            prompts = prompts.select(
                torch.arange(len(prompts), device=generated_ids.device).repeat_interleave(repeats)
            )
        config = settings.get("generation_config") or self.model.generation_config
        names = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
        tokens = [settings.get(name, getattr(config, name)) for name in names]
        special = [i for token in tokens if token is not None for i in (token if isinstance(token, list) else [token])]
        is_word = ~torch.isin(generated_ids, torch.tensor(special, device=generated_ids.device))
        # Words first, so that none stands after what is left out.
        order = is_word.long().argsort(dim=1, descending=True, stable=True)
        words, mask = generated_ids.gather(1, order), is_word.gather(1, order)
        return prompts.log_likelihood(words, mask.long()).tolist()


def _check_clips(clips, batch_size: int = 1) -> None:
    if is_clip(clips):
        raise ValueError("`clips` must be a list of clips, but is one clip: give `[clip]`")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, but is {batch_size}")


def _check_encoder(encoder, model, processor) -> None:
    """Another model's features would be taken for this one's."""
    if encoder.model is not model and encoder.fingerprint != ClipEncoder(model, processor).fingerprint:
        raise ValueError("`encoder` is of another model or processor than the session's")


__all__ = ["InContextSession"]
