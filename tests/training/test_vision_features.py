"""Stored output of the vision model: as good as the clips, whole after any interruption, refused for another model."""

import copy
import pickle
import runpy
import shutil
import sys
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import Blip2VisionConfig, Blip2VisionModel

from transformers_eilev.data import (
    DataCollatorForVideoNarration,
    InContextDataset,
    PresampledContexts,
    load_clip_store,
    write_frame_folders,
)
from transformers_eilev.training.vision_features import (
    VisionFeatureStore,
    extract_vision_features,
    load_vision_model,
    open_clips,
)
from transformers_eilev.training.vision_weights import has_fingerprint, vision_fingerprint


ROOT = Path(__file__).parents[2]
NUM_CLIPS = 7
SETTINGS = {"batch_size": 2, "clips_per_shard": 3, "progress": False}


@pytest.fixture(scope="module")
def clips(golden_opt):
    """Seven clips, the last one of three frames alone."""
    rows = []
    for number in range(NUM_CLIPS):
        frames = golden_opt.videos[number % 3].roll(7 * number, dims=-1)
        frames = frames[: 3 if number == NUM_CLIPS - 1 else 8]
        rows.append(
            {
                "frame_path": f"video-{number}|{number}",
                "narration_text": f"#C C does {number}",
                "frames": [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames],
            }
        )
    return datasets.Dataset.from_list(rows).cast_column("frames", datasets.List(datasets.Image()))


@pytest.fixture(scope="module")
def processor(golden_opt):
    processor = copy.deepcopy(golden_opt.interleaved)
    processor.video_processor.num_frames = None
    return processor


@pytest.fixture(scope="module")
def stores(golden_opt, processor, clips, tmp_path_factory):
    """A folder of features in each type."""
    folder = tmp_path_factory.mktemp("features")
    for dtype in ("float32", "float16", "bfloat16"):
        extract_vision_features(
            golden_opt.model, processor, clips, folder / dtype, dtype=getattr(torch, dtype), **SETTINGS
        )
    return folder


@pytest.fixture
def folder(stores, tmp_path):
    return shutil.copytree(stores / "float32", tmp_path / "features")


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def dataset_of(clips, **arguments):
    sampler = PresampledContexts([[1, 2], [6, 3], []], [0, 4, 5])
    return InContextDataset(clips, sampler, **arguments)


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


# ----------------------------------------------------------------------------------------------------- as the clips


@pytest.mark.parametrize("dtype, atol", [("float32", 1e-6), ("float16", 3e-3), ("bfloat16", 3e-2)])
def test_a_model_learns_the_same_from_them(golden_opt, processor, clips, stores, dtype, atol):
    model = copy.deepcopy(golden_opt.model)
    model.vision_model.requires_grad_(False)
    collate = DataCollatorForVideoNarration(processor)
    frames = dataset_of(clips)
    expected_loss, expected = loss_and_gradients(model, collate([frames[0], frames[1], frames[2]]))

    store = VisionFeatureStore(stores / dtype)
    stored = dataset_of(clips.remove_columns("frames"), load_clip=store.load, clips_as="vision_hidden_states")
    batch = collate([stored[0], stored[1], stored[2]])
    assert "pixel_values" not in batch and batch["vision_hidden_states"].dtype == store.dtype == getattr(torch, dtype)
    assert batch["frame_mask"].sum(1).tolist() == [8, 8, 8, 3, 8, 8, 8]
    loss, actual = loss_and_gradients(model, batch)
    assert loss == pytest.approx(expected_loss, abs=atol)
    assert actual.keys() == expected.keys() and "query_tokens" in expected
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=atol * max(scale, 1))


def test_each_clip_is_read_alone(golden_opt, clips, stores):
    store = VisionFeatureStore(stores / "float32")
    assert len(store) == NUM_CLIPS
    assert "video-0|0" in store and "video-0|1" not in store
    for number in (6, 0):
        tokens = store.load(clips[number])
        pixel_values = golden_opt.interleaved.video_processor(clips[number]["frames"])["pixel_values"][0]
        with torch.no_grad():
            expected = golden_opt.model.vision_model(pixel_values).last_hidden_state
        torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
        assert tokens.untyped_storage().nbytes() == tokens.nbytes
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == [*(f"features-0000{number}-of-00003.safetensors" for number in range(3)), "index.json"]


