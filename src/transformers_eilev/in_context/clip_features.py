"""Clips to features, each clip once: by what decides them, they are looked up before anything is decoded or computed.

A clip's features depend on its frames, on the settings by which frames become pixels, and on the weights of the vision
model, the Q-Former and the projection; on nothing else in the text. All of this is in a clip's key: the SHA-256 of its
file's bytes and where in it the clip lies, or of the frames that were given, and the encoder's `fingerprint`.
"""

import hashlib
import json
import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn

from ..video_processing_video_blip_2 import PIXEL_SETTINGS, ClipSpan, is_clip
from ..video_reading import ClipWindow, ReadLimits, VideoReadError, VideoReadWarning, VideoSource, iter_clips
from ..video_sources import open_source, source_name
from ..weight_hashes import PartsHash, hash_weights
from .feature_store import ClipFeatures, ClipFeatureStore


# Of what features are and how keys are made: another one, and none that was stored before is found.
VERSION = 1

# The parts of a model that its features come from.
_PARTS = ("vision_model", "query_tokens", "qformer", "language_projection")
# Of their configs, what their weights don't show.
_CONFIG_FIELDS = ("hidden_act", "layer_norm_eps", "num_attention_heads")

CLIP_SETTINGS = ("num_frames", "fps", "start", "end")

# Files' clocks tick so seldom that one written to twice within a tick looks as if it had been once.
_SETTLED_NS = 2_000_000_000
_MAX_DIGESTS = 1 << 16
_DIGESTS: dict[tuple, str] = {}  # of files, by what tells that they are as they were


