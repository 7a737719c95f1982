"""Contexts: composed as the original composes them, drawn from (seed, epoch, index) and nothing else."""

import gzip
import json
import multiprocessing
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from torch.utils.data import DataLoader

from transformers_eilev.data.in_context import (
    ContextSampler,
    InContextDataset,
    InContextSampler,
    PresampledContexts,
    build_blocks,
    derangement,
    upsample,
    write_contexts,
)
from transformers_eilev.data.narrations import PROMPTS, clean_narration_text


FIXTURES = Path(__file__).parents[1] / "fixtures" / "data" / "sampling"


@pytest.fixture(scope="module")
def golden():
    """Numbers of the original: how many examples of which kind it drew for each query."""
    return json.loads(gzip.decompress((FIXTURES / "composition.json.gz").read_bytes()))


def words_of(golden, name):
    actions = golden["actions"][name]
    return actions["verbs"], actions["nouns"]


def kinds(rows, context, verb, noun):
    """Of drawn rows: same verb and other noun, other verb and same noun, neither, both."""
    counts = [0, 0, 0, 0]
    for row in rows:
        same_verb = context[0][row] == verb and verb not in ("", "[other]")
        same_noun = context[1][row] == noun and noun != ""
        counts[{(True, False): 0, (False, True): 1, (False, False): 2, (True, True): 3}[same_verb, same_noun]] += 1
    return counts


def zipf(size, num_words, rng):
    weights = 1 / np.arange(1, num_words + 1)
    return rng.choice(num_words, size, p=weights / weights.sum()).tolist()


# -------------------------------------------------------------------------------------------------------- composition


def test_composition_is_the_originals(golden):
    assert len(golden["configs"]) == 45
    for config in golden["configs"]:
        queries = words_of(golden, config["main"])
        context = words_of(golden, config["in_context"] or config["main"])
        sampler = InContextSampler(
            *context,
            num_examples=config["k"],
            verb_noun_ratio=config["verb_noun_ratio"],
            seed=1,
            queries=queries if config["in_context"] else None,
        )
        assert len(sampler) == len(config["counts"])
        for index, expected in enumerate(config["counts"]):
            rows = sampler.sample(index)
            case = (config["main"], config["in_context"], config["k"], config["verb_noun_ratio"], index)
            assert kinds(rows, context, queries[0][index], queries[1][index]) == expected, case
            assert len(set(rows)) == len(rows), case
            pairs = [(context[0][row], context[1][row]) for row in rows]
            assert (queries[0][index], queries[1][index]) not in pairs, case
            assert config["in_context"] or index not in rows, case


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.77])
@pytest.mark.parametrize("num_examples", [3, 8, 40])
def test_composition_as_by_walking_through_all_actions(ratio, num_examples):
    """With sizes and ratios that the golden numbers lack, against sets of candidates gathered the long way."""
    rng = np.random.default_rng(5)
    verbs = [("", "[other]", "a", "b", "c", "d")[i] for i in zipf(150, 6, rng)]
    nouns = [("x", "", "y", "z")[i] for i in zipf(150, 4, rng)]
    sampler = InContextSampler(verbs, nouns, num_examples=num_examples, verb_noun_ratio=ratio)
    everything = range(150)
    for index in everything:
        verb, noun = verbs[index], nouns[index]
        by_verb = {i for i in everything if verbs[i] == verb and nouns[i] != noun and verb not in ("", "[other]")}
        by_noun = {i for i in everything if nouns[i] == noun and verbs[i] != verb and noun}
        others = {i for i in everything if (verbs[i], nouns[i]) != (verb, noun)} - by_verb - by_noun
        drawn = set(sampler.sample(index))
        assert drawn <= by_verb | by_noun | others
        num_verb, num_noun = len(drawn & by_verb), len(drawn & by_noun)
        assert len(drawn) == min(num_examples, len(by_verb | by_noun | others))
        assert num_verb + num_noun == min(num_examples, len(by_verb) + len(by_noun))
        wanted = int(num_examples * ratio)
        if len(by_verb) >= num_examples and len(by_noun) >= num_examples:
            assert (num_verb, num_noun) == (wanted, num_examples - wanted)


