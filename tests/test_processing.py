"""The processors: against the original's tokens and pixels, and as their users know processors."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_modeling_golden import labels_of, text_of
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, AutoVideoProcessor

from transformers_eilev import ClipSpan, VideoBlip2Processor, VideoBlip2VideoProcessor


def with_original_placeholders(ids, golden):
    """The original marks the clips' places with padding tokens."""
    pad = golden.interleaved.tokenizer.pad_token_id
    return [pad if token == golden.interleaved.video_token_id else token for token in ids]


# ----------------------------------------------------------------------------------------------------------- texts


def test_interleaved_tokens_and_labels(golden):
    cases = golden.tables["tokens_interleaved"]
    assert len(cases) == 78
    for case in cases:
        processor = VideoBlip2Processor(
            golden.interleaved.video_processor,
            golden.interleaved.tokenizer,
            num_query_tokens=case["num_query_tokens"],
        )
        feature = processor.encode(text_of(case["prompts"]), case["text"])
        assert with_original_placeholders(feature["input_ids"], golden) == case["input_ids"], case["name"]
        is_clip = [int(token == processor.video_token_id) for token in feature["input_ids"]]
        assert is_clip == case["video_input_mask"], case["name"]
        if case["text"] is not None:
            assert feature["labels"] == case["labels"], case["name"]


def test_a_text_may_be_written_as_one_string(golden):
    """With the line breaks between its blocks, and those after clips or not."""
    processor = golden.interleaved
    blocks = ["<video>Question? Answer: One.", "<video><video>Question? Answer: Two.", "<video>Question? Answer:"]
    expected = processor.encode(blocks)
    assert processor.encode("\n".join(blocks)) == expected
    assert processor.encode("\n".join(blocks).replace("<video>", "<video>\n")) == expected


def test_prepended_tokens_and_labels(golden):
    for case in golden.tables["tokens_prepended"]:
        feature = golden.prepended.encode(f"<video>{case['prompt']}", case["text"])
        num_queries = golden.prepended.num_query_tokens
        assert feature["input_ids"][:num_queries] == [golden.prepended.video_token_id] * num_queries
        assert feature["input_ids"][num_queries:] == case["input_ids"]
        labels = feature["labels"][num_queries:] if golden.family == "opt" else feature["labels"]
        assert labels == case["labels"]


@pytest.mark.parametrize("layout", ["interleaved", "prepended"])
def test_collated_batches(golden, layout):
    processor = getattr(golden, layout)
    num_queries = processor.num_query_tokens if layout == "prepended" else 0
    by_name = {case["name"]: case for case in golden.tables["tokens_interleaved"]}
    cases = golden.tables[f"collator_{layout}"]
    assert len(cases) >= 4
    for case in cases:
        if layout == "interleaved":
            samples = [by_name[name] for name in case["features"]]
            features = [processor.encode(text_of(sample["prompts"]), sample["text"]) for sample in samples]
        else:
            samples = golden.tables["tokens_prepended"][: len(case["features"])]
            features = [processor.encode(f"{sample['prompt']}", sample["text"]) for sample in samples]
        multiple = case["name"].split("/")[-1 if layout == "interleaved" else 2]
        side = case["name"].split("/")[-2 if layout == "interleaved" else 1]
        multiple = None if multiple == "None" else int(multiple)
        batch = processor.pad(features, padding_side=side, pad_to_multiple_of=multiple)
        rows = [with_original_placeholders(row, golden) for row in batch["input_ids"].tolist()]
        assert rows == case["input_ids"], case["name"]
        assert batch["attention_mask"].tolist() == case["attention_mask"], case["name"]
        if "labels" in batch and golden.family == "opt":
            assert batch["labels"].tolist() == case["labels"], case["name"]
        elif "labels" in batch:
            # The original pads an encoder-decoder's labels on the left too, and the decoder starts at padding.
            expected = labels_of(case)
            assert [row[row != -100].tolist() for row in batch["labels"]] == [
                row[row != -100].tolist() for row in expected
            ]
            assert batch["labels"].shape == expected.shape
            assert (batch["labels"][:, 0] != -100).all()
    assert num_queries == 0 or layout == "prepended"


