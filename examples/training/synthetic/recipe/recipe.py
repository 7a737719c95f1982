"""What is done, in which order, and with which numbers."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor
from transformers_eilev.data import EpisodeNames, KnownWords, SyntheticConfig
from transformers_eilev.evaluation.narrators import VideoBlipNarrator
from transformers_eilev.evaluation.records import Cell, read_records
from transformers_eilev.evaluation.reports import write_report
from transformers_eilev.training import VisionFeatureStore, extract_vision_features

from . import episodes, language, learning, tokenizer, vision
from .ablations import NUM_COMMON_PAIRS
from .card import make_card
from .clips import NUM_STORED_FRAMES, make_clips, open_clips
from .evaluation import ASKED, GREEDY, ask, name_of_model
from .export import export_checkpoint
from .learning import assemble_model, load_vision, samples_in_context, samples_without_context, train_narrator
from .model import build_config
from .stages import Stage, settings_of
from .tokenizer import build_processor
from .worlds import NOVEL_WORLD, QUESTIONS, TRAIN_WORLD, appearance, make_words, novel_rows, split_clips


# What each training is called where its checkpoint is handed on.
METHODS = {"eilev": "eilev-synthetic", "control": "video-blip-synthetic"}


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    Attributes:
        train_hours, novel_hours (`float`): of video of the two worlds.
        vision_steps, language_steps, alignment_steps, narrator_steps (`int`): of the trainings.
        alignment_batch_size, eilev_batch_size, control_batch_size (`int`): samples. One of the control's is one clip,
            one of EILEV's 5.2 on average: both see as many clips.
        shots (`tuple[int, ...]`): narrated clips before the one that is asked about, in training and evaluation.
        num_queries (`int`): of each evaluation.
    """

    train_hours: float = TRAIN_WORLD.hours
    novel_hours: float = NOVEL_WORLD.hours
    vision_steps: int = 3000
    language_steps: int = 7500
    alignment_steps: int = 600
    narrator_steps: int = 2000
    alignment_batch_size: int = 64
    eilev_batch_size: int = 14
    control_batch_size: int = 72
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    num_queries: int = 200

    @classmethod
    def smoke(cls) -> "Recipe":
        """Everything runs, and nothing is learned."""
        return cls(
            train_hours=0.6,
            novel_hours=0.3,
            vision_steps=4,
            language_steps=4,
            alignment_steps=4,
            narrator_steps=4,
            shots=(0, 1, 2),
            num_queries=4,
        )


