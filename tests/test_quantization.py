"""8- and 4-bit loading through transformers' own configurations."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig


@pytest.mark.usefixtures("unpacked_4bit")
@pytest.mark.parametrize(
    "settings, correlation",
    [({"load_in_8bit": True}, 0.99), ({"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}, 0.7)],
    ids=["8bit", "4bit"],
)
def test_quantized(golden, settings, correlation):
    """The Q-Former and the head stay whole, and the logits near those of the whole model, as far as so few bits go."""
    quantized = AutoModelForImageTextToText.from_pretrained(
        golden.checkpoint, quantization_config=BitsAndBytesConfig(**settings), device_map="cpu"
    )
    assert type(quantized.vision_model.encoder.layers[0].mlp.fc1).__name__.startswith("Linear")
    assert type(quantized.vision_model.encoder.layers[0].mlp.fc1) is not torch.nn.Linear
    assert {type(module) for module in quantized.qformer.modules() if "Linear" in type(module).__name__} == {
        torch.nn.Linear
    }
    assert type(quantized.get_output_embeddings()) is torch.nn.Linear

    inputs = golden.interleaved(text="<video>Question: What? Answer:", videos=golden.videos[0])
    starts = {} if golden.family == "opt" else {"decoder_input_ids": torch.tensor([[0]])}
    with torch.no_grad():
        logits = [model(**inputs, **starts).logits.flatten().float() for model in (quantized, golden.model)]
    assert torch.corrcoef(torch.stack(logits))[0, 1] > correlation
    assert quantized.generate(**inputs, max_new_tokens=3, num_beams=2).ndim == 2
