"""odd_clips.py: recipes of unusual clips, made by FFmpeg's own program, and what it shows of them itself."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

SHOWN = "scale=iw*sar:ih:flags=bilinear,format=rgb24,setsar=1"
"""Square pixels. FFmpeg turns pictures upright by itself, before."""
WHOLE = "bwdif=mode=send_frame:deint=interlaced"
BT709 = "scale=in_color_matrix=bt709"
"""What players take large pictures without a flag for; FFmpeg's program takes all for BT.601."""
SDR = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,"
    "format=yuv444p"
)
OVER_BLACK = "format=rgba,premultiply=inplace=1"

SMALL = "160x120"
"""Smaller ones differ where pictures are scaled: where colours lie between pixels counts for more."""
X264 = "-c:v libx264 -preset ultrafast -crf 12 -pix_fmt yuv420p"
B_FRAMES = "-c:v libx264 -preset veryfast -crf 12 -bf 3 -g 12 -pix_fmt yuv420p"
X265 = "-c:v libx265 -preset ultrafast -crf 10 -x265-params log-level=none:pools=none:frame-threads=1"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 8 -crf 8 -b:v 2M -threads 1"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -crf 15 -b:v 0 -threads 1"
AV1 = "-c:v libsvtav1 -preset 12 -crf 20 -svtav1-params lp=1"
MPEG2 = "-c:v mpeg2video -q:v 2 -pix_fmt yuv420p"
MPEG4 = "-c:v mpeg4 -q:v 2"


@dataclass(frozen=True)
class OddClip:
    """One recipe; its name's last word is the file's ending."""

    name: str
    words: str
    """Of FFmpeg, between source and file."""
    size: str = "96x64"
    rate: str = "25"
    filters: str = ""
    """Of the source, before it is coded."""
    copied: str = ""
    """Input options of a second pass that copies the streams: what a container says that a coder does not."""
    truth: str = SHOWN
    """Filters that show the clip as a player does."""
    track: str = "0:v:0"
    agreement: float = 0.99
    """Least correlation with the truth."""


def _codecs() -> list[OddClip]:
    recipes = {
        "h264 mp4": B_FRAMES,
        "h264 fragmented mp4": f"{X264} -g 5 -movflags frag_keyframe+empty_moov",
        "hevc mp4": f"{X265} -tag:v hvc1",
        "mpeg4 mp4": MPEG4,
        "vp9 mp4": VP9,
        "av1 mp4": AV1,
        "mjpeg mp4": "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p",
        "prores mov": "-c:v prores_ks -profile:v 2",
        "prores 4444 mov": "-c:v prores_ks -profile:v 4 -pix_fmt yuv444p10le",
        "mjpeg mov": "-c:v mjpeg -q:v 2 -pix_fmt yuvj444p",
        "qtrle mov": "-c:v qtrle -pix_fmt rgb24",
        "png mov": "-c:v png -pix_fmt rgb24",
        "raw mov": "-c:v rawvideo -pix_fmt uyvy422",
        "cinepak mov": "-c:v cinepak",
        "h263 3gp": "-c:v h263 -q:v 2",
        "h264 mkv": B_FRAMES,
        "hevc mkv": X265,
        "ffv1 mkv": "-c:v ffv1 -pix_fmt yuv420p",
        "theora mkv": "-c:v libtheora -q:v 9",
        "mpeg2 mkv": f"{MPEG2} -bf 2",
        "huffyuv mkv": "-c:v huffyuv -pix_fmt yuv422p",
        "utvideo mkv": "-c:v utvideo -pix_fmt yuv420p",
        "wmv2 mkv": "-c:v wmv2 -q:v 2",
        "vp8 webm": VP8,
        "vp9 webm": VP9,
        "av1 webm": AV1,
        "mpeg4 b-frames avi": f"{MPEG4} -bf 2",
        "divx3 avi": "-c:v msmpeg4 -q:v 2",
        "h264 avi": X264,
        "mjpeg avi": "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p",
        "raw avi": "-c:v rawvideo -pix_fmt bgr24",
        "msvideo1 avi": "-c:v msvideo1",
        "flv1 flv": "-c:v flv -q:v 2",
        "h264 flv": B_FRAMES,
        "h264 ts": B_FRAMES,
        "hevc ts": X265,
        "mpeg2 ts": f"{MPEG2} -bf 2",
        "mpeg1 ts": "-c:v mpeg1video -q:v 2 -bf 2",
        "h264 m2ts": f"{X264} -f mpegts -mpegts_m2ts_mode 1",
        "theora ogv": "-c:v libtheora -q:v 9",
        "wmv1 wmv": "-c:v wmv1 -q:v 2",
        "divx3 asf": "-c:v msmpeg4 -q:v 2",
        "mpeg1 mpg": "-c:v mpeg1video -q:v 2 -bf 2",
        "mpeg2 vob": f"{MPEG2} -bf 2",
        "moving gif": "-c:v gif",
    }
    size = {"h263 3gp": "128x96"}
    return [OddClip(name, words, size=size.get(name, "96x64")) for name, words in recipes.items()]


