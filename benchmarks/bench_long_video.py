"""Narrating a long video with a model that costs nothing, against decoding alone, and with one that takes as long.

    python benchmarks/bench_long_video.py
    python benchmarks/bench_long_video.py --codec vp9 --seconds 60

Makes a video of 1440x1080 at 30 frames a second, and in a process of its own for each:

    decoding         every frame, one after the other, nothing done with them
    narrating        `narrate_video`, 8 frames of 8 s every 4 s at 224x224, to a file; the model does nothing
    with a model     the same; the model sleeps, in all as long as narrating took
    one by one       the same clips with the same model, each read when the model is done with the one before

Prints a table and one line of JSON. Target: narrating costs at most 1.3 times the CPU seconds of decoding, and with a
model it takes about the longer of both and not their sum.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
import warnings
from pathlib import Path

from bench_extraction import peak_bytes
from bench_video_reading import CLIP_SEC, NUM_FRAMES, make_video


EVERY = 4
SIZE = (224, 224)


def decode(path: Path, model_sec: float) -> int:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def narrate(path: Path, model_sec: float) -> int:
    from transformers_eilev.in_context.long_videos import narrate_video

    def model(clips, spans):
        time.sleep(model_sec * len(clips))
        return [("The camera wearer does something.", -1.0)] * len(clips)

    settings = {"every": EVERY, "clip_sec": CLIP_SEC, "num_frames": NUM_FRAMES, "size": SIZE, "batch_size": 1}
    output = path.with_suffix(".srt")
    return sum(1 for _ in narrate_video(path, model, output=output, overwrite=True, progress=False, **settings))


def narrate_one_by_one(path: Path, model_sec: float) -> int:
    from transformers_eilev.frame_resizing import resize_frames
    from transformers_eilev.in_context.long_videos import plan_windows
    from transformers_eilev.video_reading import ClipWindow, probe_video, read_clip

    stretches = plan_windows(probe_video(path).duration, every=EVERY, clip_sec=CLIP_SEC)
    for stretch in stretches:
        resize_frames(read_clip(path, ClipWindow(stretch.window_start, stretch.window_end, NUM_FRAMES)).frames, SIZE)
        time.sleep(model_sec)
    return len(stretches)


def measure(connection, way, path: Path, model_sec: float) -> None:
    import torch

    import transformers_eilev.in_context.long_videos  # noqa: F401

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    wall, cpu = time.perf_counter(), time.process_time()
    number = way(path, model_sec)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    connection.send({"wall_sec": wall, "cpu_sec": cpu, "peak_bytes": peak_bytes(), "number": number})


def run_alone(way, path: Path, model_sec: float = 0.0) -> dict:
    """In a process of its own, so that the peak of its memory is its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, way, path, model_sec))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=180, help="length of the video")
    parser.add_argument("--codec", choices=["h264", "vp9"], default="h264")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{'mp4' if args.codec == 'h264' else 'webm'}"
        make_video(path, seconds=args.seconds, codec=args.codec)
        results = {"decoding": run_alone(decode, path), "narrating": run_alone(narrate, path)}
        alone = results["narrating"]
        model_sec = alone["wall_sec"] / alone["number"]
        results["with a model"] = run_alone(narrate, path, model_sec)
        results["one by one"] = run_alone(narrate_one_by_one, path, model_sec)

    print(f"{'':16}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
    for name, result in results.items():
        print(f"{name:16}{result['wall_sec']:8.2f}{result['cpu_sec']:8.2f}{result['peak_bytes'] / 1e6:9.0f}")
    ratio = alone["cpu_sec"] / results["decoding"]["cpu_sec"]
    longer = max(alone["wall_sec"], model_sec * alone["number"])
    overlap = results["with a model"]["wall_sec"] / longer
    print(f"narrating / decoding, CPU: {ratio:.2f}; with a model / the longer of both, wall: {overlap:.2f}")
    keys = {"codec": args.codec, "seconds": args.seconds, "every": EVERY, "cpu_ratio": ratio, "wall_ratio": overlap}
    print(json.dumps({**keys, "model_sec_per_clip": model_sec, "results": results}))


if __name__ == "__main__":
    main()
