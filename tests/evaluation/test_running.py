"""Evaluations as users run them: by any number of processes, stopped and gone on with, with what can't be had."""

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_clips import write_store

from transformers_eilev.evaluation.prediction_journal import read_predictions


ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("clips") / "store", train=40, val=14)


def command(script, *arguments, num_processes=1):
    launch = [sys.executable]
    if num_processes > 1:
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc_per_node={num_processes}",
            "--standalone",
        ]
    return [*launch, str(ROOT / "examples/evaluation" / script), *map(str, arguments)]


def run(script, *arguments, num_processes=1):
    """By as many processes; a single one is this, which has imported all there is to import."""
    if num_processes > 1:
        launch = command(script, *arguments, num_processes=num_processes)
        return subprocess.run(launch, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    path, said, error, argv = ROOT / "examples/evaluation" / script, io.StringIO(), "", sys.argv
    try:
        sys.argv = [str(path), *map(str, arguments)]
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(path), run_name="__main__")
    except Exception as raised:
        error = str(raised)
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess(arguments, bool(error), said.getvalue(), error)


def narrating(clips, output_dir, *more):
    return (
        *("run_generation.py", "--model_name_or_path", "eilev-synthetic-opt", "--clips", clips),
        *("--context_clips", clips, "--output_dir", output_dir, "--batch_size", "3", "--max_new_tokens", "6"),
        *("--dtype", "float32", "--metrics", "exact", "rouge_l", "sts_bi_encoder", *more),
    )


CONDITIONS = ("--shots", "0", "2", "--conditions", "in_context", "majority")


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """A run by one process, and what it printed."""
    output_dir = tmp_path_factory.mktemp("whole")
    done = run(*narrating(clips, output_dir, *CONDITIONS))
    assert done.returncode == 0, done.stderr
    return output_dir, done


def test_results_have_all_that_is_needed_to_make_them_again(whole):
    output_dir, done = whole
    assert sorted(path.name for path in output_dir.iterdir()) == ["in_context-0", "in_context-2", "majority-2"]
    record = json.loads((output_dir / "in_context-2" / "results.json").read_text())
    predictions = read_predictions(output_dir / "in_context-2")
    exact = sum(line["narration"] == line["reference"] for line in predictions) / 14
    assert record["metrics"]["exact"]["value"] == pytest.approx(exact)
    low, high = record["metrics"]["rouge_l"]["interval"]
    assert 0 <= low <= record["metrics"]["rouge_l"]["value"] <= high <= 1
    # No hub here: it says so, and the others are there.
    assert "all-mpnet-base-v2" in record["unavailable"]["sts_bi_encoder"]
    assert record["num_queries"] == 14 and record["num_empty"] == 0 and record["seed"] == 0
    assert record["versions"]["torch"] and len(record["fingerprints"]["model"]) == 64
    assert "eilev-synthetic-opt" in done.stdout and "ROUGE-L" in done.stdout
    # Nothing of a model in what a rule says.
    majority = json.loads((output_dir / "majority-2" / "results.json").read_text())
    assert majority["model"] == "none" and majority["fingerprints"]["model"] is None


def test_two_processes_say_what_one_says(whole, clips, tmp_path):
    done = run(*narrating(clips, tmp_path, *CONDITIONS), num_processes=2)
    assert done.returncode == 0, done.stderr
    # Of 14 queries in batches of 3, the first process has the first, the third and the last, of 2.
    assert "8/8" in done.stderr and "14/14" not in done.stderr
    for name in ("in_context-0", "in_context-2", "majority-2"):
        files = [folder / name / "predictions.jsonl" for folder in (whole[0], tmp_path)]
        assert files[0].read_bytes() == files[1].read_bytes()
        records = [json.loads((folder / name / "results.json").read_text()) for folder in (whole[0], tmp_path)]
        assert [record.pop("arguments")["output_dir"] for record in records] == [str(whole[0]), str(tmp_path)]
        assert records[0] == records[1]
        assert sorted(path.name for path in files[1].parent.iterdir()) == sorted(
            path.name for path in files[0].parent.iterdir()
        )


def test_a_run_that_was_killed_goes_on(whole, clips, tmp_path):
    arguments = narrating(clips, tmp_path, *CONDITIONS)
    process = subprocess.Popen(command(*arguments), env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.DEVNULL)
    part = tmp_path / "in_context-2" / "predictions.part-0.jsonl"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    for name in ("in_context-0", "in_context-2", "majority-2"):
        files = [folder / name / "predictions.jsonl" for folder in (whole[0], tmp_path)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_contexts_drawn_beforehand_are_the_same(whole, clips, tmp_path):
    sets = ("--clips", clips, "--context_clips", clips, "--shots", "0", "2")
    drawn = run("sample_in_context_examples.py", *sets, "--output_dir", tmp_path / "contexts")
    assert drawn.returncode == 0, drawn.stderr
    line = json.loads((tmp_path / "contexts" / "contexts-2.jsonl").read_text().splitlines()[0])
    assert len(line["context"]) == 2 and line["query"] == "val_0|0"
    done = run(*narrating(clips, tmp_path / "out", *CONDITIONS, "--contexts_dir", tmp_path / "contexts"))
    assert done.returncode == 0, done.stderr
    files = [folder / "in_context-2" / "predictions.jsonl" for folder in (whole[0], tmp_path / "out")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_metrics_of_predictions_that_are_there(whole, clips, tmp_path):
    folder = whole[0] / "in_context-2"
    done = run("run_metrics.py", folder, "--clips", clips, "--metrics", "exact", "rouge_l", "--output", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    results, record = (json.loads(path.read_text()) for path in (tmp_path / "m", folder / "results.json"))
    assert results["metrics"] == {name: record["metrics"][name] for name in ("exact", "rouge_l")}
    other = run("run_metrics.py", folder, "--clips", clips, "--split", "train", "--metrics", "exact")
    assert other.returncode and "predictions of another split: 14 of 14" in other.stderr


def test_classes_from_the_command(clips, tmp_path):
    arguments = (
        *("run_classification.py", "--model_name_or_path", "eilev-synthetic-opt", "--clips", clips),
        *("--context_clips", clips, "--shots", "2", "--taxonomy", "labels", "--dtype", "float32", "--batch_size", "5"),
    )
    for num_processes in (1, 2):
        done = run(*arguments, "--output_dir", tmp_path / str(num_processes), num_processes=num_processes)
        assert done.returncode == 0, done.stderr
    files = [tmp_path / name / "in_context-2" / "predictions.jsonl" for name in "12"]
    assert files[0].read_bytes() == files[1].read_bytes()
    record = json.loads(files[0].with_name("results.json").read_text())
    assert {"verb_macro_f1", "verb_top_1", "noun_top_5"} <= set(record["metrics"])
    assert record["settings"]["num_classes"] == {"verb": 4, "noun": 5}


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (("--conditions", "best"), "one is 'best'"),
        (("--metrics", "rouge"), "rouge"),
        (("--shots", "0", "--conditions", "shuffled"), "need more examples than"),
        (("--conditions", "in_context", "in_context"), "must be different ones"),
        (("--num_frames", "4"), "`num_frames` is for chat models"),
        (("--split", "dev"), "dev"),
        (("--report_to", "nothing"), "nothing"),
    ],
)
def test_bad_input_is_told_before_anything_is_done(clips, tmp_path, more, error):
    done = run(*narrating(clips, tmp_path / "out", *more))
    assert done.returncode and error in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
