"""A session says, for each clip, what `generate` says of the whole prompt."""

import contextlib
import shutil

import pytest
import torch
from test_modeling import close
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_eilev import ClipSpan, embedded_checkpoint
from transformers_eilev.in_context import ClipEncoder, Demonstration, InContextSession
from transformers_eilev.processing_video_blip_2 import DEFAULT_PROMPT


NARRATIONS = ["The camera wearer washes paint on the table.", "The camera wearer drops the dough."]
ANOTHER_PROMPT = "What is the camera wearer doing?"
# Equal numbers of tokens, so that no row of a batch is filled up.
TEN = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False, "num_beams": 1}
SETTINGS = [
    TEN,
    {**TEN, "num_beams": 5, "length_penalty": -1.0},
    {**TEN, "num_beams": 3, "num_return_sequences": 3},
    {"max_new_tokens": 20, "num_beams": 5, "do_sample": False},
]


@pytest.fixture(params=["interleaved", "prepended"])
def processor(golden, request):
    return getattr(golden, request.param)


@pytest.fixture
def videos(golden):
    return golden.videos


def plain(model, processor, demonstrations, clips, prompt=DEFAULT_PROMPT, **settings):
    """Clip by clip, with all of the prompt each time."""
    said = []
    for clip in clips:
        text = processor.build_prompt([narration for _, narration in demonstrations], prompt)
        inputs = processor(text=text, videos=[*(own for own, _ in demonstrations), clip])
        generated_ids = model.generate(**inputs, **settings)
        texts = processor.post_process_narrations(generated_ids, inputs)
        said += texts if settings.get("num_return_sequences", 1) == 1 else [texts]
    return said


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("num_examples", [0, 2])
def test_narrations(golden, processor, videos, settings, num_examples):
    demonstrations = list(zip(videos, NARRATIONS))[:num_examples]
    clips = [videos[2], videos[1], videos[0]]
    expected = plain(golden.model, processor, demonstrations, clips, **settings)
    session = InContextSession(golden.model, processor, demonstrations)
    assert session.narrate(clips, **settings) == expected
    assert session.narrate(iter(clips), batch_size=2, **settings) == expected


def test_changes_between_calls(golden, videos):
    """Of prompt, demonstrations and settings; each answer is that of a session that never did anything else."""
    processor, model = golden.interleaved, golden.model
    pairs = list(zip(videos, NARRATIONS))
    session = InContextSession(model, processor, pairs)
    clips = [videos[2]]
    first = session.narrate(clips, **TEN)
    assert session.narrate(clips, prompt=ANOTHER_PROMPT, **TEN) == plain(
        model, processor, pairs, clips, ANOTHER_PROMPT, **TEN
    )
    beams = {**TEN, "num_beams": 4}
    assert session.narrate(clips, **beams) == plain(model, processor, pairs, clips, **beams)
    for demonstrations in (pairs[:1], pairs[::-1], []):
        session.demonstrations = demonstrations
        assert session.narrate(clips, **TEN) == plain(model, processor, demonstrations, clips, **TEN)
    session.demonstrations = pairs
    session.prompt = ANOTHER_PROMPT
    assert session.narrate(clips, **TEN) == plain(model, processor, pairs, clips, ANOTHER_PROMPT, **TEN)
    assert session.narrate(clips, prompt=DEFAULT_PROMPT, **TEN) == first


def test_each_clip_is_encoded_once(golden, videos):
    session = InContextSession(golden.model, golden.interleaved, list(zip(videos, NARRATIONS)))
    seen = []
    hook = golden.model.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len((args or [kwargs["pixel_values"]])[0])), with_kwargs=True
    )
    read = []
    other = golden.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    try:
        session.narrate([videos[2]], **TEN)
        session.narrate([videos[2], videos[2]], **TEN)
        session.score([videos[2]], NARRATIONS)
    finally:
        hook.remove()
        other.remove()
    assert sum(seen) == sum(map(len, videos[:3]))
    if golden.family == "opt":  # the demonstrations in one row, and then each clip with its question
        beginning, *others = [tuple(embeds.shape[:2]) for embeds in read if embeds.shape[1] > 1]
        assert beginning[0] == 1 and {batch_size for batch_size, _ in others} == {1, 2}
        assert beginning[1] > 1.5 * max(length for _, length in others)


