"""Arrays in messages: how they are encoded, checked when they come, and counted."""

import math
from io import BytesIO

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.lib import format as npy

from common.arrays import DTYPES, Array, Arrays, ArraySpec
from common.errors import MessageError


def content_bytes(content: RecordDict) -> int:
    """Bytes of a message's content: the arrays' data, and all names and values; nothing is serialised to count them."""
    return sum(len(name) + _record_bytes(record) for name, record in content.items())


def encode_arrays(arrays: Arrays, shared: ArrayRecord | None = None) -> ArrayRecord:
    """Arrays as a message carries them: little-endian and contiguous, each of one of DTYPES.

    With those of a `shared` record, which are not copied; without any of its own it is that record.
    """
    if shared is not None and not arrays:
        return shared
    encoded = ArrayRecord()
    for name, array in (shared or {}).items():
        encoded[name] = array
    for name, values in arrays.items():
        little = np.asarray(values, dtype=values.dtype.newbyteorder("<"), order="C")
        if little.dtype.str not in DTYPES:
            raise ValueError(f"{name} has the type {values.dtype}; those that travel are {', '.join(DTYPES)}")
        encoded[name] = FlowerArray(little)
    return encoded


def array_record(content: RecordDict) -> ArrayRecord:
    """The only array record of a message; raises MessageError if there is none, or more."""
    record = content.get("arrays")
    if not isinstance(record, ArrayRecord) or len(content.array_records) != 1:
        raise MessageError("the message must carry one array record, named 'arrays'")
    return record


def decode_array(name: str, array: FlowerArray, spec: ArraySpec | None, rows: int) -> tuple[Array, int | None]:
    """The values and their number of rows; without a spec any of DTYPES in any shape.

    Raises MessageError if the array is not what it says, or not what the spec asks for.
    """
    # numpy.load would also open zip archives, ignore trailing bytes and allocate whatever the header claims
    stream = BytesIO(array.data)
    try:
        version = npy.read_magic(stream)
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
    except Exception as error:  # a malformed header can raise almost anything
        raise MessageError(f"{name!r:.60} cannot be read: {error!s:.200}") from None
    if version != (1, 0) or fortran or dtype.str not in DTYPES:
        raise MessageError(f"{name!r:.60} must be one of {', '.join(DTYPES)} in C order, not {dtype!s:.40}")
    if any(size < 0 for size in shape):
        raise MessageError(f"{name!r:.60} has the impossible shape {shape!s:.60}")
    if array.dtype != dtype.name or tuple(array.shape) != shape:
        raise MessageError(f"{name!r:.60} says {array.dtype!s:.40} of {array.shape!s:.60} but holds {dtype} of {shape}")
    found = None if spec is None else spec.check_form(name, dtype.str, shape, rows)
    size = math.prod(shape) * dtype.itemsize
    if len(array.data) - stream.tell() != size:
        raise MessageError(f"{name!r:.60} takes {size} bytes, not {len(array.data) - stream.tell()}")
    return np.frombuffer(array.data, dtype=dtype, offset=stream.tell()).reshape(shape).copy(), found


def _record_bytes(record: object) -> int:
    if isinstance(record, ArrayRecord):
        return sum(
            len(name) + len(array.data) + len(array.dtype) + 8 * len(array.shape) for name, array in record.items()
        )
    if isinstance(record, ConfigRecord | MetricRecord):
        return sum(len(key) + _value_bytes(value) for key, value in record.items())
    return 0


def _value_bytes(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list):
        return sum(map(_value_bytes, value))
    return 8