@pytest.mark.parametrize("tops_up", [False, True])
def test_every_candidate_is_as_likely(golden, tops_up):
    """Chi-square over many epochs, for a query that draws from its verb's and noun's actions, and one that tops up."""
    verbs, nouns = words = words_of(golden, "main")
    sampler = InContextSampler(verbs, nouns, num_examples=12, seed=7)
    drawn_kinds = [kinds(sampler.sample(index), words, verbs[index], nouns[index]) for index in range(200)]
    index = next(i for i, counts in enumerate(drawn_kinds) if counts[2] > 3 or (not tops_up and counts[:2] == [6, 6]))
    epochs = 3000
    drawn = Counter(row for epoch in range(epochs) for row in sampler.sample(index, epoch))
    by_kind = {}
    for row in range(len(verbs)):
        kind = kinds([row], words, verbs[index], nouns[index]).index(1)
        if (verbs[row], nouns[row]) != (verbs[index], nouns[index]):
            by_kind.setdefault(kind, []).append(drawn[row])
    assert [sum(by_kind.get(kind, [])) for kind in range(4)] == [epochs * count for count in drawn_kinds[index]]
    for kind, numbers in by_kind.items():
        mean = np.mean(numbers)
        if mean in (0, epochs):
            continue  # not drawn from, or all of them always
        # A place is taken or not, and the places of a draw are different ones: the variance of a hypergeometric draw.
        statistic = sum((number - mean) ** 2 for number in numbers) / (mean * (1 - mean / epochs))
        freedom = len(numbers)
        assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5, kind


def test_order_of_a_context_is_random(golden):
    verbs, nouns = words_of(golden, "main")
    sampler = InContextSampler(verbs, nouns, num_examples=4)
    index = next(i for i in range(200) if kinds(sampler.sample(i), (verbs, nouns), verbs[i], nouns[i]) == [2, 2, 0, 0])
    first = Counter(verbs[sampler.sample(index, epoch)[0]] == verbs[index] for epoch in range(400))
    assert 140 < first[True] < 260


def test_random_contexts(golden):
    for case in golden["random"]:
        context = words_of(golden, case["in_context"] or case["main"])
        queries = words_of(golden, case["main"])
        arguments = {
            "num_examples": case["k"],
            "random": True,
            "queries": queries if case["in_context"] else None,
        }
        if not case["distinct_examples_per_query"]["ok"]:
            with pytest.raises(ValueError, match="`num_examples` is 9, but there are 8 actions"):
                InContextSampler(*context, **arguments)
            continue
        sampler = InContextSampler(*context, **arguments)
        sizes = {len(set(sampler.sample(index))) for index in range(len(sampler))}
        assert sorted(sizes) == case["distinct_examples_per_query"]["value"]
        if not case["in_context"]:
            assert all(index not in sampler.sample(index) for index in range(len(sampler)))


def test_random_contexts_draw_from_all_but_the_query():
    sampler = InContextSampler(["a"] * 5, ["x"] * 5, num_examples=2, random=True)
    drawn = Counter(row for epoch in range(500) for row in sampler.sample(2, epoch))
    assert set(drawn) == {0, 1, 3, 4}
    assert min(drawn.values()) > 190


# ------------------------------------------------------------------------------------------------------ reproduction


def test_draws_come_from_seed_epoch_and_index(golden):
    words = words_of(golden, "main")
    sampler = InContextSampler(*words, num_examples=4, seed=3)
    forwards = [sampler.sample(index, 2) for index in range(200)]
    np.random.seed(99)
    again = InContextSampler(*words, num_examples=4, seed=3)
    assert [again.sample(index, 2) for index in reversed(range(200))] == forwards[::-1]
    assert [sampler.sample(index, 1) for index in range(200)] != forwards
    assert [InContextSampler(*words, num_examples=4, seed=4).sample(index, 2) for index in range(200)] != forwards
    assert all(isinstance(row, int) for row in forwards[0])


def test_draws_are_these_on_every_machine(golden):
    """A change here changes the training data of every run that is resumed."""
    sampler = InContextSampler(*words_of(golden, "main"), num_examples=8, seed=42)
    assert [sampler.sample(index, epoch) for index, epoch in ((0, 0), (14, 3), (199, 1))] == [
        [83, 168, 3, 56, 89, 49, 61, 123],
        [159, 25, 158, 146, 7, 48, 12, 143],
        [111, 147, 143, 35, 32, 37, 103, 16],
    ]
    spread = InContextSampler(*words_of(golden, "main"), num_examples=8, seed=42, target_length=300)
    assert [spread.query(index) for index in (200, 250, 299)] == [125, 77, 180]