class Work:
    """The stages of the recipe in one folder.

    Args:
        recipe ([`Recipe`]): how much of everything.
        output_dir (`Path`): for everything.
    """

    def __init__(self, recipe: Recipe, output_dir: Path, num_processes: int):
        self.recipe = recipe
        self.output_dir = output_dir
        self.num_processes = num_processes
        self.words = make_words()
        self.known = KnownWords(self.words.verb_words, self.words.noun_words)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def make_clips(self, name: str):
        make_clips(self.output_dir / name, self.world(name), num_workers=self.num_processes)

    def world(self, name: str) -> SyntheticConfig:
        world, hours = {
            "train": (TRAIN_WORLD, self.recipe.train_hours),
            "novel": (NOVEL_WORLD, self.recipe.novel_hours),
        }[name]
        return dataclasses.replace(world, hours=hours)

    def config(self, family: str, part: str) -> dict[str, Any]:
        """Of a part of the model, "text" or "vision" with the Q-Former; whatever release of transformers it is of."""
        config = build_config(family, build_processor(family, self.words)).to_dict()
        parts = {name: config[f"{name}_config"] for name in (("text",) if part == "text" else ("vision", "qformer"))}
        return {
            name: {k: v for k, v in values.items() if k != "transformers_version"} for name, values in parts.items()
        }

    def train_vision(self):
        processor = build_processor("opt", self.words)
        torch.manual_seed(0)
        model = VideoBlip2ForConditionalGeneration(build_config("opt", processor)).to(self.device)
        clips, novel = self._clips("train"), self._clips("novel")
        sets = {name: clips.select(rows) for name, rows in split_clips(clips).items() if rows}
        vision.train_vision(
            self.output_dir / "vision",
            model,
            processor,
            sets.pop("train"),
            appearance=appearance(TRAIN_WORLD),
            evaluation={**sets, "novel": novel.select(novel_rows(novel))},
            steps=self.recipe.vision_steps,
        )

    def train_language(self, family: str):
        processor = build_processor(family, self.words)
        text_config = build_config(family, processor).text_config
        folder = self.output_dir / f"language-{family}"
        language.train_language_model(folder, text_config, processor, self.words, steps=self.recipe.language_steps)

    def store_features(self):
        processor = build_processor("opt", self.words)
        model = VideoBlip2ForConditionalGeneration(build_config("opt", processor))
        load_vision(model, self.output_dir / "vision")
        model.to(self.device)
        folder = self.output_dir / "features-train"
        extract_vision_features(model, processor, self._clips("train"), folder, dtype=torch.float16, batch_size=32)

    def align(self, family: str):
        processor = build_processor(family, self.words)
        clips, features = self._train_clips()
        train_narrator(
            self.output_dir / f"aligned-{family}",
            assemble_model(family, processor, self.output_dir / "vision", self.output_dir / f"language-{family}"),
            processor,
            samples_without_context(clips, features, seed=0),
            steps=self.recipe.alignment_steps,
            batch_size=self.recipe.alignment_batch_size,
        )

    def train_narrator(self, method: str, family: str, seed: int):
        aligned = self.output_dir / f"aligned-{family}"
        model = VideoBlip2ForConditionalGeneration.from_pretrained(aligned)
        processor = VideoBlip2Processor.from_pretrained(aligned)
        clips, features = self._train_clips()
        if method != "control":
            shots, ablation = self.recipe.shots, _ablation_of(method)
            samples = samples_in_context(
                clips, features, self.words, known=self.known, shots=shots, seed=seed, ablation=ablation
            )
            batch_size = self.recipe.eilev_batch_size
        else:
            samples = samples_without_context(clips, features, seed=seed)
            batch_size = self.recipe.control_batch_size
        train_narrator(
            self.output_dir / f"{method}-{family}-{seed}",
            model,
            processor,
            samples,
            steps=self.recipe.narrator_steps,
            batch_size=batch_size,
            seed=seed,
        )

    def settings_of_training(self, method: str) -> dict[str, Any]:
        given = {"steps": self.recipe.narrator_steps, "questions": QUESTIONS}
        if method == "control":
            return settings_of(train_narrator, batch_size=self.recipe.control_batch_size, **given)
        given |= {"batch_size": self.recipe.eilev_batch_size, "shots": self.recipe.shots, "words": self.words}
        if _ablation_of(method) is not None:
            given |= {"ablation": _ablation_of(method), "num_common_pairs": NUM_COMMON_PAIRS}
        return settings_of(learning, train_narrator, samples_in_context, **given)

    def evaluate(self, method: str, family: str, seed: int):
        """On what training never showed: pairs of known verbs and nouns, and nouns and verbs of another world."""
        folder = self.output_dir / f"{method}-{family}-{seed}"
        model = VideoBlip2ForConditionalGeneration.from_pretrained(folder).to(self.device)
        processor = VideoBlip2Processor.from_pretrained(folder)
        clips, novel = (open_clips(self.output_dir / name, decode=False) for name in ("train", "novel"))
        rows, novel = split_clips(clips), novel.select(novel_rows(novel))
        spare = self.words.spare_verb_words, self.words.spare_noun_words
        ask(
            VideoBlipNarrator(model, processor, name=name_of_model(method, family), **GREEDY),
            {"pairs": (clips.select(rows["pairs"]), clips.select(rows["train"])), "novel": (novel, novel)},
            folder / "evaluation",
            asked=ASKED[method],
            rename=EpisodeNames(*spare, share=1.0, find=self.known),
            questions=QUESTIONS,
            shots=self.recipe.shots,
            num_queries=self.recipe.num_queries,
            training_seed=seed,
        )

    def report(self, evaluations: Sequence[str]):
        """Tables, pictures and all numbers, of the evaluations so named."""
        folders = [self.output_dir / name.removeprefix("evaluation-") / "evaluation" for name in evaluations]
        write_report(read_records(folders), self.output_dir / "report", title="Narrations by number of shots")

    def export(self, family: str, seed: int, target: Path) -> list[Path]:
        """Writes the checkpoints of a seed as the package carries them, each in a folder of its name."""
        report = json.loads((self.output_dir / "report" / "report.json").read_text(encoding="utf-8"))
        cells = [Cell(**cell) for cell in report["cells"]]
        folders = []
        for method, name in METHODS.items():
            folders.append(target / f"{name}-{family}")
            card = make_card(method, family, seed, cells)
            export_checkpoint(self.output_dir / f"{method}-{family}-{seed}", folders[-1], card)
        return folders

    def _train_clips(self):
        clips = self._clips("train").remove_columns("frames")
        return clips.select(split_clips(clips)["train"]), VisionFeatureStore(self.output_dir / "features-train")

    def _clips(self, name: str):
        return open_clips(self.output_dir / name)


