"""Radial functions and harmonics of one block of pairs, with derivatives.

    phi_n(r) = f_c(r) g(r) p_n(x(r)),     p_{n+1} = (a_n x + b_n) p_n - c_n p_{n-1}                  (1)
    S_lm(u)  = F_lm Q_l^|m|(u_z, u.u) { s_|m| (m < 0), c_m (m >= 0) }(u_x, u_y)                      (2)
    Q_m^m = (2m-1)!!,  Q_{m+1}^m = (2m+1) z Q_m^m,
    Q_l^m = ((2l-1) z Q_{l-1}^m - (l+m-1) Q_{l-2}^m) / (l-m)                                         (3)

A block holds `LANES` pairs, one per atom of a block of atoms; the lane is the last axis of every array,
contiguous and of fixed length: a row is one value of `etnpot.kernels.lanes`.

============  ========================================================================
symbol        here
============  ========================================================================
r             ``r_b`` [lane], Å
u             ``u_cb`` [c, lane], unit vectors
phi_n         ``phi_nb`` [n, lane] and ``dphi_nb`` = d phi / d r
S_lm          ``y_mb`` [l*l + l + m, lane] and ``dy_cmb`` [c, lm, lane] = dS/du_c
============  ========================================================================
"""

import math

from etnpot._jit import njit
from etnpot.kernels.lanes import LANES, add, fma, load, mul, splat, store, sub

__all__ = ["harmonics", "harmonics_gradient", "harmonics_work_rows", "radial_functions"]


@njit
def harmonics_work_rows(l_max):
    """Scratch rows that `harmonics_gradient` needs."""
    return (l_max + 1) * (l_max + 2) // 2


@njit
def radial_functions(r_b, codes, constants, recurrence, phi_nb, dphi_nb):
    """Eq. (1) and its derivative for one block; zero at and beyond the cutoff.

    Parameters
    ----------
    r_b : float64 [lane]
    codes, constants, recurrence : as ``RadialBasis.kernel_tables`` gives them
    phi_nb, dphi_nb : float64 [n, lane]
        Written.
    """
    size = recurrence.shape[1]
    r_min, cutoff, width, p0, power = constants[0], constants[1], constants[2], constants[3], constants[4]
    n_power = int(power)
    for b in range(LANES):
        r = r_b[b]
        if r >= cutoff:
            for n in range(size):
                phi_nb[n, b] = 0.0
                dphi_nb[n, b] = 0.0
            continue
        # scaled coordinate, saturating smoothly below r_min
        slope = 1.0 / (cutoff - r_min)
        s = (r - r_min) * slope
        ds = slope
        if s < 0.0:
            h = min(-s / width, 1.0)
            s = -width * (h - h * h * h * h * (2.5 - h * (3.0 - h)))
            ds = slope * (1.0 - h * h * h * (10.0 - h * (15.0 - 6.0 * h)))
        # cutoff f and its derivative
        if codes[1] == 0:
            f = (1.0 - s) ** (n_power - 1)
            df = -n_power * f * ds
            f = f * (1.0 - s)
        else:
            # (1 - t)^3 sum_{k < p} (k + 1)(k + 2)/2 t^k: the envelope without its cancellation near r_c
            t = r / cutoff
            f = 0.0
            for k in range(n_power - 1, -1, -1):
                f = f * t + 0.5 * (k + 1) * (k + 2)
            f = f * (1.0 - t) ** 3
            df = -0.5 * n_power * (n_power + 1) * (n_power + 2) * t ** (n_power - 1) * (1.0 - t) ** 2 / cutoff
        # coordinate x and prefactor g
        if codes[0] == 0:
            x = 2.0 * s - 1.0
            dx = 2.0 * ds
            g = 1.0
            dg = 0.0
        else:
            q = math.pi / cutoff
            z = q * r
            sin_z = math.sin(z)
            x = math.cos(z)
            dx = -q * sin_z
            scale = math.sqrt(2.0 / cutoff)
            if z < 1e-2:  # sin(z)/z and its derivative by their series, exact to rounding here
                z2 = z * z
                g = scale * q * (1.0 - z2 / 6.0 * (1.0 - z2 / 20.0 * (1.0 - z2 / 42.0)))
                dg = scale * q * q * (-z / 3.0) * (1.0 - z2 / 10.0 * (1.0 - z2 / 28.0))
            else:
                g = scale * sin_z / r
                dg = scale * (q * x - sin_z / r) / r
        df = df * g + f * dg
        f = f * g
        p_old, dp_old = 0.0, 0.0
        p, dp = p0, 0.0
        for n in range(size):
            phi_nb[n, b] = f * p
            dphi_nb[n, b] = df * p + f * dp * dx
            a_n, b_n, c_n = recurrence[0, n], recurrence[1, n], recurrence[2, n]
            p_new = (a_n * x + b_n) * p - c_n * p_old
            dp_new = a_n * p + (a_n * x + b_n) * dp - c_n * dp_old
            p_old, dp_old = p, dp
            p, dp = p_new, dp_new


