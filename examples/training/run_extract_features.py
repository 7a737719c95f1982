"""
Runs the vision model over every clip once, so that a training with `--vision_features_dir features` need not.

    python examples/training/run_extract_features.py --model_name_or_path kpyu/eilev-blip2-opt-2.7b \
        --clips clips --output_dir features --dtype bfloat16

On several devices, one process on each, at the same time or not, here or as an array of jobs:

    for i in 0 1 2 3; do
        CUDA_VISIBLE_DEVICES=$i python examples/training/run_extract_features.py --model_name_or_path ... \
            --clips clips --output_dir features --shard $i/4 &
    done; wait

The same command goes on with what was stopped. Of the checkpoint, the weights of the vision model alone are loaded.
Features take 5.8 MB a clip of 8 frames, and are those of the frames as they are: no augmentation.
"""

import argparse

import torch

from transformers_eilev import VideoBlip2VideoProcessor
from transformers_eilev.training.vision_features import extract_vision_features, load_vision_model, open_clips


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parse_shard(text):
    index, number = map(int, text.split("/"))
    return index, number


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="model id or folder, of the training")
    parser.add_argument(
        "--clips",
        required=True,
        nargs="+",
        help="folders that `transformers-eilev data extract` wrote, of all splits, or data sets on the Hub",
    )
    parser.add_argument("--output_dir", required=True, help="for the features")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="to store")
    parser.add_argument("--compute_dtype", choices=DTYPES, help="to run the model in; by default as `dtype`")
    parser.add_argument(
        "--num_frames", type=int, default=8, help="of each clip, as `num_subsample_frames` in training"
    )
    parser.add_argument("--batch_size", type=int, default=16, help="clips to run the model over at a time")
    parser.add_argument("--num_workers", type=int, default=4, help="processes that decode frames")
    parser.add_argument(
        "--shard", type=parse_shard, default=(0, 1), metavar="i/n", help="the i-th (from 0) of n parts"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main():
    args = parse_arguments()
    processor = VideoBlip2VideoProcessor.from_pretrained(args.model_name_or_path)
    model = load_vision_model(args.model_name_or_path, dtype=DTYPES[args.compute_dtype or args.dtype])
    store = extract_vision_features(
        model.to(args.device),
        processor,
        open_clips(*args.clips),
        args.output_dir,
        dtype=DTYPES[args.dtype],
        num_frames=args.num_frames,
        batch_size=args.batch_size,
        shard=args.shard,
        num_workers=args.num_workers,
    )
    print(f"The features of {len(store)} clips are in {args.output_dir}")


if __name__ == "__main__":
    main()