def _ablation_of(method: str) -> str | None:
    """Of "eilev-random", "random"."""
    return method.partition("-")[2] or None


def make_stages(
    work: Work, families: Sequence[str], seeds: Sequence[int], ablations: Sequence[str] = ()
) -> list[Stage]:
    """All that is to be done, each stage after those whose results it needs, with all that its result depends on."""
    recipe, stages = work.recipe, []
    for name in ("novel", "train"):
        settings = settings_of(world=work.world(name), num_frames=NUM_STORED_FRAMES, size=tokenizer.IMAGE_SIZE)
        stages.append(Stage(f"clips-{name}", partial(work.make_clips, name), (), settings, alone=True))
    settings = settings_of(
        vision,
        vision.train_vision,
        split_clips,
        steps=recipe.vision_steps,
        model=work.config("opt", "vision"),
        frames=(tokenizer.NUM_FRAMES, tokenizer.CLIP_SEC),
    )
    stages.append(Stage("vision", work.train_vision, ("clips-train", "clips-novel"), settings))
    for family in families:
        settings = settings_of(
            language,
            episodes,
            language.train_language_model,
            steps=recipe.language_steps,
            model=work.config(family, "text"),
            words=work.words,
            questions=QUESTIONS,
        )
        stages.append(Stage(f"language-{family}", partial(work.train_language, family), (), settings))
    stages.append(Stage("features-train", work.store_features, ("vision",)))
    for family in families:
        settings = settings_of(
            train_narrator,
            steps=recipe.alignment_steps,
            batch_size=recipe.alignment_batch_size,
            questions=QUESTIONS,
        )
        before = ("features-train", f"language-{family}")
        stages.append(Stage(f"aligned-{family}", partial(work.align, family), before, settings))
    asked = []
    for seed in seeds:
        for family in families:
            for method in (*METHODS, *(f"eilev-{name}" for name in ablations)):
                name = f"{method}-{family}-{seed}"
                train = partial(work.train_narrator, method, family, seed)
                stages.append(Stage(name, train, (f"aligned-{family}",), work.settings_of_training(method)))
                asked.append(f"evaluation-{name}")
                settings = settings_of(
                    ask,
                    asked=ASKED[method],
                    generation=GREEDY,
                    shots=recipe.shots,
                    num_queries=recipe.num_queries,
                    questions=QUESTIONS,
                )
                evaluate = partial(work.evaluate, method, family, seed)
                stages.append(Stage(asked[-1], evaluate, (name,), settings))
    stages.append(Stage("report", partial(work.report, asked), tuple(asked), always=True))
    return stages
