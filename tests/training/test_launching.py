"""What starts a training: the recipes' arguments, accelerate's configurations, and Slurm's scripts."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.dataclasses import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from typer.testing import CliRunner

from transformers_eilev.commands import app
from transformers_eilev.evaluation import MetricArguments, NarratorArguments, QueryArguments, RunArguments
from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoBlipDataArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
)


EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = EXAMPLES / "training" / "configs"
ACCELERATE = EXAMPLES / "training" / "accelerate_configs"
SLURM = EXAMPLES / "slurm"
DATA_CLASSES = {"run_eilev.py": EilevDataArguments, "run_video_blip.py": VideoBlipDataArguments}

# What both were trained with, by the commands that their authors published.
SHARED = {
    "num_subsample_frames": 8,
    "num_train_epochs": 5,
    "learning_rate": 1e-5,
    "weight_decay": 0.05,
    "bf16": True,
    "eval_strategy": "steps",
    "eval_steps": 200,
    "save_strategy": "steps",
    "save_steps": 200,
    "save_total_limit": 3,
    "logging_steps": 10,
}
EILEV = {
    **SHARED,
    "train_num_in_context_examples_per_sample": 16,
    "val_num_in_context_examples_per_sample": 16,
    "verb_noun_ratio": 0.5,
    "warmup_steps": 0,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "per_device_eval_batch_size": 8,
    "ddp_find_unused_parameters": False,
    "augment": True,
}
VIDEO_BLIP = {
    **SHARED,
    "warmup_steps": 1000,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 4,
    "dataloader_num_workers": 2,
    "augment": False,
}
PUBLISHED = {
    "eilev-opt-2.7b": ("run_eilev.py", "Salesforce/blip2-opt-2.7b", 8, EILEV),
    "eilev-flan-t5-xl": ("run_eilev.py", "Salesforce/blip2-flan-t5-xl", 8, EILEV),
    "video-blip-opt-2.7b": ("run_video_blip.py", "Salesforce/blip2-opt-2.7b", 1, VIDEO_BLIP),
    "video-blip-flan-t5-xl": ("run_video_blip.py", "Salesforce/blip2-flan-t5-xl", 1, VIDEO_BLIP),
}


def parsed(script, argv):
    """All values of a training script's command line, by name."""
    types = [ModelArguments, DATA_CLASSES[script], VideoNarrationTrainingArguments]
    values = {}
    for arguments in parse_arguments(types, [*map(str, argv), "--use_cpu", "--report_to", "none"]):
        values |= vars(arguments)
    return values


def test_every_recipe_is_tested():
    assert {path.stem for path in RECIPES.iterdir()} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_the_published_one(name, tmp_path):
    script, checkpoint, num_gpus, expected = PUBLISHED[name]
    paths = ["--train_frames_dir", "clips", "--val_frames_dir", "clips", "--output_dir", tmp_path]
    values = parsed(script, [RECIPES / f"{name}.yaml", *paths])
    assert values["model_name_or_path"] == checkpoint
    assert {key: values[key] for key in expected} == expected
    assert num_gpus * values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 128
    assert values["do_train"] and values["do_eval"] and values["load_best_model_at_end"]


# accelerate launch --config_file ...


def launch_arguments(path, *more):
    """What `accelerate launch` makes of a configuration, on a machine with GPUs or without."""
    parser = launch_command_parser()
    args = parser.parse_args(["--config_file", str(path), *more, "run_eilev.py", "config.yaml"])
    return _validate_launch_command(args)[0]


def in_environment(monkeypatch, environment):
    for name, value in environment.items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize("path", sorted(ACCELERATE.iterdir()), ids=lambda path: path.stem)
def test_accelerate_knows_every_key(path):
    """Its own loader refuses unknown keys at the top alone; those below it must be options of its command line."""
    config = load_config_from_file(str(path))
    options = {action.dest for action in launch_command_parser()._actions}
    for section in (config.fsdp_config, config.deepspeed_config):
        assert set(section or ()) <= options
    args = launch_arguments(path)
    assert args.mixed_precision == "bf16" and args.num_processes % 8 == 0
    assert f"accelerate_configs/{path.name}" in path.read_text()


def test_one_node_and_several():
    args = launch_arguments(ACCELERATE / "ddp.yaml", "--num_processes", "4", "--main_process_port", "0")
    prepare_multi_gpu_env(args)
    assert args.multi_gpu and not args.use_fsdp and args.nproc_per_node == "4"
    more = ["--main_process_ip", "node-1", "--machine_rank", "1"]
    args = launch_arguments(ACCELERATE / "ddp_multi_node.yaml", *more)
    prepare_multi_gpu_env(args)
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert args.rdzv_endpoint == "node-1:29500"


