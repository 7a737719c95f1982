"""The Q-Former learns to tell a frozen language model what it sees: without context, and in context as EILEV does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor
from transformers_eilev.data import (
    BalancedContextSampler,
    EpisodeNames,
    InContextDataset,
    InContextSampler,
    KnownWords,
    hold_out_rare_pairs,
)
from transformers_eilev.training import (
    VideoNarrationTrainer,
    VideoNarrationTrainingArguments,
    VisionFeatureStore,
    find_last_checkpoint,
    freeze,
)

from . import ablations
from .model import build_config
from .vision import WEIGHTS_FILE
from .worlds import QUESTIONS, Words


# The last number of a seed: what the draws are for. Those up to 5 are the data set's own.
_WHICH_DATASET = 6
# Of the samples: how many have no context, and in how many of those that have one words are given anew.
SHARE_WITHOUT_CONTEXT, SHARE_RENAMED = 0.25, 0.6
# With so many examples there is one other verb and noun or two, else one: hardest, since both come equally often.
MIXED_DISTRACTORS_AT = 4


class Mixture:
    """
    Samples of several data sets. Which of them sample `index` is of is drawn from (seed, epoch, index).

    Args:
        datasets (`Sequence[InContextDataset]`): each may be of a different length; a shorter one is gone through more
            than once.
        weights (`Sequence[float]`): how often each is drawn from.
        seed (`int`): of the draws.
    """

    def __init__(self, datasets: Sequence[InContextDataset], weights: Sequence[float], *, seed: int):
        self.datasets = list(datasets)
        self.weights = np.asarray(weights, dtype=float) / sum(weights)
        self.seed = seed

    def __len__(self) -> int:
        return max(map(len, self.datasets))

    def set_epoch(self, epoch: int):
        """Draws others from now on."""
        for dataset in self.datasets:
            dataset.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, self.datasets[0].epoch, index, _WHICH_DATASET])
        dataset = self.datasets[rng.choice(len(self.datasets), p=self.weights)]
        return dataset[index % len(dataset)]


def load_vision(model: VideoBlip2ForConditionalGeneration, folder: Path) -> None:
    """Gives a model the vision model, Q-Former and query tokens of a training of the vision, which is in `folder`."""
    missing, unexpected = model.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=False)
    lacking = {name.split(".")[0] for name in missing} - {"language_model", "language_projection"}
    if unexpected or lacking:
        raise ValueError(f"{folder} is of another model: it lacks {sorted(lacking)} and has {unexpected} besides")


def assemble_model(
    family: str, processor: VideoBlip2Processor, vision: Path, language_model: Path, *, seed: int = 0
) -> VideoBlip2ForConditionalGeneration:
    """
    A model of what was learned apart: vision model and Q-Former, and language model. The projection between them is
    new, and small, so that at first it disturbs nothing.

    Args:
        family (`str`): "opt" or "t5".
        vision, language_model (`Path`): the folders of their trainings.
        seed (`int`): of the projection.
    """
    torch.manual_seed(seed)
    model = VideoBlip2ForConditionalGeneration(build_config(family, processor))
    load_vision(model, vision)
    auto_class = AutoModelForCausalLM if family == "opt" else AutoModelForSeq2SeqLM
    model.language_model.load_state_dict(auto_class.from_pretrained(language_model).state_dict())
    torch.nn.init.normal_(model.language_projection.weight, std=0.01)
    torch.nn.init.zeros_(model.language_projection.bias)
    line_end = processor.tokenizer.convert_tokens_to_ids("\n")
    model.generation_config.update(
        max_new_tokens=32,
        num_beams=1,
        pad_token_id=processor.tokenizer.pad_token_id,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=line_end if processor.is_decoder_only else processor.tokenizer.eos_token_id,
        decoder_start_token_id=None if processor.is_decoder_only else processor.tokenizer.pad_token_id,
    )
    return model


def samples_without_context(clips, features: VisionFeatureStore, *, seed: int) -> InContextDataset:
    """VideoBLIP's samples: one clip, one question, one narration."""
    return _dataset(clips, features, InContextSampler(*_labels(clips), num_examples=0, seed=seed), seed=seed)


