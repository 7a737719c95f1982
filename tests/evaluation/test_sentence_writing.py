"""A language model that writes standard sentences: what it is asked, what is taken of it, and how it goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from training.clip_stores import rows_of, write_annotations
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from transformers_eilev.data.action_files import read_actions
from transformers_eilev.evaluation.sentence_writing import (
    INSTRUCTION,
    THREE_SHOT,
    ActionWords,
    SentenceWriter,
    check_sentence,
    judge,
)


SCRIPT = Path(__file__).parents[2] / "examples" / "data" / "run_standard_sentences.py"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
CUT = ActionWords("cut_(trim,_slice,_chop)", "cucumber")
TURN_ON = ActionWords("turn_on_(switch_on,_start,_light)", "faucet_(faucet,_tap)")
PHRASE = ActionWords(phrase="put down knife in drawer", rule="The camera wearer puts down the knife in the drawer.")
ACTIONS = [
    CUT,
    TURN_ON,
    PHRASE,
    ActionWords("wash", "hand_(finger,_hand,_palm,_thumb)"),
    ActionWords("walk"),
    ActionWords("put-down", "board:chopping"),
    ActionWords("sit", "chair"),
]


def make_tokenizer(chat_template=None, **special):
    """Of bytes: any text, there and back."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<s>", "</s>", *letters])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokens = {"bos_token": "<s>", "eos_token": "</s>", **special}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)
    tokenizer.chat_template = chat_template
    return tokenizer


class ScriptedModel(LlamaForCausalLM):
    """Answers from a table, by the last question of its prompt; may stop in one of its batches."""

    tokenizer, answers, stop_in_batch, num_batches = None, {}, None, 0

    def generate(self, input_ids, attention_mask, pad_token_id, **kwargs):
        self.num_batches += 1
        if self.num_batches == self.stop_in_batch:
            raise KeyboardInterrupt
        assert kwargs["do_sample"] is False and kwargs["num_beams"] == 1
        said = []
        for ids, mask in zip(input_ids, attention_mask):
            prompt = self.tokenizer.decode(ids[mask.bool()])
            prompt = prompt.removesuffix("\nSentence:").removesuffix("<assistant>")
            question = next(question for question in self.answers if prompt.endswith(question))
            said.append(self.tokenizer(self.answers[question] + "</s>")["input_ids"])
        length = max(map(len, said))
        ids = torch.tensor([row + [pad_token_id] * (length - len(row)) for row in said])
        return torch.cat([input_ids, ids], dim=1)


