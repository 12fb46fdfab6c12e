// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// What belongs to pairs of atoms, `WIDTH` neighbours of one species and one centre at a time:
//
//     R_lc(r)    = sum_n T[z_i, z_j, n, lc] phi_n(r)                                              (1)
//     v[l, m, c] = sum_j R_lc(r_ij) Y_lm(u_ij)                                                    (2)
//     dE/dr_p    = u sum_lmc g_lmc R'_lc Y_lm + (1/r) (1 - u u^T) sum_lmc g_lmc R_lc dS_lm/du     (5)
//
// Sums over neighbours end as numbers, or rows of lanes. The same equations as etnpot/kernels/evaluate.py.

#ifndef ETN_PAIRS_H
#define ETN_PAIRS_H

#include "etn_model.h"
#include "etn_train.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace etnpot {

// Neighbours of one atom: vectors from it, types, and what they are called.
struct Candidates {
  std::vector<double> x, y, z, r2;
  std::vector<int> type, index;
  void resize(std::size_t n)
  {
    if (n <= x.size()) return;
    for (auto *numbers : {&x, &y, &z, &r2}) numbers->resize(n);
    type.resize(n);
    index.resize(n);
  }
};

// Pairs of one atom: vectors p, derivatives g = dE/dr, and names; -1 where there is no pair.
struct PairDerivatives {
  int n_slots = 0;
  std::vector<double> gx, gy, gz, px, py, pz;
  std::vector<int> index;
  void resize(int n)
  {
    n_slots = n;
    if (static_cast<int>(gx.size()) < n)
      for (auto *numbers : {&gx, &gy, &gz, &px, &py, &pz}) numbers->resize(n);
  }
};

class PairStage {
 public:
  explicit PairStage(const Model &model_in) : model(model_in)
  {
    const int n_lm = (model.l_max + 1) * (model.l_max + 1);
    // factors of the recurrence of Q_l^m, see `harmonics`
    w1_.resize(n_lm);
    w0_.resize(n_lm);
    for (int l = 0; l <= model.l_max; l++)
      for (int m = 0; m <= l; m++) {
        w1_[l * l + l + m] = (2.0 * l + 1.0) / (l + 1 - m);
        w0_[l * l + l + m] = (l + m) / (l + 1.0 - m);
      }
  }

  const Model &model;

 protected:
  std::vector<double> w1_, w0_;

  // First slot of the neighbours of every type, and in the end the number of slots: whole groups of WIDTH for each.
  std::vector<int> &first_slots(int n, const std::vector<int> &type)
  {
    const int n_species = static_cast<int>(model.species.size());
    first_.assign(n_species + 1, 0);
    for (int p = 0; p < n; p++) first_[type[p] + 1]++;
    for (int z = 0; z < n_species; z++) first_[z + 1] = first_[z] + (first_[z + 1] + WIDTH - 1) / WIDTH * WIDTH;
    return first_;
  }

  // phi_n(r) = f_c(r) g(r) p_n(x(r)) and derivatives, p_{n+1} = (a_n x + b_n) p_n - c_n p_{n-1}; zero from the cutoff on.
  void radial_functions(Vec r, double *phi, double *dphi) const
  {
    const double slope = 1.0 / (model.cutoff - model.r_min);
    // scaled coordinate, saturating smoothly below r_min
    Vec s = (r - model.r_min) * slope;
    const Vec h = min(max(-s / model.width, Vec{}), splat(1.0));
    s = select(s, Vec{}, -model.width * (h - h * h * h * h * (2.5 - h * (3.0 - h))), s);
    const Vec ds = slope * (1.0 - h * h * h * (10.0 - h * (15.0 - 6.0 * h)));
    // cutoff f and its derivative
    const int p_cut = model.power;
    Vec f, df;
    if (!model.envelope) {
      f = power(1.0 - s, p_cut - 1);
      df = -p_cut * f * ds;
      f *= 1.0 - s;
    } else {
      const Vec t = r / model.cutoff, rest = 1.0 - t;
      f = Vec{};
      for (int k = p_cut - 1; k >= 0; k--) f = f * t + 0.5 * (k + 1) * (k + 2);
      f *= rest * rest * rest;
      df = -0.5 * p_cut * (p_cut + 1) * (p_cut + 2) / model.cutoff * power(t, p_cut - 1) * rest * rest;
    }
    // coordinate x and prefactor g
    Vec x, dx;
    if (!model.cosine) {
      x = 2.0 * s - 1.0;
      dx = 2.0 * ds;
    } else {
      const double q = M_PI / model.cutoff, scale = std::sqrt(2.0 / model.cutoff);
      Vec g, dg;
      for (int b = 0; b < WIDTH; b++) {
        const double z = q * r[b], sine = std::sin(z);
        x[b] = std::cos(z);
        dx[b] = -q * sine;
        if (z < 1e-2) {    // the series, exact to rounding here
          const double z2 = z * z;
          g[b] = scale * q * (1.0 - z2 / 6.0 * (1.0 - z2 / 20.0 * (1.0 - z2 / 42.0)));
          dg[b] = scale * q * q * (-z / 3.0) * (1.0 - z2 / 10.0 * (1.0 - z2 / 28.0));
        } else {
          g[b] = scale * sine / r[b];
          dg[b] = scale * (q * x[b] - sine / r[b]) / r[b];
        }
      }
      df = df * g + f * dg;
      f *= g;
    }
    f = select(r, splat(model.cutoff), f, Vec{});
    df = select(r, splat(model.cutoff), df, Vec{});
    Vec p_old{}, dp_old{}, p = splat(model.p0), dp{};
    const double *const a = model.recurrence.data(), *const b = a + model.n_radial, *const c = b + model.n_radial;
    for (int n = 0; n < model.n_radial; n++) {
      store(phi + n * WIDTH, f * p);
      store(dphi + n * WIDTH, df * p + f * dp * dx);
      const Vec factor = a[n] * x + b[n];
      const Vec p_new = factor * p - c[n] * p_old, dp_new = a[n] * p + factor * dp - c[n] * dp_old;
      p_old = p;
      dp_old = dp;
      p = p_new;
      dp = dp_new;
    }
  }

