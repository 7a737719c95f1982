"""What makes a training cheaper and must not change it: a loss of fewer logits, clips as the vision model's output."""

import pytest
import torch
from test_modeling import close, close_gradients, gradients
from tiny_models import FAMILIES, NUM_QUERIES, VOCAB_SIZE, inputs_of, tiny_model, training_inputs_of


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("num_items_in_batch", [None, 24])
def test_loss_of_the_positions_that_are_kept(model, padding_side, num_items_in_batch):
    """The head may be left out where nothing is to be learnt: same loss, same gradients."""
    inputs = training_inputs_of(model)
    if padding_side == "left" and not model.config.is_encoder_decoder:
        last_to_first = inputs["attention_mask"].argsort(dim=1, stable=True)
        names = ("input_ids", "attention_mask", "labels")
        inputs |= {name: inputs[name].gather(1, last_to_first) for name in names}
    inputs["num_items_in_batch"] = num_items_in_batch
    loss, expected = gradients(model, **inputs)
    labels = inputs["labels"]
    first = (labels != -100).any(0).nonzero().min().item()
    # The position before the first label, too: it is the one that predicts it.
    needed = labels.shape[1] if model.config.is_encoder_decoder else labels.shape[1] - first + 1
    predicts = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100) != -100
    keeps = [needed, needed + 1, 1000, torch.arange(first - 1, labels.shape[1]), predicts]
    for keep in keeps[:1] if model.config.is_encoder_decoder else keeps:
        actual_loss, actual = gradients(model, **inputs, logits_to_keep=keep)
        close(actual_loss, loss, atol=1e-6)
        close_gradients(actual, expected)
    logits = model(**inputs, logits_to_keep=needed).logits
    assert logits.shape == (3, needed, VOCAB_SIZE)


@torch.no_grad()
def test_loss_of_fewer_positions_than_have_labels():
    """What the last position alone predicts is nothing; the last two predict the last label of each text."""
    model = tiny_model("opt")
    inputs = training_inputs_of(model)
    log_probs = model(**inputs).logits.log_softmax(-1)
    labels = inputs["labels"]
    last = [(row, -2, label) for row, label in enumerate(labels[:, -1].tolist()) if label != -100]
    assert last
    expected = -sum(log_probs[token] for token in last) / len(last)
    close(model(**inputs, logits_to_keep=2).loss, expected)


@torch.no_grad()
@pytest.mark.parametrize("keep", [1, 2])
def test_an_encoder_decoder_loses_no_label(keep):
    model = tiny_model("flan-t5")
    inputs = training_inputs_of(model)
    outputs = model(**inputs, logits_to_keep=keep)
    close(outputs.loss, model(**inputs).loss)
    assert outputs.logits.shape[1] == keep


def test_stored_output_of_the_vision_model(model):
    """In place of the clips: same loss, same gradients of all but the vision model, which is not run."""
    inputs = training_inputs_of(model)
    inputs["frame_mask"] = torch.tensor([[True, True], [True, False], [True, True]])
    model.vision_model.requires_grad_(False)
    loss, expected = gradients(model, **inputs)
    pixel_values = inputs.pop("pixel_values")
    with torch.no_grad():
        stored = model.vision_model(pixel_values.flatten(0, 1)).last_hidden_state.unflatten(0, (3, 2))
    model.vision_model.register_forward_pre_hook(lambda *_: pytest.fail("the vision model is run"))
    actual_loss, actual = gradients(model, **inputs, vision_hidden_states=stored)
    torch.testing.assert_close(actual_loss, loss, rtol=0, atol=1e-6)
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for dtype, atol in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
            close(model(**inputs, vision_hidden_states=stored.to(dtype)).loss, loss, atol=atol)
        features = model.get_video_features(vision_hidden_states=stored[:, :1])
        assert features.pooler_output.shape == (3, NUM_QUERIES, 32) and features.vision_outputs is None
        assert torch.equal(features.last_hidden_state, stored[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generating_and_classifying_from_the_vision_models_output(model, num_beams):
    inputs = inputs_of(model)
    inputs["frame_mask"] = torch.tensor([[True, True], [True, False], [True, True]])
    classes = {"class_input_ids": torch.tensor([[60, 61], [62, 63]])}
    settings = {"num_beams": num_beams, "max_new_tokens": 4, "do_sample": False}
    expected, scores = model.generate(**inputs, **settings), model.classify(**inputs, **classes)
    pixel_values = inputs.pop("pixel_values")
    inputs["vision_hidden_states"] = model.vision_model(pixel_values.flatten(0, 1)).last_hidden_state.unflatten(
        0, (3, 2)
    )
    assert torch.equal(model.generate(**inputs, **settings), expected)
    close(model.classify(**inputs, **classes), scores)
    nothing = {**inputs_of(model, [2]), "vision_hidden_states": None}
    assert torch.equal(model.generate(**nothing, **settings), model.generate(**inputs_of(model, [2]), **settings))
    for other in ({"pixel_values": pixel_values}, {"mm_encoder_outputs": {"video": object()}}):
        with pytest.raises(ValueError, match="not both"):
            model.generate(**inputs, **other, **settings)
