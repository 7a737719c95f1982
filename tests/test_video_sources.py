"""Where videos may come from, and within what bounds."""

import contextlib
import http.server
import io
import os
import threading

import av
import pytest
import torch
from video_frames import (
    VIDEOS,
    run_python,
)

from transformers_eilev.video_reading import (
    ClipWindow,
    ReadLimits,
    VideoReadError,
    probe_video,
    read_clip,
)


# ------------------------------------------------------------------------------------------------------------ sources


class Unseekable(io.RawIOBase):
    def __init__(self, data):
        self.buffer = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, target):
        return self.buffer.readinto(target)


def test_all_kinds_of_sources_agree(tmp_path):
    path = VIDEOS / "good_opengop.mp4"
    window = ClipWindow(start=2, end=6, num_frames=4)
    expected = read_clip(path, window)
    data = path.read_bytes()
    awkward = tmp_path / "uid with space|and pipe %d ü 12:30.txt"
    awkward.write_bytes(data)
    with open(path, "rb") as file:
        file.seek(1000)
        for source in (str(path), data, bytearray(data), io.BytesIO(data), file, Unseekable(data), awkward):
            clip = read_clip(source, window)
            assert torch.equal(clip.frames, expected.frames) and clip.frame_sec == expected.frame_sec
        assert not file.closed


