"""What is asked: the same clips for all numbers of shots and conditions, and contexts as they are promised."""

import json
from collections import Counter

import datasets
import pytest
from made_clips import NOUNS, VERBS, make_clips, make_rows

from transformers_eilev.data import InContextSampler
from transformers_eilev.evaluation.conditions import CONDITIONS, find_condition
from transformers_eilev.evaluation.queries import EvaluationQueries


IN_CONTEXT = CONDITIONS["in_context"]


def clips_of(rows):
    return datasets.Dataset.from_list(rows)


@pytest.fixture(scope="module")
def clips():
    return clips_of(make_rows(80))


def expected_of(queries, samples):
    return queries.expected(samples, [samples.narrations(index) for index in range(len(samples))])


def samples_of(queries, num_shots, name, **settings):
    return queries.samples(num_shots, find_condition(name), load_clip=lambda row: row["frame_path"], **settings)


def test_the_same_clips_are_asked_about_whatever_is_shown(clips):
    queries = EvaluationQueries(clips, shots=(0, 1, 4), num_queries=10, seed=3)
    asked = [
        [samples_of(queries, k, name)[i]["frame_path"] for i in range(10)]
        for k, name in ((0, "in_context"), (1, "random"), (4, "in_context"), (4, "shuffled"), (4, "top_3"))
    ]
    assert all(names == asked[0] for names in asked) and len({*asked[0]}) == 10
    again = EvaluationQueries(clips, shots=(4,), num_queries=10, seed=3)
    assert [again.rows[row]["frame_path"] for row in again.queries(4)] == asked[0]
    other = EvaluationQueries(clips, shots=(4,), num_queries=10, seed=4)
    assert [other.rows[row]["frame_path"] for row in other.queries(4)] != asked[0]


def test_contexts_are_those_of_eilevs_sampler(clips):
    queries = EvaluationQueries(clips, shots=(4,), verb_noun_ratio=0.25, seed=1)
    words = [[row[f"structured_{kind}"] for row in queries.rows] for kind in ("verb", "noun")]
    sampler = InContextSampler(*words, num_examples=4, verb_noun_ratio=0.25, seed=1)
    assert queries.contexts(4, IN_CONTEXT).contexts == [sampler.sample(row) for row in range(80)]


def test_contexts_may_be_of_other_clips(clips):
    others = clips_of(make_rows(40, prefix="other"))
    queries = EvaluationQueries(clips, others, shots=(2,), num_queries=5)
    for line in expected_of(queries, samples_of(queries, 2, "in_context")):
        assert line["query"].startswith("video") and all(name.startswith("other") for name in line["context"])


def test_words_of_balanced_contexts_tell_nothing(clips):
    queries = EvaluationQueries(clips, shots=(0, 1, 4), kind="balanced", counterpart=False, seed=2)
    contexts = queries.contexts(4, IN_CONTEXT)
    assert len(contexts) > 40
    for context, query in zip(contexts.contexts, contexts.queries):
        for kind in ("verb", "noun"):
            words = Counter(queries.rows[row][f"structured_{kind}"] for row in context)
            assert words[queries.rows[query][f"structured_{kind}"]] == 2 and sorted(words.values()) == [2, 2]
    # Of single examples, half show the verb and half the noun.
    for place, (context, query) in enumerate(zip(queries.contexts(1, IN_CONTEXT).contexts, queries.queries(1))):
        shown, asked = queries.rows[context[0]], queries.rows[query]
        shares = [shown[name] == asked[name] for name in ("structured_verb", "structured_noun")]
        assert shares == [place % 2 == 0, place % 2 == 1]


def test_contexts_of_the_most_frequent_actions():
    rows = make_rows(60)
    # Three pairs that are more frequent than the others.
    for row, (verb, noun) in zip(rows, [(v, n) for v in list(VERBS)[:3] for n in ["carrot"]] * 10):
        row |= {"structured_verb": verb, "structured_noun": noun}
    queries = EvaluationQueries(clips_of(rows), shots=(3,), seed=0)
    contexts = queries.contexts(3, find_condition("top_3"))
    common = {(verb, "carrot") for verb in list(VERBS)[:3]}
    for context, query in zip(contexts.contexts, contexts.queries):
        pairs = {(queries.rows[row]["structured_verb"], queries.rows[row]["structured_noun"]) for row in context}
        own = queries.rows[query]["structured_verb"], queries.rows[query]["structured_noun"]
        assert pairs <= common - {own} and query not in context and len(context) == 3


