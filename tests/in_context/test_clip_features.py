"""Features of clips: those that the model gives, computed once, whatever is around and whatever fails."""

import copy
import http.server
import io
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from encoded_clips import (
    NAMES,
    VIDEO_NAMES,
    assert_close,
    assert_equal,
    counting,
    expected_features,
    frames_of,
    small_encoder,
    small_processor,
)
from PIL import Image
from tiny_models import FAMILIES, tiny_model
from transformers import AutoModelForImageTextToText

import transformers_eilev.in_context.clip_features as clip_features
from transformers_eilev import ClipSpan, VideoBlip2VideoProcessor, VideoReadError, VideoReadWarning
from transformers_eilev.in_context.clip_features import ClipEncoder, ClipFeatureStore


@pytest.fixture
def videos(videos_path):
    return [videos_path / name for name in VIDEO_NAMES]


@pytest.fixture
def processor():
    return small_processor()


@pytest.fixture
def encoder(processor):
    return small_encoder(processor)


# ------------------------------------------------------------------------------------------------------------ equality


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_they_are_the_models(processor, videos, family, dtype, atol):
    model = tiny_model(family).to(dtype)
    features = ClipEncoder(model, processor, batch_size=3).encode(videos)
    for path, one in zip(videos, features, strict=True):
        expected = expected_features(model, processor(path)["pixel_values"])
        assert_close(one, expected, atol * max(1, expected[0].abs().max().item()))
        assert [getattr(one, name).dtype for name in NAMES] == [dtype, torch.float32, torch.float32]
        assert all(getattr(one, name).untyped_storage().nbytes() == getattr(one, name).nbytes for name in NAMES)
        assert not one.video_hidden_states.requires_grad and one.message == ""
    assert not torch.equal(features[0].vision_embedding, features[1].vision_embedding)


def test_of_a_checkpoint_with_its_processor(golden):
    features = ClipEncoder(golden.model, golden.interleaved).encode(golden.videos)
    for video, one in zip(golden.videos, features, strict=True):
        assert_close(
            one, expected_features(golden.model, golden.interleaved.video_processor(video)["pixel_values"]), 1e-5
        )


def test_clips_of_unequal_lengths_give_what_they_give_alone(encoder, processor, videos):
    clips = [frames_of(videos[0], num_frames) for num_frames in (5, 1, 3, 5)]
    features = encoder.encode([*clips, ClipSpan(videos[0], end=2.0)])
    assert encoder.num_clips == [4], "the fourth is the first once more"
    for clip, one in zip(clips, features):
        assert_close(one, expected_features(encoder.model, processor(clip)["pixel_values"]), 1e-5)
    expected = processor(videos[0], start=0.0, end=2.0)["pixel_values"]
    assert_close(features[-1], expected_features(encoder.model, expected), 1e-5)


def test_spans_and_settings_choose_the_frames_that_the_processor_chooses(encoder, processor, videos_path):
    path = videos_path / "vid-long.mp4"
    spans = [ClipSpan(path), ClipSpan(path, 1.5), ClipSpan(path, 2, 5.5), ClipSpan(path, end=3)]
    given = [{}, {"start": 1.5}, {"start": 2, "end": 5.5}, {"end": 3}]
    for settings in ({}, {"num_frames": 2}, {"fps": 1.0}, {"start": 0.5, "end": None, "num_frames": 5}):
        features = encoder.encode(spans, **settings)
        for one, own in zip(features, given, strict=True):
            expected = processor(path, **{**settings, **own})["pixel_values"]
            assert_close(one, expected_features(encoder.model, expected), 1e-5)


def test_all_kinds_of_clips(encoder, processor, videos):
    path, frames = videos[0], frames_of(videos[0], 3)
    images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    data = path.read_bytes()
    with open(path, "rb") as file:
        file.seek(99)
        clips = [str(path), data, bytearray(data), io.BytesIO(data), file, Unseekable(data)]
        clips += [{"path": str(path), "bytes": None}, {"path": None, "bytes": data}, ClipSpan(data)]
        clips += [ClipSpan({"path": str(path)}), ClipSpan(frames), frames, frames.numpy(), images, list(frames)]
        clips += [frames.permute(0, 2, 3, 1), frames.float() / 255]
        features = encoder.encode(clips)
        assert not file.closed
    assert encoder.num_clips == [2], "a file, and frames"
    expected = expected_features(encoder.model, processor(path)["pixel_values"])
    for one in features:
        assert_close(one, expected)


