"""
Tells verbs and nouns of an evaluation set apart, by how likely the model holds each word after 0 to 16 narrated clips.

    torchrun --nproc_per_node=8 examples/evaluation/run_classification.py \
        --model_name_or_path kpyu/eilev-blip2-opt-2.7b --clips clips --split val --context_clips clips \
        --context_split train --output_dir results/eilev-classes --conditions in_context text_only majority

By default the classes are Ego4D's FHO taxonomy in the original's words. Any number of processes makes the same
predictions; what was stopped goes on by the same command.
"""

from dataclasses import dataclass, field

from transformers_eilev.evaluation import (
    NarratorArguments,
    QueryArguments,
    RunArguments,
    Taxonomy,
    check_trackers,
    evaluate_classification,
    join_processes,
    load_narrator,
    load_queries,
    load_run_settings,
    make_table,
    summarize,
    track_records,
)
from transformers_eilev.training import parse_arguments


@dataclass
class ClassArguments:
    """What is told apart."""

    taxonomy: str = field(
        default="fho",
        metadata={"help": "Ego4D's, or whatever labels the clips have.", "choices": ["fho", "labels"]},
    )
    verb_words: str | None = field(
        default=None, metadata={"help": "CSV `prompt,structured_verb` of another taxonomy, a line for each word."}
    )
    noun_words: str | None = field(default=None, metadata={"help": "CSV `prompt,structured_noun`, with `verb_words`."})
    class_batch_size: int = field(default=256, metadata={"help": "Words at a time, which bounds the memory."})
    num_resamples: int = field(default=1000, metadata={"help": "Of the bootstrap, for intervals."})

    def __post_init__(self):
        if (self.verb_words is None) != (self.noun_words is None):
            raise ValueError("`verb_words` and `noun_words` go together, but one of them is missing")


def load_taxonomy(arguments: ClassArguments, queries) -> Taxonomy:
    if arguments.verb_words is not None:
        return Taxonomy.from_csv(arguments.verb_words, arguments.noun_words)
    if arguments.taxonomy == "fho":
        return Taxonomy.fho()
    rows = [*queries.rows, *queries.context_rows]
    return Taxonomy.of_labels(*([row[f"structured_{kind}"] for row in rows] for kind in ("verb", "noun")))


def main():
    arguments = parse_arguments([NarratorArguments, QueryArguments, RunArguments, ClassArguments])
    narrator_args, query_args, run_args, class_args = arguments
    check_trackers(run_args.report_to)
    processes = join_processes()
    if narrator_args.chat:
        raise ValueError("`chat` models narrate; candidates are scored by this package's models alone")
    # One process fills the caches of the machine's disk, the others read them.
    with processes.main_process_first():
        queries = load_queries(query_args)
    records = evaluate_classification(
        load_narrator(narrator_args),
        queries,
        load_run_settings(run_args, query_args, narrator_args, class_args),
        taxonomy=load_taxonomy(class_args, queries),
        class_batch_size=class_args.class_batch_size,
        num_resamples=class_args.num_resamples,
    )
    if records:
        track_records(records, run_args.report_to, run_args.output_dir)
        for metric in records[0]["metrics"]:
            print(make_table(summarize(records, metric)))
    processes.destroy_process_group()


if __name__ == "__main__":
    main()
