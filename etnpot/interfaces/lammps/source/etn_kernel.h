// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// Energies and forces of a block of atoms, for a potential without layers: the features v_i of the pairs of an atom (etn_pairs.h),
// their constant being 1, the train on them (etn_train.h), E_i = x_d, and back. The same equations as
// etnpot/kernels/evaluate.py, which tests/lammps holds this file to.

#ifndef ETN_KERNEL_H
#define ETN_KERNEL_H

#include "etn_grade.h"
#include "etn_model.h"
#include "etn_pairs.h"
#include "etn_train.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace etnpot {

// Carries blocks of up to LANES atoms: `set_lane` for every atom, `run`, then `gradient` of every lane.
class Kernel : public PairStage, public PairDerivatives {
 public:
  Candidates candidates;

  explicit Kernel(const Model &model_in) : PairStage(model_in), train_(model_in.train), grader_(model_in)
  {
    const int n_lm = (model.l_max + 1) * (model.l_max + 1);
    stride_ = (5 + 2 * model.n_channels) * WIDTH;
    work_.grow((4 * n_lm + (model.l_max + 1) * (model.l_max + 2) / 2) * WIDTH);
    g_lane_.grow(model.train.n_features);
    set_pair_stage<6>();
  }

  explicit Kernel(Model &&) = delete;  // the model is referred to, not copied
  Kernel(const Kernel &) = delete;
  Kernel &operator=(const Kernel &) = delete;

  // Neighbours and features of the atom in lane b: the first n of `candidates`, all within the cutoff.
  void set_lane(int b, int type_i, int n)
  {
    type_[b] = type_i;
    sort_by_type(b, type_i, n);
    (this->*features_)(b);
  }

  // The train of all lanes; energies without the reference energies. Lanes beyond n_lanes repeat old atoms or zeros.
  void run(int n_lanes, double *energy)
  {
    train_.fill_up(n_lanes, type_);
    train_.forward(type_);
    std::fill(train_.seed(), train_.seed() + LANES, 1.0);
    train_.adjoint();
    for (int b = 0; b < n_lanes; b++) energy[b] = train_.last()[b];
  }

  // Extrapolation grades of all lanes, after `run`.
  void grades(int n_lanes, double *grade) { grader_.grades(train_, type_, n_lanes, grade); }

  // Eq. (5) for all pairs of lane b, after `run`: fills n_slots, g, p and index.
  void gradient(int b)
  {
    resize(static_cast<int>(lanes_[b].index.size()));
    index.swap(lanes_[b].index);
    for (int f = 0; f < model.train.n_features; f++) g_lane_.data()[f] = train_.g()[f * LANES + b];
    (this->*gradient_)(b);
  }

  // Bytes held.
  double memory() const
  {
    double bytes = 8.0 * (work_.size() + 11.0 * candidates.x.size() + model.radial_table.size());
    for (const Lane &lane : lanes_) bytes += 8.0 * lane.groups.size() + 4.0 * lane.index.capacity();
    return bytes + train_.memory() + grader_.memory();
  }

 private:
  // Neighbours of one atom in groups of WIDTH of one type. A group holds r, 1/r, u (x, y, z), R [lc], R' [lc].
  struct Lane {
    Buffer groups;
    std::vector<int> index;                // names of the neighbours; -1 for none
    std::vector<const double *> table;     // T[z_i, z_j] of every group
  };

  Lane lanes_[LANES];
  int type_[LANES] = {};
  int stride_;
  Train train_;
  Grader grader_;
  Buffer work_, phi_, harmonics_, g_lane_;
  void (Kernel::*features_)(int);
  void (Kernel::*gradient_)(int);

  void sort_by_type(int b, int type_i, int n)
  {
    Lane &lane = lanes_[b];
    const int n_species = static_cast<int>(model.species.size());
    std::vector<int> &first = first_slots(n, candidates.type);
    const int size = first[n_species];
    lane.index.assign(size, -1);
    lane.table.resize(size / WIDTH);
    double *const groups = lane.groups.grow(size / WIDTH * stride_);
    for (int z = 0; z < n_species; z++)
      for (int group = first[z] / WIDTH; group < first[z + 1] / WIDTH; group++)
        lane.table[group] = &model.radial_table[(type_i * n_species + z) * model.n_radial * model.n_channels];
    // what is not filled lies at the cutoff, where everything vanishes
    for (int group = 0; group < size / WIDTH; group++) {
      store(groups + group * stride_ + 2 * WIDTH, Vec{});
      store(groups + group * stride_ + 3 * WIDTH, Vec{});
      store(groups + group * stride_ + 4 * WIDTH, splat(model.cutoff));
    }
    for (int p = 0; p < n; p++) {
      const int slot = first[candidates.type[p]]++;
      double *const at = groups + slot / WIDTH * stride_ + slot % WIDTH;
      at[2 * WIDTH] = candidates.x[p];
      at[3 * WIDTH] = candidates.y[p];
      at[4 * WIDTH] = candidates.z[p];
      lane.index[slot] = candidates.index[p];
    }
  }

