"""A run that is killed and resumed is the run that was not; several processes are one."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clip_stores import rows_of, write_annotations
from safetensors.torch import load_file


HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "examples" / "training" / "run_eilev.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ARGUMENTS = shlex.split("""
    --train_num_in_context_examples_per_sample 2 --val_num_in_context_examples_per_sample 1 --num_subsample_frames 4
    --per_device_train_batch_size 2 --gradient_accumulation_steps 2 --per_device_eval_batch_size 2
    --num_train_epochs 3 --learning_rate 1e-3 --logging_steps 1 --eval_strategy steps --eval_steps 3 --save_steps 3
    --dataloader_num_workers 1 --use_cpu --report_to none --disable_tqdm True
""")
LORA = ["--use_lora", "--lora_r", "4", "--lora_dropout", "0"]


def run(program, clip_store, checkpoint, output_dir, *arguments):
    paths = ["--train_frames_dir", clip_store, "--val_frames_dir", clip_store, "--model_name_or_path", checkpoint]
    command = [*program, *paths, "--output_dir", output_dir, *ARGUMENTS, *arguments]
    try:
        return run_for_a_while(command)
    except subprocess.TimeoutExpired:
        # CPython 3.11 hangs, once in a long while, in the fork of a loader's worker. One more run that is killed.
        return run_for_a_while([*command, "--resume_from_checkpoint", "last"])


def run_for_a_while(command, seconds=100):
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for group in [process.pid, *map(int, children)]:  # torchrun's children have groups of their own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def succeed(*arguments):
    result = run(*arguments)
    assert result.returncode == 0, result.stderr[-8000:]
    return result


def history(output_dir):
    """What was measured at each step, without what depends on the clock."""
    state = json.loads((output_dir / "trainer_state.json").read_text())
    names = ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_token_accuracy", "epoch")
    entries = [{"step": e["step"], **{n: e[n] for n in names if n in e}} for e in state["log_history"]]
    return [entry for entry in entries if "loss" in entry or "eval_loss" in entry]


def test_a_killed_run_goes_on_as_if_it_had_not_been(clip_store, golden_opt, tmp_path):
    """Dropout, augmentation, workers, two processes; killed in an epoch, in a checkpoint and before one."""
    killed = [*TORCHRUN, HERE / "killed_run.py"]
    succeed([*TORCHRUN, SCRIPT], clip_store, golden_opt.checkpoint, tmp_path / "whole")
    for point, step in (("step", 2), ("save", 3), ("step", 5), ("evaluation", 6)):
        result = run(
            [*killed, point, step],
            clip_store,
            golden_opt.checkpoint,
            tmp_path / "killed",
            "--resume_from_checkpoint",
            "last",
        )
        assert result.returncode == -signal.SIGKILL, result.stderr[-8000:]
    assert {path.name for path in (tmp_path / "killed").glob("checkpoint-*")} == {"checkpoint-3"}
    result = succeed(
        [*TORCHRUN, SCRIPT],
        clip_store,
        golden_opt.checkpoint,
        tmp_path / "killed",
        "--resume_from_checkpoint",
        "last",
    )
    whole = history(tmp_path / "whole")
    assert history(tmp_path / "killed") == whole
    assert len({entry["loss"] for entry in whole if "loss" in entry}) == 6
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.parametrize("golden, more", [("opt", []), ("t5", LORA)], indirect=["golden"], ids=["whole", "lora"])
def test_processes_and_accumulation_do_not_change_the_loss(clip_store, checkpoint, tmp_path, more):
    """Two processes, batches of two, two of them accumulated, are one process with batches of eight."""
    # 13 samples: neither the batches nor the accumulated steps come out even.
    thirteen = list(rows_of("train", 16))[:13]
    # Adam makes rounding errors of small gradients as large as its steps, so they are small.
    more = [
        *more,
        "--learning_rate",
        1e-4,
        "--train_annotation_file",
        write_annotations(tmp_path / "thirteen.csv", thirteen),
    ]
    succeed([*TORCHRUN, SCRIPT], clip_store, checkpoint, tmp_path / "2x2x2", *more)
    one = ["--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 1, "--per_device_eval_batch_size", 5]
    succeed([sys.executable, SCRIPT], clip_store, checkpoint, tmp_path / "1x8", *one, *more)
    for several, single in zip(history(tmp_path / "2x2x2"), history(tmp_path / "1x8"), strict=True):
        norms = [entry.pop("grad_norm", 0) for entry in (several, single)]
        assert several == pytest.approx(single, rel=1e-4), (several, single)
        assert norms[0] == pytest.approx(norms[1], rel=1e-2)