class Unseekable(io.RawIOBase):
    def __init__(self, data):
        self.buffer = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, target):
        return self.buffer.readinto(target)


def test_order_and_duplicates(encoder, videos):
    clips = [videos[1], videos[0], str(videos[1]), ClipSpan(videos[0]), videos[2], videos[1].read_bytes()]
    features = encoder.encode(clips, batch_size=2)
    assert encoder.num_clips == [2, 1]
    alone = [ClipEncoder(encoder.model, encoder.processor).encode([clip])[0] for clip in clips]
    for one, other in zip(features, alone, strict=True):
        assert_close(one, [getattr(other, name) for name in NAMES])
    assert encoder.encode([]) == []


# ---------------------------------------------------------------------------------------------------------------- hits


@pytest.fixture
def no_decoding(monkeypatch):
    """Called, it makes decoding fail."""

    def forbid():
        monkeypatch.setattr(clip_features, "iter_clips", lambda *_, **__: pytest.fail("decoded again"))

    return forbid


def test_hits_neither_decode_nor_run_the_model(encoder, videos, no_decoding):
    clips = [*videos, ClipSpan(videos[0], 1.0, 2.0), frames_of(videos[0])]
    features = encoder.encode(clips)
    num_clips = list(encoder.num_clips)
    no_decoding()
    again = encoder.encode(clips[::-1], batch_size=1)
    for one, other in zip(again[::-1], features, strict=True):
        assert_equal(one, other)
    assert encoder.num_clips == num_clips
    assert (encoder.store.hits, encoder.store.misses) == (6, 6)


def test_another_encoder_finds_them_on_disk(processor, videos, tmp_path, no_decoding):
    first = ClipEncoder(tiny_model("opt"), processor, store=ClipFeatureStore(tmp_path))
    features = first.encode(videos)
    no_decoding()
    second = counting(ClipEncoder(tiny_model("opt"), copy.deepcopy(processor), store=ClipFeatureStore(tmp_path)))
    assert second.fingerprint == first.fingerprint
    for one, other in zip(second.encode(videos), features, strict=True):
        assert_equal(one, other)
    assert second.num_clips == []


def test_another_process_finds_them_on_disk(golden_opt, videos, tmp_path):
    """Of an adapted model, of which most stands in the key."""
    code = """
        import sys
        from test_clip_features import *

        model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
        encoder = adapted_encoder(model, ClipFeatureStore(sys.argv[2]))
        encoder.model.get_video_features = None
        torch.save([tuple(getattr(one, name) for name in NAMES) for one in encoder.encode(sys.argv[3:])], "found.pt")
        """
    model = AutoModelForImageTextToText.from_pretrained(golden_opt.checkpoint)
    features = adapted_encoder(model, ClipFeatureStore(tmp_path)).encode(videos)
    arguments = [golden_opt.checkpoint, tmp_path, *videos]
    paths = os.pathsep.join([*map(str, [Path(__file__).parent, Path(__file__).parents[1]])])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    for one, expected in zip(features, torch.load(tmp_path / "found.pt"), strict=True):
        assert_close(one, expected, atol=0)


def adapted_encoder(model, store):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(target_modules=r"qformer\..*\.(query|value)", init_lora_weights=False))
    return ClipEncoder(model, VideoBlip2VideoProcessor(size={"height": 56, "width": 56}), store=store)


def test_a_damaged_file_is_computed_anew(processor, videos, tmp_path):
    encoder = counting(ClipEncoder(tiny_model("opt"), processor, store=ClipFeatureStore(tmp_path, max_memory_bytes=0)))
    [features] = encoder.encode(videos[:1])
    [path] = tmp_path.glob("*/*")
    assert path.stem == encoder.key(videos[0])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged"):
        assert_equal(encoder.encode(videos[:1])[0], features)
    assert_equal(encoder.encode(videos[:1])[0], features)
    assert encoder.num_clips == [1, 1]


