"""One open video file: where its frames are in time, and the wanted ones of them decoded.

FFmpeg is held on a short leash here, and frames are named by the time they are displayed, counted in ticks: the
integers of the stream's own clock.
"""

import errno
import os
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from math import ceil, floor
from typing import TYPE_CHECKING, BinaryIO

import torch

from .video_sources import ReadLimits, VideoReadError


if TYPE_CHECKING:
    import av


# Containers that hold their own frames. Left out are all those that name other files or hosts (playlists, sdp, image
# sequences): with them a hostile file would choose what FFmpeg opens.
CONTAINER_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,flv,asf,ogg,nut,mjpeg,mxf,dv,gif,wtv,rm,yuv4mpegpipe",
)

# A seek aims this much early: some demuxers seek by decoding time, which runs before presentation time.
SEEK_MARGIN_SEC = Fraction(1, 2)
# Skipping ahead further than this is done by seeking, less by dropping packets.
SEEK_GAP_SEC = 2
# No codec in use reorders more frames than this (H.264 and HEVC allow 16).
MAX_REORDER = 32
# Decoders that drop an unwanted frame by its own packet and to good effect. libdav1d drops others than it is told to,
# the rest, VP9 among them, drop none.
CODECS_TO_SKIP = ("h264", "hevc")
# Packets looked at in search of the first keyframe.
MAX_PACKETS_TO_KEYFRAME = 1200


@dataclass
class DecodeCounts:
    """Frames that came out of the decoder, and those of them that were converted to RGB."""

    decoded: int = 0
    converted: int = 0


@dataclass
class Timeline:
    """The displayable frames of a stretch of video, read from its packets without decoding."""

    ticks: list[int] = field(default_factory=list)  # sorted presentation times
    entry: dict[int, int] = field(default_factory=dict)  # frame -> the keyframe that decoding it starts from
    keyframes: list[int] = field(default_factory=list)
    end: int = 0  # when the last frame goes off display
    reached_end: bool = False  # the file ended before the stretch did

    def keyframe_before(self, tick: int) -> int:
        return self.keyframes[max(0, bisect_right(self.keyframes, tick) - 1)]

    def between(self, start: int, end: int | None) -> list[int]:
        """Frames in [start, end)."""
        return self.ticks[bisect_left(self.ticks, start) : None if end is None else bisect_left(self.ticks, end)]


