"""
VideoMAE as a narrator: one classifier of verbs, one of nouns, and the sentence that both make. It looks at the clip
alone, as the baseline of EILEV's paper does.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from transformers import AutoImageProcessor, VideoMAEForVideoClassification

from ..data.in_context import InContextDataset
from ..data.narrated_clips import FrameLoader
from ..data.narrations import NO_LABELS
from ..data.standard_sentences import action_to_sentence
from ..processing_video_blip_2 import VIDEO_TOKEN
from ..video_reading import sample_indices
from ..weight_hashes import PartsHash
from .label_metrics import score_ranks
from .results import fingerprint_of


class VideoMaeNarrator:
    """
    A [`Narrator`] that says "The camera wearer VERBs the NOUN." of the likeliest verb and the likeliest noun.

    Args:
        verb_model, noun_model ([`~transformers.VideoMAEForVideoClassification`]): on the devices to run on. Their
            `config.id2label` has the labels, as `run_video_mae.py` leaves it.
        image_processor ([`~transformers.VideoMAEImageProcessor`]): of both.
        name (`str`, *optional*): to show; by default the folder of the model of verbs.
        sentence (`Callable[[str, str], str | None]`): makes a sentence of both labels; `None` for none. By default by
            rule, as [`~transformers_eilev.data.standard_sentences.action_to_sentence`].

    Raises:
        ValueError: if the models take other clips than each other, or than the processor gives.
    """

    def __init__(
        self,
        verb_model: VideoMAEForVideoClassification,
        noun_model: VideoMAEForVideoClassification,
        image_processor,
        *,
        name: str | None = None,
        sentence: Callable[[str, str], str | None] = action_to_sentence,
    ):
        for model in (verb_model, noun_model):
            check_image_size(model.config, image_processor)
        if verb_model.config.num_frames != noun_model.config.num_frames:
            raise ValueError(
                f"`verb_model` takes clips of {verb_model.config.num_frames} frames, but `noun_model` of "
                f"{noun_model.config.num_frames}"
            )
        self.verb_model, self.noun_model = verb_model.eval(), noun_model.eval()
        self.image_processor, self.sentence = image_processor, sentence
        self.name = name or Path(verb_model.name_or_path).name or type(verb_model).__name__
        # Those that the model takes are chosen later: stored frames that it sees several times are decoded once.
        self.load_clip = FrameLoader()
        self._weights = PartsHash()

    @classmethod
    def from_pretrained(
        cls, verb_model: str, noun_model: str, *, dtype="auto", device="cpu", **kwargs: Any
    ) -> "VideoMaeNarrator":
        """
        Loads both models, and the image processor that lies beside them.

        Args:
            verb_model, noun_model (`str`): folders that `run_video_mae.py` wrote, or ids.
            dtype (`str` or `torch.dtype`, defaults to "auto"): of the weights; by default as they are stored.
            device (`str` or `torch.device`, defaults to "cpu"): to run on.
            kwargs: of [`VideoMaeNarrator`].

        Raises:
            ValueError: if they are not of one image processor.
        """
        names = (verb_model, noun_model)
        processors = [AutoImageProcessor.from_pretrained(name) for name in names]
        if processors[0].to_dict() != processors[1].to_dict():
            raise ValueError(f"{verb_model} and {noun_model} have different image processors")
        models = [VideoMAEForVideoClassification.from_pretrained(name, dtype=dtype).to(device) for name in names]
        return cls(*models, processors[0], **kwargs)

    @torch.no_grad()
    def scores(self, samples: Sequence[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """
        How likely each verb and each noun is.

        Args:
            samples (`Sequence[dict]`): of [`~transformers_eilev.data.InContextDataset`]; the last clip of each counts.

        Returns:
            `tuple`: of two tensors, (num_samples, num_verbs) and (num_samples, num_nouns): log-probabilities, float32,
            on the CPU, in the order of the models' `config.id2label`.

        Raises:
            ValueError: for a sample that leaves out the query's clip, by its `frame_path`.
        """
        for sample in samples:
            if not sample["text"][-1].startswith(VIDEO_TOKEN):
                raise ValueError(f"VideoMAE sees the query alone, but the sample of {sample['frame_path']!r} hides it")
        num_frames = self.verb_model.config.num_frames
        clips = [to_pixel_values(sample["videos"][-1], self.image_processor, num_frames) for sample in samples]
        pixel_values = torch.stack(clips)
        verbs, nouns = (
            model(pixel_values=pixel_values.to(model.device, model.dtype)).logits.float().log_softmax(-1).cpu()
            for model in (self.verb_model, self.noun_model)
        )
        return verbs, nouns

    def __call__(self, samples: Sequence[dict[str, Any]]) -> list[str]:
        """As [`Narrator`]."""
        if not samples:
            return []
        best = [scores.argmax(-1).tolist() for scores in self.scores(samples)]
        verbs, nouns = self.verb_model.config.id2label, self.noun_model.config.id2label
        return [self.sentence(verbs[verb], nouns[noun]) or "" for verb, noun in zip(*best)]

    def fingerprint(self) -> str:
        """As [`Narrator`]."""
        settings = [
            self._weights({"verb_model": self.verb_model, "noun_model": self.noun_model}),
            # What weights and labels don't show.
            [
                [
                    config.id2label,
                    config.num_frames,
                    config.num_attention_heads,
                    config.hidden_act,
                    config.layer_norm_eps,
                ]
                for config in (self.verb_model.config, self.noun_model.config)
            ],
            self.image_processor.to_dict(),
            f"{self.sentence.__module__}.{self.sentence.__qualname__}",
        ]
        return fingerprint_of(settings)


class LabelledClips(Dataset):
    """
    Clips with the number of their verb or noun, for the `Trainer`. Clips whose label says nothing are left out.

    Args:
        samples ([`~transformers_eilev.data.InContextDataset`]): of single clips.
        label (`str`): "verb" or "noun".
        classes (`Sequence[str]`): labels that the model knows, by their number.
        image_processor ([`~transformers.VideoMAEImageProcessor`]): of the model.
        num_frames (`int`): of its config.

    Attributes:
        names (`list[str]`): the classes, and after them the labels that are none of them: an evaluation has these,
            counts them, and no model is right about them.
        numbers (`list[int]`): the place in `names` of each clip's label.

    Raises:
        ValueError: if no clip has a label.

    Warns:
        UserWarning: if clips are left out, with their number.
    """

    def __init__(
        self, samples: InContextDataset, label: str, classes: Sequence[str], image_processor, num_frames: int
    ):
        column = samples.actions[f"structured_{label}"][:]
        labels = [column[samples.sampler.query(index)] for index in range(len(samples))]
        self._rows = [row for row, name in enumerate(labels) if name not in NO_LABELS]
        num_silent = len(labels) - len(self._rows)
        if not self._rows:
            raise ValueError(f"None of {len(labels)} clips has a `structured_{label}`")
        if num_silent:
            message = f"{num_silent} of {len(labels)} clips have no `structured_{label}` and are left out"
            warnings.warn(message, UserWarning, stacklevel=2)
        known = [labels[row] for row in self._rows]
        self.names = [*classes, *sorted({*known} - {*classes})]
        number_of = {name: number for number, name in enumerate(self.names)}
        self.numbers = [number_of[name] for name in known]
        self._samples, self._image_processor, self._num_frames = samples, image_processor, num_frames

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self._samples[self._rows[index]]["videos"][-1]
        return {
            "pixel_values": to_pixel_values(clip, self._image_processor, self._num_frames),
            "labels": self.numbers[index],
        }

    def set_epoch(self, epoch: int) -> None:
        """As of [`~transformers_eilev.data.InContextDataset`]: another augmentation."""
        self._samples.set_epoch(epoch)


def classes_of(samples: InContextDataset, label: str) -> list[str]:
    """The verbs or nouns ("verb", "noun") of some samples' clips, in order, without labels that say nothing."""
    return sorted({*samples.actions[f"structured_{label}"][:]} - {*NO_LABELS})


