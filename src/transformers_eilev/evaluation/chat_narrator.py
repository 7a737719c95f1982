"""Any image-text-to-text model of transformers as a narrator, asked through its own chat template."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, TokenizersBackend

from ..data.narrated_clips import FrameLoader
from ..data.narrations import PROMPTS, VIDEO_BLIP_PROMPT
from ..processing_video_blip_2 import VIDEO_TOKEN
from ..weight_hashes import PartsHash
from .narrators import without_origin
from .results import fingerprint_of


# By how the frames of a clip are shown: what a processor must have for it.
_NEEDED = {"images": "image_processor", "video": "video_processor"}


class Turn(NamedTuple):
    """
    One block of a sample.

    Attributes:
        question (`str`): what is asked.
        narration (`str`, *optional*): the answer; `None` for the query.
        frames (`Sequence[PIL.Image.Image]`, *optional*): the clip, if the block has one.
    """

    question: str
    narration: str | None
    frames: Sequence | None


def turns_of(sample: Mapping[str, Any], prompts: Sequence[str] = PROMPTS) -> list[Turn]:
    """
    Takes the prompt of a sample apart: the demonstrations, and last the query.

    Args:
        sample (`Mapping`): of [`~transformers_eilev.data.InContextDataset`], with `text` and `videos`.
        prompts (`Sequence[str]`): questions that its blocks may begin with; besides, VideoBLIP's and the query's own
            are known.

    Raises:
        ValueError: if a block begins with none of the questions, or there are more or fewer clips than `<video>` in
            the text, with the sample's `frame_path`.
    """
    where = f"the sample of {sample.get('frame_path')!r}"
    has_clip = [block.startswith(VIDEO_TOKEN) for block in sample["text"]]
    if sum(has_clip) != len(sample["videos"]):
        raise ValueError(
            f"`text` of {where} has {sum(has_clip)} `{VIDEO_TOKEN}`, but `videos` has {len(sample['videos'])} clips"
        )
    clips = iter(sample["videos"])
    frames = [next(clips) if has else None for has in has_clip]
    *demonstrations, query = (block.removeprefix(VIDEO_TOKEN) for block in sample["text"])
    # Some questions begin with another: the longest is meant.
    questions = sorted({*prompts, VIDEO_BLIP_PROMPT, query}, key=len, reverse=True)
    turns = []
    for text, clip in zip(demonstrations, frames):
        question = next((question for question in questions if text.startswith(f"{question} ")), None)
        if question is None:
            raise ValueError(f"A block of {where} begins with none of {len(questions)} known questions: {text!r}")
        turns.append(Turn(question, text.removeprefix(question).strip(), clip))
    return [*turns, Turn(query, None, frames[-1])]


class ChatNarrator:
    """
    A [`Narrator`] that shows each demonstration as a turn of the user (frames and question) and one of the assistant
    (the narration), and the clip to narrate as the user's last turn.

    Args:
        model (`PreTrainedModel`): of `AutoModelForImageTextToText`, on the device to run on.
        processor (`ProcessorMixin`): the model's, with a chat template. Its settings hold, such as
            `processor.image_processor.do_image_splitting = False`, without which some models see each frame as many.
        name (`str`, *optional*): to show; by default the folder or id that the model was loaded from.
        frames_as (`str`, defaults to "images"): "images" shows frames as so many images, "video" as one video.
        num_frames (`int`, *optional*): of each clip, uniformly out of those that are stored; by default all of them.
        clip_sec (`float`, defaults to 8): how long a clip is, for models that are told the times of a video's frames;
            EILEV's are 8 s long.
        instruction (`str`, *optional*): said first, in the system's name.
        prompts (`Sequence[str]`): questions that may be asked; see [`turns_of`].
        max_new_tokens (`int`, defaults to 32): the most tokens to say.
        generate_kwargs: for `model.generate`, instead of the checkpoint's own settings. By default the likeliest token
            is said at each step.

    Raises:
        ValueError: an argument, by name; if the processor has no chat template, or can't take frames that way.
    """

    def __init__(
        self,
        model,
        processor,
        *,
        name: str | None = None,
        frames_as: str = "images",
        num_frames: int | None = None,
        clip_sec: float = 8.0,
        instruction: str | None = None,
        prompts: Sequence[str] = PROMPTS,
        max_new_tokens: int = 32,
        **generate_kwargs: Any,
    ):
        _check(processor, frames_as, clip_sec, max_new_tokens)
        self.model, self.processor = model, processor
        self.name = name or Path(model.name_or_path).name or type(model).__name__
        self.frames_as, self.clip_sec, self.instruction = frames_as, clip_sec, instruction
        self.prompts = tuple(prompts)
        self.generate_kwargs = {
            "do_sample": False,
            "num_beams": 1,
            **generate_kwargs,
            "max_new_tokens": max_new_tokens,
        }
        self.load_clip = FrameLoader(num_frames)
        self._weights = PartsHash()

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, dtype="auto", device="cpu", **kwargs: Any) -> "ChatNarrator":
        """
        Loads model and processor.

        Args:
            name_or_path (`str`): of a checkpoint.
            dtype (`str` or `torch.dtype`, defaults to "auto"): of the weights; by default as they are stored.
            device (`str` or `torch.device`, defaults to "cpu"): to run on.
            kwargs: of [`ChatNarrator`].
        """
        processor = AutoProcessor.from_pretrained(name_or_path)
        model = AutoModelForImageTextToText.from_pretrained(name_or_path, dtype=dtype)
        return cls(model.to(device).eval(), processor, **kwargs)

    def make_chat(self, sample: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The messages of a sample, as `processor.apply_chat_template` takes them."""
        chat = [] if self.instruction is None else [_message("system", _text(self.instruction))]
        for turn in turns_of(sample, self.prompts):
            chat.append(_message("user", *self._show(turn.frames), _text(turn.question)))
            if turn.narration is not None:
                chat.append(_message("assistant", _text(turn.narration)))
        return chat

    def encode(self, samples: Sequence[Mapping[str, Any]]):
        """
        What the model takes, padded on the left.

        Raises:
            ValueError: if a text and the tokens to say are longer than the language model can read, with the numbers.
        """
        chats = [self.make_chat(sample) for sample in samples]
        inputs = self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left", **self._video_kwargs(samples)},
        )
        self._check_length(inputs["input_ids"].shape[1])
        return inputs

    @torch.no_grad()
    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> list[str]:
        """As [`Narrator`]: the first line of what is said."""
        if not samples:
            return []
        inputs = self.encode(samples).to(self.model.device, self.model.dtype)
        generated_ids = self.model.generate(**inputs, **{**self.generate_kwargs, "return_dict_in_generate": False})
        if len(generated_ids) != len(samples):
            raise ValueError(
                f"One narration is wanted of each clip, but {len(generated_ids)} come of {len(samples)}: leave "
                "`num_return_sequences` at 1"
            )
        if not self.model.config.is_encoder_decoder:
            generated_ids = generated_ids[:, inputs["input_ids"].shape[1] :]
        said = self.processor.batch_decode(generated_ids, skip_special_tokens=True)
        return [text.strip().partition("\n")[0].strip() for text in said]

    def fingerprint(self) -> str:
        """As [`Narrator`]."""
        model, processor = self.model, self.processor
        settings = [
            self._weights({"model": model}),
            without_origin(model.config),
            {**without_origin(model.generation_config), **self.generate_kwargs},
            [processor.to_dict(), processor.chat_template, _describe(processor.tokenizer)],
            [self.frames_as, self.load_clip.num_frames, self.clip_sec, self.instruction, self.prompts],
        ]
        return fingerprint_of(settings, default=str)

    # ------------------------------------------------------------------------------------------------------- details

    def _show(self, frames: Sequence | None) -> list[dict[str, Any]]:
        if frames is None:
            return []
        if self.frames_as == "video":
            return [{"type": "video", "video": list(frames)}]
        return [{"type": "image", "image": frame} for frame in frames]

    def _video_kwargs(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        clips = [clip for sample in samples for clip in sample["videos"]]
        if self.frames_as == "images" or not clips:
            return {}
        # Without times, processors take the frames of a clip for a third of a second. The frames are chosen already.
        metadata = [
            {
                "total_num_frames": len(clip),
                "fps": len(clip) / self.clip_sec,
                "duration": self.clip_sec,
                "frames_indices": list(range(len(clip))),
            }
            for clip in clips
        ]
        return {"do_sample_frames": False, "video_metadata": metadata}

    def _check_length(self, num_tokens: int) -> None:
        longest = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        num_more = self.generate_kwargs["max_new_tokens"]
        if longest is not None and num_tokens + num_more > longest:
            raise ValueError(
                f"A chat of {num_tokens} tokens and {num_more} more are longer than the {longest} that the language "
                "model can read: give fewer demonstrations or frames"
            )


def _check(processor, frames_as: str, clip_sec: float, max_new_tokens: int) -> None:
    if frames_as not in _NEEDED:
        raise ValueError(f"`frames_as` must be one of {tuple(_NEEDED)}, but is {frames_as!r}")
    if getattr(processor, _NEEDED[frames_as], None) is None:
        other = next(name for name in _NEEDED if name != frames_as)
        raise ValueError(
            f"`frames_as` is {frames_as!r}, but {type(processor).__name__} has no {_NEEDED[frames_as]}: try {other!r}"
        )
    if processor.chat_template is None:
        raise ValueError(f"`processor`, a {type(processor).__name__}, has no chat template: the model can't chat")
    if clip_sec <= 0:
        raise ValueError(f"`clip_sec` must be above 0, but is {clip_sec}")
    if max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` must be at least 1, but is {max_new_tokens}")


def _message(role: str, *content: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _describe(tokenizer) -> Any:
    """What decides its tokens, without what its last call left in it."""
    if isinstance(tokenizer, TokenizersBackend):
        return {**json.loads(tokenizer.backend_tokenizer.to_str()), "padding": None, "truncation": None}
    return [type(tokenizer).__name__, tokenizer.get_vocab()]


__all__ = ["ChatNarrator", "Turn", "turns_of"]
