"""Sentences by rule: what a person would write of a pair of labels, and nothing that the labels do not say."""

import subprocess
import sys
from pathlib import Path

import pytest
from training.clip_stores import rows_of, write_annotations, write_clip_store

from transformers_eilev.data import load_narrated_clips
from transformers_eilev.data.action_files import read_actions, write_actions_csv
from transformers_eilev.data.fho_words import load_fho_words
from transformers_eilev.data.narrations import clean_narration_text
from transformers_eilev.data.standard_sentences import action_to_sentence, words_of_noun, words_of_verb


SCRIPT = Path(__file__).parents[2] / "examples" / "data" / "run_standard_sentences.py"

# Labels of Ego4D's FHO taxonomy, and what follows "The camera wearer".
EGO4D = [
    ("adjust_(regulate,_increase/reduce,_change)", "clamp", "adjusts the clamp"),
    ("apply_(spread,_smear)", "glue_(adhesive,_glue,_gum,_sealant)", "applies the glue"),
    ("arrange_(straighten,_sort,_distribute,_align)", "playing_cards", "arranges the playing cards"),
    ("attach_(plug-in,_join,_fasten,_connect,_attach)", "plug", "attaches the plug"),
    ("blow", "candle", "blows the candle"),
    ("break", "shell_(egg_shell,_shell_egg)", "breaks the shell"),
    ("carry", "bag_(bag,_grocery,_nylon,_polythene,_pouch,_sachet,_sack,_suitcase)", "carries the bag"),
    ("catch", "ball_(ball,_baseball,_basketball)", "catches the ball"),
    ("clean_(sweep,_scrub,_mop,_dust)", "floor_(floor,_ground)", "cleans the floor"),
    ("climb", "stairs_(stair,_staircase)", "climbs the stairs"),
    ("close", "garbage_can_(bin,_dustbin)", "closes the garbage can"),
    (
        "consume_(taste,_sip,_eat,_drink)",
        "beverage_(drink,_juice,_beer,_beverage,_champagne)",
        "consumes the beverage",
    ),
    ("cut_(trim,_slice,_chop)", "cucumber", "cuts the cucumber"),
    (
        "detach_(unplug,_unhook,_disconnect)",
        "wire_(adapter,_cable,_charger,_connector,_cord,_wire)",
        "detaches the wire",
    ),
    ("dig", "soil_(dirt,_mud,_soil)", "digs the soil"),
    ("divide_(split,_separate)", "dough", "divides the dough"),
    ("draw", "artwork_(art,_draw,_drawing,_painting,_sketch)", "draws the artwork"),
    ("drive_(ride,_drive)", "car_(car,_vehicle)", "drives the car"),
    ("file_(with_tool)", "metal_(lead,_metal,_steel)", "files the metal"),
    ("fill", "pot_(planter)", "fills the plant pot"),
    ("fold", "pants_(jean,_pant,_short,_trouser)", "folds the pants"),
    ("fry", "egg", "fries the egg"),
    ("hit_(knock,_hit,_hammer)", "screw_(bolt,_nail,_screw)", "hits the screw"),
    (
        "hold_(support,_grip,_grasp)",
        "person_(herself,_himself,_lady,_man,_person,_shoulder,_they,_woman)",
        "holds the person",
    ),
    ("insert", "drill_bit", "inserts the drill bit"),
    ("inspect_(check,_look,_examine,_view)", "jack_(tool)_(jack,_lift)", "inspects the jack"),
    ("measure_(weigh,_measure)", "flour", "measures the flour"),
    ("mix", "pasta_(noodle,_pasta,_spaghetti)", "mixes the pasta"),
    (
        "move_(transfer,_pass,_exchange)",
        "puzzle_or_game_piece_(chess,_domino,_jenga,_jigsaw,_pawn,_puzzle)",
        "moves the puzzle piece",
    ),
    ("open", "pepper_(vegetable)_(capsicum,_pepper)", "opens the pepper"),
    ("operate_(use,_dial,_click-button)", "phone_(cellphone,_phone,_smartphone)", "operates the phone"),
    ("peel", "banana_(banana,_plantain)", "peels the banana"),
    ("play", "guitar", "plays the guitar"),
    ("point", "book_(book,_booklet,_magazine,_manual,_notebook,_novel,_page,_textbook)", "points at the book"),
    ("pour", "water", "pours the water"),
    ("press", "remote_control_(control,_remote)", "presses the remote control"),
    ("put_(place,_leave,_drop)", "scissors", "puts the scissors"),
    ("put_(place,_leave,_drop)", "chopstick", "puts the chopsticks"),
    ("read", "television_(television,_tv)", "reads the television"),
    ("scoop", "baking_soda", "scoops the baking soda"),
    ("search", "drawer", "searches for the drawer"),
    ("sew_(weave,_stitch,_sew)", "cloth_(cloth,_fabric,_garment,_kanga,_rag)", "sews the cloth"),
    ("sit", "chair", "sits on the chair"),
    ("squeeze", "plier", "squeezes the pliers"),
    ("stand", "ladder", "stands on the ladder"),
    ("step", "treadmill", "steps on the treadmill"),
    ("stick_(tape,_stick,_glue)", "tape_(cellotape,_sellotape,_tape)", "sticks the tape"),
    ("take_(pick,_grab,_get)", "cup_(cup,_mug,_tumbler)", "takes the cup"),
    ("take_(pick,_grab,_get)", "nut_(tool)", "takes the nut"),
    ("take_(pick,_grab,_get)", "rice", "takes the rice"),
    (
        "talk_(talk,_interact,_converse)",
        "person_(herself,_himself,_lady,_man,_person,_shoulder,_they,_woman)",
        "talks to the person",
    ),
    ("throw_(toss,_dump,_dispose)", "trash_(debris,_garbage,_litter,_trash,_waste)", "throws the trash"),
    ("tie", "shoe_(boot,_sandal,_shoe,_slipper)", "ties the shoes"),
    ("touch", "glasses_(goggle,_shade,_spectacle,_sunglass)", "touches the glasses"),
    ("turn_(spin,_rotate,_flip,_turn_over)", "leaf_(leaf,_leave)", "turns the leaf"),
    ("turn_off_(turn_off,_switch_off)", "washing_machine", "turns off the washing machine"),
    ("turn_on_(switch_on,_start,_light)", "faucet_(faucet,_tap)", "turns on the faucet"),
    (
        "untie",
        "string_(bobbin,_knot,_lace,_ribbon,_spool,_strand,_string,_thread,_twine,_wool,_yarn)",
        "unties the string",
    ),
    ("walk", "house", "walks around the house"),
    ("wash", "hand_(finger,_hand,_palm,_thumb)", "washes the hand"),
    ("write", "paper_(chart,_craft,_newspaper,_note,_paper,_papercraft,_poster,_receipt)", "writes on the paper"),
    ("walk", "", "walks"),
    ("wash", "[other]", "washes"),
]
# Classes of EPIC-KITCHENS, and words of its annotators.
EPIC_KITCHENS = [
    ("put-down", "board:chopping", "puts down the chopping board"),
    ("turn-on", "tap", "turns on the tap"),
    ("turn-down", "heat", "turns down the heat"),
    ("let-go", "liquid:washing", "lets go of the washing liquid"),
    ("wait", "machine:washing", "waits for the washing machine"),
    ("look", "cellar:salt", "looks at the salt cellar"),
    ("dry", "machine:sous:vide", "dries the sous vide machine"),
    ("finish", "fishcakes", "finishes the fishcakes"),
    ("crush", "onion:spring", "crushes the spring onion"),
    ("pick-up", "opener:bottle", "picks up the bottle opener"),
    ("put-into", "onion", "puts the onion"),
    ("pour-in", "milk", "pours the milk"),
    ("put-on", "glove", "puts on the glove"),
    ("look-for", "knife", "looks for the knife"),
    ("remove-from", "lid", "removes the lid"),
    ("plug-in", "kettle", "plugs in the kettle"),
]


