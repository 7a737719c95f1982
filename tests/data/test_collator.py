"""Batches: against the original's collators, and against the model that takes them."""

import copy

import pytest
import torch
from test_modeling_golden import labels_of, text_of
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from transformers_eilev.data.collator import DataCollatorForVideoNarration
from transformers_eilev.data.in_context import InContextDataset, InContextSampler


QUESTION = "Question: What is the camera wearer doing? Answer:"
NARRATIONS = ["The camera wearer folds the dough carefully.", "The camera wearer cuts.", "The camera wearer opens it."]


def feature_of(golden, clips, target=NARRATIONS[2]):
    """A sample of the golden checkpoint's clips with these numbers, the last one to be narrated."""
    blocks = [f"<video>{QUESTION} {NARRATIONS[i % 2]}" for i in range(len(clips) - 1)] + [f"<video>{QUESTION}"]
    feature = {"text": blocks if clips else [QUESTION], "videos": [golden.videos[i] for i in clips]}
    return feature if target is None else {**feature, "text_target": target}


def numbered_clips(start, number):
    return torch.arange(start, start + number).view(-1, 1, 1, 1, 1).expand(-1, 1, 3, 1, 1).float()


# ------------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("layout", ["interleaved", "prepended"])
def test_batches_are_the_originals(golden, layout):
    processor = getattr(golden, layout)
    by_name = {case["name"]: case for case in golden.tables["tokens_interleaved"]}
    cases = golden.tables[f"collator_{layout}"]
    assert len(cases) >= 4
    for case in cases:
        if layout == "interleaved":
            samples = [by_name[name] for name in case["features"]]
            texts = [text_of(sample["prompts"]) for sample in samples]
            side, multiple = case["name"].split("/")[-2:]
        else:
            samples = golden.tables["tokens_prepended"][: len(case["features"])]
            texts = [f"<video>{sample['prompt']}" for sample in samples]
            _, side, multiple, _ = case["name"].split("/")
        features, num_clips = [], 0
        for sample, text in zip(samples, texts):
            number = "".join(text).count("<video>")
            features.append({"text": text, "pixel_values": numbered_clips(num_clips, number)})
            num_clips += number
            if sample["text"] is not None:
                features[-1]["text_target"] = sample["text"]
        multiple = None if multiple == "None" else int(multiple)
        # The original leaves the clips of the prepended layout out of the text, so its rows are rounded up without.
        rounded = multiple if layout == "interleaved" else None
        batch = DataCollatorForVideoNarration(processor, padding_side=side, pad_to_multiple_of=rounded)(features)
        assert batch["pixel_values"][:, 0, 0, 0, 0].tolist() == list(range(num_clips)), "in reading order"
        check_tokens(batch, case, golden, processor, multiple if layout == "interleaved" else "any")


def check_tokens(batch, case, golden, processor, multiple):
    pad, video = processor.tokenizer.pad_token_id, processor.video_token_id
    if multiple != "any":
        assert batch["input_ids"].masked_fill(batch["input_ids"] == video, pad).tolist() == case["input_ids"]
        assert batch["attention_mask"].tolist() == case["attention_mask"]
    for row, mask, expected, expected_mask in zip(
        batch["input_ids"], batch["attention_mask"], case["input_ids"], case["attention_mask"]
    ):
        clips = row == video
        num_in_front = 0 if multiple != "any" else processor.num_query_tokens
        row = row.masked_fill(clips, pad)[mask == 1][num_in_front:]
        assert row.tolist() == [token for token, real in zip(expected, expected_mask) if real]
    if "labels" not in batch:
        assert all(label == -100 for row in case["labels"] for label in row), "the original's say nothing"
        return
    # The original pads an encoder-decoder's labels on the left too, and the decoder starts at padding.
    for row, expected in zip(batch["labels"], labels_of(case)):
        assert row[row != -100].tolist() == expected[expected != -100].tolist()
    if golden.family == "opt" and multiple != "any":
        assert batch["labels"].tolist() == case["labels"]


# ---------------------------------------------------------------------------------------------------- for the model


def test_the_loss_is_on_the_querys_narration_alone(golden):
    features = [feature_of(golden, clips) for clips in ([0, 1, 2], [1], [])]
    batch = DataCollatorForVideoNarration(golden.interleaved)(features)
    for row in batch["labels"]:
        assert golden.interleaved.tokenizer.decode(row[row != -100], skip_special_tokens=True).strip() == NARRATIONS[2]
    if golden.family == "opt":
        learnt = batch["labels"] != -100
        assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])
        assert learnt[:, -1].all(), "left padding: every row ends with what is to be said"


