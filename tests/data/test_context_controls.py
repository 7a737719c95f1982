"""What shows whether a model learns from the clips of its context: left-out clips, balanced contexts, new words."""

from collections import Counter

import datasets
import numpy as np
import pytest
import torch

from transformers_eilev.data import (
    BalancedContextSampler,
    ContextSampler,
    DataCollatorForVideoNarration,
    InContextDataset,
    InContextSampler,
    PresampledContexts,
    write_contexts,
)


# ------------------------------------------------------------------------------------------------- balanced contexts

VERBS, NOUNS = ("", "[other]", "a", "b", "c", "d", "e"), ("", "v", "w", "x", "y", "z")


def actions_at_random(size, seed=0):
    """Words of very unequal frequency, so that some queries have a context and some don't."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet([0.6] * (len(VERBS) * len(NOUNS)))
    pairs = rng.choice(len(weights), size, p=weights)
    return [VERBS[pair % len(VERBS)] for pair in pairs], [NOUNS[pair // len(VERBS)] for pair in pairs]


def other_words(words, query, enough):
    """The long way: what else has the query's verb often enough, and what else its noun."""
    pairs = Counter(zip(*words))
    verb, noun = query
    nouns = {n for (v, n), number in pairs.items() if v == verb and n not in (noun, "") and number >= enough}
    verbs = {v for (v, n), number in pairs.items() if n == noun and v not in (verb, "", "[other]")}
    verbs = {v for v in verbs if pairs[v, noun] >= enough}
    return set() if noun == "" else verbs, set() if verb in ("", "[other]") else nouns


