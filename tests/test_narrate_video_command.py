"""`transformers-eilev narrate-video`, as it is typed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from transformers_eilev import ClipSpan, embedded_checkpoint
from transformers_eilev.commands import app
from transformers_eilev.in_context import InContextSession, read_demonstrations


MODEL = "eilev-synthetic-opt"
CLIPS = Path(__file__).parents[1] / "examples" / "narration"


@pytest.fixture(scope="module")
def checkpoint():
    folder = embedded_checkpoint(MODEL)
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


@pytest.fixture
def video(videos_path):
    return str(videos_path / "vid-long.mp4")


@pytest.fixture
def library(tmp_path):
    rows = ["path,narration,verb,noun"]
    for path in sorted(CLIPS.glob("*.mp4")):
        words = path.stem.split("_")
        rows.append(f"{path},The camera wearer {' '.join(words)}.,{words[0]},{words[-1]}")
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(rows))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["narrate-video", *map(str, arguments), "--model", MODEL, "--device", "cpu"])


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_narrations_are_those_of_the_clips(checkpoint, video, library, tmp_path):
    """Each stretch says what a session says of its window, cut out by itself."""
    output = tmp_path / "out.jsonl"
    result = run(video, "--every", 3, "--demonstrations", library, "--output", output, "--end", 14)
    assert result.exit_code == 0, result.output
    rows = rows_of(output)
    assert [(row["start"], row["end"]) for row in rows] == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 14)]
    session = InContextSession(*checkpoint, read_demonstrations(library))
    spans = [ClipSpan(video, start, start + 8) for start in (0, 0.5, 3.5, 6.5, 9)]
    expected = session.narrate(spans, return_scores=True)
    assert [row["text"] for row in rows] == [text for text, _ in expected]
    assert [row["score"] for row in rows] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_shown_and_not_written(video):
    result = run(video, "--every", 4, "--end", 8)
    assert result.exit_code == 0 and result.stdout.count("The camera wearer") == 2
    assert "0.00 -     4.00" in result.stdout


@pytest.mark.parametrize("choose", ["video", "qformer", "text", "mixed", "random"])
def test_demonstrations_chosen_for_each_clip(video, library, tmp_path, choose):
    settings = ["--every", 4, "--end", 12, "--demonstrations", library, "--choose", choose, "--shots", 2]
    for name in ("one.jsonl", "two.jsonl"):
        result = run(video, *settings, "--output", tmp_path / name, "--features", tmp_path / "features")
        assert result.exit_code == 0, result.output
    assert rows_of(tmp_path / "one.jsonl") == rows_of(tmp_path / "two.jsonl")
    assert len(list((tmp_path / "features").rglob("*.safetensors"))) >= 4


def test_frames_a_second(video, library):
    """Of clips that are cut out already as of those of demonstrations."""
    result = run(video, "--fps", 2, "--every", 4, "--end", 8, "--demonstrations", library)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("The camera wearer") == 2


def test_a_run_that_failed_at_once_is_in_nobodys_way(video, library, tmp_path):
    many = tmp_path / "many.csv"
    header, *rows = library.read_text().splitlines()
    many.write_text("\n".join([header, *rows * 15]))
    output = ["--every", 4, "--end", 8, "--output", tmp_path / "out.srt"]
    failed = run(video, "--demonstrations", many, *output)
    assert failed.exit_code == 1 and "longer than the 512" in failed.stderr
    assert run(video, "--demonstrations", library, *output).exit_code == 0


def test_a_clip_is_no_demonstration_of_itself(video, tmp_path):
    """Only what lies elsewhere in the same video is left to choose, or nothing."""
    path = tmp_path / "own.jsonl"
    spans = [(0, 4, "first"), (4, 8, "second")]
    lines = [{"path": video, "narration": f"The {word} one.", "start": a, "end": b} for a, b, word in spans]
    path.write_text("\n".join(map(json.dumps, lines)))
    settings = ["--demonstrations", path, "--choose", "random", "--shots", 1, "--clip-sec", 4]
    both = run(video, *settings, "--every", 4, "--end", 8)
    assert both.exit_code == 0, both.output
    # The only one left for the first four seconds is the second, and so on.
    for (start, end, _), line in zip(spans, reversed(lines)):
        path.write_text(json.dumps(line))
        alone = run(video, *settings[:3], "all", "--clip-sec", 4, "--every", 4, "--start", start, "--end", end)
        assert alone.stdout.strip().splitlines()[-1] in both.stdout


def test_killed_and_resumed(video, library, tmp_path):
    command = [Path(sys.executable).with_name("transformers-eilev"), "narrate-video", video, "--every", "0.5"]
    command += ["--demonstrations", library, "--model", MODEL, "--device", "cpu", "--batch-size", "2", "--output"]
    undisturbed, output = tmp_path / "undisturbed.srt", tmp_path / "out.srt"
    subprocess.run([*command, undisturbed], check=True, capture_output=True)
    journal = output.with_name("out.srt.partial.jsonl")
    process = subprocess.Popen([*command, output], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) > 4):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert journal.exists()
    again = subprocess.run([*command, output], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert output.read_text() == undisturbed.read_text() and not journal.exists()


def test_bad_input_shows_before_the_model_is_loaded(video, library, tmp_path, monkeypatch):
    # The package has the function by the module's name.
    module = sys.modules["transformers_eilev.commands.narrate_video"]
    monkeypatch.setattr(module, "load_model", lambda *_, **__: pytest.fail("loaded"))
    bad = tmp_path / "bad.csv"
    bad.write_text(f"path,narration\ngone.mp4,Yes.\n{video},\n")
    result = run(video, "--demonstrations", bad)
    assert result.exit_code == 1 and "bad.csv:3" in result.stderr and "narration" in result.stderr
    bad.write_text("path,narration\ngone.mp4,Yes.\n")
    result = run(video, "--demonstrations", bad)
    assert result.exit_code == 1 and "gone.mp4" in result.stderr
    (tmp_path / "out.srt").write_text("mine")
    result = run(video, "--output", tmp_path / "out.srt")
    assert result.exit_code == 1 and "out.srt" in result.stderr
    result = run(video, "--output", tmp_path / "out.mp3")
    assert result.exit_code == 1 and ".srt" in result.stderr
    result = run(video, "--choose", "video")
    assert result.exit_code == 1 and "--demonstrations" in result.stderr
    for option, value in (("--every", 0), ("--start", 500), ("--clip-sec", -1)):
        result = run(video, option, value)
        assert result.exit_code == 1 and str(value) in result.stderr, option
    result = run("gone.mp4")
    assert result.exit_code == 1 and "gone.mp4" in result.stderr