class ClipEncoder:
    """
    Gives the features of clips, computed once for each clip.

    Whatever changes them makes them be computed anew: other content under the same name, other settings of the
    processor, weights that were trained or loaded, another type, another adapter. The model may be on any device, of
    any type, quantized, or have adapters; it runs as in evaluation, without gradients and autocast, and is left in the
    mode it was in. The weights are hashed at the first call (seconds for billions of them), and looked over at each.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]): or a PEFT model of it.
        processor ([`VideoBlip2Processor`] or [`VideoBlip2VideoProcessor`]): whose settings clips are read by.
        store ([`ClipFeatureStore`], *optional*): where features are kept; by default in memory, for this encoder
            alone.
        batch_size (`int`, defaults to 8): clips to compute at a time.

    Raises:
        ValueError: if `batch_size` is less than 1.

    Example:

    ```python
    >>> encoder = ClipEncoder(model, processor, store=ClipFeatureStore("features"))
    >>> features = encoder.encode(["first.mp4", ClipSpan("kitchen.mp4", start=12.0)])
    >>> features[0].video_hidden_states.shape
    torch.Size([32, 2560])
    ```
    """

    def __init__(self, model: nn.Module, processor, *, store: ClipFeatureStore | None = None, batch_size: int = 8):
        _check_batch_size(batch_size)
        self.model = model
        self.processor = processor
        self.store = ClipFeatureStore() if store is None else store
        self.batch_size = batch_size
        self._parts_hash = PartsHash()

    @property
    def fingerprint(self) -> str:
        """The hash of the weights and of the processor's settings that features depend on, as they are now.

        Raises:
            ValueError: if a weight is offloaded, by its name.
        """
        config = self.model.config
        return _hash_json(
            {
                "version": VERSION,
                "parts": self._parts_hash(self._parts()),
                "configs": [
                    {name: getattr(part, name) for name in _CONFIG_FIELDS}
                    for part in (config.vision_config, config.qformer_config)
                ],
                "pixels": {name: getattr(self._video_processor, name) for name in PIXEL_SETTINGS},
            }
        )

    def key(self, clip, **clip_settings) -> str:
        """
        What the features of a clip are kept by. A file object that can't be rewound is read up by this.

        Args:
            clip, clip_settings: as in `encode`.

        Returns:
            `str`: 64 hexadecimal digits.

        Raises: as `encode`, for what concerns the file and not what is in it.
        """
        return self.keys([clip], **clip_settings)[0]

    def keys(self, clips: Sequence, **clip_settings) -> list[str]:
        """What the features of each of many clips are kept by; see `key`."""
        requests = self._requests(clips, clip_settings)
        fingerprint = self.fingerprint
        with _Sources(requests) as sources:
            keys = []
            for request in requests:
                keys.append(self._key(request, sources, fingerprint))
                sources.release(request)
            return keys

    def encode(self, clips: Sequence, *, batch_size: int | None = None, **clip_settings) -> list[ClipFeatures]:
        """
        The features of clips. Those of one file that are computed together are read in one pass over it.

        Args:
            clips (`Sequence`): each a [`ClipSpan`], or one clip as the video processor takes it: a path, a URL, bytes,
                a file object, or frames as an array, a tensor or a list of PIL images. A URL is downloaded by each
                call.
            batch_size (`int`, *optional*): clips to compute at a time; by default the encoder's.
            num_frames (`int`), fps, start, end (`float`): as the video processor takes them, for all clips; a span's
                own `start` and `end` come before. Of frames that are given, `num_frames` alone is asked.

        Returns:
            `list[ClipFeatures]`: in the order of `clips`, on the CPU.

        Raises:
            VideoReadError: if a file can't be read as a video, or changes while it is read, naming it and why.
            FileNotFoundError: if there is no such file.
            TypeError: for another setting, by name.
            ValueError: if something else is given as a clip, by its index; if a setting doesn't fit.
            Whichever it is, the features of the clips before that one are in the store.

        Warns:
            VideoReadWarning: once for each clip of which frames are missing, whether it is read or was before.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        _check_batch_size(batch_size)
        requests = self._requests(clips, clip_settings)
        fingerprint = self.fingerprint
        keys, found, missing = [], {}, {}
        with _Sources(requests) as sources:
            try:
                for request in requests:
                    key = self._key(request, sources, fingerprint)
                    keys.append(key)
                    if key not in found and key not in missing:
                        features = self._look_up(key, request)
                        if features is None:
                            missing[key] = request
                            if len(missing) == batch_size:
                                self._compute(missing, found, sources)
                            continue
                        found[key] = features
                    sources.release(request)
            except Exception:
                self._compute(missing, found, sources)  # the clips before the one that failed
                raise
            self._compute(missing, found, sources)
        return [found[key] for key in keys]

    @property
    def _video_processor(self):
        return getattr(self.processor, "video_processor", self.processor)

    def _parts(self) -> dict[str, nn.Module | torch.Tensor]:
        return {name: getattr(self.model, name) for name in _PARTS}

    def _requests(self, clips: Sequence, clip_settings: dict[str, Any]) -> list["_Request"]:
        """What is asked for; looks at nothing but the arguments."""
        unknown = sorted(clip_settings.keys() - set(CLIP_SETTINGS))
        if unknown:
            raise TypeError(f"A clip has the settings {', '.join(CLIP_SETTINGS)}, but not {', '.join(unknown)}")
        if is_clip(clips):
            raise ValueError("`clips` must be a sequence of clips, but is one clip: give `[clip]`")
        requests = []
        for index, clip in enumerate(clips):
            span = clip if isinstance(clip, ClipSpan) else ClipSpan(clip)
            if not is_clip(span.source):
                raise ValueError(
                    f"clips[{index}] must be a ClipSpan, a path, a URL, bytes, a binary file object, an array of "
                    f"frames or a list of PIL images, but is {clip!r} of type {type(clip).__name__}"
                )
            requests.append(self._request(span, clip_settings))
        return requests

    def _request(self, span: ClipSpan, clip_settings: dict[str, Any]) -> "_Request":
        settings = {**clip_settings, **span.times}
        source = span.source
        if isinstance(source, dict):
            source = source.get("bytes") or source["path"]
        if isinstance(source, np.ndarray | torch.Tensor | list | tuple):
            asked = {name: value for name, value in clip_settings.items() if name == "num_frames"}
            return _Request(source, {**asked, **span.times})
        try:
            window = self._video_processor.clip_window(**settings)
            # 12, 12.0 and Fraction(12) are one time.
            exact = {k: None if value is None else str(Fraction(value)) for k, value in vars(window).items()}
        except (TypeError, ValueError) as error:
            raise type(error)(f"{source_name(source)}: {error}") from error
        return _Request(source, settings, window, exact)

    def _key(self, request: "_Request", sources: "_Sources", fingerprint: str) -> str:
        if request.window is None:
            content = hash_weights([("frames", self._frames(request))])
        else:
            content = sources.open(request).digest
        return _hash_json({"fingerprint": fingerprint, "content": content, "window": request.exact_window})

    def _frames(self, request: "_Request") -> torch.Tensor:
        """Of frames that are given, those that are asked for, uint8, of shape (num_frames, 3, height, width)."""
        raw = {"do_resize": False, "do_rescale": False, "do_normalize": False}
        return self._video_processor(request.source, **raw, **request.settings)["pixel_values"][0]

    def _pixel_values(self, frames: torch.Tensor) -> torch.Tensor:
        return self._video_processor(frames, do_sample_frames=False)["pixel_values"][0]

    def _look_up(self, key: str, request: "_Request") -> ClipFeatures | None:
        features = self.store.get(key)
        if features is not None and features.message:
            name = source_name(request.source)
            warnings.warn(f"{name}: clip {request.window}: {features.message}", VideoReadWarning, stacklevel=3)
        return features

    def _compute(self, missing: dict[str, "_Request"], found: dict[str, ClipFeatures], sources: "_Sources") -> None:
        """Moves clips from `missing` to `found`, and into the store; up to the first one that can't be read."""
        requests = dict(missing)
        missing.clear()
        clips = self._read(list(requests.values()), sources)
        failed = next((clip for clip in clips if isinstance(clip, Exception)), None)
        if failed is not None:
            clips = clips[: clips.index(failed)]
        if clips:
            for key, features in zip(requests, self._run(clips)):
                self.store.put(key, features)
                found[key] = features
        if failed is not None:
            raise failed

    def _read(self, requests: list["_Request"], sources: "_Sources") -> list["tuple[torch.Tensor, str] | Exception"]:
        """Of each clip its pixel values and what is missing of it, or why it can't be read."""
        clips = [None] * len(requests)
        together = defaultdict(list)
        for index, request in enumerate(requests):
            together[request.identity].append(index)
        for indices in together.values():
            try:
                for index, clip in self._read_file([requests[index] for index in indices], sources):
                    clips[indices[index]] = clip
            except Exception as error:
                for index in indices:
                    clips[index] = clips[index] or error
            for index in indices:
                sources.release(requests[index])
        return clips

    def _read_file(self, requests: list["_Request"], sources: "_Sources") -> Iterator[tuple[int, Any]]:
        """Clips of one source, with their indices, as they are read."""
        if requests[0].window is None:
            for index, request in enumerate(requests):
                yield index, (self._pixel_values(self._frames(request)), "")
            return
        video = sources.open(requests[0])
        for index, clip in iter_clips(video, [request.window for request in requests]):
            video.check_unchanged()
            is_read = not isinstance(clip, Exception)
            yield index, (self._pixel_values(clip.frames), clip.message) if is_read else clip

    def _run(self, clips: list[tuple[torch.Tensor, str]]) -> list[ClipFeatures]:
        """Runs the model over the pixel values of clips, each of shape (num_frames, 3, height, width)."""
        inputs = self._video_processor.pad_frames([pixel_values for pixel_values, _ in clips])
        # (num_clips, num_frames, 3, height, width)
        pixel_values = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        with _evaluating(self._parts().values(), pixel_values.device.type):
            outputs = self.model.get_video_features(
                pixel_values, frame_mask=inputs.get("frame_mask"), return_dict=True
            )
            tokens_per_frame = outputs.last_hidden_state.shape[1] // pixel_values.shape[1]
            means = [
                tokens[: len(frames) * tokens_per_frame].float().mean(0)  # not over the frames that fill up
                for tokens, (frames, _) in zip(outputs.last_hidden_state, clips)
            ]
            vision, queries, hidden_states = (
                tensor.cpu()
                for tensor in (
                    torch.stack(means),
                    outputs.qformer_outputs.last_hidden_state.float().mean(1),
                    outputs.pooler_output,
                )
            )
            # Copies: a view would hold all of the batch.
            return [
                ClipFeatures(hidden_states[index].clone(), vision[index].clone(), queries[index].clone(), message)
                for index, (_, message) in enumerate(clips)
            ]


