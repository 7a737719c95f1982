"""Narrations: Ego4D's marks cleaned away as the original does, EPIC-KITCHENS' phrases made into sentences."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from transformers_eilev.data.narrations import PROMPTS, clean_narration_text, phrase_to_sentence, third_person


ANNOTATIONS = Path(__file__).parents[1] / "fixtures" / "data" / "annotations"
RULES = json.loads(gzip.decompress((ANNOTATIONS / "rules.json.gz").read_bytes()))

# Where the original's result is plainly wrong.
CLEANED_DIFFERENTLY = {"#C Camera falls": "Camera falls.", "#C Cuts the bread": "Cuts the bread."}


@pytest.mark.parametrize("case", RULES["clean_narration_text"], ids=lambda case: repr(case["input"])[:40])
def test_narrations_are_cleaned_as_by_the_original(case):
    expected = CLEANED_DIFFERENTLY.get(case["input"], case["output"])
    assert clean_narration_text(case["input"]) == expected


def test_the_camera_is_not_the_camera_wearer():
    """The original makes "The camera weareramera falls." of it."""
    by_original = {case["input"]: case["output"] for case in RULES["clean_narration_text"]}
    for narration, expected in CLEANED_DIFFERENTLY.items():
        assert by_original[narration].startswith("The camera wearer" + narration[4:7])
        assert clean_narration_text(narration) == expected


def test_every_prompt_asks_the_same_question():
    assert len(set(PROMPTS)) == len(PROMPTS) == 9
    assert all("What is the camera wearer doing?" in prompt and prompt == prompt.strip() for prompt in PROMPTS)


@pytest.mark.parametrize(
    "verb, expected",
    [
        ("put", "puts"),
        ("wash", "washes"),
        ("mix", "mixes"),
        ("press", "presses"),
        ("dry", "dries"),
        ("spray", "sprays"),
        ("do", "does"),
        ("have", "has"),
        ("squeeze", "squeezes"),
        ("stretch", "stretches"),
    ],
)
def test_verbs_take_their_third_person(verb, expected):
    assert third_person(verb) == expected


@pytest.mark.parametrize(
    "phrase, verb, nouns, sentence",
    [
        ("pick up plate", "pick-up", ["plate"], "picks up the plate."),
        ("put down knife in drawer", "put-down-in", ["knife", "drawer"], "puts down the knife in the drawer."),
        ("turn tap on", "turn-on", ["tap"], "turns the tap on."),
        ("take the cup.", "take", ["cup"], "takes the cup."),
        ("take another glass", "take", ["glass"], "takes another glass."),
        ("put it on plate", "put-on", ["plate"], "puts it on the plate."),
        ("mix salt and oil", "mix", ["salt", "oil"], "mixes the salt and oil."),
        ("take cup and wash it", "take", ["cup"], "takes the cup and washes it."),
        ("take salt and brush", "take", ["salt", "brush"], "takes the salt and brush."),
        ("use cloth to clean oven", "clean", ["cloth", "oven"], "uses the cloth to clean the oven."),
        ("pour washing up liquid", "pour", ["liquid:washing:up"], "pours the washing up liquid."),
        ("put lid on top of pot", "put-on", ["lid", "pot"], "puts the lid on top of the pot."),
        ("roll ball of dough", "roll", ["ball", "dough"], "rolls the ball of dough."),
        ("take lid of pot", "take", ["lid", "pot"], "takes the lid of the pot."),
        ("cut onion into small pieces", "cut-into", ["onion"], "cuts the onion into small pieces."),
        ("continue washing chopping board", "wash", ["board:chopping"], "continues washing the chopping board."),
        ("still stirring rice", "stir", ["rice"], "is still stirring the rice."),
        ("still stir rice", "stir", ["rice"], "still stirs the rice."),
        ("dicing onion", "dice", ["onion"], "dices the onion."),
        ("cutting bread", "cut", ["bread"], "cuts the bread."),
        ("and get fork", "get", ["fork"], "gets the fork."),
        ("spoon rice onto plate", "spoon-onto", ["rice", "plate"], "spoons the rice onto the plate."),
        ("tap on", "turn-on", ["tap"], "turns on the tap."),
        ("pot put on chopping board", "put-on", ["pot", "board:chopping"], "puts on the pot."),
        ("close tap", "turn-off", ["tap"], "closes the tap."),
        ("stir", "stir", [], "stirs."),
        ("", "take", ["board:chopping"], "takes the chopping board."),
        ("put water in the pot and", "put-in", ["water", "pot"], "puts the water in the pot."),
    ],
)
def test_phrases_become_sentences(phrase, verb, nouns, sentence):
    known = {"brush", "wash", "use", "close", "clean", "tap", "salt"}
    assert phrase_to_sentence(phrase, verb=verb, nouns=nouns, known_verbs=known) == f"The camera wearer {sentence}"


@pytest.mark.parametrize("phrase", ["", "   ", ".", "no verb here"])
def test_nothing_comes_of_nothing(phrase):
    assert phrase_to_sentence(phrase) == ""


def test_the_import_is_cheap():
    """What reads videos and data sets is loaded when it is asked for."""
    program = (
        "import sys, transformers_eilev.data as data; data.PROMPTS, data.NarratedAction, data.split_by_video;"
        "print([name for name in ('av', 'datasets', 'pyarrow', 'torch') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
