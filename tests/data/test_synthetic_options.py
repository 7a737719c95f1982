"""What a synthetic set may lack: verbs, words, labels, other things, distance. By default it lacks nothing."""

import dataclasses
import hashlib
import json
import re
from collections import Counter

import numpy as np
import PIL
import pytest
from PIL import Image
from typer.testing import CliRunner

from transformers_eilev.commands import app
from transformers_eilev.data.synthetic import ORDER_FREE_VERBS, SyntheticConfig, make_synthetic_dataset, scenery
from transformers_eilev.data.synthetic.actions import Layer, Staging
from transformers_eilev.data.synthetic.epic_writing import action_rows
from transformers_eilev.data.synthetic.narration import choose_words, narrate
from transformers_eilev.data.synthetic.objects import draw_object
from transformers_eilev.data.synthetic.rendering import Renderer
from transformers_eilev.data.synthetic.script import write_script
from transformers_eilev.data.synthetic.world import NOUNS, PALETTE, VERBS, World
from transformers_eilev.data.synthetic.writing import all_scripts, fho_video


TINY = SyntheticConfig(hours=12 / 3600, video_sec=12, action_sec=3, image_size=64, fps=5, missing_share=0.0, seed=7)
NO_EXTRAS = {"colour_share": 0.0, "hand_share": 0.0, "place_share": 0.0, "habit_share": 0.0}


def narrations(config, videos=12):
    """Each action with what is said about it, as (world, script, action, narration)."""
    world = World(config)
    result = []
    for number in range(videos):
        script = write_script(world, number)
        words = choose_words(world, script)
        result += [(world, script, action, narrate(world, script, words, action)) for action in script.actions]
    return result


def fho_actions(config, videos=12):
    world = World(config)
    return [
        action
        for number in range(videos)
        for interval in fho_video(world, write_script(world, number))["annotated_intervals"]
        for action in interval["narrated_actions"]
    ]


# ------------------------------------------------------------------------------------------ by default, as ever it was


@pytest.fixture(scope="module")
def default_frames():
    world = World(SyntheticConfig(video_sec=48, image_size=64))
    return np.stack([Renderer(world, write_script(world, n)).frame(frame) for n in range(3) for frame in (0, 29, 200)])


def test_annotations_are_what_they_were():
    """Recorded before there were the options of this file: who does not use them has the same set."""
    world = World(SyntheticConfig(video_sec=48, image_size=64))
    videos = [fho_video(world, write_script(world, number)) for number in range(12)]
    digest = hashlib.sha256(json.dumps(videos).encode()).hexdigest()
    assert digest == "312206fe8793a578447a9f995603e3317c3b773ad9501193ea8ae3557f86940e"


def test_frames_look_as_they_did(default_frames):
    """The means of their quarters, on which releases of Pillow agree but for their rounding."""
    quarters = default_frames.reshape(9, 2, 32, 2, 32, 3).mean(axis=(2, 4, 5)).reshape(9, 4)
    expected = [
        [115.8, 102.2, 97.8, 111.2],
        [132.3, 107.0, 103.2, 114.6],
        [0.0, 0.0, 0.0, 0.0],
        [131.8, 137.4, 141.2, 136.3],
        [138.8, 140.0, 124.4, 134.7],
        [126.6, 130.2, 131.0, 119.9],
        [135.1, 132.9, 125.5, 128.5],
        [150.7, 144.0, 105.2, 124.6],
        [177.4, 174.8, 152.6, 133.2],
    ]
    np.testing.assert_allclose(quarters, expected, atol=1)


@pytest.mark.skipif(not PIL.__version__.startswith("13."), reason="Releases of Pillow differ in single pixels")
def test_frames_are_what_they_were(default_frames):
    digest = hashlib.sha256(default_frames.tobytes()).hexdigest()
    assert digest == "5360fda8fd0f428e9c089db38ca396d4db515bdd4a88132dc19e2bf69d54cc89"


