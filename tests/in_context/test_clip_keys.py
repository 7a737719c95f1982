"""Keys of clips: other ones, so that features are computed anew, once anything that decides features changes."""

import os
import shutil
import time
from fractions import Fraction

import pytest
import torch
from encoded_clips import (
    VIDEO_NAMES,
    assert_close,
    assert_equal,
    expected_features,
    frames_of,
    small_encoder,
    small_processor,
)
from tiny_models import clips_of, tiny_model
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

import transformers_eilev.in_context.clip_features as clip_features
from transformers_eilev import ClipSpan, VideoBlip2VideoProcessor, VideoReadError, embedded_checkpoint
from transformers_eilev.in_context.clip_features import ClipEncoder


@pytest.fixture
def videos(videos_path):
    return [videos_path / name for name in VIDEO_NAMES]


@pytest.fixture
def processor():
    return small_processor()


@pytest.fixture
def encoder(processor):
    return small_encoder(processor)


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("pause_sec, settled_ns", [(0, clip_features._SETTLED_NS), (0.05, -(10**18))])
def test_a_file_changed_behind_its_name(encoder, videos, tmp_path, monkeypatch, pause_sec, settled_ns):
    """At once and after a while, to something as long, with its time set back."""
    monkeypatch.setattr(clip_features, "_SETTLED_NS", settled_ns)
    path = tmp_path / "clip.avi"
    content = bytearray(videos[0].read_bytes())
    path.write_bytes(content)
    before = path.stat()
    keys = [encoder.key(path)]
    for _ in range(2):
        content[-1] ^= 1
        time.sleep(pause_sec)
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        keys.append(encoder.key(path))
    assert path.stat().st_size == before.st_size
    assert keys[0] == keys[2] != keys[1]
    replacement = tmp_path / "other.avi"
    shutil.copy(videos[1], replacement)
    os.replace(replacement, path)
    assert encoder.key(path) == encoder.key(videos[1])


def test_a_file_is_not_taken_for_settled_before_its_clock_has_ticked(encoder, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_features, "_DIGESTS", {})
    path = shutil.copy(videos[0], tmp_path)
    encoder.key(path)
    assert not clip_features._DIGESTS
    monkeypatch.setattr(time, "time_ns", lambda: os.stat(path).st_ctime_ns + 3 * 10**9)
    encoder.key(path)
    assert len(clip_features._DIGESTS) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(encoder, videos, tmp_path, monkeypatch):
    path = tmp_path / "growing.mp4"
    shutil.copy(videos[0], path)
    read = clip_features.iter_clips

    def grow_and_read(*args):
        with open(path, "ab") as file:
            file.write(b"more")
        return read(*args)

    monkeypatch.setattr(clip_features, "iter_clips", grow_and_read)
    with pytest.raises(VideoReadError, match="growing.mp4: it changed while it was read"):
        encoder.encode([path])
    assert len(encoder.store) == 0


def test_other_frames_of_the_same_file(encoder, videos):
    path, frames = videos[0], frames_of(videos[0])
    keys = [
        encoder.key(path, **settings) for settings in ({"start": 1.0}, {"end": 2.0}, {"num_frames": 2}, {"fps": 1})
    ]
    keys += [encoder.key(clip) for clip in (path, ClipSpan(path, 0.5), frames, frames[:3], frames.roll(1, 0))]
    assert len(set(keys)) == len(keys)
    assert (
        encoder.key(path, start=1) == encoder.key(ClipSpan(path, 1.0)) == encoder.key(ClipSpan(path, Fraction(1), 9))
    )
    assert encoder.key(path, num_frames=3) == encoder.key(path, end=8.0) == encoder.key(path)
    assert encoder.key(frames, num_frames=2) == encoder.key(frames[[0, 3]])


# ------------------------------------------------------------------------------------------------ settings and weights


@pytest.mark.parametrize(
    "setting, value",
    [("size", {"height": 56, "width": 28}), ("image_mean", [0.5, 0.5, 0.5]), ("resample", 2), ("do_normalize", False)],
)
def test_other_settings_of_the_processor(encoder, videos, setting, value):
    fingerprint, key = encoder.fingerprint, encoder.key(videos[0])
    before = getattr(encoder.processor, setting)
    setattr(encoder.processor, setting, value)
    assert encoder.fingerprint != fingerprint and encoder.key(videos[0]) != key
    setattr(encoder.processor, setting, before)
    assert encoder.fingerprint == fingerprint and encoder.key(videos[0]) == key


def test_settings_that_are_saved_are_the_same(encoder, tmp_path):
    encoder.processor.save_pretrained(tmp_path)
    loaded = VideoBlip2VideoProcessor.from_pretrained(tmp_path)
    assert ClipEncoder(encoder.model, loaded).fingerprint == encoder.fingerprint