def test_classes(golden):
    classes = golden.tables["model_interleaved"].get("classify_classes")
    batch = golden.interleaved.encode_classes(["picks up", " drops ", "turns on the tap"])
    assert batch["class_attention_mask"].sum(1).tolist() == [
        len(golden.interleaved.tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in (" picks up", " drops", " turns on the tap")
    ]
    if classes is not None:
        batch = golden.interleaved.encode_classes(classes["classes"])
        assert batch["class_input_ids"].tolist() == classes["class_input_ids"]
        assert batch["class_attention_mask"].tolist() == classes["class_attention_mask"]
    with pytest.raises(ValueError, match="' '"):
        golden.interleaved.encode_classes(["drops", " "])


def test_tokenizer_is_the_originals(golden):
    for case in golden.tables["tokenizer_strings"]:
        tokenizer = golden.interleaved.tokenizer
        assert tokenizer(case["text"])["input_ids"] == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["decode"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decode_skip"]


def test_processor_and_model_agree(golden):
    assert golden.interleaved.video_token_id == golden.model.config.video_token_id
    assert golden.interleaved.num_query_tokens == golden.model.config.num_query_tokens
    assert golden.interleaved.video_token_id < golden.model.get_input_embeddings().num_embeddings


def test_texts_and_targets_become_one_training_batch(golden):
    texts = ["<video>Question: A? Answer:", "<video>Question: A longer one? Answer:"]
    batch = golden.interleaved(text=texts, text_target=["Yes.", "No, not at all."], videos=list(golden.videos[:2]))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "pixel_values"}
    with torch.no_grad():
        assert golden.model(**batch).loss.isfinite()


# ----------------------------------------------------------------------------------------------------------- clips


def test_pixels(golden):
    """Within what resizing uint8 with PyTorch's kernel instead of PIL's explains: 1 of 255, in few pixels."""
    clips = golden.interleaved(videos=golden.videos)["pixel_values"]
    difference = (clips - golden.pixel_values).abs()
    one_level = 1 / 255 / 0.26130258
    assert difference.max() <= one_level * 1.001
    assert (difference > 1e-5).float().mean() < 0.01


def test_frames_in_any_form_are_the_same(golden):
    frames = golden.videos[0]
    channels_last = frames.permute(0, 2, 3, 1).numpy()
    images = [Image.fromarray(frame) for frame in channels_last]
    forms = [frames, frames.numpy(), channels_last, images, list(channels_last), frames.float() / 255]
    process = golden.interleaved.video_processor
    expected = process(frames)["pixel_values"]
    assert expected.shape == (1, 8, 3, 56, 56)
    for form in forms:
        assert torch.equal(process(form)["pixel_values"], expected)
    assert torch.equal(process(np.stack([channels_last, channels_last]))["pixel_values"][1:], expected)
    assert torch.equal(process([[images], [images, images]])["pixel_values"][2:], expected)


def test_num_frames_of_frames(golden):
    process = golden.interleaved.video_processor
    every = process(golden.videos[0])["pixel_values"]
    assert torch.equal(process(golden.videos[0], num_frames=4)["pixel_values"], every[:, [0, 2, 4, 7]])
    repeated = process(golden.videos[0][:2], num_frames=4)["pixel_values"]
    assert torch.equal(repeated, every[:, [0, 0, 0, 1]])


def test_a_file_gives_the_frames_that_were_asked_for(videos_path):
    process = VideoBlip2VideoProcessor(size={"height": 28, "width": 28})
    path = videos_path / "good_cfr_bframes.mp4"
    outputs = process(path, return_metadata=True)
    assert outputs["pixel_values"].shape == (1, 8, 3, 28, 28)
    # 30 frames a second, 8 out of the 240 of the first 8 seconds
    expected = [index / 30 for index in (0, 34, 68, 102, 136, 170, 204, 239)]
    assert outputs["video_metadata"][0]["frame_sec"] == pytest.approx(expected, abs=1e-3)
    outputs = process(str(path), fps=1, end=10, return_metadata=True)
    assert outputs["video_metadata"][0]["frame_sec"] == pytest.approx(list(range(10)), abs=1e-3)
    outputs = process({"path": str(path), "bytes": None}, start=5, num_frames=2, return_metadata=True)
    assert outputs["video_metadata"][0]["frame_sec"] == pytest.approx([5, 10 - 1 / 30], abs=1e-3)
    outputs = process(path.read_bytes(), start=2, end=3, num_frames=2, return_metadata=True)
    assert outputs["video_metadata"][0]["frame_sec"] == pytest.approx([2, 3 - 1 / 30], abs=1e-3)


def test_clips_of_unequal_length_get_a_mask(videos_path):
    process = VideoBlip2VideoProcessor(size={"height": 28, "width": 28}, fps=1, end=10)
    assert process.num_frames is None
    outputs = process([videos_path / "short_2s.mp4", videos_path / "good_cfr_bframes.mp4"])
    assert outputs["pixel_values"].shape == (2, 10, 3, 28, 28)
    assert outputs["frame_mask"].sum(1).tolist() == [2, 10]
    assert (outputs["pixel_values"][0, 2:] == 0).all()


def test_keywords_of_the_call_win(golden):
    process = golden.interleaved.video_processor
    assert process(golden.videos[0], size={"height": 28, "width": 14})["pixel_values"].shape[-2:] == (28, 14)
    assert process(golden.videos[0], size=28)["pixel_values"].shape[-2:] == (28, 28)
    raw = process(golden.videos[2], do_resize=False, do_normalize=False, do_rescale=False)["pixel_values"]
    assert raw.dtype == torch.uint8 and torch.equal(raw[0], golden.videos[2]), "as transformers' own do"
    nested = golden.interleaved(videos=golden.videos[0], videos_kwargs={"size": {"height": 28, "width": 28}})
    assert nested["pixel_values"].shape[-2:] == (28, 28)
    assert process.size["height"] == 56, "a call's setting stays with the call"


@pytest.mark.parametrize("settings", [{}, {"do_rescale": False}, {"do_normalize": False}])
def test_frames_may_be_normalized_later(golden, settings):
    """On the device, say: the clips of a batch, or one, or a frame."""
    process = AutoProcessor.from_pretrained(golden.checkpoint, **settings).video_processor
    expected = process(golden.videos)["pixel_values"]
    frames = process(golden.videos, do_rescale=False, do_normalize=False)["pixel_values"]
    assert frames.dtype == torch.uint8 and expected.dtype == torch.float32
    for part in (..., 0, (0, 0)):
        normalized = process.normalize_frames(frames[part])
        assert normalized.dtype == torch.float32 and torch.equal(normalized, expected[part])
    for wrong in (expected, frames.movedim(2, -1), frames[0, 0, 0]):
        with pytest.raises(ValueError, match=r"uint8 and of shape \(\.\.\., 3"):
            process.normalize_frames(wrong)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"do_center_crop": True}, "do_center_crop"),
        ({"size": {"shortest_edge": 56}}, "height"),
        ({"resample": 1}, "resample"),
        ({"fps": 2}, "no times"),
        ({"end": 2.0}, "no times"),
    ],
)
def test_settings_that_cannot_be_are_errors(golden, settings, message):
    with pytest.raises(ValueError, match=message):
        golden.interleaved.video_processor(golden.videos[0], **settings)


