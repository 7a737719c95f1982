"""Vision: ViT and Q-Former learn to tell actions and things apart, in place of pretraining on images with text."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn
from tqdm import tqdm

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor
from transformers_eilev.data.files import atomic_file
from transformers_eilev.video_reading import sample_indices

from .labelled_clips import Classes, LabelledClips, decode_clips
from .muon import Muon
from .training_state import TrainingState


if TYPE_CHECKING:
    import datasets


WEIGHTS_FILE, STATE_FILE, LOG_FILE = "model.safetensors", "state.pt", "log.jsonl"
PARTS = ("vision_model", "qformer", "query_tokens")

# Weights of the losses: on single frames, which reach the ViT while the Q-Former is still blind, and on the mean of
# what a thing looks like.
FRAME_WEIGHT, APPEARANCE_WEIGHT = 0.5, 1.0
WEIGHT_DECAY = 0.05
# How a clip is changed at each step: pixels by which it is moved at most, each way, and the standard deviation of the
# factor and of the summand of each of its channels, in normalized units.
MAX_SHIFT, COLOUR_JITTER = 3, 0.15

# Standard deviation of the position embeddings and query tokens before training; patches are embedded with about 1.
EMBEDDING_STD = 0.5

# After the seed, in `np.random.default_rng`: what a draw is for.
_ORDER, _STEP, _CHOICE = range(3)


@torch.no_grad()
def initialize_vision(model: VideoBlip2ForConditionalGeneration, seed: int) -> None:
    """
    Draws the weights of vision model and Q-Former, and the query tokens, so that a narrow model learns soon.

    BLIP-2's standard deviation of 0.02 is for a width of 768 and more. At 128 every layer adds next to nothing to what
    goes by it, a position embedding drowns in its patch, and hundreds of steps are spent on growing the weights. Here
    what comes out of a linear layer is as large as what goes in.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]): of which only these parts are changed.
        seed (`int`): of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings = model.vision_model.embeddings
    drawn = []
    for layer in [*model.vision_model.modules(), *model.qformer.modules()]:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            drawn.append((layer.weight, layer.weight[0].numel() ** -0.5))
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()
    for weight in (embeddings.position_embedding, embeddings.class_embedding, model.query_tokens):
        drawn.append((weight, EMBEDDING_STD))
    for weight, std in drawn:
        weight.copy_(torch.randn(weight.shape, generator=generator) * std)