def train_step(model, optimizer_class, **settings):
    optimizer = optimizer_class([p for p in model.parameters() if p.requires_grad], lr=1e-4, **settings)
    model.get_video_features(clips_of(2)).pooler_output.square().mean().backward()
    optimizer.step()


def load_others(model):
    state = model.state_dict()
    state["language_projection.bias"] = state["language_projection.bias"] + 1
    model.load_state_dict(state)


CHANGES = {
    "adamw": lambda model: train_step(model, torch.optim.AdamW),
    "fused": lambda model: train_step(model, torch.optim.AdamW, fused=True),
    "load_state_dict": load_others,
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "epsilon": lambda model: setattr(model.config.vision_config, "layer_norm_eps", 1e-3),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_weights(encoder, processor, videos, change):
    fingerprint = encoder.fingerprint
    [before] = encoder.encode(videos[:1])
    change(encoder.model)
    assert encoder.fingerprint != fingerprint
    [after] = encoder.encode(videos[:1])
    assert encoder.store.misses == 2
    expected = expected_features(encoder.model, processor(videos[0])["pixel_values"])
    assert_close(after, expected, 1e-5)
    assert change is CHANGES["epsilon"] or not torch.equal(before.video_hidden_states, after.video_hidden_states)


@pytest.fixture
def lora_encoder(processor):
    """With an adapter that says something, and a second one."""
    from peft import LoraConfig, get_peft_model

    settings = {"target_modules": r"qformer\..*\.(query|value)", "modules_to_save": ["language_projection"]}
    model = get_peft_model(tiny_model("opt"), LoraConfig(init_lora_weights=False, lora_dropout=0.5, **settings))
    model.add_adapter("second", LoraConfig(init_lora_weights=False, lora_alpha=16, **settings))
    return ClipEncoder(model.eval(), processor)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.base_model.disable_adapter_layers(),
        lambda model: model.set_adapter("second"),
        lambda model: model.merge_adapter(),
    ],
    ids=["disabled", "second", "merged"],
)
def test_other_adapters(lora_encoder, processor, videos, change):
    pixel_values = processor(videos[0])["pixel_values"]
    model, fingerprint = lora_encoder.model, lora_encoder.fingerprint
    [before] = lora_encoder.encode(videos[:1])
    assert_close(before, expected_features(model, pixel_values), 1e-5)
    change(model)
    assert lora_encoder.fingerprint != fingerprint
    [after] = lora_encoder.encode(videos[:1])
    assert_close(after, expected_features(model, pixel_values), 1e-5)
    assert lora_encoder.store.misses == 2


def test_the_adapter_before_is_found_again(lora_encoder, videos):
    [before] = lora_encoder.encode(videos[:1])
    lora_encoder.model.set_adapter("second")
    [second] = lora_encoder.encode(videos[:1])
    assert not torch.equal(before.video_hidden_states, second.video_hidden_states)
    lora_encoder.model.set_adapter("default")
    assert_equal(lora_encoder.encode(videos[:1])[0], before)
    assert lora_encoder.store.hits == 1


def test_an_adapter_of_the_language_model_alone_changes_nothing(encoder, processor, videos):
    from peft import LoraConfig, get_peft_model

    fingerprint = encoder.fingerprint
    adapted = get_peft_model(encoder.model, LoraConfig(target_modules=r"language_model\..*\.(q_proj|v_proj)"))
    assert ClipEncoder(adapted, processor).fingerprint == fingerprint == encoder.fingerprint


def test_quantized(golden_opt, videos_path):
    """The matrices in 8 bits, and what they are scaled by."""
    model = AutoModelForImageTextToText.from_pretrained(
        golden_opt.checkpoint, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu"
    )
    encoder = ClipEncoder(model, golden_opt.interleaved)
    fingerprint = encoder.fingerprint
    assert fingerprint != ClipEncoder(golden_opt.model, golden_opt.interleaved).fingerprint
    [features] = encoder.encode([videos_path / "vfr.mp4"])
    pixel_values = golden_opt.interleaved.video_processor(videos_path / "vfr.mp4")["pixel_values"]
    assert_close(features, expected_features(model, pixel_values))
    assert encoder.fingerprint == fingerprint, "running it changes nothing"


def test_with_a_checkpoint_that_comes_with_the_package(golden_opt):
    """Frames of a size and number that only its processor says."""
    processor = AutoProcessor.from_pretrained(embedded_checkpoint())
    keys = {ClipEncoder(golden_opt.model, each).fingerprint for each in (processor, processor.video_processor)}
    assert len(keys) == 1
