"""JPEG photographs: what is kept, what is mended, what is refused."""

import base64
import io
import struct
import threading

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from skimage import data

from pipeline.served.photographs import (
    MIN_SIDE,
    PhotographRejected,
    jpeg_of,
    left_out,
    padded,
    png_of,
    read_photograph,
)

COFFEE = Image.fromarray(data.coffee()[100:227, 200:385])  # 185x127: no multiple of 8 or 16
ENCODERS = {"PNG": png_of, "JPEG": jpeg_of}
ARITHMETIC = (  # 24x16, arithmetic coding, made with libjpeg; ARITHMETIC_TWIN is its Huffman twin
    "|JeWF01!$>Nk#wx0RR9200961|JwjV08lqPMm#c5MnOheRZw4e$bxuoZg};txsk~K|NsC0|NsC0|NsC0|NsC0|NsC0"
    "|NsC0|NsC0|NsC0|NsC0|NqGV3kU!Z02l!Q5di<p00saM5C#9*00;pA002J#{b$shr#`IhoRt6B"
)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def jpeg(image: Image.Image = COFFEE, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 60, **options})
    return file.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def untouched(data: bytes, kind: str = "PNG") -> Image.Image:
    """The new file of a photograph whose luma is left as it is."""
    photograph = read_photograph(data)
    return decoded(ENCODERS[kind](photograph, photograph.luma))


def gap(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(a).astype(int) - np.asarray(b))


