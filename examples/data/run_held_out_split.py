"""
Splits narrated actions by how frequent their pairs of verb and noun are: those with a common pair are train and val,
those with a rare one are test, as in EILEV's evaluation (https://arxiv.org/abs/2311.17041).

    transformers-eilev data extract ego4d clips
    python examples/data/run_held_out_split.py clips --num_common_pairs 100 --output_dir top-100
    torchrun examples/training/run_eilev.py --train_frames_dir clips --train_annotation_file top-100/train.csv ...

Clips are taken from one split of the store (`--split`), in which trainings and evaluations then find them. Ego4D's own
files do as well (`--source ego4d`): clips of all of its videos are wanted then, in one split.
"""

import argparse
from pathlib import Path

from transformers_eilev.data import hold_out_rare_pairs
from transformers_eilev.data.action_files import SOURCES, read_actions, write_actions_csv
from transformers_eilev.data.splits import SPLITS


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("actions", help="clip store, CSV of narrated actions, or folder of a data set")
    parser.add_argument("--source", choices=SOURCES, default="clips", help="which of these it is")
    parser.add_argument("--split", help="by default train of a clip store, and all of a data set")
    parser.add_argument("--video_dirs", nargs="+", help="of a data set whose videos are elsewhere")
    parser.add_argument("--keep_missing_videos", action="store_true", help="also actions whose video is not on disk")
    parser.add_argument("--output_dir", required=True, help="for train.csv, val.csv and test.csv")
    common = parser.add_mutually_exclusive_group(required=True)
    common.add_argument("--num_common_pairs", type=int, help="so many pairs are common; 100 and 500 in the paper")
    common.add_argument("--common_share", type=float, help="share of the actions that common pairs shall cover")
    parser.add_argument("--train_share", type=float, default=0.75, help="of the actions with a common pair")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


def main():
    args = parse_arguments()
    rows = read_actions(
        args.actions,
        source=args.source,
        split=args.split,
        video_dirs=args.video_dirs,
        keep_missing_videos=args.keep_missing_videos,
    )
    split = hold_out_rare_pairs(
        rows,
        num_common_pairs=args.num_common_pairs,
        common_share=args.common_share,
        train_share=args.train_share,
        seed=args.seed,
    )
    print(split)
    for name in SPLITS:
        print(write_actions_csv(Path(args.output_dir) / f"{name}.csv", [rows[row] for row in getattr(split, name)]))


if __name__ == "__main__":
    main()