def classification_loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
    """The `Trainer`'s `compute_loss_func`: the mean cross-entropy over labels that the model knows."""
    loss, num_known = _sum_of_losses(outputs.logits, labels)
    # In training all labels are known, and the batches of one step are counted together.
    total = num_known if num_items_in_batch is None or num_known < len(labels) else num_items_in_batch
    return loss / max(total, 1)


def classification_metrics(prediction, names: Sequence[str]) -> dict[str, float]:
    """
    The `Trainer`'s `compute_metrics`.

    Args:
        prediction (`EvalPrediction`): logits of shape (num_clips, num_classes), and `LabelledClips.numbers`.
        names (`Sequence[str]`): of [`LabelledClips`].

    Returns:
        `dict`: `macro_f1`, `top_1`, `top_5`; `num_unseen`, of clips whose label is no class of the model: they are
        counted among the others, as wrong; and `loss`, the mean over all other clips, whatever the batches.
    """
    order = np.argsort(-prediction.predictions, axis=1, kind="stable")
    places, is_class = (order == prediction.label_ids[:, None]).argmax(1), prediction.label_ids < order.shape[1]
    ranks = [place if known else None for place, known in zip(places.tolist(), is_class.tolist())]
    predicted, labels = ([names[number] for number in numbers] for numbers in (order[:, 0], prediction.label_ids))
    scores = score_ranks(predicted, labels, ranks, num_resamples=0)
    loss, num_known = _sum_of_losses(*map(torch.from_numpy, (prediction.predictions, prediction.label_ids)))
    values = {name: score["value"] for name, score in scores.items()}
    return {"loss": float(loss) / max(num_known, 1), **values, "num_unseen": ranks.count(None)}


