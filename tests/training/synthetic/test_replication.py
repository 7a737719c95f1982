"""The paper in small: what is said of its findings follows from the numbers, and the command runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipe.ablations import ABLATIONS, load_learned, save_learned
from recipe.claims import judge_claims
from recipe.replication import CONTROL, EILEV, Replication, ReplicationSize, ablated
from recipe.worlds import TRAIN_WORLD

from transformers_eilev import VideoBlip2ForConditionalGeneration, embedded_checkpoint
from transformers_eilev.data.synthetic.world import World
from transformers_eilev.data.synthetic.writing import all_scripts


RECIPE = Path(__file__).parents[3] / "examples" / "training" / "synthetic"


def records_of(values):
    """Of (model, set, condition, shots) to a value for each seed."""
    return [
        {
            **{"task": "generation", "model": model, "dataset": dataset, "condition": condition, "shots": shots},
            **{"seed": seed, "num_queries": 9, "unavailable": {}},
            "metrics": {"exact": {"value": value, "interval": None}},
        }
        for (model, dataset, condition, shots), by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]


@pytest.mark.parametrize(
    ("without", "after", "verdict"),
    [
        ([0.2, 0.3], [0.8, 0.9], "holds"),
        # A seed of the one is above a seed of the other.
        ([0.2, 0.7], [0.6, 0.9], "does not hold"),
        ([0.80, 0.80], [0.82, 0.84], "does not hold"),
        ([0.9, 0.9], [0.1, 0.1], "does not hold"),
    ],
)
def test_what_grows_must_grow_by_more_than_seeds_make_of_it(without, after, verdict):
    said = judge_claims(
        records_of({(EILEV, "held-out", "in_context", 0): without, (EILEV, "held-out", "in_context", 8): after}), 8
    )
    assert f"**{verdict}**" in said and said.count("\n") == 1
    means = [sum(values) / 2 for values in (without, after)]
    assert f"{means[0]:.2f} after 0, {means[1]:.2f} after 8 (held-out)" in said and ".328" in said


def test_what_is_alike_may_differ_by_little():
    key = (CONTROL, "held-out", "in_context")
    assert "**holds**" in judge_claims(records_of({(*key, 0): [0.5], (*key, 8): [0.53]}), 8)
    assert "**does not hold**" in judge_claims(records_of({(*key, 0): [0.5], (*key, 8): [0.57]}), 8)


def test_nothing_is_said_of_what_was_not_asked():
    assert judge_claims(records_of({(EILEV, "known", "in_context", 8): [1.0]}), 8) == ""


def test_every_ablation_has_its_weights_and_a_finding():
    values = {(EILEV, "novel-words", "in_context", 8): [0.9]}
    values |= {(ablated(name), "novel-words", "in_context", 8): [0.1] for name in ABLATIONS}
    assert judge_claims(records_of(values), 8).count("0.90 against 0.10") == len(ABLATIONS)
    folder = embedded_checkpoint()
    own = VideoBlip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    for name in ABLATIONS:
        model = VideoBlip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        load_learned(model, RECIPE / "ablations" / f"{name}.safetensors")
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, own.get_parameter(n))}
        assert changed and all(n.startswith(("qformer.", "language_projection.", "query_tokens")) for n in changed)


def test_learned_weights_are_kept(tmp_path):
    save_learned(Path(embedded_checkpoint("video-blip-synthetic-opt")), tmp_path / "control.safetensors")
    model = VideoBlip2ForConditionalGeneration.from_pretrained(embedded_checkpoint(), dtype=torch.float32)
    control = VideoBlip2ForConditionalGeneration.from_pretrained(
        embedded_checkpoint("video-blip-synthetic-opt"), dtype=torch.float32
    )
    load_learned(model, tmp_path / "control.safetensors")
    assert all(torch.equal(p, control.get_parameter(n)) for n, p in model.named_parameters())


def test_no_video_was_trained_on(tmp_path):
    trained = {script.uid for script in all_scripts(World(TRAIN_WORLD))}
    worlds = Replication(tmp_path, ReplicationSize()).worlds()
    sets = [{script.uid for script in all_scripts(World(worlds[name]))} for name in ("known", "synonyms")]
    assert not trained & (sets[0] | sets[1]) and not sets[0] & sets[1]


def test_the_command_runs_and_goes_on(tmp_path):
    command = [sys.executable, RECIPE / "run_replication.py", tmp_path, "--smoke", "--seeds", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "generation of held-out" in done.stdout and ablated("random") in done.stdout
    summary = (tmp_path / "report" / "summary.md").read_text()
    assert summary.strip() in done.stdout and "(paper:" in summary
    results = sorted((tmp_path / "runs").rglob("results.json"))
    assert {json.loads(path.read_text())["condition"] for path in results} >= {"canonical", "no_clips", "unseen_pair"}
    stamps = [path.stat().st_mtime_ns for path in results]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and (tmp_path / "report" / "summary.md").read_text() == summary
    assert stamps == [path.stat().st_mtime_ns for path in results]