def test_scores(golden, videos):
    processor, model = golden.interleaved, golden.model
    candidates = ["The camera wearer drops the dough.", "The camera wearer drops the bowl.", "washes", "picks up"]
    pairs = list(zip(videos, NARRATIONS))
    session = InContextSession(model, processor, pairs)
    clips = [videos[2], videos[0], videos[1]]
    scores = session.score(clips, candidates, batch_size=2)
    assert scores.shape == (3, 4)
    for clip, own in zip(clips, scores):
        inputs = processor(text=processor.build_prompt(NARRATIONS), videos=[*videos[:2], clip])
        close(own, model.classify(**inputs, **processor.encode_classes(candidates))[0])


def test_nouns_after_verbs(golden, videos):
    """One reading of the prompt serves both."""
    processor, model = golden.interleaved, golden.model
    session = InContextSession(model, processor, list(zip(videos, NARRATIONS)))
    prompts = session.read([videos[2], videos[0]])
    verbs = processor.encode_classes(["The camera wearer drops", "The camera wearer washes the"])
    best = prompts.score(**verbs).argmax(-1)
    given = [verbs["class_input_ids"][i][verbs["class_attention_mask"][i].bool()].tolist() for i in best]
    nouns = processor.encode_classes(["dough", "bowl on the table"])
    scores = prompts.score(**nouns, given=given)
    for row, clip in enumerate([videos[2], videos[0]]):
        inputs = processor(text=processor.build_prompt(NARRATIONS), videos=[*videos[:2], clip])
        is_token = nouns["class_attention_mask"].bool()
        rows = [given[row] + ids[mask].tolist() for ids, mask in zip(nouns["class_input_ids"], is_token)]
        batch = processor.pad(
            [{"class_input_ids": ids, "class_attention_mask": [1] * len(ids)} for ids in rows], padding_side="right"
        )
        before = model.classify(**inputs, class_input_ids=torch.tensor([given[row]]))[0] * len(given[row])
        whole = model.classify(**inputs, **batch)[0] * torch.tensor([len(ids) for ids in rows])
        close(scores[row], (whole - before) / is_token.sum(-1))


def test_scores_of_what_was_said(golden, videos):
    """The mean log-likelihood of the narration's tokens, as `classify` gives it."""
    processor, model = golden.interleaved, golden.model
    pairs = list(zip(videos, NARRATIONS))
    session = InContextSession(model, processor, pairs)
    said = session.narrate([videos[2], videos[0]], return_scores=True, **TEN)
    for (_, score), clip in zip(said, [videos[2], videos[0]]):
        inputs = processor(text=processor.build_prompt(NARRATIONS), videos=[*videos[:2], clip])
        ids = processor.without_prompt(model.generate(**inputs, **TEN), inputs)
        ids = ids if golden.family == "opt" else ids[:, 1:]
        expected = model.classify(**inputs, class_input_ids=ids, class_attention_mask=torch.ones_like(ids))
        assert score == pytest.approx(expected.item(), abs=1e-4)
    several = session.narrate([videos[2]], return_scores=True, **{**TEN, "num_beams": 3, "num_return_sequences": 2})
    assert len(several[0]) == 2 and all(isinstance(score, float) for _, score in several[0])


def test_a_model_that_learns_in_between(golden, videos):
    processor = golden.interleaved
    model = AutoModelForImageTextToText.from_pretrained(golden.checkpoint)
    pairs, clips = list(zip(videos, NARRATIONS)), [videos[2]]
    session = InContextSession(model, processor, pairs)
    before = session.score(clips, NARRATIONS)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "language_model" in name and weight.ndim == 2:
                weight.mul_(0.9)
    after = session.score(clips, NARRATIONS)
    close(after, InContextSession(model, processor, pairs).score(clips, NARRATIONS))
    assert (after - before).abs().max() > 1e-3
    with torch.no_grad():
        model.query_tokens.add_(1)
    close(session.score(clips, NARRATIONS), InContextSession(model, processor, pairs).score(clips, NARRATIONS))


