"""What a training has reached, on disk, so that one that is killed goes on as if it had not been."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from transformers_eilev.data.files import atomic_file


class TrainingState:
    """
    The state of a training in a file, and beside it a log with a line of JSON for each state.

    Args:
        path, log_path (`Path`): of the two files.
        parts (`Mapping[str, Any]`): model and optimizers, or what else has a `state_dict`.
        identity (`str`): of what the outcome depends on; a state of another is not gone on with.
        made_of (`str`): what that is, besides settings, for the error.
    """

    def __init__(self, path: Path, log_path: Path, parts: Mapping[str, Any], *, identity: str, made_of: str):
        self.path, self.log_path, self.parts = path, log_path, parts
        self.identity, self.made_of = identity, made_of
        self.log = []

    def save(self, entry: dict[str, Any]) -> None:
        """Saves the parts as they are, and an entry of the log with the "step" that they have reached."""
        self.log.append(entry)
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        with atomic_file(self.path) as file:
            torch.save({"identity": self.identity, "step": entry["step"], "log": self.log, "parts": parts}, file)
        self._write_log()

    def resume(self, device: torch.device | str | None = None) -> int:
        """Gives the parts what was saved last. Returns the step that they have reached, 0 if nothing was saved.

        Raises:
            ValueError: if it is the state of another training.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return 0
        state = torch.load(self.path, map_location=device, weights_only=True)
        self.check(state["identity"], self.path)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.log = state["log"]
        self._write_log()
        return state["step"]

    def remove(self) -> None:
        """When it has served: it is several times as large as what was trained. The log stays."""
        self.path.unlink(missing_ok=True)

    def check(self, identity: str | None, path: Path) -> None:
        """Raises ValueError, with the path of what has it, for the identity of another training."""
        if identity != self.identity:
            raise ValueError(
                f"{path} is of a training with other settings, {self.made_of}: give them again, or another output_dir"
            )

    def _write_log(self) -> None:
        with atomic_file(self.log_path) as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in self.log).encode())
