"""Maps of clips, by the checkpoint that comes with the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor, embedded_checkpoint
from transformers_eilev.data import ClipStoreWriter, FrameLoader, load_narrated_clips
from transformers_eilev.evaluation.embeddings import draw_clips, embed_clips, project
from transformers_eilev.in_context import ClipEncoder


ROOT = Path(__file__).parents[2]
NUM_CLIPS = 10


def write_solid_clips(folder, colour):
    """Clips of one colour each, no two alike, all near `colour`."""
    (folder / "data").mkdir(parents=True)
    with ClipStoreWriter(folder / "data" / "val-00000.parquet", encoding="png") as writer:
        for index in range(NUM_CLIPS):
            shade = torch.tensor(colour, dtype=torch.uint8) + 2 * index
            row = {
                "frame_path": f"{folder.name}|{index}",
                "video_uid": folder.name,
                "clip_index": index,
                "narration_timestamp_sec": 0.0,
                "narration_text": "#C C opens the door",
                "structured_verb": "open",
                "structured_noun": "door",
            }
            writer.write(row, shade.view(1, 3, 1, 1).expand(4, 3, 40, 40), frame_sec=[0.0] * 4)
    return folder


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_solid_clips(folder / name, colour) for name, colour in (("red", (220, 20, 20)), ("sky", (30, 90, 230)))
    ]


def share_of_own_neighbours(points):
    """How many points have their nearest neighbour in their own half."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    half = np.arange(len(points)) // NUM_CLIPS
    return (half[distances.argmin(1)] == half).mean()


def test_features_are_those_of_the_model(stores):
    checkpoint = embedded_checkpoint("eilev-synthetic-opt")
    model = VideoBlip2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = VideoBlip2Processor.from_pretrained(checkpoint)
    encoder, rows = ClipEncoder(model, processor), load_narrated_clips(stores[0], split="val")
    found = {
        name: embed_clips(encoder, rows, FrameLoader(), features=name, batch_size=3) for name in ("vision", "tokens")
    }
    clip = FrameLoader()(rows[4])
    with torch.no_grad():
        pixel_values = processor.video_processor([clip])["pixel_values"]
        outputs = model.get_video_features(pixel_values, return_dict=True)
    np.testing.assert_allclose(found["vision"][4], outputs.last_hidden_state[0].mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(found["tokens"][4], outputs.pooler_output[0].flatten().numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="`features` must be of .*'qformer'.*but is 'text'"):
        embed_clips(encoder, rows, FrameLoader(), features="text")


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_neighbours_stay_neighbours_and_a_seed_decides(method):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2 * NUM_CLIPS, 30)).astype(np.float32)
    embeddings[NUM_CLIPS:] += 6
    points = project(embeddings, method=method, seed=3)
    assert points.shape == (2 * NUM_CLIPS, 2)
    assert share_of_own_neighbours(points) == 1
    assert np.array_equal(points, project(embeddings, method=method, seed=3))


def test_maps_that_can_not_be_are_refused():
    for message, embeddings, options in (
        ("at least 6 clips, but there are 5", np.zeros((5, 3)), {}),
        ("`method` must be of .*'umap'", np.zeros((9, 3)), {"method": "pca"}),
        ("`num_neighbours` must be at least 2, but is 1", np.zeros((9, 3)), {"num_neighbours": 1}),
    ):
        with pytest.raises(ValueError, match=message):
            project(embeddings, **options)


@pytest.mark.parametrize("module, package", [("sklearn.manifold", "scikit-learn"), ("umap", "umap-learn")])
def test_without_a_library_it_is_said_what_to_install(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        project(np.eye(9, 3), method="umap")


def test_clips_are_drawn_by_the_seed():
    assert draw_clips(5, None, (0, 1)) == draw_clips(5, 9, (0, 1)) == [0, 1, 2, 3, 4]
    drawn = draw_clips(1000, 10, (0, 1))
    assert drawn == sorted({*drawn}) == draw_clips(1000, 10, (0, 1))
    assert len(drawn) == 10
    assert drawn != draw_clips(1000, 10, (1, 1))


def test_the_script_tells_data_sets_apart_and_keeps_features(stores, tmp_path):
    def run(name):
        command = ["examples/evaluation/run_embeddings.py", "--model_name_or_path", "eilev-synthetic-opt"]
        command += ["--clips", *(f"{store}:val" for store in stores), "--names", "red", "sky", "--max_clips", "9"]
        command += ["--features", "vision", "--features_dir", str(tmp_path / "features"), "--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command += ["--output_dir", str(tmp_path / name)]
        subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True)
        return [json.loads(line) for line in (tmp_path / name / "clips.jsonl").read_text().splitlines()]

    lines = run("first")
    assert [line["dataset"] for line in lines] == ["red"] * 9 + ["sky"] * 9
    assert lines[0].keys() == {"frame_path", "dataset", "structured_verb", "structured_noun", "x", "y"}
    assert all(line["frame_path"].startswith(line["dataset"]) for line in lines)
    points = np.array([[line["x"], line["y"]] for line in lines])
    # A line parts the two: the one that least squares find.
    plane = np.c_[points, np.ones(18)]
    side = plane @ np.linalg.lstsq(plane, np.repeat([-1.0, 1.0], 9))[0]
    assert (side[:9] < 0).all() and (side[9:] > 0).all()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*.safetensors")}
    assert len(kept) == 18
    assert run("second") == lines
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*.safetensors")} == kept
    assert (tmp_path / "first" / "clips.svg").read_bytes() == (tmp_path / "second" / "clips.svg").read_bytes()
