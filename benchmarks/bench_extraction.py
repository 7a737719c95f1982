"""Extraction of clips, against the original's way of doing it and against decoding alone.

    python benchmarks/bench_extraction.py
    python benchmarks/bench_extraction.py --codecs vp9 --seconds 60 --clips 20

Makes a video of 1440x1080 at 30 frames a second for each codec and extracts its clips, 8 frames of 8 s at 448x448 as
JPEG, in a process of its own for each of three ways:

    extraction    what `extract_clips` does with one video, the part file written
    whole window  the original's algorithm well written: decode and convert all frames of each window, take 8 of them,
                  resize and encode as we do; timed on a few of the windows, its cost being the same for each
    decode only   the frames between the first window's start and the last one's end, one after the other, nothing
                  done with them: for dense windows the limit of whoever decodes everything once
    decord        clip by clip with decord, if it is installed

Dense windows overlap, as narrations do; sparse ones lie far apart. Prints a table and one line of JSON.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from bench_video_reading import CLIP_SEC, NUM_FRAMES, make_video


SIZE = 448


def action_times(kind: str, *, seconds: int, num_clips: int) -> list[float]:
    """When the narrations are: 1.2 s apart and in the middle of the video, or spread over all of it."""
    if kind == "dense":
        first = seconds / 2 - 1.2 * (num_clips - 1) / 2
        return [round(first + 1.2 * number, 3) for number in range(num_clips)]
    num_clips = max(2, round(seconds / 20))
    return [round(4.5 + (seconds - 9) * number / (num_clips - 1), 3) for number in range(num_clips)]


def extract(path: Path, times: list[float], folder: Path) -> int:
    from transformers_eilev.data.extraction_worker import ExtractionSettings, VideoTask, extract_video
    from transformers_eilev.video_reading import ReadLimits

    settings = ExtractionSettings(
        num_frames=NUM_FRAMES,
        size=SIZE,
        clip_duration=CLIP_SEC,
        encoding="jpeg",
        row_group_size=8,
        extra_columns={},
        limits=ReadLimits(),
    )
    rows = [
        {
            "video_uid": "video",
            "clip_index": number,
            "frame_path": f"video|{number}",
            "narration_timestamp_sec": second,
            "narration_text": "#C C does something",
            "structured_verb": "",
            "structured_noun": "",
        }
        for number, second in enumerate(times)
    ]
    task = VideoTask(name="video", folder=folder, video_uid="video", video_path=str(path), rows=rows)
    return extract_video(task, settings, lambda: None)["num_clips"]


def extract_whole_windows(path: Path, times: list[float], folder: Path) -> int:
    """Clip by clip: seek, decode and convert the window's 240 frames, index, resize, encode."""
    import av
    import torch

    from transformers_eilev.data.clip_store import ClipStoreWriter
    from transformers_eilev.frame_resizing import resize_frames
    from transformers_eilev.video_reading import sample_indices

    with ClipStoreWriter(folder / "whole.parquet") as writer, av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for second in times:
            first, last = (int((second + offset) / stream.time_base) for offset in (-CLIP_SEC / 2, CLIP_SEC / 2))
            container.seek(max(0, first - int(0.1 / stream.time_base)), stream=stream)
            images = []
            for frame in container.decode(stream):
                if frame.pts >= last:
                    break
                if frame.pts >= first:
                    images.append(frame.to_ndarray(format="rgb24"))
            frames = torch.stack([torch.from_numpy(images[i]) for i in sample_indices(len(images), NUM_FRAMES)])
            writer.write({}, resize_frames(frames.permute(0, 3, 1, 2), (SIZE, SIZE)), frame_sec=[])
    return writer.num_clips


def decode_only(path: Path, times: list[float], folder: Path) -> int:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(int((times[0] - CLIP_SEC / 2) / stream.time_base), stream=stream)
        end = int((times[-1] + CLIP_SEC / 2) / stream.time_base)
        for frame in container.decode(stream):
            if frame.pts >= end:
                break
    return 0


def extract_with_decord(path: Path, times: list[float], folder: Path) -> int:
    """Clip by clip, with decord's random access."""
    import decord
    import torch

    from transformers_eilev.data.clip_store import ClipStoreWriter
    from transformers_eilev.frame_resizing import resize_frames
    from transformers_eilev.video_reading import sample_indices

    video = decord.VideoReader(str(path), num_threads=1)
    with ClipStoreWriter(folder / "decord.parquet") as writer:
        for second in times:
            first = round((second - CLIP_SEC / 2) * video.get_avg_fps())
            inside = sample_indices(round(CLIP_SEC * video.get_avg_fps()), NUM_FRAMES)
            frames = torch.from_numpy(video.get_batch([first + index for index in inside]).asnumpy())
            writer.write({}, resize_frames(frames.permute(0, 3, 1, 2), (SIZE, SIZE)), frame_sec=[])
    return writer.num_clips


WAYS = {"extraction": extract, "whole window": extract_whole_windows, "decode only": decode_only}
if find_spec("decord"):
    WAYS["decord"] = extract_with_decord


def measure(connection, way: str, path: Path, times: list[float], folder: Path) -> None:
    """In a process of its own, so that the peak of its memory is its own."""
    import av

    import transformers_eilev.video_reading  # noqa: F401
    from transformers_eilev.data.extraction_worker import become_worker

    become_worker()
    av.logging.set_level(av.logging.PANIC)
    wall, cpu = time.perf_counter(), time.process_time()
    WAYS[way](path, times, folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    connection.send((wall, cpu, peak_bytes()))


def peak_bytes() -> int:
    try:  # since exec; ru_maxrss would start from the parent's
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_alone(*args) -> tuple[float, float, int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, *args))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=32, help="length of the videos, at least 32")
    parser.add_argument("--clips", type=int, default=20, help="dense windows in a video")
    parser.add_argument("--whole-clips", type=int, default=2, help="about so many of them for the whole-window way")
    parser.add_argument("--codecs", nargs="+", choices=["h264", "vp9"], default=["h264", "vp9"])
    args = parser.parse_args()

    results = []
    print(f"{'':14}{'way':14}{'wall s':>8}{'CPU s':>8}{'CPU/clip':>10}{'peak MB':>9}{'x slower':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for codec in args.codecs:
            path = Path(folder) / f"{codec}.{'mp4' if codec == 'h264' else 'webm'}"
            make_video(path, seconds=args.seconds, codec=codec)
            for kind in ("dense", "sparse"):
                times = action_times(kind, seconds=args.seconds, num_clips=args.clips)
                measured = {way: run_alone(way, path, times, Path(folder)) for way in WAYS if way != "whole window"}
                few = times[:: max(1, len(times) // args.whole_clips)]
                *seconds, peak = run_alone("whole window", path, few, Path(folder))
                measured["whole window"] = (*(value * len(times) / len(few) for value in seconds), peak)
                for way, (wall, cpu, peak) in measured.items():
                    ratio = cpu / measured["extraction"][1]
                    print(
                        f"{codec + ' ' + kind:14}{way:14}{wall:8.2f}{cpu:8.2f}{cpu / len(times):10.2f}"
                        f"{peak / 1e6:9.0f}{ratio:10.2f}"
                    )
                    keys = {"codec": codec, "windows": kind, "way": way, "clips": len(times)}
                    results.append({**keys, "wall_sec": wall, "cpu_sec": cpu, "peak_bytes": peak, "cpu_ratio": ratio})
    print(json.dumps({"seconds": args.seconds, "size": SIZE, "results": results}))


if __name__ == "__main__":
    main()
