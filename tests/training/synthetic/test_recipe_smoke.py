"""The whole recipe, so short that nothing is learned: every stage takes what the one before it leaves."""

import pytest
import run_recipe
from recipe.recipe import Recipe, Work, make_stages
from recipe.stages import run_stage
from transformers import pipeline

from transformers_eilev.evaluation.records import read_records


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
    assert "10 of 11 stages are done" in out and "# Narrations by number of shots" in out
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["eilev-synthetic-opt", "video-blip-synthetic-opt"]
    video = next((folder / "novel" / "videos").rglob("*.mp4"))
    for name in names:
        card = (tmp_path / name / "README.md").read_text()
        assert card.startswith("---\nlicense: mit\n") and "| clips and narrations |" in card
        narrate = pipeline("video-narration", model=str(tmp_path / name))
        assert isinstance(narrate(str(video))[0]["generated_text"], str)
        assert narrate.model.generation_config.num_beams == 1


def test_records_and_their_report_are_there(folder):
    records = read_records([folder / f"{name}-opt-0" / "evaluation" for name in ("eilev", "control")])
    assert {record["model"] for record in records} == {"EILEV (OPT)", "VideoBLIP (OPT)", "none"}
    assert {record["seed"] for record in records} == {0}
    datasets = {record["dataset"] for record in records if record["model"] == "VideoBLIP (OPT)"}
    assert datasets == {
        f"new {name}, {words}" for name in ("pairs", "nouns") for words in ("own words", "words of one prompt")
    }
    text = (folder / "report" / "report.md").read_text()
    for name in datasets:
        assert f"## Generation: {name}\n" in text and f"## Generation: {name}, EILEV's contexts\n" in text
    assert "Hard to compare" not in text
    assert (folder / "report" / "plots" / "generation-new-nouns-words-of-one-prompt-exact-shots.svg").exists()