def test_goes_on_with_a_set_from_before_there_was_an_option(tmp_path):
    make_synthetic_dataset(tmp_path, TINY)
    path = tmp_path / "synthetic/config.json"
    options = json.loads(path.read_text())
    for name in ("verbs", "zoom", "num_distractors", "unlabelled_share", *NO_EXTRAS):
        del options[name]
    path.write_text(json.dumps(options))
    assert make_synthetic_dataset(tmp_path, TINY).kept == 1
    with pytest.raises(ValueError, match=r"num_distractors=\[3, 6\] \(now \[0, 2\]\), zoom=1.0 \(now 1.5\)"):
        make_synthetic_dataset(tmp_path, dataclasses.replace(TINY, zoom=1.5, num_distractors=(0, 2)))


# --------------------------------------------------------------------------------------------------------------- verbs


def test_a_set_that_goes_on_behind_another_is_of_the_same_world(tmp_path):
    settings = {"video_sec": 12, "action_sec": 3, "image_size": 64, "fps": 5, "seed": 7}
    whole = SyntheticConfig(hours=6 * 12 / 3600, missing_share=0.0, **settings)
    behind = SyntheticConfig(hours=2 * 12 / 3600, first_video=4, missing_share=0.5, **settings)
    scripts = all_scripts(World(behind))
    # One that is annotated and not on disk comes on top.
    assert [script.number for script in scripts] == [4, 5, 6] and sum(script.missing for script in scripts) == 1
    for script, other in zip(scripts, all_scripts(World(whole))[4:]):
        assert dataclasses.replace(script, missing=False) == other
    summary = make_synthetic_dataset(tmp_path, behind)
    assert summary.num_videos == 2 and summary.num_missing == 1


def test_a_set_for_small_models_is_plain_and_without_gaps():
    config = SyntheticConfig.for_small_models(hours=0.1, seed=3)
    assert config.verbs == ORDER_FREE_VERBS and config.num_missing == 0
    said = narrations(config, videos=3)
    for world, _, action, narration in said:
        verb, noun = world.verbs[action.verb].words[0][0], world.nouns[action.noun].words[0]
        assert narration.text == f"#C C {verb} the {noun}"
    assert said and SyntheticConfig.for_small_models(zoom=1.0).zoom == 1.0


def test_only_the_chosen_verbs():
    chosen = ("wipe", "cut", "put")
    config = SyntheticConfig(verbs=chosen, verb_skew=0.0, unlabelled_share=0.0, quirk_share=0.0)
    by_name = {verb.name: verb.structured for verb in VERBS}
    seen = Counter(action["structured_verb"] for action in fho_actions(config, videos=6))
    assert set(seen) == {by_name[name] for name in chosen} and min(seen.values()) > 20
    # Classes are numbered without gaps, as any other set's.
    world = World(config)
    assert {row[10] for row in action_rows(world, write_script(world, 0))} == {0, 1, 2}
    assert dataclasses.replace(config, verbs=["put", "cut", "wipe"]) == config


def test_made_up_verbs_come_on_top():
    world = World(SyntheticConfig(verbs=("cut",), made_up_verbs=2))
    everything = World(SyntheticConfig(made_up_verbs=2))
    assert [verb.name for verb in world.verbs] == ["cut", *(verb.name for verb in everything.verbs[-2:])]


def test_frames_in_any_order_tell_the_order_free_verbs_apart():
    """As a bag of frames the 19 verbs are 14, and those are the ones."""
    bags = {}
    world = World(TINY)
    renderer = Renderer(world, write_script(world, 0))
    first, noun = renderer.script.actions[0], [noun.name for noun in NOUNS].index("bag")
    for number, verb in enumerate(VERBS):
        action = dataclasses.replace(first, verb=number, noun=noun)
        bags[verb.name] = frozenset(
            renderer.compose(
                [(action, layer) for layer in renderer.layers(action, step / 16)], renderer.still_camera(action)
            ).tobytes()
            for step in range(17)
        )
    assert len(set(bags.values())) == 14
    assert len(ORDER_FREE_VERBS) == len({bags[name] for name in ORDER_FREE_VERBS}) == 14
    assert {"take", "open", "cut"} <= set(ORDER_FREE_VERBS) and not {"put", "close"} & set(ORDER_FREE_VERBS)


# ---------------------------------------------------------------------------------------------------------- narrations


