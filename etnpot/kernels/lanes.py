"""Eight numbers at once: rows of lanes as values of their own, so that every operation on them is a vector instruction.

A loop over eight lanes that reads and writes arrays is compiled to eight scalar operations: the compiler cannot know that
the arrays do not overlap. Here a row is loaded as one value, worked on, and stored.

==================== ===========================================================
``load(a, r)``       row r of `a`, counted in rows of `LANES` whatever its shape
``store(a, r, x)``   write it
``splat(w)``         w in every lane
``add, sub, mul``    lane by lane
``fma(x, y, z)``     x y + z
``total(x)``         sum over the lanes
==================== ===========================================================

`a` is a C-contiguous float64 array whose last axis has length `LANES`. Without the compiler the same functions work on numpy
arrays.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

__all__ = ["LANES", "add", "fma", "load", "mul", "splat", "store", "sub", "total"]

#: Atoms that are carried through together: the innermost axis of every array of a block.
LANES = 8


def load(array, row):
    return array.reshape(-1, LANES)[row].copy()


def store(array, row, value):
    array.reshape(-1, LANES)[row] = value


def splat(number):
    return np.full(LANES, number)


def add(x, y):
    return x + y


def sub(x, y):
    return x - y


def mul(x, y):
    return x * y


def fma(x, y, z):
    return x * y + z


def total(x):
    return x.sum()


if not numba.config.DISABLE_JIT:  # pragma: no cover (machine code: measured by the tests that compile)

    class Row(types.Type):
        """Type of a row of lanes."""

        def __init__(self):
            super().__init__(name=f"Row{LANES}")

    row_type = Row()
    _vector = ir.VectorType(ir.DoubleType(), LANES)
    #: Allows x y + z to become one instruction; nothing that hides NaN or infinity.
    _CONTRACT = ("contract",)

    @register_model(Row)
    class RowModel(models.PrimitiveModel):
        """In machine code: a vector of doubles."""

        def __init__(self, manager, kind):
            super().__init__(manager, kind, _vector)

    def _pointer(context, builder, array_type, array, row):
        data = context.make_array(array_type)(context, builder, array).data
        at = builder.mul(row, ir.Constant(row.type, LANES))
        return builder.bitcast(builder.gep(data, [at]), _vector.as_pointer())

    def _broadcast(builder, number):
        one = builder.insert_element(
            ir.Constant(_vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, one, mask)

    @intrinsic
    def load(typing_context, array, row):
        def code(context, builder, signature, arguments):
            pointer = _pointer(context, builder, signature.args[0], *arguments)
            return builder.load(pointer, align=8)

        return row_type(array, types.intp), code

    @intrinsic
    def store(typing_context, array, row, value):
        def code(context, builder, signature, arguments):
            pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
            builder.store(arguments[2], pointer, align=8)
            return context.get_dummy_value()

        return types.void(array, types.intp, row_type), code

    @intrinsic
    def splat(typing_context, number):
        def code(context, builder, signature, arguments):
            return _broadcast(builder, arguments[0])

        return row_type(types.float64), code

    def _binary(operation):
        def typed(typing_context, x, y):
            def code(context, builder, signature, arguments):
                return getattr(builder, operation)(*arguments, flags=_CONTRACT)

            return row_type(row_type, row_type), code

        return intrinsic(typed)

    add, sub, mul = _binary("fadd"), _binary("fsub"), _binary("fmul")

    @intrinsic
    def fma(typing_context, x, y, z):
        def code(context, builder, signature, arguments):
            product = builder.fmul(arguments[0], arguments[1], flags=_CONTRACT)
            return builder.fadd(product, arguments[2], flags=_CONTRACT)

        return row_type(row_type, row_type, row_type), code

    @intrinsic
    def total(typing_context, x):
        def code(context, builder, signature, arguments):
            lanes = [
                builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), b)) for b in range(LANES)
            ]
            while len(lanes) > 1:
                lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
            return lanes[0]

        return types.float64(row_type), code
