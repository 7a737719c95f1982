"""Files of narrations are read back as what was written, whatever the narrations say."""

import csv
import io
import json
import re

import av
import pytest

from transformers_eilev.in_context.subtitles import SubtitleFormatter, VideoNarration, subtitle_format


NARRATIONS = [
    VideoNarration(0.0, 4.0, "The camera wearer washes a cup.", -0.5),
    VideoNarration(4.0, 8.0, "", None),
    VideoNarration(8.0, 12.0, "", None, "none of its 8 frames can be decoded"),
    VideoNarration(12.0, 16.0005, 'She says "a, b"\n\n\r\n2\n00:00:01,000 --> 00:00:02,000\nü 杯 🍵', -1e-9),
    VideoNarration(16.0005, 20.0, "  <i>R&D</i> --> -->\x00\x0b{x}\u2028end  ", 0.0),
    VideoNarration(3723.0049, 3723.00491, "=1+1", None),
    VideoNarration(360000.0, 360004.0, "NOTE after 100 hours", -2.5),
    VideoNarration(360004.0, 360005.0, " \n\t\n ", -2.5),
]


def text_of(format, narrations=NARRATIONS):
    formatter = SubtitleFormatter(format)
    return formatter.beginning + "".join(map(formatter.add, narrations))


def cues_of(text, *, point, numbered):
    """A strict reader: blocks between single blank lines, numbers from 1, times, at least one line."""
    assert text.endswith("\n\n") and not text.endswith("\n\n\n")
    cues = []
    for number, block in enumerate(text[:-2].split("\n\n"), start=1):
        lines = block.split("\n")
        if numbered:
            assert lines.pop(0) == str(number)
        clock = rf"(\d\d+):([0-5]\d):([0-5]\d){re.escape(point)}(\d{{3}})"
        times = re.fullmatch(rf"{clock} --> {clock}", lines.pop(0)).groups()
        start, end = (
            3600000 * int(h) + 60000 * int(m) + 1000 * int(s) + int(ms) for h, m, s, ms in (times[:4], times[4:])
        )
        assert start < end and lines and all(line.strip() and "-->" not in line for line in lines)
        cues.append((start, end, "\n".join(lines)))
    return cues


EXPECTED_TIMES = [(0, 4000), (12000, 16000), (16000, 20000), (3723005, 3723006), (360000000, 360004000)]


def test_srt():
    cues = cues_of(text_of("srt"), point=",", numbered=True)
    assert [cue[:2] for cue in cues] == EXPECTED_TIMES
    assert cues[0][2] == "The camera wearer washes a cup."
    assert cues[1][2] == 'She says "a, b"\n2\n00:00:01,000 -> 00:00:02,000\nü 杯 🍵'
    assert cues[2][2] == "<i>R&D</i> -> ->\n{x}\nend"


def test_vtt():
    text = text_of("vtt")
    assert text.startswith("WEBVTT\n\n")
    cues = cues_of(text.removeprefix("WEBVTT\n\n"), point=".", numbered=False)
    assert [cue[:2] for cue in cues] == EXPECTED_TIMES
    assert cues[1][2] == 'She says "a, b"\n2\n00:00:01,000 --&gt; 00:00:02,000\nü 杯 🍵'
    assert cues[2][2] == "&lt;i&gt;R&amp;D&lt;/i&gt; --&gt; --&gt;\n{x}\nend"


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_ffmpeg_reads_the_same_cues(format, tmp_path):
    path = tmp_path / f"cues.{format}"
    path.write_text(text_of(format), encoding="utf-8", newline="")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        scale = 1000 * packets[0].time_base
        cues = [(packet.pts * scale, (packet.pts + packet.duration) * scale, bytes(packet)) for packet in packets]
    assert [cue[:2] for cue in cues] == EXPECTED_TIMES
    point, numbered = (",", True) if format == "srt" else (".", False)
    ours = cues_of(text_of(format).removeprefix("WEBVTT\n\n"), point=point, numbered=numbered)
    assert [cue[2].decode().strip() for cue in cues] == [cue[2] for cue in ours]


def test_tables_keep_everything():
    rows = list(csv.DictReader(io.StringIO(text_of("csv"), newline="")))
    lines = [json.loads(line) for line in text_of("jsonl").split("\n")[:-1]]
    assert len(rows) == len(lines) == len(NARRATIONS)
    for row, line, narration in zip(rows, lines, NARRATIONS):
        assert VideoNarration(**line) == narration
        score = float(row["score"]) if row["score"] else None
        read = VideoNarration(float(row["start"]), float(row["end"]), row["text"], score, row["error"])
        assert read == narration


def test_without_narrations():
    assert [text_of(format, []) for format in ("srt", "vtt", "jsonl")] == ["", "WEBVTT\n\n", ""]
    assert text_of("csv", []) == "start,end,text,score,error\n"


def test_format():
    assert subtitle_format("a/hour.SRT") == "srt" and subtitle_format("hour.txt", "vtt") == "vtt"
    with pytest.raises(ValueError, match=r"'hour.txt' must end with one of .srt, .vtt, .csv, .jsonl"):
        subtitle_format("hour.txt")
    with pytest.raises(ValueError, match="format must be one of srt, vtt, csv, jsonl, got 'ass'"):
        subtitle_format("hour.srt", "ass")