def test_unequal_frame_sizes_are_an_error_without_resizing(golden):
    with pytest.raises(ValueError, match="do_resize"):
        golden.interleaved.video_processor(golden.videos[:2], do_resize=False)


@pytest.mark.parametrize("video", [3, [], [3], np.zeros((4, 4)), {"file": "x.mp4"}, {"path": None}])
def test_what_is_no_clip_is_an_error(golden, video):
    with pytest.raises(ValueError):
        golden.interleaved(text="<video>", videos=video)


def test_a_missing_file_is_an_error(golden, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.mp4"):
        golden.interleaved(text="<video>", videos=tmp_path / "missing.mp4")


# ------------------------------------------------------------------------------------------------- texts with clips


def test_a_text_without_placeholder_gets_its_clip_in_front(golden):
    explicit = golden.interleaved(text=["<video>A", "<video>B"], videos=golden.videos[:2])
    implicit = golden.interleaved(text=["A", "B"], videos=golden.videos[:2])
    assert torch.equal(explicit["input_ids"], implicit["input_ids"])
    nested = golden.interleaved(text=["A", "B"], videos=[golden.videos[:2], []])
    assert (nested["input_ids"] == golden.interleaved.video_token_id).sum(1).tolist() == [
        2 * golden.interleaved.num_query_tokens,
        0,
    ]


@pytest.mark.parametrize(
    "text, num_clips",
    [
        ("<video>A", 2),
        ("<video><video>A", 1),
        (["<video>A", "<video>B"], 1),
        (["A", "B"], 3),
        ("<video>A", None),
    ],
)
def test_texts_and_clips_that_do_not_match_are_an_error(golden, text, num_clips):
    videos = None if num_clips is None else [golden.videos[0]] * num_clips
    with pytest.raises(ValueError, match="clips"):
        golden.interleaved(text=text, videos=videos)


def test_the_text_that_does_not_match_is_named(golden):
    with pytest.raises(ValueError, match="Text 1 has 2"):
        golden.interleaved(text=["<video>A", "<video><video>B"], videos=[[golden.videos[0]], [golden.videos[0]]])


def test_other_errors_of_a_call(golden):
    with pytest.raises(ValueError, match="text"):
        golden.interleaved()
    with pytest.raises(ValueError, match="images"):
        golden.interleaved(images=[1], text="A")
    with pytest.raises(ValueError, match="targets"):
        golden.interleaved(text=["A", "B"], text_target=["A"])
    with pytest.raises(ValueError, match="truncated"):
        golden.interleaved(text="<video>A", videos=golden.videos[0], truncation=True, max_length=3)


def test_padding_and_tensors_are_the_callers_choice(golden):
    texts = ["A", "A longer text than that"]
    processor = golden.interleaved
    lists = processor(text=texts, padding=False)["input_ids"]
    assert len(lists[0]) < len(lists[1])
    left = processor(text=texts)
    assert left["attention_mask"][0, 0] == 0
    right = processor(text=texts, padding_side="right")
    assert right["attention_mask"][0, 0] == 1
    assert left["input_ids"][0][left["attention_mask"][0] == 1].tolist() == lists[0]
    full = processor(text=texts, padding="max_length", max_length=40, text_kwargs={"return_tensors": "np"})
    assert full["input_ids"].shape == (2, 40) and isinstance(full["input_ids"], np.ndarray)


def test_chat_template(golden, videos_path):
    """A turn of the user is a clip and a question, the assistant's narration follows it in the same line."""
    processor = golden.interleaved
    path = str(videos_path / "short_2s.mp4")
    chat = [
        {"role": "user", "content": [{"type": "video", "path": path}, {"type": "text", "text": "What? Answer:"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "The camera wearer cuts."}]},
        {"role": "user", "content": [{"type": "video", "path": path}, {"type": "text", "text": "What? Answer:"}]},
    ]
    text = processor.build_prompt(["The camera wearer cuts."], "What? Answer:")
    assert processor.apply_chat_template(chat) == text
    chat[1]["content"] = "The camera wearer cuts."
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == text
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    expected = processor(text=text, videos=[path, path])
    assert inputs["input_ids"].tolist() == expected["input_ids"].tolist()
    assert torch.equal(inputs["pixel_values"], expected["pixel_values"])
    few = processor.apply_chat_template(
        [chat, chat], tokenize=True, return_dict=True, processor_kwargs={"num_frames": 2}
    )
    assert few["pixel_values"].shape[:2] == (4, 2)


# ------------------------------------------------------------------------------------------------ saving and loading


@pytest.mark.parametrize("layout", ["interleaved", "prepended"])
def test_save_and_load(golden, layout, tmp_path):
    processor = getattr(golden, layout)
    processor.save_pretrained(tmp_path / "first")
    loaded = AutoProcessor.from_pretrained(tmp_path / "first")
    assert type(loaded) is VideoBlip2Processor
    assert loaded.prompt_layout == layout
    assert loaded.num_query_tokens == processor.num_query_tokens
    assert loaded.video_processor.to_dict() == processor.video_processor.to_dict()
    assert loaded.chat_template == processor.chat_template
    text = "<video>Question: What is the camera wearer doing? Answer:"
    assert loaded.encode(text, "A\nB") == processor.encode(text, "A\nB")
    assert type(AutoVideoProcessor.from_pretrained(tmp_path / "first")) is VideoBlip2VideoProcessor
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    assert tokenizer("a\nb <video>")["input_ids"] == processor.tokenizer("a\nb <video>")["input_ids"]
    loaded.save_pretrained(tmp_path / "second")
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def test_settings_given_while_loading(golden, tmp_path):
    golden.interleaved.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path, num_frames=4, prompt_layout="prepended")
    assert (loaded.video_processor.num_frames, loaded.prompt_layout) == (4, "prepended")


