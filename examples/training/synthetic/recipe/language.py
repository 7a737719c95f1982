"""
The language model learns, from texts alone, to say of a clip what was said of clips like it earlier in the text, or
what the clip itself says: a stand-in for a large language model's pretraining.
"""

import copy
import dataclasses
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import OPTForCausalLM, PretrainedConfig, PreTrainedModel, T5ForConditionalGeneration

from transformers_eilev import VideoBlip2Processor
from transformers_eilev.data.files import write_json

from .episodes import BIND, CONTRADICTED, COPY, EASY_SHARE, Difficulty, Episodes, EpisodeText, draw_episodes
from .muon import Muon
from .training_state import TrainingState
from .worlds import Words


LOG_FILE, STATE_FILE, DONE_FILE = "training_log.jsonl", "training_state.pt", "training.json"
MAX_DEMONSTRATIONS = 8
# Of the batches: without demonstrations, with demonstrations without clips, and with as many as there may be.
SHARE_WITHOUT_CONTEXT, SHARE_TEXT_ONLY, SHARE_LONGEST = 0.05, 0.1, 0.5
# Of the steps, until episodes are as long as they may be.
CURRICULUM = 0.15
WARMUP_STEPS = 100
WEIGHT_DECAY = 0.01
# Before training: of what comes out of a layer, how much is added to what goes by it; of OPT's position embeddings,
# the standard deviation and the shortest and longest wave.
OUTPUT_SCALE, POSITION_STD, POSITION_WAVES = 0.15, 0.085, (4, 200)
# Of each kind.
NUM_HELD_OUT = 128

_MODES = {"bind": BIND, "copy": COPY, "contradicted": CONTRADICTED, "text": BIND}
# The last number of a seed: what the draws are for.
_STEP, _HELD_OUT = 1, 2


