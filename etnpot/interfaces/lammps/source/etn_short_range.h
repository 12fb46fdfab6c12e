// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// The short range around the learned energy x of an atom:
//
//     E_i = E0[z_i] + f(x_i) + u_i,    u_i = 1/2 sum_j s V,    q_j = h r_j / |r_j|                       (1)
//     V(r) = k Z_i Z_j phi(r / l) / r,    l = L / (Z_i^p + Z_j^p),    phi = sum c_k e^(-d_k x)             (2)
//     s = S(t),    h = b - (b - a) I(t),    t = (b - r) / (b - a),    S = 35 t^4 - 84 t^5 + 70 t^6 - 20 t^7    (3)
//
// with I the integral of 1 - S, and f the identity between two bounds and at rest beyond them. The features are those of
// the held vectors q. dE_i/dr_j = f' (h' u u^T + h/r (1 - u u^T)) dx/dq_j + (1/2) (s V)' u.
// The same equations as etnpot/basis/repulsion.py and etnpot/potential/short_range.py.

#ifndef ETN_SHORT_RANGE_H
#define ETN_SHORT_RANGE_H

#include "etn_model.h"
#include "etn_pairs.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace etnpot {

class ShortRange {
 public:
  explicit ShortRange(const Model &model) : model_(model)
  {
    double largest = 0.0;
    for (double b : model.outer) largest = std::max(largest, b);
    reach2_ = largest * largest;
  }

  // Squared distance below which `hold` has something to do.
  double reach2() const { return reach2_; }

  // The neighbours of lane b before `Kernel::set_lane`: the first n candidates; close ones are replaced by held vectors.
  void hold(int b, int type_i, int n, Candidates &near)
  {
    std::vector<Close> &close = close_[b];
    for (int p = 0; p < n; p++) {
      const double r2 = near.x[p] * near.x[p] + near.y[p] * near.y[p] + near.z[p] * near.z[p];
      if (r2 >= reach2_) continue;
      const std::size_t pair = type_i * model_.species.size() + near.type[p];
      const double r = std::sqrt(r2), outer = model_.outer[pair], width = outer - model_.inner[pair];
      if (r >= outer) continue;
      double s, ds, rest, v, dv;
      step((outer - r) / width, s, ds, rest);
      nuclear(r, model_.charges[type_i], model_.charges[near.type[p]], v, dv);
      const double held = outer - width * rest;
      close.push_back({near.index[p], r, near.x[p] / r, near.y[p] / r, near.z[p] / r, 1.0 - s, held / r,
                       0.5 * (s * dv - ds * v / width)});
      repulsion_[b] += 0.5 * s * v;
      near.x[p] *= held / r;
      near.y[p] *= held / r;
      near.z[p] *= held / r;
    }
  }

  // No neighbours yet in lane b.
  void clear(int b)
  {
    close_[b].clear();
    repulsion_[b] = 0.0;
    slope_[b] = 1.0;
  }

  // Of lane b, f(x) + u; keeps f' for `finish`.
  double energy(int b, double x)
  {
    slope_[b] = 1.0;
    double f = x;
    if (model_.bounded && (x < model_.low || x > model_.high)) {
      const double beyond = x < model_.low ? model_.low - x : x - model_.high;
      double s, ds, rest;
      step(beyond / model_.bound_width, s, ds, rest);
      f = x < model_.low ? model_.low - model_.bound_width * rest : model_.high + model_.bound_width * rest;
      slope_[b] = 1.0 - s;
    }
    return f + repulsion_[b];
  }

  // The two parts of it, where they are wanted apart.
  double slope(int b) const { return slope_[b]; }
  double repulsion(int b) const { return repulsion_[b]; }

  // What was left of lane b, from dx/dq to dE/dr, and from q to r.
  void finish(int b, PairDerivatives &k) const
  {
    if (slope_[b] != 1.0)
      for (int s = 0; s < k.n_slots; s++) {
        k.gx[s] *= slope_[b];
        k.gy[s] *= slope_[b];
        k.gz[s] *= slope_[b];
      }
    for (const Close &c : close_[b]) {
      int s = 0;
      while (k.index[s] != c.index) s++;
      const double along = (c.along - c.across) * (k.gx[s] * c.x + k.gy[s] * c.y + k.gz[s] * c.z) + c.slope;
      k.gx[s] = c.across * k.gx[s] + along * c.x;
      k.gy[s] = c.across * k.gy[s] + along * c.y;
      k.gz[s] = c.across * k.gz[s] + along * c.z;
      k.px[s] = c.r * c.x;
      k.py[s] = c.r * c.y;
      k.pz[s] = c.r * c.z;
    }
  }

 private:
  // A pair closer than b: its name, r, u, h', h/r and (1/2) (s V)'.
  struct Close {
    int index;
    double r, x, y, z, along, across, slope;
  };

  const Model &model_;
  double reach2_;
  std::vector<Close> close_[LANES];
  double repulsion_[LANES] = {}, slope_[LANES] = {};

  // S, S' and I at t > 0.
  static void step(double t, double &s, double &ds, double &rest)
  {
    const double x = std::min(t, 1.0), x2 = x * x, x4 = x2 * x2, bell = x * (1.0 - x);
    s = x4 * (35.0 - x * (84.0 - x * (70.0 - 20.0 * x)));
    ds = 140.0 * bell * bell * bell;
    rest = x - x4 * x * (7.0 - x * (14.0 - x * (10.0 - 2.5 * x)));
  }

  // Eq. (2) and its derivative.
  void nuclear(double r, int z_i, int z_j, double &v, double &dv) const
  {
    const double *const constants = model_.repulsion.data();
    const double over_l = (std::pow(z_i, constants[2]) + std::pow(z_j, constants[2])) / constants[1];
    double phi = 0.0, dphi = 0.0;
    for (int k = 0; k < 4; k++) {
      const double term = constants[3 + k] * std::exp(-constants[7 + k] * r * over_l);
      phi += term;
      dphi -= constants[7 + k] * over_l * term;
    }
    const double scale = constants[0] * z_i * z_j / r;
    v = scale * phi;
    dv = scale * (dphi - phi / r);
  }
};

}    // namespace etnpot

#endif
