"""A report of several runs, as the script writes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_records import make_records, record_of, write_records

from transformers_eilev.evaluation.reports import write_report


ROOT = Path(__file__).parents[2]


def contents_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_script_reports_what_runs_have_left(tmp_path):
    rare = record_of(dataset="Rare, new", shots=2, metrics={}, unavailable={"bleu": "no library"})
    write_records(tmp_path / "results", make_records())
    write_records(tmp_path / "more", [rare])
    command = [sys.executable, "examples/evaluation/run_report.py", str(tmp_path / "results"), str(tmp_path / "more")]
    command += ["--model", "eilev", "--dataset_id", "novel=me/novel", "--output_dir"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("first", "second"):
        subprocess.run([*command, str(tmp_path / name)], cwd=ROOT, env=environment, check=True, capture_output=True)
    contents = contents_of(tmp_path / "first")
    assert contents == contents_of(tmp_path / "second")
    plots = [
        f"plots/generation-novel-exact-{kind}.{suffix}" for kind in ("bars", "shots") for suffix in ("png", "svg")
    ]
    assert [*contents] == ["model_index.yaml", *plots, "report.json", "report.md"]

    text = contents["report.md"].decode()
    assert "## Generation: novel\n\nSeeds: 1 to 3; queries of a run: 10.\n" in text
    assert "| eilev | clips and narrations | 0.00 ± 0.00 | 0.60 ± 0.26 |" in text
    assert "](plots/generation-novel-exact-shots.png)" in text
    assert "](plots/generation-novel-exact-bars.png)" in text
    assert text.count("- video-blip, clips and narrations, 2 shots: 3 empty, of 10") == 1
    assert "**BLEU**, generation of Rare, new, by number of shots:\n\nNot computed:" in text
    assert "- everywhere: no library" in text
    assert "- commit: 0123\n- torch: 2.0" in text
    assert "Hard to compare" not in text
    report = json.loads(contents["report.json"])
    assert [(c["model"], c["condition"], c["shots"]) for c in report["cells"]][:2] == [
        ("eilev", "in_context", 0),
        ("eilev", "in_context", 2),
    ]
    assert report["cells"][1]["mean"] == pytest.approx(0.6)
    index = yaml.safe_load(contents["model_index.yaml"])["model-index"]
    assert index[0]["results"][0]["dataset"] == {"name": "novel", "type": "me/novel"}


def test_names_of_files_never_collide(tmp_path):
    records = [record_of(dataset=name, shots=shots) for name in ("a b", "a/b") for shots in (0, 1)]
    write_report(records, tmp_path)
    assert sorted(path.name for path in (tmp_path / "plots").glob("*.svg")) == [
        "generation-a-b-2-exact-shots.svg",
        "generation-a-b-exact-shots.svg",
    ]


def test_what_is_hard_to_compare_is_said(tmp_path):
    records = [record_of(), record_of("video-blip", fingerprints={"queries": "others"})]
    text = write_report(records, tmp_path).read_text(encoding="utf-8")
    assert "## Hard to compare\n\n- generation of novel, clips and narrations, 0 shots, seed 0: not all were" in text


def test_reports_of_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There are no records"):
        write_report([], tmp_path)
    with pytest.raises(ValueError, match=r"`metrics` must be of \['exact'\], but one is 'blue'"):
        write_report(make_records(), tmp_path, metrics=["blue"])
    with pytest.raises(ValueError, match="No record is of the model"):
        write_report(make_records(), tmp_path / "report", model="other")
    assert not (tmp_path / "report").exists()