ORIENTATIONS = {
    "upright": "",
    "turned 90": "-display_rotation 90",
    "turned 180": "-display_rotation 180",
    "turned 270": "-display_rotation 270",
    "mirrored": "-display_hflip",
    "upside down": "-display_vflip",
    "transposed": "-display_rotation 90 -display_hflip",
    "transversed": "-display_rotation 270 -display_hflip",
}


def _orientations() -> list[OddClip]:
    return [
        *(OddClip(f"{name} mp4", X264, copied=words or "-copyts") for name, words in ORIENTATIONS.items()),
        *(
            OddClip(f"{name} b-frames mov", B_FRAMES, copied=words)
            for name, words in ORIENTATIONS.items()
            if words
        ),
        OddClip("turned 90 hevc mp4", f"{X265} -tag:v hvc1", copied="-display_rotation 90"),
        OddClip("turned 270 mkv", X264, copied="-display_rotation 270"),
        OddClip("mirrored vp9 mp4", VP9, copied="-display_hflip"),
        OddClip("turned 3 degrees beside 90 mp4", X264, copied="-display_rotation 90.4"),
    ]


def _aspects() -> list[OddClip]:
    stored = {
        "2:1 mp4": X264,
        "1:2 mp4": X264,
        "16:15 mp4": X264,
        "64:45 mov": B_FRAMES,
        "32:27 mkv": X264,
        "8:9 mkv": X265,
        "4:3 webm": VP9,
        "4:3 vp8 webm": VP8,
        "12:11 avi": MPEG4,
        "16:11 ts": X264,
        "4:3 hevc ts": X265,
        "40:33 m2ts": f"{X264} -f mpegts -mpegts_m2ts_mode 1",
        "4:3 flv": X264,
        "10:11 mpeg4 mp4": MPEG4,
        "4:3 prores mov": "-c:v prores_ks -profile:v 2",
        "12:11 h264 avi": X264,
        "4:3 wmv": "-c:v wmv2 -q:v 2",
        "4:3 theora ogv": "-c:v libtheora -q:v 9",
    }
    shapes = [
        OddClip(
            f"pixels {name.replace(':', ' to ')}",
            words,
            SMALL,
            filters=f"setsar={name.split()[0].replace(':', '/')}",
        )
        for name, words in stored.items()
    ]
    turned = [
        OddClip(f"pixels 4 to 3 {name} mp4", X264, SMALL, filters="setsar=4/3", copied=ORIENTATIONS[name])
        for name in ("turned 90", "turned 270", "mirrored", "transposed")
    ]
    # MPEG-2 knows shapes of the whole picture only.
    wide = OddClip("picture 16 to 9 mpeg2 ts", f"{MPEG2} -aspect 16:9", SMALL)
    said_twice = OddClip("container says 3 to 2 codec 1 to 1 mp4", X264, copied="-copyts", filters="setsar=1")
    return [*shapes, *turned, wide, said_twice]


