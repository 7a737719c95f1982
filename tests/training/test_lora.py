"""LoRA: what it trains, that it learns, that what is saved is what is loaded by every door, and merging."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from safetensors.torch import load_file
from tiny_models import FAMILIES, VIDEO, inputs_of, tiny_config, tiny_model, training_inputs_of
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    Blip2ForConditionalGeneration,
    GenerationConfig,
    Trainer,
    TrainingArguments,
    pipeline,
)

from transformers_eilev import VideoBlip2Config, VideoBlip2ForConditionalGeneration
from transformers_eilev.training.lora import add_lora, load_lora, merge_lora, quantization_config


ALLOW = {"import_allowlist": ["transformers_eilev"]}
PRECISIONS = {
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "8bit": {"dtype": torch.float32, "quantization_config": quantization_config(load_in_8bit=True)},
    "4bit": {
        "dtype": torch.float32,
        "quantization_config": quantization_config(load_in_4bit=True, compute_dtype="float32"),
    },
}


def trained_names(model):
    return {name.removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad}


def train(model, num_steps=5, learning_rate=1e-2):
    """The loss before each step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], learning_rate)
    model.train()
    losses = []
    for _ in range(num_steps):
        loss = model(**training_inputs_of(model)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.no_grad()
def logits_of(model):
    return model(**training_inputs_of(model)).logits.float()


def close(actual, expected, tolerance=1e-5):
    """As a share of the largest."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


class Saved:
    """A small model of a family, an adapter that was trained on it, and what both give."""

    def __init__(self, family, path):
        self.family, self.base, self.adapter = family, path / "base", path / "adapter"
        model = tiny_model(family)
        model.generation_config = GenerationConfig(
            max_new_tokens=7, eos_token_id=1, pad_token_id=1, decoder_start_token_id=0
        )
        model.save_pretrained(self.base)
        self.base_logits = logits_of(model)
        trained = add_lora(self.load_base(), r=4)
        train(trained)
        self.logits = logits_of(trained)
        trained.save_pretrained(self.adapter)

    def load_base(self, **kwargs):
        return VideoBlip2ForConditionalGeneration.from_pretrained(self.base, **kwargs)


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    return Saved(request.param, tmp_path_factory.mktemp(request.param))


# What is trained


def test_recipe(saved):
    """Queries and values of the Q-Former and the language model get rank-r matrices; the projection is trained."""
    model = add_lora(saved.load_base(), r=4)
    names = trained_names(model)
    whole = {f"language_projection.modules_to_save.default.{name}" for name in ("weight", "bias")}
    ends = ("q_proj", "v_proj") if saved.family == "opt" else ("q", "v")
    layers = {
        name: module
        for name, module in saved.load_base().named_modules()
        if (name.startswith("language_model.") and name.split(".")[-1] in ends)
        or (name.startswith("qformer.") and name.split(".")[-1] in ("query", "value"))
    }
    assert names == whole | {f"{name}.lora_{side}.default.weight" for name in layers for side in "AB"}
    # OPT: 2 layers; T5: 3 encoder layers, and 2 of the decoder with two attentions; Q-Former: 2 layers, one crosses.
    assert len(layers) == 2 * ({"opt": 2, "flan-t5": 3 + 2 * 2}[saved.family] + 2 + 1)
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    expected = sum(4 * (layer.in_features + layer.out_features) for layer in layers.values()) + 32 * 32 + 32
    assert sum(sizes.values()) == expected
    # Beginning where the base is: one of the two matrices is zero.
    assert torch.equal(logits_of(model.eval()), saved.base_logits)


def test_everything_else_stays(saved):
    model = add_lora(saved.load_base(), r=4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in model.named_parameters() if p.requires_grad}
    assert "base_model.model.query_tokens" in before.keys() - changed


def test_own_recipe(saved):
    model = add_lora(saved.load_base(), r=2, target_modules=["query"], modules_to_save=[], use_rslora=True)
    names = trained_names(model)
    assert names and all(name.startswith("qformer.") and ".query.lora_" in name for name in names)
    model = add_lora(saved.load_base(), target_modules=r"qformer\..*\.key", modules_to_save=["qformer.layernorm"])
    assert {name.rpartition(".lora_")[0] for name in trained_names(model)} - {""} == {
        f"qformer.encoder.layer.{layer}.{attention}.attention.key"
        for layer, attention in ((0, "attention"), (0, "crossattention"), (1, "attention"))
    }


@pytest.mark.parametrize("saved", ["opt"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", ["qformer", "output.LayerNorm"])
def test_more_trained_whole(saved, dtype, part, tmp_path):
    model = add_lora(saved.load_base(dtype=dtype), r=4, modules_to_save=[part, "language_projection"])
    trained = trained_names(model)
    assert {name.split(".")[0] for name in trained} == {"qformer", "language_projection", "language_model"}
    assert part != "qformer" or not any(name.startswith("qformer") and "lora" in name for name in trained)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    losses = train(model)
    assert losses[-1] < 0.7 * losses[0]
    model.save_pretrained(tmp_path)
    loaded, learned = AutoModel.from_pretrained(tmp_path, dtype=dtype), logits_of(model)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    close(logits_of(loaded), learned, tolerance)
    merged = merge_lora(model)
    close(logits_of(merged), learned, tolerance)
    types = {name: p.dtype for name, p in saved.load_base(dtype=dtype).named_parameters()}
    assert {name: p.dtype for name, p in merged.named_parameters()} == types


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"target_modules": r"language_model\..*\.w_proj"}, r"`target_modules` has .*w_proj.* matches no module"),
        ({"target_modules": ["query", "qury"]}, "`target_modules` has 'qury', which matches no module"),
        (
            {"target_modules": r".*\.(qkv|query)"},
            r"matches vision_model\.encoder\.layers\.0\.self_attn\.qkv, .* frozen",
        ),
        ({"target_modules": ["fc1"]}, "of the vision model"),
        ({"modules_to_save": ["projection"]}, "of the vision model"),
        ({"modules_to_save": ["language_projections"]}, "`modules_to_save` has .*, which matches no module"),
        ({"modules_to_save": ["language_projection", "query_tokens"]}, "`query_tokens` can't be trained with LoRA"),
        ({"target_modules": "query_tokens"}, "`query_tokens` can't be trained with LoRA"),
        ({"target_parameters": ["model.query_tokens"]}, "`query_tokens` can't be trained with LoRA"),
        (
            {"target_modules": ["query"], "modules_to_save": ["qformer"]},
            "`target_modules` has 'query', which matches no",
        ),
        ({"r": 0}, "r"),
    ],
)
def test_bad_recipes(settings, message):
    model = tiny_model("opt")
    with pytest.raises(ValueError, match=message):
        add_lora(model, **settings)
    assert not any("lora" in name for name, _ in model.named_modules())


@pytest.mark.parametrize("saved", ["opt"], indirect=True)
def test_bad_models(saved):
    model = add_lora(saved.load_base(), r=4)
    for adapted in (model, model.get_base_model(), AutoModel.from_pretrained(saved.adapter)):
        with pytest.raises(ValueError, match="has an adapter already"):
            add_lora(adapted)
    with pytest.raises(TypeError, match="but is a Linear"):
        add_lora(torch.nn.Linear(2, 2))


def test_plain_blip_2_is_warned_of(tmp_path):
    """Transformers' auto classes know by the base alone which class an adapter is for."""
    config = {**tiny_config("opt").to_dict(), "model_type": "blip-2"}
    Blip2ForConditionalGeneration(Blip2ForConditionalGeneration.config_class.from_dict(config)).save_pretrained(
        tmp_path
    )
    with pytest.warns(UserWarning, match="a plain BLIP-2"):
        model = add_lora(VideoBlip2ForConditionalGeneration.from_pretrained(tmp_path), init_lora_weights=False)
    model.config.video_token_id = VIDEO
    model.save_pretrained(tmp_path / "adapter")
    assert type(AutoModel.from_pretrained(tmp_path / "adapter")) is not VideoBlip2ForConditionalGeneration
    loaded = load_lora(tmp_path / "adapter")
    loaded.config.video_token_id = VIDEO
    assert torch.equal(logits_of(loaded), logits_of(model.eval()))


# Learning


@pytest.mark.usefixtures("unpacked_4bit")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_learns(saved, precision, tmp_path):
    model = add_lora(saved.load_base(**PRECISIONS[precision]), r=4)
    types = {p.dtype for p in model.parameters() if p.requires_grad}
    assert types == {torch.float32}
    base = model.get_base_model()
    if precision.endswith("bit"):
        kinds = {type(layer).__name__ for layer in base.modules() if isinstance(layer, torch.nn.Linear)}
        assert kinds & {"Linear8bitLt", "Linear4bit"}
        whole = [base.qformer, base.language_projection, base.get_output_embeddings(), base.query_tokens]
        assert {p.dtype for part in whole for p in (part.parameters() if hasattr(part, "parameters") else [part])} == {
            torch.float32
        }
    losses = train(model)
    assert losses[-1] < 0.7 * losses[0], losses
    model.save_pretrained(tmp_path)
    again = load_lora(tmp_path, **PRECISIONS[precision])
    if precision in ("float32", "bfloat16"):
        assert again.dtype == PRECISIONS[precision]["dtype"]
    learned = logits_of(model)
    # In bfloat16 the projection, trained in float32, is rounded.
    close(logits_of(again), learned, 0 if precision == "float32" else 0.05)
    # And on it goes where it was.
    further = load_lora(tmp_path, is_trainable=True, **PRECISIONS[precision])
    assert trained_names(further) == trained_names(model)
    assert {p.dtype for p in further.parameters() if p.requires_grad} == {torch.float32}
    assert train(further, num_steps=2)[0] < 0.6 * losses[0]


def gradients(saved, use_reentrant):
    model = add_lora(saved.load_base(), r=4, lora_dropout=0.0, init_lora_weights=False).train()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.manual_seed(len(name))
            torch.nn.init.normal_(parameter, std=0.1)
    calls = []
    model.vision_model.encoder.layers[0].register_forward_pre_hook(lambda *args: calls.append("forward"))
    model.vision_model.encoder.layers[0].register_full_backward_hook(lambda *args: calls.append("backward"))
    if use_reentrant is not None:
        model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    model(**training_inputs_of(model)).loss.backward()
    assert calls == ["forward"]  # the backward pass leaves the frozen vision model out
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(saved, use_reentrant):
    expected, actual = gradients(saved, None), gradients(saved, use_reentrant)
    for name, gradient in expected.items():
        assert gradient is not None and gradient.abs().max() > 0, name
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_the_qformer_alone_learns_under_reentrant_checkpointing():
    """None of its inputs requires gradients then."""
    model = add_lora(tiny_model("opt"), target_modules=r"qformer\..*\.query", modules_to_save=[]).train()
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.get_video_features(inputs_of(model)["pixel_values"]).pooler_output.pow(2).sum().backward()
    grads = [p.grad for name, p in model.named_parameters() if "lora_B" in name]
    assert grads and all(grad is not None and grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize("saved", ["opt"], indirect=True)
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_projection_is_refused(saved, bits):
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    with pytest.raises(ValueError, match="'language_projection', which is quantized"):
        add_lora(saved.load_base(quantization_config=config))


def test_quantization_config():
    assert quantization_config() is None
    with pytest.raises(ValueError, match="both true"):
        quantization_config(load_in_8bit=True, load_in_4bit=True)
    assert quantization_config(load_in_4bit=True, compute_dtype="float16").bnb_4bit_compute_dtype == torch.float16


def test_size(golden_opt):
    """For OPT-2.7B, by shapes alone: 0.22% of the weights, and a file of 33 MB."""
    path = golden_opt.path.parent / "hub_configs" / "kpyu--eilev-blip2-opt-2.7b.config.json"
    config = VideoBlip2Config.from_dict(json.loads(path.read_text()))
    with torch.device("meta"):
        model = add_lora(VideoBlip2ForConditionalGeneration(config))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    r, opt, qformer, vision = 16, 2560, 768, 1408
    expected = 32 * 2 * r * (opt + opt)
    expected += 12 * 2 * r * (qformer + qformer) + 6 * r * (qformer + qformer) + 6 * r * (vision + qformer)
    expected += qformer * opt + opt
    assert trained == expected
    share = trained / (sum(p.numel() for p in model.parameters()) - (qformer * opt + opt) - trained)
    assert 0.00215 < share < 0.00225 and 32e6 < 4 * trained < 33e6


# Loading


DOORS = {
    "AutoPeftModel": lambda saved: AutoPeftModel.from_pretrained(saved.adapter, **ALLOW),
    "AutoModel": lambda saved: AutoModel.from_pretrained(saved.adapter),
    "AutoModelForImageTextToText": lambda saved: AutoModelForImageTextToText.from_pretrained(str(saved.adapter)),
    "the model's class": lambda saved: VideoBlip2ForConditionalGeneration.from_pretrained(saved.adapter),
    "PeftModel": lambda saved: PeftModel.from_pretrained(saved.load_base(), saved.adapter),
    "load_lora": lambda saved: load_lora(saved.adapter),
}


@pytest.mark.parametrize("door", DOORS)
def test_loads(saved, door):
    """No adapter is silently random, or not there."""
    loaded = DOORS[door](saved).eval()
    assert type(getattr(loaded, "base_model", loaded)).__module__.startswith(("peft.", "transformers_eilev."))
    assert torch.equal(logits_of(loaded), saved.logits)
    assert (logits_of(loaded) - saved.base_logits).abs().max() > 1
    assert loaded.generation_config.max_new_tokens == 7
    assert loaded.generate(**inputs_of(loaded)).shape[0] == 3


def test_peft_imports_the_module_only_if_it_may(saved):
    mapping = json.loads((saved.adapter / "adapter_config.json").read_text())["auto_mapping"]
    assert mapping == {
        "base_model_class": "VideoBlip2ForConditionalGeneration",
        "parent_library": "transformers_eilev.modeling_video_blip_2",
    }
    with pytest.raises(ValueError, match="import_allowlist"):
        AutoPeftModel.from_pretrained(saved.adapter)


@pytest.mark.parametrize("saved", ["opt"], indirect=True)
def test_fresh_process(saved, tmp_path):
    """`AutoPeftModel` imports this package by itself; the other classes know the model after it is imported."""
    torch.save(training_inputs_of(tiny_model(saved.family)), tmp_path / "inputs.pt")
    script = """
        import sys, torch
        from peft import AutoPeftModel
        adapter, path = sys.argv[1:]
        inputs = torch.load(f"{path}/inputs.pt")
        assert "transformers_eilev" not in sys.modules
        model = AutoPeftModel.from_pretrained(adapter, import_allowlist=["transformers_eilev"])
        logits = [model(**inputs).logits.detach()]
        import transformers_eilev
        from transformers import AutoModelForImageTextToText
        logits += [AutoModelForImageTextToText.from_pretrained(adapter)(**inputs).logits.detach()]
        torch.save(logits, f"{path}/logits.pt")
        """
    lines = "\n".join(line.strip() for line in script.split("\n"))
    done = subprocess.run(
        [sys.executable, "-c", lines, saved.adapter, tmp_path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for logits in torch.load(tmp_path / "logits.pt"):
        assert torch.equal(logits, saved.logits)


@pytest.fixture(scope="module")
def golden_adapter(golden, tmp_path_factory):
    """Over a checkpoint of the original's format, with its processor beside it."""
    path = tmp_path_factory.mktemp("golden")
    torch.manual_seed(0)
    model = VideoBlip2ForConditionalGeneration.from_pretrained(golden.checkpoint)
    model = add_lora(model, r=4, init_lora_weights=False).eval()
    model.save_pretrained(path)
    golden.interleaved.save_pretrained(path)
    return path, model


def test_legacy_bases(golden, golden_adapter):
    path, model = golden_adapter
    inputs = golden.interleaved(text="<video>Question: What? Answer:", videos=golden.videos[0])
    if golden.family == "t5":
        inputs["decoder_input_ids"] = torch.tensor([[0, 5, 6]])
    with torch.no_grad():
        expected = model(**inputs).logits
        assert not torch.allclose(golden.model(**inputs).logits, expected, atol=0.01)
        for loaded in (
            AutoPeftModel.from_pretrained(path, **ALLOW),
            AutoModel.from_pretrained(path),
            load_lora(path),
        ):
            assert torch.equal(loaded.eval()(**inputs).logits, expected)


def test_pipeline(golden, golden_adapter):
    path, model = golden_adapter
    settings = {"max_new_tokens": 5, "num_beams": 2, "do_sample": False}
    expected = pipeline("video-narration", model=model, processor=golden.interleaved)(golden.videos[0], **settings)
    narrate = pipeline("video-narration", model=str(path), processor=str(path))
    assert narrate(golden.videos[0], **settings) == expected
    assert narrate.processor.prompt_layout == "interleaved"
    plain = pipeline("video-narration", model=golden.model, processor=golden.interleaved)(golden.videos[0], **settings)
    assert plain != expected


def other_base(family, is_wide):
    config = tiny_config(family)
    text = config.text_config
    if is_wide:
        changes = {"opt": {"hidden_size": 48, "word_embed_proj_dim": 48}, "flan-t5": {"d_model": 48}}
    else:
        changes = {"opt": {"num_hidden_layers": 1}, "flan-t5": {"num_layers": 4}}
    for name, value in changes[family].items():
        setattr(text, name, value)
    return VideoBlip2ForConditionalGeneration(config)


def test_wider_bases_are_refused(saved, tmp_path):
    other_base(saved.family, is_wide=True).save_pretrained(tmp_path / "base")
    adapter = tmp_path / "adapter"
    shutil.copytree(saved.adapter, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": f"{tmp_path}/base"}))
    for load in (AutoModel.from_pretrained, lambda path: AutoPeftModel.from_pretrained(path, **ALLOW)):
        with pytest.raises(RuntimeError, match="mismatch"):
            load(adapter)
    for load in (load_lora, merge_lora):
        with pytest.raises(ValueError, match=r"The adapter in .* does not fit .*base: size mismatch for"):
            load(adapter)


def test_deeper_and_shallower_bases_are_refused(saved):
    with pytest.raises(ValueError, match="does not fit .* (has|lacks) .*lora_A"):
        load_lora(saved.adapter, base_model=other_base(saved.family, is_wide=False))
    other_family = {"opt": "flan-t5", "flan-t5": "opt"}[saved.family]
    with pytest.raises(ValueError, match=r"does not fit the model given: it has .* and lacks .*lora_A"):
        load_lora(saved.adapter, base_model=tiny_model(other_family))


def test_nameless_base(tmp_path):
    model = add_lora(tiny_model("opt"), init_lora_weights=False).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not name its model: give it as `base_model`"):
        merge_lora(tmp_path)
    assert torch.equal(logits_of(load_lora(tmp_path, base_model=tiny_model("opt"))), logits_of(model))


# With transformers' Trainer


class Batches(torch.utils.data.Dataset):
    """One text, its clips and its labels each."""

    def __init__(self, model):
        self.samples = [training_inputs_of(model, which=[index]) for index in (0, 1)] * 4

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def run_trainer(saved, path, resume=None):
    torch.manual_seed(1)
    model = add_lora(saved.load_base(), r=4, lora_dropout=0.2)
    arguments = TrainingArguments(
        output_dir=str(path),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=6,
        save_steps=3,
        eval_strategy="steps",
        eval_steps=3,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        activation_checkpointing=True,
        seed=5,
    )
    batches = Batches(model)
    trainer = Trainer(
        model, arguments, data_collator=lambda rows: rows[0], train_dataset=batches, eval_dataset=batches
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_trainer_resumes(saved, tmp_path):
    """Six steps end as the last three of them do; and what is saved at the end is what was evaluated."""
    whole = run_trainer(saved, tmp_path / "whole")
    resumed = run_trainer(saved, tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-3"))
    ends = [load_file(tmp_path / run / "checkpoint-6" / "adapter_model.safetensors") for run in ("whole", "resumed")]
    middle = load_file(tmp_path / "whole" / "checkpoint-3" / "adapter_model.safetensors")
    assert ends[0].keys() == ends[1].keys() == middle.keys()
    for name, weight in ends[0].items():
        assert torch.equal(ends[1][name], weight), name
    assert any(not torch.equal(middle[name], weight) for name, weight in ends[0].items())

    losses = [row["eval_loss"] for row in whole.state.log_history if "eval_loss" in row]
    assert losses[1] < losses[0]
    assert resumed.evaluate()["eval_loss"] == losses[1]
    whole.save_model(tmp_path / "final")
    loaded = load_lora(tmp_path / "final")
    again = Trainer(loaded, resumed.args, data_collator=lambda rows: rows[0], eval_dataset=Batches(loaded))
    assert again.evaluate()["eval_loss"] == pytest.approx(losses[1], abs=1e-6)
