"""Several numbers at once: rows and quads as values of their own, so that every operation on them is a vector instruction.

A loop over eight lanes that reads and writes arrays is compiled to eight scalar operations: the compiler cannot know that
the arrays do not overlap. Here a row of `LANES` numbers (one of each atom of a block), an octet of `OCTET` or a quad of
`QUAD` numbers (one of each of so many pairs) is loaded as one value, worked on, and stored.

======================== ===========================================================
``load(a, r)``           row r of `a`, counted in rows of `LANES` whatever its shape
``store(a, r, x)``       write it
``splat(w)``             w in every lane
``load_octet(a, i)``     the numbers i .. i + 7 of `a`, whatever its shape; ``load_quad`` i .. i + 3
``store_octet(a, i, x)`` write them; ``store_quad``
``splat_octet(w)``       w in every lane of an octet; ``splat_quad``
``add, sub, mul, div``   lane by lane, on values of the same length
``fma(x, y, z)``         x y + z
``sqrt, sin, cos``       lane by lane
``if_less(x, y, s, t)``  s where x < y, else t (also where x or y is NaN)
``total(x)``             sum over the lanes
``entry(a, i)``          number i of `a`, whatever its shape
======================== ===========================================================

`a` is C-contiguous; all are float64, and the last axis of an array of rows has length `LANES`. Places are not
checked. Without the compiler the same functions work on numpy arrays.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

__all__ = [
    "LANES",
    "OCTET",
    "QUAD",
    "add",
    "cos",
    "div",
    "entry",
    "fma",
    "if_less",
    "load",
    "load_octet",
    "load_quad",
    "mul",
    "sin",
    "splat",
    "splat_octet",
    "splat_quad",
    "sqrt",
    "store",
    "store_octet",
    "store_quad",
    "sub",
    "total",
]

#: Atoms that are carried through the train together: the innermost axis of every array of a block.
LANES = 32

#: Pairs of one atom that are carried through the pair stage together.
OCTET = 8

#: The same where only pairs of one type of neighbour can be taken together.
QUAD = 4


def load(array, row):
    return array.reshape(-1, LANES)[row].copy()


def store(array, row, value):
    array.reshape(-1, LANES)[row] = value


def splat(number):
    return np.full(LANES, number)


def load_octet(array, at):
    return array.reshape(-1)[at : at + OCTET].copy()


def store_octet(array, at, value):
    array.reshape(-1)[at : at + OCTET] = value


def splat_octet(number):
    return np.full(OCTET, number)


def load_quad(array, at):
    return array.reshape(-1)[at : at + QUAD].copy()


def store_quad(array, at, value):
    array.reshape(-1)[at : at + QUAD] = value


def splat_quad(number):
    return np.full(QUAD, number)


def add(x, y):
    return x + y


def sub(x, y):
    return x - y


def mul(x, y):
    return x * y


def div(x, y):
    return x / y


def fma(x, y, z):
    return x * y + z


def sqrt(x):
    return np.sqrt(x)


def sin(x):
    return np.sin(x)


def cos(x):
    return np.cos(x)


def if_less(x, y, s, t):
    return np.where(x < y, s, t)


def total(x):
    return x.sum()


def entry(array, at):
    return array.reshape(-1)[at]


if not numba.config.DISABLE_JIT:  # pragma: no cover (machine code: measured by the tests that compile)

    class Row(types.Type):
        """Type of `count` numbers that are one value."""

        def __init__(self, count):
            self.count = count
            super().__init__(name=f"Row{count}")

    @register_model(Row)
    class RowModel(models.PrimitiveModel):
        """In machine code: a vector of doubles."""

        def __init__(self, manager, kind):
            super().__init__(manager, kind, _vector(kind.count))

    #: Allows x y + z to become one instruction; nothing that hides NaN or infinity.
    _CONTRACT = ("contract",)
    row_type, octet_type, quad_type = Row(LANES), Row(OCTET), Row(QUAD)

    def _vector(count):
        return ir.VectorType(ir.DoubleType(), count)

    def _place(context, builder, array_type, array, at):
        return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])

    def _loads(kind, stride):
        def typed(typing_context, array, at):
            def code(context, builder, signature, arguments):
                at = builder.mul(arguments[1], ir.Constant(arguments[1].type, stride))
                pointer = _place(context, builder, signature.args[0], arguments[0], at)
                return builder.load(builder.bitcast(pointer, _vector(kind.count).as_pointer()), align=8)

            return kind(array, types.intp), code

        return intrinsic(typed)

    def _stores(kind, stride):
        def typed(typing_context, array, at, value):
            def code(context, builder, signature, arguments):
                at = builder.mul(arguments[1], ir.Constant(arguments[1].type, stride))
                pointer = _place(context, builder, signature.args[0], arguments[0], at)
                pointer = builder.bitcast(pointer, _vector(kind.count).as_pointer())
                builder.store(arguments[2], pointer, align=8)
                return context.get_dummy_value()

            return types.void(array, types.intp, kind), code

        return intrinsic(typed)

    def _splats(kind):
        def typed(typing_context, number):
            def code(context, builder, signature, arguments):
                lane = ir.IntType(32)
                empty = ir.Constant(_vector(kind.count), ir.Undefined)
                one = builder.insert_element(empty, arguments[0], ir.Constant(lane, 0))
                return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(lane, kind.count), None))

            return kind(types.float64), code

        return intrinsic(typed)

    load, load_octet, load_quad = _loads(row_type, LANES), _loads(octet_type, 1), _loads(quad_type, 1)
    store, store_octet, store_quad = _stores(row_type, LANES), _stores(octet_type, 1), _stores(quad_type, 1)
    splat, splat_octet, splat_quad = _splats(row_type), _splats(octet_type), _splats(quad_type)

    def _binary(operation):
        def typed(typing_context, x, y):
            def code(context, builder, signature, arguments):
                return getattr(builder, operation)(*arguments, flags=_CONTRACT)

            return x(x, x), code

        return intrinsic(typed)

    add, sub, mul, div = _binary("fadd"), _binary("fsub"), _binary("fmul"), _binary("fdiv")

    @intrinsic
    def fma(typing_context, x, y, z):
        def code(context, builder, signature, arguments):
            product = builder.fmul(arguments[0], arguments[1], flags=_CONTRACT)
            return builder.fadd(product, arguments[2], flags=_CONTRACT)

        return x(x, x, x), code

    def _unary(operation):
        def typed(typing_context, x):
            def code(context, builder, signature, arguments):
                kind = arguments[0].type
                name = f"llvm.{operation}.v{kind.count}f64"
                function = builder.module.globals.get(name)
                if function is None:
                    function = ir.Function(builder.module, ir.FunctionType(kind, [kind]), name)
                return builder.call(function, arguments)

            return x(x), code

        return intrinsic(typed)

    sqrt, sin, cos = _unary("sqrt"), _unary("sin"), _unary("cos")

    @intrinsic
    def if_less(typing_context, x, y, s, t):
        def code(context, builder, signature, arguments):
            less = builder.fcmp_ordered("<", arguments[0], arguments[1])
            return builder.select(less, arguments[2], arguments[3])

        return x(x, x, x, x), code

    @intrinsic
    def total(typing_context, x):
        def code(context, builder, signature, arguments):
            count = arguments[0].type.count
            lanes = [
                builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), b)) for b in range(count)
            ]
            while len(lanes) > 1:
                lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
            return lanes[0]

        return types.float64(x), code

    @intrinsic
    def entry(typing_context, array, at):
        def code(context, builder, signature, arguments):
            return builder.load(_place(context, builder, signature.args[0], *arguments))

        return array.dtype(array, types.intp), code
