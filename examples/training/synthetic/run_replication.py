"""
The paper's tables in small: EILEV, its control, each ablation and each control of a context, at each number of shots,
over seeds, on rendered clips that no training showed.

    python examples/training/synthetic/run_replication.py OUTPUT_DIR

Trains nothing: the models are those that come with the package, and the ablations' weights beside this file, as
`run_recipe.py --ablations ...` has trained them. A call that was stopped goes on where it stood. What the sets are
says `recipe/replication.py`; `OUTPUT_DIR/report/report.md` has all tables and pictures.
"""

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


# Before torch: each process has a core of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from recipe.ablations import ABLATIONS, save_learned  # noqa: E402
from recipe.claims import judge_claims  # noqa: E402
from recipe.replication import (  # noqa: E402
    CHECKPOINTS,
    METRICS,
    Replication,
    ReplicationSize,
    ablated,
    find_sentence_encoder,
)

from transformers_eilev.data.files import write_text  # noqa: E402
from transformers_eilev.evaluation import (  # noqa: E402
    PAPER_FIGURES,
    NarrationMetrics,
    make_table,
    read_records,
    summarize,
    write_report,
)


HERE = Path(__file__).parent
# What is shown at once, of all that is in the report: of which set, by which metric, beside which paper's table.
SHOWN = (
    ("held-out", "sts_bi_encoder", "ego4d-held-out"),
    ("novel", "sts_bi_encoder", "epic-kitchens-100"),
    ("novel-words", "exact", None),
)


def ask(name: str, output_dir: Path, size: ReplicationSize, seeds: list[int]) -> None:
    """Asks one model, in a process of its own."""
    work = Replication(output_dir, size)
    metrics = NarrationMetrics(METRICS, bi_encoder=find_sentence_encoder())
    work.evaluate(work.narrator(name, HERE / "ablations"), seeds, metrics)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="for everything; about 1 GB")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of queries and contexts")
    parser.add_argument("--num_processes", type=int, default=2, help="at a time, one core each")
    parser.add_argument("--smoke", action="store_true", help="a little of everything")
    parser.add_argument("--save_ablations", type=Path, metavar="RECIPE", help="take the ablations' weights from there")
    arguments = parser.parse_args()
    if arguments.save_ablations is not None:
        for name in ABLATIONS:
            checkpoint = arguments.save_ablations / f"eilev-{name}-opt-0"
            save_learned(checkpoint, HERE / "ablations" / f"{name}.safetensors")

    size = ReplicationSize.smoke() if arguments.smoke else ReplicationSize()
    work = Replication(arguments.output_dir, size, num_workers=arguments.num_processes)
    work.make_clips()
    models = [*CHECKPOINTS, *map(ablated, ABLATIONS)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.num_processes, mp_context=context) as pool:
        asked = [pool.submit(ask, name, arguments.output_dir, size, arguments.seeds) for name in models]
        for job in asked:
            job.result()

    records = read_records([work.runs_dir])
    report = write_report(records, arguments.output_dir / "report", title="The paper in small")
    parts = []
    for dataset, metric, published in SHOWN:
        cells = summarize([record for record in records if record["dataset"] == dataset], metric)
        parts.append(make_table(cells, published=PAPER_FIGURES.get(published, ()), counts=False))
    parts.append(judge_claims(records, max(size.shots)))
    summary = "\n".join(parts)
    write_text(report.with_name("summary.md"), summary)
    print(summary)
    print(f"More in {report}")


if __name__ == "__main__":
    main()
