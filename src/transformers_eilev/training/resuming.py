"""Whether a run begins or goes on, where, and whether it is the run that it was."""

import hashlib
import json
from pathlib import Path

import torch.distributed as dist

from ..data.files import write_json
from .checkpoints import STATE_FILE, fault_of, find_last_checkpoint


# What a run was made of. A resumed one must be made of the same. What begins with "_" is not pushed to the Hub.
RUN_FILE = "_training_run.json"
# Arguments by which a run may go on with others: where things are (their content is compared), and how fast.
_MAY_CHANGE = (
    "model_name_or_path",
    "train_frames_dir",
    "train_annotation_file",
    "train_split_file",
    "vision_features_dir",
    "skip_missing_clips",
    "attn_implementation",
)


def checkpoint_to_resume(training_args) -> Path | None:
    """
    Where a run goes on, by its `resume_from_checkpoint`.

    Returns:
        `Path` or `None`: the checkpoint's folder; `None` for a run that begins.

    Raises:
        ValueError: for a checkpoint that is not whole, with what it lacks; for an `output_dir` with a run in it that
            shall not be gone on with; if the processes don't see the same checkpoint.
    """
    wanted = training_args.resume_from_checkpoint
    wanted = None if wanted is None or wanted.lower() == "false" else wanted
    if wanted is not None and wanted.lower() not in ("last", "true"):
        checkpoint = Path(wanted)
        fault = fault_of(checkpoint)
        if fault is not None:
            raise ValueError(f"`resume_from_checkpoint` is {wanted!r}, which is no whole checkpoint: {fault}")
    else:
        checkpoint = find_last_checkpoint(training_args.output_dir)
        holds_run = checkpoint is not None or (Path(training_args.output_dir) / STATE_FILE).is_file()
        if wanted is None and holds_run and training_args.do_train:
            raise ValueError(
                f"{training_args.output_dir} holds a run{'' if checkpoint is None else f' up to {checkpoint.name}'}: "
                "set `resume_from_checkpoint` to 'last' to go on with it, or choose another `output_dir`"
            )
    _check_that_processes_agree(None if wanted is None else checkpoint, training_args)
    return None if wanted is None else checkpoint


def _check_that_processes_agree(checkpoint: Path | None, training_args):
    """Those of another machine may see another disk."""
    if training_args.world_size == 1 or not dist.is_initialized():
        return
    seen = [None] * training_args.world_size
    dist.all_gather_object(seen, None if checkpoint is None else checkpoint.name)
    if len(set(seen)) > 1:
        found = ", ".join(f"process {rank} {name or 'none'}" for rank, name in enumerate(seen))
        raise ValueError(
            f"The processes would go on from different checkpoints ({found}): `output_dir`, which is "
            f"{training_args.output_dir}, must be one folder that all machines see"
        )


def check_same_run(model_args, data_args, training_args, train_dataset, *, is_resumed: bool):
    """
    Compares what decides over samples and steps with what the run began with, or writes it down if it begins.

    Raises:
        ValueError: if they differ, with names and values.
    """
    arguments = {**vars(model_args), **vars(data_args)}
    run = {
        **{name: value for name, value in arguments.items() if name not in _MAY_CHANGE and "val_" not in name},
        "seed": training_args.seed,
        "data_seed": training_args.data_seed,
        "learning_rate": training_args.learning_rate,
        "total_train_batch_size": training_args.train_batch_size
        * training_args.gradient_accumulation_steps
        * training_args.world_size,
        "num_train_samples": len(train_dataset),
        "train_samples_sha256": _fingerprint(train_dataset.actions),
    }
    path = Path(training_args.output_dir) / RUN_FILE
    if is_resumed and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        # Not what only one of them has: the other may be of another version.
        changed = [name for name in run.keys() & before.keys() if before[name] != run[name]]
        if changed:
            differences = "; ".join(f"`{name}` was {before[name]!r} and is {run[name]!r}" for name in sorted(changed))
            raise ValueError(f"The run in {path.parent} can't be resumed as another: {differences}")
    elif training_args.process_index == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, run)


def _fingerprint(actions) -> str:
    """Of which clips, with which narrations, verbs and nouns, stand where."""
    digest = hashlib.sha256()
    names = ("frame_path", "narration_text", "structured_verb", "structured_noun")
    for values in zip(*(actions[name][:] for name in names), strict=True):
        digest.update(json.dumps(values).encode())
    return digest.hexdigest()


__all__ = ["RUN_FILE", "check_same_run", "checkpoint_to_resume"]