INTERLACED = "interlace=scan={}:lowpass=0"


def _fields() -> list[OddClip]:
    def of(name: str, words: str, scan: str = "tff", *, size: str = SMALL, shape: str = "") -> OddClip:
        filters = INTERLACED.format(scan) + shape
        rate = "60000/1001" if "ntsc" in name else "50"
        return OddClip(f"fields {name}", words, size, rate, filters, truth=f"{WHOLE},{SHOWN}")

    coded = "-flags +ildct+ilme"
    return [
        of("top first mpeg2 ts", f"{MPEG2} {coded} -bf 2"),
        of("bottom first mpeg2 ts", f"{MPEG2} {coded} -bf 2", "bff"),
        of("mpeg2 mkv", f"{MPEG2} {coded} -g 6"),
        of("top first h264 mkv", f"{B_FRAMES} {coded} -x264opts tff"),
        of("bottom first h264 mp4", f"{B_FRAMES} {coded} -x264opts bff", "bff"),
        of("h264 ts", f"{B_FRAMES} {coded} -x264opts tff"),
        of("h264 m2ts wide pixels", f"{B_FRAMES} {coded} -f mpegts -mpegts_m2ts_mode 1", shape=",setsar=4/3"),
        of("h264 avi", f"{X264} {coded} -x264opts tff"),
        of("mpeg4 avi", f"{MPEG4} {coded}"),
        of("mpeg4 mp4", f"{MPEG4} {coded} -bf 1"),
        of("prores mov", "-c:v prores_ks -profile:v 2 -flags +ildct"),
        of("mpeg2 4:2:2 mkv", "-c:v mpeg2video -q:v 2 -pix_fmt yuv422p -flags +ildct+ilme"),
        of("mpeg2 vob", f"{MPEG2} {coded} -bf 2 -aspect 16:9"),
        of("ntsc dv", "-c:v dvvideo -pix_fmt yuv411p", "bff", size="720x480", shape=",setsar=8/9"),
        of("dv avi", "-c:v dvvideo -pix_fmt yuv420p", "bff", size="720x576", shape=",setsar=16/15"),
        OddClip("progressive mpeg2 ts", f"{MPEG2} -bf 2", truth=f"{WHOLE},{SHOWN}"),
    ]


def _colours() -> list[OddClip]:
    def flagged(matrix: str, range_: str, size: str = "96x64") -> OddClip:
        tag = {"bt601": "smpte170m", "bt2020": "bt2020nc"}.get(matrix, matrix)
        filters = f"scale=out_color_matrix={matrix}:out_range={range_},format=yuv420p"
        words = f"{X264} -colorspace {tag} -color_range {range_}"
        return OddClip(f"{matrix} {range_} {size} mp4", words, size, filters=filters)

    formats = {
        "yuv422p mkv": X264,
        "yuv444p mkv": X264,
        "yuvj420p mp4": X264,
        "yuv420p10le mp4": X264,
        "yuv422p10le mp4": f"{X265} -tag:v hvc1",
        "yuv444p10le mkv": X264,
        "yuv420p12le mp4": f"{X265} -tag:v hvc1",
        "yuv420p10le webm": VP9,
        "yuv444p webm": VP9,
        "yuv420p10le av1 mkv": AV1,
        "gray mkv": X264,
        "gray10le mkv": "-c:v ffv1",
        "yuv410p mkv": "-c:v ffv1",
        "yuv411p mkv": "-c:v ffv1",
        "yuv440p mkv": "-c:v ffv1",
        "gbrp mkv": "-c:v ffv1",
        "gbrp10le mkv": "-c:v ffv1",
        "rgb24 mkv": "-c:v libx264rgb -preset ultrafast -crf 5",
        "pal8 mov": "-c:v png",
        "rgb555le avi": "-c:v rawvideo",
        "yuyv422 avi": "-c:v rawvideo",
        "nv12 avi": "-c:v rawvideo",
        "monob avi": "-c:v rawvideo",
    }
    formatted = [
        OddClip(f"format {name}", f"{words.replace('-pix_fmt yuv420p', '')} -pix_fmt {name.split()[0]}")
        for name, words in formats.items()
    ]
    large = f"{BT709},{SHOWN}"
    return [
        *(flagged(matrix, range_) for matrix in ("bt709", "bt601", "bt2020") for range_ in ("tv", "pc")),
        flagged("smpte240m", "tv"),
        flagged("bt601", "tv", "64x720"),
        flagged("bt709", "tv", "1280x64"),
        OddClip("unflagged 1280 wide mp4", X264, "1280x64", truth=large),
        OddClip("unflagged 720 high mkv", f"{X265}", "64x720", truth=large),
        OddClip("unflagged 1280 wide ts", MPEG2, "1280x64", truth=large),
        OddClip("unflagged 1278 wide mp4", X264, "1278x64"),
        OddClip("unflagged 718 high turned mp4", X264, "64x718", copied="-display_rotation 90"),
        *formatted,
    ]


