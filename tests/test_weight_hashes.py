"""Hashes of weights: the same for the same, and of what has changed taken again, however it was changed."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import clips_of, tiny_model
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from transformers_eilev import embedded_checkpoint, weight_hashes
from transformers_eilev.weight_hashes import PartsHash, hash_weights


PARTS = ("vision_model", "query_tokens", "qformer", "language_projection")


def parts_of(model):
    return {name: getattr(model, name) for name in PARTS}


@pytest.fixture
def model():
    return tiny_model("opt")


@pytest.fixture
def hashed(monkeypatch):
    """The names of the tensors that were hashed."""
    names = []
    original = weight_hashes.hash_weights

    def spy(weights):
        names.extend(name for name, _ in weights)
        return original(weights)

    monkeypatch.setattr(weight_hashes, "hash_weights", spy)
    return names


# ------------------------------------------------------------------------------------------------------------- tensors


def test_names_shapes_types_and_values_count():
    numbers = torch.arange(12.0)
    others = [
        [("a", numbers)],
        [("b", numbers)],
        [("a", numbers.view(3, 4))],
        [("a", numbers.half())],
        [("a", -numbers)],
        [("a", numbers[:1]), ("b", numbers[1:])],
        [("a", numbers[0])],
        [("a", numbers[:0])],
        [("a", numbers.bool())],
        [],
    ]
    assert len({hash_weights(weights) for weights in others}) == len(others)
    assert hash_weights([("a", numbers.view(3, 4).T.contiguous().T)]) == hash_weights([("a", numbers.view(3, 4))])
    assert hash_weights([("a", torch.nn.Parameter(numbers[::2]))]) == hash_weights([("a", numbers[::2].clone())])


def test_rounded_to_one_type_they_are_the_same():
    numbers = torch.randn(100)
    rounded = {hash_weights([("a", each)], torch.bfloat16) for each in (numbers, numbers.bfloat16(), numbers.double())}
    assert len(rounded) == 1
    assert rounded != {hash_weights([("a", numbers)], torch.float16)}


def test_weights_that_are_not_in_memory_are_refused(model):
    model.qformer.to("meta")
    with pytest.raises(ValueError, match=r"qformer\.\S+ is not in memory but offloaded"):
        PartsHash()(parts_of(model))
    with pytest.raises(ValueError, match="^a is not in memory"):
        hash_weights([("a", torch.zeros(2, device="meta"))])


# --------------------------------------------------------------------------------------------------------------- parts


def test_they_are_hashed_once(model, hashed):
    parts_hash = PartsHash()
    first = parts_hash(parts_of(model))
    once = list(hashed)
    assert len(once) == len(set(once)) and {name.split(".")[0] for name in once} == set(PARTS)
    model.train().requires_grad_(False)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    assert parts_hash(parts_of(model)) == first and hashed == once
    assert PartsHash()(parts_of(copy.deepcopy(model))) == first
    assert PartsHash()(parts_of(tiny_model("opt", seed=1))) != first


def test_what_may_have_changed_is_hashed_again(model, hashed):
    parts_hash = PartsHash()
    first = parts_hash(parts_of(model))
    once = list(hashed)
    model.load_state_dict(model.state_dict())
    assert parts_hash(parts_of(model)) == first and hashed == 2 * once, "it has not"


def optimize(model, optimizer_class, **settings):
    optimizer = optimizer_class(model.qformer.parameters(), lr=1e-5, **settings)
    model.get_video_features(clips_of(2)).pooler_output.square().mean().backward()
    optimizer.step()


def replace_queries(model):
    model.query_tokens = torch.nn.Parameter(model.query_tokens.detach() + 1)


@torch.no_grad()
def change_one_value(model):
    model.qformer.encoder.layer[0].attention.attention.query.weight[5, 7] += 1e-3


CHANGES = {
    "adamw": lambda model: optimize(model, torch.optim.AdamW),
    "foreach": lambda model: optimize(model, torch.optim.AdamW, foreach=True),
    "fused": lambda model: optimize(model, torch.optim.AdamW, fused=True),
    "fused sgd": lambda model: optimize(model, torch.optim.SGD, fused=True),
    "load_state_dict": lambda model: model.load_state_dict(tiny_model("opt", seed=1).state_dict()),
    "another parameter": replace_queries,
    "one value": change_one_value,
    "through data": lambda model: model.qformer.layernorm.weight.data.mul_(1.1),
    "other data": lambda model: setattr(model.language_projection.bias, "data", torch.ones(32)),
    "a type": lambda model: model.to(torch.bfloat16),
    "the vision model": lambda model: model.vision_model.post_layernorm.weight.data.mul_(1.1),
    "a buffer": lambda model: model.vision_model.register_buffer("shift", torch.ones(2), persistent=False),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_noticed(model, change):
    parts_hash = PartsHash()
    first = parts_hash(parts_of(model))
    change(model)
    second = parts_hash(parts_of(model))
    assert second != first and second == PartsHash()(parts_of(model))


def test_weights_that_were_made_in_inference_mode():
    with torch.inference_mode():
        model = tiny_model("opt")
    parts_hash = PartsHash()
    assert parts_hash(parts_of(model)) == PartsHash()(parts_of(tiny_model("opt")))
    with torch.inference_mode():
        model.query_tokens.add_(1)
    assert parts_hash(parts_of(model)) != PartsHash()(parts_of(tiny_model("opt")))


# ------------------------------------------------------------------------------------------------------------ adapters


def adapted(targets=r"qformer\..*\.(query|value)"):
    """With an adapter that says something, and a second one."""
    torch.manual_seed(0)
    settings = {"target_modules": targets, "modules_to_save": ["language_projection"], "init_lora_weights": False}
    model = get_peft_model(tiny_model("opt"), LoraConfig(**settings))
    model.add_adapter("second", LoraConfig(lora_alpha=16, **settings))
    return model


def rescale(model):
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 0.5)


def merge_and_unmerge(model):
    model.merge_adapter()
    model.unmerge_adapter()


ADAPTER_CHANGES = {
    "disabled": lambda model: model.base_model.disable_adapter_layers(),
    "scaled": rescale,
    "second": lambda model: model.set_adapter("second"),
    "merged": lambda model: model.merge_adapter(),
    "merged and back": merge_and_unmerge,  # which rounds
    "unloaded": lambda model: model.merge_and_unload(),
}


@pytest.mark.parametrize("change", ADAPTER_CHANGES.values(), ids=ADAPTER_CHANGES)
def test_changes_of_adapters_are_noticed(change):
    model, parts_hash = adapted(), PartsHash()
    first = parts_hash(parts_of(model))
    assert first == PartsHash()(parts_of(adapted()))
    change(model)
    second = parts_hash(parts_of(model))
    assert second != first and second == PartsHash()(parts_of(model))


def test_what_was_before_is_known_again():
    model, parts_hash = adapted(), PartsHash()
    first = parts_hash(parts_of(model))
    with model.disable_adapter():
        disabled = parts_hash(parts_of(model))
    model.set_adapter("second")
    second = parts_hash(parts_of(model))
    model.set_adapter("default")
    assert parts_hash(parts_of(model)) == first and len({first, disabled, second}) == 3


def test_adapters_elsewhere_are_none_of_its(model):
    first = PartsHash()(parts_of(model))
    elsewhere = get_peft_model(model, LoraConfig(target_modules=r"language_model\..*\.(q_proj|v_proj)"))
    assert PartsHash()(parts_of(elsewhere)) == first


# -------------------------------------------------------------------------------------------------------- quantization


@pytest.mark.parametrize(
    "settings",
    [{"load_in_8bit": True}, {"load_in_4bit": True}, {"load_in_4bit": True, "bnb_4bit_use_double_quant": True}],
    ids=["8bit", "4bit", "4bit twice"],
)
def test_quantized_weights(settings):
    """With what they are scaled by, and unharmed by it."""
    model = AutoModelForImageTextToText.from_pretrained(
        embedded_checkpoint(), quantization_config=BitsAndBytesConfig(**settings), device_map="cpu"
    )
    size = model.config.vision_config.image_size
    pixel_values = torch.randn(1, 1, 3, size, size, generator=torch.Generator().manual_seed(0))
    layer = model.vision_model.encoder.layers[0].mlp.fc1
    hashes = []
    for _ in range(2):
        hashes.append(PartsHash()(parts_of(model)))
        scales = layer.weight.quant_state.absmax if "load_in_4bit" in settings else layer.weight.SCB
        before = scales.clone()
        scales.add_(1)
        hashes.append(PartsHash()(parts_of(model)))
        scales.copy_(before)
    assert hashes[:2] == hashes[2:] and hashes[0] != hashes[1]
    with torch.no_grad():
        features = [model.get_video_features(pixel_values).pooler_output for _ in range(2)]
        first = PartsHash()(parts_of(model))
        features.append(model.get_video_features(pixel_values).pooler_output)
    assert torch.equal(features[0], features[1]) and torch.equal(features[1], features[2])
    assert PartsHash()(parts_of(model)) == first