def test_a_video_is_hashed_once_and_spans_of_it_read_in_one_pass(encoder, videos_path, monkeypatch):
    path = videos_path / "vid-long.mp4"
    monkeypatch.setattr(clip_features, "_DIGESTS", {})
    monkeypatch.setattr(clip_features, "_SETTLED_NS", -(10**18))
    hash_file, read, passes = clip_features._Video._hash, clip_features.iter_clips, []
    hashed = []
    monkeypatch.setattr(clip_features._Video, "_hash", lambda video: hashed.append(video.name) or hash_file(video))
    monkeypatch.setattr(clip_features, "iter_clips", lambda *args: passes.append(len(args[1])) or read(*args))
    for _ in range(2):
        encoder.encode([ClipSpan(path, start, start + 1.0) for start in range(6)], batch_size=4)
    encoder.key(os.path.relpath(path))
    assert hashed == [str(path)] and passes == [4, 2]


def test_a_url_is_downloaded_once_a_call(encoder, videos, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, message, *_):
            requests.append(message)

    shutil.copy(videos[0], tmp_path / "video.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(*a, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        spans = [ClipSpan(f"{url}/video.mp4?key=secret", start) for start in (0.0, 1.0, 0.5)]
        features = encoder.encode([*spans, videos[0]], batch_size=1)
        assert len(requests) == 1 and encoder.num_clips == [1, 1, 1]
        assert_equal(features[0], features[3])
        with pytest.raises(VideoReadError, match=rf"^{url}/text.mp4: "):
            encoder.encode([f"{url}/text.mp4?key=secret"])
        server.shutdown()


# -------------------------------------------------------------------------------------------------- whatever is around


def test_a_model_in_training_is_run_as_in_evaluation_and_left_as_it_was(processor, videos):
    model = tiny_model("opt")
    expected = ClipEncoder(model, processor).encode(videos)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    model.train()
    model.vision_model.eval()
    model.vision_model.post_layernorm.train()
    modes = [module.training for module in model.modules()]
    for one, other in zip(ClipEncoder(model, processor).encode(videos), expected, strict=True):
        assert_equal(one, other)
    assert [module.training for module in model.modules()] == modes
    model.qformer.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ClipEncoder(model, processor).encode(videos)
    assert [module.training for module in model.modules()] == modes


def test_autocast_and_inference_mode_around_it_change_nothing(processor, videos):
    model = tiny_model("opt")
    expected = ClipEncoder(model, processor).encode(videos)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        features = ClipEncoder(model, processor).encode(videos)
        assert not torch.is_grad_enabled()
    for one, other in zip(features, expected, strict=True):
        assert_equal(one, other)
        assert not one.video_hidden_states.is_inference(), "so that gradients can be taken of what is made of it"


# --------------------------------------------------------------------------------------------------- clips with faults


def test_a_partial_clip_says_so_each_time(processor, videos_path, tmp_path):
    path = videos_path / "zeroed_hole.mp4"
    encoder = counting(ClipEncoder(tiny_model("opt"), processor, store=ClipFeatureStore(tmp_path)))
    said = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            [features] = encoder.encode([path], num_frames=8)
        said.append([str(w.message) for w in caught if w.category is VideoReadWarning])
    assert len(said[0]) == 1 and said[0] == said[1] and str(path) in said[0][0]
    assert features.message and said[0][0].endswith(features.message) and encoder.num_clips == [1]
    renamed = shutil.copy(path, tmp_path / "renamed.mp4")
    other = ClipEncoder(tiny_model("opt"), processor, store=ClipFeatureStore(tmp_path))
    with pytest.warns(VideoReadWarning, match=r"renamed.mp4: clip 0.000 s to 8.000 s: .*damaged"):
        assert other.encode([renamed], num_frames=8)[0].message == features.message


@pytest.mark.parametrize(
    "clip, error, message",
    [
        ("text.mp4", VideoReadError, "text.mp4"),
        ("no_such.mp4", FileNotFoundError, "no_such.mp4"),
        (ClipSpan("vfr.mp4", 1000.0), VideoReadError, r"vfr.mp4: clip 1000.000 s.*no frames in it"),
        (b"no video", VideoReadError, "<8 bytes>"),
        ([np.zeros((9, 9, 3), "uint8"), np.zeros((8, 9, 3), "uint8")], ValueError, r"frames\[1\] is 9x8"),
    ],
    ids=["no video", "no file", "no frames", "bytes", "frames"],
)
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_clip_that_cant_be_read_loses_nothing_that_was_done_before(
    encoder, videos, videos_path, monkeypatch, clip, error, message, batch_size
):
    monkeypatch.chdir(videos_path)
    clips = [*videos[:3], clip, videos[3]]
    with pytest.raises(error, match=message):
        encoder.encode(clips, batch_size=batch_size)
    assert [encoder.key(path) in encoder.store for path in videos] == [True, True, True, False]
    num_clips = sum(encoder.num_clips)
    encoder.encode(videos)
    assert num_clips == 3 and sum(encoder.num_clips) == 4


def test_only_the_first_of_two_faults_is_told(encoder, videos, videos_path):
    with pytest.raises(VideoReadError, match="text.mp4"):
        encoder.encode([videos[0], videos_path / "text.mp4", "no_such.mp4"])
    assert len(encoder.store) == 1


def test_files_are_closed_in_time(encoder, videos, videos_path, tmp_path):
    """Also those of hits while a miss waits for the others of its batch."""
    paths = [shutil.copy(videos[1], tmp_path / f"{number}.mp4") for number in range(30)]
    [first] = encoder.encode(paths[:1])
    descriptors = set(os.listdir("/proc/self/fd"))
    most = []
    key = encoder._key

    def count(*args):
        most.append(len(set(os.listdir("/proc/self/fd")) - descriptors))
        return key(*args)

    encoder._key = count
    features = encoder.encode([videos[0], *paths, videos_path / "vp9.mp4"])
    assert_equal(features[-2], first)
    assert max(most) < 4
    assert len(os.listdir("/proc/self/fd")) <= len(descriptors)


# ----------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "clips, settings, error, message",
    [
        ("a.mp4", {}, ValueError, "one clip: give"),
        (ClipSpan("a.mp4"), {}, ValueError, "one clip: give"),
        (["a.mp4", 5], {}, ValueError, r"clips\[1\] must be .*but is 5 of type int"),
        ([ClipSpan(None)], {}, ValueError, r"clips\[0\] must be"),
        ([["a.mp4"]], {}, ValueError, r"clips\[0\] must be"),
        (["a.mp4"], {"size": 5}, TypeError, "num_frames, fps, start, end, but not size"),
        (["a.mp4"], {"start": 9, "end": 8}, ValueError, "a.mp4: end must be after start=9"),
        ([ClipSpan("a.mp4", "9")], {}, TypeError, "a.mp4: .*"),
        (["a.mp4"], {"end": np.float32(9)}, TypeError, "a.mp4: .*Rational"),
        (["a.mp4"], {"num_frames": 2, "fps": 2}, ValueError, "a.mp4: give num_frames or fps"),
        (["a.mp4"], {"batch_size": 0}, ValueError, "`batch_size` must be at least 1, but is 0"),
        ([ClipSpan(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), end=1)], {}, ValueError, r"no times, so \['end'\]"),
    ],
)
def test_other_arguments_are_refused(encoder, clips, settings, error, message):
    with pytest.raises(error, match=message):
        encoder.encode(clips, **settings)


def test_settings_of_files_are_none_of_frames(encoder):
    """They were chosen already; how many of them may be asked."""
    frames = torch.arange(6 * 3 * 8 * 8).view(6, 3, 8, 8).to(torch.uint8)
    assert encoder.key(frames, start=1, end=2, fps=3) == encoder.key(frames)
    assert encoder.key(frames, num_frames=3) == encoder.key(frames[[0, 2, 5]])


def test_the_batch_size_is_checked_at_once(encoder):
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, but is 0"):
        ClipEncoder(encoder.model, encoder.processor, batch_size=0)