@pytest.mark.parametrize("clips_of_batch", [[[0, 1, 2], [1], [2, 0]], [[0, 1], [], [2]], [[], []]])
def test_a_batchs_loss_is_that_of_its_samples(golden, model, clips_of_batch):
    """With any number of clips in each, none at all too, on which the original raises; padded on either side."""
    features = [feature_of(golden, clips, NARRATIONS[i]) for i, clips in enumerate(clips_of_batch)]

    def loss(batch):
        with torch.no_grad():
            return model(**batch).loss.item() * (batch["labels"] != -100).sum().item()

    def num_labels(batch):
        # A decoder-only model's first token is no label of it, but it is never one that counts.
        return (batch["labels"] != -100).sum().item()

    alone = [DataCollatorForVideoNarration(golden.interleaved)([feature]) for feature in features]
    expected = sum(map(loss, alone)) / sum(map(num_labels, alone))
    for side in ("left", "right"):
        for multiple in (None, 8):
            collate = DataCollatorForVideoNarration(golden.interleaved, padding_side=side, pad_to_multiple_of=multiple)
            batch = collate(features)
            assert ("pixel_values" in batch) == any(clips_of_batch)
            assert loss(batch) / num_labels(batch) == pytest.approx(expected, abs=1e-4)
            assert multiple is None or batch["input_ids"].shape[1] % 8 == 0


def test_a_batch_to_generate_for_is_the_processors_own(golden, model):
    features = [feature_of(golden, clips, target=None) for clips in ([0, 1], [2])]
    batch = DataCollatorForVideoNarration(golden.interleaved)(features)
    texts, videos = (["\n".join(feature["text"]) for feature in features], [feature["videos"] for feature in features])
    expected = golden.interleaved(text=texts, videos=videos)
    assert set(batch) == set(expected)
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name
    generated = model.generate(**batch, max_new_tokens=4, num_beams=1, do_sample=False)
    narrations = golden.interleaved.post_process_narrations(generated, batch)
    assert narrations == golden.interleaved.post_process_narrations(
        model.generate(**expected, max_new_tokens=4, num_beams=1, do_sample=False), expected
    )


def test_a_training_step_reaches_the_query_tokens(golden, model):
    batch = DataCollatorForVideoNarration(golden.interleaved)([feature_of(golden, [0, 1]), feature_of(golden, [])])
    model(**batch).loss.backward()
    assert model.query_tokens.grad.abs().sum() > 0


# -------------------------------------------------------------------------------------------------------------- clips


def test_clips_come_as_files_frames_or_pixel_values(golden, videos_path):
    collate = DataCollatorForVideoNarration(golden.interleaved)
    process = golden.interleaved.video_processor
    path = videos_path / "good_cfr_bframes.mp4"
    expected = torch.cat([process(path)["pixel_values"], process(golden.videos[0])["pixel_values"]])
    text = ["<video>A", "<video>B"]
    for videos in ([path, golden.videos[0]], [str(path), golden.videos[0].numpy()]):
        assert torch.equal(collate([{"text": text, "videos": videos}])["pixel_values"], expected)
    for pixel_values in (expected, list(expected), expected.numpy()):
        assert torch.equal(collate([{"text": text, "pixel_values": pixel_values}])["pixel_values"], expected)
    mixed = [{"text": "A", "videos": [path]}, {"text": "B", "pixel_values": expected[1:]}, {"text": "C", "videos": []}]
    assert torch.equal(collate(mixed)["pixel_values"], expected)


def test_clips_of_unequal_length_get_a_mask(golden, model):
    collate = DataCollatorForVideoNarration(golden.interleaved)
    short = golden.interleaved.video_processor(golden.videos[0][:3])["pixel_values"]
    features = [feature_of(golden, [1]), {"text": QUESTION, "pixel_values": short, "text_target": NARRATIONS[2]}]
    batch = collate(features)
    assert batch["pixel_values"].shape[:2] == (2, 8)
    assert batch["frame_mask"].sum(1).tolist() == [8, 3]
    with torch.no_grad():
        losses = [model(**collate([feature])).loss.item() for feature in features]
        assert model(**batch).loss.item() == pytest.approx(sum(losses) / 2, abs=1e-4)


