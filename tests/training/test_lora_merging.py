"""Adapters merged into their model: what that gives is what they gave, and a checkpoint like any other."""

# ruff: noqa: F811 (fixtures)

import copy
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_lora import PRECISIONS, close, golden_adapter, logits_of, saved, train, trained_names  # noqa: F401
from tiny_models import VIDEO
from transformers import AutoModel, pipeline

from transformers_eilev import VideoBlip2ForConditionalGeneration
from transformers_eilev.training.lora import add_lora, load_lora, merge_lora


MERGE_SCRIPT = Path(__file__).parents[2] / "examples" / "training" / "run_merge_lora.py"


def test_merge(saved, tmp_path):
    for merged in (merge_lora(saved.adapter), merge_lora(load_lora(saved.adapter, is_trainable=True))):
        assert type(merged) is VideoBlip2ForConditionalGeneration
        assert not any("lora" in name or "modules_to_save" in name for name, _ in merged.named_modules())
        assert merged.state_dict().keys() == saved.load_base().state_dict().keys()
        assert all(parameter.requires_grad for parameter in merged.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in merged.modules())
        close(logits_of(merged.eval()), saved.logits)
    # Whatever was not adapted is as it was, the head of Flan-T5 too.
    base, merged_weights = saved.load_base().state_dict(), merged.state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged_weights[name])}
    names = {
        name.partition(".lora_")[0].partition(".modules_to_save")[0]
        for name in trained_names(add_lora(saved.load_base()))
    }
    assert {name.rpartition(".")[0] for name in changed} == names

    merged.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    close(logits_of(loaded), saved.logits)
    assert loaded.generation_config.max_new_tokens == 7 and loaded.config.video_token_id == VIDEO
    is_tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert is_tied == (saved.family == "opt")


@pytest.mark.parametrize("saved", ["opt"], indirect=True)
@pytest.mark.parametrize("bits", [8, 4])
def test_merging_what_was_trained_quantized(saved, bits, tmp_path):
    """Into the full model: its weights, and the product of the matrices."""
    model = add_lora(saved.load_base(**PRECISIONS[f"{bits}bit"]), r=4, lora_alpha=6)
    train(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="The model is quantized"):
        merge_lora(model)
    merged = merge_lora(tmp_path)
    base, learned = saved.load_base().state_dict(), load_file(tmp_path / "adapter_model.safetensors")
    pairs = [name.removesuffix(".lora_A.weight") for name in learned if name.endswith(".lora_A.weight")]
    assert pairs
    for name in pairs:
        change = 6 / 4 * learned[f"{name}.lora_B.weight"] @ learned[f"{name}.lora_A.weight"]
        weight = f"{name.removeprefix('base_model.model.')}.weight"
        torch.testing.assert_close(merged.state_dict()[weight], base[weight] + change, rtol=0, atol=1e-6)
    assert torch.equal(merged.language_projection.weight, learned["base_model.model.language_projection.weight"])


@pytest.mark.parametrize("saved", ["opt"], indirect=True)
def test_merging_into_half_precision(saved):
    merged = merge_lora(saved.adapter, dtype="bfloat16")
    assert merged.dtype == merged.language_projection.weight.dtype == torch.bfloat16
    assert (logits_of(merged) - saved.logits).norm() < 0.1 * saved.logits.norm()
    trained = load_lora(saved.adapter, is_trainable=True, dtype=torch.bfloat16)
    assert merge_lora(trained).language_projection.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="are for a saved adapter"):
        merge_lora(load_lora(saved.adapter), dtype="bfloat16")


def test_merge_script(golden, golden_adapter, tmp_path, monkeypatch, capsys):
    path, model = golden_adapter
    adapter, output = tmp_path / "adapter", tmp_path / "merged"
    shutil.copytree(path, adapter)
    generation_config = copy.deepcopy(model.generation_config)
    generation_config.max_new_tokens = 9
    generation_config.save_pretrained(adapter)  # as a training may have set it
    monkeypatch.setattr(sys, "argv", ["run_merge_lora.py", str(adapter), str(output), "--dtype", "float32"])
    runpy.run_path(str(MERGE_SCRIPT), run_name="__main__")
    assert str(output) in capsys.readouterr().out
    narrate = pipeline("video-narration", model=str(output))
    assert narrate.processor.prompt_layout == "interleaved"
    assert narrate.model.generation_config.max_new_tokens == 9
    expected = pipeline("video-narration", model=model, processor=golden.interleaved)
    settings = {"max_new_tokens": 5, "num_beams": 2, "do_sample": False}
    assert narrate(golden.videos, **settings) == expected(golden.videos, **settings)
    # Beside the adapter, it would be applied again.
    monkeypatch.setattr(sys, "argv", ["run_merge_lora.py", str(adapter), str(adapter)])
    with pytest.raises(SystemExit, match="adapter holds an adapter, which would be applied to the model again"):
        runpy.run_path(str(MERGE_SCRIPT), run_name="__main__")
