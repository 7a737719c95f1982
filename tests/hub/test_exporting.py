"""Copies in today's format: every byte of every weight, and nothing that says more than the source did."""

import json
import shutil

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from transformers import AutoModelForImageTextToText, AutoProcessor, Blip2Config
from transformers.utils import logging
from typer.testing import CliRunner

from transformers_eilev import embedded_checkpoint
from transformers_eilev.commands.convert import convert
from transformers_eilev.commands.export import export
from transformers_eilev.hub import export_checkpoint
from transformers_eilev.hub.weight_files import select_weights
from transformers_eilev.training import add_lora


PROMPT = "<video>Question: What is the camera wearer doing? Answer:"


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def weights_in(folder):
    """As they are stored, read without transformers."""
    tensors = {}
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        tensors |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return tensors


def assert_same_bytes(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and actual[name].shape == tensor.shape, name
        assert torch.equal(actual[name].contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8)), name


def write_legacy(golden, folder, style):
    """A golden checkpoint with its weights in other files, one of them in half precision, another not contiguous."""
    shutil.copytree(golden.checkpoint, folder, ignore=shutil.ignore_patterns("*.bin", "*.safetensors", "*.bin.index*"))
    tensors = weights_in(golden.checkpoint)
    tensors["language_projection.weight"] = tensors["language_projection.weight"].half()
    tensors["qformer.embeddings.position_ids"] = torch.arange(4)[None]
    format, number = style
    if format == "bin":
        tensors["vision_model.encoder.layers.0.mlp.fc1.weight"] = (
            tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].t().contiguous().t()
        )
    stem, suffix = ("model", "safetensors") if format == "safetensors" else ("pytorch_model", "bin")
    names = sorted(tensors)
    weight_map = {}
    for part in range(number):
        middle = f"-{part + 1:05}-of-{number:05}" if number > 1 else ""
        shard = {name: tensors[name] for name in names[part::number]}
        weight_map |= dict.fromkeys(shard, f"{stem}{middle}.{suffix}")
        path = folder / f"{stem}{middle}.{suffix}"
        if format == "safetensors":
            save_file(shard, path, metadata={"format": "pt"})
        else:
            torch.save(shard, path, _use_new_zipfile_serialization=number > 1)
    if number > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return folder


@torch.no_grad()
def outputs_of(folder, golden):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor.pad([processor.encode(PROMPT)])
    inputs["pixel_values"] = golden.pixel_values[:1]
    decoder = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if model.config.is_encoder_decoder else {}
    torch.manual_seed(0)
    generated = model.generate(**inputs, max_new_tokens=6)
    return {"logits": model(**inputs, **decoder).logits, "generated": generated}, info, model, processor


@pytest.mark.parametrize("style", [("bin", 1), ("bin", 3), ("safetensors", 1), ("safetensors", 3)])
def test_converted_it_is_the_same(golden, style, tmp_path, caplog):
    old, new = write_legacy(golden, tmp_path / "old", style), tmp_path / "new"
    result = run(convert, old, new)
    assert result.exit_code == 0, result.output
    expected = weights_in(old)
    left_out = ["qformer.embeddings.position_ids"]
    left_out += ["language_model.lm_head.weight"] if golden.family == "opt" else []
    assert ", ".join(sorted(left_out)) in result.output
    assert_same_bytes(weights_in(new), {name: expected[name] for name in expected if name not in left_out})
    assert [path.name for path in new.iterdir() if path.suffix in (".bin", ".safetensors")] == ["model.safetensors"]

    logging.enable_propagation()
    try:
        before, _, legacy, legacy_processor = outputs_of(old, golden)
        assert "position_ids" in caplog.text  # transformers warns of what it has no use for
        caplog.clear()
        after, info, model, processor = outputs_of(new, golden)
    finally:
        logging.disable_propagation()
    assert not caplog.records and not any(info.values()), (caplog.records, info)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    assert model.dtype == legacy.dtype == torch.float32
    assert processor.prompt_layout == legacy_processor.prompt_layout
    assert processor.to_dict() == legacy_processor.to_dict()
    assert model.generation_config.to_diff_dict() == legacy.generation_config.to_diff_dict()


def test_the_other_files_are_those_that_transformers_saves(golden, tmp_path):
    export_checkpoint(golden.checkpoint, tmp_path / "new")
    AutoModelForImageTextToText.from_pretrained(golden.checkpoint).save_pretrained(tmp_path / "saved")
    AutoProcessor.from_pretrained(golden.checkpoint).save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    for name in names - {"model.safetensors"}:
        actual, expected = ((tmp_path / folder / name).read_text() for folder in ("new", "saved"))
        if name.endswith(".json"):
            actual, expected = json.loads(actual), json.loads(expected)
        assert actual == expected, name
    assert str(tmp_path.parent) not in "".join(path.read_text() for path in (tmp_path / "new").glob("*.json"))