def exif_with(orientation: int | None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A camera"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"the maker's own notes" * 9
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (47.0, 22.0, 9.5)
    return exif.tobytes()


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """Put a segment behind the JPEG's first two bytes."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def with_frame(data: bytes, *, marker: int | None = None, bits: int | None = None) -> bytes:
    """Change the frame header of a baseline JPEG."""
    at = data.index(b"\xff\xc0")
    changed = bytearray(data)
    changed[at + 1] = marker or changed[at + 1]
    changed[at + 4] = bits or changed[at + 4]
    return bytes(changed)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 10}])
def test_a_photograph_with_its_own_luma_is_what_every_decoder_shows(subsampling, options):
    content = jpeg(subsampling=subsampling, **options)
    shown = untouched(content)
    assert shown.mode == "RGB"
    assert gap(shown, decoded(content)).max() == 0


def test_a_grey_photograph_stays_grey():
    content = jpeg(COFFEE.convert("L"))
    for kind in ENCODERS:
        assert untouched(content, kind).mode == "L"
    assert gap(untouched(content), decoded(content)).max() == 0


def test_a_jpeg_that_holds_rgb_keeps_its_colours():
    content = jpeg(keep_rgb=True)
    assert gap(untouched(content), decoded(content)).max() <= 3
    unmarked = content.replace(b"\xff\xee\x00\x0eAdobe", b"\xff\xed\x00\x0eOther")
    assert gap(untouched(unmarked), decoded(unmarked)).max() <= 3


def test_new_luma_arrives_in_the_file_and_chroma_stays():
    photograph = read_photograph(jpeg(subsampling="4:4:4", quality=90))
    brighter = np.clip(photograph.luma.astype(int) + 20, 0, 255).astype(np.uint8)
    assert photograph.chroma is not None
    for encode in ENCODERS.values():
        planes = decoded(encode(photograph, brighter)).convert("YCbCr").split()
        unclipped = (photograph.luma > 60) & (photograph.luma < 180)
        assert np.abs(np.asarray(planes[0]).astype(int) - brighter)[unclipped].mean() < 1.5
        assert gap(planes[1], photograph.chroma[0])[unclipped].mean() < 1.5


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_once_and_the_rest_of_exif_is_kept(orientation, kind):
    content = jpeg(exif=exif_with(orientation), xmp=XMP)
    upright = ImageOps.exif_transpose(decoded(content))
    shown = untouched(content, kind)
    assert shown.size == upright.size
    assert gap(shown, upright).mean() <= (0 if kind == "PNG" else 2)
    exif = shown.getexif()
    assert exif[ExifTags.Base.Orientation] == 1
    assert exif[ExifTags.Base.Make] == "A camera"
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote].startswith(b"the maker's own")
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (47.0, 22.0, 9.5)
    assert ImageOps.exif_transpose(shown).size == upright.size


@pytest.mark.parametrize("orientation", [None, 1])
def test_exif_of_an_upright_photograph_is_kept_byte_for_byte(orientation):
    given = exif_with(orientation)
    assert untouched(jpeg(exif=given), "JPEG").info["exif"] == given


def test_an_orientation_that_only_xmp_tells_is_applied_and_xmp_says_upright():
    content = jpeg(xmp=XMP)
    for kind in ENCODERS:
        shown = untouched(content, kind)
        assert shown.size == (COFFEE.height, COFFEE.width)
        assert b'tiff:Orientation="1"' in shown.info["xmp"]


@pytest.mark.parametrize("kind", ENCODERS)
def test_profile_comment_and_resolution_are_kept(kind):
    profile = b"any profile" * 9_000  # more than one segment
    shown = untouched(jpeg(icc_profile=profile, comment="von Hand", dpi=(72, 144)), kind)
    assert shown.info["icc_profile"] == profile
    told = shown.info["comment"] if kind == "JPEG" else shown.info["Comment"].encode()
    assert told == b"von Hand"
    assert tuple(round(value) for value in shown.info["dpi"]) == (72, 144)


def test_the_resolution_turns_with_the_picture():
    content = jpeg(exif=exif_with(6), dpi=(72, 144))
    assert tuple(round(value) for value in untouched(content).info["dpi"]) == (144, 72)


def test_the_table_is_the_files_own_for_luma():
    mine = [[7] * 64, [50] * 64]
    assert read_photograph(jpeg(qtables=mine, quality=50)).table.tolist() == [[7] * 8] * 8
    rising = [[*range(1, 65)], [50] * 64]  # rows of rising vertical frequency
    assert read_photograph(jpeg(qtables=rising, quality=50)).table[0].tolist() == [*range(1, 9)]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3), (8, 8), (17, 9)])
def test_small_photographs_are_read_and_padded_for_networks(size):
    content = jpeg(COFFEE.resize(size))
    photograph = read_photograph(content)
    wide = padded(photograph.luma)
    assert min(wide.shape) >= MIN_SIDE
    assert np.array_equal(wide[: size[1], : size[0]], photograph.luma)
    assert untouched(content).size == size


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_truncated_photograph_is_restored_as_far_as_it_goes_and_says_so(options):
    content = jpeg(**options)
    photograph = read_photograph(content[: int(len(content) * 0.6)])
    assert photograph.luma.shape == (COFFEE.height, COFFEE.width)
    if not options:
        whole = read_photograph(content).luma
        assert np.array_equal(photograph.luma[:48], whole[:48])
        assert not np.array_equal(photograph.luma[-8:], whole[-8:])
    assert len(photograph.notes) == 1
    assert "truncated" in photograph.notes[0]


def test_an_arithmetic_coded_photograph_is_restored():
    y, x = np.mgrid[:16, :24]
    twin = decoded(jpeg(Image.fromarray((x * 8 + y * 4).astype(np.uint8)), quality=10))
    content = base64.b85decode(ARITHMETIC)
    assert b"\xff\xc9" in content
    assert gap(untouched(content), twin).max() == 0


def test_of_several_pictures_in_one_file_the_first_is_the_photograph():
    file = io.BytesIO()
    COFFEE.save(file, "MPO", save_all=True, append_images=[COFFEE.rotate(180)], quality=60)
    assert gap(untouched(file.getvalue()), decoded(jpeg())).max() == 0


def test_iptc_goes_into_a_new_jpeg_as_it_is_and_is_told_where_a_png_leaves_it_out():
    segments = [b"Photoshop 3.0\0" + bytes([number]) * 60_000 for number in (2, 1)]
    content = jpeg()
    for segment in segments:
        content = with_segment(content, 0xED, segment)
    content = with_segment(content, 0xED, b"Adobe_CM nothing of it")
    image = untouched(content, "JPEG")
    assert isinstance(image, JpegImageFile)
    assert [data for name, data in image.applist if name == "APP13"] == segments[::-1]
    photograph = read_photograph(content)
    assert left_out(photograph, "jpeg") == []
    assert "IPTC" in left_out(photograph, "png")[0]


def test_the_other_pictures_of_a_file_are_told():
    file = io.BytesIO()
    COFFEE.save(file, "MPO", save_all=True, append_images=[COFFEE, COFFEE])
    assert "other pictures (2)" in left_out(read_photograph(file.getvalue()), "jpeg")[0]
    assert left_out(read_photograph(jpeg()), "png") == []


def png_bytes() -> bytes:
    file = io.BytesIO()
    COFFEE.save(file, "PNG")
    return file.getvalue()


BAD = {
    "empty": (lambda: b"", "empty"),
    "PNG": (png_bytes, "not a JPEG"),
    "CMYK": (lambda: jpeg(COFFEE.convert("CMYK")), "CMYK, convert it to RGB"),
    "12 bits": (lambda: with_frame(jpeg(), bits=12), "12 bits a sample"),
    "16 bits": (lambda: with_frame(jpeg(), bits=16), "16 bits a sample"),
    "lossless": (lambda: with_frame(jpeg(), marker=0xC3, bits=16), "lossless JPEG"),
    "hierarchical": (lambda: with_frame(jpeg(), marker=0xC5), "hierarchical JPEG"),
    "only a start": (lambda: jpeg()[:200], "no whole JPEG header"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_restored_is_refused_with_the_reason(case):
    make, reason = BAD[case]
    with pytest.raises(PhotographRejected, match=reason):
        read_photograph(make())


def test_more_pixels_than_the_cap_are_refused_before_anything_is_decoded():
    content = jpeg()
    pixels = COFFEE.width * COFFEE.height
    assert read_photograph(content, max_pixels=pixels).luma.size == pixels
    with pytest.raises(PhotographRejected, match=f"185x127 is more than {pixels - 1:,} pixels"):
        read_photograph(content, max_pixels=pixels - 1)
    at = content.index(b"\xff\xc0")
    huge = content[: at + 5] + struct.pack(">HH", 65_500, 65_500) + content[at + 9 :]
    with pytest.raises(PhotographRejected, match="65500x65500"):
        read_photograph(huge)


def test_the_cap_is_the_callers_and_not_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_photograph(jpeg()).luma.size == COFFEE.width * COFFEE.height


@pytest.mark.parametrize("kept", [30, 40, 90])
def test_damaged_exif_costs_no_pixels_and_is_told(kept):
    content = with_segment(jpeg(), 0xE1, exif_with(6)[:kept])
    photograph = read_photograph(content)
    assert photograph.notes == ("its metadata is damaged; what could be read is kept",)
    for kind in ENCODERS:
        assert set(untouched(content, kind).size) == set(COFFEE.size)


def test_exif_that_fits_no_segment_is_left_out_and_told():
    content = jpeg()
    for _ in range(2):
        content = with_segment(content, 0xE1, b"Exif\0\0" + exif_with(None)[6:] + bytes(40_000))
    photograph = read_photograph(content)
    assert photograph.exif is None
    assert "EXIF was left out" in photograph.notes[0]
    assert untouched(content, "JPEG").size == COFFEE.size


def test_random_damage_gives_a_picture_or_a_reason_and_nothing_else(recwarn):
    rng = np.random.default_rng(0)
    small = COFFEE.resize((40, 57))
    options = {"exif": exif_with(6), "xmp": XMP, "comment": "hi", "icc_profile": b"x" * 99}
    whole = jpeg(small, dpi=(72, 72), **options)
    restored = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for at in rng.integers(2, len(whole), 3):
            damaged[at] = rng.integers(256)
        damaged = bytes(damaged[: rng.integers(3, 2 * len(whole))])
        try:
            photograph = read_photograph(damaged, max_pixels=1_000_000)
        except PhotographRejected:
            continue
        for encode in ENCODERS.values():
            restored += bool(encode(photograph, photograph.luma))
    assert restored > 100
    assert not recwarn.list


def test_threads_may_share_the_reader():
    content = jpeg(exif=exif_with(6)[:60])
    expected = read_photograph(content)
    found = []

    def read() -> None:
        found.extend(read_photograph(content).notes for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert expected.notes
    assert found == [expected.notes] * 80


def test_luma_of_another_shape_or_type_is_refused():
    photograph = read_photograph(jpeg())
    for wrong in (photograph.luma[1:], photograph.luma.astype(np.float32)):
        with pytest.raises(ValueError, match="the photograph's"):
            png_of(photograph, wrong)