def test_plain_narrations_say_verb_and_noun_alone():
    said = narrations(SyntheticConfig(synonyms=0.0, quirk_share=0.0, **NO_EXTRAS))
    assert len(said) > 400
    for world, _, action, narration in said:
        verb, noun = world.verbs[action.verb].words[0][0], world.nouns[action.noun].words[0]
        assert narration.text == f"#C C {verb} the {noun}"


def test_quirks_are_told_in_plain_words_too():
    texts = [narration.text for *_, narration in narrations(SyntheticConfig(quirk_share=0.5, **NO_EXTRAS))]
    openings = Counter("#O" if text.startswith("#O") else "#C" for text in texts)
    assert all(re.fullmatch(r"#(C C|O A man X) [a-z ]+ the [a-z]+", text) for text in texts)
    assert 0.05 < openings["#O"] / len(texts) < 0.15


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_each_share_of_what_is_said(share):
    """One at a time, on plain narrations; what is said is what is seen."""
    colours = "|".join(PALETTE)
    plain = SyntheticConfig(quirk_share=0.0, **NO_EXTRAS)
    for option, pattern, truth in (
        ("colour_share", rf" the ({colours}) ", lambda world, script, a: world.looks[a.noun][a.look].colour),
        ("hand_share", r" with the (right|left) hand$", lambda _, __, a: {1: "right", -1: "left"}[a.staging.side]),
        ("place_share", r" on the (\w+)$", lambda _, script, a: script.places[a.station]),
    ):
        found = []
        for world, script, action, narration in narrations(dataclasses.replace(plain, **{option: share})):
            match = re.search(pattern, narration.text)
            found.append(match is not None)
            assert match is None or match[1] == truth(world, script, action)
            assert match or re.fullmatch(r"#C C [a-z ]+ the [a-z]+", narration.text)
        assert np.mean(found) == pytest.approx(share, abs=0.06) and (share < 1 or all(found)), option


def test_habits_by_half():
    """Half of the narrations become plain, the others and all labels stay as they were."""
    shares = {"colour_share": 0.0, "hand_share": 0.0, "place_share": 0.0}
    before, half = (narrations(SyntheticConfig(**shares, habit_share=share)) for share in (1.0, 0.5))
    changed = 0
    for (*_, was), (*_, now) in zip(before, half):
        plain = re.fullmatch(r"#(C C|O A man X) [a-z ]+ the [a-z]+", now.text)
        assert now.text == was.text or plain
        changed += now.text != was.text
        assert dataclasses.replace(was, text="") == dataclasses.replace(now, text="")
    assert 0.3 < changed / len(half) < 0.5


# -------------------------------------------------------------------------------------------------------------- labels


def has_noun(action):
    frames = {frame["frame_type"]: frame for frame in action["frames"] or []}
    boxes = frames.get("pnr_frame", {"boxes": []})["boxes"]
    return any(box["structured_noun"] for box in boxes if box["object_type"] == "object_of_change")


@pytest.mark.parametrize("share", [0.0, 0.06, 0.6])
def test_labels_that_are_missing(share):
    actions = fho_actions(SyntheticConfig(quirk_share=0.0, unlabelled_share=share))
    count, verbs = len(actions), Counter(action["structured_verb"] for action in actions)
    spread = 3 * (share / count) ** 0.5
    assert verbs["[other]"] / count == pytest.approx(share / 3, abs=spread)
    assert verbs[None] / count == pytest.approx(share / 6, abs=spread)
    # Half of the share has no noun, and half as many as the share no frame to have it in.
    expected = 1 - (1 - share / 2) * (1 - share / 2)
    assert np.mean([not has_noun(action) for action in actions]) == pytest.approx(expected, abs=spread)


@pytest.mark.parametrize("share, expected", [(0.0, set()), (0.01, {"[other]"})])
def test_taxonomy_has_what_may_occur(tmp_path, share, expected):
    make_synthetic_dataset(tmp_path, dataclasses.replace(TINY, unlabelled_share=share, verbs=("cut", "mix")))
    taxonomy = json.loads((tmp_path / "v2/annotations/fho_main_taxonomy.json").read_text())
    assert set(taxonomy["verbs"]) == {"cut_(trim,_slice,_chop)", "mix"} | expected


