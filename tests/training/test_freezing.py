import pytest
import torch
from tiny_models import FAMILIES, tiny_config, tiny_model, training_inputs_of
from torch.autograd.graph import saved_tensors_hooks

from transformers_eilev import VideoBlip2ForConditionalGeneration
from transformers_eilev.training import freeze


TRAINED = ("query_tokens", "qformer", "language_projection")


def saved_bytes(model, inputs):
    """What autograd keeps for the backward pass beside the weights, each storage once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**inputs).loss
    loss.backward()
    return sum(kept.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_qformers_side_learns(family):
    plain, model = tiny_model(family).train(), tiny_model(family).train()
    counts = freeze(model)
    inputs = training_inputs_of(model, which=(0, 1))
    all_kept, kept = saved_bytes(plain, inputs), saved_bytes(model, inputs)
    for name, parameter in model.named_parameters():
        if name.startswith(TRAINED):
            torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad)
        else:
            assert parameter.grad is None, name
    assert {part for part, (_, trained) in counts.items() if trained} == set(TRAINED)
    assert counts["vision_model"] == (plain.vision_model.num_parameters(), 0)
    assert kept < 0.75 * all_kept


def test_nothing_is_kept_of_the_vision_model():
    """It sees no gradient on its way in: its activations are as if it ran without autograd."""
    model = tiny_model("opt").train()
    freeze(model)
    inputs = training_inputs_of(model, which=(0, 1))
    clips = inputs.pop("pixel_values")
    with torch.no_grad():
        hidden = model.vision_model(clips.flatten(0, 1)).last_hidden_state.unflatten(0, clips.shape[:2])
    model.zero_grad()
    assert saved_bytes(model, {**inputs, "pixel_values": clips}) == saved_bytes(
        model, {**inputs, "vision_hidden_states": hidden}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_of_what_is_frozen(family):
    config = tiny_config(family)
    for name in ("dropout", "attention_dropout") if family == "opt" else ("dropout_rate",):
        setattr(config.text_config, name, 0.5)
    torch.manual_seed(0)
    model = VideoBlip2ForConditionalGeneration(config).train()
    inputs = training_inputs_of(model, which=(0, 1))

    def losses():
        return {model(**inputs).loss.item() for _ in range(3)}

    freeze(model)
    assert len(losses()) == 3
    freeze(model, frozen_dropout=False)
    assert len(losses()) == 1


def test_types():
    model = tiny_model("opt").to(torch.bfloat16)
    freeze(model, frozen_dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if name.startswith(TRAINED) else torch.bfloat16), name


def test_checkpointing_does_not_wake_the_vision_model():
    """It asks for gradients of what the embeddings of the frames give, and nothing before the Q-Former learns."""
    model = tiny_model("opt").train()
    freeze(model)
    inputs = training_inputs_of(model, which=(0, 1))
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    seen = []
    model.vision_model.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    model(**inputs).loss.backward()
    assert len(seen) == 1 and not seen[0].requires_grad
    model.vision_model.requires_grad_(True)
    model(**inputs).loss.backward()
    assert seen[1].requires_grad and all(p.grad is not None for p in model.vision_model.encoder.parameters())
