"""What a training is told: by the command line, by a YAML or JSON file, or by both."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser, TrainingArguments


logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    """
    Which model is trained, and which of its weights.

    Raises:
        ValueError: for `num_subsample_frames`, `lora_r` or `lora_alpha` less than 1, or a `lora_dropout` that is not
            from 0 to below 1; for weights in both 8 and 4 bits, or in one of them without `use_lora` or with
            `frozen_dtype`.
    """

    model_name_or_path: str = field(
        metadata={
            "help": "Model id or folder to start from: `Salesforce/blip2-opt-2.7b`, `Salesforce/blip2-flan-t5-xl`, or "
            "a checkpoint of EILEV's or VideoBLIP's."
        }
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a model on the Hub; its newest by default."}
    )
    num_subsample_frames: int = field(
        default=8, metadata={"help": "Frames of each clip, uniformly out of those that are stored."}
    )
    frozen_dtype: str | None = field(
        default=None,
        metadata={
            "help": "Type of the frozen weights: `bfloat16` halves their memory, and needs `--bf16`.",
            "choices": ["float32", "bfloat16", "float16"],
        },
    )
    frozen_dropout: bool = field(
        default=True,
        metadata={"help": "Whether the frozen parts drop out activations in training, as the original's did."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "`sdpa`, `eager`, `flash_attention_2`; what the parts support by default."}
    )
    use_lora: bool = field(
        default=False,
        metadata={"help": "Train low-rank adapters of the language model and the Q-Former, and the projection whole."},
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapters, before it is divided by the rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: str | None = field(
        default=None,
        metadata={"help": "Regular expression of the modules with adapters; the recipe's by default."},
    )
    load_in_8bit: bool = field(default=False, metadata={"help": "With LoRA: the frozen weights in 8 bits."})
    load_in_4bit: bool = field(default=False, metadata={"help": "With LoRA: the frozen weights in 4 bits (NF4)."})

    def __post_init__(self):
        _check_at_least(self, 1, "num_subsample_frames", "lora_r", "lora_alpha")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"`lora_dropout` must be from 0 to below 1, but is {self.lora_dropout}")
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("`load_in_8bit` and `load_in_4bit` exclude each other")
        if (self.load_in_8bit or self.load_in_4bit) and not self.use_lora:
            raise ValueError("Weights in 8 or 4 bits can't be trained: `load_in_8bit`, `load_in_4bit` need `use_lora`")
        if (self.load_in_8bit or self.load_in_4bit) and self.frozen_dtype is not None:
            raise ValueError("`frozen_dtype` is for weights that are not in 8 or 4 bits: leave one of them out")


@dataclass
class DataArguments:
    """
    Which clips are trained on.

    Raises:
        ValueError: for `max_val_samples` less than 1, or `vision_features_dir` with `augment`.
    """

    train_frames_dir: str = field(
        metadata={
            "help": "Clips to train on: a folder that `transformers-eilev data extract` wrote, a data set of such "
            "clips on the Hub, or the original's folders of frames with their `narrated_actions.csv`.",
            "aliases": ["--train_narrated_actions_dir"],
        }
    )
    val_frames_dir: str | None = field(
        default=None,
        metadata={"help": "Clips to evaluate on, likewise.", "aliases": ["--val_narrated_actions_dir"]},
    )
    train_split: str = field(default="train", metadata={"help": "Split of `train_frames_dir`, if it has splits."})
    val_split: str = field(default="val", metadata={"help": "Split of `val_frames_dir`, if it has splits."})
    train_annotation_file: str | None = field(
        default=None,
        metadata={
            "help": "CSV of narrated actions (`frame_path`, `narration_text`, `structured_verb`, `structured_noun`) "
            "to use instead of those that lie beside the frames."
        },
    )
    val_annotation_file: str | None = field(default=None, metadata={"help": "Likewise."})
    train_split_file: str | None = field(
        default=None,
        metadata={"help": "Split file, such as `fho_main_train.json`: only clips of its videos are trained on."},
    )
    val_split_file: str | None = field(default=None, metadata={"help": "Likewise."})
    skip_missing_clips: bool = field(
        default=False,
        metadata={"help": "Go on without clips that an annotation names and that are not there; they are an error."},
    )
    max_val_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on so many clips, drawn by the seed, and not on all."}
    )
    augment: bool = field(
        default=True,
        metadata={"help": "Random augmentation, crop and flip of the training clips, as EILEV's (not VideoBLIP's)."},
    )
    vision_features_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of stored features of the frozen vision model (`run_extract_features.py`): read instead "
            "of frames. An order of magnitude faster; needs `--augment False`."
        },
    )

    def __post_init__(self):
        if self.max_val_samples is not None:
            _check_at_least(self, 1, "max_val_samples")
        if self.vision_features_dir is not None and self.augment:
            raise ValueError(
                "`vision_features_dir` holds features of clips as they are, which can't be augmented any more: set "
                "`augment` to False"
            )


@dataclass
class VideoBlipDataArguments(DataArguments):
    """Which clips VideoBLIP is trained on; the original did not augment them."""

    augment: bool = field(default=False, metadata={"help": "Random augmentation, crop and flip in training."})


@dataclass
class EilevDataArguments(DataArguments):
    """
    Which clips are trained on, and which stand as examples before each.

    Raises:
        ValueError: as [`DataArguments`]; for a negative number of examples, a `verb_noun_ratio` that is not from 0 to
            1, or `train_target_dataset_len` less than 1.
    """

    train_num_in_context_examples_per_sample: int = field(
        default=16, metadata={"help": "Narrated clips before the one to narrate, in training."}
    )
    val_num_in_context_examples_per_sample: int = field(
        default=16, metadata={"help": "In evaluation; they are of the training clips."}
    )
    verb_noun_ratio: float = field(
        default=0.5, metadata={"help": "Share of the examples with the verb of the query; the others have its noun."}
    )
    random_in_context_examples: bool = field(
        default=False, metadata={"help": "Draw examples whatever their verbs and nouns."}
    )
    train_target_dataset_len: int | None = field(
        default=None,
        metadata={"help": "Repeat training clips up to so many, evenly over their pairs of verb and noun."},
    )

    def __post_init__(self):
        super().__post_init__()
        _check_at_least(self, 0, "train_num_in_context_examples_per_sample", "val_num_in_context_examples_per_sample")
        if not 0 <= self.verb_noun_ratio <= 1:
            raise ValueError(f"`verb_noun_ratio` must be from 0 to 1, but is {self.verb_noun_ratio}")
        if self.train_target_dataset_len is not None:
            _check_at_least(self, 1, "train_target_dataset_len")


# Of `Trainer`'s options: its own orders, losses of all logits, and metrics by batch don't go with what is ours.
_NEEDED = {"train_sampling_strategy": "random", "label_smoothing_factor": 0.0, "batch_eval_metrics": False}


@dataclass
class VideoNarrationTrainingArguments(TrainingArguments):
    """
    [`~transformers.TrainingArguments`] with the defaults that this model needs.

    It trains if neither `do_train` nor `do_eval` is given. Of the checkpoints the best is loaded at the end, as the
    original did, if there is an evaluation.

    Raises:
        ValueError: for `remove_unused_columns`; for `save_only_model` with `resume_from_checkpoint`; for a
            `train_sampling_strategy` other than "random", a `label_smoothing_factor` other than 0, or
            `batch_eval_metrics`; and as [`~transformers.TrainingArguments`].
    """

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "A checkpoint's folder; or `last`: the last one of `output_dir` that is whole, or a new run if "
            "there is none, so that one command starts a run and goes on with it."
        },
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "Whether to load, and save, the best checkpoint at the end."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Samples are no rows of tokens: never."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every parameter that is trained has a part in every step."}
    )

    def __post_init__(self):
        if not self.do_train and not self.do_eval:
            self.do_train = True
        if self.eval_strategy in ("no", None) or not self.do_train:
            self.load_best_model_at_end = False
        if self.do_eval and not self.do_train and self.eval_strategy not in ("no", None):
            logger.warning("`do_eval` without `do_train`: this evaluates, and does not train")
        if self.remove_unused_columns:
            raise ValueError("`remove_unused_columns` would remove the clips: leave it False")
        if self.save_only_model and self.resume_from_checkpoint is not None:
            raise ValueError("`save_only_model` leaves nothing that `resume_from_checkpoint` could go on from")
        for name, needed in _NEEDED.items():
            if getattr(self, name) != needed:
                raise ValueError(f"`{name}` must be {needed!r} here, but is {getattr(self, name)!r}")
        if self.label_names is None:
            self.label_names = ["labels"]
        super().__post_init__()


def parse_arguments(dataclass_types: Sequence[type], argv: Sequence[str] | None = None) -> tuple:
    """
    Reads arguments as transformers' example scripts do, and more: `[FILE.yaml|FILE.json] [--name value ...]`, where
    what the command line says goes before what the file says.

    Args:
        dataclass_types (`Sequence[type]`): as for [`~transformers.HfArgumentParser`].
        argv (`Sequence[str]`, *optional*): the process's own by default.

    Returns:
        `tuple`: an instance of each.

    Raises:
        ValueError: for a file that is no mapping of arguments, or a value out of range.
        SystemExit: for arguments that there are not, as of `argparse`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(list(dataclass_types))
    lists = {}
    if argv and Path(argv[0]).suffix.lower() in (".yaml", ".yml", ".json"):
        path = Path(argv[0])
        complain = parser.error
        parser.error = lambda message: complain(f"{message} (of {path} or the command line)")
        said = {part.split("=")[0].lstrip("-") for part in argv[1:] if part.startswith("--")}
        of_file, lists = _arguments_of(path, {name for action in parser._actions for name in action.option_strings})
        lists = {name: value for name, value in lists.items() if name not in said}
        argv = of_file + argv[1:]
    parsed = parser.parse_args_into_dataclasses(args=argv)
    for arguments in parsed:
        for name in lists.keys() & vars(arguments).keys():
            setattr(arguments, name, lists[name])
    return parsed


def _arguments_of(path: Path, known: set[str]) -> tuple[list[str], dict[str, list]]:
    """A file's arguments as the command line has them, and those that are lists, which it may not have."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold names and values of arguments, but holds {content!r:.80}")
    arguments, lists = [], {}
    for name, value in content.items():
        name = str(name).replace("-", "_")
        if f"--{name}" not in known:
            raise ValueError(f"{path}: there is no argument {name!r}")
        if value is None:
            continue
        if isinstance(value, list):
            lists[name] = value
            continue
        if value is False and name.endswith("_strategy"):
            value = "no"  # which YAML reads as false
        arguments += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return arguments, lists


def _check_at_least(arguments, smallest: int, *names: str):
    for name in names:
        if getattr(arguments, name) < smallest:
            raise ValueError(f"`{name}` must be at least {smallest}, but is {getattr(arguments, name)}")


__all__ = [
    "DataArguments",
    "EilevDataArguments",
    "ModelArguments",
    "VideoBlipDataArguments",
    "VideoNarrationTrainingArguments",
    "parse_arguments",
]