  // Eq. (1) for N of the channels of a table; R' where it is asked for.
  template <int N, bool SLOPES>
  void combine(int n_channels, const double *table, const double *phi, const double *dphi, double *radial,
               double *dradial) const
  {
    Vec sum[N], dsum[N];
    for (int c = 0; c < N; c++) sum[c] = dsum[c] = Vec{};
    for (int n = 0; n < model.n_radial; n++, table += n_channels) {
      const Vec p = load(phi + n * WIDTH), dp = load(dphi + n * WIDTH);
      for (int c = 0; c < N; c++) {
        const Vec t = splat(table[c]);
        sum[c] += t * p;
        if constexpr (SLOPES) dsum[c] += t * dp;
      }
    }
    for (int c = 0; c < N; c++) {
      store(radial + c * WIDTH, sum[c]);
      if constexpr (SLOPES) store(dradial + c * WIDTH, dsum[c]);
    }
  }

  template <bool SLOPES = true>
  void combine_radial(int n_channels, const double *table, const double *phi, const double *dphi, double *radial,
                      double *dradial) const
  {
    for (int c = 0; c < n_channels;) {
      const int left = n_channels - c;
      double *const r = radial + c * WIDTH, *const d = SLOPES ? dradial + c * WIDTH : nullptr;
      if (left >= 5 || left == 4) {
        combine<4, SLOPES>(n_channels, table + c, phi, dphi, r, d);
        c += 4;
      } else if (left == 3) {
        combine<3, SLOPES>(n_channels, table + c, phi, dphi, r, d);
        c += 3;
      } else if (left == 2) {
        combine<2, SLOPES>(n_channels, table + c, phi, dphi, r, d);
        c += 2;
      } else {
        combine<1, SLOPES>(n_channels, table + c, phi, dphi, r, d);
        c += 1;
      }
    }
  }

  // S_lm(u) = F_lm Q_l^|m|(u_z) { s_|m| (m < 0), c_m (m >= 0) }(u_x, u_y);
  // Q_{l+1}^m = ((2l+1) z Q_l^m - (l+m) Q_{l-1}^m) / (l+1-m), Q_m^m = (2m-1)!!.
  template <int L> void harmonics(const double *u, double *y) const
  {
    const int l_max = L >= 0 ? L : model.l_max;
    const Vec ux = load(u), uy = load(u + WIDTH), uz = load(u + 2 * WIDTH);
    Vec cosine = splat(1.0), sine{};
    double double_factorial = 1.0;
    for (int m = 0; m <= l_max; m++) {
      Vec q0{}, q1 = splat(double_factorial);
      for (int l = m; l <= l_max; l++) {
        const int lm = l * l + l + m;
        const Vec scaled = model.norms[lm] * q1;
        store(y + lm * WIDTH, scaled * cosine);
        if (m > 0) store(y + (lm - 2 * m) * WIDTH, scaled * sine);
        const Vec q = w1_[lm] * uz * q1 - w0_[lm] * q0;
        q0 = q1;
        q1 = q;
      }
      const Vec next = ux * cosine - uy * sine;
      sine = ux * sine + uy * cosine;
      cosine = next;
      double_factorial *= 2.0 * m + 1.0;
    }
  }

