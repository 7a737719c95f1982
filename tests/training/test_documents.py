"""The commands of examples/training/README.md: those of the published checkpoints parse, the others run."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoBlipDataArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
)


ROOT = Path(__file__).parents[2]
README = (ROOT / "examples" / "training" / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
# Without a file of arguments: those of the published checkpoints.
WHOLE = [command for command in COMMANDS if len(command) > 35]
SHORT = [command for command in COMMANDS if len(command) <= 35]
QUICK = shlex.split("""
    --max_steps 1 --train_num_in_context_examples_per_sample 2 --val_num_in_context_examples_per_sample 1 --use_cpu
    --gradient_accumulation_steps 1 --eval_steps 1 --dataloader_num_workers 0 --report_to none --max_val_samples 1
""")


def script_of(command):
    place = next(i for i, part in enumerate(command) if part.endswith(".py"))
    return Path(command[place]).name, command[place + 1 :]


@pytest.mark.parametrize("command", WHOLE, ids=lambda command: command[command.index("--output_dir") + 1])
def test_a_published_checkpoints_command_says_what_its_file_says(command):
    script, argv = script_of(command)
    data_class = EilevDataArguments if script == "run_eilev.py" else VideoBlipDataArguments
    types = [ModelArguments, data_class, VideoNarrationTrainingArguments]
    said = [vars(arguments) for arguments in parse_arguments(types, [*argv, "--use_cpu"])]
    name = argv[argv.index("--output_dir") + 1].replace("eilev-blip2", "eilev")
    path = ROOT / "examples" / "training" / "configs" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text())
    given = {name: value for arguments in said for name, value in arguments.items()}
    for key, value in content.items():
        assert given[key] == value, key
    named = {part[2:].replace("narrated_actions", "frames") for part in argv if part.startswith("--")}
    assert named - {"train_frames_dir", "val_frames_dir", "output_dir"} == set(content)
    batch = given["per_device_train_batch_size"] * given["gradient_accumulation_steps"]
    assert batch * (8 if command[0] == "torchrun" else 1) == 128


def test_there_are_four():
    assert len(WHOLE) == 4 and len(SHORT) == 4


def test_the_other_commands_run(clip_store, golden_opt, tmp_path):
    """One after the other, as they are printed, but for the checkpoint, a GPU's settings, and the number of steps."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(clip_store, tmp_path / "clips")
    for command in SHORT:
        script, argv = script_of(command)
        if script == "run_eilev.py":
            argv = [*argv, "--model_name_or_path", str(golden_opt.checkpoint), *QUICK]
        elif script == "run_extract_features.py":
            argv[argv.index("--model_name_or_path") + 1] = str(golden_opt.checkpoint)
        program = [sys.executable, f"examples/training/{script}", *argv]
        result = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, (command, result.stderr[-3000:])
    assert (tmp_path / "eilev-merged" / "model.safetensors").is_file()
