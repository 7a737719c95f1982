"""Stages of a recipe as processes: in order, once, and gone on with."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import recipe
from recipe import episodes, learning
from recipe.recipe import Recipe, Work, make_stages
from recipe.stages import Stage, StageError, run_stage, run_stages, seconds_of, settings_of


@pytest.fixture
def script(tmp_path):
    """
    A script whose stages write when they begin and end; "breaks" fails as long as there is a file "broken", and "long"
    takes a second process, whose id it writes.
    """
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent("""
        import subprocess, sys, time
        from pathlib import Path
        from recipe.stages import Stage, run_stage

        folder, name = Path(sys.argv[1]), sys.argv[2]

        def note(what):
            with open(folder / "events", "a") as file:
                file.write(f"{what} {name}\\n")

        def work():
            note("begins")
            if name == "long":
                other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
                (folder / "other").write_text(str(other.pid))
            time.sleep(20 if name == "long" else 0.5)
            if name == "breaks" and (folder / "broken").exists():
                raise RuntimeError("no more paper")
            note("ends")

        run_stage([Stage(name, work)], name, folder)
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
    stages = _stages(["all", (), {}, True], ["left", ("all",)], ["right", ("all",)], ["last", ("left", "right")])
    run_stages(stages, tmp_path, script, num_processes=2)
    events = _events(tmp_path)
    assert events[:2] == ["begins all", "ends all"] and events[-2:] == ["begins last", "ends last"]
    assert {event.split()[0] for event in events[2:4]} == {"begins"}
    assert set(seconds_of(tmp_path)) == {"all", "left", "right", "last"}
    run_stages(stages, tmp_path, script)
    assert _events(tmp_path) == events


def test_one_process_runs_one_stage_at_a_time(tmp_path, script):
    run_stages(_stages(["left"], ["right"]), tmp_path, script, num_processes=1)
    assert _events(tmp_path) == ["begins left", "ends left", "begins right", "ends right"]


def test_a_stage_that_fails_stops_those_beside_it_and_is_gone_on_with(tmp_path, script):
    (tmp_path / "broken").touch()
    stages = _stages(["first"], ["breaks", ("first",)], ["after", ("breaks",)])
    with pytest.raises(StageError, match=r"breaks ended with 1; see .*breaks\.log"):
        run_stages(stages, tmp_path, script)
    assert "no more paper" in (tmp_path / "logs" / "breaks.log").read_text()
    (tmp_path / "broken").unlink()
    run_stages(stages, tmp_path, script)
    assert _events(tmp_path).count("begins first") == 1
    assert _events(tmp_path)[-4:] == ["begins breaks", "ends breaks", "begins after", "ends after"]