@pytest.mark.parametrize("verb, noun, said", EGO4D + EPIC_KITCHENS)
def test_sentences_are_those_that_a_person_would_write(verb, noun, said):
    assert action_to_sentence(verb, noun) == f"The camera wearer {said}."


def test_the_table_is_of_real_labels():
    words = load_fho_words()
    assert {verb for verb, _, _ in EGO4D} <= words.verbs.keys()
    assert {noun for _, noun, _ in EGO4D} <= {*words.nouns, "", "[other]"}
    assert len(EGO4D) >= 60


@pytest.mark.parametrize("nothing", ["", "[other]", None])
def test_no_sentence_is_made_of_a_missing_verb(nothing):
    assert action_to_sentence(nothing, "cucumber") is None
    assert words_of_verb(nothing) == words_of_noun(nothing) == []


def test_the_original_words_are_all_there_and_kept():
    words = load_fho_words()
    assert (len(words.verbs), sum(map(len, words.verbs.values()))) == (117, 187)
    assert (len(words.nouns), sum(map(len, words.nouns.values()))) == (521, 792)
    assert words.verbs["take_(pick,_grab,_get)"] == ["takes", "picks", "grabs", "gets"]
    assert words.nouns["pasta_(noodle,_pasta,_spaghetti)"] == ["past", "noodles", "spaghetti"]