def test_random_contexts_never_show_the_query_and_share_no_more_than_chance(clips):
    queries = EvaluationQueries(clips, shots=(8,), seed=0)
    contexts = queries.contexts(8, find_condition("random"))
    verbs = [row["structured_verb"] for row in queries.rows]
    shared = [
        verbs[row] == verbs[query] for context, query in zip(contexts.contexts, contexts.queries) for row in context
    ]
    assert all(query not in context for context, query in zip(contexts.contexts, contexts.queries))
    assert 0.17 < sum(shared) / len(shared) < 0.33  # four verbs


@pytest.mark.parametrize(
    ("name", "num_clips", "first_has_clip", "last_has_clip"),
    [
        ("in_context", 3, True, True),
        ("shuffled", 3, True, True),
        ("text_only", 1, False, True),
        ("no_query_clip", 2, True, False),
        ("no_clips", 0, False, False),
    ],
)
def test_what_is_left_out(clips, name, num_clips, first_has_clip, last_has_clip):
    queries = EvaluationQueries(clips, shots=(2,), num_queries=3)
    sample = samples_of(queries, 2, name)[0]
    assert len(sample["videos"]) == num_clips
    assert [block.startswith("<video>") for block in sample["text"]] == [first_has_clip, first_has_clip, last_has_clip]
    if name == "shuffled":
        assert sample["videos"][:2] == sample["in_context_frame_paths"][::-1]
        assert sample["videos"][2] == sample["frame_path"]


def test_canonical_contexts_are_standardised_and_references_are_not(clips):
    rows = make_rows(80)
    for row in rows:
        row["narration_text"] = row["narration_text"].replace("#C C", "#C C then swiftly")
    queries = EvaluationQueries(clips_of(rows), shots=(2,), num_queries=4)
    samples = samples_of(queries, 2, "canonical")
    for index in range(4):
        *context, reference = samples.narrations(index)
        for narration, row in zip(context, samples.sampler.sample(index)):
            label = queries.rows[row]
            verb, noun = VERBS[label["structured_verb"]], NOUNS[label["structured_noun"]]
            assert narration == f"The camera wearer {verb} the {noun}."
        assert "then swiftly" in reference
    sentences = {row["frame_path"]: f"Said of {row['frame_path']}." for row in rows}
    given = samples_of(queries, 2, "canonical", sentences=sentences)
    names = [rows[row]["frame_path"] for row in given.sampler.sample(0)]
    assert given.narrations(0)[:-1] == [sentences[name] for name in names]


def test_labels_are_those_of_the_clip_itself(clips):
    """The original joined them by a number that begins anew in every interval."""
    rows = make_rows(80)[::-1]
    queries = EvaluationQueries(clips_of(rows), shots=(0,), num_queries=20, seed=5)
    by_name = {row["frame_path"]: row for row in rows}
    for line in expected_of(queries, samples_of(queries, 0, "in_context")):
        row = by_name[line["query"]]
        assert (line["structured_verb"], line["structured_noun"]) == (row["structured_verb"], row["structured_noun"])
        assert line["reference"] == row["narration_text"].replace("#C C", "The camera wearer") + "."


def test_contexts_that_were_written_are_read_again(clips, tmp_path):
    queries = EvaluationQueries(clips, shots=(1, 3), num_queries=7, seed=9)
    paths = queries.write(tmp_path)
    assert [path.name for path in paths] == ["contexts-1.jsonl", "contexts-3.jsonl"]
    # Another seed draws nothing here.
    again = EvaluationQueries(clips, shots=(1, 3), presampled=tmp_path, seed=1)
    for k in (1, 3):
        assert again.contexts(k, IN_CONTEXT).contexts == queries.contexts(k, IN_CONTEXT).contexts
        assert again.queries(k) == queries.queries(k)
    fewer = EvaluationQueries(clips, shots=(1,), presampled=tmp_path, num_queries=2)
    assert fewer.queries(1) == queries.queries(1)[:2]
    with pytest.raises(ValueError, match=r"no contexts of \[2\] shots, no file 'contexts-2.jsonl'"):
        EvaluationQueries(clips, shots=(2,), presampled=tmp_path)


def test_majorities_of_the_context(clips):
    rows = make_rows(80)
    queries = EvaluationQueries(clips_of(rows), shots=(4,), num_queries=20)
    samples = samples_of(queries, 4, "majority")
    for index in range(20):
        context = [rows[row] for row in samples.sampler.sample(index)]
        said = queries.answer_by_rule(samples, index, CONDITIONS["majority"].rule)
        for kind, words in (("verb", VERBS), ("noun", NOUNS)):
            counts = Counter(words[row[f"structured_{kind}"]] for row in context)
            most = [word for word, count in counts.items() if count == max(counts.values())]
            assert any(word in said for word in most)
        assert said == queries.answer_by_rule(samples, index, CONDITIONS["majority"].rule)
        sentence = queries.answer_by_rule(samples, index, CONDITIONS["majority_sentence"].rule)
        counts = Counter(samples.narrations(index)[:-1])
        assert counts[sentence] == max(counts.values())


