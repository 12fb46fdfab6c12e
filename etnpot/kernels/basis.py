"""Radial functions and harmonics of pairs, with derivatives.

    phi_n(r) = f_c(r) g(r) p_n(x(r)),     p_{n+1} = (a_n x + b_n) p_n - c_n p_{n-1}                  (1)
    S_lm(u)  = P_l^|m|(u_z) { s_|m| (m < 0), c_m (m >= 0) }(u_x, u_y)                                (2)
    P_{l+1}^m = alpha_lm z P_l^m - beta_lm P_{l-1}^m,     dP_l^m/dz = delta_lm P_l^{m+1}             (3)

f_c g p_n obeys the recurrence of p_n, and so do, with two more terms, the derivatives. P_l^m are the associated
Legendre functions over (1 - z²)^(m/2), with the norm of the harmonics; c_m + i s_m = (u_x + i u_y)^m.

The pair is the last axis of every array, contiguous, of a length that is a multiple of `OCTET`: so many pairs are worked
on at a time, without branches.

============  ========================================================================
symbol        here
============  ========================================================================
r             ``r_p`` [pair], Å
u             ``u_cp`` [c, pair], unit vectors
phi_n         ``phi_np`` [n, pair] and ``dphi_np`` = d phi / d r
S_lm          ``y_mp`` [l*l + l + m, pair] and ``dy_cmp`` [c, lm, pair], the gradient on the sphere
P_l^m         ``legendre_tb`` [l (l + 1) / 2 + m, lane] of one octet
c_m, s_m      ``circle_mb`` [2 m, lane], [2 m + 1, lane] of one octet
alpha, beta   ``legendre[0, t]``, ``legendre[1, t]`` of P_l^m: the step that leads to it; for l = m alpha is
              P_m^m itself
delta         ``legendre[2, t]``
============  ========================================================================
"""

import math

from etnpot._jit import njit
from etnpot.kernels.lanes import (
    OCTET,
    add,
    cos,
    div,
    entry,
    fma,
    if_less,
    load_octet,
    mul,
    sin,
    splat_octet,
    store_octet,
    sub,
)

__all__ = ["angular_factors", "harmonics", "harmonics_gradient", "legendre_rows", "radial_functions"]


@njit(inner=True)
def legendre_rows(l_max):
    """Number of the P_l^m, m >= 0."""
    return (l_max + 1) * (l_max + 2) // 2


@njit(inner=True)
def power(x, n):
    """x^n of an octet, n >= 0."""
    y = splat_octet(1.0)
    for _ in range(n):
        y = mul(y, x)
    return y


@njit(inner=True)
def scaled_coordinate(r, r_min, cutoff, width):
    """s = (r - r_min) / (r_c - r_min), saturating smoothly at -width below r_min, and ds/dr."""
    zero, one = splat_octet(0.0), splat_octet(1.0)
    slope = 1.0 / (cutoff - r_min)
    s = mul(sub(r, splat_octet(r_min)), splat_octet(slope))
    h = mul(if_less(s, zero, s, zero), splat_octet(-1.0 / width))
    h = if_less(h, one, h, one)
    h3 = mul(mul(h, h), h)
    # -width h + width h^4 (2.5 - h (3 - h)) for s < 0, and s itself above
    bend = sub(splat_octet(2.5), mul(h, sub(splat_octet(3.0), h)))
    rest = mul(splat_octet(width), sub(mul(mul(h3, h), bend), h))
    s = add(if_less(s, zero, zero, s), rest)
    flat = mul(h3, sub(splat_octet(10.0), mul(h, sub(splat_octet(15.0), mul(splat_octet(6.0), h)))))
    return s, mul(splat_octet(slope), sub(one, flat))


@njit(inner=True)
def power_cutoff(s, ds, n):
    """f = (1 - s)^n and df/dr."""
    rest = sub(splat_octet(1.0), s)
    f = power(rest, n - 1)
    return mul(f, rest), mul(mul(splat_octet(-1.0 * n), f), ds)


@njit(inner=True)
def envelope_cutoff(r, cutoff, n):
    """f = (1 - t)^3 sum_{k < n} (k + 1)(k + 2)/2 t^k, t = r/r_c: the envelope without its cancellation near r_c."""
    t = mul(r, splat_octet(1.0 / cutoff))
    f = splat_octet(0.0)
    for k in range(n - 1, -1, -1):
        f = fma(f, t, splat_octet(0.5 * (k + 1) * (k + 2)))
    rest = sub(splat_octet(1.0), t)
    square = mul(rest, rest)
    df = mul(mul(splat_octet(-0.5 * n * (n + 1) * (n + 2) / cutoff), power(t, n - 1)), square)
    return mul(f, mul(square, rest)), df


