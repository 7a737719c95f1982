"""The vision of the recipe: it learns, ends alike however often it was killed, and is what `load_state_dict` takes."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import OPTConfig

from transformers_eilev import (
    VideoBlip2Config,
    VideoBlip2ForConditionalGeneration,
    VideoBlip2VideoProcessor,
)


RECIPE = Path(__file__).parents[3] / "examples" / "training" / "synthetic"
sys.path.insert(0, str(RECIPE))

from recipe import vision  # noqa: E402
from recipe.labelled_clips import decode_clips  # noqa: E402
from recipe.muon import Muon, orthogonalize  # noqa: E402
from recipe.vision import train_vision  # noqa: E402


SIZE, NUM_FRAMES = 16, 4
# A noun is a colour, a verb is where it stands.
COLOURS = {"cup": (220, 40, 40), "box": (40, 60, 220), "mop": (30, 180, 60)}
PLACES = {"take": (0, 0), "put": (8, 8), "cut": (8, 0)}
APPEARANCE = {"cup": ("red", "plain"), "box": ("blue", "plain"), "mop": ("green", "dots")}


def clips_of(number, colours=COLOURS, seed=0):
    """Rows as of a clip store: a square of 6 pixels, on noise."""
    rng = np.random.default_rng(seed)
    kinds = list(itertools.product(PLACES, colours))
    rows = []
    for index in range(number):
        verb, noun = kinds[index % len(kinds)]
        frames = rng.integers(90, 150, (NUM_FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
        down, across = PLACES[verb] + rng.integers(0, 3, 2)
        frames[:, down : down + 6, across : across + 6] = colours[noun]
        pictures = [Image.fromarray(frame) for frame in frames]
        rows.append({"structured_verb": verb, "structured_noun": noun, "frames": pictures})
    return datasets.Dataset.from_list(rows).cast_column("frames", datasets.List(datasets.Image()))


def make_model(seed=0, depth=1):
    torch.manual_seed(seed)
    part = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = VideoBlip2Config(
        vision_config={**part, "num_hidden_layers": depth, "image_size": SIZE, "patch_size": 8},
        qformer_config={
            **part,
            "num_hidden_layers": 1,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": 32,
            "vocab_size": 1,
            "use_qformer_text_input": False,
        },
        text_config=OPTConfig(
            vocab_size=8,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        ),
        num_query_tokens=2,
    )
    return VideoBlip2ForConditionalGeneration(config)


VIDEOS = VideoBlip2VideoProcessor(size={"height": SIZE, "width": SIZE}, num_frames=2)
# What of the processor the training reads.
PROCESSOR = SimpleNamespace(video_processor=VIDEOS)


def train(folder, steps=12, model=None, clips=None, **arguments):
    model = make_model() if model is None else model
    arguments = {"batch_size": 8, "save_every": 4, "warmup_steps": 2, "progress": False, **arguments}
    results = train_vision(
        folder, model, PROCESSOR, clips_of(18) if clips is None else clips, steps=steps, **arguments
    )
    return model, results


def contents(folder):
    return {name: (Path(folder) / name).read_bytes() for name in ("model.safetensors", "log.jsonl")}


# -------------------------------------------------------------------------------------------------------- learning


def test_it_learns_to_tell_verbs_from_nouns(tmp_path):
    evaluation = {
        "val": clips_of(36, seed=1),
        "novel": clips_of(36, {"dax": (230, 220, 40), "wug": (120, 20, 160)}, seed=2),
    }
    model, results = train(
        tmp_path, 120, clips=clips_of(90), batch_size=16, learning_rate=3e-3, save_every=60, evaluation=evaluation,
        appearance=APPEARANCE,
    )  # fmt: skip
    assert min(results["val"].values()) > 0.9 and min(results["novel"].values()) > 0.9, results
    weights = load_file(tmp_path / "model.safetensors")
    assert {name.split(".")[0] for name in weights} == {"vision_model", "qformer", "query_tokens"}
    fresh = make_model(seed=1)
    missing, unexpected = fresh.load_state_dict(weights, strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"language_model", "language_projection"}
    for name in weights:
        assert torch.equal(fresh.state_dict()[name], model.state_dict()[name])
    first, last = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (first["step"], last["step"]) == (60, 120)
    questions = ["verb", "noun", "appearance 0", "appearance 1"]
    assert list(last["losses"]) == [*questions, *(f"frame {name}" for name in questions)]
    assert all(last["losses"][name] < first["losses"][name] for name in last["losses"])
    assert last["val"] == results["val"]


def test_a_nearest_neighbour_is_never_the_clip_itself():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, 0.2]])
    assert vision._nearest_neighbours(features, ["a", "b", "c", "d"]) == ["b", "a", "d", "c"]


@pytest.mark.parametrize("shape", [(5, 12, 12), (3, 8, 20), (2, 20, 8)])
def test_steps_turn_every_direction_alike(shape):
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = 0.1 + torch.rand(left.shape[0], left.shape[-1], generator=generator)
    actual = orthogonalize(left * values[:, None] @ right)
    values = torch.linalg.svdvals(actual)
    assert values.min() > 0.65 and values.max() < 1.25
    # The directions are the matrix's own.
    across = left.mT @ actual @ right.mT
    torch.testing.assert_close(across, torch.diag_embed(across.diagonal(dim1=1, dim2=2)), rtol=0, atol=1e-4)


def test_a_step_of_muon():
    weights = [torch.nn.Parameter(torch.full((4, 9), 2.0)), torch.nn.Parameter(torch.full((4, 9), 3.0))]
    idle = torch.nn.Parameter(torch.ones(4, 9))
    gradients = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([*weights, idle], lr=0.1, momentum=0.9, weight_decay=0.5)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    optimizer.step()
    for weight, start, gradient in zip(weights, (2.0, 3.0), gradients, strict=True):
        expected = start * 0.95 - 0.1 * 0.2 * 3 * orthogonalize(gradient[None])[0]
        torch.testing.assert_close(weight.detach(), expected)
    assert (idle == 1).all()
    for weight in weights:
        weight.grad = gradients[0]
    before = weights[1].detach().clone()
    optimizer.step()
    average = 0.09 * gradients[1] + 0.1 * gradients[0]
    expected = before * 0.95 - 0.06 * orthogonalize((0.1 * gradients[0] + 0.9 * average)[None])[0]
    torch.testing.assert_close(weights[1].detach(), expected)
    with pytest.raises(ValueError, match=r"Muon is for matrices, here is a weight of shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.ones(3))])


def test_it_begins_from_nothing_but_the_seed():
    models = [make_model(seed) for seed in (0, 1)]
    with torch.no_grad():
        for name, weight in models[1].named_parameters():
            if name.startswith(vision.PARTS):
                weight.add_(torch.randn(weight.shape))
    for model in models:
        vision.initialize_vision(model, seed=3)
    one, two = (model.state_dict() for model in models)
    for name in one:
        assert torch.equal(one[name], two[name]) == name.startswith(vision.PARTS) or name.startswith("language_"), name
    # What comes out of a layer is as large as what goes in, and a place no smaller than half of a patch.
    embeddings, layer = models[0].vision_model.embeddings, models[0].vision_model.encoder.layers[0]
    with torch.no_grad():
        assert embeddings.patch_embedding(torch.randn(64, 3, 8, 8)).std().item() == pytest.approx(1, rel=0.2)
        assert embeddings.position_embedding.std().item() == pytest.approx(0.5, rel=0.2)
        assert layer.mlp.fc1(torch.randn(64, 32)).std().item() == pytest.approx(1, rel=0.2)


# --------------------------------------------------------------------------------------------------------- resuming


def save_half(step):
    """A `torch.save` that dies within the state of that step."""
    save = torch.save

    def save_or_die(state, file):
        if state["step"] == step:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, file)

    return save_or_die


def stop_at(step):
    """A `_Run._batch` that fails at that step."""
    batch = vision._Run._batch

    def batch_or_stop(run, number):
        if number == step:
            raise InterruptedError
        return batch(run, number)

    return batch_or_stop


def steps_logged(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    evaluation = {"val": clips_of(9, seed=1)}
    _, results = train(tmp_path / "whole", evaluation=evaluation)
    with monkeypatch.context() as patch:
        patch.setattr(vision._Run, "_batch", stop_at(6))
        with pytest.raises(InterruptedError):
            train(tmp_path / "killed", evaluation=evaluation)
    assert steps_logged(tmp_path / "killed") == [4]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.run([sys.executable, __file__, tmp_path / "killed"], env=environment, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert steps_logged(tmp_path / "killed") == [4]
    _, resumed = train(tmp_path / "killed", evaluation=evaluation)
    assert resumed == results
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert steps_logged(tmp_path / "whole") == [4, 8, 12]
    assert not (tmp_path / "whole" / "state.pt").exists()


def test_what_has_ended_is_loaded(tmp_path, monkeypatch):
    whole, results = train(tmp_path, steps=4, evaluation={"val": clips_of(9, seed=1)})
    monkeypatch.setattr(vision._Run, "train_until", None)
    again, loaded = train(tmp_path, steps=4)
    assert loaded == results and "val" in results
    for name, weight in whole.state_dict().items():
        if name.startswith(vision.PARTS):
            assert torch.equal(again.state_dict()[name], weight)


def test_killed_after_the_last_state(tmp_path, monkeypatch):
    _, results = train(tmp_path / "whole", evaluation={"val": clips_of(9)})
    with monkeypatch.context() as patch:
        patch.setattr(vision._Run, "finish", None)
        with pytest.raises(TypeError):
            train(tmp_path / "late", evaluation={"val": clips_of(9)})
    assert train(tmp_path / "late", evaluation={"val": clips_of(9)})[1] == results
    assert contents(tmp_path / "late") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [{"matrix_learning_rate": 1e-4}, {"seed": 1}, {"clips": clips_of(18, seed=5)}, {"model": make_model(depth=2)}],
)
def test_another_training_is_not_gone_on_with(tmp_path, change, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(vision._Run, "finish", None)
        with pytest.raises(TypeError):
            train(tmp_path, steps=1)
    with pytest.raises(ValueError, match=r"state\.pt is of a training with other settings"):
        train(tmp_path, steps=1, **change)
    train(tmp_path, steps=1)
    with pytest.raises(ValueError, match=r"model\.safetensors is of a training with other settings"):
        train(tmp_path, steps=1, **change)


def test_what_is_drawn_depends_on_seed_and_step_alone(tmp_path):
    one, _ = train(tmp_path / "one", steps=3)
    torch.manual_seed(99)
    np.random.seed(99)
    two, _ = train(tmp_path / "two", steps=3, model=make_model(seed=1), save_every=1)
    for name, weight in one.state_dict().items():
        # The language models are two, and untouched.
        assert torch.equal(weight, two.state_dict()[name]) or name.startswith("language_"), name
        assert torch.equal(weight, make_model().state_dict()[name]) == name.startswith("language_") or "bias" in name
    three, _ = train(tmp_path / "three", steps=3, seed=1)
    assert not torch.equal(one.query_tokens, three.query_tokens)


# ------------------------------------------------------------------------------------------------------------ batches


def make_run(clips, monkeypatch, jitter=0.0, **plan):
    monkeypatch.setattr(vision, "COLOUR_JITTER", jitter)
    plan = {
        "steps": 10,
        "batch_size": 6,
        "num_frames": 2,
        "learning_rates": (1e-3, 1e-3),
        "warmup_steps": 2,
        "seed": 0,
        **plan,
    }
    return vision._Run(Path(), make_model(), VIDEOS, clips, APPEARANCE, vision._Plan(**plan))


def test_a_batch_is_of_moved_frames_normalized_as_the_processor_does(monkeypatch):
    clips = decode_clips(clips_of(6), progress=False)
    # Frames that say which clip, which frame and which pixel they are.
    clips.frames[:] = np.arange(6 * NUM_FRAMES).reshape(6, NUM_FRAMES, 1, 1, 1)
    clips.frames[..., 1] = np.arange(SIZE)[:, None] * 10
    clips.frames[..., 2] = np.arange(SIZE) * 10
    run = make_run(clips, monkeypatch)
    seen, moves = [], set()
    for step in range(12):
        pixel_values, labels = run._batch(step)
        mean, std = (torch.tensor(getattr(VIDEOS, name)).view(3, 1, 1) for name in ("image_mean", "image_std"))
        pixels = ((pixel_values * std + mean) * 255).round().int()
        rows = pixels[:, 0, 0, 0, 0] // NUM_FRAMES
        seen.append(sorted(rows.tolist()))
        for clip, row, label in zip(pixels, rows.tolist(), labels, strict=True):
            numbers = clip[:, 0]
            assert (numbers == numbers[:, :1, :1]).all() and (numbers // NUM_FRAMES == row).all()
            assert numbers[0, 0, 0] < numbers[1, 0, 0]
            down, across = clip[0, 1, 8, 8].item() // 10 - 8, clip[0, 2, 8, 8].item() // 10 - 8
            moves |= {("down", down), ("across", across)}
            expected_down = (torch.arange(SIZE) + down).clip(0, SIZE - 1) * 10
            expected_across = (torch.arange(SIZE) + across).clip(0, SIZE - 1) * 10
            assert (clip[:, 1] == expected_down[:, None]).all() and (clip[:, 2] == expected_across).all()
            names = [answers[number] for answers, number in zip(run.classes.names.values(), label, strict=True)]
            assert names == [clips.verbs[row], clips.nouns[row], *APPEARANCE[clips.nouns[row]]]
    assert seen == [list(range(6))] * 12
    assert moves == {(way, pixels) for way in ("down", "across") for pixels in range(-3, 4)}


def test_each_clip_comes_once_in_an_epoch(monkeypatch):
    run = make_run(decode_clips(clips_of(9), progress=False), monkeypatch)
    rows = np.concatenate([run._rows(step) for step in range(6)])
    orders = rows.reshape(4, 9)
    assert [sorted(order.tolist()) for order in orders] == [list(range(9))] * 4
    assert len({tuple(order) for order in orders}) == 4


def test_colours_change_by_clip_and_channel(monkeypatch):
    clips = decode_clips(clips_of(6), progress=False)
    plain, _ = make_run(clips, monkeypatch)._batch(0)
    jittered, _ = make_run(clips, monkeypatch, jitter=0.15)._batch(0)
    scale = (jittered.std((1, 3, 4)) / plain.std((1, 3, 4)))[:, None, :, None, None]
    offset = (jittered - plain * scale).mean((1, 3, 4), keepdim=True)
    torch.testing.assert_close(plain * scale + offset, jittered, rtol=0, atol=1e-4)
    assert len(set(scale.flatten().tolist())) == 18 and 0.05 < scale.std() < 0.3 and 0.05 < offset.std() < 0.3


# ------------------------------------------------------------------------------------------------------------- errors


def test_clips_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="There are no clips"):
        train(tmp_path, clips=clips_of(9).select([]))
    with pytest.raises(ValueError, match="num_frames must be from 1 to 4, as many as clips have, got 5"):
        train(tmp_path, num_frames=5)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train(tmp_path, steps=0)
    with pytest.raises(ValueError, match="appearance lacks 1 nouns of the clips, 'mop' first"):
        train(tmp_path, appearance={"cup": ["red"], "box": ["blue"]})
    large = clips_of(9).map(lambda row: {"frames": [frame.resize((20, 20)) for frame in row["frames"]]})
    with pytest.raises(ValueError, match="for frames of 16 x 16 pixels, the clips have 20 x 20"):
        train(tmp_path, clips=large)
    with pytest.raises(ValueError, match=r"Clip 1 has frames of \(4, 20, 20, 3\), the first of \(4, 16, 16, 3\)"):
        train(tmp_path, clips=datasets.concatenate_datasets([clips_of(1), large]))
    nouns = ["cup", "cup", None]
    unlabelled = clips_of(3).remove_columns("structured_noun").add_column("structured_noun", nouns)
    with pytest.raises(ValueError, match="Clip 2 has no structured_noun"):
        train(tmp_path, clips=unlabelled)
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    torch.save = save_half(8)
    train(sys.argv[1], evaluation={"val": clips_of(9, seed=1)})