def test_frames_to_be_normalized_on_the_device(golden):
    """A quarter of the bytes, and the same batch to the bit."""
    features = [feature_of(golden, [0, 1]), feature_of(golden, [])]
    features += [{"text": QUESTION, "videos": [golden.videos[2][:3]], "text_target": NARRATIONS[2]}]
    expected = DataCollatorForVideoNarration(golden.interleaved)(features)
    batch = DataCollatorForVideoNarration(golden.interleaved, normalize=False)(features)
    assert batch["pixel_values"].dtype == torch.uint8 and batch["pixel_values"].shape == (3, 8, 3, 56, 56)
    normalized = golden.interleaved.video_processor.normalize_frames(batch.pop("pixel_values"))
    real = expected["frame_mask"]
    assert torch.equal(normalized[real], expected.pop("pixel_values")[real])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in batch)


def test_frames_that_are_not_normalized_are_not_trained_on(golden, model):
    batch = DataCollatorForVideoNarration(golden.interleaved, normalize=False)([feature_of(golden, [0])])
    with pytest.raises(ValueError, match="normalize_frames"):
        model(**batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clips_come_as_the_vision_models_output(golden, model, dtype):
    collate = DataCollatorForVideoNarration(golden.interleaved)
    features = [feature_of(golden, [0, 1]), feature_of(golden, []), feature_of(golden, [2])]
    batch = collate(features)
    with torch.no_grad():
        tokens = model.vision_model(batch["pixel_values"].flatten(0, 1)).last_hidden_state.unflatten(0, (3, 8))
        expected = model(**batch).loss.item()
    tokens = tokens.to(dtype)
    stored = [{name: value for name, value in feature.items() if name != "videos"} for feature in features]
    for feature, clips in zip(stored, ([tokens[0], tokens[1]], [], tokens[2:])):
        feature["vision_hidden_states"] = clips
    batch = collate(stored)
    assert "pixel_values" not in batch and "frame_mask" not in batch
    assert batch["vision_hidden_states"].dtype == dtype and torch.equal(batch["vision_hidden_states"], tokens)
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(expected, abs=1e-5 if dtype == torch.float32 else 2e-2)

    stored[2]["vision_hidden_states"] = [tokens[2, :3]]
    short = {**features[2], "videos": [golden.videos[2][:3]]}
    batch, expected = collate(stored), collate([*features[:2], short])
    assert torch.equal(batch["frame_mask"], expected["frame_mask"])
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(
            model(**expected).loss.item(), abs=1e-5 if dtype == torch.float32 else 2e-2
        )


def test_clips_of_two_kinds_in_a_batch_are_named(golden_opt):
    videos, floats = golden_opt.videos[:1], torch.zeros(1, 8, 3, 56, 56)
    frames = {"text": "A", "videos": videos}
    normalized, stored = {"text": "B", "pixel_values": floats}, {"text": "C", "vision_hidden_states": floats[:, :, 0]}
    collate = DataCollatorForVideoNarration(golden_opt.interleaved)
    as_they_are = DataCollatorForVideoNarration(golden_opt.interleaved, normalize=False)
    for call, features, message in [
        (collate, [frames, {"text": "D"}, stored], "Feature 2 has `vision_hidden_states`, but.*`pixel_values`"),
        (as_they_are, [frames, normalized], "Feature 1 has normalized `pixel_values`, but.*not to be normalized"),
        (collate, [{**stored, "videos": videos}], "Feature 0 has both `videos` and `vision_hidden_states`"),
        (collate, [{**stored, "vision_hidden_states": floats}], r"`vision_hidden_states` of a clip.*\(8, 3, 56, 56\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(features)


def test_features_are_left_as_they_are_and_hand_on_what_is_kept(golden):
    features = [{**feature_of(golden, [0, 1]), "frame_path": "a|0", "video_uid": "a"}]
    before = {name: list(value) if isinstance(value, list) else value for name, value in features[0].items()}
    collate = DataCollatorForVideoNarration(golden.interleaved, keep=("frame_path",))
    batch = collate(features)
    assert batch["frame_path"] == ["a|0"]
    assert "video_uid" not in batch
    assert all(features[0][name] is before[name] or features[0][name] == before[name] for name in before)
    assert collate(features)["input_ids"].tolist() == batch["input_ids"].tolist()
    plain = [{"text": [QUESTION], "videos": [golden.videos[0]]}]
    DataCollatorForVideoNarration(golden.interleaved)(plain)
    assert plain[0]["text"] == [QUESTION], "its clip in front is the batch's alone"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"videos": []}, "Feature 1 has 2 `<video>` in its text, but 0 clips"),
        ({"text": ["<video>A"]}, "Feature 1 has 1 `<video>` in its text, but 2 clips"),
        ({"text": None}, "Feature 1 has no `text`"),
        ({"text": []}, "Feature 1 has a `text` of no blocks"),
        ({"text_target": None}, "Feature 1 has no `text_target`, but feature 0 has one"),
        ({"pixel_values": []}, "Feature 1 has both"),
        ({"videos": None, "pixel_values": torch.zeros(2, 8, 3, 4, 4, dtype=torch.uint8)}, "Feature 1.*uint8"),
        ({"videos": None, "pixel_values": torch.zeros(2, 8, 3, 4)}, r"Feature 1.*\(8, 3, 4\)"),
    ],
)
def test_features_that_cannot_be_are_named(golden_opt, change, message):
    features = [feature_of(golden_opt, [0]), {**feature_of(golden_opt, [1, 2]), **change}]
    with pytest.raises(ValueError, match=message):
        DataCollatorForVideoNarration(golden_opt.interleaved)(features)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"padding_side": "middle"}, "middle"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of"),
        ({"keep": "frame_path"}, "keep"),
    ],
)
def test_settings_that_cannot_be_are_errors(golden_opt, settings, message):
    with pytest.raises(ValueError, match=message):
        DataCollatorForVideoNarration(golden_opt.interleaved, **settings)
    with pytest.raises(ValueError, match="at least one"):
        DataCollatorForVideoNarration(golden_opt.interleaved)([])


