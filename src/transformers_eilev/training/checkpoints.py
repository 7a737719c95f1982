"""Which checkpoints of a run are whole: one that was being written when its run was killed is not."""

import json
import re
import struct
import warnings
import zipfile
from pathlib import Path


STATE_FILE = "trainer_state.json"
# Of one process or DDP, of FSDP (whole, sharded), of DeepSpeed.
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "optimizer_0", "global_step*")


def find_last_checkpoint(output_dir: str | Path) -> Path | None:
    """
    The last whole checkpoint that a `Trainer` left.

    `Trainer` writes into the folder of the checkpoint itself, its state last; a run that is killed meanwhile leaves
    files that are missing or cut off, which `transformers.trainer_utils.get_last_checkpoint` takes for a checkpoint.

    Args:
        output_dir (`str` or `Path`): of the run.

    Returns:
        `Path` or `None`: the folder; `None` if there is no whole one.

    Warns:
        UserWarning: of a later one that is not whole, with what it lacks.
    """
    for folder in sorted(_checkpoints(Path(output_dir)), key=_step_of, reverse=True):
        fault = fault_of(folder)
        if fault is None:
            return folder
        warnings.warn(f"{folder} was not written to its end and is left aside: {fault}", UserWarning, stacklevel=2)
    return None


def steps_of(folder: Path) -> int:
    """How many steps a whole checkpoint's run had made."""
    return json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["global_step"]


def _checkpoints(output_dir: Path) -> list[Path]:
    if not output_dir.is_dir():
        return []
    return [path for path in output_dir.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name) and path.is_dir()]


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def fault_of(folder: Path) -> str | None:
    """What a checkpoint lacks to go on from, or `None`; whatever its name is."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"no {STATE_FILE}"
    except ValueError as error:
        return f"{STATE_FILE} is no JSON ({error})"
    if re.fullmatch(r"checkpoint-\d+", folder.name) and state.get("global_step") != _step_of(folder):
        return f"{STATE_FILE} says step {state.get('global_step')}"
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not any(path.suffix in (".safetensors", ".bin", ".pt", ".distcp") for path in files):
        return "no weights"
    if not any(any(folder.glob(pattern)) for pattern in _OPTIMIZERS):
        return "no state of the optimizer (of `save_only_model`)"
    for path in files:
        # Both formats say at a known place how long they are: nothing of the content has to be read.
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"{path.name} is cut off"
        if path.suffix == ".safetensors" and not _is_whole_safetensors(path):
            return f"{path.name} is cut off"
    return None


def _is_whole_safetensors(path: Path) -> bool:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return False
        header_size = struct.unpack("<Q", start)[0]
        if 8 + header_size > size:
            return False
        header = json.loads(file.read(header_size))
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return size == 8 + header_size + max(ends, default=0)


__all__ = ["fault_of", "find_last_checkpoint", "steps_of"]