# ---------------------------------------------------------------------------------------------------- scene and camera


@pytest.mark.parametrize("fewest, most", [(0, 0), (0, 2), (3, 6), (8, 8)])
def test_number_of_distractors(monkeypatch, fewest, most):
    on_tables = []
    monkeypatch.setattr(scenery, "draw_object", lambda *args: on_tables.append(args) or draw_object(*args))
    world = World(dataclasses.replace(TINY, num_distractors=(fewest, most)))
    lay_out, counts = scenery._lay_out, []

    def counting(*args):
        before = len(on_tables)
        lay_out(*args)
        counts.append(len(on_tables) - before)

    monkeypatch.setattr(scenery, "_lay_out", counting)
    for number in range(12):
        scenery.paint_scenery(world, write_script(world, number))
    assert len(counts) == 48 and set(counts) == set(range(fewest, most + 1))


def alone(config, time=None):
    """How much of each pixel an object covers that is all there is to see, from 0 to 1, and the box noted for it."""
    world = World(config)
    renderer = Renderer(world, write_script(world, 0))
    first = renderer.script.actions[0]
    action = dataclasses.replace(first, staging=Staging(size=0.25), noun=[noun.name for noun in NOUNS].index("ball"))
    camera = renderer.still_camera(action) if time is None else renderer.camera(time)
    layer = Layer("object", 0.0, 0.0)
    canvas, seen = scenery.paint_scenery(world, renderer.script), []
    for background in ("white", "black"):
        renderer._scenery = Image.new("RGB", canvas.size, background)
        seen.append(renderer.compose([(action, layer)], camera).astype(float))
    return 1 - (seen[0] - seen[1]).mean(axis=-1) / 255, renderer.box(action, layer, time or 0.0)


@pytest.mark.parametrize("zoom", [1.6, 2.0, 2.5])
def test_zoom_shows_things_larger(zoom):
    options = dataclasses.replace(TINY, image_size=256)
    (before, _), (after, _) = alone(options), alone(dataclasses.replace(options, zoom=zoom))
    assert before.shape == after.shape == (256, 256)
    # A sprite is drawn up to half a pixel too wide, which counts for more on a small one.
    assert after.sum() / before.sum() == pytest.approx(zoom**2, rel=0.03)
    # It is all in view.
    assert max(after[[0, -1]].max(), after[:, [0, -1]].max()) < 0.01


@pytest.mark.parametrize("zoom", [1.0, 1.6, 2.5])
def test_boxes_follow_the_zoom(zoom):
    seen, box = alone(dataclasses.replace(TINY, image_size=128, zoom=zoom), time=1.5)
    rows, columns = np.flatnonzero(seen.max(axis=1) > 0.5), np.flatnonzero(seen.max(axis=0) > 0.5)
    # The ball leaves 6 % of its sprite free on each side; the camera's roll is not in the box.
    for pixels, start, length in ((columns, "x", "width"), (rows, "y", "height")):
        assert len(pixels) == pytest.approx(0.88 * box[length], abs=3)
        assert (pixels[0] + pixels[-1] + 1) / 2 == pytest.approx(box[start] + box[length] / 2, abs=2)


def test_zoom_is_drawn_and_not_blown_up():
    """A view from twice as close is the part of a picture twice as large that is 1/8 of its width below the middle."""
    near, far = (
        Renderer(world, write_script(world, 0))
        for world in (World(dataclasses.replace(TINY, zoom=2.0)), World(dataclasses.replace(TINY, image_size=128)))
    )
    for action in near.script.actions[:3]:
        for phase in (0.0, 0.4, 0.7):
            close, wide = (
                renderer.compose(
                    [(action, layer) for layer in renderer.layers(action, phase)], renderer.still_camera(action)
                )
                for renderer in (near, far)
            )
            assert close.shape == (64, 64, 3) and close.std() > 10
            np.testing.assert_allclose(close.astype(int), wide[48:112, 32:96].astype(int), atol=1)