  // The same with the gradient as a homogeneous polynomial: d_z Q_l^m = (l+m) Q_{l-1}^m, d_x Q_l^m = -x Q_{l-1}^{m+1},
  // d_x c_m = m c_{m-1}, d_y c_m = -m s_{m-1}. Q_l^m lies in row l (l + 1) / 2 + m of the scratch.
  template <int L> void harmonics_gradient(const double *u, double *scratch, double *y, double *dy) const
  {
    const int l_max = L >= 0 ? L : model.l_max, n_lm = (l_max + 1) * (l_max + 1);
    const Vec ux = load(u), uy = load(u + WIDTH), uz = load(u + 2 * WIDTH);
    double double_factorial = 1.0;
    for (int m = 0; m <= l_max; m++) {
      Vec q0{}, q1 = splat(double_factorial);
      for (int l = m; l <= l_max; l++) {
        store(scratch + (l * (l + 1) / 2 + m) * WIDTH, q1);
        const Vec q = w1_[l * l + l + m] * uz * q1 - w0_[l * l + l + m] * q0;
        q0 = q1;
        q1 = q;
      }
      double_factorial *= 2.0 * m + 1.0;
    }
    double *const dx_at = dy, *const dy_at = dy + n_lm * WIDTH, *const dz_at = dy + 2 * n_lm * WIDTH;
    Vec cosine = splat(1.0), sine{}, cosine_old{}, sine_old{};
    for (int m = 0; m <= l_max; m++) {
      const Vec cosine_slope = m * cosine_old, sine_slope = m * sine_old;
      for (int l = m; l <= l_max; l++) {
        const double f = model.norms[l * l + l + m];
        const double *const below = scratch + ((l - 1) * l / 2 + m) * WIDTH;
        const Vec q = f * load(scratch + (l * (l + 1) / 2 + m) * WIDTH);
        const Vec qz = l > m ? f * (l + m) * load(below) : Vec{};
        const Vec qx = l > m + 1 ? -f * load(below + WIDTH) : Vec{};
        const Vec qxx = qx * ux, qxy = qx * uy;
        const int at = (l * l + l + m) * WIDTH;
        store(y + at, q * cosine);
        store(dx_at + at, qxx * cosine + q * cosine_slope);
        store(dy_at + at, qxy * cosine - q * sine_slope);
        store(dz_at + at, qz * cosine);
        if (m > 0) {
          const int below_zero = at - 2 * m * WIDTH;
          store(y + below_zero, q * sine);
          store(dx_at + below_zero, qxx * sine + q * sine_slope);
          store(dy_at + below_zero, qxy * sine + q * cosine_slope);
          store(dz_at + below_zero, qz * sine);
        }
      }
      cosine_old = cosine;
      sine_old = sine;
      cosine = ux * cosine_old - uy * sine_old;
      sine = ux * sine_old + uy * cosine_old;
    }
  }

  // Eq. (2) for M components and C channels over all groups: `v` is their first sum, sums are STEP apart.
  template <int STEP, int M = 3, int C = 3>
  static void sum_features(int n_m, int n_c, int n_groups, const double *radial, int r_stride, const double *y, int y_stride,
                           double *v, int rank)
  {
    if (n_m == M && n_c == C) {
      Vec sum[M][C];
      for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) sum[m][c] = Vec{};
      for (int group = 0; group < n_groups; group++, radial += r_stride, y += y_stride)
        for (int c = 0; c < C; c++) {
          const Vec r = load(radial + c * WIDTH);
          for (int m = 0; m < M; m++) sum[m][c] += r * load(y + m * WIDTH);
        }
      for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) v[(m * rank + c) * STEP] = total(sum[m][c]);
    } else if constexpr (C > 1)
      sum_features<STEP, M, C - 1>(n_m, n_c, n_groups, radial, r_stride, y, y_stride, v, rank);
    else if constexpr (M > 1)
      sum_features<STEP, M - 1, 3>(n_m, n_c, n_groups, radial, r_stride, y, y_stride, v, rank);
  }

  // The sums of eq. (5) of one group.
  struct Sums {
    Vec slope, x, y, z;
  };

  // Over the channels of l, for M components; R' lies n_channels after R.
  template <int M>
  static void add_components(int n, int rank, const double *g, const double *radial, int n_channels, const double *y, int n_lm,
                             Sums &sums)
  {
    const double *const dradial = radial + n_channels * WIDTH, *const dy = y + n_lm * WIDTH;
    Vec value[M], slope[M];
    for (int m = 0; m < M; m++) value[m] = slope[m] = Vec{};
    for (int c = 0; c < n; c++) {
      const Vec r = load(radial + c * WIDTH), dr = load(dradial + c * WIDTH);
      for (int m = 0; m < M; m++) {
        const Vec w = splat(g[m * rank + c]);
        value[m] += w * r;
        slope[m] += w * dr;
      }
    }
    for (int m = 0; m < M; m++) {
      sums.slope += slope[m] * load(y + m * WIDTH);
      sums.x += value[m] * load(dy + m * WIDTH);
      sums.y += value[m] * load(dy + (n_lm + m) * WIDTH);
      sums.z += value[m] * load(dy + (2 * n_lm + m) * WIDTH);
    }
  }

  // Eq. (5) of one group.
  struct Slope {
    Vec x, y, z;
  };
  static Slope slope(const Sums &sums, Vec inverse, Vec ux, Vec uy, Vec uz)
  {
    const Vec along = sums.slope - (ux * sums.x + uy * sums.y + uz * sums.z) * inverse;
    return {ux * along + sums.x * inverse, uy * along + sums.y * inverse, uz * along + sums.z * inverse};
  }

 private:
  std::vector<int> first_;
};

}    // namespace etnpot

#endif