class VideoFile:
    """The main video stream of one file, opened for reading frames by time.

    Frames are named by tick: the presentation time in units of `time_base`, as the file has it. Where a stream has no
    times at all (raw H.264), a tick is the frame's number in display order and `time_base` is one over the frame rate.

    Args:
        file (`BinaryIO`): seekable. Not closed.
        name (`str`): what errors call it.
        limits (`ReadLimits`): bounds.

    Raises:
        VideoReadError: not a video, no video stream, no decoder for it, no frames, or frames that are too large.
    """

    def __init__(self, file: BinaryIO, *, name: str, limits: ReadLimits):
        self.name = name
        self.limits = limits
        self.counts = DecodeCounts()
        self.num_errors = 0  # packets that could not be read or decoded
        self._is_turned = None  # whether its first frame has a display matrix
        self.touch()
        self._file = file
        self._container = None
        self._stream_index = None
        self._open()
        self.sequential = False  # decode from the beginning, always: no times or no keyframes to go by
        self.untimed = False
        self.time_base: Fraction = self._stream.time_base
        self.origin = self._find_origin()

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *exc_info) -> None:
        self._container.close()
        # Decoders and scalers have threads of their own, and a process that forks while they wait to be collected
        # as garbage hangs where it collects them. So nothing is left to collect.
        self._container = self._stream = self._context = None

    def touch(self) -> None:
        """Restart the clock of `max_seconds`."""
        self._deadline = time.monotonic() + self.limits.max_seconds

    def to_tick(self, seconds: float | Fraction) -> int:
        """The first tick at or after `seconds` from the first displayed frame; exact."""
        return self.origin + ceil(Fraction(seconds) / self.time_base)

    def to_display_tick(self, seconds: float | Fraction) -> int:
        """The last tick at or before `seconds` from the first displayed frame; exact."""
        return self.origin + floor(Fraction(seconds) / self.time_base)

    def to_seconds(self, tick: int) -> float:
        return float((tick - self.origin) * self.time_base)

    # ------------------------------------------------------------------------------------------------------ opening

    def _open(self) -> None:
        import av

        if self._container is not None:
            self._container.close()
        if self._file.seek(0, os.SEEK_END) == 0:
            raise VideoReadError(self.name, "is empty")
        self._file.seek(0)
        whitelist = ",".join(CONTAINER_FORMATS)
        bound = str(min(self.limits.max_pixels, 2**31 - 1))
        try:
            self._container = av.open(
                self._file,
                mode="r",
                options={"max_pixels": bound},
                container_options={"format_whitelist": whitelist, "protocol_whitelist": "none"},
                metadata_errors="replace",
                buffer_size=1 << 17,
                io_open=_refusal(self.name),
            )
        except VideoReadError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:  # of the file object too: seeks out of bounds
            reason = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) == errno.EINVAL:  # what the whitelist answers
                reason = "not of a format that is read"
            raise VideoReadError(self.name, f"cannot be opened as a video: {reason}") from error
        self._stream = self._pick_stream()
        self._context = self._stream.codec_context
        # One thread: frame threads hand frames out late and can hang when reading stops early.
        self._context.thread_count = 1
        self._context.options = {"max_pixels": bound}

    def _pick_stream(self) -> "av.VideoStream":
        from av.stream import Disposition

        streams = self._container.streams.video
        if self._stream_index is not None:
            return self._container.streams[self._stream_index]
        if not streams:
            raise VideoReadError(self.name, "has no video stream")
        # A stream without codec context has no decoder, or a header too short to tell one: decoding a packet of it
        # would end the process, not raise.
        streams = [stream for stream in streams if stream.codec_context is not None]
        if not streams:
            raise VideoReadError(self.name, "has no decoder for its video stream, or too little of it to tell")
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
        streams = [stream for stream in streams if not stream.disposition & pictures]
        if not streams:
            raise VideoReadError(self.name, "has no video stream but cover art")
        best = max(streams, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))
        if best.width * best.height > self.limits.max_pixels:
            size = f"{best.width}x{best.height}"
            raise VideoReadError(self.name, f"frames of {size}, more than max_pixels={self.limits.max_pixels}")
        self._stream_index = best.index
        return best

    def _find_origin(self) -> int:
        """The tick of the first displayed frame; settles how the file is to be read."""
        first_keyframe, ticks = None, []
        self._first_packet = None
        for count, packet in enumerate(self._demux()):
            if count == 0:
                self._first_packet = _identity(packet)
            if packet.pts is None:
                return self._read_untimed()
            if packet.is_keyframe and first_keyframe is None:
                first_keyframe, ticks = packet.pts, []
            if not packet.is_discard and (first_keyframe is None or packet.pts >= first_keyframe):
                ticks.append(packet.pts)
            if first_keyframe is None and count == MAX_PACKETS_TO_KEYFRAME:
                break
            # Nothing is displayed before it is decoded, so no later packet can come before this one's dts.
            if first_keyframe is not None and ticks and (packet.dts or min(ticks)) > min(ticks):
                break
        if not ticks:
            raise VideoReadError(self.name, "has no frames")
        self.sequential = first_keyframe is None
        return min(ticks)

    def _read_untimed(self) -> int:
        self.sequential = self.untimed = True
        self.time_base = 1 / (self._stream.average_rate or self._stream.guessed_rate or Fraction(30))
        return 0

    @property
    def codec(self) -> str:
        return self._context.name

    @property
    def average_rate(self) -> Fraction | None:
        return self._stream.average_rate

    @property
    def frame_ticks(self) -> int:
        """How long a frame is displayed, nominally."""
        if self.untimed or not self._stream.average_rate:
            return 1
        return max(1, round(1 / (self._stream.average_rate * self.time_base)))

    @property
    def header_end(self) -> int | None:
        """Where the file says that its video ends, None when it does not say."""
        if self.untimed:
            return None
        if self._container.format.name == "avi":  # of a cut file it gives the duration of what is left
            return self.origin + self._stream.frames * self.frame_ticks
        if self._stream.duration is not None:
            start = self._stream.start_time
            return (self.origin if start is None else start) + self._stream.duration
        # Matroska gives one length for all its streams, counted from time 0.
        if (
            self._container.duration
            and len(self._container.streams) == 1
            and "matroska" in self._container.format.name
        ):
            return floor(Fraction(self._container.duration, 1_000_000) / self.time_base)
        return None

    def missing_tail(self, end: int) -> str:
        """What to say of a file that ends at `end` if its header promises more, else ''."""
        slack = 3 * self.frame_ticks // 2 + ceil(Fraction(1, 20) / self.time_base)
        if self.header_end is None or self.header_end - end <= slack:
            return ""
        return f"the file ends at {self.to_seconds(end):.2f} s but should at {self.to_seconds(self.header_end):.2f} s"

    def find_end(self) -> int:
        """The tick at which the last frame goes off display, as found in the file."""
        guess = self.header_end
        if guess is None and self._container.duration and not self.untimed:
            guess = self.origin + floor(Fraction(self._container.duration, 1_000_000) / self.time_base)
        return self.timeline(self.origin if guess is None else max(self.origin, guess), None).end

    # ------------------------------------------------------------------------------------------------------ packets

    def _demux(self) -> Iterator["av.Packet"]:
        """Packets from the present position. A read error ends them, as the end of the file does."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                if time.monotonic() > self._deadline:
                    raise VideoReadError(self.name, f"reading took longer than max_seconds={self.limits.max_seconds}")
                if packet.size:
                    yield packet
        except VideoReadError:
            raise
        except (av.error.FFmpegError, OSError, ValueError):
            self.num_errors += 1

    def _packets_from_beginning(self) -> Iterator["av.Packet"]:
        import av

        if not self.sequential:
            pts, dts, _ = self._first_packet
            try:
                self._container.seek(pts if dts is None else min(pts, dts), stream=self._stream)
                packets = self._demux()
                first = next(packets, None)
                if first is not None and _identity(first) == self._first_packet:
                    return chain([first], packets)
            except (av.error.FFmpegError, OSError, ValueError):
                pass
        self._open()
        return self._demux()

    def _packets_from(self, tick: int) -> Iterator["av.Packet"]:
        """Packets from a keyframe displayed at or before `tick`."""
        import av

        margin = ceil(SEEK_MARGIN_SEC / self.time_base)
        while not self.sequential and tick - margin > self.origin:
            try:
                self._container.seek(tick - margin, stream=self._stream)
            except (av.error.FFmpegError, OSError, ValueError):
                break
            packets = self._demux()
            keyframe = next((packet for packet in packets if packet.is_keyframe), None)
            if keyframe is not None and keyframe.pts is not None and keyframe.pts <= tick:
                return chain([keyframe], packets)
            margin *= 4  # landed late
        return self._packets_from_beginning()

    def timeline(self, start: int, end: int | None) -> Timeline:
        """The displayable frames around [start, end), demuxed but not decoded; `end` None is the end of the file."""
        line = Timeline(end=self.origin, reached_end=True)
        keyframe = previous = None
        stop = None if end is None else end + ceil(SEEK_MARGIN_SEC / self.time_base)
        durations = {}
        for number, packet in enumerate(self._packets_from(start)):
            tick = number if self.untimed else packet.pts
            if tick is None:
                continue
            if stop is not None and not self.untimed and (tick if packet.dts is None else packet.dts) >= stop:
                line.reached_end = False
                break
            if packet.is_keyframe and not self.sequential or number == 0:
                keyframe, previous = tick, keyframe
                line.keyframes.append(tick)
            # Leading pictures are displayed before the keyframe they follow and need the one before it.
            entry = keyframe if self.sequential or tick >= keyframe else previous
            if entry is not None and not packet.is_discard:
                line.entry[tick] = entry
                durations[tick] = 1 if self.untimed else packet.duration
        line.keyframes.sort()
        line.ticks = sorted(line.entry)
        if line.ticks:
            line.end = line.ticks[-1] + (durations[line.ticks[-1]] or self.frame_ticks)
        return line

    # ----------------------------------------------------------------------------------------------------- decoding

    def frames(self, entry: dict[int, int], *, skipping: bool = True) -> Iterator[tuple[int, "av.VideoFrame", bool]]:
        """Decodes the frames that are the keys of `entry`, each from the keyframe that is its value.

        Args:
            entry (`dict[int, int]`): ticks of the wanted frames and of the keyframes to start from.
            skipping (`bool`): leave out what no wanted frame is predicted from. Without it each packet from the first
                keyframe to the last wanted frame is decoded.

        Yields:
            `tuple[int, av.VideoFrame, bool]`: tick, frame and whether it is damaged, in the order of display. Wanted
            frames that cannot be decoded at all do not come.
        """
        if not skipping and entry:
            entry = dict.fromkeys(entry, min(entry.values()))
        groups = defaultdict(set)
        for tick, keyframe in entry.items():
            groups[keyframe].add(tick)
        packets, self._position = None, None
        while groups:
            start = min(groups)
            if packets is None or (start - self._position) * self.time_base > SEEK_GAP_SEC:
                packets = enumerate(self._packets_from(start))
            damage = _Damage()
            held = deque()
            for tick, frame in self._decode_stretch(packets, groups, damage, skipping=skipping):
                held.append((tick, frame) if tick in entry else None)
                # Damage may show only in a frame that is displayed later: wait for those that may be decoded before.
                if len(held) > MAX_REORDER:
                    yield from damage.judge(held.popleft())
            while held:
                yield from damage.judge(held.popleft())

    def _decode_stretch(
        self, packets: Iterator, groups: dict[int, set[int]], damage: "_Damage", *, skipping: bool
    ) -> Iterator[tuple[int, "av.VideoFrame"]]:
        """Decodes from the next keyframe in `groups` until none of the frames that hang on it is left, and takes what
        it did out of `groups`."""
        skipping = skipping and not self.sequential and self.codec in CODECS_TO_SKIP
        todo = set()
        number_out = 0
        for number, packet in packets:
            tick = number if self.untimed else packet.pts
            if tick in groups and (packet.is_keyframe or self.sequential):
                todo |= groups.pop(tick)
            elif not todo:
                continue
            self._position = self._position if tick is None else tick
            self._context.skip_frame = "NONREF" if skipping and tick not in todo else "DEFAULT"
            damage.sent(number, tick, is_keyframe=packet.is_keyframe)
            for frame in self._decode(packet, damage):
                yield (number_out if self.untimed else frame.pts), frame
                number_out += 1
            # Without times a frame's packet is not known, only that it cannot be far.
            todo.discard(tick - MAX_REORDER if self.untimed else tick)
            if not todo:
                break
        else:
            groups.clear()  # the file ended
        for frame in self._decode(None, damage):
            yield (number_out if self.untimed else frame.pts), frame
            number_out += 1
        self._context.flush_buffers()

    def _decode(self, packet: "av.Packet | None", damage: "_Damage") -> list["av.VideoFrame"]:
        import av

        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError:
            self.num_errors += 1
            damage.found(packet and packet.pts)
            return []
        self.counts.decoded += len(frames)
        for frame in frames:
            if frame.is_corrupt:
                damage.found(frame.pts)
        return frames

    def to_rgb(self, frame: "av.VideoFrame") -> torch.Tensor:
        """`frame` as uint8 of shape (3, height, width), RGB, turned upright; a view, not contiguous."""
        self.counts.converted += 1
        image = torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1)).permute(2, 0, 1)
        # A frame that is asked for its side data becomes part of a cycle, which the garbage collector frees late:
        # without need not each of them.
        if self._is_turned is None:
            self._is_turned = frame.side_data.get("DISPLAYMATRIX") is not None
        return _turn_upright(image, frame) if self._is_turned or frame.rotation else image


class _Damage:
    """Tells the frames that may be predicted from damaged ones, which the decoder shows as if they were whole: all
    that are decoded after damage and before the next keyframe."""

    def __init__(self):
        self._keyframe = self._previous = -1
        self._place = {}  # frame -> number of its packet, and of the keyframes around it
        self._first_bad = {}  # keyframe -> number of the first damaged packet after it

    def sent(self, number: int, tick: int | None, *, is_keyframe: bool) -> None:
        if is_keyframe:
            self._keyframe, self._previous, self._keyframe_tick = number, self._keyframe, tick
        is_leading = self._keyframe >= 0 and tick is not None and tick < self._keyframe_tick
        self._place[tick] = number, (self._keyframe, self._previous if is_leading else self._keyframe)

    def found(self, tick: int | None) -> None:
        number, keyframes = self._place.get(tick, (0, (self._keyframe, self._keyframe)))
        for keyframe in keyframes:
            self._first_bad[keyframe] = min(number, self._first_bad.get(keyframe, number))

    def judge(self, item: tuple[int, "av.VideoFrame"] | None) -> Iterator[tuple[int, "av.VideoFrame", bool]]:
        """A decoded frame with whether it is damaged; nothing for None, a frame that is not wanted."""
        if item is not None:
            tick, frame = item
            number, keyframes = self._place.get(frame.pts, (0, ()))
            bad = any(keyframe in self._first_bad and number >= self._first_bad[keyframe] for keyframe in keyframes)
            yield tick, frame, bad or frame.is_corrupt


def _refusal(name: str) -> Callable:
    """What FFmpeg gets that wants another file; not a method, by which container and reader would hold each other."""

    def refuse_to_open(url: str, flags: int, options: dict) -> BinaryIO:
        raise VideoReadError(name, f"refers to another file, {url!r}, which is not opened")

    return refuse_to_open


def _identity(packet: "av.Packet") -> tuple[int | None, int | None, int]:
    return packet.pts, packet.dts, packet.size


def _turn_upright(image: torch.Tensor, frame: "av.VideoFrame") -> torch.Tensor:
    """Applies the display matrix, quarter turns and mirrorings only, to `image` of shape (3, height, width)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return image
    # A stored point (x, y) is displayed at (a x + c y, b x + d y), y pointing down.
    a, b, _, c, d, *_ = memoryview(bytes(data)).cast("i")
    if abs(a) < abs(b):
        image, a, d = image.transpose(1, 2), c, b
    flips = [dim for dim, sign in ((2, a), (1, d)) if sign < 0]
    return image.flip(flips) if flips else image
