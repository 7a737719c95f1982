"""Stages that wait for each other and run side by side, each a process of its own, each done once."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers_eilev.data.files import write_json


@dataclass(frozen=True)
class Stage:
    """
    A part of the work.

    Attributes:
        name (`str`): of its log and of the mark that it is done.
        run (`Callable[[], None]`): does it, and goes on where it was stopped.
        after (`tuple[str, ...]`): stages whose results it needs.
        alone (`bool`): it uses all processors by itself.
        always (`bool`): it is quick, and depends on which other stages there are: each call does it again.
    """

    name: str
    run: Callable[[], None]
    after: tuple[str, ...] = ()
    alone: bool = False
    always: bool = False


class StageError(RuntimeError):
    """A stage ended with an error; its log says which."""


def run_stage(stages: Sequence[Stage], name: str, output_dir: Path, settings: Mapping) -> None:
    """Runs one stage in this process, and marks it as done."""
    stage = next(stage for stage in stages if stage.name == name)
    start = time.time()
    stage.run()
    mark = _mark(output_dir, name)
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_json(mark, {"seconds": round(time.time() - start, 1), "settings": dict(settings)})


def run_stages(
    stages: Sequence[Stage], output_dir: Path, settings: Mapping, command: Sequence[str], *, num_processes: int = 2
) -> None:
    """
    Runs the stages that are not done, as many at a time as there are processes.

    Args:
        stages (`Sequence[Stage]`): each after those that it needs.
        output_dir (`Path`): gets a "logs" folder, and a "done" folder by which a second call knows what is left.
        settings (`Mapping`): what the results depend on.
        command (`Sequence[str]`): to which a stage's name is appended to run it.
        num_processes (`int`): at a time.

    Raises:
        ValueError: if what is done was done with other settings, by their names.
        StageError: if a stage fails; those that run beside it are stopped.
    """
    done = set()
    for stage in stages:  # what comes after something that is not done is to be done again
        if _is_done(output_dir, stage.name, settings) and not stage.always and set(stage.after) <= done:
            done.add(stage.name)
    waiting = [stage for stage in stages if stage.name not in done]
    running: dict[Stage, tuple[subprocess.Popen, float]] = {}
    print(f"{len(done)} of {len(stages)} stages are done", flush=True)
    try:
        while waiting or running:
            for stage in list(waiting):
                room = num_processes - (num_processes if any(other.alone for other in running) else len(running))
                wanted = num_processes if stage.alone else 1
                if set(stage.after) <= done and wanted <= room:
                    waiting.remove(stage)
                    running[stage] = (_start(stage, output_dir, command), time.time())
                    print(f"{time.strftime('%H:%M:%S')} {stage.name} ...", flush=True)
            time.sleep(0.2)
            for stage, (process, start) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[stage]
                if process.returncode:
                    raise StageError(
                        f"{stage.name} ended with {process.returncode}; see {_log(output_dir, stage.name)}, and call "
                        "again to go on"
                    )
                done.add(stage.name)
                print(f"{time.strftime('%H:%M:%S')} {stage.name}: {time.time() - start:.0f} s", flush=True)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def seconds_of(output_dir: Path) -> dict[str, float]:
    """How long each stage that is done took; the last call of one that was stopped."""
    marks = sorted((output_dir / "done").glob("*.json"))
    return {mark.stem: json.loads(mark.read_text(encoding="utf-8"))["seconds"] for mark in marks}


def _start(stage: Stage, output_dir: Path, command: Sequence[str]) -> subprocess.Popen:
    log = _log(output_dir, stage.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        return subprocess.Popen([sys.executable, *command, stage.name], stdout=file, stderr=subprocess.STDOUT)


def _is_done(output_dir: Path, name: str, settings: Mapping) -> bool:
    mark = _mark(output_dir, name)
    if not mark.exists():
        return False
    before, settings = json.loads(mark.read_text(encoding="utf-8"))["settings"], json.loads(json.dumps(settings))
    different = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if different:
        changes = ", ".join(f"{key} was {before.get(key)!r}, is {settings.get(key)!r}" for key in different)
        raise ValueError(f"{output_dir} is of a recipe with other settings ({changes}): take another folder")
    return True


def _mark(output_dir: Path, name: str) -> Path:
    return output_dir / "done" / f"{name}.json"


def _log(output_dir: Path, name: str) -> Path:
    return output_dir / "logs" / f"{name}.log"