def test_words_may_come_in_any_form(golden):
    verbs, nouns = words_of(golden, "main")
    expected = InContextSampler(verbs, nouns, num_examples=4).sample(5)

    def column(words):
        return datasets.Dataset.from_dict({"words": words})["words"]

    for convert in (np.array, pa.array, tuple, column, iter, lambda words: [word or None for word in words]):
        assert InContextSampler(convert(verbs), convert(nouns), num_examples=4).sample(5) == expected
    classes = InContextSampler([0, 0, 1, 1, 2], [5, 6, 5, 7, 8], num_examples=2)
    assert sorted(classes.sample(0)) == [1, 2]


def test_a_draw_does_not_look_at_every_action():
    """By what it touches: a draw from a million actions allocates no more than one from ten thousand."""
    import tracemalloc

    rng = np.random.default_rng(0)
    peaks = []
    for size in (10_000, 1_000_000):
        sampler = InContextSampler(zipf(size, 117, rng), zipf(size, 521, rng), num_examples=16)
        sampler.sample(0)
        tracemalloc.start()
        for index in range(50):
            sampler.sample(index)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000, peaks


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_examples": -1}, "num_examples"),
        ({"verb_noun_ratio": 1.5}, "verb_noun_ratio"),
        ({"seed": -1}, "seed"),
        ({"queries": (["a"], [])}, "queries"),
        ({"nouns": ["x"]}, "nouns"),
    ],
)
def test_settings_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        InContextSampler(**{"verbs": ["a", "b"], "nouns": ["x", "y"], "num_examples": 1, **arguments})


def test_samples_that_are_not_there_are_errors():
    sampler = InContextSampler(["a", "b"], ["x", "y"], num_examples=1)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=str(index)):
            sampler.sample(index)


# -------------------------------------------------------------------------------------------------------- upsampling


def test_upsampling_reaches_its_target(golden):
    """The original gives every pair as many more, and misses its target by the remainder: 240 gives 200."""
    verbs, nouns = words_of(golden, "main")
    missed = 0
    for case in golden["target_dataset_len"]:
        if case["target"] is None:
            continue
        rows = upsample(verbs, nouns, case["target"], seed=2)
        assert len(rows) == max(case["target"], 200)
        assert rows[:200].tolist() == list(range(200))
        pairs = Counter((verbs[row], nouns[row]) for row in rows)
        originals = {(verb, noun): number for verb, noun, number in case["pair_counts"]}
        assert set(pairs) == set(originals)
        assert {pairs[pair] - number for pair, number in originals.items()} <= {0, 1}
        missed += len(rows) != case["len"]
        # Within a pair, none a third time before all are there twice.
        copies = Counter(rows.tolist())
        for pair in originals:
            numbers = [copies[row] for row in range(200) if (verbs[row], nouns[row]) == pair]
            assert max(numbers) - min(numbers) <= 1
    assert missed == 6


def test_upsampled_queries_get_contexts_of_their_own(golden):
    words = words_of(golden, "main")
    sampler = InContextSampler(*words, num_examples=4, target_length=300)
    assert len(sampler) == 300
    index, query = 250, sampler.query(250)
    assert [sampler.query(i) for i in range(200)] == list(range(200))
    assert sampler.sample(index) != sampler.sample(query)
    assert kinds(sampler.sample(index), words, words[0][query], words[1][query]) == kinds(
        sampler.sample(query), words, words[0][query], words[1][query]
    )
    assert max(row for i in range(300) for row in sampler.sample(i)) < 200
    with pytest.raises(ValueError, match="no action"):
        upsample([], [], 3)


# ------------------------------------------------------------------------------------------------- presampled queries


def presampled():
    content = json.loads((FIXTURES / "presampled.json").read_text())
    return content["actions"], content["presampled"]


def test_presampled_contexts_are_the_originals():
    actions, expected = presampled()
    names = [action["frame_path"] for action in actions]
    sampler = PresampledContexts.from_jsonl(FIXTURES / "query_map.jsonl", names)
    assert isinstance(sampler, ContextSampler) and len(sampler) == 3
    samples = [[names[row] for row in [*sampler.sample(i, epoch=i), sampler.query(i)]] for i in range(3)]
    assert samples == expected