def make_model(model_class=LlamaForCausalLM, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    return model_class(config).eval()


def scripted(answers, tokenizer):
    model = make_model(ScriptedModel)
    model.tokenizer, model.answers = tokenizer, {action.question(): answer for action, answer in answers.items()}
    return model


def good_answers(actions=ACTIONS):
    return {action: f" {action.rule} I hope that this helps." for action in actions}


# ------------------------------------------------------------------------------------------------------- what is asked


def test_a_prompt_shows_the_examples_and_asks():
    prompt = SentenceWriter(make_model(), make_tokenizer()).prompt(CUT)
    assert prompt.startswith(
        INSTRUCTION + "\n\nVerb: put down\nNoun: chopping board\nSentence: The camera wearer puts"
    )
    assert prompt.count("Verb:") == prompt.count("Sentence:") == 4 and "Action:" not in prompt
    assert prompt.endswith("\n\nVerb: cut / trim / slice / chop\nNoun: cucumber\nSentence:")


def test_of_phrases_the_examples_are_phrases():
    prompt = SentenceWriter(make_model(), make_tokenizer()).prompt(PHRASE)
    assert prompt.count("Action:") == 4 and "Verb:" not in prompt
    assert prompt.endswith("\n\nAction: put down knife in drawer\nSentence:")


def test_a_chat_template_is_used_and_adds_its_own_tokens(tmp_path):
    tokenizer = make_tokenizer(CHAT_TEMPLATE)
    model = scripted(good_answers(), tokenizer)
    writer = SentenceWriter(model, tokenizer, examples=THREE_SHOT[:1])
    assert writer.prompt(CUT) == (
        f"<s><user>{INSTRUCTION}\n\nVerb: put down\nNoun: chopping board<assistant>The camera wearer puts down the "
        "chopping board.<user>Verb: cut / trim / slice / chop\nNoun: cucumber<assistant>"
    )
    assert writer.write([CUT], tmp_path)[CUT].sentence == "The camera wearer cuts the cucumber."


def test_the_answers_are_those_of_the_whole_model_by_itself(tmp_path):
    tokenizer, model = make_tokenizer(), make_model()
    written = SentenceWriter(model, tokenizer, batch_size=3, max_new_tokens=12).write(ACTIONS, tmp_path / "3")
    assert tokenizer.pad_token is None, "the caller's tokenizer is changed"
    one_by_one = SentenceWriter(model, tokenizer, batch_size=1, max_new_tokens=12).write(ACTIONS, tmp_path / "1")
    assert written == one_by_one and list(written) == ACTIONS
    for action in ACTIONS:
        ids = tokenizer(SentenceWriter(model, tokenizer).prompt(action), return_tensors="pt")["input_ids"]
        for _ in range(12):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
            if ids[0, -1] == tokenizer.eos_token_id:
                break
        prompt = SentenceWriter(model, tokenizer).prompt(action)
        assert written[action].answer == tokenizer.decode(ids[0], skip_special_tokens=True).removeprefix(prompt)
    assert len({sentence.answer for sentence in written.values()}) > 3


def test_each_action_is_asked_for_once(tmp_path):
    tokenizer = make_tokenizer()
    model = scripted(good_answers(), tokenizer)
    written = SentenceWriter(model, tokenizer, batch_size=2).write(ACTIONS[:3] * 50, tmp_path)
    assert model.num_batches == 2 and list(written) == ACTIONS[:3]
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [(line["verb"], line["noun"], line["phrase"]) for line in lines] == [
        (action.verb, action.noun, action.phrase) for action in ACTIONS[:3]
    ]
    assert {line["by"] for line in lines} == {"model"}


# ------------------------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize(
    "action, sentence, fault",
    [
        (CUT, "The camera wearer cuts the cucumber.", ""),
        (CUT, "The camera wearer chops a cucumber.", ""),
        (CUT, "The camera wearer slices her cucumbers.", ""),
        (CUT, "A person cuts the cucumber.", 'does not begin with "The camera wearer"'),
        (CUT, "The camera wearers cut the cucumber.", 'does not begin with "The camera wearer"'),
        (CUT, "The camera wearer peels the cucumber.", "does not say the verb"),
        (CUT, "The camera wearer cuts the carrot.", "does not say the noun"),
        (CUT, "The camera wearer cuts the cucumber with a knife.", "says 'knife' as well"),
        (CUT, "The camera wearer never cuts the cucumber.", "says 'never' as well"),
        (TURN_ON, "The camera wearer turns the tap on.", ""),
        (TURN_ON, "The camera wearer turns off the tap.", "does not say the verb"),
        (TURN_ON, "The camera wearer turns on and off the tap.", "says 'and' as well"),
        (ActionWords("sit", "chair"), "The camera wearer sits on the chair.", ""),
        (ActionWords("sit", "chair"), "The camera wearer sits off the chair.", "says 'off' as well"),
        (ActionWords("put-into", "onion"), "The camera wearer puts the onion.", ""),
        (ActionWords("walk"), "The camera wearer walks.", ""),
        (ActionWords("walk"), "The camera wearer walks the dog.", "says 'dog' as well"),
        (PHRASE, "The camera wearer puts the knife down in his drawer.", ""),
        (PHRASE, "The camera wearer puts the knife in the drawer.", "does not say the word 'down'"),
        (PHRASE, "The camera wearer puts down the knife in the big drawer.", "says 'big' as well"),
    ],
)
def test_sentences_say_the_action_and_nothing_else(action, sentence, fault):
    assert check_sentence(action, sentence) == fault


@pytest.mark.parametrize(
    "answer, sentence, by",
    [
        (' "The camera wearer chops\tthe cucumber." Is there more?', "The camera wearer chops the cucumber.", "model"),
        ("**The camera wearer cuts the cucumber**", "The camera wearer cuts the cucumber.", "model"),
        ("The camera wearer trims the cucumber\nVerb: wash", "The camera wearer trims the cucumber.", "model"),
        ("Sure! The camera wearer cuts the cucumber.", "The camera wearer cuts the cucumber.", "rule"),
        ("", "The camera wearer cuts the cucumber.", "rule"),
    ],
)
def test_the_first_sentence_of_an_answer_is_taken(answer, sentence, by):
    written = judge(CUT, answer)
    assert (written.sentence, written.by, written.answer) == (sentence, by, answer)
    assert bool(written.fault) == (by == "rule")