def test_workers_read_them(processor, clips, stores):
    store = pickle.loads(pickle.dumps(VisionFeatureStore(stores / "bfloat16")))
    stored = dataset_of(clips.remove_columns("frames"), load_clip=store.load, clips_as="vision_hidden_states")
    collate = DataCollatorForVideoNarration(processor)
    loaders = [
        DataLoader(stored, batch_size=2, collate_fn=collate),
        DataLoader(stored, batch_size=2, collate_fn=collate, num_workers=2),
    ]
    for one, other in zip(*loaders, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_run_that_was_killed_is_gone_on_with(golden_opt, processor, clips, stores, folder, num_workers):
    """One file was not begun, one was being written, one was cut by a crash of the disk."""
    whole = contents(folder)
    first, second, third = sorted(folder.glob("*.safetensors"))
    first.unlink()
    second.rename(folder / f".{second.name}.1234-0badcafe.tmp")
    third.write_bytes(third.read_bytes()[:-100])
    (folder / ".index.json.1234-0badcafe.tmp").write_text('{"ver')
    untouched = folder / "notes.txt"
    untouched.write_text("mine")
    store = VisionFeatureStore(folder)
    assert len(store) == 1 and "video-6|6" in store and "video-0|0" not in store
    store = extract_vision_features(
        golden_opt.model, processor, clips, folder, dtype=torch.float32, num_workers=num_workers, **SETTINGS
    )
    assert len(store) == NUM_CLIPS
    assert contents(folder) == {**whole, "notes.txt": b"mine"}
    model = copy.deepcopy(golden_opt.model)
    model.vision_model.register_forward_pre_hook(lambda *_: pytest.fail("what is there is done again"))
    extract_vision_features(model, processor, clips, folder, dtype=torch.float32, **SETTINGS)


def test_an_error_leaves_what_was_done(golden_opt, processor, clips, stores, tmp_path):
    rows = clips.to_list()
    rows[4]["frames"] = [{"bytes": b"no picture", "path": None}]
    damaged = datasets.Dataset.from_list(rows, features=clips.features)
    settings = {**SETTINGS, "dtype": torch.float32}
    with pytest.raises(ValueError, match=r"clip 'video-4\|4' can't be read"):
        extract_vision_features(golden_opt.model, processor, damaged, tmp_path / "features", **settings)
    assert len(VisionFeatureStore(tmp_path / "features")) == 3
    extract_vision_features(golden_opt.model, processor, clips, tmp_path / "features", **settings)
    assert contents(tmp_path / "features") == contents(stores / "float32")


def test_frames_may_be_encoded_still(golden_opt, processor, clips, stores, tmp_path):
    encoded = clips.cast_column("frames", datasets.List(datasets.Image(decode=False)))
    extract_vision_features(golden_opt.model, processor, encoded, tmp_path / "a", dtype=torch.float32, **SETTINGS)
    assert contents(tmp_path / "a") == contents(stores / "float32")


def test_any_number_of_processes_write_the_same(golden_opt, processor, clips, stores, tmp_path):
    for index in (1, 0):
        store = extract_vision_features(
            golden_opt.model, processor, clips, tmp_path / "a", dtype=torch.float32, shard=(index, 2), **SETTINGS
        )
        assert len(store) == (3 if index else NUM_CLIPS)
    assert contents(tmp_path / "a") == contents(stores / "float32")


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.fixture
def other_model(golden_opt):
    model = copy.deepcopy(golden_opt.model)
    with torch.no_grad():
        model.vision_model.encoder.layers[-1].mlp.fc2.weight[0, 0] += 1e-2
    return model


def test_features_of_the_model_pass(golden_opt, processor, clips, stores):
    for name in ("float32", "bfloat16"):
        store = VisionFeatureStore(stores / name)
        store.check(golden_opt.model, processor)
        store.check(copy.deepcopy(golden_opt.model).to(torch.bfloat16), processor, clips["frame_path"])
        store.check(copy.deepcopy(golden_opt.model).to(torch.float16), processor, ["video-6|6"])
        store.check(golden_opt.model.vision_model, processor.video_processor)


def test_features_of_other_weights_are_refused(golden_opt, other_model, processor, clips, folder):
    for model in (other_model, copy.deepcopy(other_model).to(torch.bfloat16)):
        with pytest.raises(ValueError, match="other vision weights than the model"):
            VisionFeatureStore(folder).check(model, processor)
    with pytest.raises(ValueError, match="other vision weights; give another folder"):
        extract_vision_features(other_model, processor, clips, folder, dtype=torch.float32, **SETTINGS)


def test_fingerprints_are_of_the_weights_whatever_their_type(golden_opt, other_model):
    model = golden_opt.model
    fingerprint = vision_fingerprint(model)
    assert len(fingerprint) == 4
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        loaded = load_vision_model(golden_opt.checkpoint, dtype=dtype)
        assert loaded.dtype == dtype and not loaded.training
        assert has_fingerprint(loaded, fingerprint) and has_fingerprint(model, vision_fingerprint(loaded))
        assert has_fingerprint(loaded.float(), fingerprint), "rounded once and stored as float32"
        assert not has_fingerprint(other_model, vision_fingerprint(loaded))
    halves = [load_vision_model(golden_opt.checkpoint, dtype=dtype) for dtype in (torch.bfloat16, torch.float16)]
    with pytest.raises(ValueError, match="float32"):
        has_fingerprint(halves[0], vision_fingerprint(halves[1]))


def test_a_quantized_vision_model_is_known_by_the_rest_of_it(golden_opt, processor, clips, stores, tmp_path):
    """As quantization leaves it: the matrices of the linear layers are integers."""
    quantized = load_vision_model(golden_opt.checkpoint, dtype=torch.float16)
    for module in quantized.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    store = VisionFeatureStore(stores / "bfloat16")
    store.check(quantized, processor)
    with torch.no_grad():
        quantized.post_layernorm.weight += 1e-2
    with pytest.raises(ValueError, match="other vision weights"):
        store.check(quantized, processor)
    with pytest.raises(ValueError, match="quantized"):
        extract_vision_features(quantized, processor, clips, tmp_path, **SETTINGS)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("image_mean", [0.5, 0.5, 0.5], r"image_mean=\[0.48.*and not \[0.5, 0.5, 0.5\]"),
        ("size", {"height": 28, "width": 28}, "size="),
        ("num_frames", 4, "num_frames=None and not 4"),
    ],
)
def test_features_of_other_frames_are_refused(golden_opt, processor, clips, folder, name, value, message):
    processor = copy.deepcopy(processor)
    setattr(processor.video_processor, name, value)
    with pytest.raises(ValueError, match=message):
        VisionFeatureStore(folder).check(golden_opt.model, processor)
    with pytest.raises(ValueError, match=message):
        extract_vision_features(golden_opt.model, processor, clips, folder, dtype=torch.float32, **SETTINGS)