@pytest.mark.filterwarnings("ignore:For .* there is no balanced context")
@pytest.mark.parametrize("num_examples, num_distractors", [(2, 1), (5, 1), (8, 1), (7, 2), (8, 2), (8, 4), (11, 3)])
@pytest.mark.parametrize("of_another_set", [False, True])
def test_contexts_are_balanced_as_by_walking_through_all_actions(num_examples, num_distractors, of_another_set):
    words = actions_at_random(500)
    queries = actions_at_random(120, seed=1) if of_another_set else words
    if of_another_set:
        queries[0][:2], queries[1][:2] = ["unknown", "a"], ["x", "unknown"]
    sampler = BalancedContextSampler(
        *words,
        num_examples=num_examples,
        num_distractors=num_distractors,
        seed=3,
        queries=queries if of_another_set else None,
    )
    assert isinstance(sampler, ContextSampler)
    halves = {num_examples // 2, (num_examples + 1) // 2}
    enough = -(-max(halves) // num_distractors)
    index, larger_halves = 0, Counter()
    for row, query in enumerate(zip(*queries)):
        verbs, nouns = other_words(words, query, enough)
        if min(len(verbs), len(nouns)) < num_distractors:
            assert row in sampler.left_out
            continue
        assert sampler.query(index) == row
        rows = sampler.sample(index, epoch=index % 3)
        assert len(set(rows)) == len(rows) == num_examples
        pairs = [(words[0][row], words[1][row]) for row in rows]
        of_verb = Counter(noun for verb, noun in pairs if verb == query[0])
        of_noun = Counter(verb for verb, noun in pairs if noun == query[1])
        assert query not in pairs and of_verb.total() + of_noun.total() == num_examples
        assert of_verb.total() in halves and of_noun.total() in halves
        assert len(of_verb) == len(of_noun) == num_distractors
        assert set(of_verb) <= nouns and set(of_noun) <= verbs
        for numbers in (of_verb.values(), of_noun.values()):
            assert max(numbers) - min(numbers) <= 1
        larger_halves[of_verb.total() > of_noun.total()] += 1
        index += 1
    assert len(sampler) == index > 20 and len(sampler) + len(sampler.left_out) == len(queries[0])
    assert min(larger_halves.values()) > index / 4 if num_examples % 2 else set(larger_halves) == {False}


def majority_baseline(sampler, verbs, nouns, number):
    """How often the most frequent verb, noun and both of a context's text are the query's, ties being drawn."""
    right = np.zeros(3)
    for index in range(number):
        query, rows = sampler.query(index), sampler.sample(index)
        chances = []
        for words in (verbs, nouns):
            counts = Counter(words[row] for row in rows)
            most = [word for word, count in counts.items() if count == max(counts.values())]
            chances.append((words[query] in most) / len(most))
        right += [*chances, chances[0] * chances[1]]
    return right / number


def crossed(size, seed=0, num_verbs=8, num_nouns=9):
    rng = np.random.default_rng(seed)
    return rng.integers(num_verbs, size=size).tolist(), rng.integers(100, 100 + num_nouns, size=size).tolist()


def test_the_text_of_a_balanced_context_does_not_tell_the_answer():
    words = crossed(2000)
    assert majority_baseline(InContextSampler(*words, num_examples=8), *words, 1000)[2] > 0.95
    even = majority_baseline(BalancedContextSampler(*words, num_examples=8), *words, 1000)
    assert even.tolist() == [0.5, 0.5, 0.25]
    odd = majority_baseline(BalancedContextSampler(*words, num_examples=5), *words, 1000)
    # The verb's half is the larger one or the noun's is: one of them is right, and never both.
    assert odd[0] + odd[1] == 1 and abs(odd[0] - 0.5) < 0.05 and odd[2] == 0


def test_the_other_pair_would_have_the_same_context():
    """The same examples are as likely before (other verb, other noun): nothing of them tells which is asked about."""
    verbs, nouns = [0, 0, 1, 1] * 30, [5, 6, 5, 6] * 30
    sampler = BalancedContextSampler(verbs, nouns, num_examples=4)
    contexts = []
    for index in (0, 3):
        assert (verbs[index], nouns[index]) == ((0, 5), (1, 6))[index == 3]
        contexts.append(Counter(verbs[row] * 10 + nouns[row] for row in sampler.sample(index)))
    assert contexts == [{6: 2, 15: 2}] * 2


@pytest.mark.filterwarnings("ignore:For .* there is no balanced context")
def test_a_counterpart_is_an_action_that_there_is():
    """By the long way: which queries have one, and that each two of other words are drawn."""
    words = actions_at_random(500)
    pairs = Counter(zip(*words))
    sampler = BalancedContextSampler(*words, num_examples=4, counterpart=True)
    possible = {}
    for row, query in enumerate(zip(*words)):
        verbs, nouns = other_words(words, query, 2)
        possible[row] = {(verb, noun) for verb in verbs for noun in nouns if pairs[verb, noun]}
    assert sampler.left_out.tolist() == [row for row, both in possible.items() if not both]
    for index in range(0, len(sampler), 7):
        row = sampler.query(index)
        drawn = set()
        for epoch in range(150):
            context = Counter((words[0][other], words[1][other]) for other in sampler.sample(index, epoch))
            (noun,) = (noun for verb, noun in context if verb == words[0][row])
            (verb,) = (verb for verb, noun in context if noun == words[1][row])
            assert context == {(words[0][row], noun): 2, (verb, words[1][row]): 2}
            drawn.add((verb, noun))
        assert drawn == possible[row]


def test_queries_without_a_counterpart_are_left_out():
    verbs, nouns = ["a", "a", "b", "p", "p", "q", "q"], ["x", "y", "x", "s", "t", "s", "t"]
    message = "For 3 of 7 queries.*: 1 have a verb .*, 1 a noun .*; 1 more have no other verb and other noun"
    with pytest.warns(UserWarning, match=message):
        sampler = BalancedContextSampler(verbs, nouns, num_examples=2, counterpart=True)
    assert sampler.left_out.tolist() == [0, 1, 2]
    with pytest.warns(UserWarning, match="For 2 of 7 queries"):
        assert BalancedContextSampler(verbs, nouns, num_examples=2).left_out.tolist() == [1, 2]
    for words in ((["a", "a", "b"], ["x", "y", "x"]), ([], []), (["a"], ["x"])):
        with pytest.raises(ValueError, match=f"For {len(words[0]) or 1} of"):
            queries = None if words[0] else (["q"], ["x"])
            BalancedContextSampler(*words, num_examples=2, counterpart=True, queries=queries)


def test_every_other_word_and_action_is_as_likely():
    verbs, nouns = crossed(1500)
    sampler = BalancedContextSampler(verbs, nouns, num_examples=4, num_distractors=2)
    epochs, drawn = 4000, Counter()
    for epoch in range(epochs):
        drawn.update(sampler.sample(7, epoch))
    for mine, other, kinds in ((verbs, nouns, 8), (nouns, verbs, 7)):
        rows = [row for row in range(1500) if mine[row] == mine[7] and other[row] != other[7]]
        by_word = Counter()
        for row in rows:
            by_word[other[row]] += drawn[row]
        # Two of the eight other nouns, or of the seven other verbs, in each draw, with an example each.
        mean = epochs * 2 / kinds
        assert len(by_word) == kinds and max(abs(number - mean) for number in by_word.values()) < 4 * mean**0.5
        members = Counter(other[row] for row in rows)
        statistic = sum((drawn[row] - mean / members[other[row]]) ** 2 * members[other[row]] / mean for row in rows)
        assert abs(statistic - len(rows)) < 5 * (2 * len(rows)) ** 0.5
    first = Counter(verbs[sampler.sample(7, epoch)[0]] == verbs[7] for epoch in range(400))
    assert 140 < first[True] < 260, "the order is random"


def test_balanced_draws_come_from_seed_epoch_and_index():
    words = crossed(400)
    sampler = BalancedContextSampler(*words, num_examples=6, seed=3)
    forwards = [sampler.sample(index, 2) for index in range(100)]
    np.random.seed(99)
    again = BalancedContextSampler(np.array(words[0]), map(str, words[1]), num_examples=6, seed=3)
    assert [again.sample(index, 2) for index in reversed(range(100))] == forwards[::-1]
    assert [sampler.sample(index, 1) for index in range(100)] != forwards
    assert all(isinstance(row, int) for row in forwards[0])
    # A change here changes what was measured with them.
    assert [sampler.sample(index, epoch) for index, epoch in ((0, 0), (99, 1))] == [
        [13, 218, 238, 264, 308, 30],
        [21, 237, 75, 358, 389, 60],
    ]
    with pytest.raises(IndexError, match="400"):
        sampler.sample(400)


def test_a_balanced_draw_does_not_look_at_every_action():
    """By what it touches: a draw from a million actions allocates no more than one from ten thousand."""
    import tracemalloc

    peaks = []
    for size in (10_000, 1_000_000):
        sampler = BalancedContextSampler(*crossed(size, num_verbs=20, num_nouns=40), num_examples=8, num_distractors=2)
        sampler.sample(0)
        tracemalloc.start()
        for index in range(50):
            sampler.sample(index)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # An array over one pair's actions, of which there are a hundred times as many.
    assert peaks[1] < peaks[0] + 100_000, peaks


def test_queries_without_a_balanced_context_are_counted_and_left_out():
    verbs, nouns = ["a", "a", "b", "a", ""], ["x", "y", "x", "z", "x"]
    with pytest.warns(UserWarning, match=r"For 4 of 5 queries.* of 2 examples: 2 have a verb .* 2 a noun"):
        sampler = BalancedContextSampler(verbs, nouns, num_examples=2)
    assert len(sampler) == 1 and sampler.query(0) == 0 and sampler.left_out.tolist() == [1, 2, 3, 4]
    assert {frozenset(sampler.sample(0, epoch)) for epoch in range(20)} == {frozenset([1, 2]), frozenset([3, 2])}
    with pytest.raises(ValueError, match="For 5 of 5 queries.*of at least 2 actions.*fewer examples"):
        BalancedContextSampler(verbs, nouns, num_examples=4)
    for words in ((verbs, nouns), ([], [])):
        with pytest.raises(ValueError, match="For 1 of 1 queries"):
            BalancedContextSampler(*words, num_examples=2, queries=(["q"], ["x"]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_examples": 1}, "`num_examples` must be at least twice `num_distractors`, 2, but is 1"),
        ({"num_distractors": 2}, "`num_examples`"),
        ({"num_distractors": 0}, "`num_distractors`"),
        ({"num_distractors": 2, "num_examples": 4, "counterpart": True}, "`counterpart`"),
        ({"seed": -1}, "seed"),
        ({"queries": (["a"], [])}, "queries"),
        ({"nouns": ["x"]}, "nouns"),
    ],
)
def test_balanced_settings_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        BalancedContextSampler(**{"verbs": ["a", "b"], "nouns": ["x", "y"], "num_examples": 2, **arguments})


def test_balanced_contexts_can_be_written(tmp_path):
    words, queries = crossed(300), crossed(20, seed=1)
    sampler = BalancedContextSampler(*words, num_examples=2, queries=queries)
    names, query_names = [f"c|{i}" for i in range(300)], [f"q|{i}" for i in range(20)]
    write_contexts(tmp_path / "contexts.jsonl", sampler, names, query_names)
    loaded = PresampledContexts.from_jsonl(tmp_path / "contexts.jsonl", names, query_names)
    assert loaded.contexts == [sampler.sample(index) for index in range(20)]


# ----------------------------------------------------------------------------------------------------- left-out clips


def actions_of(number, **frames):
    return [
        {
            "frame_path": f"v|{i}",
            "narration_text": f"#C C {['opens', 'cuts'][i % 2]} a {['cup', 'box', 'pan'][i % 3]} {i} times",
            "structured_verb": ["open", "cut"][i % 2],
            "structured_noun": ["cup", "box", "pan"][i % 3],
            **{name: values[i] for name, values in frames.items()},
        }
        for i in range(number)
    ]


def dataset_of(actions, **arguments):
    words = ([action[name] for action in actions] for name in ("structured_verb", "structured_noun"))
    return InContextDataset(actions, InContextSampler(*words, num_examples=2, seed=1), **arguments)


@pytest.mark.parametrize("demonstration_clips", [True, False])
@pytest.mark.parametrize("query_clip", [True, False])
def test_clips_are_left_out_and_all_else_is_the_same(demonstration_clips, query_clip):
    loaded = []

    def load(row):
        loaded.append(row["frame_path"])
        return row["frame_path"]

    options = {"load_clip": load, "transform": lambda clip, rng: (clip, rng.random())}
    actions = actions_of(6)
    plain = dataset_of(actions, **options)
    control = dataset_of(actions, demonstration_clips=demonstration_clips, query_clip=query_clip, **options)
    for index in range(6):
        before = plain[index]
        loaded.clear()
        after = control[index]
        shown = [demonstration_clips] * 2 + [query_clip]
        # With what was drawn for each.
        clips = [clip for clip, is_shown in zip(before.pop("videos"), shown) if is_shown]
        assert after.pop("videos") == clips
        assert loaded == [name for name, _ in clips]
        assert after["text"] == [
            block if is_shown else block.removeprefix("<video>")
            for block, is_shown in zip(before.pop("text"), shown, strict=True)
        ]
        del after["text"]
        assert after == before
        assert len(before["in_context_frame_paths"]) == 2 and before["text_target"].startswith("The camera wearer")


def test_left_out_clips_are_not_decoded():
    """Nor those of rows that are read for their text alone: a damaged picture does not matter."""
    good = datasets.Image().encode_example(np.zeros((8, 8, 3), np.uint8))
    frames = [[good if i == 0 else {"bytes": b"no picture", "path": None}] for i in range(3)]
    features = {name: datasets.Value("string") for name in actions_of(1)[0]} | {"frames": [datasets.Image()]}
    actions = datasets.Dataset.from_list(actions_of(3, frames=frames), features=datasets.Features(features))
    sampler = PresampledContexts([[1, 2]], [0])
    sample = InContextDataset(actions, sampler, demonstration_clips=False)[0]
    assert [clip[0].size for clip in sample["videos"]] == [(8, 8)]
    assert sample["in_context_frame_paths"] == ["v|1", "v|2"]
    sampler = PresampledContexts([[0, 0]], [1])
    assert len(InContextDataset(actions, sampler, query_clip=False)[0]["videos"]) == 2


def test_clips_that_are_left_out_cannot_be_exchanged():
    with pytest.raises(ValueError, match="`derange_clips`.*`demonstration_clips=False`"):
        dataset_of(actions_of(6), derange_clips=True, demonstration_clips=False)
    sample = dataset_of(actions_of(6), derange_clips=True, query_clip=False, load_clip=lambda row: row["frame_path"])[
        0
    ]
    assert sample["videos"] == sample["in_context_frame_paths"][::-1]


@pytest.mark.parametrize("layout", ["interleaved", "prepended"])
def test_batches_of_controls_go_through_the_model(golden, layout):
    """With as many clips as are left, and with none at all, which is a text alone."""
    processor = getattr(golden, layout)
    actions = actions_of(6, frames=[golden.videos[i % 3][:2] for i in range(6)])
    collate = DataCollatorForVideoNarration(processor)
    lengths = {}
    for demonstrations, query in ((True, True), (False, True), (True, False), (False, False)):
        options = {"demonstration_clips": demonstrations, "query_clip": query}
        dataset = dataset_of(actions, **options)
        batch = collate([dataset[0], dataset[3]])
        num_clips = 2 * (2 * demonstrations + query)
        assert len(batch["pixel_values"]) == num_clips if num_clips else "pixel_values" not in batch
        tokens = (batch["input_ids"] == processor.video_token_id).sum(-1)
        assert tokens.tolist() == [num_clips // 2 * processor.num_query_tokens] * 2
        with torch.no_grad():
            loss = golden.model(**batch).loss
            prompts = collate([dataset_of(actions, with_target=False, **options)[i] for i in (0, 3)])
            said = golden.model.generate(**prompts, max_new_tokens=2, num_beams=1)
        assert torch.isfinite(loss) and len(said) == 2
        lengths[demonstrations, query] = loss.item()
    assert len(set(lengths.values())) == 4, "each clip that is left out changes what the model is given"
    text = dataset_of(actions, demonstration_clips=False, query_clip=False)[0]
    expected = processor.encode(text["text"], text["text_target"])
    assert collate([text])["input_ids"][0].tolist() == expected["input_ids"]


# ---------------------------------------------------------------------------------------------------------- new words


def test_a_hook_sees_the_episode_and_words_it_anew():
    seen = []

    def rename(narrations, rows, rng):
        seen.append((narrations, [row["frame_path"] for row in rows], rng.random()))
        return [f"{narration} {place}" for place, narration in enumerate(narrations)]

    arguments = {"load_clip": lambda row: row["frame_path"], "prompts": ["A?"]}
    plain, dataset = dataset_of(actions_of(6), **arguments), dataset_of(actions_of(6), rename=rename, **arguments)
    before, sample = plain[2], dataset[2]
    narrations, names, first = seen[0]
    assert (
        narrations
        == plain.narrations(2)
        == [block[len("<video>A? ") :] for block in before["text"][:2]] + [before["text_target"]]
    )
    assert names == [*sample["in_context_frame_paths"], "v|2"]
    assert sample["text"] == [before["text"][0] + " 0", before["text"][1] + " 1", "<video>A?"]
    assert sample["text_target"] == before["text_target"] + " 2"
    assert dataset.narrations(2) == [f"{narration} {place}" for place, narration in enumerate(narrations)]
    assert seen[1] == seen[0]
    dataset[3], dataset.set_epoch(1), dataset[2]
    assert len({number for _, _, number in seen}) == 3
    assert all(sample[name] == before[name] for name in ("videos", "in_context_frame_paths", "frame_path"))


@pytest.mark.parametrize("returned", [["one"], "abc", None, [1, 2, 3]])
def test_what_a_hook_returns_is_checked(returned):
    dataset = dataset_of(actions_of(6), rename=lambda *_: returned, load_clip=lambda row: None)
    with pytest.raises(ValueError, match=r"`rename` must.*each of 3 narrations.*'v\|2'"):
        dataset[2]
