"""Who says what happens in a clip: the models that are compared, behind one face."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from ..data.narrated_clips import FrameLoader, hash_frames
from ..in_context.clip_features import ClipEncoder
from ..in_context.feature_store import ClipFeatureStore
from ..read_prompts import ReadPrompts, as_inputs, check_length
from ..weight_hashes import PartsHash
from .results import fingerprint_of


_ORIGIN = ("_name_or_path", "transformers_version")


class Narrator(Protocol):
    """
    Narrates samples of [`~transformers_eilev.data.InContextDataset`].

    Attributes:
        name (`str`): of the model, to show.
    """

    name: str

    def load_clip(self, row: Mapping[str, Any]) -> Any:
        """What a sample's `videos` shall have for a row of a clip store."""

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> list[str]:
        """A narration of each sample's last clip, in order; "" if nothing is said."""

    def fingerprint(self) -> str:
        """A hash of the weights and of all settings that decide what is said."""


def without_origin(config) -> dict[str, Any]:
    """What a config says of what is computed, and nothing of where it is from: the same whoever saved it."""
    return {name: value for name, value in config.to_dict().items() if name not in _ORIGIN}


class VideoBlipNarrator:
    """
    EILEV, VideoBLIP, or BLIP-2 over clips.

    Each clip is encoded once, in however many contexts it stands: its features are kept in memory by its stored
    frames, and on disk in `store`.

    Args:
        model ([`~transformers_eilev.VideoBlip2ForConditionalGeneration`]): on the device to run on.
        processor ([`~transformers_eilev.VideoBlip2Processor`]): the model's.
        name (`str`, *optional*): to show; by default the folder or id that the model was loaded from.
        store ([`~transformers_eilev.in_context.ClipFeatureStore`], *optional*): of features on disk, which processes
            share.
        max_memory_bytes (`int`, defaults to 1 GiB): of features in memory.
        generate_kwargs: settings of `model.generate`, instead of the checkpoint's own.
    """

    def __init__(
        self,
        model,
        processor,
        *,
        name: str | None = None,
        store: ClipFeatureStore | None = None,
        max_memory_bytes: int = 1 << 30,
        **generate_kwargs: Any,
    ):
        processor.check_config(model.config)
        self.model, self.processor = model, processor
        self.name = name or Path(model.name_or_path).name or type(model).__name__
        self.generate_kwargs = generate_kwargs
        # What is in memory is kept by the stored frames, which needs no decoding.
        store = ClipFeatureStore(max_memory_bytes=0) if store is None else store
        self._encoder = ClipEncoder(model, processor, store=store)
        self._load_frames = FrameLoader(processor.video_processor.num_frames)
        self._memory: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self._max_memory_bytes, self._weights = max_memory_bytes, PartsHash()

    def load_clip(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row itself: its frames are decoded only if its features are not there."""
        return row

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> list[str]:
        """As [`Narrator`]; for samples whose `videos` are rows."""
        prompts = self.read(samples, num_more=self._max_new_tokens())
        generated_ids = prompts.generate(**{**self.generate_kwargs, "return_dict_in_generate": False})
        generated_ids = self.processor.without_prompt(generated_ids, {"input_ids": prompts.input_ids})
        said = self.processor.post_process_narrations(generated_ids)
        if len(said) != len(samples):
            raise ValueError(f"One narration is wanted of each clip, but {len(said)} come of {len(samples)}")
        return said

    @torch.no_grad()
    def read(self, samples: Sequence[Mapping[str, Any]], *, num_more: int = 1) -> ReadPrompts:
        """
        The model reads the samples up to where it shall answer, to generate or to score candidates.

        Raises:
            ValueError: if a text and `num_more` tokens are longer than the language model can read.
        """
        rows = [self.processor.encode(sample["text"]) for sample in samples]
        check_length(self.model, max(len(row["input_ids"]) for row in rows), num_more)
        batch = {name: values.to(self.model.device) for name, values in self.processor.pad(rows).items()}
        clips = [row for sample in samples for row in sample["videos"]]
        return self.model.read_prompts(**batch, **(as_inputs(self._encode(clips)) if clips else {}))

    def fingerprint(self) -> str:
        """As [`Narrator`]."""
        model, processor = self.model, self.processor
        settings = [
            self._weights({"language_model": model.language_model}),
            self._encoder.fingerprint,
            without_origin(model.config.text_config),
            # Other attention, other roundings.
            [part._attn_implementation for part in (model.config.text_config, model.config.vision_config)],
            {**without_origin(model.generation_config), **self.generate_kwargs},
            [processor.tokenizer.backend_tokenizer.to_str(), processor.prompt_layout, processor.num_query_tokens],
            processor.video_processor.num_frames,
        ]
        return fingerprint_of(settings, default=str)

    def _max_new_tokens(self) -> int:
        return self.generate_kwargs.get("max_new_tokens") or self.model.generation_config.max_new_tokens or 1

    def _encode(self, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """(num_videos, num_query_tokens, hidden_size), on the model's device and of its type; of one clip at least."""
        keys = [hash_frames(row) for row in rows]
        features = {key: self._memory[key] for key in keys if key in self._memory}
        missing = {key: row for key, row in zip(keys, rows) if key not in features}
        encoded = self._encoder.encode([self._load_frames(row) for row in missing.values()]) if missing else []
        features.update({key: own.video_hidden_states for key, own in zip(missing, encoded)})
        for key in keys:
            self._memory[key] = features[key]
            self._memory.move_to_end(key)
        while len(self._memory) * features[keys[0]].nbytes > self._max_memory_bytes:
            self._memory.popitem(last=False)
        return torch.stack([features[key] for key in keys]).to(self.model.device, self.model.dtype)


__all__ = ["Narrator", "VideoBlipNarrator", "without_origin"]
