"""Which demonstrations are chosen: by likeness, by labels, by chance, and never the clip itself."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoded_clips import VIDEO_NAMES, small_encoder, small_processor

from transformers_eilev import ClipSpan
from transformers_eilev.data.context_samplers import ContextSampler, InContextSampler
from transformers_eilev.data.in_context import InContextDataset
from transformers_eilev.in_context.clip_features import ClipEncoder
from transformers_eilev.in_context.library import Demonstration
from transformers_eilev.in_context.retrieval import DemonstrationFinder, SimilaritySampler


def drawn(number, dim=8, seed=0):
    return np.random.default_rng(seed).normal(size=(number, dim)).astype(np.float32)


def cosines(queries, vectors):
    queries, vectors = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.float64, (queries, vectors)))
    return queries @ vectors.T


def by_the_long_way(scores, k, allowed):
    """The k best, ties by row."""
    return sorted(np.flatnonzero(allowed), key=lambda row: (-round(scores[row], 6), row))[:k]


# ------------------------------------------------------------------------------------------------------------ sampler


@pytest.mark.parametrize("index_factory", [None, "HNSW16", "IVF4,Flat"])
@pytest.mark.parametrize("together", [True, False])
def test_the_nearest_and_never_the_query_or_its_group(index_factory, together):
    vectors = drawn(200)
    # A group of 60 that fills the nearest places, and a row that is there three times.
    vectors[:60] = vectors[0] + 0.01 * drawn(60, seed=1)
    vectors[101] = vectors[102] = vectors[100]
    groups = ["big"] * 60 + [f"v{row // 4}" for row in range(140)]
    sampler = SimilaritySampler(
        vectors, num_examples=5, groups=groups, order="nearest_first", index_factory=index_factory
    )
    assert isinstance(sampler, ContextSampler) and len(sampler) == 200
    if together:
        sampler.find_all(batch_size=64)
    scores = cosines(vectors, vectors)
    right = 0
    for index in range(200):
        rows = sampler.sample(index)
        allowed = np.array([group != groups[index] for group in groups])
        assert sampler.query(index) == index and len(rows) == 5 and allowed[rows].all()
        right += rows == by_the_long_way(scores[index], 5, allowed)
    assert right == 200 if index_factory is None else right > 80


def test_without_groups_only_the_query_is_left_out():
    vectors = np.ones((5, 3))  # all the same: by row
    sampler = SimilaritySampler(torch.tensor(vectors), num_examples=3, order="nearest_first")
    assert [sampler.sample(index) for index in range(5)] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert SimilaritySampler(vectors, num_examples=9, order="nearest_first").sample(2) == [0, 1, 3, 4]
    assert SimilaritySampler(vectors, num_examples=0).sample(2) == []
    assert SimilaritySampler(vectors, num_examples=3, groups=["a"] * 5).sample(2) == []
    with pytest.raises(IndexError, match="no sample 5"):
        sampler.sample(5)


def test_orders():
    vectors = drawn(30)
    first, last, random = (
        SimilaritySampler(vectors, num_examples=6, order=order, seed=3)
        for order in ("nearest_first", "nearest_last", "random")
    )
    assert first.sample(4, 1) == first.sample(4) == last.sample(4)[::-1]
    draws = [random.sample(4, epoch) for epoch in range(5)]
    assert len(set(map(tuple, draws))) > 1 and all(sorted(draw) == sorted(first.sample(4)) for draw in draws)
    again = SimilaritySampler(vectors, num_examples=6, order="random", seed=3)
    assert [again.sample(4, epoch) for epoch in reversed(range(5))] == draws[::-1]
    assert all(type(row) is int for row in draws[0])


def test_mixed_likeness_is_the_weighted_sum_of_cosines():
    vectors = {"video": drawn(50), "text": 7 * drawn(50, 5, seed=1)}
    queries = {"video": drawn(9, seed=2), "text": drawn(9, 5, seed=3)}
    weights = {"text": 0.3, "video": 0.7}
    sampler = SimilaritySampler(
        vectors, weights=weights, queries=queries, num_examples=7, order="nearest_first",
        groups=[row % 3 for row in range(50)], query_groups=[0] * 9,
    )  # fmt: skip
    scores = sum(weight * cosines(queries[kind], vectors[kind]) for kind, weight in weights.items())
    for index in range(9):
        assert sampler.sample(index) == by_the_long_way(scores[index], 7, np.arange(50) % 3 != 0)


def test_a_data_set_takes_its_contexts_from_it():
    actions = [{"frame_path": f"v|{row}", "narration_text": f"#C C cuts {row}"} for row in range(10)]
    sampler = SimilaritySampler(drawn(10), num_examples=3)
    sample = InContextDataset(actions, sampler, load_clip=lambda row: row["frame_path"])[4]
    assert sample["in_context_frame_paths"] == [f"v|{row}" for row in sampler.sample(4)]
    assert sample["text_target"] == "The camera wearer cuts 4."


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_examples": -1}, "`num_examples` must not be negative"),
        ({"order": "best"}, "`order`.*'best'"),
        ({"seed": -1}, "`seed`"),
        ({"vectors": np.array([[1.0, 0], [0, 0]])}, "`vectors`: the vector of row 1 is zero"),
        ({"vectors": np.array([[1.0, 0], [np.nan, 0]])}, "row 1 isn't finite"),
        ({"vectors": np.ones(3)}, r"of shape \(num_actions, dim\)"),
        ({"queries": np.ones((1, 3))}, "`queries` are of 3 numbers, `vectors` of 2"),
        ({"queries": np.zeros((1, 2))}, "`queries`: the vector of row 0 is zero"),
        ({"groups": ["a"]}, "`vectors` has 2 values, but `groups` has 1"),
        ({"groups": ["a", "b"], "queries": np.ones((1, 2))}, "need `query_groups`"),
        ({"query_groups": ["a"]}, "`query_groups`"),
        ({"weights": {"a": 1}}, "`weights` are for a mapping"),
        ({"vectors": {"a": np.ones((2, 2))}, "weights": {"b": 1}}, r"kinds \['a'\]"),
        ({"vectors": {"a": np.ones((2, 2))}, "weights": {"a": 0}}, "weight of 'a' must be above 0"),
        ({"vectors": {"a": np.ones((2, 2)), "b": np.ones((3, 2))}}, "of 'b' have 3 rows"),
        ({"index_factory": "nonsense"}, "`index_factory` 'nonsense'"),
    ],
)
def test_settings_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimilaritySampler(**{"vectors": np.ones((2, 2)), "num_examples": 1, **arguments})


def test_without_faiss_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"transformers-eilev\[retrieval\]"):
        SimilaritySampler(np.ones((2, 2)), num_examples=1)


# ------------------------------------------------------------------------------------------------------------- finder


class FakeEncoder:
    """Embeddings by name; the Q-Former's are others."""

    def __init__(self, fingerprint="model"):
        self.fingerprint = fingerprint
        self.encoded = []
        window = SimpleNamespace(start=0.0, end=8.0)
        self.processor = SimpleNamespace(clip_window=lambda **settings: window)

    def key(self, clip, **settings):
        return f"{self.fingerprint} {clip} {settings}"

    def keys(self, clips, **settings):
        return [self.key(clip, **settings) for clip in clips]

    def encode(self, clips, **settings):
        self.encoded += clips
        if "bad.mp4" in clips:
            raise ValueError("bad.mp4: damaged")
        seeds = [sum(map(ord, str(clip))) for clip in clips]
        vectors = [torch.from_numpy(drawn(2, seed=seed)) for seed in seeds]
        return [SimpleNamespace(vision_embedding=one, qformer_embedding=other) for one, other in vectors]