@contextmanager
def _evaluating(parts, device_type: str) -> Iterator[None]:
    """As in evaluation whatever is around it: no dropout, gradients, autocast or tensors that none can be taken of."""
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        for module, mode in zip(modules, modes):
            module.training = mode


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, but is {batch_size}")


def _hash_json(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=dict).encode()).hexdigest()


# -------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class _Request:
    """One clip that is asked for."""

    source: Any  # of a file, or frames
    settings: dict[str, Any]
    window: ClipWindow | None = None  # of a file
    exact_window: dict[str, str | None] | None = None

    @property
    def identity(self) -> str | int:
        """The same for the same source."""
        return os.fsdecode(self.source) if isinstance(self.source, str | os.PathLike) else id(self.source)


class _Video:
    """A video's bytes: a seekable binary file with the name that errors call it by, and the SHA-256 of its content."""

    def __init__(self, source: VideoSource, stack: ExitStack):
        file = open_source(source, limits=ReadLimits(), stack=stack)
        self.name = source_name(source)
        self.read, self.seek, self.tell = file.read, file.seek, file.tell
        # Not what was downloaded: that is nowhere else.
        is_path = isinstance(source, str | os.PathLike) and getattr(file, "name", None) == os.fsdecode(source)
        self._descriptor = file.fileno() if is_path else None
        self._stat = os.fstat(self._descriptor) if is_path else None
        self.digest = self._digest(os.path.realpath(source) if is_path else None)

    def check_unchanged(self) -> None:
        """Raises if what is decoded may not be what was hashed."""
        if self._descriptor is not None:
            now = os.fstat(self._descriptor)
            if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
                raise VideoReadError(self.name, "it changed while it was read")

    def _digest(self, path: str | None) -> str:
        if path is None:
            return self._hash()
        stat = self._stat
        known = (path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)
        if known in _DIGESTS:
            return _DIGESTS[known]
        is_settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
        digest = self._hash()
        self.check_unchanged()
        if is_settled:
            if len(_DIGESTS) >= _MAX_DIGESTS:
                del _DIGESTS[next(iter(_DIGESTS))]
            _DIGESTS[known] = digest
        return digest

    def _hash(self) -> str:
        digest = hashlib.sha256()
        self.seek(0)
        while chunk := self.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


class _Sources:
    """The files of the clips of a call, each open from its first clip to its last: a URL is downloaded once."""

    def __init__(self, requests: list[_Request]):
        self._left = Counter(request.identity for request in requests)
        self._videos: dict[str | int, tuple[_Video, ExitStack]] = {}

    def open(self, request: _Request) -> _Video:
        if request.identity not in self._videos:
            with ExitStack() as stack:
                video = _Video(request.source, stack)
                self._videos[request.identity] = video, stack.pop_all()
        return self._videos[request.identity][0]

    def release(self, request: _Request) -> None:
        """Once for each clip, when nothing more is wanted of it."""
        self._left[request.identity] -= 1
        if not self._left[request.identity] and request.identity in self._videos:
            self._videos.pop(request.identity)[1].close()

    def __enter__(self) -> "_Sources":
        return self

    def __exit__(self, *_: Any) -> None:
        for _video, stack in self._videos.values():
            stack.close()
        self._videos.clear()


__all__ = ["ClipEncoder", "ClipFeatureStore", "ClipFeatures"]
