// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// Extrapolation grades of a block of atoms from the last train, with layers before it or without:
//
//     grade_i = max_r |G^T b_i - m_z G|,    b = dE_i/dA[a1, a2, a3] = sum_m3 (C x v)[m3] y[m3, a3],
//
// y with the energy of the atom as its seed. The same equations as etnpot/potential/reliability.py, which tests/lammps holds this
// file to.

#ifndef ETN_GRADE_H
#define ETN_GRADE_H

#include "etn_model.h"
#include "etn_train.h"

#include <algorithm>
#include <cmath>

namespace etnpot {

class Grader {
 public:
  explicit Grader(const Model &model_in) : model_(model_in)
  {
    int components = 1;
    for (const Path &path : model_.train.paths) components = std::max(components, path.components);
    products_.grow(components * LANES);
  }

  // Grades of the first lanes, after the train went forward and, from seeds of one, back; `type` of all lanes.
  void grades(const Train &train, const int *type, int n_lanes, double *grade)
  {
    const int n_r = model_.grade_directions;
    double *const b = entries_.grow(model_.grade_entries * LANES), *const t = products_.data();
    const double *const x = train.x(), *const y = train.y(), *const v = train.v();
    double *at = b;
    for (int p = model_.grade_begin; p < model_.grade_end; p++) {
      const Path &path = model_.train.paths[p];
      for (int a1 = 0; a1 < path.n1; a1++)
        for (int a2 = 0; a2 < path.n2; a2++) {
          for (int m3 = 0; m3 < path.components; m3++) {
            double *const sum = t + m3 * LANES;
            std::fill(sum, sum + LANES, 0.0);
            for (int z = path.coupling + path.m3_first[m3]; z < path.coupling + path.m3_first[m3 + 1]; z++) {
              const Coupling &c = model_.train.couplings[z];
              const double *const x1 = x + (path.left + c.m1 * path.n1 + a1) * LANES;
              const double *const v2 = v + (path.feature + c.m2 * path.n2 + a2) * LANES;
              for (int k = 0; k < LANES; k++) sum[k] += c.value * x1[k] * v2[k];
            }
          }
          for (int a3 = 0; a3 < path.n3; a3++, at += LANES) {
            std::fill(at, at + LANES, 0.0);
            for (int m3 = 0; m3 < path.components; m3++) {
              const double *const y3 = y + (path.right + m3 * path.n3 + a3) * LANES, *const sum = t + m3 * LANES;
              for (int k = 0; k < LANES; k++) at[k] += sum[k] * y3[k];
            }
          }
        }
    }
    double largest[LANES] = {};
    for (int r = 0; r < n_r;) {
      const int n = n_r - r >= 4 ? 4 : 1;
      if (n == 4)
        add_coefficients<4>(r, b, type, largest);
      else
        add_coefficients<1>(r, b, type, largest);
      r += n;
    }
    for (int k = 0; k < n_lanes; k++) grade[k] = largest[k];
  }

  // Bytes held.
  double memory() const { return 8.0 * (entries_.size() + products_.size()); }

 private:
  const Model &model_;
  Buffer entries_, products_;

  // N coefficients of every lane in the active set, from the r-th on; keeps the largest.
  template <int N> void add_coefficients(int r, const double *b, const int *type, double *largest) const
  {
    double sum[N][LANES];
    for (int n = 0; n < N; n++)
      for (int k = 0; k < LANES; k++) sum[n][k] = -model_.grade_center[type[k] * model_.grade_directions + r + n];
    for (int q = 0; q < model_.grade_entries; q++) {
      const double *const weight = &model_.grade[q * model_.grade_directions + r], *const entry = b + q * LANES;
      for (int n = 0; n < N; n++)
        for (int k = 0; k < LANES; k++) sum[n][k] += weight[n] * entry[k];
    }
    for (int n = 0; n < N; n++)
      for (int k = 0; k < LANES; k++) largest[k] = std::max(largest[k], std::fabs(sum[n][k]));
  }
};

}    // namespace etnpot

#endif
