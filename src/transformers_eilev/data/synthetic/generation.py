"""Making the set: videos by any number of processes, then the annotations."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from . import epic_writing, writing
from .config import SyntheticConfig
from .encoding import encode_video
from .files import whole_file, write_json
from .rendering import Renderer
from .script import VideoScript, write_script
from .world import World


# Options and truth of a set, beside what a reader of its layout looks for.
OPTIONS_FILE, TRUTH_FILE = "synthetic/config.json", "synthetic/truth.jsonl"


@dataclass(frozen=True)
class SyntheticSummary:
    """What was made.

    Attributes:
        directory (`Path`): where the set is.
        num_videos (`int`): videos on disk.
        num_missing (`int`): videos that are annotated and, on purpose, not on disk.
        num_actions (`int`): narrated actions, quirks and missing videos included.
        rendered, kept (`int`): videos rendered now, and found there.
        seconds (`float`): how long it took.
    """

    directory: Path
    num_videos: int
    num_missing: int
    num_actions: int
    rendered: int
    kept: int
    seconds: float


def make_synthetic_dataset(
    directory: str | os.PathLike,
    config: SyntheticConfig | None = None,
    *,
    num_workers: int = 1,
    progress: bool | Callable[[str], None] = False,
) -> SyntheticSummary:
    """Renders a synthetic set of first-person videos with narrated actions, in Ego4D's or EPIC-KITCHENS' layout.

    A video that is there is not rendered again, so a run that was killed goes on where it stopped. The result does not
    depend on `num_workers`. One run at a time for a directory.

    Args:
        directory: of the set; made if need be.
        config (`SyntheticConfig`): what the set is to be like.
        num_workers (`int`): processes that render; with more than one the calling script needs its
            `if __name__ == "__main__":`.
        progress: True prints a line for each video to stderr, with the time left; a function is called with it.

    Raises:
        TypeError, ValueError: an argument that is not such a value; `directory` holds a set made with other options.
        RuntimeError: some videos could not be made; the others are there, and the next run makes only those.
    """
    config = config or SyntheticConfig()
    if not isinstance(config, SyntheticConfig):
        raise TypeError(f"config must be a SyntheticConfig, got {config!r}")
    if isinstance(num_workers, bool) or not isinstance(num_workers, int):
        raise TypeError(f"num_workers must be an integer, got {num_workers!r}")
    if num_workers < 1:
        raise ValueError(f"num_workers must be positive, got {num_workers!r}")
    begun = time.monotonic()
    root = Path(directory)
    _check_options(root, config)
    world = World(config)
    scripts = writing.all_scripts(world)
    on_disk = [script for script in scripts if not script.missing]
    wanted = [script for script in on_disk if not _video_path(root, world, script).exists()]
    report = _Progress(len(wanted), progress)
    _render_all(root, config, wanted, num_workers, report)
    if config.layout == "ego4d":
        writing.write_annotations(root, world, scripts)
    else:
        epic_writing.write_annotations(root, world, scripts)
    name = writing.video_name if config.layout == "ego4d" else epic_writing.video_id
    writing.write_truth(root / TRUTH_FILE, world, scripts, name)
    return SyntheticSummary(
        directory=root,
        num_videos=len(on_disk),
        num_missing=len(scripts) - len(on_disk),
        num_actions=sum(len(script.actions) for script in scripts),
        rendered=len(wanted),
        kept=len(on_disk) - len(wanted),
        seconds=time.monotonic() - begun,
    )


def _check_options(root: Path, config: SyntheticConfig) -> None:
    """Refuses a directory with a set of other options; else notes the options there."""
    path = root / OPTIONS_FILE
    if path.exists():
        # A set that was made before there was an option is as the option's default has it.
        there = SyntheticConfig().to_dict() | json.loads(path.read_text(encoding="utf-8"))
        options = config.to_dict()
        differing = sorted(name for name in {*there, *options} if there.get(name) != options.get(name))
        if differing:
            pairs = ", ".join(f"{name}={there.get(name)!r} (now {options.get(name)!r})" for name in differing)
            raise ValueError(f"{root} holds a synthetic set made with other options: {pairs}")
    else:
        write_json(path, config.to_dict(), indent=1)


def _video_path(root: Path, world: World, script: VideoScript) -> Path:
    if world.config.layout == "ego4d":
        return writing.video_path(root, world, script)
    return epic_writing.video_path(root, script)


def render_video(root: Path, config: SyntheticConfig, number: int) -> None:
    """Renders video `number` of the set into its place."""
    world = World(config)
    script = write_script(world, number)
    renderer = Renderer(world, script)
    with whole_file(_video_path(Path(root), world, script)) as temporary:
        frames = (renderer.frame(index) for index in range(config.num_frames))
        encode_video(temporary, frames, codec=config.codec, fps=config.fps, image_size=config.image_size)


def _render_all(root, config, scripts, num_workers, report) -> None:
    failures = {}
    if num_workers == 1 or len(scripts) < 2:
        for script in scripts:
            try:
                render_video(root, config, script.number)
            except Exception as error:
                failures[script.uid] = error
            report.done(script.uid, failures.get(script.uid))
    else:
        # Spawned: decoders and encoders with threads of their own do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_workers, len(scripts)), mp_context=context) as pool:
            jobs = {pool.submit(render_video, root, config, script.number): script for script in scripts}
            for job in as_completed(jobs):
                uid = jobs[job].uid
                if job.exception() is not None:
                    failures[uid] = job.exception()
                report.done(uid, failures.get(uid))
    if failures:
        reasons = "; ".join(f"{uid}: {type(error).__name__}: {error}" for uid, error in sorted(failures.items())[:5])
        raise RuntimeError(f"{len(failures)} of {len(scripts)} videos could not be made: {reasons}")


class _Progress:
    """Says how far it is and how long it will take."""

    def __init__(self, total: int, progress: bool | Callable[[str], None]):
        self.total = total
        self.finished = 0
        self.begun = time.monotonic()
        self.say = progress if callable(progress) else (_print if progress else None)

    def done(self, uid: str, error: BaseException | None) -> None:
        self.finished += 1
        if self.say is None:
            return
        spent = time.monotonic() - self.begun
        left = spent / self.finished * (self.total - self.finished)
        outcome = f"failed: {error}" if error else "done"
        self.say(f"{self.finished}/{self.total} videos, {spent:.0f} s, {left:.0f} s left: {uid} {outcome}")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