class Finder:
    """Of all demonstrations those before the clip that is asked about."""

    def __init__(self, videos, demonstrations):
        self.videos, self.demonstrations = videos, demonstrations

    compares_texts = False

    def find(self, clip, text, origin, index):
        place = next(i for i, video in enumerate(self.videos) if video is clip)
        return self.demonstrations[:place]


def test_demonstrations_of_each_clip(golden, videos):
    processor, model = golden.interleaved, golden.model
    pairs = list(zip(videos, NARRATIONS))
    finder = Finder(videos, [Demonstration(*pair) for pair in pairs])
    session = InContextSession(model, processor, finder=finder)
    expected = [plain(model, processor, pairs[:i], [videos[i]], **TEN)[0] for i in range(3)]
    assert session.narrate(videos[:3], **TEN) == expected
    with pytest.raises(ValueError, match="either `demonstrations` or a `finder`"):
        InContextSession(model, processor, pairs, finder=finder)


def test_drafts_for_a_finder_that_compares_texts(golden, videos):
    """Of each clip what is said of it without demonstrations."""
    processor, model = golden.interleaved, golden.model
    asked = []

    class TextFinder(Finder):
        compares_texts = True

        def find(self, clip, text, origin, index):
            asked.append((text, index))
            return super().find(clip, text, origin, index)

    finder = TextFinder(videos, [Demonstration(*pair) for pair in zip(videos, NARRATIONS)])
    InContextSession(model, processor, finder=finder).narrate(videos[:3], batch_size=2, **TEN)
    drafts = plain(model, processor, [], videos[:3], num_beams=1, do_sample=False)
    assert asked == [(draft, index) for index, draft in enumerate(drafts)]
    with pytest.raises(ValueError, match="no `finder`"):
        InContextSession(model, processor).find(videos[:1])


@pytest.fixture(scope="module")
def embedded():
    folder = embedded_checkpoint("eilev-synthetic-opt")
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def test_files_and_stretches_of_them(embedded, videos_path):
    model, processor = embedded
    path = str(videos_path / "good_cfr_bframes.mp4")
    demonstrations = [Demonstration(path, "The camera wearer wipes the cup.", start=0.0, end=1.0)]
    session = InContextSession(model, processor, demonstrations)
    said = session.narrate([ClipSpan(path, 1.0, 2.0), path])
    text = processor.build_prompt(["The camera wearer wipes the cup."])
    for (start, end), own in zip([(1.0, 2.0), (None, None)], said):
        clips = [processor.video_processor(path, start=0.0, end=1.0)["pixel_values"][0]]
        settings = {} if end is None else {"start": start, "end": end}
        clips.append(processor.video_processor(path, **settings)["pixel_values"][0])
        inputs = {name: torch.tensor([ids]) for name, ids in processor.encode(text).items()}
        generated_ids = model.generate(**inputs, pixel_values=torch.stack(clips))
        assert processor.post_process_narrations(generated_ids, inputs) == [own]


def test_a_demonstration_that_changes_on_disk(embedded, videos_path, tmp_path):
    model, processor = embedded
    path = tmp_path / "clip.mp4"
    shutil.copy(videos_path / "good_cfr_bframes.mp4", path)
    session = InContextSession(model, processor, [(path, "The camera wearer wipes the cup.")])
    query = str(videos_path / "vp9.mp4")
    candidates = ["The camera wearer wipes the cup.", "The camera wearer cuts the carrot."]
    session.score([query], candidates)
    shutil.copy(videos_path / "vid-exact8.mp4", path)
    fresh = InContextSession(model, processor, [(path, "The camera wearer wipes the cup.")])
    close(session.score([query], candidates), fresh.score([query], candidates))


def test_training_mode_and_autocast_leave_nothing_behind(golden, videos):
    processor = golden.interleaved
    model = AutoModelForImageTextToText.from_pretrained(golden.checkpoint)
    session = InContextSession(model, processor, list(zip(videos, NARRATIONS)))
    expected = session.score(videos[2:3], NARRATIONS)
    for context in (model.train(), torch.autocast("cpu", torch.bfloat16)):
        with context if isinstance(context, torch.autocast) else contextlib.nullcontext():
            session.score(videos[2:3], NARRATIONS)
        model.eval()
        close(session.score(videos[2:3], NARRATIONS), expected)


