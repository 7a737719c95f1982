"""
From a store of clips to a batch that a model learns from: each sample is a clip to narrate after some narrated ones,
which share its verb or its noun.

    transformers-eilev data synthetic ego4d --hours 1
    transformers-eilev data extract ego4d clips
    python examples/data/run_training_batch.py clips --model kpyu/eilev-blip2-opt-2.7b --num_examples 16
"""

import argparse

from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, AutoProcessor

import transformers_eilev  # noqa: F401  (the auto classes know the model by this)
from transformers_eilev.data import DataCollatorForVideoNarration, InContextDataset, InContextSampler, load_clip_store


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", help="folder that `transformers-eilev data extract` wrote, or a data set on the Hub")
    parser.add_argument("--model", default="kpyu/eilev-blip2-opt-2.7b", help="model id or folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--num_examples", type=int, default=16, help="narrated clips before the one to narrate")
    parser.add_argument("--verb_noun_ratio", type=float, default=0.5, help="share of them that share the verb")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    args = parse_arguments()
    clips = load_clip_store(args.clips, split=args.split)
    sampler = InContextSampler(
        clips["structured_verb"],
        clips["structured_noun"],
        num_examples=args.num_examples,
        verb_noun_ratio=args.verb_noun_ratio,
        seed=args.seed,
    )
    dataset = InContextDataset(clips, sampler, seed=args.seed)
    processor = AutoProcessor.from_pretrained(args.model)
    loader = DataLoader(
        dataset,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        collate_fn=DataCollatorForVideoNarration(processor, pad_to_multiple_of=8),
    )
    batch = next(iter(loader))
    for name, tensor in batch.items():
        print(f"{name:16} {tuple(tensor.shape)}")

    model = AutoModelForImageTextToText.from_pretrained(args.model)
    print(f"{'loss':16} {model(**batch).loss.item():.3f}")


if __name__ == "__main__":
    main()