def test_paths_that_are_no_files(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no_such.mp4"):
        read_clip(tmp_path / "no_such.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(IsADirectoryError, match="folder.mp4"):
        read_clip(tmp_path / "folder.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(FileNotFoundError, match="dangling.mp4"):
        read_clip(str(tmp_path / "dangling.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoReadError, match="pipe.mp4: not a regular file"):
        read_clip(tmp_path / "pipe.mp4")
    monkeypatch.chdir(VIDEOS)
    assert read_clip("five_frames.mp4").status == "complete"


@pytest.mark.parametrize("source", [5, None, io.StringIO("text"), ["a.mp4"]])
def test_no_source_at_all(source):
    with pytest.raises(TypeError, match="a video is read from a path"):
        read_clip(source)


@pytest.mark.parametrize("scheme", ["rtmp://host/live", "concat:{0}|{0}", "file://{0}", "file:{0}", "pipe:0"])
def test_other_schemes_are_refused_by_name(scheme):
    url = scheme.format(VIDEOS / "start_time_ts.ts")
    with pytest.raises(VideoReadError, match=f"the scheme '{scheme.split(':')[0]}' is not read"):
        read_clip(url)


PLAYLISTS = {
    "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n",
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile {0}\n",
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash.mp4": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="1" bandwidth="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ),
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_file_cannot_make_ffmpeg_open_another(tmp_path, name):
    (tmp_path / "other.ts").write_bytes((VIDEOS / "start_time_ts.ts").read_bytes())
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format("other.ts"))
    for source in (path, path.read_bytes()):
        with pytest.raises(VideoReadError, match="cannot be opened as a video"):
            read_clip(source)
    if name in ("playlist.m3u8", "concat.mp4"):  # the attack is real: left to itself FFmpeg follows
        assert next(av.open(str(path)).decode(video=0)).width == 320


@pytest.fixture
def server(monkeypatch):
    """The address of a server of the test videos."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(VIDEOS))

        def do_GET(self):
            if self.path.startswith("/away"):
                self.send_response(302)
                self.send_header("Location", f"file://{VIDEOS}/faststart.mp4")
                self.end_headers()
            else:
                with contextlib.suppress(ConnectionError):  # a client that hangs up is one of the tests
                    super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_url(server):
    url = f"{server}/good_opengop.mp4?signature=secret"
    clip = read_clip(url)
    assert torch.equal(clip.frames, read_clip(VIDEOS / "good_opengop.mp4").frames)
    assert "secret" not in clip.source
    with pytest.raises(VideoReadError, match="no_such.mp4: the server answered 404"):
        read_clip(f"{server}/no_such.mp4")
    with pytest.raises(VideoReadError, match="105989 bytes, more than max_source_bytes=1000"):
        read_clip(url, limits=ReadLimits(max_source_bytes=1000))
    with pytest.raises(VideoReadError, match="download failed: UnsupportedProtocol"):
        read_clip(f"{server}/away.mp4")
    with pytest.raises(VideoReadError, match="download failed"):
        read_clip("http://127.0.0.1:1/video.mp4")


# ---------------------------------------------------------------------------------------------- windows, limits, probe


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"start": -1}, "start must not be negative, got -1"),
        ({"start": 2, "end": 2}, "end must be after start=2, got 2"),
        ({"end": float("nan")}, "end must be finite, got nan"),
        ({"start": "0"}, "start must be a number, got '0'"),
        ({"start": None}, "start must be a number, got None"),
        ({"num_frames": 0}, "num_frames must be positive, got 0"),
        ({"num_frames": 2.0}, "num_frames must be an integer, got 2.0"),
        ({"num_frames": True}, "num_frames must be an integer, got True"),
        ({"fps": 0}, "fps must be positive, got 0"),
        ({"fps": 1, "num_frames": 8}, "give num_frames or fps, got num_frames=8 and fps=1"),
    ],
)
def test_windows_are_checked(fields, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ClipWindow(**fields)


@pytest.mark.parametrize(
    "limits, window, message",
    [
        ({"max_pixels": 320 * 240 - 1}, {}, "frames of 320x240, more than max_pixels=76799"),
        ({"max_frames": 7}, {"num_frames": 8}, "8 frames, more than max_frames=7"),
        ({"max_frames": 299}, {}, "300 frames, more than max_frames=299"),
        ({"max_frames": 100}, {"fps": 1e9}, "frames, more than max_frames=100"),
        (
            {"max_clip_bytes": 10**6},
            {"num_frames": 8},
            "8 frames take 1843200 bytes, more than max_clip_bytes=1000000",
        ),
        ({"max_seconds": 1e-6}, {}, "longer than max_seconds=1e-06"),
    ],
)
def test_limits(limits, window, message):
    with pytest.raises(VideoReadError, match=message):
        read_clip(VIDEOS / "faststart.mp4", ClipWindow(**window), limits=ReadLimits(**limits))


def test_frames_larger_than_the_header_says(tmp_path):
    """The bound holds in the decoder too."""
    data = bytearray((VIDEOS / "mjpeg.avi").read_bytes())
    start = data.index(b"strf") + 12
    assert int.from_bytes(data[start : start + 4], "little") == 320
    data[start : start + 8] = (16).to_bytes(4, "little") * 2
    with pytest.raises(VideoReadError):
        read_clip(bytes(data), limits=ReadLimits(max_pixels=1000))
    with pytest.raises(ValueError, match="max_pixels must be a positive number, got 0"):
        ReadLimits(max_pixels=0)


@pytest.mark.parametrize(
    "name, width, height, duration, fps, start",
    [
        ("faststart.mp4", 320, 240, 10.0, 30, 0.0),
        ("audio_longer.mp4", 320, 240, 10.0, 30, 0.0),
        ("odd_size_319x241.mp4", 319, 241, 4.0, 30, 0.0),
        ("start_time.mkv", 320, 240, 10.0, 30, 2.0),
        ("start_time_ts.ts", 320, 240, 10.0, 30, 4.9),
        ("editlist_cut.mp4", 320, 240, 5.0667, 30, 0.0),
        ("rotate90.mp4", 240, 320, 10.0, 30, 0.0),
        ("raw_annexb.h264", 320, 240, 4.8, 25, None),
    ],
)
def test_probe(name, width, height, duration, fps, start):
    info = probe_video(VIDEOS / name)
    assert (info.width, info.height) == (width, height)
    assert info.duration == pytest.approx(duration, abs=1e-3)
    assert info.fps == pytest.approx(fps)
    assert info.start == (start if start is None else pytest.approx(start))
    assert info.codec == "h264"


def test_nothing_is_left_behind_that_a_fork_would_trip_over():
    """Threads of decoders and scalers, that wait for the garbage collector, hang a child that collects them."""
    code = """
    import gc, os, signal, sys, threading
    gc.disable()
    from transformers_eilev.video_reading import read_clip
    read_clip(sys.argv[1])
    before = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        read_clip(sys.argv[1])
    assert len(os.listdir("/proc/self/task")) <= before, "threads are left"
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        gc.collect()
        read_clip(sys.argv[1])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the child hung"
    """
    run_python(code, VIDEOS / "good_cfr_bframes.mp4")


def test_an_error_of_a_worker_stays_what_it_is():
    """PyTorch builds it anew from its text."""
    assert str(VideoReadError("clip.mp4: is empty")) == "clip.mp4: is empty"