LIBRARY = [
    Demonstration(f"{row}.mp4", f"Text {row}", verb=["cut", "open"][row % 2], noun=["cup", "box", "pan"][row % 3])
    for row in range(40)
]


def texts_to_vectors(texts):
    return torch.from_numpy(np.concatenate([drawn(1, 4, seed=sum(map(ord, text))) for text in texts]))


def finder_of(demonstrations=LIBRARY, **settings):
    settings = {"num_examples": 4, "encoder": FakeEncoder(), "text_encoder": texts_to_vectors, **settings}
    return DemonstrationFinder(demonstrations, **settings)


@pytest.mark.parametrize("by", ["video", "qformer", "text", {"video": 0.7, "text": 0.3}])
def test_finds_as_by_the_long_way(by):
    finder = finder_of(by=by, order="nearest_first")
    features = FakeEncoder().encode([own.clip for own in LIBRARY] + ["new.mp4"])
    kinds = {
        "video": np.stack([own.vision_embedding for own in features]),
        "qformer": np.stack([own.qformer_embedding for own in features]),
        "text": texts_to_vectors([own.narration for own in LIBRARY] + ["A draft"]).numpy(),
    }
    weights = by if isinstance(by, dict) else {by: 1}
    scores = sum(weight * cosines(kinds[kind][-1:], kinds[kind][:-1])[0] for kind, weight in weights.items())
    expected = by_the_long_way(scores, 4, np.ones(40, bool))
    assert finder.find_rows("new.mp4", text="A draft") == expected
    assert finder.find("new.mp4", text="A draft") == [LIBRARY[row] for row in expected]
    without = finder.find_rows("new.mp4", text="A draft", exclude=[expected[0], LIBRARY[expected[1]]])
    assert without[:2] == expected[2:]
    assert len(finder.encoder.encoded) == (0 if by == "text" else 43)


