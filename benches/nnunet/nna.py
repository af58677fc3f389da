"""A reader of `.nna`, written after the format's description in stages/io/src/array/mod.rs and after nothing else."""

import struct

import imagecodecs
import numpy

KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4"]
HEADER_BYTES = 96
ENTRY = struct.Struct("<QII")


def read(path):
    """The whole array, `[c, z, y, x]`."""
    with open(path, "rb") as file:
        content = file.read()
    magic, version, kind, codec = struct.unpack_from("<8sIBB", content)
    if (magic, version, codec) != (b"nnf-nna\n", 1, 0):
        raise ValueError(f"{path} is no array of version 1")
    shape = struct.unpack_from("<4Q", content, 16)
    chunk = struct.unpack_from("<4Q", content, 48)
    array = numpy.empty(shape, dtype="<" + KINDS[kind])
    grid = [-(-extent // step) for extent, step in zip(shape, chunk)]
    for number, place in enumerate(numpy.ndindex(*grid)):
        offset, size, _ = ENTRY.unpack_from(content, HEADER_BYTES + number * ENTRY.size)
        box = tuple(
            slice(index * step, min((index + 1) * step, extent)) for index, step, extent in zip(place, chunk, shape)
        )
        target = array[box]
        target[...] = _decode(content[offset : offset + size], array.dtype, target.size).reshape(target.shape)
    return array


def _decode(stored, dtype, count):
    raw = count * dtype.itemsize
    shuffled = stored if len(stored) == raw else imagecodecs.lz4_decode(stored, header=False, out=raw)
    planes = numpy.frombuffer(shuffled, dtype=numpy.uint8).reshape(dtype.itemsize, count)
    return numpy.ascontiguousarray(planes.T).view(dtype)
