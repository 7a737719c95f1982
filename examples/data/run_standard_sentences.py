"""
Replaces narrations by standard sentences, the same for all actions of a verb and a noun, to see what a model learns
from how people say it. Trainings take the CSV as `--train_annotation_file`, evaluations as `annotation_file`.

    python examples/data/run_standard_sentences.py clips --output standard.csv
    python examples/data/run_standard_sentences.py clips --output standard.csv \
        --model_name_or_path meta-llama/Llama-2-7b-chat-hf --dtype bfloat16

The first makes them of the labels by rule. With a model, it writes them, and those of its sentences that are not about
the action alone are replaced by the rules'. What it said is in the folder `standard.csv.sentences`, from which the
same command goes on when it was stopped. With `--phrases`, what EPIC-KITCHENS' annotators said is put into a sentence,
instead of the labels.
"""

import argparse
from collections import Counter

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from transformers_eilev.data.action_files import SOURCES, read_actions, write_actions_csv
from transformers_eilev.data.standard_sentences import action_to_sentence
from transformers_eilev.evaluation.sentence_writing import ActionWords, SentenceWriter


DTYPES = ("float32", "float16", "bfloat16")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("actions", help="clip store, CSV of narrated actions, or folder of a data set")
    parser.add_argument("--source", choices=SOURCES, default="clips", help="which of these it is")
    parser.add_argument("--split", help="by default train of a clip store, and all of a data set")
    parser.add_argument("--video_dirs", nargs="+", help="of a data set whose videos are elsewhere")
    parser.add_argument("--keep_missing_videos", action="store_true", help="also actions whose video is not on disk")
    parser.add_argument("--output", required=True, help="CSV to write")
    parser.add_argument("--drop_others", action="store_true", help="leave out actions without a standard sentence")
    parser.add_argument("--phrases", action="store_true", help="of the column `narration` rather than of the labels")
    parser.add_argument("--model_name_or_path", help="causal language model that follows instructions")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="to run the model in")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch_size", type=int, default=16, help="sentences at a time")
    parser.add_argument("--max_new_tokens", type=int, default=40, help="of an answer")
    parser.add_argument("--overwrite", action="store_true", help="drop what another model or prompt has left")
    args = parser.parse_args()
    if args.phrases and args.model_name_or_path is None:
        parser.error("--phrases needs a model: the data set's own narrations are phrases in sentences by rule")
    return args


def words_of(row, phrases):
    """What a sentence is written of; None if the row does not say."""
    if phrases:
        if "narration" not in row:
            raise ValueError(f"--phrases is for EPIC-KITCHENS: there is no column narration, only {sorted(row)}")
        return ActionWords(phrase=row["narration"], rule=row["narration_text"])
    verb, noun = row["structured_verb"] or "", row["structured_noun"] or ""
    return ActionWords(verb, noun) if action_to_sentence(verb, noun) else None


def write_by_model(actions, args):
    model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path, dtype=args.dtype)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    writer = SentenceWriter(
        model.to(args.device).eval(), tokenizer, batch_size=args.batch_size, max_new_tokens=args.max_new_tokens
    )
    with tqdm(total=len(actions), unit=" sentences") as bar:
        written = writer.write(actions, f"{args.output}.sentences", overwrite=args.overwrite, progress=bar.update)
    faults = Counter(sentence.fault for sentence in written.values() if sentence.fault)
    print(f"{len(written) - faults.total()} of {len(written)} distinct sentences are the model's, the others by rule:")
    for fault, count in faults.most_common():
        print(f"  {count}: its sentence {fault}")
    return {action: sentence.sentence for action, sentence in written.items()}


def main():
    args = parse_arguments()
    rows = read_actions(
        args.actions,
        source=args.source,
        split=args.split,
        video_dirs=args.video_dirs,
        keep_missing_videos=args.keep_missing_videos,
    )
    actions = [words_of(row, args.phrases) for row in rows]
    distinct = list(dict.fromkeys(filter(None, actions)))
    sentences = {action: action.rule for action in distinct}
    if args.model_name_or_path is not None:
        sentences = write_by_model(distinct, args)
    kept = [
        {**row, "narration_text": sentences.get(action, row["narration_text"])}
        for row, action in zip(rows, actions)
        if action or not args.drop_others
    ]
    missing = Counter(row["structured_verb"] or "" for row, action in zip(rows, actions) if action is None)
    print(f"{len(rows) - missing.total()} of {len(rows)} narrations are standardised, in {len(distinct)} sentences")
    for verb, count in missing.most_common():
        print(f"  {count} are {'left out' if args.drop_others else 'kept as they were'}: their verb is {verb!r}")
    write_actions_csv(args.output, kept)


if __name__ == "__main__":
    main()