# ----------------------------------------------------------------------------------------- from actions to batches


def actions_of(golden, number):
    return [
        {
            "frame_path": f"v|{i}",
            "narration_text": f"#C C does {i}",
            "structured_verb": "ab"[i % 2],
            "structured_noun": "xyz"[i % 3],
            "frames": golden.videos[i % 3][:2],
        }
        for i in range(number)
    ]


def sampler_of(actions):
    words = [action["structured_verb"] for action in actions], [action["structured_noun"] for action in actions]
    return InContextSampler(*words, num_examples=2, seed=0)


def test_a_loader_with_workers_gives_the_batches_of_one_without(golden_opt):
    actions = actions_of(golden_opt, 12)
    collate = DataCollatorForVideoNarration(golden_opt.interleaved, keep=["frame_path", "in_context_frame_paths"])
    dataset = InContextDataset(actions, sampler_of(actions))
    batches = [list(DataLoader(dataset, batch_size=4, collate_fn=collate, num_workers=number)) for number in (0, 2)]
    assert len(batches[0]) == 3
    for one, other in zip(*batches, strict=True):
        assert one["frame_path"] == other["frame_path"]
        assert one["in_context_frame_paths"] == other["in_context_frame_paths"]
        for name in ("input_ids", "labels", "attention_mask", "pixel_values"):
            assert torch.equal(one[name], other[name])
        assert one["pixel_values"].shape[:2] == (12, 2)


def test_a_trainer_trains_with_them_and_draws_anew_in_every_epoch(golden_opt, tmp_path):
    """Contexts of the second epoch are others, and those of a run are those that the data set says."""
    model = copy.deepcopy(golden_opt.model)
    drawn = []

    class Recording(InContextDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            drawn.append((self.epoch, sample["frame_path"], sample["in_context_frame_paths"]))
            return sample

    actions = actions_of(golden_opt, 6)
    dataset = Recording(actions, sampler_of(actions))
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=3,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    collate = DataCollatorForVideoNarration(golden_opt.interleaved, pad_to_multiple_of=8)
    output = Trainer(model, arguments, train_dataset=dataset, data_collator=collate).train()
    assert output.global_step == 4 and output.training_loss > 0
    assert sorted(path for epoch, path, _ in drawn if epoch == 0) == sorted(path for epoch, path, _ in drawn if epoch)
    names = [action["frame_path"] for action in actions]
    for epoch, path, context in drawn:
        rows = dataset.sampler.sample(names.index(path), epoch)
        assert context == [names[row] for row in rows]
    assert {(path, *context) for epoch, path, context in drawn if epoch} != {
        (path, *context) for epoch, path, context in drawn if not epoch
    }