@pytest.mark.parametrize("by", ["video", "random"])
def test_the_clip_itself_is_never_chosen(by):
    spans = [Demonstration("a.mp4", f"Text {start}", float(start), start + 4.0) for start in range(0, 40, 4)]
    finder = finder_of([*spans, Demonstration("b.mp4", "B")], by=by, num_examples=20)
    for clip, left_out in [
        (ClipSpan("a.mp4", 4.0, 8.0), {1}),
        (ClipSpan("a.mp4", 6.0, 9.0), {1, 2}),
        (ClipSpan("./a.mp4", 30.0), {7, 8, 9}),  # 8 seconds as the processor's
        ("a.mp4", {0, 1}),
        ("b.mp4", {10}),
        ("c.mp4", set()),
    ]:
        assert set(range(11)) - set(finder.find_rows(clip)) == left_out
    finder.encoder.key = lambda clip, **settings: "same" if clip in ("c.mp4", "b.mp4") else str(clip)
    assert 10 not in finder.find_rows("c.mp4")


def test_where_frames_are_from():
    """The stretch of a file that the frames are of is not chosen either."""
    finder = finder_of(by="random", num_examples=len(LIBRARY))
    source = LIBRARY[3].clip
    rows = finder.find_rows(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), origin=source)
    assert rows == finder.find_rows(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), origin=source)
    assert 3 not in rows and len(rows) >= len(LIBRARY) // 2


def test_labels_are_the_in_context_samplers():
    verbs, nouns = [own.verb for own in LIBRARY], [own.noun for own in LIBRARY]
    queries = (["cut", "open", "cut"], ["box", "pan", ""])
    for by, random in (("labels", False), ("random", True)):
        finder = finder_of(by=by, encoder=None, seed=5)
        for index, (verb, noun) in enumerate(zip(*queries)):
            query = ([verb], [noun])
            sampler = InContextSampler(verbs, nouns, num_examples=4, seed=5, queries=query, random=random)
            rows = finder.find_rows("new.mp4", verb=verb, noun=noun, index=index)
            expected = sampler.sample(0, epoch=index)
            assert rows == expected == finder.find_rows(verb=verb, noun=noun, index=index)
        assert len(finder.find_rows(verb="cut", exclude=range(38))) == 2


@pytest.mark.parametrize(
    "settings, query, message",
    [
        ({"by": "sound"}, None, "`by` must be one of .* 'sound'"),
        ({"by": {"video": 1, "random": 1}}, None, "`by`"),
        ({"by": {"video": -1}}, None, "weight of 'video'"),
        ({"encoder": None}, None, "give an `encoder`"),
        ({"by": "text", "encoder": None, "text_encoder": None}, None, "give a `text_encoder`"),
        ({"demonstrations": []}, None, "no demonstrations"),
        ({"demonstrations": [("a.mp4", "A")], "by": "labels"}, None, "need a `verb` or a `noun`"),
        ({"demonstrations": [("a.mp4", "A"), ("bad.mp4", "A")]}, None, r"demonstrations\[1\].*row 1.*damaged"),
        ({}, {}, "`clip` is needed"),
        ({"by": "text"}, {"clip": "new.mp4"}, "give a `text`"),
        ({"by": "labels"}, {"clip": "new.mp4"}, "`verb` or `noun`"),
        ({"by": "random"}, {"exclude": [40]}, "no row 40"),
    ],
)
def test_what_cannot_be_found_is_an_error(settings, query, message):
    with pytest.raises(ValueError, match=message):
        finder = finder_of(**settings)
        assert query is not None
        finder.find(**query)