def test_clips_and_files_that_are_missing_are_refused(golden_opt, processor, folder):
    store = VisionFeatureStore(folder)
    names = ["video-0|0", "a|1", "video-1|1", "b|2"]
    with pytest.raises(ValueError, match=r"2 of 4 clips have no features.*'a\|1' first"):
        store.check(golden_opt.model, processor, names)
    with pytest.raises(ValueError, match=r"'a\|1' is not among the 7"):
        store.load({"frame_path": "a|1"})

    (folder / "features-00002-of-00003.safetensors").unlink()
    store.check(golden_opt.model, processor, ["video-0|0"])
    with pytest.raises(ValueError, match="1 of 3 files.*missing, features-00002.*not finished"):
        store.check(golden_opt.model, processor)
    with pytest.raises(ValueError, match=r"'video-6\|6' belongs to .*00002.*not finished"):
        store.load({"frame_path": "video-6|6"})

    cut = folder / "features-00001-of-00003.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(ValueError, match="1 of 2 files.*damaged.*features-00001"):
        store.check(golden_opt.model, processor, ["video-0|0", "video-3|3"])
    with pytest.raises(ValueError, match="features-00001.*damaged"):
        store.load({"frame_path": "video-3|3"})


def test_files_of_another_extraction_are_refused(golden_opt, processor, stores, folder):
    name = "features-00000-of-00003.safetensors"
    shutil.copy(stores / "bfloat16" / name, folder / name)
    with pytest.raises(ValueError, match="1 of 3 files.*of another extraction.*00000"):
        VisionFeatureStore(folder).check(golden_opt.model, processor)


def test_features_of_another_width_are_refused(processor, folder):
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    wider = Blip2VisionModel(Blip2VisionConfig(image_size=56, patch_size=14, **sizes))
    with pytest.raises(ValueError, match="32 wide, but those of the vision model are 64 wide"):
        VisionFeatureStore(folder).check(wider, processor)


