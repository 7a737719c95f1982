"""Which demonstrations of a library to show before a new clip."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.context_samplers import InContextSampler
from ..data.files import atomic_file, write_json
from ..video_processing_video_blip_2 import ClipSpan
from ..video_sources import source_name
from .library import Demonstration, as_demonstrations, check_words, span_of
from .similarity import NearestRows, SimilaritySampler, arrange, check_choice, combine, import_faiss


VERSION = 1
_EMBEDDINGS = {"video": "vision_embedding", "qformer": "qformer_embedding"}
_KINDS = (*_EMBEDDINGS, "text")
_DRAWN = ("labels", "random")
_VECTORS, _INDEX = "vectors.safetensors", "index.json"
# Clips encoded between two steps of the progress bar.
_ENCODED_TOGETHER = 32


class DemonstrationFinder:
    r"""
    Chooses which demonstrations of a library to show before a new clip.

    The clip itself is never chosen: none with the same content, nor one of the same file whose time overlaps.

    Args:
        demonstrations (`Sequence`): [`Demonstration`]s, or pairs of a clip and its narration.
        num_examples (`int`): how many to choose; all, where there are fewer.
        by (`str` or `Mapping[str, float]`, *optional*, defaults to "video"): nearest by "video" (the vision model's
            embedding of clips), "qformer" (the Q-Former's) or "text" (of narrations), or by several, such as
            `{"video": 0.7, "text": 0.3}`, with the weight of each one's cosine; or drawn: "labels" (as EILEV was
            trained: of the same verb or the same noun; see [`InContextSampler`]) or "random".
        encoder ([`ClipEncoder`], *optional*): gives the embeddings, which it keeps. Needed for "video" and "qformer".
        text_encoder (`Callable[[list[str]], torch.Tensor]`, *optional*): gives vectors of shape `(num_texts, dim)`; by
            default the means of the embeddings of tokens in the encoder's language model.
        order (`str`, *optional*, defaults to "nearest_last"): of the prompt: "nearest_last", "nearest_first" or
            "random". What is drawn stands in random order.
        index_factory (`str`, *optional*): of faiss, as for [`SimilaritySampler`].
        seed (`int`, *optional*, defaults to 0): of what is drawn.
        clip_settings: of the video processor for all clips: `num_frames`, `fps`, `start`, `end`.

    Raises:
        ImportError: without faiss, for what is found by likeness.
        ValueError: for settings that can't be; for a demonstration without words or, where clips are compared, whose
            clip can't be read, by its name. Of what is drawn no file is looked at: see [`check_demonstrations`].
    """

    def __init__(
        self,
        demonstrations: Sequence,
        *,
        num_examples: int,
        by: str | Mapping[str, float] = "video",
        encoder=None,
        text_encoder: Callable[[list[str]], torch.Tensor] | None = None,
        order: str = "nearest_last",
        index_factory: str | None = None,
        seed: int = 0,
        _vectors: dict[str, np.ndarray] | None = None,
        **clip_settings: Any,
    ):
        check_choice(num_examples, order, seed)
        self.demonstrations = as_demonstrations(demonstrations)
        if not self.demonstrations:
            raise ValueError("There are no demonstrations to choose from")
        check_words(self.demonstrations)
        self.by = _check_by(by)
        self.num_examples, self.order, self.seed = num_examples, order, seed
        self.encoder, self.index_factory, self.clip_settings = encoder, index_factory, clip_settings
        if encoder is None and _EMBEDDINGS.keys() & self.by.keys():
            raise ValueError(f"To choose by {by!r}, give an `encoder` of clips")
        if "text" in self.by and text_encoder is None:
            if encoder is None:
                raise ValueError("To choose by 'text', give a `text_encoder`, or an `encoder` with a language model")
            text_encoder = _TokenMeans(encoder)
        self.text_encoder = text_encoder
        if "labels" in self.by and not any(own.verb or own.noun for own in self.demonstrations):
            raise ValueError("To choose by 'labels', demonstrations need a `verb` or a `noun`, but none has one")
        if self._is_nearest:
            import_faiss()  # before clips are encoded for nothing
        self._spans = [_place_of(own, self._window()) for own in self.demonstrations]
        self._keys = self._fingerprint = None
        self._vectors, self._index = _vectors, None
        if self._is_nearest:
            self._embed()

    def find(
        self,
        clip=None,
        *,
        text: str | None = None,
        verb: str | None = None,
        noun: str | None = None,
        index: int = 0,
        exclude: Sequence = (),
        origin=None,
    ) -> list[Demonstration]:
        """
        Chooses demonstrations.

        Args:
            clip (*optional*): that is asked about, as the video processor takes it. May be left out
                where nothing is found by clips.
            text (`str`, *optional*): to compare narrations with, such as a draft. Needed for "text".
            verb, noun (`str`, *optional*): of the clip. One of them is needed for "labels".
            index (`int`, *optional*, defaults to 0): of the query: another one, another draw.
            exclude (`Sequence`, *optional*): [`Demonstration`]s, or their rows, not to choose.
            origin ([`ClipSpan`], *optional*): where the clip is from, if it is given as frames.

        Returns:
            `list[Demonstration]`: in the order of the prompt.

        Raises:
            ValueError: if what is needed is missing.
            VideoReadError, FileNotFoundError: if the clip can't be read.
        """
        rows = self.find_rows(clip, text=text, verb=verb, noun=noun, index=index, exclude=exclude, origin=origin)
        return [self.demonstrations[row] for row in rows]

    def __call__(self, clip) -> list[tuple[Any, str]]:
        """Pairs of a clip and its narration, as a pipeline takes them: `narrate(clips, demonstrations=finder)`."""
        return [(span_of(own), own.narration) for own in self.find(clip)]

    def find_rows(self, clip=None, *, text=None, verb=None, noun=None, index=0, exclude=(), origin=None) -> list[int]:
        """The rows of what `find` returns."""
        self._check_query(clip, text, verb, noun)
        if self.encoder is not None and self._keys_now() != self._keys:
            # The first draw, or the model has learned since, or a file has changed.
            self._vectors = None
            self._embed()
        excluded = self._excluded(clip, exclude, origin)
        if not self._is_nearest:
            return self._draw(verb or "", noun or "", index, excluded)
        query = combine(self._query_vectors(clip, text), self.by, "query")
        [rows] = self._index.search(query, self.num_examples, [excluded])
        return arrange(rows, self.order, [self.seed, 0, index])

    @property
    def compares_texts(self) -> bool:
        """Whether `find` needs a `text`."""
        return "text" in self.by

    def save(self, folder: str | os.PathLike) -> None:
        """
        Writes the vectors of the library, and what they are of, for `load`.

        Raises:
            ValueError: if demonstrations are drawn, not found by vectors.
        """
        from safetensors.torch import save

        if not self._is_nearest:
            raise ValueError(f"What is chosen by {next(iter(self.by))!r} has no vectors to save")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = save({kind: torch.from_numpy(vectors) for kind, vectors in self._vectors.items()})
        with atomic_file(folder / _VECTORS) as file:
            file.write(content)
        settings = {name: getattr(self, name) for name in ("num_examples", "order", "index_factory", "seed")}
        about = {**self._about(), "vectors": hashlib.sha256(content).hexdigest()}
        write_json(folder / _INDEX, {"by": self.by, "settings": settings, "about": about})

    @classmethod
    def load(cls, folder: str | os.PathLike, demonstrations: Sequence, encoder=None, *, text_encoder=None, **settings):
        """
        A finder that was saved, without encoding the library again.

        Args:
            folder (`str` or `os.PathLike`): of `save`.
            demonstrations, encoder, text_encoder: as it was made with.
            settings: `num_examples`, `order`, `index_factory`, `seed` instead of those that were saved.

        Raises:
            FileNotFoundError: if nothing was saved there.
            ValueError: if it is of another model, of other settings or of another library, by name of what differs.
        """
        from safetensors.torch import load

        folder = Path(folder)
        saved = json.loads((folder / _INDEX).read_text())
        content = (folder / _VECTORS).read_bytes()
        if hashlib.sha256(content).hexdigest() != saved["about"].pop("vectors"):
            raise ValueError(f"{folder / _VECTORS} is not the file that {_INDEX} was written with")
        unknown = sorted(settings.keys() - saved["settings"].keys())
        if unknown:
            raise TypeError(f"Of a saved finder {', '.join(saved['settings'])} may be changed, not {unknown}")
        finder = cls(
            demonstrations,
            by=saved["by"],
            encoder=encoder,
            text_encoder=text_encoder,
            _vectors={kind: vectors.numpy() for kind, vectors in load(content).items()},
            **{**saved["settings"], **settings},
            **saved["about"]["clip_settings"],
        )
        _check_same(saved["about"], finder._about(), folder)
        finder._check_text_encoder(folder)
        return finder

    @property
    def _is_nearest(self) -> bool:
        return not self.by.keys() & set(_DRAWN)

    def _window(self) -> tuple[float, float]:
        """Where a clip lies in its video if that isn't said, in seconds."""
        settings = self.clip_settings
        if self.encoder is None:
            return settings.get("start") or 0.0, settings.get("end") or float("inf")
        processor = getattr(self.encoder.processor, "video_processor", self.encoder.processor)
        window = processor.clip_window(**settings)
        return float(window.start or 0), float("inf") if window.end is None else float(window.end)

    def _embed(self) -> None:
        if self.encoder is not None:
            self._fingerprint = self.encoder.fingerprint
            self._keys = self._keys_now()
        if not self._is_nearest:
            return
        if self._vectors is None:
            self._vectors = self._clip_vectors()
            if "text" in self.by:
                self._vectors["text"] = self._text_vectors([own.narration for own in self.demonstrations])
        self._index = NearestRows(combine(self._vectors, self.by, "demonstrations"), self.index_factory)

    def _clip_vectors(self) -> dict[str, np.ndarray]:
        from tqdm import tqdm

        kinds = [kind for kind in _EMBEDDINGS if kind in self.by]
        vectors = {kind: [] for kind in kinds}
        total = len(self.demonstrations) if kinds else 0
        with tqdm(total=total, unit="clip", desc="Encoding demonstrations", disable=None if kinds else True) as bar:
            for start in range(0, total, _ENCODED_TOGETHER):
                rows = range(start, min(start + _ENCODED_TOGETHER, total))
                for features in self._encode(rows):
                    for kind in kinds:
                        vectors[kind].append(getattr(features, _EMBEDDINGS[kind]).numpy())
                bar.update(len(rows))
        return {kind: np.stack(own) for kind, own in vectors.items()}

    def _encode(self, rows: range) -> list:
        spans = [span_of(self.demonstrations[row]) for row in rows]
        try:
            return self.encoder.encode(spans, **self.clip_settings)
        except (OSError, ValueError):
            # One by one, to see which. What was read is kept.
            return [self._of_row(row, self._encode_one, span) for row, span in zip(rows, spans)]

    def _keys_now(self) -> list[str]:
        spans = [span_of(own) for own in self.demonstrations]
        try:
            return self.encoder.keys(spans, **self.clip_settings)
        except (OSError, ValueError):
            return [self._of_row(row, self._key, span) for row, span in enumerate(spans)]  # to see which

    def _encode_one(self, clip):
        [features] = self.encoder.encode([clip], **self.clip_settings)
        return features

    def _key(self, clip) -> str:
        return self.encoder.key(clip, **self.clip_settings)

    def _of_row(self, row: int, function, clip):
        """Calls with a demonstration's clip; errors name it."""
        try:
            return function(clip)
        except (OSError, ValueError) as error:
            where = self.demonstrations[row].where or f"demonstrations[{row}]"
            raise ValueError(f"{where} (row {row}) can't be used: {error}") from error

    def _text_vectors(self, texts: list[str]) -> np.ndarray:
        return torch.as_tensor(self.text_encoder(texts)).detach().float().cpu().numpy()

    def _query_vectors(self, clip, text) -> dict[str, np.ndarray]:
        vectors = {"text": self._text_vectors([text])} if "text" in self.by else {}
        if _EMBEDDINGS.keys() & self.by.keys():
            features = self._encode_one(clip)
            vectors.update({k: getattr(features, n)[None].numpy() for k, n in _EMBEDDINGS.items() if k in self.by})
        return vectors

    def _check_query(self, clip, text, verb, noun) -> None:
        if clip is None and _EMBEDDINGS.keys() & self.by.keys():
            raise ValueError(f"To choose by {list(self.by)}, `clip` is needed")
        if "text" in self.by and not (text and text.strip()):
            raise ValueError("To choose by 'text', give a `text` to compare narrations with, such as a draft")
        if "labels" in self.by and not (verb or noun):
            raise ValueError("To choose by 'labels', give the clip's `verb` or `noun`")

    def _excluded(self, clip, exclude: Sequence, origin) -> set[int]:
        excluded = set()
        for item in exclude:
            if isinstance(item, Demonstration):
                excluded.update(row for row, own in enumerate(self.demonstrations) if own is item or _same(own, item))
            elif 0 <= item < len(self.demonstrations):
                excluded.add(int(item))
            else:
                raise ValueError(f"`exclude`: there are {len(self.demonstrations)} demonstrations, but no row {item}")
        if clip is not None:
            place = _place_of(Demonstration(clip if origin is None else origin, ""), self._window())
            excluded.update(row for row, own in enumerate(self._spans) if _overlap(own, place))
            if self._keys is not None:
                key = self._key(clip)
                excluded.update(row for row, own in enumerate(self._keys) if own == key)
        return excluded

    def _draw(self, verb: str, noun: str, index: int, excluded: set[int]) -> list[int]:
        rows = [row for row in range(len(self.demonstrations)) if row not in excluded]
        sampler = InContextSampler(
            [self.demonstrations[row].verb for row in rows],
            [self.demonstrations[row].noun for row in rows],
            num_examples=min(self.num_examples, len(rows)),
            random="random" in self.by,
            seed=self.seed,
            queries=([verb], [noun]),
        )
        # One query, drawn for as often as there are others: the draw takes as long for each.
        return [rows[place] for place in sampler.sample(0, epoch=index)]

    def _about(self) -> dict[str, Any]:
        """What the vectors are of."""
        texts = "\n".join(own.narration for own in self.demonstrations) if "text" in self.by else ""
        return {
            "version": VERSION,
            "model": self._fingerprint if _EMBEDDINGS.keys() & self.by.keys() else None,
            "clip_settings": self.clip_settings,
            "clips": self._keys if _EMBEDDINGS.keys() & self.by.keys() else None,
            "narrations": hashlib.sha256(texts.encode()).hexdigest(),
        }

    def _check_text_encoder(self, folder: Path) -> None:
        if "text" in self.by:
            now, before = self._text_vectors([self.demonstrations[0].narration]), self._vectors["text"][:1]
            if now.shape != before.shape or not np.allclose(now, before, rtol=1e-3, atol=1e-4):
                raise ValueError(f"{folder} was saved with another text encoder")