def test_saved_and_loaded(tmp_path):
    finder = finder_of(by={"video": 2, "text": 1}, order="random", seed=3, num_frames=4)
    finder.save(tmp_path)
    encoder = FakeEncoder()
    loaded = DemonstrationFinder.load(tmp_path, LIBRARY, encoder, text_encoder=texts_to_vectors)
    assert not encoder.encoded and loaded.clip_settings == {"num_frames": 4}
    assert loaded.find_rows("new.mp4", text="A") == finder.find_rows("new.mp4", text="A")
    fewer = DemonstrationFinder.load(tmp_path, LIBRARY, encoder, text_encoder=texts_to_vectors, num_examples=2)
    assert len(fewer.find_rows("new.mp4", text="A")) == 2
    renamed = [*LIBRARY[:-1], Demonstration("other.mp4", "Text 39")]
    retold = [*LIBRARY[:-1], Demonstration("39.mp4", "Other")]
    for demonstrations, other, text_encoder, message in [
        (LIBRARY, FakeEncoder("trained"), texts_to_vectors, "another model: model, now trained"),
        (LIBRARY[:-1], encoder, texts_to_vectors, "of 40 demonstrations, but there are 39"),
        (renamed, encoder, texts_to_vectors, "the clip of row 39 differs"),
        (retold, encoder, texts_to_vectors, "narrations differ"),
        (LIBRARY, encoder, lambda texts: -texts_to_vectors(texts), "another text encoder"),
    ]:
        with pytest.raises(ValueError, match=message):
            DemonstrationFinder.load(tmp_path, demonstrations, other, text_encoder=text_encoder)
    with pytest.raises(TypeError, match="by"):
        DemonstrationFinder.load(tmp_path, LIBRARY, encoder, by="text")
    (tmp_path / "vectors.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="vectors.safetensors is not the file"):
        DemonstrationFinder.load(tmp_path, LIBRARY, encoder)
    with pytest.raises(ValueError, match="'random' has no vectors"):
        finder_of(by="random").save(tmp_path)


def test_after_training_the_library_is_encoded_anew():
    finder = finder_of()
    before = finder.find_rows("new.mp4")
    finder.encoder.fingerprint = "trained"
    assert finder.find_rows("new.mp4") == before and len(finder.encoder.encoded) == 82


@pytest.mark.parametrize("by", ["video", "qformer"])
def test_with_a_models_encoder(videos_path, by):
    paths = [str(videos_path / name) for name in VIDEO_NAMES]
    encoder = small_encoder(small_processor())
    finder = DemonstrationFinder([(path, "A") for path in paths], num_examples=2, by=by, encoder=encoder)
    assert 0 not in finder.find_rows(paths[0]) and len(finder.find_rows(paths[0])) == 2
    assert sum(encoder.num_clips) == 4


def test_texts_by_a_models_own_embeddings(golden):
    encoder = SimpleNamespace(
        model=golden.model, processor=golden.interleaved, fingerprint="golden", keys=lambda clips: clips
    )
    library = [("a", "cuts an onion"), ("b", "opens the door"), ("c", "cuts the onion")]
    finder = DemonstrationFinder(library, num_examples=1, by="text", encoder=encoder)
    assert finder.find_rows(text="opens the door") == [1]


def test_files_that_change_are_found_by_what_they_show_now(golden, videos_path, tmp_path):
    """And which of them is the clip that is asked about is told anew too."""
    names = ["good_cfr_bframes.mp4", "rotate90.mp4", "vp9.mp4"]
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path, name in zip(paths, names):
        path.write_bytes((videos_path / name).read_bytes())
    library = [Demonstration(str(path), f"Number {number}.") for number, path in enumerate(paths)]
    encoder = ClipEncoder(golden.model, golden.interleaved)
    finder = DemonstrationFinder(library, num_examples=3, encoder=encoder)
    query = str(videos_path / names[0])
    assert 0 not in finder.find_rows(query)
    paths[0].write_bytes((videos_path / names[1]).read_bytes())
    paths[1].write_bytes((videos_path / names[0]).read_bytes())
    fresh = DemonstrationFinder(library, num_examples=3, encoder=encoder)
    assert finder.find_rows(query) == fresh.find_rows(query) and 1 not in finder.find_rows(query)
