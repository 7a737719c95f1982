"""Stages that wait for each other and run side by side, each a process of its own, each done once."""

import contextlib
import dataclasses
import inspect
import json
import os
import reprlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers_eilev.data.files import write_json


# By which a stage knows the command that runs it.
_COMMAND_PID = "RECIPE_COMMAND_PID"
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Stage:
    """
    A part of the work.

    Attributes:
        name (`str`): of its log and of the mark that it is done.
        run (`Callable[[], None]`): does it, and goes on where it was stopped.
        after (`tuple[str, ...]`): stages whose results it needs.
        settings (`Mapping`): all else that its result depends on, as far as it is not code.
        alone (`bool`): it uses all processors by itself.
        always (`bool`): it is quick, and depends on which other stages there are: each call does it again.
    """

    name: str
    run: Callable[[], None]
    after: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    alone: bool = False
    always: bool = False


class StageError(RuntimeError):
    """A stage ended with an error; its log says which."""


def settings_of(*sources: ModuleType | Callable, **given: Any) -> dict[str, Any]:
    """
    What a result depends on, by name: modules' constants, and functions' arguments with a default or as they are
    given. Of the former what JSON knows nothing of is left out.
    """
    settings = {}
    for source in sources:
        if isinstance(source, ModuleType):
            settings |= {name: value for name, value in vars(source).items() if name.isupper()}
        else:
            parameters = inspect.signature(source).parameters.values()
            settings |= {p.name: p.default for p in parameters if p.default is not p.empty}
    plain = {name: _plain(value) for name, value in (settings | given).items()}
    return {name: value for name, value in plain.items() if value is not None}


def run_stage(stages: Sequence[Stage], name: str, output_dir: Path) -> None:
    """
    Runs one stage in this process, and marks it as done. If `run_stages` started the process, it ends, with all that
    it started, as soon as that is gone.
    """
    if _COMMAND_PID in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ.pop(_COMMAND_PID)),), daemon=True).start()
    stage = next(stage for stage in stages if stage.name == name)
    start = time.time()
    # Before it begins too: what is half done is not gone on with under other settings either.
    mark = {"seconds": None, "settings": _settings_with_those_before(stages)[name]}
    _write_mark(output_dir, name, mark)
    stage.run()
    _write_mark(output_dir, name, {**mark, "seconds": round(time.time() - start, 1)})


def run_stages(stages: Sequence[Stage], output_dir: Path, command: Sequence[str], *, num_processes: int = 2) -> None:
    """
    Runs the stages that are not done, as many at a time as there are processes.

    Args:
        stages (`Sequence[Stage]`): each after those that it needs.
        output_dir (`Path`): gets a "logs" folder, and a "done" folder by which a second call knows what is left.
        command (`Sequence[str]`): to which a stage's name is appended to run it.
        num_processes (`int`): at a time.

    Raises:
        ValueError: if a stage, done or begun, or one before it had other settings, by their names.
        StageError: if a stage fails; those that run beside it are stopped.
    """
    _check_settings(stages, output_dir)
    seconds, done = seconds_of(output_dir), set()
    for stage in stages:  # what comes after something that is not done is to be done again
        if stage.name in seconds and not stage.always and set(stage.after) <= done:
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
            # With the processes that it started. It may have ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process, _ in running.values():
            process.wait()


def seconds_of(output_dir: Path) -> dict[str, float]:
    """How long each stage that is done took; the last call of one that was stopped."""
    marks = {path.stem: _read_mark(path)["seconds"] for path in sorted((output_dir / "done").glob("*.json"))}
    return {name: seconds for name, seconds in marks.items() if seconds is not None}


def _start(stage: Stage, output_dir: Path, command: Sequence[str]) -> subprocess.Popen:
    log = _log(output_dir, stage.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, *command, stage.name],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, _COMMAND_PID: str(os.getpid())},
            # A group of its own, to end it with all that it started.
            start_new_session=True,
        )


def _end_with(command_pid: int) -> None:
    while os.getppid() == command_pid:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _settings_with_those_before(stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """By stage, the settings of itself and of all that its result comes from, by stage, as JSON has them."""
    settings = {}
    for stage in stages:
        settings[stage.name] = {stage.name: json.loads(json.dumps(stage.settings))}
        for before in stage.after:
            settings[stage.name].update(settings[before])
    return settings


def _check_settings(stages: Sequence[Stage], output_dir: Path) -> None:
    changes, changed = {}, []
    for name, settings in _settings_with_those_before(stages).items():
        mark = _mark(output_dir, name)
        before = _read_mark(mark)["settings"] if mark.exists() else settings
        # A stage that is new among those before it is no change of theirs: it is waited for.
        different = [_differences(before[other], settings[other], other) for other in settings if other in before]
        if any(different):
            changed.append(name)
            changes.update(dict.fromkeys(text for texts in different for text in texts))
    if changed:
        raise ValueError(
            f"{output_dir} has {', '.join(changed)} of other settings ({'; '.join(changes)}): take another folder, or "
            "delete what these stages made and their marks in its folder done"
        )


def _differences(before: Any, now: Any, name: str) -> list[str]:
    """Where two values of JSON differ, as texts."""
    if before == now:
        return []
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [f"{name} was {reprlib.repr(before)}, is {reprlib.repr(now)}"]
    keys = sorted({*before, *now})
    return [text for key in keys for text in _differences(before.get(key), now.get(key), f"{name}.{key}")]


def _plain(value: Any) -> Any:
    """As JSON has it, or `None`."""
    try:
        return json.loads(json.dumps(value, default=dataclasses.asdict))
    except TypeError:
        return None


def _mark(output_dir: Path, name: str) -> Path:
    return output_dir / "done" / f"{name}.json"


def _read_mark(mark: Path) -> dict[str, Any]:
    return json.loads(mark.read_text(encoding="utf-8"))


def _write_mark(output_dir: Path, name: str, content: Mapping[str, Any]) -> None:
    mark = _mark(output_dir, name)
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_json(mark, content)


def _log(output_dir: Path, name: str) -> Path:
    return output_dir / "logs" / f"{name}.log"
