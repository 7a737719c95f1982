"""The whole recipe, so short that nothing is learned: every stage takes what the one before it leaves."""

import json
from pathlib import Path

import pytest
import run_recipe
from recipe.recipe import Recipe, Work, make_stages
from recipe.stages import run_stage
from transformers import pipeline

import transformers_eilev  # noqa: F401


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, recipe = tmp_path_factory.mktemp("recipe"), Recipe.smoke()
    stages = make_stages(Work(recipe, folder, 1), ["opt"], [0])
    done = set()
    for stage in stages:
        assert set(stage.after) <= done, f"{stage.name} stands before what it needs"
        run_stage(stages, stage.name, folder)
        done.add(stage.name)
    return folder


def test_the_command_finds_all_done_and_hands_the_checkpoints_on(folder, tmp_path, monkeypatch, capsys):
    arguments = ["run_recipe.py", str(folder), "--smoke", "--seeds", "0", "--export", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    run_recipe.main()
    out = capsys.readouterr().out
    assert "11 of 12 stages are done" in out and "# Narrations by number of shots" in out
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["eilev-synthetic-opt", "video-blip-synthetic-opt"]
    video = next((folder / "novel" / "videos").rglob("*.mp4"))
    for name in names:
        card = (tmp_path / name / "README.md").read_text()
        assert card.startswith("---\nlicense: mit\n") and "| clips and narrations |" in card
        narrate = pipeline("video-narration", model=str(tmp_path / name))
        assert isinstance(narrate(str(video))[0]["generated_text"], str)
        assert narrate.model.generation_config.num_beams == 1


def test_both_are_asked_the_same(folder):
    records = {
        name: json.loads((folder / f"{name}-opt-0" / "records.json").read_text()) for name in ("eilev", "control")
    }
    keys = [
        [(record["set"], record["words"], record["condition"], record["shots"], record["n"]) for record in part]
        for part in records.values()
    ]
    assert set(keys[1]) < set(keys[0]) and {key[:2] for key in keys[1]} == {
        (name, words) for name in ("pairs", "novel") for words in ("own", "new")
    }
    predictions = Path("predictions") / "novel-new.jsonl"
    asked = [
        [(line["query"], line["context"], line["reference"]) for line in map(json.loads, lines[1:])]
        for lines in ((folder / f"{name}-opt-0" / predictions).read_text().splitlines() for name in records)
    ]
    assert asked[0][: len(asked[1])] == asked[1]
