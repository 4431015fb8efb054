"""JPEG as the protocol wants it: Pillow's own codec, tables as libjpeg defines them."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.images.jpeg import compress, decode, encode, quantization_table, table_of

ANNEX_K_FIRST_ROW = [16, 11, 10, 16, 24, 40, 51, 61]  # ITU-T T.81, table K.1


def test_the_table_at_50_is_the_standards():
    table = quantization_table(50)
    assert (table.shape, table.dtype) == ((8, 8), np.uint16)
    assert table[0].tolist() == ANNEX_K_FIRST_ROW
    assert table[:, 0].tolist() == [16, 12, 14, 14, 18, 24, 49, 72]


@pytest.mark.parametrize("qf", [1, 10, 20, 49, 51, 75, 100])
def test_tables_scale_as_libjpeg_says(qf):
    scale = 5000 // qf if qf < 50 else 200 - 2 * qf
    expected = np.clip((quantization_table(50).astype(int) * scale + 50) // 100, 1, 255)
    assert np.array_equal(quantization_table(qf), expected)


def test_a_files_own_table_is_read_whoever_wrote_it():
    own = np.arange(1, 65, dtype=np.uint16).reshape(8, 8)
    file = io.BytesIO()
    Image.new("L", (16, 24)).save(file, "JPEG", qtables=[own.ravel().tolist()])
    assert np.array_equal(table_of(file.getvalue()), own)
    assert np.array_equal(table_of(encode(np.zeros((8, 8), np.uint8), 35)), quantization_table(35))
    with pytest.raises(ValueError, match="table cannot be read"):
        table_of(b"not a JPEG")


def test_a_table_is_the_callers_to_change():
    quantization_table(30)[0, 0] = 0
    assert quantization_table(30)[0, 0] > 0


def test_compressing_is_what_pillow_does_at_that_quality(photographs):
    for _, luma in photographs:
        file = io.BytesIO()
        Image.fromarray(luma).save(file, "JPEG", quality=10)
        decoded, size = compress(luma, 10)
        assert size == len(file.getvalue())
        assert np.array_equal(decoded, np.asarray(Image.open(file)))
        assert decoded.flags.writeable


def test_a_higher_quality_costs_more_bytes_and_loses_less(photographs):
    _, luma = photographs[0]
    results = [compress(luma, qf) for qf in (5, 10, 20, 40, 80, 100)]
    sizes = [size for _, size in results]
    errors = [float(np.mean((luma.astype(float) - decoded) ** 2)) for decoded, _ in results]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_an_aligned_crop_of_a_jpeg_equals_the_jpeg_of_the_crop(photographs):
    _, luma = photographs[0]
    whole, _ = compress(luma, 10)
    part, _ = compress(luma[64:104, 128:168], 10)
    assert np.array_equal(whole[64:104, 128:168], part)


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (9, 23)])
def test_any_size_keeps_its_shape(shape):
    luma = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert compress(luma, 40)[0].shape == shape


def test_a_slice_of_an_array_is_compressed_like_its_copy(photographs):
    _, luma = photographs[1]
    assert encode(luma[3:100:2, ::3], 20) == encode(luma[3:100:2, ::3].copy(), 20)


@pytest.mark.parametrize("qf", [0, 101, -3])
def test_an_impossible_quality_names_the_possible_ones(qf):
    with pytest.raises(ValueError, match=f"QF {qf}: choose 1 to 100"):
        encode(np.zeros((8, 8), np.uint8), qf)


@pytest.mark.parametrize(
    "luma", [np.zeros((8, 8)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8), np.uint8)]
)
def test_what_is_not_8_bit_grey_is_refused(luma):
    with pytest.raises(ValueError, match="give \\(H, W\\) uint8"):
        encode(luma, 10)


def test_a_colour_jpeg_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    with pytest.raises(ValueError, match="only grey"):
        decode(file.getvalue())