@pytest.mark.parametrize(
    "family, layout, num_frames, fps, end", [("opt", "prepended", None, 1, 10), ("t5", "interleaved", 8, None, 8)]
)
def test_legacy_checkpoints_say_how_they_were_trained(golden, family, layout, num_frames, fps, end):
    """By the version that wrote them, if their name says nothing: VideoBLIP's 4.29, EILEV's 4.35."""
    if golden.family != family:
        return
    processor = AutoProcessor.from_pretrained(golden.checkpoint)
    assert processor.prompt_layout == layout
    video_processor = processor.video_processor
    assert (video_processor.num_frames, video_processor.fps, video_processor.end) == (num_frames, fps, end)
    assert video_processor.size["height"] == 56


@pytest.mark.parametrize(
    "name, layout",
    [
        ("video-blip-opt-2.7b-ego4d", "prepended"),
        ("eilev-opt", "interleaved"),
        ("video-blip/eilev-opt", "interleaved"),
        ("models--kpyu--video-blip-opt-2.7b-ego4d/snapshots/0123", "prepended"),
    ],
)
def test_the_name_of_a_legacy_checkpoint_wins(golden, name, layout, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to(golden.checkpoint)
    processor = AutoProcessor.from_pretrained(tmp_path / name)
    assert processor.prompt_layout == layout
    assert processor.video_processor.fps == (1 if layout == "prepended" else None)


def test_the_names_of_folders_around_it_say_nothing(golden, tmp_path):
    (tmp_path / "eilev" / "video-blip").mkdir(parents=True)
    (tmp_path / "eilev" / "video-blip" / "checkpoint").symlink_to(golden.checkpoint)
    processor = AutoProcessor.from_pretrained(tmp_path / "eilev" / "video-blip" / "checkpoint")
    assert processor.prompt_layout == ("prepended" if golden.family == "opt" else "interleaved")


def test_legacy_checkpoints_in_a_subfolder(golden):
    folder, name = golden.checkpoint.parent, golden.checkpoint.name
    processor = AutoProcessor.from_pretrained(folder, subfolder=name)
    model = AutoModelForImageTextToText.from_pretrained(folder, subfolder=name)
    assert type(processor) is VideoBlip2Processor
    assert processor.video_token_id == model.config.video_token_id == golden.model.config.video_token_id


def test_what_is_saved_is_readable(golden, tmp_path):
    golden.interleaved.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert config["processor_class"] == "VideoBlip2Processor"
    assert config["prompt_layout"] == "interleaved"
    assert config["video_processor"]["num_frames"] == 8


def test_wrong_parts_are_an_error(golden):
    with pytest.raises(TypeError, match="video_processor"):
        VideoBlip2Processor(golden.interleaved.tokenizer, golden.interleaved.tokenizer)
    with pytest.raises(ValueError, match="prompt_layout"):
        VideoBlip2Processor(golden.interleaved.video_processor, golden.interleaved.tokenizer, prompt_layout="both")


def test_a_stretch_of_a_file_is_a_clip(golden, videos_path):
    """With times of its own, beside clips without; the call's other settings hold for all."""
    processor = golden.interleaved
    path = str(videos_path / "good_cfr_bframes.mp4")
    spans = [ClipSpan(path, 1.0, 2.5), ClipSpan(path, start=0.5), ClipSpan(path), path]
    times = [{"start": 1.0, "end": 2.5}, {"start": 0.5}, {}, {}]
    expected = [processor.video_processor(path, num_frames=3, **own)["pixel_values"][0] for own in times]
    outputs = processor(text="<video>" * 4, videos=spans, num_frames=3)
    assert torch.equal(outputs["pixel_values"], torch.stack(expected))
    with pytest.raises(ValueError, match="have no times"):
        processor(text="<video>", videos=[ClipSpan(np.zeros((2, 8, 8, 3), np.uint8), start=1.0)])