def test_what_cannot_be_asked(clips):
    with pytest.raises(ValueError, match="`kind` must be one of"):
        EvaluationQueries(clips, kind="best")
    with pytest.raises(ValueError, match="`shots` must be different numbers"):
        EvaluationQueries(clips, shots=(1, 1))
    with pytest.raises(ValueError, match=r"has no \['structured_noun'\]"):
        EvaluationQueries(clips.remove_columns("structured_noun"))
    with pytest.raises(ValueError, match="one is 'top_0'"):
        find_condition("top_0")
    silent = clips_of([*make_rows(4), {**make_rows(1)[0], "frame_path": "mute|0", "narration_text": "  "}])
    with pytest.raises(ValueError, match=r"The clip 'mute\|0' of `clips` has no narration"):
        EvaluationQueries(silent)
    few = EvaluationQueries(clips_of(make_rows(3)), shots=(8,))
    with pytest.raises(ValueError, match=r"too few clips for 8 shots before 'video_0\|0'"):
        few.contexts(8, IN_CONTEXT)
    with pytest.warns(UserWarning, match="`num_queries` is 100, but only 80 of 80"):
        EvaluationQueries(clips, num_queries=100)


@pytest.mark.parametrize("condition", ["in_context", "random", "top_5"])
@pytest.mark.parametrize("relabelled", [False, True])
def test_no_clip_stands_in_its_own_context(condition, relabelled):
    """Also where contexts are of another set that has it, with other labels or the same."""
    rows, others = make_rows(24), make_rows(24)
    if relabelled:
        for row in rows:
            row["structured_verb"] = ""
    queries = EvaluationQueries(clips_of(rows), clips_of(others), shots=(8,), seed=1)
    contexts = queries.contexts(8, find_condition(condition))
    for context, query in zip(contexts.contexts, contexts.queries):
        assert len({*context}) == 8 and rows[query]["frame_path"] not in [others[row]["frame_path"] for row in context]


def test_sentences_must_be_there_for_all_that_is_shown(clips):
    queries = EvaluationQueries(clips, shots=(2,), num_queries=4)
    with pytest.raises(ValueError, match=r"`sentences` lacks \d of the \d clips of the contexts"):
        samples_of(queries, 2, "canonical", sentences={"elsewhere|0": "The camera wearer waits."})
    rows = make_rows(80)
    for row in rows:
        row["structured_verb"] = "[other]"
    with pytest.warns(UserWarning, match="make no sentence"):
        samples_of(EvaluationQueries(clips_of(rows), shots=(2,), num_queries=4), 2, "canonical")


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], "has no query"),
        ([(["video_1|0"], "video_0|0")], r"query 1, 'video_0\|0', has a context of 1 clips"),
        ([(["video_0|0", "video_1|1"], "video_0|0")], r"query 1, 'video_0\|0', stands in its own context"),
    ],
)
def test_presampled_contexts_that_do_not_fit(clips, tmp_path, lines, error):
    text = "".join(json.dumps({"context": context, "query": query}) + "\n" for context, query in lines)
    (tmp_path / "contexts-2.jsonl").write_text(text)
    with pytest.raises(ValueError, match=rf"contexts-2.jsonl.*{error}"):
        EvaluationQueries(clips, shots=(2,), presampled=tmp_path)


def test_presampled_contexts_are_of_the_same_queries(clips, tmp_path):
    for num_shots, seed in ((1, 0), (2, 1)):
        EvaluationQueries(clips, shots=(num_shots,), num_queries=5, seed=seed).write(tmp_path)
    with pytest.raises(ValueError, match="contexts-2.jsonl asks about other clips than .*contexts-1.jsonl"):
        EvaluationQueries(clips, shots=(1, 2), presampled=tmp_path)


def test_frames_that_were_extracted_anew_are_told():
    clips = [make_clips(6, seed=seed) for seed in (0, 0, 1)]
    hashes = [EvaluationQueries(own, shots=(0,)).fingerprint_of_frames() for own in clips]
    assert hashes[0] == hashes[1] != hashes[2]
    assert EvaluationQueries(clips_of(make_rows(6)), shots=(0,)).fingerprint_of_frames() is None
