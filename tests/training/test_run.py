"""Whole runs in this process: what they leave, and what they refuse to begin."""

import json
import math
import shlex
import shutil
import warnings
from concurrent.futures import Future
from pathlib import Path

import datasets
import pytest
import torch
from clip_stores import rows_of, write_annotations
from huggingface_hub import RepoUrl
from peft import AutoPeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from transformers_eilev import VideoBlip2ForConditionalGeneration
from transformers_eilev.data import ClipStoreWriter, load_clip_store, write_frame_folders
from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoBlipDataArguments,
    VideoNarrationTrainingArguments,
    extract_vision_features,
    load_lora,
    merge_lora,
    parse_arguments,
    run_training,
)
from transformers_eilev.training.callbacks import EpochSampler
from transformers_eilev.training.trainer import TrainingCollator


QUICK = shlex.split("""
    --max_steps 2 --per_device_train_batch_size 2 --per_device_eval_batch_size 4 --num_subsample_frames 2
    --learning_rate 1e-3 --logging_steps 1 --eval_strategy steps --eval_steps 1 --save_steps 1 --augment False
    --use_cpu --report_to none --disable_tqdm True
""")
TWO_EXAMPLES = ["--train_num_in_context_examples_per_sample", "2", "--val_num_in_context_examples_per_sample", "2"]


def arguments_of(data_class, checkpoint, clips, output_dir, *more):
    paths = ["--train_frames_dir", clips, "--val_frames_dir", clips, "--model_name_or_path", checkpoint]
    argv = [*paths, "--output_dir", output_dir, *QUICK, *more]
    return parse_arguments([ModelArguments, data_class, VideoNarrationTrainingArguments], [str(part) for part in argv])


def eilev(*arguments):
    checkpoint, clips, output_dir, *more = arguments
    return run_training(*arguments_of(EilevDataArguments, checkpoint, clips, output_dir, *TWO_EXAMPLES, *more))


def video_blip(checkpoint, clips, output_dir, *more):
    return run_training(*arguments_of(VideoBlipDataArguments, checkpoint, clips, output_dir, *more))


def log_of(output_dir):
    return json.loads((output_dir / "trainer_state.json").read_text())["log_history"]


def test_what_a_run_leaves(clip_store, golden, tmp_path):
    """A checkpoint that narrates through the pipeline, the best of those evaluated; what it cost is in the log."""
    metrics = eilev(golden.checkpoint, clip_store, tmp_path, "--save_total_limit", 1)
    log = log_of(tmp_path)
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert metrics["eval_loss"] == pytest.approx(min(losses.values()), rel=1e-6)
    for name in ("samples_per_second", "clips_per_second", "tokens_per_second", "peak_memory_gib", "grad_norm"):
        assert all(entry[name] > 0 for entry in log if "loss" in entry), name
    assert all(0 < entry["data_wait_share"] < 1 for entry in log if "loss" in entry)

    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    for name, parameter in model.named_parameters():
        is_trained = name.startswith(("qformer", "query_tokens", "language_projection"))
        before = golden.model.get_parameter(name)
        # The Q-Former has word embeddings' layers that no clip passes through in BLIP-2: none here.
        assert torch.equal(parameter, before) != is_trained or not parameter.abs().sum(), name
    narrate = pipeline("video-narration", model=str(tmp_path))
    assert narrate.processor.prompt_layout == "interleaved" and narrate.processor.video_processor.num_frames == 2
    assert model.generation_config.num_beams == 5 and model.generation_config.length_penalty == -1.0
    clip = golden.videos[0]
    assert narrate(clip, demonstrations=[(clip, "The camera wearer washes a cup.")], max_new_tokens=3)
    if golden.family == "opt":
        assert model.generation_config.eos_token_id == narrate.tokenizer.convert_tokens_to_ids("Ċ")
        assert model.config.text_config.eos_token_id == narrate.tokenizer.eos_token_id


