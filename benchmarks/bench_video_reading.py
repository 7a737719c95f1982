"""Reading clips: choosing frames first and decoding those, against decoding the whole window and choosing then.

    python benchmarks/bench_video_reading.py
    python benchmarks/bench_video_reading.py --codec vp9 --seconds 30

Makes a video of 1440x1080 at 30 frames a second, then reads 8 frames of 8 s both ways, and 20 overlapping clips in one
pass and one by one. Prints a table and one line of JSON.
"""

import argparse
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from transformers_eilev.video_reading import ClipWindow, read_clip, read_clips, sample_indices


WIDTH, HEIGHT, RATE = 1440, 1080, 30
NUM_FRAMES, CLIP_SEC = 8, 8
ENCODERS = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "23", "g": "250", "bf": "3", "threads": "0"}),
    "vp9": ("libvpx-vp9", {"crf": "36", "b": "0", "deadline": "realtime", "cpu-used": "8", "g": "128", "row-mt": "1"}),
}


def make_video(path: Path, *, seconds: int, codec: str) -> None:
    """A smooth texture that a camera pans over unevenly, with a little noise that changes from frame to frame."""
    generator = np.random.default_rng(0)
    texture = torch.from_numpy(generator.random((1, 1, 60, 80), dtype=np.float32))
    size = (HEIGHT + 400, WIDTH + 400)
    texture = torch.nn.functional.interpolate(texture, size=size, mode="bicubic").clamp(0, 1)[0, 0]
    texture = (32 + 160 * texture).to(torch.uint8).numpy()
    noise = generator.integers(0, 20, (4, HEIGHT, WIDTH), dtype=np.uint8)
    name, options = ENCODERS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, dtype=np.uint8)
        for number in range(seconds * RATE):
            x, y = (round(200 + 190 * f(number / 23)) for f in (np.sin, np.cos))
            planes[:HEIGHT] = texture[y : y + HEIGHT, x : x + WIDTH] + noise[number % 4]
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_whole_window(path: Path, start: float) -> tuple[torch.Tensor, int, int]:
    """Every frame of the window decoded, converted and stacked, then 8 of them taken."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        first, last = (int(second / stream.time_base) for second in (start, start + CLIP_SEC))
        container.seek(max(0, first - 1024), stream=stream)
        images, num_decoded = [], 0
        for frame in container.decode(stream):
            num_decoded += 1
            if frame.pts >= last:
                break
            if frame.pts >= first:
                images.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
    frames = torch.stack(images).permute(0, 3, 1, 2)
    return frames[sample_indices(len(frames), NUM_FRAMES)], num_decoded, len(images)


def timed(function, repeats: int = 1):
    """The result, and the least wall and CPU seconds of `repeats` calls."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        best = [min(best[0], time.perf_counter() - wall), min(best[1], time.process_time() - cpu)]
    return result, *best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=40, help="length of the video, at least 32")
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest of so many single clips counts")
    args = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("video.mp4" if args.codec == "h264" else "video.webm")
        make_video(path, seconds=args.seconds, codec=args.codec)
        size = path.stat().st_size
        start = args.seconds / 2 - 3
        window = ClipWindow(start=start, end=start + CLIP_SEC, num_frames=NUM_FRAMES)
        first = args.seconds / 2 - 16
        windows = [ClipWindow(first + 1.2 * i, first + 1.2 * i + CLIP_SEC, NUM_FRAMES) for i in range(20)]

        clip, *ours = timed(lambda: read_clip(path, window), args.repeats)
        (frames, decoded, converted), *whole = timed(lambda: read_whole_window(path, start), args.repeats)
        assert torch.equal(clip.frames, frames)
        clips, *one_pass = timed(lambda: read_clips(path, windows))
        singles, *one_by_one = timed(lambda: [read_clip(path, window) for window in windows])
        assert all(torch.equal(a.frames, b.frames) for a, b in zip(clips, singles, strict=True))

    rows = {
        "one clip, wanted frames": (*ours, clip.counts.decoded, clip.counts.converted),
        "one clip, whole window": (*whole, decoded, converted),
        "20 clips, one pass": (*one_pass, clips[0].counts.decoded, clips[0].counts.converted),
        "20 clips, one by one": (
            *one_by_one,
            sum(clip.counts.decoded for clip in singles),
            sum(clip.counts.converted for clip in singles),
        ),
    }
    print(f"{args.codec} {WIDTH}x{HEIGHT}, {args.seconds} s, {size * 8 / args.seconds / 1e6:.1f} Mbit/s, one thread")
    print(f"{'':26}{'wall s':>8}{'CPU s':>8}{'decoded':>9}{'converted':>11}")
    for name, (wall, cpu, num_decoded, num_converted) in rows.items():
        print(f"{name:26}{wall:8.2f}{cpu:8.2f}{num_decoded:9}{num_converted:11}")
    ratios = {"one_clip": whole[1] / ours[1], "twenty_clips": one_by_one[1] / one_pass[1]}
    print(f"CPU: one clip {ratios['one_clip']:.1f} times faster, 20 clips {ratios['twenty_clips']:.1f} times")
    keys = ("wall_sec", "cpu_sec", "decoded", "converted")
    results = {name: dict(zip(keys, row, strict=True)) for name, row in rows.items()}
    print(json.dumps({"codec": args.codec, "seconds": args.seconds, "bytes": size, **results, "cpu_ratio": ratios}))


if __name__ == "__main__":
    main()