def test_what_decides_the_narrations(golden, videos):
    """Each change changes the fingerprint that it is of, and no other."""
    processor = AutoProcessor.from_pretrained(golden.checkpoint, prompt_layout="interleaved")
    model = AutoModelForImageTextToText.from_pretrained(golden.checkpoint)
    pairs = list(zip(videos, NARRATIONS))
    session = InContextSession(model, processor, pairs)

    def change_weight():
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(1.5)

    changes = [
        ("demonstrations", lambda: setattr(session, "demonstrations", pairs[:1])),
        ("prompt", lambda: setattr(session, "prompt", "What?")),
        ("model", lambda: setattr(model.generation_config, "max_new_tokens", 3)),
        ("model", change_weight),
        ("processor", lambda: processor.tokenizer.add_tokens(["unheard"])),
    ]
    before = session.fingerprints()
    assert before == InContextSession(model, processor, pairs).fingerprints()
    for name, change in changes:
        change()
        now = session.fingerprints()
        assert {key for key in now if now[key] != before[key]} == {name}
        before = now


def test_demonstrations_that_can_be_read_once(embedded, videos_path):
    """A file object is read when it is given, and not for each batch of clips."""
    model, processor = embedded
    path = videos_path / "good_cfr_bframes.mp4"
    expected = InContextSession(model, processor, [(path, "The camera wearer wipes the cup.")])
    with open(path, "rb") as file:
        session = InContextSession(model, processor, [(file, "The camera wearer wipes the cup.")])
    clips = [str(videos_path / "vp9.mp4")] * 2
    assert session.narrate(clips, batch_size=1) == expected.narrate(clips, batch_size=1)


def test_features_are_shared_between_sessions(golden, videos):
    encoder = ClipEncoder(golden.model, golden.interleaved)
    pairs = list(zip(videos, NARRATIONS))
    InContextSession(golden.model, golden.interleaved, pairs, encoder=encoder).narrate([videos[2]], **TEN)
    seen = []
    hook = golden.model.vision_model.register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        InContextSession(golden.model, golden.interleaved, pairs[::-1], encoder=encoder).narrate([videos[2]], **TEN)
    finally:
        hook.remove()
    assert not seen


def test_bad_input(embedded, golden, videos, videos_path, tmp_path):
    model, processor = embedded
    good = str(videos_path / "good_cfr_bframes.mp4")
    with pytest.raises(ValueError, match="(?s)gone.mp4.*text.mp4"):
        InContextSession(
            model, processor, [(good, "x"), (tmp_path / "gone.mp4", "x"), (videos_path / "text.mp4", "x")]
        )
    with pytest.raises(ValueError, match="narration"):
        InContextSession(model, processor, [(good, "  ")])
    with pytest.raises(ValueError, match="don't belong together"):
        InContextSession(model, golden.interleaved)
    session = InContextSession(model, processor, [(good, "The camera wearer wipes the cup.")])
    with pytest.raises(ValueError, match="`batch_size`.*0"):
        session.narrate([good], batch_size=0)
    with pytest.raises(ValueError, match="no clip"):
        session.read([])
    with pytest.raises(ValueError, match="one clip: give"):
        session.narrate(good)
    with pytest.raises(ValueError, match="`candidates`.*'abc'"):
        session.score([good], "abc")
    with pytest.raises(ValueError, match="`candidates`"):
        session.score([good], [])
    assert session.score([], ["One."]).shape == (0, 1)
    with pytest.raises(TypeError, match="num_beams"):
        InContextSession(model, processor, num_beams=5)
    with pytest.raises(ValueError, match="no words"):
        session.narrate([good], demonstrations=[[(good, " ")]])
    with pytest.raises(ValueError, match="another model"):
        InContextSession(model, processor, encoder=ClipEncoder(golden.model, golden.interleaved))
    with pytest.raises(FileNotFoundError, match="gone.mp4"):
        session.narrate([good, tmp_path / "gone.mp4"])
    session.demonstrations = [(good, "The camera wearer wipes the cup.")] * 60
    with pytest.raises(ValueError, match="tokens and 1 more are longer than the 512"):
        session.narrate([good])
    assert session.narrate([]) == []