def _wait_for(happens, seconds=20):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def _is_gone(pid):
    try:
        # One that nobody waited for is as good as gone.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_no_process_is_left_behind(tmp_path, script, monkeypatch):
    sleep = time.sleep

    def interrupt(seconds):
        sleep(seconds)
        if (tmp_path / "other").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_stages(_stages(["long"]), tmp_path, script)
    monkeypatch.undo()
    other = (tmp_path / "other").read_text()
    _wait_for(lambda: _is_gone(other))
    assert _events(tmp_path) == ["begins long"] and not seconds_of(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_stages_end_when_the_command_is_killed(tmp_path, script):
    command = (
        "import sys; from pathlib import Path; from recipe.stages import Stage, run_stages;"
        f"run_stages([Stage('long', print)], Path({str(tmp_path)!r}), {script!r})"
    )
    killed = subprocess.Popen([sys.executable, "-c", command])
    _wait_for(lambda: (tmp_path / "other").exists() and (tmp_path / "other").read_text())
    other = int((tmp_path / "other").read_text())
    stage = os.getpgid(other)
    assert stage != os.getpgid(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for pid in (stage, other):
        _wait_for(lambda pid=pid: _is_gone(pid))
    assert _events(tmp_path) == ["begins long"]


def test_what_comes_after_something_new_is_done_again(tmp_path, script):
    run_stages(_stages(["first"], ["report", ("first",)]), tmp_path, script)
    run_stages(_stages(["first"], ["second"], ["report", ("first", "second")]), tmp_path, script)
    assert [event for event in _events(tmp_path) if event.startswith("ends")] == [
        "ends first",
        "ends report",
        "ends second",
        "ends report",
    ]


def test_a_mark_has_the_settings_of_its_stage_and_of_those_before_it(tmp_path):
    stages = _stages(["one", (), {"steps": 3, "shots": (0, 1)}], ["two", ("one",), {"size": 5}], ["other"])
    for name in ("one", "two", "other"):
        run_stage(stages, name, tmp_path)
    settings = {"one": {"steps": 3, "shots": [0, 1]}, "two": {"size": 5}}
    assert json.loads((tmp_path / "done" / "two.json").read_text())["settings"] == settings
    run_stages(stages, tmp_path, ["nothing"])


def test_other_settings_in_the_same_folder_are_refused_by_name_where_they_matter(tmp_path):
    def stages(steps=3, size=5):
        return _stages(["one", (), {"steps": steps}], ["two", ("one",), {"of": {"size": size}}], ["other"])

    for name in ("one", "two", "other"):
        run_stage(stages(), name, tmp_path)
    with pytest.raises(ValueError, match=r"has one, two of other settings \(one.steps was 3, is 4\)"):
        run_stages(stages(steps=4), tmp_path, ["nothing"])
    with pytest.raises(ValueError, match=r"has two of other settings \(two.of.size was 5, is 6\)"):
        run_stages(stages(size=6), tmp_path, ["nothing"])
    (tmp_path / "done" / "two.json").unlink()
    with pytest.raises(StageError, match="two ended with 2"):  # the only one that is left to do
        run_stages(stages(size=6), tmp_path, ["nothing"])


def test_what_was_begun_with_other_settings_is_not_gone_on_with(tmp_path):
    def break_off():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage([Stage("one", break_off, (), {"steps": 3})], "one", tmp_path)
    assert not seconds_of(tmp_path)
    with pytest.raises(ValueError, match="one.steps was 3, is 4"):
        run_stages([Stage("one", print, (), {"steps": 4})], tmp_path, ["nothing"])


def test_settings_are_constants_and_arguments():
    def train(clips, *, steps=3, words=None):
        pass

    assert settings_of(train, size={"a": (1, 2)}) == {"steps": 3, "size": {"a": [1, 2]}}
    assert settings_of(train, steps=4) == {"steps": 4}
    settings = settings_of(learning, world=Recipe.smoke())
    assert settings["SHARE_RENAMED"] == learning.SHARE_RENAMED
    assert settings["world"]["novel_hours"] == Recipe.smoke().novel_hours
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    "change, stage",
    [
        (lambda _: {"train_hours": 1.0}, "clips-train"),
        (lambda _: {"language_steps": 1}, "language-opt"),
        (lambda _: {"narrator_steps": 1}, "control-opt-0"),
        (lambda _: {"num_queries": 1}, "evaluation-control-opt-0"),
        (lambda patch: patch.setattr(episodes, "MAX_NOISE", 0.1), "language-opt"),
        (lambda patch: patch.setattr(learning, "SHARE_RENAMED", 0.1), "eilev-opt-0"),
    ],
)
def test_a_change_is_one_of_its_own_stage_and_of_no_other_branch(tmp_path, monkeypatch, change, stage):
    def settings(recipe):
        stages = make_stages(Work(recipe, tmp_path, 1), ["opt"], [0])
        assert len({each.name for each in stages}) == len(stages)
        return {each.name: each.settings for each in stages}

    before = settings(Recipe())
    after = settings(dataclasses.replace(Recipe(), **(change(monkeypatch) or {})))
    changed = [name for name in before if before[name] != after[name]]
    assert stage in changed
    assert set(changed) <= {stage, stage.replace("control", "eilev")}
