"""What an evaluation is told, by the command line or a file (see [`~transformers_eilev.training.parse_arguments`])."""

import json
from dataclasses import dataclass, field

from .narration_metrics import DEFAULT_METRICS
from .queries import KINDS, SHOTS


@dataclass
class NarratorArguments:
    """
    Which model is asked, and how it answers.

    Raises:
        ValueError: for `chat` with `noun_model_name_or_path`, or `processor_kwargs` that are no JSON object.
    """

    model_name_or_path: str = field(
        metadata={
            "help": "Model id or folder: of EILEV, VideoBLIP or BLIP-2; a folder of adapters; the name of a "
            "checkpoint that comes with the package; with `--chat` any image-text-to-text model of transformers."
        }
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    model_name: str | None = field(default=None, metadata={"help": "To show; by default what the folder is called."})
    dtype: str = field(
        default="auto",
        metadata={"help": "Of the weights.", "choices": ["auto", "float32", "bfloat16", "float16"]},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "`sdpa`, `eager`, `flash_attention_2`; what the parts support by default."}
    )
    load_in: str | None = field(
        default=None, metadata={"help": "Weights in 8 or 4 bits (bitsandbytes).", "choices": ["8bit", "4bit"]}
    )
    device: str | None = field(default=None, metadata={"help": "By default this process's GPU, if there is one."})
    features_dir: str | None = field(
        default=None, metadata={"help": "Keep clips' features here, for other runs and processes."}
    )
    chat: bool = field(
        default=False, metadata={"help": "Ask through the chat template: for models that are not of this package."}
    )
    chat_frames_as: str = field(
        default="images", metadata={"help": "How a chat model takes a clip.", "choices": ["images", "video"]}
    )
    chat_instruction: str | None = field(
        default=None, metadata={"help": "What a chat model is told first, in the system's name."}
    )
    processor_kwargs: str | None = field(
        default=None,
        metadata={
            "help": """Settings of a chat model's processor, as JSON, such as '{"do_image_splitting": false}'."""
        },
    )
    num_frames: int | None = field(
        default=None, metadata={"help": "Frames of a clip, for chat models; by default all that are stored."}
    )
    clip_sec: float = field(default=8.0, metadata={"help": "Length of a clip, for chat models that take videos."})
    noun_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "VideoMAE that tells nouns, as `run_video_mae.py --label noun` trained it; `model_name_or_path` "
            "is then the one that tells verbs."
        },
    )
    num_beams: int | None = field(default=None, metadata={"help": "By default as the checkpoint says."})
    max_new_tokens: int | None = field(default=None, metadata={"help": "Likewise."})
    length_penalty: float | None = field(default=None, metadata={"help": "Likewise."})
    do_sample: bool | None = field(default=None, metadata={"help": "Likewise."})

    def __post_init__(self):
        if self.chat and self.noun_model_name_or_path is not None:
            raise ValueError("`chat` and `noun_model_name_or_path` exclude each other")
        if self.clip_sec <= 0:
            raise ValueError(f"`clip_sec` must be positive, but is {self.clip_sec}")
        for name in ("chat_instruction", "processor_kwargs", "num_frames") if not self.chat else ():
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` is for chat models: set `chat`, or leave it out")
        if self.processor_kwargs is not None:
            try:
                settings = json.loads(self.processor_kwargs)
            except ValueError:
                settings = None
            if not isinstance(settings, dict):
                raise ValueError(f"`processor_kwargs` must be a JSON object, but is {self.processor_kwargs!r}")


@dataclass
class QueryArguments:
    """
    What is asked: clips, and the narrated ones before them.

    Raises:
        ValueError: for a `verb_noun_ratio` that is not from 0 to 1, or a negative `seed`.
    """

    clips: str = field(
        metadata={
            "help": "Clips to ask about: a folder that `transformers-eilev data extract` wrote, a data set of such "
            "clips on the Hub, or the original's folders of frames with their `narrated_actions.csv`."
        }
    )
    split: str = field(default="val", metadata={"help": "Split of `clips`, if it has splits."})
    annotation_file: str | None = field(
        default=None,
        metadata={
            "help": "CSV of narrated actions (`frame_path`, `narration_text`, `structured_verb`, `structured_noun`) "
            "whose clips, narrations and labels are asked about instead: such as held-out rare actions."
        },
    )
    split_file: str | None = field(
        default=None, metadata={"help": "Split file, such as `fho_main_val.json`: only clips of its videos."}
    )
    context_clips: str | None = field(
        default=None, metadata={"help": "Clips that contexts are of, likewise; by default those of `clips`."}
    )
    context_split: str | None = field(
        default=None,
        metadata={"help": "Split of the context's clips; `train` by default, if `context_clips` is given."},
    )
    context_annotation_file: str | None = field(default=None, metadata={"help": "Likewise, of the context's clips."})
    context_split_file: str | None = field(default=None, metadata={"help": "Likewise, of the context's clips."})
    skip_missing_clips: bool = field(
        default=False,
        metadata={"help": "Go on without clips that an annotation names and that are not there; they are an error."},
    )
    dataset_name: str | None = field(default=None, metadata={"help": "To show; by default folder and split."})
    shots: list[int] = field(default_factory=lambda: list(SHOTS), metadata={"help": "Numbers of examples."})
    contexts: str = field(
        default="eilev",
        metadata={"help": "Draw contexts as EILEV's training, or so that words don't tell.", "choices": list(KINDS)},
    )
    contexts_dir: str | None = field(
        default=None, metadata={"help": "Folder of contexts that `sample_in_context_examples.py` wrote."}
    )
    num_queries: int | None = field(default=None, metadata={"help": "Ask about so many clips, drawn by the seed."})
    verb_noun_ratio: float = field(
        default=0.5, metadata={"help": "Share of the examples with the verb of the query; the others have its noun."}
    )
    seed: int = field(default=0, metadata={"help": "Of the queries, contexts and questions."})

    def __post_init__(self):
        if not 0 <= self.verb_noun_ratio <= 1:
            raise ValueError(f"`verb_noun_ratio` must be from 0 to 1, but is {self.verb_noun_ratio}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, but is {self.seed}")


@dataclass
class RunArguments:
    """
    Where results go, and under which conditions they come about.

    Raises:
        ValueError: for a `batch_size` less than 1.
    """

    output_dir: str = field(metadata={"help": "For predictions and results, in a folder for each run."})
    conditions: list[str] = field(
        default_factory=lambda: ["in_context"],
        metadata={
            "help": "in_context, random, canonical, top_100 (any number), shuffled, text_only, no_query_clip, "
            "no_clips, majority, majority_sentence."
        },
    )
    prompt: str | None = field(
        default=None, metadata={"help": "The question, the same for every clip; by default EILEV's nine, at random."}
    )
    sentences_file: str | None = field(
        default=None,
        metadata={
            "help": "CSV of standardised sentences, as `run_standard_sentences.py` writes it, for the condition "
            "`canonical`; by default they are made of the labels by rules."
        },
    )
    batch_size: int = field(default=8, metadata={"help": "Queries at a time, in each process."})
    overwrite: bool = field(default=False, metadata={"help": "Drop what other settings have left in the folder."})
    report_to: list[str] = field(default_factory=list, metadata={"help": "tensorboard, wandb."})

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, but is {self.batch_size}")


@dataclass
class MetricArguments:
    """What narrations are measured by."""

    metrics: list[str] = field(
        default_factory=lambda: list(DEFAULT_METRICS), metadata={"help": "Which; see the README beside the script."}
    )
    bi_encoder: str = field(default="all-mpnet-base-v2", metadata={"help": "Of `sts_bi_encoder`."})
    cross_encoder: str = field(
        default="cross-encoder/stsb-roberta-large", metadata={"help": "Of `sts_cross_encoder`."}
    )
    bert_score_model: str = field(default="roberta-large", metadata={"help": "Of `bert_score`."})
    num_resamples: int = field(default=1000, metadata={"help": "Of the bootstrap, for intervals."})


__all__ = ["MetricArguments", "NarratorArguments", "QueryArguments", "RunArguments"]