def test_zoomed_objects_keep_their_labels():
    config = SyntheticConfig(quirk_share=0.0, unlabelled_share=0.0, verb_skew=0.0, image_size=64, zoom=2.0)
    for action in fho_actions(config, videos=4):
        assert has_noun(action)
        for frame in action["frames"]:
            for box in (box["bbox"] for box in frame["boxes"]):
                assert min(box.values()) >= 0
                assert box["x"] + box["width"] <= 64.1 and box["y"] + box["height"] <= 64.1


# ------------------------------------------------------------------------------------------- what is refused, commands


@pytest.mark.parametrize(
    "options, error",
    [
        ({"verbs": ("cut", "juggle")}, "verbs must be among take, put, open"),
        ({"verbs": ("cut", "juggle")}, "shake, turn, got 'juggle'"),
        ({"verbs": "cut"}, "verbs must be a tuple of names or None, got 'cut'"),
        ({"verbs": ("cut", 1)}, "verbs must be a tuple of names or None, got ('cut', 1)"),
        ({"verbs": ()}, "verbs must be at least one name, and each of them once, got ()"),
        ({"verbs": ("cut", "cut")}, "verbs must be at least one name, and each of them once, got ('cut', 'cut')"),
        ({"colour_share": 1.2}, "colour_share must be between 0 and 1, got 1.2"),
        ({"habit_share": -0.1}, "habit_share must be finite and not negative, got -0.1"),
        ({"unlabelled_share": "none"}, "unlabelled_share must be a number, got 'none'"),
        ({"hand_share": 0.7, "place_share": 0.5}, "place_share must be at most 1 with hand_share=0.7 added, got 0.5"),
        ({"num_distractors": 3}, "num_distractors must be a pair (fewest, most), got 3"),
        ({"num_distractors": (1, 2.5)}, "num_distractors must be a pair of integers, got (1, 2.5)"),
        ({"num_distractors": (4, 2)}, "with 0 <= fewest <= most <= 8, got (4, 2)"),
        ({"num_distractors": (0, 9)}, "with 0 <= fewest <= most <= 8, got (0, 9)"),
        ({"zoom": 0.5}, "zoom must be from 1 to 3, got 0.5"),
        ({"zoom": 4}, "zoom must be from 1 to 3, got 4"),
        ({"zoom": None}, "zoom must be a number, got None"),
    ],
)
def test_options_are_checked_by_name(options, error):
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        SyntheticConfig(**options)


TINY_RUN = ["--hours", "0.0033", "--video-sec", "12", "--image-size", "64", "--fps", "5"]


def test_command_makes_a_set_for_a_small_model(tmp_path):
    arguments = ["--order-free", "--plain", "--unlabelled-share", "0", "--quirk-share", "0", "--synonyms", "0"]
    arguments += ["--num-distractors", "0", "2", "--zoom", "1.6"]
    result = CliRunner().invoke(app, ["data", "synthetic", str(tmp_path), *TINY_RUN, *arguments])
    assert result.exit_code == 0, result.output
    options = json.loads((tmp_path / "synthetic/config.json").read_text())
    assert options["verbs"] == list(ORDER_FREE_VERBS) and options["num_distractors"] == [0, 2]
    assert options["zoom"] == 1.6 and not any(options[name] for name in (*NO_EXTRAS, "unlabelled_share"))
    rows = [json.loads(line) for line in (tmp_path / "synthetic/truth.jsonl").read_text().splitlines()]
    assert rows and {row["verb"] for row in rows} <= set(ORDER_FREE_VERBS)


def test_command_leaves_the_defaults_alone(tmp_path):
    result = CliRunner().invoke(
        app, ["data", "synthetic", str(tmp_path), *TINY_RUN, "--verbs", "mix", "--verbs", "cut"]
    )
    assert result.exit_code == 0, result.output
    expected = SyntheticConfig(hours=0.0033, video_sec=12, image_size=64, fps=5, verbs=("cut", "mix"))
    assert json.loads((tmp_path / "synthetic/config.json").read_text()) == expected.to_dict()


def test_command_takes_verbs_one_way(tmp_path):
    result = CliRunner().invoke(app, ["data", "synthetic", str(tmp_path), "--order-free", "--verbs", "cut"])
    assert result.exit_code != 0 and "--verbs and --order-free exclude each other" in result.output
    assert not any(tmp_path.iterdir())