@njit(inner=True)
def cosine_coordinate(r, cutoff):
    """x = cos(pi r/r_c), g = sqrt(2/r_c) sin(pi r/r_c)/r, and their derivatives: x, dx, g, dg."""
    q, scale = math.pi / cutoff, math.sqrt(2.0 / cutoff)
    z = mul(splat_octet(q), r)
    sin_z, x = sin(z), cos(z)
    ratio = div(sin_z, r)
    slope = div(sub(mul(splat_octet(q), x), ratio), r)
    # sin(z)/z and its derivative by their series where these cancel, exact to rounding there
    one, z2 = splat_octet(1.0), mul(z, z)
    inner = sub(one, mul(mul(z2, splat_octet(1.0 / 20.0)), sub(one, mul(z2, splat_octet(1.0 / 42.0)))))
    series = mul(splat_octet(q), sub(one, mul(mul(z2, splat_octet(1.0 / 6.0)), inner)))
    inner = sub(one, mul(mul(z2, splat_octet(1.0 / 10.0)), sub(one, mul(z2, splat_octet(1.0 / 28.0)))))
    dseries = mul(mul(z, splat_octet(-q * q / 3.0)), inner)
    small = splat_octet(1e-2)
    g = mul(splat_octet(scale), if_less(z, small, series, ratio))
    dg = mul(splat_octet(scale), if_less(z, small, dseries, slope))
    return x, mul(splat_octet(-q), sin_z), g, dg


@njit(inner=True)
def radial_functions(r_p, codes, constants, recurrence, phi_np, dphi_np):
    """Eq. (1) and its derivative; zero at and beyond the cutoff.

    Parameters
    ----------
    r_p : float64 [pair]
        As many as are to be computed.
    codes, constants, recurrence : as ``RadialBasis.kernel_tables`` gives them
    phi_np, dphi_np : float64 [n, at least as many pairs]
        Written.
    """
    n_rows, step = recurrence.shape[1], phi_np.shape[1]
    r_min, cutoff, width, p0, n_power = (
        constants[0], constants[1], constants[2], constants[3], int(constants[4]),
    )  # fmt: skip
    zero, reach = splat_octet(0.0), splat_octet(cutoff)
    for at in range(0, r_p.shape[0], OCTET):
        r = load_octet(r_p, at)
        r = if_less(reach, r, reach, r)
        s, ds = scaled_coordinate(r, r_min, cutoff, width)
        if codes[1] == 0:
            f, df = power_cutoff(s, ds, n_power)
        else:
            f, df = envelope_cutoff(r, cutoff, n_power)
        if codes[0] == 0:
            x, dx = sub(add(s, s), splat_octet(1.0)), add(ds, ds)
        else:
            x, dx, g, dg = cosine_coordinate(r, cutoff)
            df = fma(df, g, mul(f, dg))
            f = mul(f, g)
        # of NaN neither less nor more: it is passed on
        f, df = if_less(r, reach, f, mul(zero, r)), if_less(r, reach, df, mul(zero, r))
        phi, dphi = mul(splat_octet(p0), f), mul(splat_octet(p0), df)
        phi_old, dphi_old = zero, zero
        for n in range(n_rows):
            store_octet(phi_np, n * step + at, phi)
            store_octet(dphi_np, n * step + at, dphi)
            a, b, c = (
                splat_octet(recurrence[0, n]), splat_octet(recurrence[1, n]), splat_octet(recurrence[2, n]),
            )  # fmt: skip
            factor = fma(a, x, b)
            phi_new = sub(mul(factor, phi), mul(c, phi_old))
            dphi_new = sub(fma(mul(a, dx), phi, mul(factor, dphi)), mul(c, dphi_old))
            phi_old, dphi_old, phi, dphi = phi, dphi, phi_new, dphi_new


@njit(inner=True)
def angular_factors(u_cp, at, l_max, legendre, legendre_tb, circle_mb):
    """Eq. (3) and the powers of u_x + i u_y, for the octet of pairs that begins at `at`.

    Parameters
    ----------
    u_cp : float64 [c, pair]
    at, l_max : int
    legendre : float64 [3, t]
        Of `BasisTables`.
    legendre_tb, circle_mb : float64 [t, lane], [2 (l_max + 1), lane]
        Written.
    """
    step = u_cp.shape[1]
    x, y, z = load_octet(u_cp, at), load_octet(u_cp, at + step), load_octet(u_cp, at + 2 * step)
    n_t = legendre.shape[1]
    cos_m, sin_m = splat_octet(1.0), splat_octet(0.0)
    for m in range(l_max + 1):
        store_octet(circle_mb, 2 * m * OCTET, cos_m)
        store_octet(circle_mb, (2 * m + 1) * OCTET, sin_m)
        cos_new = sub(mul(x, cos_m), mul(y, sin_m))
        sin_m = fma(x, sin_m, mul(y, cos_m))
        cos_m = cos_new
        t = m * (m + 1) // 2 + m
        p_old, p = splat_octet(0.0), splat_octet(entry(legendre, t))
        store_octet(legendre_tb, t * OCTET, p)
        for l in range(m + 1, l_max + 1):
            t += l
            p_new = sub(
                mul(mul(splat_octet(entry(legendre, t)), z), p),
                mul(splat_octet(entry(legendre, n_t + t)), p_old),
            )
            store_octet(legendre_tb, t * OCTET, p_new)
            p_old, p = p, p_new


