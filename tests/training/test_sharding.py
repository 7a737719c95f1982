"""FSDP2 on two processes, by accelerate's configuration: the run of one process."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForImageTextToText


ROOT = Path(__file__).parents[2]
ARGUMENTS = shlex.split("""
    --max_steps 4 --gradient_accumulation_steps 2 --num_subsample_frames 2 --learning_rate 1e-3 --logging_steps 1
    --save_steps 2 --augment False --train_num_in_context_examples_per_sample 1 --use_cpu --report_to none
    --disable_tqdm True
""")


def start(tmp_path, checkpoint, clips, name, *launcher, batch_size, more=()):
    output_dir = tmp_path / name
    argv = [*ARGUMENTS, "--model_name_or_path", checkpoint, "--train_frames_dir", clips, "--output_dir", output_dir]
    argv += ["--per_device_train_batch_size", batch_size, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, launcher), *map(str, argv)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return output_dir, [entry["loss"] for entry in log if "loss" in entry]


@pytest.mark.parametrize("golden", ["t5"], indirect=True)  # the harder one: its embedding has three names
def test_fsdp_is_one_process(checkpoint, clip_store, tmp_path):
    """The same losses; a checkpoint that loads, and that a run goes on from."""
    config = yaml.safe_load((ROOT / "examples/training/accelerate_configs/fsdp2.yaml").read_text())
    # Half precision would round by the number of processes.
    (tmp_path / "fsdp2.yaml").write_text(yaml.safe_dump(config | {"mixed_precision": "no", "num_processes": 2}))
    launch = ["-m", "accelerate.commands.launch", "--config_file", tmp_path / "fsdp2.yaml", "--main_process_port", "0"]
    launch.append(Path(__file__).with_name("fsdp_on_cpu.py"))
    script = [ROOT / "examples/training/run_eilev.py"]
    one, losses = start(tmp_path, checkpoint, clip_store, "one", *script, batch_size=4)
    two, sharded_losses = start(tmp_path, checkpoint, clip_store, "two", *launch, batch_size=2)
    assert sharded_losses == pytest.approx(losses, rel=1e-4)
    assert (two / "checkpoint-2" / "pytorch_model_fsdp.bin").is_file()  # it was sharded indeed

    models = [AutoModelForImageTextToText.from_pretrained(path) for path in (one, two)]
    for (name, expected), given in zip(models[0].named_parameters(), models[1].parameters()):
        if not name.endswith("key.bias"):  # no gradient but noise, which Adam makes as large as any
            assert (expected - given).abs().max() < 1e-4, name

    (two / "checkpoint-4" / "trainer_state.json").unlink()
    more = ["--resume_from_checkpoint", "last"]
    _, resumed = start(tmp_path, checkpoint, clip_store, "two", *launch, batch_size=2, more=more)
    assert resumed == sharded_losses
