"""
Narrates an evaluation set after 0 to 16 narrated clips, and measures the narrations.

    torchrun --nproc_per_node=8 examples/evaluation/run_generation.py --model_name_or_path kpyu/eilev-blip2-opt-2.7b \
        --clips clips --split val --context_clips clips --context_split train --output_dir results/eilev \
        --conditions in_context text_only shuffled majority

Any number of processes, here or elsewhere, makes the same predictions; what was stopped goes on by the same command.
Every argument may stand in a YAML file instead; `--help` lists them.
"""

from transformers_eilev.evaluation import (
    MetricArguments,
    NarratorArguments,
    QueryArguments,
    RunArguments,
    check_trackers,
    evaluate_generation,
    join_processes,
    load_metrics,
    load_narrator,
    load_queries,
    load_run_settings,
    make_table,
    summarize,
    track_records,
)
from transformers_eilev.training import parse_arguments


def main():
    arguments = parse_arguments([NarratorArguments, QueryArguments, RunArguments, MetricArguments])
    narrator_args, query_args, run_args, metric_args = arguments
    check_trackers(run_args.report_to)
    processes = join_processes()
    metrics = load_metrics(metric_args, seed=query_args.seed)
    settings = load_run_settings(run_args, query_args, narrator_args, metric_args)
    # One process fills the caches of the machine's disk, the others read them.
    with processes.main_process_first():
        queries = load_queries(query_args)
    narrator = load_narrator(narrator_args, prompt=run_args.prompt)
    records = evaluate_generation(narrator, queries, settings, metrics=metrics)
    if records:
        track_records(records, run_args.report_to, run_args.output_dir)
        for metric in metrics.names:
            print(make_table(summarize(records, metric)))
    processes.destroy_process_group()


if __name__ == "__main__":
    main()
