"""Stages of a recipe as processes: in order, once, and gone on with."""

import json
import textwrap
import time
from pathlib import Path

import pytest
import recipe
from recipe.stages import Stage, StageError, run_stage, run_stages, seconds_of


SETTINGS = {"steps": 3, "shots": (0, 1)}


@pytest.fixture
def script(tmp_path):
    """A script whose stages write when they begin and end; "breaks" fails as long as there is a file "broken"."""
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from recipe.stages import Stage, run_stage

        folder, name = Path(sys.argv[1]), sys.argv[2]

        def note(what):
            with open(folder / "events", "a") as file:
                file.write(f"{what} {name}\\n")

        def work():
            note("begins")
            time.sleep(0.5)
            if name == "breaks" and (folder / "broken").exists():
                raise RuntimeError("no more paper")
            note("ends")

        run_stage([Stage(name, work)], name, folder, {"steps": 3, "shots": (0, 1)})
        """)
    )
    return [str(path), str(tmp_path)]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(recipe.__file__).parents[1]))


def _stages(*arguments):
    return [Stage(name, lambda: None, *rest) for name, *rest in arguments]


def _events(folder):
    return (folder / "events").read_text().splitlines() if (folder / "events").exists() else []


def test_stages_wait_for_what_they_need_and_else_run_side_by_side(tmp_path, script):
    stages = _stages(["all", (), True], ["left", ("all",)], ["right", ("all",)], ["last", ("left", "right")])
    run_stages(stages, tmp_path, SETTINGS, script, num_processes=2)
    events = _events(tmp_path)
    assert events[:2] == ["begins all", "ends all"] and events[-2:] == ["begins last", "ends last"]
    assert {event.split()[0] for event in events[2:4]} == {"begins"}
    assert set(seconds_of(tmp_path)) == {"all", "left", "right", "last"}
    run_stages(stages, tmp_path, SETTINGS, script)
    assert _events(tmp_path) == events


def test_one_process_runs_one_stage_at_a_time(tmp_path, script):
    run_stages(_stages(["left"], ["right"]), tmp_path, SETTINGS, script, num_processes=1)
    assert _events(tmp_path) == ["begins left", "ends left", "begins right", "ends right"]


def test_a_stage_that_fails_stops_those_beside_it_and_is_gone_on_with(tmp_path, script):
    (tmp_path / "broken").touch()
    stages = _stages(["first"], ["breaks", ("first",)], ["after", ("breaks",)])
    with pytest.raises(StageError, match=r"breaks ended with 1; see .*breaks\.log"):
        run_stages(stages, tmp_path, SETTINGS, script)
    assert "no more paper" in (tmp_path / "logs" / "breaks.log").read_text()
    (tmp_path / "broken").unlink()
    run_stages(stages, tmp_path, SETTINGS, script)
    assert _events(tmp_path).count("begins first") == 1
    assert _events(tmp_path)[-4:] == ["begins breaks", "ends breaks", "begins after", "ends after"]


def test_no_process_is_left_behind(tmp_path, script, monkeypatch):
    def interrupt(seconds):
        if _events(tmp_path):
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_stages(_stages(["long"]), tmp_path, SETTINGS, script)
    monkeypatch.undo()
    time.sleep(0.7)
    assert _events(tmp_path) == ["begins long"]


def test_what_comes_after_something_new_is_done_again(tmp_path, script):
    run_stages(_stages(["first"], ["report", ("first",)]), tmp_path, SETTINGS, script)
    run_stages(_stages(["first"], ["second"], ["report", ("first", "second")]), tmp_path, SETTINGS, script)
    assert [event for event in _events(tmp_path) if event.startswith("ends")] == [
        "ends first",
        "ends report",
        "ends second",
        "ends report",
    ]


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    run_stage(_stages(["one"]), "one", tmp_path, SETTINGS)
    assert json.loads((tmp_path / "done" / "one.json").read_text())["settings"] == {"steps": 3, "shots": [0, 1]}
    run_stages(_stages(["one"]), tmp_path, SETTINGS, ["nothing"])
    with pytest.raises(ValueError, match="steps was 3, is 4"):
        run_stages(_stages(["one"]), tmp_path, {**SETTINGS, "steps": 4}, ["nothing"])