class _TokenMeans:
    """The mean of the embeddings of a text's tokens in the encoder's language model."""

    def __init__(self, encoder):
        self.encoder = encoder

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> torch.Tensor:
        embeddings, tokenizer = self.encoder.model.get_input_embeddings(), self.encoder.processor.tokenizer
        vectors = []
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if not ids:
                raise ValueError(f"A text to compare has no tokens: {text!r}")
            vectors.append(embeddings(torch.tensor(ids, device=embeddings.weight.device)).float().mean(0).cpu())
        return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)


def _check_by(by) -> dict[str, float]:
    kinds = dict(by) if isinstance(by, Mapping) else {by: 1.0}
    known = _KINDS if isinstance(by, Mapping) else (*_KINDS, *_DRAWN)
    if not kinds or any(kind not in known for kind in kinds):
        raise ValueError(f"`by` must be one of {(*_KINDS, *_DRAWN)} or weights of {_KINDS}, but is {by!r}")
    for kind, weight in kinds.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ValueError(f"`by`: the weight of {kind!r} must be above 0, but is {weight!r}")
    return {kind: float(weight) for kind, weight in kinds.items()}


def _check_same(saved: dict, now: dict, folder: Path) -> None:
    clips, own = saved["clips"], now["clips"]
    # The model is in the clips' keys as well: named first.
    for name in ("version", "model", "clip_settings"):
        if saved[name] != now[name]:
            raise ValueError(f"{folder} was saved with another {name}: {saved[name]}, now {now[name]}")
    if clips is not None and len(clips) != len(own):
        raise ValueError(f"{folder} is of {len(clips)} demonstrations, but there are {len(own)} now")
    row = next((row for row, (one, other) in enumerate(zip(clips or (), own or ())) if one != other), None)
    if row is not None:
        raise ValueError(f"{folder} is of other demonstrations: the clip of row {row} differs")
    if saved["narrations"] != now["narrations"]:
        raise ValueError(f"{folder} is of other demonstrations: their narrations differ")


def _place_of(demonstration: Demonstration, window: tuple[float, float]) -> tuple[Any, float, float]:
    """What a clip is cut from, and from when to when, in seconds."""
    span = span_of(demonstration)
    source, start, end = (span.source, span.start, span.end) if isinstance(span, ClipSpan) else (span, None, None)
    if isinstance(source, str | os.PathLike):
        name = source_name(source)
        source = name if "://" in name else os.path.realpath(name)
    elif not isinstance(source, bytes):
        source = id(source)
    if end is None:
        # A start moves the end along.
        end = window[1] + (0 if start is None else start - window[0])
    return source, window[0] if start is None else start, end


def _overlap(one: tuple, other: tuple) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _same(one: Demonstration, other: Demonstration) -> bool:
    is_path = isinstance(one.clip, str) and isinstance(other.clip, str)
    return is_path and one == other


__all__ = ["DemonstrationFinder", "SimilaritySampler"]
