"""Pushed to a Hub on the loopback interface, and loaded from there by processes that have nothing of it yet."""

import json

import pytest
import torch
from loopback_hub import LoopbackHub
from other_processes import narrate, run
from safetensors.torch import load, load_file

from transformers_eilev import embedded_checkpoint


TOKENS = {"alice": "of-alice", "mallory": "of-mallory"}
PRIVATE = ["alice/pushed", "alice/exported"]


@pytest.fixture(scope="module")
def hub():
    with LoopbackHub({token: user for user, token in TOKENS.items()}) as hub:
        yield hub


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory):
    """What `push` returns."""
    folder = tmp_path_factory.mktemp("pushed")
    return run("push", str(folder), TOKENS, environment=hub.environment(folder / "cache"))


def test_what_lies_on_the_hub(hub, pushed):
    stored = load_file(f"{embedded_checkpoint()}/model.safetensors")
    assert {repo_id: repository.private for repo_id, repository in hub.repositories.items()} == {
        "alice/pushed": True,
        "alice/trained": False,
        "alice/exported": True,
    }
    for repo_id in hub.repositories:
        weights = load(hub.read(repo_id, "model.safetensors"))
        assert weights.keys() == stored.keys()
        for name, weight in stored.items():
            expected = weight if repo_id == "alice/exported" else weight.float()
            assert weights[name].dtype == expected.dtype and torch.equal(weights[name], expected), name
        assert hub.repositories[repo_id].blobs["model.safetensors"] in hub.verified
        names = {"config.json", "generation_config.json", "processor_config.json", "tokenizer.json"}
        assert names <= set(hub.repositories[repo_id].blobs)
    # The weights that were there before, in several files, are gone.
    assert not [path for path in hub.repositories["alice/exported"].blobs if "-of-" in path or "index" in path]
    assert "custom_pipelines" in json.loads(hub.read("alice/exported", "config.json"))
    assert "auto_map" not in json.loads(hub.read("alice/pushed", "config.json"))
    assert not hub.unknown


def test_the_command_says_what_it_did_and_why_it_did_not(hub, pushed):
    exit_code, output = pushed["said"]
    assert exit_code == 0, output
    assert "151 weights (3.6 MiB)" in output and "trust_remote_code=True" in output
    assert f"{hub.endpoint}/alice/exported/commit/{hub.repositories['alice/exported'].commits[-1]}" in output
    exit_code, output = pushed["refused"]
    assert exit_code == 1 and "Error: " in output and "403" in output and "alice" in output, output


def test_loaded_by_their_ids_from_an_empty_cache(hub, pushed, tmp_path):
    ids = {"alice/exported": "alice/exported"}
    environment = {**hub.environment(tmp_path / "cache", TOKENS["alice"]), "PYTHONPATH": ""}
    texts = run("narrate_without_package", ids, str(tmp_path / "alone.pt"), environment=environment)
    expected_texts = narrate({"": embedded_checkpoint()}, tmp_path / "expected.pt")
    assert set(texts["alice/exported"]["modules"].values()) == {"transformers_modules"}
    assert texts["alice/exported"]["narration"] == expected_texts[""]["narration"]
    actual, expected = torch.load(tmp_path / "alone.pt"), torch.load(tmp_path / "expected.pt")
    for what, tensor in expected[""].items():
        assert torch.equal(actual["alice/exported"][what], tensor), what
    assert list((tmp_path / "cache").rglob("models--alice--exported/snapshots/*/model.safetensors"))
    assert not hub.unknown


def test_private_ones_are_for_their_owner_alone(hub, pushed, tmp_path):
    nobody, wrong, mallory = tokens = ["", "of-nobody", TOKENS["mallory"]]
    repo_ids = [*PRIVATE, "alice/none", "alice/trained"]
    errors = run("load", repo_ids, tokens, environment=hub.environment(tmp_path / "cache"))
    for repo_id in [*PRIVATE, "alice/none"]:
        assert repo_id in errors[nobody][repo_id] and "private" in errors[nobody][repo_id]
        assert repo_id in errors[mallory][repo_id] and "private" in errors[mallory][repo_id]
        assert repo_id in errors[wrong][repo_id] and "Invalid credentials" in errors[wrong][repo_id]
    assert errors[nobody]["alice/trained"] is None and errors[mallory]["alice/trained"] is None
    assert not hub.unknown
