"""
From nothing to a small model that has learned to learn in context, and the proof: one command, on two CPU cores.

    python examples/training/synthetic/run_recipe.py OUTPUT_DIR

README.md beside this file says what happens. A call that was stopped goes on where it stood.
"""

import argparse
import os
import signal
import sys
from pathlib import Path


# Before torch: each stage has a core of its own, and one GPU if there are any.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")

from recipe.ablations import ABLATIONS  # noqa: E402
from recipe.recipe import Recipe, Work, make_stages  # noqa: E402
from recipe.stages import run_stage, run_stages, seconds_of  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="for everything; a few GB")
    parser.add_argument("--families", nargs="+", default=["opt"], choices=["opt", "t5"], help="language models")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the trainings")
    parser.add_argument(
        "--ablations", nargs="*", default=[], choices=list(ABLATIONS), help="what to train EILEV without, besides"
    )
    parser.add_argument("--num_processes", type=int, default=2, help="at a time, one core each")
    parser.add_argument("--smoke", action="store_true", help="a little of everything, which learns nothing")
    parser.add_argument("--export", type=Path, help="where to write the checkpoints of the first seed, in float16")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.num_processes < 1:
        parser.error(f"--num_processes must be at least 1, got {arguments.num_processes}")
    families, seeds = (list(dict.fromkeys(values)) for values in (arguments.families, arguments.seeds))
    # So that the stages are ended at once.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    recipe = Recipe.smoke() if arguments.smoke else Recipe()
    work = Work(recipe, arguments.output_dir, arguments.num_processes)
    stages = make_stages(work, families, seeds, arguments.ablations)
    if arguments.stage:
        return run_stage(stages, arguments.stage, arguments.output_dir)
    command = [__file__, *sys.argv[1:], "--stage"]
    run_stages(stages, arguments.output_dir, command, num_processes=arguments.num_processes)
    print((arguments.output_dir / "report" / "report.md").read_text(encoding="utf-8"))
    seconds = seconds_of(arguments.output_dir)
    print(f"The stages took {sum(seconds[stage.name] for stage in stages) / 60:.0f} minutes, added up")
    if arguments.export:
        for family in families:
            for folder in work.export(family, seeds[0], arguments.export):
                print(folder)


if __name__ == "__main__":
    main()