def test_contexts_written_are_contexts_read(golden, tmp_path):
    words, queries = words_of(golden, "in_context"), words_of(golden, "main")
    names, query_names = [f"c|{i}" for i in range(60)], [f"q|{i}" for i in range(200)]
    sampler = InContextSampler(*words, num_examples=4, queries=queries)
    write_contexts(tmp_path / "contexts.jsonl", sampler, names, query_names, epoch=3)
    loaded = PresampledContexts.from_jsonl(tmp_path / "contexts.jsonl", names, query_names)
    assert loaded.contexts == [sampler.sample(index, 3) for index in range(200)]
    assert loaded.queries == list(range(200))
    assert [path.name for path in tmp_path.iterdir()] == ["contexts.jsonl"]


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"context": ["a|0"], "query": "b|7"}', r"line 2: `query` names 'b\|7'"),
        ('{"context": ["a|9"], "query": "a|1"}', r"line 2: `context` names 'a\|9'"),
        ('{"context": "a|0", "query": "a|1"}', "line 2: `context` must be"),
        ('{"context": ["a|0"]}', "line 2: `query` must be"),
        ("[1]", "line 2: `query` must be"),
        ('{"context": ["a|0"], "que', "line 2: no JSON"),
    ],
)
def test_lines_that_are_no_queries_are_named(line, message, tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text('{"context": ["a|0"], "query": "a|1"}\n' + line)
    with pytest.raises(ValueError, match=message) as error:
        PresampledContexts.from_jsonl(path, ["a|0", "a|1"])
    assert str(path) in str(error.value)


# -------------------------------------------------------------------------------------------------------- derangement


def test_derangements_leave_nothing_in_its_place_and_are_as_likely():
    rng = np.random.default_rng(0)
    drawn = Counter(tuple(derangement(4, rng)) for _ in range(1800))
    assert len(drawn) == 9, "all there are"
    assert all(place != value for order in drawn for place, value in enumerate(order))
    assert min(drawn.values()) > 140
    assert derangement(0, rng) == []
    assert derangement(2, rng) == [1, 0]


def test_a_single_example_cannot_be_deranged_and_does_not_loop_for_ever():
    """As it does in the original."""
    with pytest.raises(ValueError, match="single clip"):
        derangement(1, np.random.default_rng(0))
    actions, _ = presampled()
    with pytest.raises(ValueError, match="`num_examples` is 1"):
        dataset_of(actions, derange_clips=True, num_examples=1)
    with pytest.raises(ValueError, match="1 of 2 contexts have a single example, sample 1 first"):
        InContextDataset(actions, PresampledContexts([[1, 2], [1]], [0, 0]), derange_clips=True)


def test_deranged_samples_change_the_clips_of_the_context_alone():
    actions, expected = presampled()
    names = [action["frame_path"] for action in actions]
    sampler = PresampledContexts.from_jsonl(FIXTURES / "query_map.jsonl", names)
    plain, deranged = (
        InContextDataset(actions, sampler, load_clip=lambda row: row["frame_path"], derange_clips=value)
        for value in (False, True)
    )
    for index in range(3):
        before, after = plain[index], deranged[index]
        assert before["videos"] == expected[index]
        assert {name: value for name, value in before.items() if name != "videos"} == {
            name: value for name, value in after.items() if name != "videos"
        }
        assert sorted(after["videos"][:-1]) == sorted(before["videos"][:-1])
        assert after["videos"][-1] == before["videos"][-1]
        assert all(a != b for a, b in zip(after["videos"][:-1], before["videos"][:-1]))


# ------------------------------------------------------------------------------------------------------------ samples


def load_name(row):
    return row["frame_path"]


def dataset_of(actions, num_examples=2, **arguments):
    words = [action["structured_verb"] for action in actions], [action["structured_noun"] for action in actions]
    sampler = InContextSampler(*words, num_examples=num_examples, seed=1)
    return InContextDataset(actions, sampler, load_clip=load_name, **arguments)


def test_samples_say_what_the_collator_needs():
    actions, _ = presampled()
    by_name = {action["frame_path"]: action for action in actions}
    dataset = dataset_of(actions)
    assert len(dataset) == 5
    for index in range(5):
        sample = dataset[index]
        names = [*sample["in_context_frame_paths"], sample["frame_path"]]
        assert sample["videos"] == names
        assert names[-1] == actions[index]["frame_path"]
        narrations = [clean_narration_text(by_name[name]["narration_text"]) for name in names]
        assert sample["text_target"] == narrations[-1]
        for block, narration in zip(sample["text"], [*narrations[:-1], None]):
            question = block.removeprefix("<video>")
            question = question if narration is None else question.removesuffix(f" {narration}")
            assert question in PROMPTS
    assert "text_target" not in dataset_of(actions, with_target=False)[0]


def test_questions_are_drawn_for_each_clip_and_epoch():
    actions, _ = presampled()
    dataset = dataset_of(actions, prompts=["A?", "B?"])
    first = [block[:9] for index in range(5) for block in dataset[index]["text"]]
    assert set(first) == {"<video>A?", "<video>B?"}
    dataset.set_epoch(1)
    assert first != [block[:9] for index in range(5) for block in dataset[index]["text"]]
    assert dataset_of(actions, prompts=["A?"])[0]["text"][-1] == "<video>A?"
    for prompts in ([], "A?"):
        with pytest.raises(ValueError, match="prompts"):
            dataset_of(actions, prompts=prompts)


def test_transforms_get_randomness_of_their_own():
    actions, _ = presampled()
    dataset = dataset_of(actions, transform=lambda clip, rng: (clip, rng.random()))
    videos = dataset[1]["videos"]
    assert videos == dataset[1]["videos"]
    assert len({number for _, number in videos}) == 3
    dataset.set_epoch(1)
    assert {number for _, number in videos}.isdisjoint({number for _, number in dataset[1]["videos"]})


def test_what_is_drawn_for_a_clip_is_its_own():
    """However much is drawn for the clips before it, and whatever they are."""
    actions, _ = presampled()
    plain = dataset_of(actions, transform=lambda clip, rng: rng.random(3).tolist())
    greedy = dataset_of(actions, transform=lambda clip, rng: rng.random(3).tolist() + rng.random(len(clip)).tolist())
    assert [clip[:3] for clip in greedy[0]["videos"]] == plain[0]["videos"]
    assert len({str(clip) for index in range(5) for clip in plain[index]["videos"]}) == 15


def test_clips_may_be_something_else():
    actions, _ = presampled()
    sample, other = dataset_of(actions, clips_as="vision_hidden_states")[0], dataset_of(actions)[0]
    assert sample.pop("vision_hidden_states") == other.pop("videos")
    assert sample == other
    with pytest.raises(ValueError, match="clips_as.*'frames'"):
        dataset_of(actions, clips_as="frames")


def test_contexts_of_another_data_set():
    actions, _ = presampled()
    others = [{**action, "frame_path": f"other|{i}"} for i, action in enumerate(actions)]
    dataset = InContextDataset(
        actions, PresampledContexts([[4, 2]], [1]), context_actions=others, load_clip=load_name, prompts=["A?"]
    )
    assert dataset[0]["videos"] == ["other|4", "other|2", "video_b|1"]


def test_a_row_without_frames_is_named():
    actions, _ = presampled()
    dataset = InContextDataset(actions, PresampledContexts([[]], [0]))
    with pytest.raises(ValueError, match=r"video_a\|0.*load_clip"):
        dataset[0]
    assert InContextDataset([{**actions[0], "frames": "some"}], PresampledContexts([[]], [0]))[0]["videos"] == ["some"]


def same(features):
    return features


@pytest.mark.parametrize("start_method, num_workers", [("fork", 2), ("spawn", 1)])
def test_workers_give_the_same_samples_in_every_epoch(start_method, num_workers):
    """Those that persist, too: they hold the copy of the data set that they began with."""
    if start_method not in multiprocessing.get_all_start_methods():
        pytest.fail(f"This test needs the start method {start_method!r}")
    actions, _ = presampled()
    dataset = dataset_of(actions)
    alone = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        alone.append([dataset[index] for index in range(5)])
    assert alone[0] != alone[1]
    loader = DataLoader(
        dataset_of(actions),
        batch_size=2,
        num_workers=num_workers,
        persistent_workers=True,
        collate_fn=same,
        multiprocessing_context=start_method,
    )
    for epoch in range(2):
        loader.dataset.set_epoch(epoch)
        assert [sample for batch in loader for sample in batch] == alone[epoch]


def test_blocks():
    assert build_blocks(["A?", "B?"], ["One."]) == ["<video>A? One.", "<video>B?"]
    with pytest.raises(ValueError, match="1 prompts for 1 narrations"):
        build_blocks(["A?"], ["One."])