def hdr(transfer: str, nits: int = 203) -> str:
    """Filters that make an SDR source HDR, its white at so many cd/m²."""
    return (
        "scale=out_color_matrix=bt709,format=yuv444p,setparams=color_primaries=bt709:color_trc=bt709:"
        f"colorspace=bt709:range=tv,zscale=t=linear:npl={nits},format=gbrpf32le,"
        f"zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl={nits},format=yuv420p10le"
    )


def hdr_flags(transfer: str) -> str:
    return f"-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc -color_range tv"


def _hdr() -> list[OddClip]:
    def of(name: str, words: str, transfer: str, **options) -> OddClip:
        words = f"{words} -pix_fmt yuv420p10le {hdr_flags(transfer)}"
        return OddClip(f"hdr {name}", words, SMALL, filters=hdr(transfer), truth=f"{SDR},{SHOWN}", **options)

    pq, hlg, x264 = "smpte2084", "arib-std-b67", X264.replace("-pix_fmt yuv420p", "")
    return [
        of("pq hevc mp4", f"{X265} -tag:v hvc1", pq),
        of("hlg hevc mov", f"{X265} -tag:v hvc1", hlg),
        of("hlg turned hevc mov", f"{X265} -tag:v hvc1", hlg, copied="-display_rotation 270"),
        of("pq h264 mkv", x264, pq),
        of("hlg h264 ts", x264, hlg),
        of("pq vp9 webm", VP9, pq),
        of("hlg vp9 mkv", VP9, hlg),
        of("pq av1 mp4", AV1, pq),
        of("hlg av1 mkv", AV1, hlg),
        OddClip(
            "hdr whose matrix is not flagged mp4",
            f"{X265} -pix_fmt yuv420p10le {hdr_flags(pq).replace('bt2020nc', 'unknown')}",
            SMALL,
            filters=f"{hdr(pq)},setparams=colorspace=unknown",
            truth=f"setparams=colorspace=bt2020nc,{SDR},{SHOWN}",
        ),
    ]


def _alpha() -> list[OddClip]:
    fade = "format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='255*X/W'"
    recipes = {
        "qtrle mov": "-c:v qtrle -pix_fmt argb",
        "png mov": "-c:v png -pix_fmt rgba",
        "prores mov": "-c:v prores_ks -profile:v 4 -pix_fmt yuva444p10le",
        "ffv1 mkv": "-c:v ffv1 -pix_fmt yuva420p",
        "utvideo avi": "-c:v utvideo -pix_fmt gbrap",
    }
    return [
        OddClip(f"transparent {name}", words, filters=fade, truth=f"{OVER_BLACK},{SHOWN}")
        for name, words in recipes.items()
    ]