@njit(inner=True)
def harmonics(u_cp, n_pairs, l_max, legendre, legendre_tb, circle_mb, y_mp):
    """Eq. (2) for unit vectors: values alone.

    Parameters
    ----------
    u_cp : float64 [c, pair]
    n_pairs : int
        How many of them, rounded up to a multiple of `OCTET`.
    l_max, legendre, legendre_tb, circle_mb
        As for `angular_factors`; the last two are scratch.
    y_mp : float64 [lm, pair]
        Written.
    """
    step = y_mp.shape[1]
    for at in range(0, n_pairs, OCTET):
        angular_factors(u_cp, at, l_max, legendre, legendre_tb, circle_mb)
        for m in range(l_max + 1):
            cos_m, sin_m = load_octet(circle_mb, 2 * m * OCTET), load_octet(circle_mb, (2 * m + 1) * OCTET)
            for l in range(m, l_max + 1):
                p = load_octet(legendre_tb, (l * (l + 1) // 2 + m) * OCTET)
                row = l * l + l
                if m > 0:
                    store_octet(y_mp, (row - m) * step + at, mul(p, sin_m))
                store_octet(y_mp, (row + m) * step + at, mul(p, cos_m))


@njit(inner=True)
def harmonics_gradient(u_cp, l_max, legendre, legendre_tb, circle_mb, y_mp, dy_cmp):
    """Eq. (2) and its gradient on the sphere, (1 - u u^T) dS/du, for unit vectors.

    dS/dz = delta P_l^{m+1} c_m,   dS/dx = m P_l^m c_{m-1},   dS/dy = -m P_l^m s_{m-1}; for m < 0 with s_m, m s_{m-1} and
    m c_{m-1} instead. The projector takes away what depends on the continuation of S off the sphere.

    Parameters
    ----------
    u_cp, l_max, legendre, legendre_tb, circle_mb
        As for `harmonics`; all pairs.
    y_mp, dy_cmp : float64 [lm, pair], [c, lm, pair]
        Written.
    """
    n_pairs, step = u_cp.shape[1], y_mp.shape[1]
    n_lm, zero = (l_max + 1) * (l_max + 1), splat_octet(0.0)
    for at in range(0, n_pairs, OCTET):
        angular_factors(u_cp, at, l_max, legendre, legendre_tb, circle_mb)
        x, y, z = load_octet(u_cp, at), load_octet(u_cp, at + n_pairs), load_octet(u_cp, at + 2 * n_pairs)
        cos_old, sin_old = zero, zero
        for m in range(l_max + 1):
            cos_m, sin_m = load_octet(circle_mb, 2 * m * OCTET), load_octet(circle_mb, (2 * m + 1) * OCTET)
            cos_slope, sin_slope = mul(splat_octet(1.0 * m), cos_old), mul(splat_octet(1.0 * m), sin_old)
            for l in range(m, l_max + 1):
                t, row = l * (l + 1) // 2 + m, l * l + l
                p, slope = load_octet(legendre_tb, t * OCTET), zero
                if l > m:
                    slope = mul(splat_octet(legendre[2, t]), load_octet(legendre_tb, (t + 1) * OCTET))
                for sign in range(-1 if m > 0 else 1, 2, 2):
                    if sign > 0:
                        value, gx, gy, gz = cos_m, cos_slope, sub(zero, sin_slope), cos_m
                    else:
                        value, gx, gy, gz = sin_m, sin_slope, cos_slope, sin_m
                    gx, gy, gz = mul(p, gx), mul(p, gy), mul(slope, gz)
                    along = fma(x, gx, fma(y, gy, mul(z, gz)))
                    place = (row + sign * m) * step + at
                    store_octet(y_mp, place, mul(p, value))
                    store_octet(dy_cmp, place, sub(gx, mul(x, along)))
                    store_octet(dy_cmp, n_lm * step + place, sub(gy, mul(y, along)))
                    store_octet(dy_cmp, 2 * n_lm * step + place, sub(gz, mul(z, along)))
            cos_old, sin_old = cos_m, sin_m
