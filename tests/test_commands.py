"""The `transformers-eilev` command and the example scripts, as they are typed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from transformers_eilev.commands import app
from transformers_eilev.commands.arguments import arrange_videos_and_texts


QUESTION = "Question: What is the camera wearer doing? Answer:"
EXAMPLES = Path(__file__).parents[1] / "examples" / "narration"


@pytest.fixture
def clip(videos_path):
    return str(videos_path / "short_2s.mp4")


@pytest.mark.parametrize(
    "arguments, blocks, num_clips",
    [
        (["CLIP"], [f"<video>{QUESTION}"], 1),
        (["CLIP", "What?"], ["<video>What?"], 1),
        (["CLIP", "What?", " Answer: "], ["<video>What? Answer:"], 1),
        (["CLIP", "What? One.", "CLIP", "What?"], ["<video>What? One.", "<video>What?"], 2),
        (["CLIP", "CLIP", "What?"], ["<video><video>What?"], 2),
        (["You see clips.", "CLIP", "What?"], ["You see clips.", "<video>What?"], 1),
        (["CLIP", "What? One.", "CLIP"], ["<video>What? One.", f"<video>{QUESTION}"], 2),
        (["https://example.org/clip", "What?"], ["<video>What?"], 1),
    ],
)
def test_arguments_in_any_order(arguments, blocks, num_clips, clip):
    arguments = [clip if argument == "CLIP" else argument for argument in arguments]
    assert arrange_videos_and_texts(arguments) == (blocks, [a for a in arguments if a == clip or "://" in a])


@pytest.mark.parametrize("name", ["missing.mp4", "folder/missing clip.MKV", "./missing.webm"])
def test_what_looks_like_a_video_but_is_not_there_is_no_text(name):
    with pytest.raises(FileNotFoundError, match=name.split("/")[-1]):
        arrange_videos_and_texts([name, "What?"])


def test_other_bad_arguments(tmp_path, clip):
    with pytest.raises(IsADirectoryError, match="folder"):
        arrange_videos_and_texts([str(tmp_path), "What?"])
    assert arrange_videos_and_texts([clip, "", "What?"])[0] == ["<video>What?"]
    with pytest.raises(ValueError, match="No clip"):
        arrange_videos_and_texts(["What?"])
    with pytest.raises(ValueError, match="<video>"):
        arrange_videos_and_texts([clip, "<video> What?"])
    assert arrange_videos_and_texts([clip, "long " * 2000])[1] == [clip]


def run(*arguments):
    return CliRunner().invoke(app, ["narrate", *map(str, arguments)])


def test_narrate(golden, clip):
    options = [
        "--model",
        golden.checkpoint,
        "--max-new-tokens",
        5,
        "--num-beams",
        1,
        "--no-do-sample",
        "--device",
        "cpu",
    ]
    result = run(clip, QUESTION, *options)
    assert result.exit_code == 0, result.output
    processor, model = getattr(golden, "prepended" if golden.family == "opt" else "interleaved"), golden.model
    settings = {"fps": 1, "end": 10} if golden.family == "opt" else {}
    inputs = processor(text=f"<video>{QUESTION}", videos=clip, **settings)
    generated_ids = model.generate(**inputs, max_new_tokens=5, num_beams=1, do_sample=False)
    assert result.stdout.strip().endswith(processor.post_process_narrations(generated_ids, inputs)[0])


def test_narrate_draws_the_same_with_the_same_seed(golden, clip):
    options = [
        "--model",
        golden.checkpoint,
        "--max-new-tokens",
        8,
        "--num-beams",
        1,
        "--do-sample",
        "--temperature",
        9.0,
    ]
    outputs = [run(clip, *options, "--seed", seed).stdout for seed in (1, 1, 2)]
    assert outputs[0] == outputs[1] != outputs[2]


def test_narrate_says_what_is_wrong(golden, tmp_path):
    result = run("missing.mp4", "--model", golden.checkpoint)
    assert result.exit_code == 1 and "missing.mp4" in result.output
    (tmp_path / "text.mp4").write_text("no video")
    result = run(tmp_path / "text.mp4", "--model", golden.checkpoint)
    assert result.exit_code == 1 and "Error:" in result.output and "text.mp4" in result.output
    result = run(tmp_path / "text.mp4", "--model", golden.checkpoint, "--num-frames", 4, "--fps", 2)
    assert result.exit_code == 1 and "fps" in result.output and "Traceback" not in result.output


def test_narrate_shows_what_the_model_saw(golden_t5, clip, videos_path, tmp_path):
    other = str(videos_path / "good_cfr_bframes.mp4")
    options = ["--model", golden_t5.checkpoint, "--max-new-tokens", 3, "--num-frames", 3, "--dtype", "bfloat16"]
    path = tmp_path / "frames.png"
    result = run(other, "What? One.", clip, "What?", *options, "--frames", path)
    assert result.exit_code == 0, result.output
    assert result.stdout == run(other, "What? One.", clip, "What?", *options).stdout
    assert str(path) in result.stderr.replace("\n", "")
    processor = golden_t5.interleaved.video_processor
    frames = processor([other, clip], num_frames=3, do_rescale=False, do_normalize=False)["pixel_values"]
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    scale = 3  # 56 pixels are few
    rows = []
    for clip_frames in frames:
        pieces = clip_frames.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        height, width = pieces.shape[2:]
        # Each line of the picture in which all the frames lie, from left to right.
        places = [
            top
            for top in range(image.shape[1] - height)
            if all(
                torch.equal(image[:, top : top + height, left : left + width], piece)
                for left, piece in zip(range(12, image.shape[2], width + 4), pieces)
            )
        ]
        assert len(places) == 1
        rows += places
    assert rows[0] < rows[1], "in the order of the prompt"


@pytest.mark.parametrize("name, message", [("frames.xyz", "picture"), ("frames", "picture"), ("no/frames.png", "no")])
def test_narrate_sees_first_whether_it_can_draw(name, message, clip, tmp_path):
    result = run(clip, "--model", "no/such-model", "--frames", tmp_path / name)
    assert result.exit_code == 1 and message in result.output and "--frames" in result.output
    assert "such-model" not in result.output and not list(tmp_path.iterdir())


@pytest.mark.parametrize("script, family", [("run_eilev_narration.py", "t5"), ("run_video_blip_narration.py", "opt")])
def test_examples(script, family, golden, clip):
    if golden.family != family:
        return
    command = [
        sys.executable,
        EXAMPLES / script,
        clip,
        QUESTION,
        "--model",
        golden.checkpoint,
        "--max_new_tokens",
        "4",
    ]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Generated text: ")