def test_every_pair_of_the_taxonomy_is_one_clean_sentence():
    words = load_fho_words()
    sentences = [action_to_sentence(verb, "hat") for verb in words.verbs]
    sentences += [action_to_sentence("wash", noun) for noun in words.nouns]
    for sentence in sentences:
        assert sentence.isascii() and not set('_(),":') & set(sentence), sentence
        assert " the the " not in sentence and " a " not in sentence and " an " not in sentence
        assert clean_narration_text(sentence) == sentence


def test_words_of_a_label():
    assert words_of_verb("turn_on_(switch_on,_start,_light)") == ["turns on", "switches on", "starts", "lights"]
    assert words_of_noun("money_(cash,_coin,_money)") == ["the money", "the cash", "the coin"]
    assert words_of_noun("television_(television,_tv)") == ["the television", "the TV"]
    assert "herself" in words_of_noun("person_(herself,_himself,_lady,_man,_person,_shoulder,_they,_woman)")
    # Not Ego4D's: what the label says.
    assert words_of_verb("carry_(bring,_carry)") == ["carries", "brings"]
    assert words_of_noun("board:chopping") == ["the chopping board"]


# ------------------------------------------------------------------------------------------------------------- files


def run(*arguments):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_store_is_read_with_standard_sentences(tmp_path):
    store = write_clip_store(tmp_path / "clips", num_train=8, num_val=1)
    run(store, "--output", tmp_path / "standard.csv")
    clips = load_narrated_clips(store, annotation_file=tmp_path / "standard.csv")
    thirds = {"wash": "washes", "cut": "cuts", "open": "opens", "take": "takes"}
    labels = [(thirds[row["structured_verb"]], row["structured_noun"]) for row in rows_of("train", 8)]
    assert clips["narration_text"][:] == [f"The camera wearer {verb} the {noun}." for verb, noun in labels]
    for name in ("frame_path", "structured_verb", "structured_noun"):
        assert clips[name][:] == [row[name] for row in rows_of("train", 8)]


def test_actions_without_a_verb_are_left_out_and_counted(tmp_path):
    rows = list(rows_of("train", 6))
    rows[1]["structured_verb"], rows[4]["structured_verb"] = "", "[other]"
    path = write_annotations(tmp_path / "narrated_actions.csv", rows)
    said = run(path, "--source", "csv", "--output", tmp_path / "out" / "x.csv", "--drop_others")
    assert "4 of 6 narrations are standardised" in said
    assert "1 are left out: their verb is '[other]'" in said and "1 are left out: their verb is ''" in said
    texts = {
        row["frame_path"]: row["narration_text"] for row in read_actions(tmp_path / "out" / "x.csv", source="csv")
    }
    assert list(texts) == [row["frame_path"] for row in rows if row["structured_verb"] not in ("", "[other]")]
    assert texts[rows[0]["frame_path"]] == "The camera wearer washes the cup."


def test_what_is_read_is_what_was_written(tmp_path):
    rows = [{**row, "narration_text": 'he says, "häh?"\nand goes'} for row in rows_of("train", 3)]
    path = write_actions_csv(tmp_path / "a.csv", [{**row, "frames": [1]} for row in rows])
    assert read_actions(path, source="csv") == [{name: str(value) for name, value in row.items()} for row in rows]
    header = path.read_text().splitlines()[0].split(",")
    assert "video_path" not in header and "frames" not in header
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    "text, options, complaint",
    [
        ("frame_path,narration_text,structured_verb\na|0,x,y\n", {}, "no column structured_noun"),
        ("a,b\n1,2\n", {}, "no column frame_path"),
        ("frame_path,narration_text,structured_verb,structured_noun\na|0,x\n", {}, "line 2: 2 fields and not 4"),
        ("", {"split": "val"}, "has no splits"),
        ("", {"keep_missing_videos": True}, "for the source ego4d or epic-kitchens alone"),
        ("", {"source": "epic"}, "`source` must be one of"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said(tmp_path, text, options, complaint):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_actions(path, **{"source": "csv", **options})