class VisionClassifier(nn.Module):
    """ViT and Q-Former of a model, with heads that go when they have served.

    The first half of the queries is asked for the verb, the second half for the noun and its appearance; so is each
    frame's class token.
    """

    def __init__(self, model: VideoBlip2ForConditionalGeneration, num_classes: Sequence[int], seed: int):
        super().__init__()
        self.vision_model, self.qformer = model.vision_model, model.qformer
        # The model's own, not a copy: what is learned here is learned there.
        self.query_tokens = model.query_tokens
        width, frame_width = model.config.qformer_config.hidden_size, model.config.vision_config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, number) for number in num_classes)
        self.frame_heads = nn.ModuleList(nn.Linear(frame_width, number) for number in num_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for head in [*self.heads, *self.frame_heads]:
                bound = head.in_features**-0.5
                head.weight.copy_(torch.rand(head.weight.shape, generator=generator) * 2 * bound - bound)
                head.bias.zero_()
        self.to(model.query_tokens.device)

    def features(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            pixel_values (`torch.Tensor`): of shape (clips, frames, 3, height, width).

        Returns:
            What the queries say of the verb and of the noun, of shape (clips, width) each, and what each frame says,
            of shape (clips * frames, width).
        """
        num_clips = len(pixel_values)
        tokens = self.vision_model(pixel_values.flatten(0, 1)).last_hidden_state
        queries = self.qformer(
            query_embeds=self.query_tokens.expand(num_clips, -1, -1),
            encoder_hidden_states=tokens.reshape(num_clips, -1, tokens.shape[-1]),
        ).last_hidden_state
        half = queries.shape[1] // 2
        return queries[:, :half].mean(1), queries[:, half:].mean(1), tokens[:, 0]

    def losses(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            pixel_values (`torch.Tensor`): of shape (clips, frames, 3, height, width).
            labels (`torch.Tensor`): int64, of shape (clips, questions).

        Returns:
            Cross-entropies, of shape (questions,): of clips, and of single frames.
        """
        verb, noun, frames = self.features(pixel_values)
        frame_labels = labels.repeat_interleave(pixel_values.shape[1], 0)
        of_clips = [
            F.cross_entropy(head(noun if number else verb), labels[:, number])
            for number, head in enumerate(self.heads)
        ]
        of_frames = [
            F.cross_entropy(head(frames), frame_labels[:, number]) for number, head in enumerate(self.frame_heads)
        ]
        return torch.stack(of_clips), torch.stack(of_frames)

    def weights(self) -> dict[str, torch.Tensor]:
        """Those of the model, by their names in it."""
        return {name: weight for name, weight in self.state_dict().items() if name.split(".")[0] in PARTS}


# --------------------------------------------------------------------------------------------------------- training


def train_vision(
    output_dir: str | os.PathLike,
    model: VideoBlip2ForConditionalGeneration,
    processor: VideoBlip2Processor,
    clips: "datasets.Dataset",
    *,
    appearance: Mapping[str, Sequence[str]] | None = None,
    evaluation: Mapping[str, "datasets.Dataset"] | None = None,
    steps: int = 3000,
    batch_size: int = 64,
    num_frames: int = 2,
    learning_rate: float = 1e-3,
    matrix_learning_rate: float = 6e-3,
    warmup_steps: int = 40,
    seed: int = 0,
    save_every: int = 200,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """
    Trains vision model, Q-Former and query tokens of `model`, in place and from nothing, to name the verb and the noun
    of a clip.

    A training that was killed goes on from its last state, and ends with the same weights to the bit; one that has
    ended is loaded. Writes `model.safetensors`, those three parts alone, and a line of `log.jsonl` at each state.

    Args:
        output_dir (`str`): a folder of this training alone.
        model ([`VideoBlip2ForConditionalGeneration`]): float32, on any device, with an even number of queries. What
            these parts have learned before is lost.
        processor ([`VideoBlip2Processor`]): by which frames are normalized, and whose number of frames a clip is
            evaluated on.
        clips (`datasets.Dataset`): rows of a clip store to learn from, with `frames`, `structured_verb` and
            `structured_noun`. They are held in memory.
        appearance (`Mapping[str, Sequence[str]]`, *optional*): what each noun looks like, such as its colours, in as
            many words for each; they are learned too.
        evaluation (`Mapping[str, datasets.Dataset]`, *optional*): sets of clips to count right answers on. Of a set
            none of whose nouns is learned, a clip's answers are those of its nearest neighbour in the set.
        steps, batch_size (`int`): gradient steps, and clips in each.
        num_frames (`int`): drawn from each clip at each step. What is learned from two serves clips of more.
        learning_rate (`float`): of AdamW, at its highest; it rises over `warmup_steps`, and falls by a cosine.
        matrix_learning_rate (`float`): of Muon, which trains the matrices of both parts.
        seed (`int`): of all draws, with the step.
        save_every (`int`): steps from one state, and one evaluation on 200 clips of each set, to the next.
        progress (`bool`): show bars.

    Returns:
        `dict`: of each set, on all of its clips at the end, the shares of right answers: "verb", "noun", "both".

    Raises:
        ValueError: clips, model and `appearance` do not fit each other; `output_dir` holds another training.
    """
    for name, number in (("steps", steps), ("batch_size", batch_size), ("save_every", save_every)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    plan = _Plan(steps, batch_size, num_frames, (learning_rate, matrix_learning_rate), warmup_steps, seed)
    run = _Run(Path(output_dir), model, processor.video_processor, decode_clips(clips, progress), appearance, plan)
    if run.load_done():
        return run.results
    run.resume()
    sets = {name: decode_clips(rows, progress) for name, rows in (evaluation or {}).items()}
    with tqdm(desc="Vision", total=steps, initial=run.step, unit="step", mininterval=5, disable=not progress) as bar:
        while run.step < steps:
            losses = run.train_until(min(run.step + save_every, steps), bar)
            results = run.evaluate(sets, 200)
            bar.set_postfix_str(", ".join(f"{name} {x['verb']:.2f} {x['noun']:.2f}" for name, x in results.items()))
            run.state.save({"step": run.step, "losses": losses, **results})
    run.finish(run.evaluate(sets))
    return run.results


@dataclass(frozen=True)
class _Plan:
    steps: int
    batch_size: int
    num_frames: int
    learning_rates: tuple[float, float]
    warmup_steps: int
    seed: int

    def schedule(self, step: int) -> float:
        """Share of the learning rates: linear from 0, then half a cosine down to a fiftieth."""
        rising = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        return rising * max(0.02, 0.5 * (1 + math.cos(math.pi * step / self.steps)))


class _Run:
    def __init__(self, folder, model, video_processor, clips, appearance, plan):
        stored, height, width = clips.frames.shape[1:4]
        if not 1 <= plan.num_frames <= stored:
            raise ValueError(f"num_frames must be from 1 to {stored}, as many as clips have, got {plan.num_frames}")
        size = model.config.vision_config.image_size
        if (height, width) != (size, size):
            raise ValueError(f"The model is for frames of {size} x {size} pixels, the clips have {height} x {width}")
        if model.config.num_query_tokens % 2:
            raise ValueError(f"Half of the queries are for the verb, but there are {model.config.num_query_tokens}")
        self.folder, self.plan, self.video_processor, self.clips = folder, plan, video_processor, clips
        self.classes = Classes.of(clips, appearance or {})
        self.labels = self.classes.number(clips)
        self.device = model.query_tokens.device
        initialize_vision(model, plan.seed)
        self.classifier = VisionClassifier(model, [len(names) for names in self.classes.names.values()], plan.seed)
        # Without dropout, which would draw from the global state.
        self.classifier.eval()
        matrices = [weight for name, weight in self.classifier.named_parameters() if _is_hidden_matrix(name, weight)]
        chosen = {id(weight) for weight in matrices}
        others = [weight for weight in self.classifier.parameters() if id(weight) not in chosen]
        self.optimizers = [
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True),
            Muon(matrices, weight_decay=WEIGHT_DECAY),
        ]
        looks = len(self.classes.names) - 2
        self.weights = torch.tensor([1.0, 1.0, *[APPEARANCE_WEIGHT / max(looks, 1)] * looks], device=self.device)
        self.step, self.results = 0, None
        self.state = TrainingState(
            folder / STATE_FILE,
            folder / LOG_FILE,
            {"classifier": self.classifier, "others": self.optimizers[0], "matrices": self.optimizers[1]},
            identity=self._identity(),
            made_of="clips or model",
        )

    def _identity(self) -> str:
        """Of arguments, clips and first weights: a state is gone on with if they are the same, whatever the code."""
        digest = hashlib.sha256(json.dumps([asdict(self.plan), self.classes.names]).encode())
        for array in (self.clips.frames, self.labels.numpy()):
            digest.update(np.ascontiguousarray(array))
        for weight in self.classifier.state_dict().values():
            digest.update(weight.detach().cpu().contiguous().numpy())
        return digest.hexdigest()

    # ----------------------------------------------------------------------------------------------------- learning

    def train_until(self, end: int, bar) -> dict[str, float]:
        """Steps up to `end`. Returns the mean of each loss."""
        total, start = 0.0, self.step
        while self.step < end:
            pixel_values, labels = self._batch(self.step)
            of_clips, of_frames = self.classifier.losses(pixel_values, labels)
            ((of_clips + FRAME_WEIGHT * of_frames) * self.weights).sum().backward()
            nn.utils.clip_grad_norm_(self.classifier.parameters(), 1.0)
            for optimizer, highest in zip(self.optimizers, self.plan.learning_rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = highest * self.plan.schedule(self.step)
                optimizer.step()
                optimizer.zero_grad()
            total = total + torch.stack([of_clips.detach(), of_frames.detach()])
            self.step += 1
            bar.update()
        means = (total / (self.step - start)).tolist()
        return {
            f"{who}{name}": round(loss, 4)
            for who, losses in zip(("", "frame "), means, strict=True)
            for name, loss in zip(self.classes.names, losses, strict=True)
        }

    def _batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixel values of shape (batch_size, num_frames, 3, height, width), and labels. Drawn from (seed, step)."""
        plan, frames = self.plan, self.clips.frames
        rows = self._rows(step)
        rng = np.random.default_rng([plan.seed, _STEP, step])
        chosen = np.argsort(rng.random((len(rows), frames.shape[1])), 1)[:, : plan.num_frames]
        chosen.sort(1)
        height, width = frames.shape[2:4]
        shifts = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, (2, len(rows), 1))
        # What comes in at an edge is that edge again.
        across = np.clip(np.arange(width) + shifts[0], 0, width - 1)
        down = np.clip(np.arange(height) + shifts[1], 0, height - 1)
        pictures = frames[
            rows[:, None, None, None], chosen[:, :, None, None], down[:, None, :, None], across[:, None, None]
        ]
        pixel_values = self._normalize(pictures)
        jitter = rng.standard_normal((2, len(rows), 1, 3, 1, 1), dtype=np.float32) * COLOUR_JITTER
        scale, offset = torch.from_numpy(jitter).to(self.device)
        return pixel_values * (1 + scale) + offset, self.labels[torch.from_numpy(rows)].to(self.device)

    def _rows(self, step: int) -> np.ndarray:
        """Of the clips, each once in an epoch."""
        places = np.arange(step * self.plan.batch_size, (step + 1) * self.plan.batch_size)
        rows = np.empty_like(places)
        for epoch in np.unique(places // len(self.clips)):
            order = np.random.default_rng([self.plan.seed, _ORDER, epoch]).permutation(len(self.clips))
            here = places // len(self.clips) == epoch
            rows[here] = order[places[here] % len(self.clips)]
        return rows

    def _normalize(self, pictures: np.ndarray) -> torch.Tensor:
        """uint8 of shape (..., height, width, 3) as pixel values of shape (..., 3, height, width)."""
        frames = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, -3))).to(self.device)
        return self.video_processor.normalize_frames(frames)

    # --------------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, sets: Mapping[str, LabelledClips], max_clips: int | None = None) -> dict[str, dict[str, float]]:
        """On `max_clips` of each set, always the same."""
        return {name: self._right_answers(clips, max_clips) for name, clips in sets.items()}

    def _right_answers(self, clips: LabelledClips, max_clips: int | None) -> dict[str, float]:
        rows, features = self._features(clips, max_clips)
        known = not set(clips.nouns).isdisjoint(self.classes.names["noun"])
        right = {}
        for name, part, labels in zip(("verb", "noun"), features, (clips.verbs, clips.nouns), strict=True):
            labels = [labels[row] for row in rows]
            answers = self._heads_answers(name, part) if known else _nearest_neighbours(part, labels)
            right[name] = np.array(answers) == np.array(labels)
        right["both"] = right["verb"] & right["noun"]
        return {name: round(float(answers.mean()), 4) for name, answers in right.items()}

    def _heads_answers(self, question: str, features: torch.Tensor) -> list[str]:
        names = self.classes.names[question]
        head = self.classifier.heads[list(self.classes.names).index(question)]
        with torch.no_grad():
            return [names[number] for number in head(features).argmax(-1).tolist()]

    @torch.no_grad()
    def _features(self, clips: LabelledClips, max_clips: int | None) -> tuple[list[int], list[torch.Tensor]]:
        """Rows of some of the clips, and what the queries say of the verb and of the noun of each."""
        rows = np.random.default_rng([self.plan.seed, _CHOICE]).permutation(len(clips))[:max_clips]
        chosen = sample_indices(clips.frames.shape[1], self.video_processor.num_frames or clips.frames.shape[1])
        batches = np.array_split(rows, math.ceil(len(rows) / 64))
        parts = [self.classifier.features(self._normalize(clips.frames[batch][:, chosen]))[:2] for batch in batches]
        return rows.tolist(), [torch.cat(part) for part in zip(*parts, strict=True)]

    # -------------------------------------------------------------------------------------------------------- files

    def resume(self) -> None:
        self.step = self.state.resume(self.device)

    def finish(self, results: dict[str, dict[str, float]]) -> None:
        self.results = results
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.classifier.weights().items()}
        # One entry: the order of several is another each time.
        metadata = {"training": json.dumps({"identity": self.state.identity, "results": results})}
        with atomic_file(self.folder / WEIGHTS_FILE) as file:
            file.write(save(weights, metadata))
        self.state.remove()

    def load_done(self) -> bool:
        path = self.folder / WEIGHTS_FILE
        if not path.exists():
            return False
        with safe_open(path, "pt") as file:
            training = json.loads((file.metadata() or {}).get("training", "{}"))
        self.state.check(training.get("identity"), path)
        self.classifier.load_state_dict(load_file(path, device=str(self.device)), strict=False)
        self.results = training["results"]
        return True


def _is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    return weight.ndim == 2 and name.split(".")[0] in ("vision_model", "qformer")


def _nearest_neighbours(features: torch.Tensor, labels: list[str]) -> list[str]:
    """Of each clip, the label of another one that is most like it."""
    features = F.normalize(features - features.mean(0), dim=-1)
    return [labels[other] for other in (features @ features.T).fill_diagonal_(-math.inf).argmax(-1).tolist()]