def test_fsdp(monkeypatch):
    args = launch_arguments(ACCELERATE / "fsdp2.yaml", "--main_process_port", "0")
    in_environment(monkeypatch, prepare_multi_gpu_env(args))
    plugin = FullyShardedDataParallelPlugin()
    assert args.use_fsdp and plugin.fsdp_version == 2 and plugin.reshard_after_forward
    assert plugin.state_dict_type.name == "FULL_STATE_DICT" and plugin.cpu_ram_efficient_loading
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.transformer_cls_names_to_wrap is None  # the model's own `_no_split_modules`


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed(stage):
    args = launch_arguments(ACCELERATE / f"deepspeed_zero{stage}.yaml", "--main_process_port", "0")
    assert args.use_deepspeed
    args.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(args)
    expected = {
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
        "ACCELERATE_GRADIENT_CLIPPING": "auto",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    }
    if stage == 3:
        expected["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] = "true"
    assert {name: environment[name] for name in expected} == expected


# Slurm


@pytest.fixture
def slurm(tmp_path):
    """Runs a script as Slurm does, with programs in its way that write down how they were called."""
    log = tmp_path / "calls.jsonl"
    recorder = tmp_path / "recorder.py"
    recorder.write_text(
        "import json, os, sys\n"
        "call = [os.path.basename(sys.argv[1]), *sys.argv[2:]]\n"
        f"open({str(log)!r}, 'a').write(json.dumps(call) + '\\n')\n"
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    bodies = dict.fromkeys(("python", "torchrun", "transformers-eilev", "scontrol"), "")
    # `srun` runs what comes after its own options.
    bodies["srun"] = 'while [[ "$1" == --* ]]; do shift; done\n"$@"\n'
    bodies["scontrol"] = '[[ "$1" != show ]] || printf "%s\\n" node-1 node-2\n'
    for name, body in bodies.items():
        record = f'{shlex.quote(sys.executable)} {shlex.quote(str(recorder))} "$0" "$@"\n'
        (programs / name).write_text(f"#!/usr/bin/env bash\n{record}{body}")
        (programs / name).chmod(0o755)

    def run(script, *more, check=True, programs_do=None, **environment):
        for name, body in (programs_do or {}).items():
            path = programs / name
            path.write_text(path.read_text() + body)
        log.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment = {
            **kept,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": "123456",
            "SLURM_SUBMIT_DIR": str(EXAMPLES.parent),
            "SLURM_CPUS_PER_TASK": "16",
            "VENV": str(tmp_path / "none"),
            **environment,
        }
        # sbatch runs a copy of the script, from wherever.
        copy = tmp_path / "slurm_script"
        copy.write_text((SLURM / script).read_text())
        done = subprocess.run(
            ["bash", str(copy), *more], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert not check or done.returncode == 0, done.stderr
        done.calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return done

    return run


def last_call(done, program):
    return [call[1:] for call in done.calls if call[0] == program][-1]


@pytest.mark.parametrize("path", sorted(SLURM.glob("*.sbatch")), ids=lambda path: path.stem)
def test_scripts_are_strict(path):
    text = path.read_text()
    assert "\nset -euo pipefail\n" in text and "#SBATCH --requeue\n" in text
    assert "module load" not in text and "--partition" not in text and "--account" not in text
    assert path.name in (SLURM / "README.md").read_text()


def test_extract_clips(slurm):
    """Jobs of an array do their part, a job without an array merges; the command knows all the options."""
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "DATA_DIR": "ego4d", "CLIPS_DIR": "clips"}
    argv = last_call(slurm("extract_clips.sbatch", "--split", "val", **array), "transformers-eilev")
    assert argv[:4] == ["data", "extract", "ego4d", "clips"] and argv[-4:] == ["--shard", "3/16", "--split", "val"]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 1 and "No such option" not in result.output  # there is no folder `ego4d`
    argv = last_call(slurm("extract_clips.sbatch", DATA_DIR="ego4d"), "transformers-eilev")
    assert "--shard" not in argv
    # Some jobs of an array again.
    argv = last_call(slurm("extract_clips.sbatch", NUM_SHARDS="32", **array), "transformers-eilev")
    assert argv[-2:] == ["--shard", "3/32"]
    done = slurm("extract_clips.sbatch", check=False, **array | {"SLURM_ARRAY_TASK_ID": "16"})
    assert done.returncode == 2 and "NUM_SHARDS" in done.stderr and not done.calls
    done = slurm("extract_clips.sbatch", check=False)
    assert done.returncode != 0 and "DATA_DIR" in done.stderr


def test_extract_features(slurm, monkeypatch):
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8", "CLIPS_DIR": "clips"}
    script, *argv = last_call(slurm("extract_features.sbatch", "--dtype", "float32", **array), "python")
    monkeypatch.setattr(sys, "argv", [script, *argv])
    args = runpy.run_path(str(EXAMPLES.parent / script))["parse_arguments"]()
    assert args.clips == ["clips"] and args.output_dir == "features" and args.dtype == "float32"
    assert args.shard == (2, 8) and args.num_workers == 16


@pytest.mark.parametrize("num_nodes, accumulated", [(1, 16), (2, 8)])
def test_train_eilev(slurm, tmp_path, num_nodes, accumulated):
    """The same batch on one node and on two; where the nodes meet."""
    nodes = {"SLURM_JOB_NUM_NODES": str(num_nodes), "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_GPUS_ON_NODE": "8"}
    done = slurm("train_eilev.sbatch", "--seed", "7", OUTPUT_DIR=str(tmp_path / "out"), **nodes)
    argv = last_call(done, "torchrun")
    from torch.distributed.run import parse_args as parse_torchrun

    launch = parse_torchrun(argv)
    assert (launch.nnodes, launch.nproc_per_node) == (str(num_nodes), "8")
    assert (launch.rdzv_backend, launch.rdzv_endpoint) == ("c10d", f"node-1:{20000 + 123456 % 20000}")
    script = launch.training_script
    assert script == "examples/training/run_eilev.py" and (EXAMPLES.parent / script).is_file()
    config, *rest = launch.training_script_args
    values = parsed(Path(script).name, [EXAMPLES.parent / config, *rest])
    assert values["gradient_accumulation_steps"] == accumulated and values["per_device_train_batch_size"] == 1
    assert values["resume_from_checkpoint"] == "last" and values["seed"] == 7
    assert values["dataloader_num_workers"] == 1 and values["train_num_in_context_examples_per_sample"] == 16


def test_train_eilev_refuses_another_batch(slurm):
    nodes = {"SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "node-[1-3]", "SLURM_GPUS_ON_NODE": "8"}
    done = slurm("train_eilev.sbatch", check=False, **nodes)
    assert done.returncode == 2 and "128" in done.stderr and not done.calls


def test_train_video_blip(slurm, tmp_path):
    done = slurm("train_video_blip.sbatch", OUTPUT_DIR=str(tmp_path / "out"))
    script, config, *rest = last_call(done, "python")
    values = parsed(Path(script).name, [EXAMPLES.parent / config, *rest])
    assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 128
    assert values["resume_from_checkpoint"] == "last" and values["dataloader_num_workers"] == 15


TRAININGS = [("train_eilev.sbatch", "torchrun"), ("train_video_blip.sbatch", "python")]


@pytest.mark.parametrize("script, program", TRAININGS)
def test_a_job_whose_time_is_up_is_queued_again(slurm, script, program):
    """Slurm signals the script, and not what it started; a training that fails is not begun again."""
    nodes = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node-1", "SLURM_GPUS_ON_NODE": "8"}
    assert "#SBATCH --signal=B:USR1@" in (SLURM / script).read_text()
    fails = slurm(script, check=False, programs_do={program: "exit 3\n"}, **nodes)
    assert fails.returncode == 3 and not any("requeue" in call for call in fails.calls)


@pytest.mark.parametrize("script, program", TRAININGS)
def test_the_signal_before_the_end(slurm, script, program):
    # The script's shell is the parent of `srun`, which is that of the program.
    signal = 'kill -USR1 "$(ps -o ppid= -p "$PPID" | tr -d " ")"\nsleep 1\n'
    nodes = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node-1", "SLURM_GPUS_ON_NODE": "8"}
    done = slurm(script, programs_do={program: signal}, **nodes)
    assert done.calls[-1] == ["scontrol", "requeue", "123456"] and "back into the queue" in done.stdout


def test_evaluate(slurm, tmp_path):
    """One job for each number of examples; all write into one folder, in which each has its own."""
    seen = []
    for job in range(6):
        done = slurm(
            "evaluate.sbatch",
            "--conditions",
            "text_only",
            MODEL="model",
            SLURM_ARRAY_TASK_ID=str(job),
            SLURM_GPUS_ON_NODE="2",
            OUTPUT_DIR=str(tmp_path),
        )
        launch = last_call(done, "torchrun")
        assert launch[:3] == ["--standalone", "--nproc_per_node", "2"]
        assert (EXAMPLES.parent / launch[3]).is_file() and launch[3].endswith("run_generation.py")
        types = [NarratorArguments, QueryArguments, RunArguments, MetricArguments]
        narrator, queries, run, _ = parse_arguments(types, launch[4:])
        assert (narrator.model_name_or_path, run.output_dir, run.conditions) == ("model", str(tmp_path), ["text_only"])
        assert queries.clips == queries.context_clips == "clips"
        seen += queries.shots
    assert seen == [0, 1, 2, 4, 8, 16]
    done = slurm("evaluate.sbatch", check=False, MODEL="model", SLURM_ARRAY_TASK_ID="6")
    assert done.returncode == 2 and not done.calls