@njit
def harmonics(u_cb, l_max, norms, y_mb):
    """Eq. (2) for unit vectors: values alone.

    Parameters
    ----------
    u_cb : float64 [c, lane]
    norms : float64 [lm]
        F_lm.
    y_mb : float64 [lm, lane]
        Written.
    """
    x, y, z = load(u_cb, 0), load(u_cb, 1), load(u_cb, 2)
    cos, sin = splat(1.0), splat(0.0)
    double_factorial = 1.0
    for m in range(l_max + 1):
        q0, q1 = splat(0.0), splat(double_factorial)
        for l in range(m, l_max + 1):
            scaled = mul(splat(norms[l * l + l + m]), q1)
            store(y_mb, l * l + l + m, mul(scaled, cos))
            if m > 0:
                store(y_mb, l * l + l - m, mul(scaled, sin))
            w1 = splat((2.0 * l + 1.0) / (l + 1 - m))
            w0 = splat((l + m) / (l + 1 - m))
            q = sub(mul(mul(w1, z), q1), mul(w0, q0))
            q0, q1 = q1, q
        c = sub(mul(x, cos), mul(y, sin))
        sin = add(mul(x, sin), mul(y, cos))
        cos = c
        double_factorial *= 2.0 * m + 1.0


@njit
def harmonics_gradient(u_cb, l_max, norms, work_b, y_mb, dy_cmb):
    """Eq. (2) and its gradient as a homogeneous polynomial, at unit vectors.

    The gradient follows from values of degree l - 1:
    d_z Q_l^m = (l+m) Q_{l-1}^m,  d_x Q_l^m = -x Q_{l-1}^{m+1},  d_x c_m = m c_{m-1},  d_y c_m = -m s_{m-1}.

    Parameters
    ----------
    u_cb : float64 [c, lane]
    norms : float64 [lm]
    work_b : float64 [(l_max + 1)(l_max + 2)/2, lane]
        Scratch.
    y_mb, dy_cmb : float64 [lm, lane], [c, lm, lane]
        Written.
    """
    x, y, z, zero = load(u_cb, 0), load(u_cb, 1), load(u_cb, 2), splat(0.0)
    # eq. (3); Q_l^m lies in row l (l + 1) / 2 + m, and Q_{l-1}^{m+1} is zero for m + 1 > l - 1
    double_factorial = 1.0
    for m in range(l_max + 1):
        q0, q1 = zero, splat(double_factorial)
        for l in range(m, l_max + 1):
            store(work_b, l * (l + 1) // 2 + m, q1)
            w1, w0 = splat((2.0 * l + 1.0) / (l + 1 - m)), splat((l + m) / (l + 1 - m))
            q = sub(mul(mul(w1, z), q1), mul(w0, q0))
            q0, q1 = q1, q
        double_factorial *= 2.0 * m + 1.0
    cos, sin, cos_old, sin_old = splat(1.0), zero, zero, zero
    for m in range(l_max + 1):
        cos_slope, sin_slope = mul(splat(float(m)), cos_old), mul(splat(float(m)), sin_old)
        for l in range(m, l_max + 1):
            f = norms[l * l + l + m]
            below = (l - 1) * l // 2 + m
            q = mul(splat(f), load(work_b, l * (l + 1) // 2 + m))
            qx, qz = zero, zero
            if l - 1 >= m:
                qz = mul(splat(f * (l + m)), load(work_b, below))
            if l - 1 >= m + 1:
                qx = mul(splat(-f), load(work_b, below + 1))
            qxx, qxy = mul(qx, x), mul(qx, y)
            i = l * l + l + m
            store(y_mb, i, mul(q, cos))
            store(dy_cmb[0], i, fma(qxx, cos, mul(q, cos_slope)))
            store(dy_cmb[1], i, sub(mul(qxy, cos), mul(q, sin_slope)))
            store(dy_cmb[2], i, mul(qz, cos))
            if m > 0:
                j = l * l + l - m
                store(y_mb, j, mul(q, sin))
                store(dy_cmb[0], j, fma(qxx, sin, mul(q, sin_slope)))
                store(dy_cmb[1], j, fma(qxy, sin, mul(q, cos_slope)))
                store(dy_cmb[2], j, mul(qz, sin))
        cos_old, sin_old = cos, sin
        cos = sub(mul(x, cos_old), mul(y, sin_old))
        sin = add(mul(x, sin_old), mul(y, cos_old))