def test_the_layout_that_is_said(golden_opt, tmp_path):
    """Its files were written by the version that wrote VideoBLIP's, and its name doesn't tell."""
    assert "VideoBLIP" in run(convert, golden_opt.checkpoint, tmp_path / "guessed").output
    result = run(convert, golden_opt.checkpoint, tmp_path / "said", "--prompt-layout", "interleaved")
    assert "EILEV" in result.output
    assert AutoProcessor.from_pretrained(tmp_path / "said").prompt_layout == "interleaved"
    generation = json.loads((tmp_path / "said" / "generation_config.json").read_text())
    assert generation["length_penalty"] == -1.0 and not generation["do_sample"]


def test_embedded_checkpoint_as_it_is(tmp_path):
    """Stored in half precision, computed with in float32."""
    result = run(export, "eilev-synthetic-opt", tmp_path / "new", "--max-shard-size", "1MB")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "new").glob("model-*-of-*.safetensors"))) > 2
    stored = load_file(f"{embedded_checkpoint()}/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert_same_bytes(weights_in(tmp_path / "new"), stored)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "new")
    assert loaded.dtype == torch.float32 and "rendered video" in loaded.config.notice
    assert (tmp_path / "new" / "README.md").read_text().startswith("---")


def test_code_goes_as_it_comes(tmp_path):
    export_checkpoint("eilev-synthetic-opt", tmp_path / "with", with_code=True)
    exported = export_checkpoint(tmp_path / "with", tmp_path / "without")
    plain = export_checkpoint("eilev-synthetic-opt", tmp_path / "plain")
    assert exported.files == plain.files
    for name in plain.files:
        assert (exported.folder / name).read_bytes() == (plain.folder / name).read_bytes(), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_type(dtype, golden, tmp_path):
    """The Q-Former, and what T5's feed-forward layers end with, overflow in half precision."""
    exported = export_checkpoint(golden.checkpoint, tmp_path / "new", dtype=dtype)
    weights, stored = weights_in(exported.folder), weights_in(golden.checkpoint)
    for name, tensor in weights.items():
        is_kept = name.startswith(("qformer.", "query_tokens")) or "DenseReluDense.wo." in name
        assert torch.equal(tensor, stored[name] if is_kept else stored[name].to(getattr(torch, dtype))), name
        assert tensor.dtype == (torch.float32 if is_kept else getattr(torch, dtype)), name
    loaded = AutoModelForImageTextToText.from_pretrained(exported.folder)
    reference = AutoModelForImageTextToText.from_pretrained(golden.checkpoint, dtype=getattr(torch, dtype))
    assert loaded.dtype == reference.dtype
    assert_same_bytes(loaded.state_dict(), reference.state_dict())


def test_a_target_with_files(golden_opt, tmp_path):
    target = tmp_path / "new"
    export_checkpoint("eilev-synthetic-opt", target, max_shard_size="1MB", with_code=True)
    (target / "checkpoint-5").mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=str(target)):
        export_checkpoint(golden_opt.checkpoint, target)
    result = run(convert, golden_opt.checkpoint, target)
    assert result.exit_code == 1 and str(target) in result.output and "--overwrite" in result.output
    result = run(convert, golden_opt.checkpoint, target, "--overwrite")
    assert result.exit_code == 0, result.output
    assert [path.name for path in target.glob("*.safetensors*")] == ["model.safetensors"]
    assert (target / "notes.txt").read_text() == "mine" and (target / "checkpoint-5").is_dir()
    loaded = AutoModelForImageTextToText.from_pretrained(target)
    assert_same_bytes(loaded.state_dict(), golden_opt.model.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_an_adapter_that_lay_there_is_not_applied(tmp_path):
    """transformers applies one that lies beside the weights, in silence."""
    target = tmp_path / "new"
    model = AutoModelForImageTextToText.from_pretrained(embedded_checkpoint())
    add_lora(model, r=2, lora_alpha=64, lora_dropout=0.0).save_pretrained(target)
    assert (target / "adapter_config.json").exists()
    export_checkpoint("eilev-synthetic-opt", target, overwrite=True)
    assert not list(target.glob("adapter*"))
    loaded = AutoModelForImageTextToText.from_pretrained(target)
    assert not hasattr(loaded, "peft_config")
    own = AutoModelForImageTextToText.from_pretrained(embedded_checkpoint())
    assert_same_bytes(loaded.state_dict(), own.state_dict())


def test_copies_of_tied_weights_that_are_none():
    model = tiny_model("opt")
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    head, embedding = "language_model.lm_head.weight", "language_model.model.decoder.embed_tokens.weight"
    assert select_weights(stored, model, "here").left_out == [head]
    selected = select_weights({**stored, head: stored[head] + 1}, model, "here")
    assert selected.left_out == [] and head in selected.tensors
    only_head = {name: tensor for name, tensor in stored.items() if name != embedding}
    assert head in select_weights(only_head, model, "here").tensors
    neither = {name: tensor for name, tensor in only_head.items() if name != head}
    with pytest.raises(ValueError, match=rf"here lacks .*{head}"):
        select_weights(neither, model, "here")


# What is wrong


def broken(golden, folder, **changes):
    shutil.copytree(golden.checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def refuse(source, target, match, error=ValueError, **options):
    with pytest.raises(error, match=match):
        export_checkpoint(source, target, **options)
    assert not target.exists() and not [path for path in target.parent.iterdir() if path.name.startswith(".")]


def test_sources_that_are_none(golden_t5, tmp_path):
    target = tmp_path / "new"
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", target, r"empty.*config\.json", FileNotFoundError)
    Blip2Config().save_pretrained(tmp_path / "blip-2")
    refuse(tmp_path / "blip-2", target, r"blip-2 is no checkpoint of EILEV.*'blip-2'")
    refuse(broken(golden_t5, tmp_path / "bert", model_type="bert"), target, r"bert is no checkpoint.*'bert'")
    refuse(broken(golden_t5, tmp_path / "wide", num_query_tokens=9), target, "wide.*query_tokens.*shape")
    refuse(broken(golden_t5, tmp_path / "int8", quantization_config={}), target, "int8 is quantized")
    refuse("nobody/nothing", target, "nobody/nothing", OSError)

    folder = broken(golden_t5, tmp_path / "lost")
    (folder / "model.safetensors").unlink()
    refuse(folder, target, "lost has no weights.*pytorch_model.bin", FileNotFoundError)
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    refuse(folder, target, r"lost.model\.safetensors can't be read")
    (folder / "tokenizer.json").unlink()
    refuse(folder, target, r"lost.*tokenizer\.json", FileNotFoundError)

    folder = broken(golden_t5, tmp_path / "adapter")
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "its/base"}')
    refuse(folder, target, r"adapter holds an adapter of its/base.*run_merge_lora\.py")


def test_shards_that_are_missing_or_more_than_tensors(golden_opt, tmp_path):
    folder, target = broken(golden_opt, tmp_path / "old"), tmp_path / "new"
    shard = folder / "pytorch_model-00002-of-00002.bin"
    content = shard.read_bytes()
    shard.unlink()
    refuse(folder, target, rf"index\.json names \['{shard.name}'\].*old", FileNotFoundError)

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "was_run"), "w")

    torch.save({"query_tokens": Evil()}, shard)
    refuse(folder, target, rf"{shard.name} can't be read")
    assert not (tmp_path / "was_run").exists()
    shard.write_bytes(content[: len(content) // 2])
    refuse(folder, target, rf"{shard.name} can't be read")
    torch.save({}, shard)
    refuse(folder, target, "old lacks weights of the model.* and .* more")


def test_targets_that_can_be_none(golden_t5, tmp_path):
    source = broken(golden_t5, tmp_path / "old")
    for target in (source, source / "inside", tmp_path / "other" / ".." / "old" / "inside"):
        with pytest.raises(ValueError, match="lies in the source"):
            export_checkpoint(source, target, overwrite=True)
    with pytest.raises(ValueError, match="lies in the target"):
        export_checkpoint(source, tmp_path, overwrite=True)
    assert sorted(path.name for path in source.iterdir()) == sorted(p.name for p in golden_t5.checkpoint.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        export_checkpoint(source, tmp_path / "file", overwrite=True)
    refuse(source, tmp_path / "new", "`dtype`.*'int8'", dtype="int8")
    refuse(source, tmp_path / "new", "`dtype`.*'nonsense'", dtype="nonsense")
    refuse(source, tmp_path / "new", "`prompt_layout`.*'upside'", prompt_layout="upside")


def test_the_commands_say_it_in_a_line(tmp_path):
    result = run(convert, "eilev-synthetic-opt", tmp_path / "new")
    assert result.exit_code == 1 and "today's format already" in result.output
    result = run(export, "eilev-synthetic-opt", tmp_path / "new", "--private")
    assert result.exit_code == 1 and "--push-to-hub" in result.output
    result = run(export, tmp_path / "nothing", tmp_path / "new")
    assert result.exit_code == 1 and "nothing" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "new").exists()