def _rates_and_sizes() -> list[OddClip]:
    uneven = "select='not(mod(n,3))+eq(n,4)',settb=1/1000"
    vfr = "-fps_mode passthrough"
    return [
        OddClip("uneven times mp4", f"{B_FRAMES} {vfr}", filters=uneven),
        OddClip("uneven times mkv", f"{X264} {vfr}", filters=uneven),
        OddClip("uneven times ts", f"{X264} {vfr}", filters=uneven),
        OddClip("a gap of seconds mkv", f"{X264} {vfr}", filters="setpts='PTS+gte(N,6)*3/TB'"),
        OddClip("one a second mp4", X264, rate="1", filters="trim=end_frame=5"),
        OddClip("one in two seconds avi", MPEG4, rate="1/2", filters="trim=end_frame=4"),
        OddClip("120 a second mp4", B_FRAMES, rate="120"),
        OddClip("23.976 a second mkv", B_FRAMES, rate="24000/1001"),
        OddClip("odd clock mp4", f"{B_FRAMES} -video_track_timescale 30030"),
        OddClip("starts late mkv", X264, filters="setpts=PTS+5/TB"),
        OddClip("cut without coding mp4", B_FRAMES, copied="-ss 0.2"),
        OddClip("one picture mp4", f"{X264} -frames:v 1"),
        OddClip("97x65 yuv444p mp4", f"{X264.replace('420p', '444p')}", "97x65"),
        OddClip("97x65 webm", VP9, "97x65"),
        OddClip("65x98 mkv", "-c:v ffv1 -pix_fmt yuv420p", "65x98"),
        OddClip("98x66 mpeg4 avi", MPEG4, "98x66"),
        OddClip("64x64 mp4", X264, "64x64"),
        OddClip("66x250 mp4", X264, "66x250"),
        OddClip("400x18 mkv", X264, "400x18"),
    ]


ODD_CLIPS = [
    *_codecs(),
    *_orientations(),
    *_aspects(),
    *_fields(),
    *_colours(),
    *_hdr(),
    *_alpha(),
    *_rates_and_sizes(),
]


@cache
def program() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg(*words: object) -> bytes:
    """Run FFmpeg's own program, in one thread; what it writes to its standard output."""
    start = [program(), "-nostdin", "-y", "-loglevel", "error", "-threads", "1", "-filter_threads", "1"]
    done = subprocess.run([*start, *map(str, words)], capture_output=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"ffmpeg {' '.join(map(str, words))}: {done.stderr.decode()[-600:]}")
    return done.stdout


def make(odd: OddClip, folder: Path, num_frames: int = 12, more: str = "") -> Path:
    """Write the clip; its frames are coloured shapes that move. `more`: words for the coder."""
    *_, ending = odd.name.split()
    path, first = folder / f"odd.{ending}", folder / f"first.{ending}"
    source = f"testsrc2=size={odd.size}:rate={odd.rate}"
    if "trim" not in odd.filters:
        source += f":duration={num_frames / eval(odd.rate):.4f}"
    filters = ["-vf", odd.filters] if odd.filters else []
    ffmpeg(
        "-f", "lavfi", "-i", source, *filters, *odd.words.split(), *more.split(), first if odd.copied else path
    )
    if odd.copied:
        ffmpeg(*odd.copied.split(), "-i", first, "-c", "copy", path)
    return path


def shown_by_ffmpeg(path: Path, filters: str = SHOWN, track: str = "0:v:0") -> list[np.ndarray]:
    """Every frame, uint8 ``H W 3``, as FFmpeg's own program shows it."""
    output = ffmpeg(
        "-i", path, "-map", track, "-vf", filters, "-fps_mode", "passthrough",
        "-c:v", "ppm", "-f", "image2pipe", "-",
    )  # fmt: skip
    return _pictures(output)


def _pictures(ppm: bytes) -> list[np.ndarray]:
    pictures, at = [], 0
    while at < len(ppm):
        kind, width, height, _ = ppm[at : at + 40].split(maxsplit=4)[:4]
        assert kind == b"P6"
        at += len(b"P6\n%s %s\n255\n" % (width, height))
        size = int(width) * int(height) * 3
        pictures.append(np.frombuffer(ppm, np.uint8, size, at).reshape(int(height), int(width), 3))
        at += size
    return pictures


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures of one size."""
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])