def test_a_folder_of_something_else_is_refused(golden_opt, processor, clips, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        VisionFeatureStore(tmp_path)
    for index, message in [
        ('{"metadata": {}}', "no index"),
        ("{", "no index"),
        ('{"fingerprint": {}, "version": 9}', "9"),
    ]:
        (tmp_path / "index.json").write_text(index)
        with pytest.raises(ValueError, match=rf"index\.json is .*{message}"):
            VisionFeatureStore(tmp_path)
    for arguments, message in [
        ({"clips": clips.select(range(6))}, "7 other clips.*these 6"),
        ({"clips": clips, "dtype": torch.bfloat16}, "dtype='float32' and not 'bfloat16'"),
        ({"clips": clips, "clips_per_shard": 4}, "clips_per_shard=3 and not 4"),
        ({"clips": datasets.concatenate_datasets([clips, clips])}, r"7 of 14 clips.*'video-0\|0' first"),
        ({"clips": clips.select([])}, "no clip"),
        ({"clips": clips, "shard": (2, 2)}, "shard"),
        ({"clips": clips, "batch_size": 0}, "batch_size"),
        ({"clips": clips, "dtype": torch.int8}, "dtype"),
    ]:
        with pytest.raises(ValueError, match=message):
            extract_vision_features(
                golden_opt.model, processor, output_dir=folder, **{"dtype": torch.float32, **SETTINGS, **arguments}
            )


def test_a_disk_without_room_is_refused(golden_opt, processor, clips, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"7 clips.*need .* GiB at .*where 0\.00 GiB are free"):
        extract_vision_features(golden_opt.model, processor, clips, tmp_path / "features", **SETTINGS)
    assert not (tmp_path / "features").exists()
    extract_vision_features(
        golden_opt.model, processor, clips, tmp_path / "features", check_disk_space=False, **SETTINGS
    )


def test_features_that_a_type_cannot_hold_are_refused(golden_opt, processor, clips, tmp_path):
    model = copy.deepcopy(golden_opt.model)
    with torch.no_grad():
        model.vision_model.post_layernorm.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"'video-0\|0'.*float16; store bfloat16"):
        extract_vision_features(model, processor, clips, tmp_path / "half", dtype=torch.float16, **SETTINGS)
    extract_vision_features(model, processor, clips, tmp_path / "bf16", dtype=torch.bfloat16, **SETTINGS)


def test_a_checkpoint_without_a_vision_model_is_refused(tmp_path):
    from tiny_models import tiny_model

    model = tiny_model("opt")
    weights = {name: weight for name, weight in model.state_dict().items() if "vision" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"lacks \d+ weights of the vision model, 'embeddings"):
        load_vision_model(tmp_path)


# ------------------------------------------------------------------------------------------------------------- command


def test_the_script(golden_opt, clip_store, tmp_path, monkeypatch, capfd):
    """On a clip store of two splits and a folder of frames as the original's."""
    others = load_clip_store(clip_store, split="val").select(range(2))
    others = others.map(
        lambda row: {"frame_path": "other" + row["frame_path"], "video_uid": "other" + row["video_uid"]}
    )
    write_frame_folders(others, tmp_path / "folders")
    script = ROOT / "examples" / "training" / "run_extract_features.py"
    arguments = ["--model_name_or_path", golden_opt.checkpoint, "--output_dir", tmp_path / "features"]
    arguments += ["--clips", clip_store, tmp_path / "folders", "--num_frames", 4, "--num_workers", 0]
    arguments += ["--dtype", "float32", "--device", "cpu"]
    for shard in ("1/2", "0/2"):
        monkeypatch.setattr(sys, "argv", list(map(str, [script, *arguments, "--shard", shard])))
        runpy.run_path(str(script), run_name="__main__")
    output = capfd.readouterr()
    clips = open_clips(clip_store, tmp_path / "folders")
    assert f"features of {len(clips)} clips" in output.out and len(clips) > 2
    assert "language_model" not in output.err, "no report of what is left out on purpose"

    store = VisionFeatureStore(tmp_path / "features")
    processor = copy.deepcopy(golden_opt.interleaved)
    processor.video_processor.num_frames = 4
    store.check(golden_opt.model, processor, clips["frame_path"])
    for row in (clips[0], clips[-1]):
        pixel_values = processor.video_processor(row["frames"], num_frames=4)["pixel_values"][0]
        with torch.no_grad():
            expected = golden_opt.model.vision_model(pixel_values).last_hidden_state
        torch.testing.assert_close(store.load(row), expected, rtol=0, atol=1e-5)
