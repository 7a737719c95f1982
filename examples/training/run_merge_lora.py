"""
Merges a LoRA adapter into its model, and writes a whole checkpoint that needs no PEFT any more.

    python examples/training/run_merge_lora.py runs/eilev-lora runs/eilev-lora-merged --dtype bfloat16

An adapter that was trained on an 8- or 4-bit model is merged into the full one. The processor is the one that lies
beside the adapter, or else the model's.
"""

import argparse
from pathlib import Path

from transformers_eilev import VideoBlip2Processor
from transformers_eilev.training import merge_lora


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", help="folder of the adapter, or its id on the Hub")
    parser.add_argument("output", help="folder to write")
    parser.add_argument("--base_model", help="model to merge into, if it is not where it was at the training")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16, or auto: as the model was saved")
    return parser.parse_args()


def load_processor(adapter, base_model):
    try:
        return VideoBlip2Processor.from_pretrained(adapter)
    except OSError:
        return VideoBlip2Processor.from_pretrained(base_model)


def main():
    args = parse_arguments()
    if (Path(args.output) / "adapter_config.json").exists():
        raise SystemExit(f"{args.output} holds an adapter, which would be applied to the model again: name another")
    model = merge_lora(args.adapter, base_model=args.base_model, dtype=args.dtype)
    processor = load_processor(args.adapter, model.name_or_path)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"{model.name_or_path} with {args.adapter} merged into it: {args.output}")


if __name__ == "__main__":
    main()