  // The stages of all neighbours one after the other: short loops, of which the processor overlaps several turns.
  template <int L> void features(int b)
  {
    Lane &lane = lanes_[b];
    const int n_groups = static_cast<int>(lane.table.size()), n_phi = 2 * model.n_radial * WIDTH;
    double *const groups = lane.groups.data(), *const phi = phi_.grow(n_groups * n_phi);
    for (int group = 0; group < n_groups; group++) {
      double *const at = groups + group * stride_;
      const Vec x = load(at + 2 * WIDTH), y = load(at + 3 * WIDTH), z = load(at + 4 * WIDTH);
      const Vec r2 = x * x + y * y + z * z;
      Vec r;
      for (int k = 0; k < WIDTH; k++) r[k] = std::sqrt(r2[k]);
      const Vec inverse = 1.0 / r;
      store(at, r);
      store(at + WIDTH, inverse);
      store(at + 2 * WIDTH, x * inverse);
      store(at + 3 * WIDTH, y * inverse);
      store(at + 4 * WIDTH, z * inverse);
      radial_functions(r, phi + group * n_phi, phi + group * n_phi + model.n_radial * WIDTH);
    }
    for (int group = 0; group < n_groups; group++) {
      double *const at = groups + group * stride_ + 5 * WIDTH, *const phi_at = phi + group * n_phi;
      combine_radial(model.n_channels, lane.table[group], phi_at, phi_at + model.n_radial * WIDTH, at, at + model.n_channels * WIDTH);
    }
    const int l_max = L >= 0 ? L : model.l_max, n_lm = (l_max + 1) * (l_max + 1);
    double *const y = harmonics_.grow(n_groups * n_lm * WIDTH);
    for (int group = 0; group < n_groups; group++) harmonics<L>(groups + group * stride_ + 2 * WIDTH, y + group * n_lm * WIDTH);
    const double *radial = groups + 5 * WIDTH;
    for (int l = 0; l <= l_max; l++) {
      for (int m = 0; m < 2 * l + 1;) {
        const int n_m = part(2 * l + 1 - m, 3);
        for (int c = 0; c < model.channels[l];) {
          const int n_c = part(model.channels[l] - c, 3);
          double *const v = train_.v() + (model.feature_first[l] + m * model.feature_rank[l] + c) * LANES + b;
          sum_features<LANES>(n_m, n_c, n_groups, radial + c * WIDTH, stride_, y + (l * l + m) * WIDTH, n_lm * WIDTH, v,
                              model.feature_rank[l]);
          c += n_c;
        }
        m += n_m;
      }
      radial += model.channels[l] * WIDTH;
    }
    train_.v()[b] = 1.0;
  }

  template <int L> void gradient_of(int b)
  {
    const int l_max = L >= 0 ? L : model.l_max, n_lm = (l_max + 1) * (l_max + 1);
    const double *const g = g_lane_.data();
    double *const y = work_.data(), *const dy = y + n_lm * WIDTH, *const scratch = dy + 3 * n_lm * WIDTH;
    for (int slot = 0; slot < n_slots; slot += WIDTH) {
      const double *const at = lanes_[b].groups.data() + slot / WIDTH * stride_;
      harmonics_gradient<L>(at + 2 * WIDTH, scratch, y, dy);
      const double *radial = at + 5 * WIDTH;
      Sums sums{};
      for (int l = 0; l <= l_max; l++) {
        const int n = model.channels[l], rank = model.feature_rank[l];
        const double *const g_l = g + model.feature_first[l], *const y_l = y + l * l * WIDTH;
        add_components<1>(n, rank, g_l, radial, model.n_channels, y_l, n_lm, sums);
        int m = 1;
        for (; m + 4 <= 2 * l + 1; m += 4)
          add_components<4>(n, rank, g_l + m * rank, radial, model.n_channels, y_l + m * WIDTH, n_lm, sums);
        if (m < 2 * l + 1)
          add_components<2>(n, rank, g_l + m * rank, radial, model.n_channels, y_l + m * WIDTH, n_lm, sums);
        radial += n * WIDTH;
      }
      const Vec r = load(at), inverse = load(at + WIDTH);
      const Vec ux = load(at + 2 * WIDTH), uy = load(at + 3 * WIDTH), uz = load(at + 4 * WIDTH);
      const Slope f = slope(sums, inverse, ux, uy, uz);
      const Vec x = ux * r, ry = uy * r, z = uz * r;
      std::memcpy(&gx[slot], &f.x, sizeof(Vec));
      std::memcpy(&gy[slot], &f.y, sizeof(Vec));
      std::memcpy(&gz[slot], &f.z, sizeof(Vec));
      std::memcpy(&px[slot], &x, sizeof(Vec));
      std::memcpy(&py[slot], &ry, sizeof(Vec));
      std::memcpy(&pz[slot], &z, sizeof(Vec));
    }
  }

  // The functions for the l_max of the model; L = -1 is for any.
  template <int L> void set_pair_stage()
  {
    if (L == -1 || L == model.l_max) {
      features_ = &Kernel::features<L>;
      gradient_ = &Kernel::gradient_of<L>;
    } else if constexpr (L >= 0)
      set_pair_stage<L - 1>();
  }

};

}    // namespace etnpot

#endif