def build_language_model(text_config: PretrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """
    A language model of random weights, which are drawn from `seed`.

    Raises:
        ValueError: for a config other than OPT's and T5's.
    """
    classes = {"opt": OPTForCausalLM, "t5": T5ForConditionalGeneration}
    if text_config.model_type not in classes:
        raise ValueError(f"text_config must be of one of {sorted(classes)}, got {text_config.model_type!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = classes[text_config.model_type](copy.deepcopy(text_config))
    if text_config.model_type == "opt":
        _prepare_opt(model)
    return model


@torch.no_grad()
def _prepare_opt(model: OPTForCausalLM) -> None:
    """
    First weights by which binding comes several times sooner: a token attends to those that are like it and near it.
    Queries and keys are alike, positions are waves, and a layer at first leaves what goes by it nearly as it is.
    """
    decoder = model.model.decoder
    for layer in decoder.layers:
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
        for output in (layer.self_attn.out_proj, layer.fc2):
            output.weight.mul_(OUTPUT_SCALE)
    weight = decoder.embed_positions.weight
    waves = torch.logspace(*map(math.log10, POSITION_WAVES), weight.shape[1] // 2)
    angles = 2 * math.pi * torch.arange(len(weight))[:, None] / waves
    weight.copy_(torch.cat([angles.sin(), angles.cos()], 1) * 2**0.5 * POSITION_STD)


@dataclass(frozen=True)
class _Plan:
    """The settings of a training."""

    steps: int
    batch_size: int
    learning_rates: tuple[float, float]
    save_every: int
    seed: int

    def __post_init__(self):
        for name in ("steps", "batch_size", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def schedule(self, step: int) -> float:
        """Share of the learning rates: linear from 0, then half a cosine; over the easy episodes, and again."""
        start, end = 0, round(EASY_SHARE * self.steps)
        if step >= end:
            start, end = end, self.steps
        warmup = min(WARMUP_STEPS, max(1, (end - start) // 10))
        decay = 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, end - start)))
        return min(1, (step - start + 1) / warmup) * max(0.05, decay)

    def episodes_at(self, step: int, text: EpisodeText, width: int) -> Episodes:
        """The batch of a step, from (seed, step) alone."""
        rng = np.random.default_rng([self.seed, step, _STEP])
        progress = step / self.steps
        difficulty = Difficulty.at(progress)
        most = min(MAX_DEMONSTRATIONS, 2 + int(progress / CURRICULUM * (MAX_DEMONSTRATIONS - 1)))
        shares = rng.random(3)
        demonstrations = int(rng.integers(1, most + 1))
        if most == MAX_DEMONSTRATIONS and shares[0] < SHARE_LONGEST and difficulty.words < 1:
            demonstrations = most
        if shares[1] < SHARE_WITHOUT_CONTEXT and difficulty.words < 1:
            demonstrations = 0
        has_clips = not demonstrations or shares[2] >= SHARE_TEXT_ONLY or difficulty.words == 1
        # Without context a code that names nothing can't be told.
        mode = None if demonstrations else COPY
        return draw_episodes(
            text,
            width,
            self.batch_size,
            demonstrations,
            rng,
            difficulty=difficulty,
            mode=mode,
            demonstration_clips=has_clips,
        )


def logits_and_labels(
    model: PreTrainedModel, episodes: Episodes, video_token: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model says where there is something to tell: logits of shape `(told, vocab_size)`, and the labels."""
    embeddings = model.get_input_embeddings()
    inputs_embeds = episodes.embed(embeddings, video_token)
    is_told = episodes.labels >= 0
    if not model.config.is_encoder_decoder:
        hidden = model.model(inputs_embeds=inputs_embeds, use_cache=False).last_hidden_state
        is_told = is_told[:, 1:]
        # The vocabulary is wider than the model: only what is needed.
        return model.lm_head(hidden[:, :-1][is_told]), episodes.labels[:, 1:][is_told]
    before = model.prepare_decoder_input_ids_from_labels(episodes.labels)
    logits = model(inputs_embeds=inputs_embeds, decoder_input_ids=before, use_cache=False).logits
    return logits[is_told], episodes.labels[is_told]


@torch.no_grad()
def measure_accuracy(model: PreTrainedModel, text: EpisodeText, *, seed: int = 0) -> dict[str, list[float]]:
    """
    Shares of verbs and of nouns that are right in held-out episodes, the text before them given.

    Returns:
        `dict`: `[verb, noun]` for "bind 1", "bind 2", "bind 4" and "bind 8" (of one example only the noun can be
        told), "copy 0", "copy 8", "contradicted 8" and "text 4": without the clips of the demonstrations.
    """
    result = {}
    width = model.get_input_embeddings().embedding_dim
    kinds = [("bind", 1), ("bind", 2), ("bind", 4), ("bind", 8), ("copy", 0), ("copy", 8), ("contradicted", 8)]
    for name, shots in [*kinds, ("text", 4)]:
        rng = np.random.default_rng([seed, shots, _HELD_OUT])
        with_clips = name != "text"
        episodes = draw_episodes(
            text, width, NUM_HELD_OUT, shots, rng, mode=_MODES[name], demonstration_clips=with_clips
        )
        result[f"{name} {shots}"] = _right_words(model, episodes, text)
    return result


def _right_words(model: PreTrainedModel, episodes: Episodes, text: EpisodeText) -> list[float]:
    # All of the query's narration, also what can't be told; and nothing else.
    answers = episodes.answers
    labels = torch.full_like(episodes.labels, -100)
    labels[:, -answers.shape[1] :] = answers
    logits, _ = logits_and_labels(model, dataclasses.replace(episodes, labels=labels), text.video_token)
    is_right = logits.argmax(-1).reshape(answers.shape) == answers
    return [round(is_right[:, place].float().mean().item(), 4) for place in (1, 3)]


def train_language_model(
    output_dir: Path,
    text_config: PretrainedConfig,
    processor: VideoBlip2Processor,
    words: Words,
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    matrix_learning_rate: float = 5e-3,
    seed: int = 0,
    save_every: int = 200,
    progress: bool = True,
) -> PreTrainedModel:
    """
    Trains a language model from nothing on random episodes, and goes on where it was stopped: the outcome is the same,
    bit for bit. Everything random is of `seed` and the step.

    Args:
        output_dir (`Path`): gets the model, by `save_pretrained`, and "training_log.jsonl": loss and accuracies on
            held-out episodes (see [`measure_accuracy`]) every `save_every` steps.
        text_config ([`OPTConfig`] or [`T5Config`]): of the model.
        processor ([`VideoBlip2Processor`]): with a tokenizer for which each question and word is one token.
        words ([`Words`]): all that may be said.
        steps (`int`): of `batch_size` episodes. Easier ones come first (see [`Difficulty`]); over them the learning
            rate falls as a cosine, and again over the others.
        learning_rate, matrix_learning_rate (`float`): the highest, of AdamW, and of Muon, which trains the matrices of
            the layers.
        save_every (`int`): steps.
        progress (`bool`): shows a bar.

    Returns:
        the model.

    Raises:
        ValueError: if `output_dir` is of another training, for a number below 1, for a config of another
            architecture, and for a tokenizer that splits a word.
    """
    plan = _Plan(steps, batch_size, (learning_rate, matrix_learning_rate), save_every, seed)
    training = _Training(Path(output_dir), text_config, EpisodeText(processor, words), plan)
    if not training.load_done():
        training.resume()
        training.run(progress)
        training.finish()
    return training.model


class _Training:
    def __init__(self, folder: Path, text_config: PretrainedConfig, text: EpisodeText, plan: _Plan):
        self.folder, self.text, self.plan = folder, text, plan
        self.model = build_language_model(text_config, seed=plan.seed)
        parts = {True: [], False: []}
        for name, weight in self.model.named_parameters():
            parts[_is_hidden_matrix(name, weight)].append(weight)
        self.optimizers = [
            torch.optim.AdamW(parts[False], betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True),
            Muon(parts[True], weight_decay=WEIGHT_DECAY),
        ]
        self.step = 0
        settings = [asdict(plan), text_config.to_dict(), text.describe()]
        self.state = TrainingState(
            folder / STATE_FILE,
            folder / LOG_FILE,
            {"model": self.model, "others": self.optimizers[0], "matrices": self.optimizers[1]},
            identity=hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest(),
            made_of="words or model",
        )

    def run(self, progress: bool) -> None:
        self.model.train()
        width = self.model.get_input_embeddings().embedding_dim
        with tqdm(total=self.plan.steps, initial=self.step, disable=not progress, unit="step") as bar:
            while self.step < self.plan.steps:
                start, losses = self.step, []
                end = min(self.plan.steps, (start // self.plan.save_every + 1) * self.plan.save_every)
                while self.step < end:
                    losses.append(self._learn(self.plan.episodes_at(self.step, self.text, width)))
                    self.step += 1
                    bar.update()
                loss = round(torch.stack(losses).mean().item(), 4)
                accuracy = measure_accuracy(self.model, self.text)
                self.state.save({"step": self.step, "loss": loss, "accuracy": accuracy})
                bar.set_postfix(loss=loss, bind_4=accuracy["bind 4"])

    def _learn(self, episodes: Episodes) -> torch.Tensor:
        loss = F.cross_entropy(*logits_and_labels(self.model, episodes, self.text.video_token))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, highest in zip(self.optimizers, self.plan.learning_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = highest * self.plan.schedule(self.step)
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    # -------------------------------------------------------------------------------------------------------- files

    def resume(self) -> None:
        self.step = self.state.resume()

    def finish(self) -> None:
        self.model.eval().save_pretrained(self.folder)
        write_json(self.folder / DONE_FILE, {"identity": self.state.identity})
        self.state.remove()

    def load_done(self) -> bool:
        path = self.folder / DONE_FILE
        if not path.exists():
            return False
        self.state.check(json.loads(path.read_text(encoding="utf-8"))["identity"], path)
        self.model = type(self.model).from_pretrained(self.folder)
        return True


def _is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    return weight.ndim == 2 and not any(part in name for part in ("embed", "shared", "lm_head", "relative"))