@pytest.mark.parametrize("words", [{}, {"verb": "[other]", "noun": "cup"}, {"verb": "cut", "phrase": "cut up"}])
def test_nothing_is_asked_of_an_action_without_a_sentence(words):
    with pytest.raises(ValueError, match="No sentence can be made of"):
        ActionWords(**words)


def test_models_and_tokenizers_that_will_not_do_are_refused():
    config = T5Config(vocab_size=258, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="t5 has an encoder"):
        SentenceWriter(T5ForConditionalGeneration(config), make_tokenizer())
    with pytest.raises(ValueError, match="no token to pad with"):
        SentenceWriter(make_model(), make_tokenizer(eos_token=None))
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, but is 0"):
        SentenceWriter(make_model(), make_tokenizer(), batch_size=0)


# ------------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("torn", [b"", b'{"index": 6, "verb": "si'])
def test_a_run_that_was_stopped_goes_on_with_the_same_batches(tmp_path, stop, torn):
    tokenizer = make_tokenizer()
    expected = SentenceWriter(scripted(good_answers(), tokenizer), tokenizer, batch_size=3).write(
        ACTIONS, tmp_path / "whole"
    )
    model = scripted(good_answers(), tokenizer)
    model.stop_in_batch = stop
    writer = SentenceWriter(model, tokenizer, batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        writer.write(ACTIONS, tmp_path / "stopped")
    with open(tmp_path / "stopped" / "predictions.part-0.jsonl", "ab") as file:
        file.write(torn)
    model.stop_in_batch = None
    assert writer.write(ACTIONS, tmp_path / "stopped") == expected
    assert model.num_batches == 4, "batches are asked for again"
    files = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]
    assert writer.write(ACTIONS, tmp_path / "stopped") == expected and model.num_batches == 4


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"batch_size": 2}, "batch_size"),
        ({"max_new_tokens": 9}, "max_new_tokens"),
        ({"examples": THREE_SHOT[:2]}, "prompt"),
        ({"seed": 1}, "weights"),
        ({"chat_template": CHAT_TEMPLATE}, "prompt"),
        ({"actions": ACTIONS[:2]}, "actions"),
    ],
)
def test_sentences_of_other_settings_are_not_gone_on_from(tmp_path, changed, named):
    def write(*, seed=0, chat_template=None, actions=ACTIONS[:3], overwrite=False, **options):
        writer = SentenceWriter(
            make_model(seed=seed), make_tokenizer(chat_template), **{"max_new_tokens": 4, **options}
        )
        return writer.write(actions, tmp_path, overwrite=overwrite)

    write()
    with pytest.raises(ValueError, match=f"other settings: {named}"):
        write(**changed)
    assert list(write(**changed, overwrite=True)) == changed.get("actions", ACTIONS[:3])


def test_the_script_says_what_the_model_did_not_write(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    rows = list(rows_of("train", 8))
    rows[3]["structured_verb"] = ""
    path = write_annotations(tmp_path / "actions.csv", rows)
    command = [sys.executable, SCRIPT, path, "--source", "csv", "--output", tmp_path / "standard.csv"]
    command += ["--model_name_or_path", tmp_path / "model", "--dtype", "float32", "--max_new_tokens", 4]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 of 7 distinct sentences are the model's, the others by rule:" in done.stdout
    assert '7: its sentence does not begin with "The camera wearer"' in done.stdout
    assert "7 of 8 narrations are standardised, in 7 sentences" in done.stdout
    assert "1 are kept as they were: their verb is ''" in done.stdout
    standard = read_actions(tmp_path / "standard.csv", source="csv")
    assert standard[0]["narration_text"] == "The camera wearer washes the cup."
    assert standard[3]["narration_text"] == rows[3]["narration_text"]
    lines = (tmp_path / "standard.csv.sentences" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["by"] for line in lines] == ["rule"] * 7