def test_video_blip(clip_store, golden, tmp_path):
    """One clip, one question, the clip in front; with half precision and recomputed activations."""
    half = ["--bf16", "--activation_checkpointing", "--frozen_dtype", "bfloat16"]
    video_blip(golden.checkpoint, clip_store, tmp_path, *half)
    assert all(math.isfinite(entry["loss"]) for entry in log_of(tmp_path) if "loss" in entry)
    narrate = pipeline("video-narration", model=str(tmp_path))
    assert narrate.processor.prompt_layout == "prepended"
    assert narrate.model.generation_config.eos_token_id == narrate.tokenizer.eos_token_id
    # What is trained stays in full, what is frozen does not.
    types = {name.split(".")[0]: tensor.dtype for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    halves = {"vision_model": torch.bfloat16, "language_model": torch.bfloat16}
    assert types == dict.fromkeys(types, torch.float32) | halves


def test_evaluation_alone(clip_store, golden_opt, tmp_path):
    """The loss is that of all tokens together, whatever the batches."""
    before = {"--do_eval": None, "--eval_strategy": "no"}
    options = [part for pair in before.items() for part in pair if part is not None]
    one = eilev(golden_opt.checkpoint, clip_store, tmp_path / "1", *options, "--per_device_eval_batch_size", 1)
    four = eilev(golden_opt.checkpoint, clip_store, tmp_path / "4", *options)
    assert one["eval_loss"] == pytest.approx(four["eval_loss"], rel=1e-5)
    assert not (tmp_path / "1" / "model.safetensors").exists()


def test_frame_folders_train_as_a_store_does(clip_store, golden_opt, tmp_path):
    """The original's folders, with the flag of its VideoBLIP script, and the annotation apart from the frames."""
    for split in ("train", "val"):
        write_frame_folders(load_clip_store(clip_store, split=split), tmp_path / split)
    annotation = tmp_path / "annotation.csv"
    shutil.move(tmp_path / "train" / "narrated_actions.csv", annotation)
    paths = ["--train_narrated_actions_dir", tmp_path / "train", "--val_narrated_actions_dir", tmp_path / "val"]
    paths += ["--train_annotation_file", annotation]
    eilev(golden_opt.checkpoint, clip_store, tmp_path / "folders", *paths)
    eilev(golden_opt.checkpoint, clip_store, tmp_path / "store")
    losses = [[entry.get("loss") for entry in log_of(tmp_path / name)] for name in ("folders", "store")]
    assert losses[0] == losses[1]


def test_stored_features_train_as_frames_do(clip_store, golden, tmp_path):
    """The vision model's output read instead of frames: the same losses, and the vision model saved as it was."""
    processor = AutoProcessor.from_pretrained(golden.checkpoint)
    clips = [load_clip_store(clip_store, split=split) for split in ("train", "val")]
    extract_vision_features(
        golden.model,
        processor,
        datasets.concatenate_datasets(clips),
        tmp_path / "features",
        dtype=torch.float32,
        num_frames=2,
        progress=False,
    )
    eilev(golden.checkpoint, clip_store, tmp_path / "frames")
    eilev(golden.checkpoint, clip_store, tmp_path / "stored", "--vision_features_dir", tmp_path / "features")
    frames, stored = (
        [entry[name] for entry in log_of(tmp_path / run) for name in ("loss", "eval_loss") if name in entry]
        for run in ("frames", "stored")
    )
    assert len(frames) == 4 and stored == pytest.approx(frames, rel=1e-4)
    pipeline("video-narration", model=str(tmp_path / "stored"))(golden.videos[0], max_new_tokens=2)


@pytest.mark.parametrize("is_plain", [False, True], ids=["ours", "plain-blip-2"])
def test_lora(clip_store, golden_opt, tmp_path, is_plain):
    """An adapter that loads by every door with its processor and settings, whatever its base is."""
    base = golden_opt.checkpoint
    if is_plain:
        base = tmp_path / "base"
        shutil.copytree(golden_opt.checkpoint, base)
        config = json.loads((base / "config.json").read_text())
        config["architectures"] = ["Blip2ForConditionalGeneration"]
        (base / "config.json").write_text(json.dumps(config))
    adapter = tmp_path / "adapter"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        eilev(base, clip_store, adapter, "--use_lora", "--lora_r", "4", "--activation_checkpointing")
    assert not (adapter / "model.safetensors").exists()
    narrate = pipeline("video-narration", model=str(adapter))
    assert narrate.processor.prompt_layout == "interleaved" and narrate.processor.video_processor.num_frames == 2
    inputs = narrate.processor(videos=[golden_opt.videos[0]], text="What?")
    merged = merge_lora(adapter)
    doors = [
        narrate.model,
        AutoModelForImageTextToText.from_pretrained(adapter),
        AutoPeftModel.from_pretrained(adapter, import_allowlist=["transformers_eilev"]),
        load_lora(adapter),
        merged,
    ]
    with torch.no_grad():
        logits = [model.eval()(**inputs).logits.float() for model in doors]
        before = VideoBlip2ForConditionalGeneration.from_pretrained(base)(**inputs).logits
    for door, other in zip(doors, logits):
        torch.testing.assert_close(other, logits[0], rtol=1e-4, atol=1e-4, msg=lambda m, d=door: f"{type(d)}: {m}")
    assert (logits[0] - before).abs().max() > 1e-3
    for model in (narrate.model, merged):
        assert model.generation_config.num_beams == 5
        assert model.generation_config.eos_token_id == narrate.tokenizer.convert_tokens_to_ids("Ċ")


@pytest.mark.usefixtures("unpacked_4bit")
@pytest.mark.parametrize("bits", [8, 4])
def test_lora_over_few_bits(clip_store, golden_opt, tmp_path, bits):
    """What it learned belongs to the full weights as well: the adapter is merged into them."""
    eilev(golden_opt.checkpoint, clip_store, tmp_path, "--use_lora", "--lora_r", "4", f"--load_in_{bits}bit")
    assert all(math.isfinite(entry["loss"]) for entry in log_of(tmp_path) if "loss" in entry)
    merged, base = merge_lora(tmp_path), VideoBlip2ForConditionalGeneration.from_pretrained(golden_opt.checkpoint)
    assert merged.dtype == base.dtype
    for name in ("qformer.encoder.layer.0.attention.attention.query.weight", "language_projection.weight"):
        assert not torch.equal(merged.get_parameter(name), base.get_parameter(name)), name


def test_compiled(clip_store, golden_opt, tmp_path):
    """The graph is cut nowhere that would change the loss."""
    compiled = ["--torch_compile", "True", "--torch_compile_backend", "eager"]
    eilev(golden_opt.checkpoint, clip_store, tmp_path / "compiled", *compiled, "--frozen_dropout", "False")
    eilev(golden_opt.checkpoint, clip_store, tmp_path / "plain", "--frozen_dropout", "False")
    losses = [[entry["loss"] for entry in log_of(tmp_path / n) if "loss" in entry] for n in ("compiled", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_run_that_is_pushed(clip_store, golden_opt, tmp_path, monkeypatch):
    """The model, its processor and a card, with every checkpoint and at the end; no server is asked."""
    pushed = []

    class Hub:
        def create_repo(self, name, **kwargs):
            return RepoUrl(f"https://huggingface.co/someone/{name}")

        def upload_folder(self, repo_id, folder_path, commit_message, run_as_future=False, **kwargs):
            pushed.append((repo_id, commit_message, {path.name for path in Path(folder_path).iterdir()}))
            done = Future()
            done.set_result(None)
            return done

    monkeypatch.setattr("transformers.trainer.hf_api", Hub)
    output_dir = tmp_path / "narrator"
    eilev(golden_opt.checkpoint, clip_store, output_dir, "--push_to_hub")
    assert [message for _, message, _ in pushed][-1] == "Model save" and len(pushed) == 3
    for repo_id, _, files in pushed:
        assert repo_id == "someone/narrator"
        assert {"model.safetensors", "config.json", "processor_config.json", "tokenizer.json"} <= files
    assert "README.md" in pushed[-1][2]


def test_a_run_at_its_end_is_not_gone_on_with(clip_store, golden_opt, tmp_path):
    """By the same command, as a job that is put into the queue again does."""
    resume = ["--resume_from_checkpoint", "last"]
    metrics = [eilev(golden_opt.checkpoint, clip_store, tmp_path, *resume)]
    log, weights = log_of(tmp_path), (tmp_path / "model.safetensors").read_bytes()
    train_results = (tmp_path / "train_results.json").read_text()
    metrics.append(eilev(golden_opt.checkpoint, clip_store, tmp_path, *resume))
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert [e for e in log_of(tmp_path) if "loss" in e] == [e for e in log if "loss" in e]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    assert (tmp_path / "train_results.json").read_text() == train_results
    assert metrics[0]["eval_loss"] == metrics[1]["eval_loss"]


def test_resuming_from_a_checkpoint_that_is_deleted_meanwhile(clip_store, golden_opt, tmp_path):
    """As all but the last ones are, by `save_total_limit`."""
    options = ["--eval_strategy", "no"]
    eilev(golden_opt.checkpoint, clip_store, tmp_path, *options)
    shutil.rmtree(tmp_path / "checkpoint-2")
    options += ["--resume_from_checkpoint", "last", "--save_total_limit", "1"]
    eilev(golden_opt.checkpoint, clip_store, tmp_path, *options)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_evaluations_are_of_the_same_contexts(clip_store, golden_opt, tmp_path):
    """Whatever the loader does with its workers between them."""
    workers = ["--dataloader_num_workers", "1", "--dataloader_persistent_workers", "True", "--learning_rate", "0"]
    eilev(golden_opt.checkpoint, clip_store, tmp_path, *workers)
    losses = [entry["eval_loss"] for entry in log_of(tmp_path) if "eval_loss" in entry]
    assert len(losses) >= 2 and len(set(losses)) == 1


def test_a_repeated_sample_teaches_nothing(golden):
    features = [{"text": "What?", "text_target": "This.", "videos": [golden.videos[0]]}] * 2
    collate = TrainingCollator(golden.interleaved)
    once, twice = collate(features[:1]), collate([features[0], {**features[1], "is_repeated": True}])
    assert (twice["labels"][0] == once["labels"][0]).all() and (twice["labels"][1] == -100).all()
    assert twice.get("logits_to_keep") == once.get("logits_to_keep")
    with torch.no_grad():
        losses = [golden.model(**batch, num_items_in_batch=torch.tensor(4.0)).loss for batch in (once, twice)]
    torch.testing.assert_close(*losses)
    assert collate([{**features[0], "is_repeated": True}]).get("logits_to_keep") in (None, 2)


def test_order_of_samples():
    sampler = EpochSampler(13, seed=3, multiple=8)
    first = list(sampler)
    assert sorted(first[:13]) == list(range(13)) and [-1 - i for i in first[13:]] == first[:3] and len(sampler) == 16
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


# What is refused at the start, before any weight is loaded or any step is made


def refused(run, message, *arguments):
    with pytest.raises(ValueError, match=message) as caught:
        run(*arguments)
    return str(caught.value)


def test_clips_that_are_not_there(clip_store, golden_opt, tmp_path):
    rows = [*rows_of("train", 16), *rows_of("elsewhere", 3)]
    annotation = ["--train_annotation_file", write_annotations(tmp_path / "all.csv", rows)]
    message = refused(eilev, "3 of the 19 clips", golden_opt.checkpoint, clip_store, tmp_path / "run", *annotation)
    assert "elsewhere_video_0|0" in message and "all.csv" in message
    with pytest.warns(UserWarning, match="3 of the 19 clips"):
        eilev(golden_opt.checkpoint, clip_store, tmp_path / "run", *annotation, "--skip_missing_clips")

    write_frame_folders(load_clip_store(clip_store, split="train"), tmp_path / "folders")
    shutil.rmtree(tmp_path / "folders" / "train_video_0|0")
    folders = ["--train_frames_dir", tmp_path / "folders"]
    assert "1 rows" in refused(eilev, r"train_video_0\|0", golden_opt.checkpoint, clip_store, tmp_path / "x", *folders)


def test_a_split_file_of_other_videos(clip_store, golden_opt, tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"split": "train", "videos": {"unknown": 3, "other": 1}}))
    option = ["--train_split_file", path]
    message = refused(eilev, "other videos", golden_opt.checkpoint, clip_store, tmp_path / "run", *option)
    assert "its 2 videos" in message and "16 clips" in message and str(path) in message
    path.write_text(json.dumps({"split": "train", "videos": {"train_video_0": 4, "train_video_1": 4}}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        eilev(golden_opt.checkpoint, clip_store, tmp_path / "run", *option)
    assert json.loads((tmp_path / "run" / "_training_run.json").read_text())["num_train_samples"] == 8


@pytest.mark.parametrize("which", ["train", "val"])
def test_more_examples_than_clips(clip_store, golden_opt, tmp_path, which):
    option = [f"--{which}_num_in_context_examples_per_sample", "17"]
    message = refused(eilev, "17 examples", golden_opt.checkpoint, clip_store, tmp_path, *option)
    assert "16 clips" in message


def test_narrations_without_a_word(clip_store, golden_opt, tmp_path):
    rows = list(rows_of("train", 16))
    rows[3]["narration_text"] = "<|eos|>"
    option = ["--train_annotation_file", write_annotations(tmp_path / "silent.csv", rows)]
    message = refused(eilev, "1 of the 16 clips", golden_opt.checkpoint, clip_store, tmp_path, *option)
    assert rows[3]["frame_path"] in message


def test_a_checkpoint_of_another_architecture(clip_store, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    assert "GPT2LMHeadModel" in refused(eilev, "'gpt2'", tmp_path, clip_store, tmp_path / "run")


def test_a_run_that_is_another(clip_store, golden_opt, tmp_path):
    eilev(golden_opt.checkpoint, clip_store, tmp_path)
    assert "checkpoint-2" in refused(eilev, "holds a run", golden_opt.checkpoint, clip_store, tmp_path)
    resume = ["--resume_from_checkpoint", "last"]
    message = refused(eilev, "another", golden_opt.checkpoint, clip_store, tmp_path, *resume, "--seed", "1")
    assert "`seed` was 42 and is 1" in message
    message = refused(eilev, "whole", golden_opt.checkpoint, clip_store, tmp_path, resume[0], tmp_path / "nowhere")
    assert "nowhere" in message


def test_samples_that_are_others(clip_store, golden_opt, tmp_path):
    """As many, under the same names."""
    rows = list(rows_of("train", 16))
    option = ["--train_annotation_file", write_annotations(tmp_path / "rows.csv", rows)]
    eilev(golden_opt.checkpoint, clip_store, tmp_path / "run", *option)
    rows[5]["structured_verb"] = "burn"
    write_annotations(tmp_path / "rows.csv", rows)
    resume = ["--resume_from_checkpoint", "last"]
    refused(eilev, "train_samples_sha256", golden_opt.checkpoint, clip_store, tmp_path / "run", *option, *resume)


def test_checkpoints_that_cannot_be_gone_on_from(clip_store, golden_opt, tmp_path):
    eilev(golden_opt.checkpoint, clip_store, tmp_path)
    (tmp_path / "checkpoint-2" / "optimizer.pt").write_bytes(b"cut")
    wanted = ["--resume_from_checkpoint", tmp_path / "checkpoint-2"]
    assert "optimizer.pt is cut off" in refused(eilev, "whole", golden_opt.checkpoint, clip_store, tmp_path, *wanted)
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / "kept" / "best")
    eilev(golden_opt.checkpoint, clip_store, tmp_path, wanted[0], tmp_path / "kept" / "best")
    for path in tmp_path.glob("checkpoint-*"):
        shutil.rmtree(path)
    refused(eilev, "holds a run", golden_opt.checkpoint, clip_store, tmp_path)
    options = ["--save_only_model", "True", "--resume_from_checkpoint", "last"]
    refused(eilev, "save_only_model", golden_opt.checkpoint, clip_store, tmp_path / "other", *options)


def test_an_adapter_is_no_start(clip_store, golden_opt, tmp_path):
    eilev(golden_opt.checkpoint, clip_store, tmp_path / "adapter", "--use_lora", "--lora_r", "2")
    assert "run_merge_lora" in refused(eilev, "adapter", tmp_path / "adapter", clip_store, tmp_path / "run")
    evaluated = eilev(tmp_path / "adapter", clip_store, tmp_path / "run", "--do_eval", "--eval_strategy", "no")
    results = json.loads((tmp_path / "adapter" / "eval_results.json").read_text())
    assert evaluated["eval_loss"] == pytest.approx(results["eval_loss"], rel=1e-5)


def test_clips_without_frames(golden_opt, tmp_path):
    (tmp_path / "clips" / "data").mkdir(parents=True)
    for split in ("train", "val"):
        with ClipStoreWriter(tmp_path / "clips" / "data" / f"{split}-00000.parquet") as writer:
            for index, row in enumerate(rows_of(split, 4)):
                frames = torch.zeros(0 if split == "train" and index == 2 else 2, 3, 8, 8, dtype=torch.uint8)
                writer.write(row, frames, frame_sec=[0.0] * len(frames))
    message = refused(eilev, "1 of the 4 clips", golden_opt.checkpoint, tmp_path / "clips", tmp_path / "run")
    assert "no frames" in message and "train_video_0|2" in message


def test_more_text_than_the_language_model_has_room_for(clip_store, golden_opt, tmp_path):
    rows = list(rows_of("train", 16))
    for row in rows:
        row["narration_text"] += " again and again" * 60
    option = ["--train_annotation_file", write_annotations(tmp_path / "long.csv", rows)]
    option += ["--train_num_in_context_examples_per_sample", "15"]
    assert "2048" in refused(eilev, "15 examples", golden_opt.checkpoint, clip_store, tmp_path / "run", *option)


def test_halves_that_do_not_meet(clip_store, golden_opt, tmp_path):
    refused(eilev, "`bf16`", golden_opt.checkpoint, clip_store, tmp_path, "--frozen_dtype", "bfloat16")
    refused(eilev, "`fp16`", golden_opt.checkpoint, clip_store, tmp_path, "--frozen_dtype", "float16", "--bf16")


def test_nothing_to_evaluate_on(clip_store, golden_opt, tmp_path):
    arguments = arguments_of(EilevDataArguments, golden_opt.checkpoint, clip_store, tmp_path, *TWO_EXAMPLES)
    arguments[1].val_frames_dir = None
    with pytest.raises(ValueError, match="val_frames_dir"):
        run_training(*arguments)