def samples_in_context(
    clips,
    features: VisionFeatureStore,
    words: Words,
    *,
    known: KnownWords,
    shots: Sequence[int],
    seed: int,
    ablation: str | None = None,
) -> Mixture:
    """
    EILEV's samples: some narrated clips before the one that is asked about, of which half share its verb and half
    its noun, in words that often mean something in this sample alone.

    Where EILEV draws any clips that share verb or noun, here one or two others take turns with the query's verb, and
    with its noun: otherwise the word that comes most often is the answer, and no clip need be looked at.

    With an `ablation`, one of `ablations.ABLATIONS`, that much is taken from it.
    """
    rename = EpisodeNames(words.spare_verb_words, words.spare_noun_words, share=SHARE_RENAMED, find=known)
    if ablation == "common":
        common = {*hold_out_rare_pairs(clips, num_common_pairs=ablations.NUM_COMMON_PAIRS).common_pairs}
        clips = clips.select([row for row, pair in enumerate(zip(*_labels(clips))) if pair in common])
    changed = {"rename": None if ablation == "fixed_words" else rename, "derange_clips": ablation == "shuffled"}
    datasets, weights = [samples_without_context(clips, features, seed=seed)], []
    for num_examples in filter(None, shots):
        if ablation == "random":
            samplers = [InContextSampler(*_labels(clips), num_examples=num_examples, random=True, seed=seed)]
        elif ablation == "shuffled" and num_examples == 1:
            continue  # a single clip can't be exchanged
        else:
            samplers = _samplers(clips, num_examples, seed)
        for number, sampler in enumerate(samplers):
            # Seeds of their own, or two data sets would ask the same questions.
            own = 1000 * (seed + 1) + 10 * num_examples + number
            datasets.append(_dataset(clips, features, sampler, seed=own, **changed))
            # The longer a context, the more there is to confuse, and to learn.
            weights.append(num_examples / len(samplers))
    without_context = sum(weights) * SHARE_WITHOUT_CONTEXT / (1 - SHARE_WITHOUT_CONTEXT)
    return Mixture(datasets, [without_context, *weights], seed=seed)


def _samplers(clips, num_examples: int, seed: int) -> list:
    if num_examples == 1:
        # Of one example, the share of those that have the query's verb would be rounded to none.
        return [
            InContextSampler(*_labels(clips), num_examples=1, verb_noun_ratio=ratio, seed=seed) for ratio in (0.0, 1.0)
        ]
    return [
        BalancedContextSampler(*_labels(clips), num_examples=num_examples, num_distractors=number, seed=seed)
        for number in ((1, 2) if num_examples == MIXED_DISTRACTORS_AT else (1,))
    ]


def _labels(clips) -> tuple[list[str], list[str]]:
    return clips["structured_verb"][:], clips["structured_noun"][:]


def _dataset(clips, features: VisionFeatureStore, sampler, *, seed: int, **changed) -> InContextDataset:
    return InContextDataset(
        clips,
        sampler,
        load_clip=features.load,
        clips_as="vision_hidden_states",
        prompts=QUESTIONS,
        seed=seed,
        **changed,
    )


def train_narrator(
    output_dir: Path,
    model: VideoBlip2ForConditionalGeneration,
    processor: VideoBlip2Processor,
    samples,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float = 5e-4,
    seed: int = 0,
    settings: Mapping | None = None,
) -> None:
    """
    Trains Q-Former, query tokens and projection on samples, the rest frozen; goes on where it was stopped.

    Args:
        output_dir (`Path`): gets checkpoints while it runs, and at the end the model and its processor.
        samples ([`InContextDataset`] or [`Mixture`]): with stored features.
        steps (`int`): of `batch_size` samples.
        settings (`Mapping`, *optional*): further ones of [`VideoNarrationTrainingArguments`].
    """
    freeze(model)
    arguments = VideoNarrationTrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(50, steps // 10),
        weight_decay=0.05,
        adam_beta2=0.98,
        logging_steps=max(1, min(50, steps // 4)),
        save_steps=max(1, min(250, steps // 2)),
        save_total_limit=1,
        report_to="none",
        seed=seed,
        **(settings or {}),
    )
    trainer = VideoNarrationTrainer(model, arguments, processor=processor, train_dataset=samples)
    checkpoint = find_last_checkpoint(output_dir)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model()
    trainer.save_state()
