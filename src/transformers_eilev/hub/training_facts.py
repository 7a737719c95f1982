"""What the folder of a training says of it, for people to read."""

import json
import pickle
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ..training.checkpoints import STATE_FILE
from ..training.resuming import RUN_FILE


RESULTS_FILE = "all_results.json"
ARGUMENTS_FILE = "training_args.bin"


def holds_training(folder: Path) -> bool:
    """Whether a training of this package began in a folder."""
    return (folder / RUN_FILE).is_file() or (folder / STATE_FILE).is_file()


def describe_training(folder: Path) -> dict[str, str]:
    """
    Names and values of what a training was made of, what it cost and where it ended, in the order to show them.

    Args:
        folder (`Path`): the training's `output_dir`.

    Returns:
        `dict[str, str]`: what its files don't say is left out; so are paths, of a machine that readers don't have.

    Raises:
        FileNotFoundError: if no training began in `folder`.
        ValueError: if one of the files is no JSON object, by name.
    """
    if not holds_training(folder):
        raise FileNotFoundError(f"{folder} is no training's `output_dir`: it has neither {RUN_FILE} nor {STATE_FILE}")
    run, state, results = (_read_json(folder / name) for name in (RUN_FILE, STATE_FILE, RESULTS_FILE))
    arguments = read_training_arguments(folder / ARGUMENTS_FILE)
    facts = {
        **_samples_of(run),
        **_steps_of(state, arguments),
        **_optimization_of(run, arguments),
        **_ends_of(results),
    }
    return {name: value for name, value in facts.items() if value is not None}


def read_training_arguments(path: Path) -> dict[str, Any]:
    """
    The arguments that `Trainer` leaves as `training_args.bin`; empty if there is no such file.

    It is a pickle. Only classes that arguments consist of are made of it: a file with others in it is left aside, with
    a warning.
    """
    if not path.is_file():
        return {}
    try:
        with torch.serialization.safe_globals(_classes_of_arguments()):
            arguments = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"{path} is left aside, since it can't be read safely: {reason}", UserWarning, stacklevel=3)
        return {}
    return dict(vars(arguments)) if isinstance(arguments, TrainingArguments) else {}


# ------------------------------------------------------------------------------------------------------------ details


def _classes_of_arguments() -> list[type]:
    try:
        from accelerate import PartialState
        from accelerate.utils import DistributedType
    except ImportError as error:
        raise ImportError(
            f"Reading {ARGUMENTS_FILE} needs accelerate: pip install 'transformers-eilev[training]'"
        ) from error
    from transformers.trainer_pt_utils import AcceleratorConfig
    from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    from ..training.arguments import VideoNarrationTrainingArguments

    return [
        AcceleratorConfig,
        DistributedType,
        HubStrategy,
        IntervalStrategy,
        OptimizerNames,
        PartialState,
        SaveStrategy,
        SchedulerType,
        TrainingArguments,
        VideoNarrationTrainingArguments,
    ]


def _samples_of(run: Mapping[str, Any]) -> dict[str, str | None]:
    examples = run.get("train_num_in_context_examples_per_sample")
    ratio = run.get("verb_noun_ratio")
    if run.get("random_in_context_examples"):
        chosen = "at random"
    else:
        chosen = None if ratio is None else f"{ratio:.0%} with the verb of the clip at hand, the others with its noun"
    return {
        "clips trained on": _number(run.get("num_train_samples")),
        "frames of a clip": _number(run.get("num_subsample_frames")),
        "narrated clips before each": _number(examples),
        "how these are chosen": chosen if examples else None,
        "augmentation": _yes_or_no(run.get("augment")),
        "SHA-256 of the list of clips": run.get("train_samples_sha256"),
    }


def _steps_of(state: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, str | None]:
    steps, last = state.get("global_step"), state.get("max_steps")
    made = None if steps is None else f"{steps:,}"
    if steps is not None and last and steps < last:
        made += f" of {last:,}"
    is_best_kept = arguments.get("load_best_model_at_end", False)
    return {
        "epochs": None if state.get("epoch") is None else f"{state['epoch']:.4g}",
        "steps": made,
        "step that was kept, as the best": _number(state.get("best_global_step")) if is_best_kept else None,
    }


def _optimization_of(run: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, str | None]:
    total = run.get("total_train_batch_size")
    batch = _number(total)
    if total is not None and arguments:
        at_a_time, accumulated = (
            arguments[key] for key in ("per_device_train_batch_size", "gradient_accumulation_steps")
        )
        num_processes = total // (at_a_time * accumulated)
        processes = f"{num_processes} process{'es' * (num_processes > 1)}"
        batch += f": {processes}, {at_a_time} at a time, {accumulated} accumulated"
    facts = {"clips a step": batch, "learning rate": _number(run.get("learning_rate"))}
    if arguments:
        precision = next((name for name in ("bf16", "fp16") if arguments[name]), "float32")
        facts |= {
            "schedule": f"{_word(arguments['lr_scheduler_type'])}, warm-up {_warm_up(arguments['warmup_steps'])}",
            "optimizer": _word(arguments["optim"]),
            "weight decay": _number(arguments["weight_decay"]),
            "precision": precision,
        }
    if run.get("use_lora"):
        bits = next((f", the frozen weights in {n} bits" for n in (4, 8) if run.get(f"load_in_{n}bit")), "")
        facts["adapters (LoRA)"] = (
            f"rank {run['lora_r']}, alpha {run['lora_alpha']}, dropout {run['lora_dropout']}{bits}"
        )
    return {**facts, "seed": _number(run.get("seed"))}


def _ends_of(results: Mapping[str, Any]) -> dict[str, str | None]:
    seconds = results.get("train_runtime")
    # `Trainer` counts from the last start on.
    passed = None if seconds is None else f"{timedelta(seconds=round(seconds))} since it was last started"
    return {
        "time": passed,
        "loss in training": _rounded(results.get("train_loss")),
        "loss in evaluation": _rounded(results.get("eval_loss")),
        "share of tokens predicted in evaluation": _rounded(results.get("eval_token_accuracy")),
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds {content!r:.80}")
    return content


def _number(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _yes_or_no(value: bool | None) -> str | None:
    return None if value is None else ("yes" if value else "no")


def _warm_up(steps: float) -> str:
    """`warmup_steps` below 1 are a share of all."""
    return f"{steps:.3g} of the steps" if 0 < steps < 1 else f"{steps:,.0f} steps"


def _word(value: Any) -> str:
    """Of an enumeration or a text."""
    return str(getattr(value, "value", value))


__all__ = ["describe_training", "holds_training", "read_training_arguments"]