def _sum_of_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Over the labels that are classes of the model, and how many they are."""
    known = labels < logits.shape[-1]
    return F.cross_entropy(logits[known].float(), labels[known], reduction="sum"), int(known.sum())


def to_pixel_values(frames: Sequence, image_processor, num_frames: int) -> torch.Tensor:
    """
    A clip as VideoMAE takes it, of shape (num_frames, 3, height, width).

    VideoMAE's published checkpoints take 16 frames, clip stores have 8: each is then seen twice, one after the other,
    which is what one of VideoMAE's tubes of 2 frames spans.

    Args:
        frames: uint8 images of one clip: PIL's, or a tensor of shape (num_stored, 3, height, width).
        image_processor ([`~transformers.VideoMAEImageProcessor`]): resizes, crops and normalizes.
        num_frames (`int`): to take, uniformly out of the clip's, or each of these about as often.
    """
    stored = len(frames)
    if num_frames <= stored:
        taken = sample_indices(stored, num_frames)
    else:
        taken = [place * stored // num_frames for place in range(num_frames)]
    used = sorted({*taken})
    images = [np.asarray(frames[index]) for index in used]
    pixel_values = image_processor([images], return_tensors="pt")["pixel_values"][0]
    return pixel_values[[used.index(index) for index in taken]]


def check_image_size(config, image_processor) -> None:
    """
    Whether a processor gives frames of the size that a model takes.

    Raises:
        ValueError: if not, with both sizes.
    """
    size = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    size = {name: value for name, value in dict(size).items() if value is not None}
    if size != {"height": config.image_size, "width": config.image_size}:
        raise ValueError(
            f"The model takes frames of {config.image_size} times {config.image_size} pixels, but the image processor "
            f"gives {size}"
        )


__all__ = [
    "LabelledClips",
    "VideoMaeNarrator",
    "check_image_size",
    "classes_of",
    "classification_loss",
    "classification_metrics",
    "to_pixel_values",
]
