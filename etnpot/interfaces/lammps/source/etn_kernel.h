// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// Energies and forces of a block of atoms.
//
//     R_lc(r)    = sum_n T[z_i, z_j, n, lc] phi_n(r)                                              (1)
//     v[l, m, c] = sum_j R_lc(r_ij) Y_lm(u_ij),    v[constant] = 1                                (2)
//     x_k[l3 m3 a3] = sum_paths sum_{a1 a2} A[a1, a2, a3] t[m3, a1, a2],
//     t[m3, a1, a2] = sum_{m1 m2} C x_{k-1}[l1 m1 a1] v[l2 m2 a2],    E = x_d                     (3)
//     P[m3, a1, a2] = sum_{a3} A[a1, a2, a3] y_k[l3 m3 a3],
//     y_{k-1}[m1, a1] += C sum_{a2} P v[m2, a2],    g[m2, a2] += C sum_{a1} P x_{k-1}[m1, a1]     (4)
//
// Of the three irreps of a path, one meets the weights A alone, before or after the other two are coupled: its spectator.
// In eqs. (3), (4) it is the right one. With the feature as spectator, and with the left irrep likewise,
//
//     B[m2, a1, a3] = sum_{a2} A[a1, a2, a3] v[m2, a2],    x_k[m3, a3] += C sum_{a1} B x_{k-1}[m1, a1],
//     y_{k-1}[m1, a1] += C sum_{a3} B y_k[m3, a3],
//     D[m2, a1, a3] = sum_{m1 m3} C x_{k-1}[m1, a1] y_k[m3, a3],    g[m2, a2] += sum_{a1 a3} A D      (4a)
//
// The cheapest is taken.
//     dE/dr_p    = u sum_lmc g_lmc R'_lc Y_lm + (1/r) (1 - u u^T) sum_lmc g_lmc R_lc dS_lm/du     (5)
//
// The same equations as etnpot/kernels, which tests/lammps holds this file to. There are two kinds of vectors:
// the pair stage, eqs. (1), (2), (5), takes `WIDTH` neighbours of one species and one centre at a time; the train,
// eqs. (3), (4), carries `LANES` atoms, one row of lanes per component. Sums over neighbours end as rows of lanes.

#ifndef ETN_KERNEL_H
#define ETN_KERNEL_H

#include "etn_model.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace etnpot {

#if defined(__AVX512F__)
constexpr int WIDTH = 8;
#elif defined(__AVX__)
constexpr int WIDTH = 4;
#else
constexpr int WIDTH = 2;
#endif
// Atoms of a block; a row of lanes is LANES / WIDTH vectors.
constexpr int LANES = 8;

typedef double Vec __attribute__((vector_size(WIDTH * sizeof(double))));

inline Vec load(const double *at) { return *reinterpret_cast<const Vec *>(at); }
inline void store(double *at, Vec value) { *reinterpret_cast<Vec *>(at) = value; }
inline Vec splat(double number) { return number - Vec{}; }
inline Vec select(Vec a, Vec b, Vec yes, Vec no) { return a < b ? yes : no; }
inline Vec max(Vec a, Vec b) { return a < b ? b : a; }
inline Vec min(Vec a, Vec b) { return b < a ? b : a; }
inline double total(Vec x)
{
  double sum = 0.0;
  for (int b = 0; b < WIDTH; b++) sum += x[b];
  return sum;
}
inline Vec power(Vec x, int n)
{
  Vec result = splat(1.0);
  for (int i = 0; i < n; i++) result *= x;
  return result;
}

// Numbers aligned for vectors; what they held is lost when they grow.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() { std::free(data_); }
  double *grow(std::size_t n)
  {
    if (n > size_) {
      std::free(data_);
      size_ = 0;
      n = (n + n / 4 + 7) / 8 * 8;
      data_ = static_cast<double *>(std::aligned_alloc(64, n * sizeof(double)));
      if (!data_) throw std::bad_alloc();
      size_ = n;
    }
    return data_;
  }
  double *data() { return data_; }
  std::size_t size() const { return size_; }

 private:
  double *data_ = nullptr;
  std::size_t size_ = 0;
};

// ------------------------------------------------------------------------------------------------- the train

// A part of a path with so few copies of the two coupled irreps that their products, for one component of the spectator,
// stay in registers. Of the spectator it has all copies.
struct Tile {
  const double *weight;    // A of its first copies
  // coefficients by component of the spectator; their m1 and m2 are those of the left irrep and the feature where the right
  // irrep is the spectator, else those of the coupled one of these two and of the right irrep
  const Coupling *coupling;
  const int *first;    // of every component; one more at the end
  int components;      // of the spectator
  int n3;              // copies of the right irrep
  int n_spectator;     // copies of the spectator in eq. (4a)
  int weight1, weight2;                // distance in A of neighbouring copies: left, feature
  int left, n1, feature, n2, right;    // in rows of lanes
  void (*forward)(const Tile &, const double *v, double *x);
  void (*adjoint)(const Tile &, const double *v, const double *x, double *y, double *g);
};

// Largest tile, and vectors of a row that are carried at once. Larger ones spill registers, smaller ones repeat the loads.
constexpr int TILE1 = 3, TILE2 = 3;
constexpr int PARTS = LANES / WIDTH < 2 ? 1 : 2;

// Eq. (3) for one tile of N1 times N2 copies.
template <int N1, int N2> void tile_forward(const Tile &tile, const double *__restrict v, double *__restrict x)
{
  const std::ptrdiff_t row1 = tile.n1 * LANES, row2 = tile.n2 * LANES;
  const int components = tile.components, n3 = tile.n3, weight1 = tile.weight1;
  for (int part = 0; part < LANES; part += PARTS * WIDTH) {
    const double *const left = x + tile.left * LANES + part;
    const double *const feature = v + tile.feature * LANES + part;
    double *right = x + tile.right * LANES + part;
    const Coupling *c = tile.coupling;
    for (int m3 = 0; m3 < components; m3++) {
      Vec t[N1][N2][PARTS];
      for (int a1 = 0; a1 < N1; a1++)
        for (int a2 = 0; a2 < N2; a2++)
          for (int h = 0; h < PARTS; h++) t[a1][a2][h] = Vec{};
      for (const Coupling *const stop = tile.coupling + tile.first[m3 + 1]; c < stop; c++) {
        const double *const x1 = left + c->m1 * row1, *const v2 = feature + c->m2 * row2;
        const Vec value = splat(c->value);
        for (int h = 0; h < PARTS; h++) {
          Vec cx[N1];
          for (int a1 = 0; a1 < N1; a1++) cx[a1] = value * load(x1 + a1 * LANES + h * WIDTH);
          for (int a2 = 0; a2 < N2; a2++) {
            const Vec f = load(v2 + a2 * LANES + h * WIDTH);
            for (int a1 = 0; a1 < N1; a1++) t[a1][a2][h] += cx[a1] * f;
          }
        }
      }
      for (int a3 = 0; a3 < n3; a3++, right += LANES) {
        Vec sum[PARTS];
        for (int h = 0; h < PARTS; h++) sum[h] = load(right + h * WIDTH);
        for (int a1 = 0; a1 < N1; a1++)
          for (int a2 = 0; a2 < N2; a2++) {
            const Vec w = splat(tile.weight[a1 * weight1 + a2 * n3 + a3]);
            for (int h = 0; h < PARTS; h++) sum[h] += w * t[a1][a2][h];
          }
        for (int h = 0; h < PARTS; h++) store(right + h * WIDTH, sum[h]);
      }
    }
  }
}

// Eq. (4) for one tile.
template <int N1, int N2>
void tile_adjoint(const Tile &tile, const double *__restrict v, const double *__restrict x, double *__restrict y,
                  double *__restrict g)
{
  const std::ptrdiff_t row1 = tile.n1 * LANES, row2 = tile.n2 * LANES;
  const int components = tile.components, n3 = tile.n3, weight1 = tile.weight1;
  for (int part = 0; part < LANES; part += PARTS * WIDTH) {
    const std::ptrdiff_t left = tile.left * LANES + part, feature = tile.feature * LANES + part;
    const double *right = y + tile.right * LANES + part;
    const Coupling *c = tile.coupling;
    for (int m3 = 0; m3 < components; m3++) {
      Vec p[N1][N2][PARTS];
      for (int a1 = 0; a1 < N1; a1++)
        for (int a2 = 0; a2 < N2; a2++)
          for (int h = 0; h < PARTS; h++) p[a1][a2][h] = Vec{};
      for (int a3 = 0; a3 < n3; a3++, right += LANES)
        for (int a1 = 0; a1 < N1; a1++)
          for (int a2 = 0; a2 < N2; a2++) {
            const Vec w = splat(tile.weight[a1 * weight1 + a2 * n3 + a3]);
            for (int h = 0; h < PARTS; h++) p[a1][a2][h] += w * load(right + h * WIDTH);
          }
      for (const Coupling *const stop = tile.coupling + tile.first[m3 + 1]; c < stop; c++) {
        const std::ptrdiff_t at1 = left + c->m1 * row1, at2 = feature + c->m2 * row2;
        const double *const x1 = x + at1, *const v2 = v + at2;
        double *const y1 = y + at1, *const g2 = g + at2;
        const Vec value = splat(c->value);
        for (int h = 0; h < PARTS; h++) {
          Vec cx[N1], sum[N1];
          for (int a1 = 0; a1 < N1; a1++) cx[a1] = value * load(x1 + a1 * LANES + h * WIDTH);
          for (int a2 = 0; a2 < N2; a2++) {
            const Vec f = load(v2 + a2 * LANES + h * WIDTH);
            Vec slope = load(g2 + a2 * LANES + h * WIDTH);
            for (int a1 = 0; a1 < N1; a1++) {
              sum[a1] = a2 == 0 ? p[a1][a2][h] * f : sum[a1] + p[a1][a2][h] * f;
              slope += p[a1][a2][h] * cx[a1];
            }
            store(g2 + a2 * LANES + h * WIDTH, slope);
          }
          for (int a1 = 0; a1 < N1; a1++) {
            double *const at = y1 + a1 * LANES + h * WIDTH;
            store(at, load(at) + value * sum[a1]);
          }
        }
      }
    }
  }
}

// Eq. (4a), forward, for N copies o of the coupled one of left irrep and feature, and N3 copies a3 of the right irrep.
// The other of the two is the spectator s: the feature if IS_FEATURE, else the left irrep.
template <int N, int N3, bool IS_FEATURE> void mixed_forward(const Tile &tile, const double *__restrict v, double *__restrict x)
{
  const double *const spectator = IS_FEATURE ? v + tile.feature * LANES : x + tile.left * LANES;
  const double *const other = IS_FEATURE ? x + tile.left * LANES : v + tile.feature * LANES;
  const int weight_s = IS_FEATURE ? tile.weight2 : tile.weight1, weight_o = IS_FEATURE ? tile.weight1 : tile.weight2;
  const std::ptrdiff_t row_o = (IS_FEATURE ? tile.n1 : tile.n2) * LANES, row3 = tile.n3 * LANES;
  const int n_spectator = tile.n_spectator, components = tile.components;
  for (int part = 0; part < LANES; part += PARTS * WIDTH) {
    const double *s = spectator + part;
    const Coupling *c = tile.coupling;
    for (int m = 0; m < components; m++) {
      Vec b[N][N3][PARTS];
      for (int o = 0; o < N; o++)
        for (int a3 = 0; a3 < N3; a3++)
          for (int h = 0; h < PARTS; h++) b[o][a3][h] = Vec{};
      for (int a = 0; a < n_spectator; a++, s += LANES)
        for (int o = 0; o < N; o++)
          for (int a3 = 0; a3 < N3; a3++) {
            const Vec w = splat(tile.weight[a * weight_s + o * weight_o + a3]);
            for (int h = 0; h < PARTS; h++) b[o][a3][h] += w * load(s + h * WIDTH);
          }
      for (const Coupling *const stop = tile.coupling + tile.first[m + 1]; c < stop; c++) {
        const double *const o1 = other + part + c->m1 * row_o;
        double *const x3 = x + tile.right * LANES + part + c->m2 * row3;
        const Vec value = splat(c->value);
        for (int h = 0; h < PARTS; h++) {
          Vec co[N];
          for (int o = 0; o < N; o++) co[o] = value * load(o1 + o * LANES + h * WIDTH);
          for (int a3 = 0; a3 < N3; a3++) {
            Vec sum = load(x3 + a3 * LANES + h * WIDTH);
            for (int o = 0; o < N; o++) sum += b[o][a3][h] * co[o];
            store(x3 + a3 * LANES + h * WIDTH, sum);
          }
        }
      }
    }
  }
}

// Eq. (4a), adjoint, likewise.
template <int N, int N3, bool IS_FEATURE>
void mixed_adjoint(const Tile &tile, const double *__restrict v, const double *__restrict x, double *__restrict y,
                   double *__restrict g)
{
  const double *const spectator = IS_FEATURE ? v + tile.feature * LANES : x + tile.left * LANES;
  const double *const other = IS_FEATURE ? x + tile.left * LANES : v + tile.feature * LANES;
  double *const spectator_slope = IS_FEATURE ? g + tile.feature * LANES : y + tile.left * LANES;
  double *const other_slope = IS_FEATURE ? y + tile.left * LANES : g + tile.feature * LANES;
  const int weight_s = IS_FEATURE ? tile.weight2 : tile.weight1, weight_o = IS_FEATURE ? tile.weight1 : tile.weight2;
  const std::ptrdiff_t row_o = (IS_FEATURE ? tile.n1 : tile.n2) * LANES, row3 = tile.n3 * LANES;
  // of the spectator, all copies of one component lie together
  const std::ptrdiff_t row_s = (IS_FEATURE ? tile.n2 : tile.n1) * LANES;
  const int n_spectator = tile.n_spectator, components = tile.components;
  for (int part = 0; part < LANES; part += PARTS * WIDTH) {
    const Coupling *c = tile.coupling;
    for (int m = 0; m < components; m++) {
      const double *const s = spectator + part + m * row_s;
      Vec b[N][N3][PARTS], d[N][N3][PARTS];
      for (int o = 0; o < N; o++)
        for (int a3 = 0; a3 < N3; a3++)
          for (int h = 0; h < PARTS; h++) b[o][a3][h] = d[o][a3][h] = Vec{};
      for (int a = 0; a < n_spectator; a++)
        for (int o = 0; o < N; o++)
          for (int a3 = 0; a3 < N3; a3++) {
            const Vec w = splat(tile.weight[a * weight_s + o * weight_o + a3]);
            for (int h = 0; h < PARTS; h++) b[o][a3][h] += w * load(s + a * LANES + h * WIDTH);
          }
      for (const Coupling *const stop = tile.coupling + tile.first[m + 1]; c < stop; c++) {
        const double *const o1 = other + part + c->m1 * row_o;
        double *const y1 = other_slope + part + c->m1 * row_o;
        const double *const y3 = y + tile.right * LANES + part + c->m2 * row3;
        const Vec value = splat(c->value);
        for (int h = 0; h < PARTS; h++) {
          Vec cy[N3];
          for (int a3 = 0; a3 < N3; a3++) cy[a3] = value * load(y3 + a3 * LANES + h * WIDTH);
          for (int o = 0; o < N; o++) {
            const Vec f = load(o1 + o * LANES + h * WIDTH);
            Vec slope = load(y1 + o * LANES + h * WIDTH);
            for (int a3 = 0; a3 < N3; a3++) {
              slope += b[o][a3][h] * cy[a3];
              d[o][a3][h] += f * cy[a3];
            }
            store(y1 + o * LANES + h * WIDTH, slope);
          }
        }
      }
      double *const slope = spectator_slope + part + m * row_s;
      for (int a = 0; a < n_spectator; a++)
        for (int h = 0; h < PARTS; h++) {
          Vec sum = load(slope + a * LANES + h * WIDTH);
          for (int o = 0; o < N; o++)
            for (int a3 = 0; a3 < N3; a3++) sum += splat(tile.weight[a * weight_s + o * weight_o + a3]) * d[o][a3][h];
          store(slope + a * LANES + h * WIDTH, sum);
        }
    }
  }
}

// The irrep of a path that meets the weights alone.
enum Spectator { LEFT = 0, FEATURE = 1, RIGHT = 2 };

// Sets the two functions of a tile; n and n_other are its copies of the coupled irreps, in the order left, feature, right.
template <int N, int NO> void set_functions(Tile &tile, Spectator spectator, int n, int n_other)
{
  if (n == N && n_other == NO) {
    if (spectator == RIGHT) {
      tile.forward = tile_forward<N, NO>;
      tile.adjoint = tile_adjoint<N, NO>;
    } else if (spectator == FEATURE) {
      tile.forward = mixed_forward<N, NO, true>;
      tile.adjoint = mixed_adjoint<N, NO, true>;
    } else {
      tile.forward = mixed_forward<N, NO, false>;
      tile.adjoint = mixed_adjoint<N, NO, false>;
    }
  } else if constexpr (NO > 1)
    set_functions<N, NO - 1>(tile, spectator, n, n_other);
  else if constexpr (N > 1)
    set_functions<N - 1, TILE2>(tile, spectator, n, n_other);
}

// ------------------------------------------------------------------------------------------------ the kernel

// Carries blocks of up to LANES atoms: `set_lane` for every atom, `run`, then `gradient` of every lane.
class Kernel {
 public:
  // Neighbours offered to `set_lane`: vectors from the centre, squared distances, types, and what they are called.
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

  Candidates candidates;

  // Pairs of the lane given last to `gradient`: dE/dr and names; -1 where there is no pair.
  int n_slots = 0;
  std::vector<double> gx, gy, gz, px, py, pz;
  std::vector<int> index;

  explicit Kernel(const Model &model_in) : model(model_in)
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
    stride_ = (5 + 2 * model.n_channels) * WIDTH;
    v_.grow(model.n_features * LANES);
    g_.grow(model.n_features * LANES);
    x_.grow(model.n_rows * LANES);
    y_.grow(model.n_rows * LANES);
    int components = 1;
    for (const Path &path : model.paths) components = std::max(components, path.components);
    work_.grow(std::max((4 * n_lm + (model.l_max + 1) * (model.l_max + 2) / 2) * WIDTH, components * LANES));
    g_lane_.grow(model.n_features);
    set_pair_stage<6>();
    for (const Path &path : model.paths) add_tiles(path);
  }

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
    for (int b = n_lanes; b < LANES; b++) {
      type_[b] = type_[0];
      for (int f = 0; f < model.n_features; f++) v_.data()[f * LANES + b] = v_.data()[f * LANES];
    }
    double *const x = x_.data(), *const y = y_.data(), *const g = g_.data();
    const double *const v = v_.data();
    for (int a = 0; a < model.n_head; a++)
      for (int b = 0; b < LANES; b++) x[a * LANES + b] = model.weights[type_[b] * model.n_head + a];
    std::fill(x + model.n_head * LANES, x + model.n_rows * LANES, 0.0);
    std::fill(y, y + (model.n_rows - 1) * LANES, 0.0);
    std::fill(y + (model.n_rows - 1) * LANES, y + model.n_rows * LANES, 1.0);
    std::fill(g, g + model.n_features * LANES, 0.0);
    for (const Tile &tile : tiles_) tile.forward(tile, v, x);
    for (auto tile = tiles_.rbegin(); tile != tiles_.rend(); ++tile) tile->adjoint(*tile, v, x, y, g);
    for (int b = 0; b < n_lanes; b++) energy[b] = x[(model.n_rows - 1) * LANES + b];
  }

  // Extrapolation grades of all lanes, after `run`: max_r |G^T b - m G|, b = dE/dA[a1, a2, a3] = sum_m3 (C x v)[m3] y[m3, a3].
  void grades(int n_lanes, double *grade)
  {
    const int n_r = model.grade_directions;
    double *const b = entries_.grow(model.grade_entries * LANES), *const t = work_.data();
    const double *const x = x_.data(), *const y = y_.data(), *const v = v_.data();
    double *at = b;
    for (int p = model.grade_begin; p < model.grade_end; p++) {
      const Path &path = model.paths[p];
      for (int a1 = 0; a1 < path.n1; a1++)
        for (int a2 = 0; a2 < path.n2; a2++) {
          for (int m3 = 0; m3 < path.components; m3++) {
            double *const sum = t + m3 * LANES;
            std::fill(sum, sum + LANES, 0.0);
            for (int z = path.coupling + path.m3_first[m3]; z < path.coupling + path.m3_first[m3 + 1]; z++) {
              const Coupling &c = model.couplings[z];
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
        add_coefficients<4>(r, b, largest);
      else
        add_coefficients<1>(r, b, largest);
      r += n;
    }
    for (int k = 0; k < n_lanes; k++) grade[k] = largest[k];
  }

  // Eq. (5) for all pairs of lane b, after `run`: fills n_slots, g, p and index.
  void gradient(int b)
  {
    n_slots = static_cast<int>(lanes_[b].index.size());
    if (static_cast<int>(gx.size()) < n_slots)
      for (auto *numbers : {&gx, &gy, &gz, &px, &py, &pz}) numbers->resize(n_slots);
    index.swap(lanes_[b].index);
    for (int f = 0; f < model.n_features; f++) g_lane_.data()[f] = g_.data()[f * LANES + b];
    (this->*gradient_)(b);
  }

  // Bytes held.
  double memory() const
  {
    double bytes = 8.0 * (v_.size() + g_.size() + x_.size() + y_.size() + work_.size() + 11.0 * candidates.x.size());
    for (const Lane &lane : lanes_) bytes += 8.0 * lane.groups.size() + 4.0 * lane.index.capacity();
    return bytes + sizeof(Tile) * tiles_.size() + 8.0 * (model.radial_table.size() + model.weights.size());
  }

  const Model model;

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
  std::vector<Tile> tiles_;
  std::vector<double> w1_, w0_;
  std::vector<int> first_;
  Buffer v_, g_, x_, y_, work_, phi_, harmonics_, g_lane_, entries_;
  void (Kernel::*features_)(int);
  void (Kernel::*gradient_)(int);

  // N coefficients of every lane in the active set, from the r-th on; keeps the largest.
  template <int N> void add_coefficients(int r, const double *b, double *largest) const
  {
    double sum[N][LANES];
    for (int n = 0; n < N; n++)
      for (int k = 0; k < LANES; k++) sum[n][k] = -model.grade_center[type_[k] * model.grade_directions + r + n];
    for (int q = 0; q < model.grade_entries; q++) {
      const double *const weight = &model.grade[q * model.grade_directions + r], *const entry = b + q * LANES;
      for (int n = 0; n < N; n++)
        for (int k = 0; k < LANES; k++) sum[n][k] += weight[n] * entry[k];
    }
    for (int n = 0; n < N; n++)
      for (int k = 0; k < LANES; k++) largest[k] = std::max(largest[k], std::fabs(sum[n][k]));
  }

  // Coefficients of a path by component of its spectator.
  struct Order {
    std::vector<Coupling> couplings;
    std::vector<int> first;
  };
  std::map<std::pair<int, int>, Order> orders_;    // by first coefficient and spectator

  const Order &order(const Path &path, Spectator spectator)
  {
    const auto at = std::make_pair(path.coupling, static_cast<int>(spectator));
    const auto found = orders_.find(at);
    if (found != orders_.end()) return found->second;
    Order &order = orders_[at];
    int components = path.components;
    if (spectator != RIGHT) {
      components = 0;
      for (int z = path.coupling; z < path.coupling + path.m3_first.back(); z++)
        components = std::max(components, 1 + (spectator == LEFT ? model.couplings[z].m1 : model.couplings[z].m2));
    }
    for (int m = 0; m < components; m++) {
      order.first.push_back(static_cast<int>(order.couplings.size()));
      for (int m3 = 0; m3 < path.components; m3++)
        for (int z = path.coupling + path.m3_first[m3]; z < path.coupling + path.m3_first[m3 + 1]; z++) {
          const Coupling &c = model.couplings[z];
          if (spectator == RIGHT && m3 == m) order.couplings.push_back(c);
          if (spectator == FEATURE && c.m2 == m) order.couplings.push_back({c.m1, m3, c.value});
          if (spectator == LEFT && c.m1 == m) order.couplings.push_back({c.m2, m3, c.value});
        }
    }
    order.first.push_back(static_cast<int>(order.couplings.size()));
    return order;
  }

  // Multiplications of a path over forward and adjoint pass with one spectator.
  double cost(const Path &path, Spectator spectator)
  {
    const int n = spectator == RIGHT ? path.n3 : spectator == FEATURE ? path.n2 : path.n1;
    const double all = path.n1 * path.n2 * path.n3, terms = path.m3_first.back();
    const double components = static_cast<double>(order(path, spectator).first.size() - 1);
    return 3.0 * all / n * terms + (spectator == RIGHT ? 2.0 : 3.0) * components * all;
  }

  void add_tiles(const Path &path)
  {
    Spectator spectator = RIGHT;
    for (Spectator other : {FEATURE, LEFT})
      if (cost(path, other) < cost(path, spectator)) spectator = other;
    const int n = spectator == LEFT ? path.n2 : path.n1;
    const int n_other = spectator == RIGHT ? path.n2 : path.n3;
    for (int a = 0; a < n;) {
      const int part_n = part(n - a, TILE1);
      for (int b = 0; b < n_other;) {
        const int part_other = part(n_other - b, TILE2);
        const int a1 = spectator == LEFT ? 0 : a;
        const int a2 = spectator == LEFT ? a : spectator == RIGHT ? b : 0;
        const int a3 = spectator == RIGHT ? 0 : b;
        const Order &in_order = order(path, spectator);
        Tile tile{};
        tile.weight = &model.weights[path.weight + (a1 * path.n2 + a2) * path.n3 + a3];
        tile.coupling = in_order.couplings.data();
        tile.first = in_order.first.data();
        tile.components = static_cast<int>(in_order.first.size()) - 1;
        tile.n3 = path.n3;
        tile.n_spectator = spectator == LEFT ? path.n1 : path.n2;
        tile.weight1 = path.n2 * path.n3;
        tile.weight2 = path.n3;
        tile.left = path.left + a1;
        tile.n1 = path.n1;
        tile.feature = path.feature + a2;
        tile.n2 = path.n2;
        tile.right = path.right + a3;
        set_functions<TILE1, TILE2>(tile, spectator, part_n, part_other);
        tiles_.push_back(tile);
        b += part_other;
      }
      a += part_n;
    }
  }

  // Copies are dealt out evenly: 4 as 2 + 2 where at most 3 fit.
  static int part(int left, int most) { return left <= most ? left : (left < 2 * most ? (left + 1) / 2 : most); }

  void sort_by_type(int b, int type_i, int n)
  {
    Lane &lane = lanes_[b];
    const int n_species = static_cast<int>(model.species.size());
    first_.assign(n_species + 1, 0);
    for (int p = 0; p < n; p++) first_[candidates.type[p] + 1]++;
    for (int z = 0; z < n_species; z++) first_[z + 1] = first_[z] + (first_[z + 1] + WIDTH - 1) / WIDTH * WIDTH;
    const int size = first_[n_species];
    lane.index.assign(size, -1);
    lane.table.resize(size / WIDTH);
    double *const groups = lane.groups.grow(size / WIDTH * stride_);
    for (int z = 0; z < n_species; z++)
      for (int group = first_[z] / WIDTH; group < first_[z + 1] / WIDTH; group++)
        lane.table[group] = &model.radial_table[(type_i * n_species + z) * model.n_radial * model.n_channels];
    // what is not filled lies at the cutoff, where everything vanishes
    for (int group = 0; group < size / WIDTH; group++) {
      store(groups + group * stride_ + 2 * WIDTH, Vec{});
      store(groups + group * stride_ + 3 * WIDTH, Vec{});
      store(groups + group * stride_ + 4 * WIDTH, splat(model.cutoff));
    }
    for (int p = 0; p < n; p++) {
      const int slot = first_[candidates.type[p]]++;
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
      combine_radial(lane.table[group], phi_at, phi_at + model.n_radial * WIDTH, at, at + model.n_channels * WIDTH);
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
          double *const v = v_.data() + (model.feature_first[l] + m * model.feature_rank[l] + c) * LANES + b;
          sum_features<3, 3>(n_m, n_c, n_groups, radial + c * WIDTH, y + (l * l + m) * WIDTH, n_lm * WIDTH, v,
                             model.feature_rank[l]);
          c += n_c;
        }
        m += n_m;
      }
      radial += model.channels[l] * WIDTH;
    }
    v_.data()[b] = 1.0;
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
        add_components<1>(n, rank, g_l, radial, y_l, n_lm, sums);
        int m = 1;
        for (; m + 4 <= 2 * l + 1; m += 4) add_components<4>(n, rank, g_l + m * rank, radial, y_l + m * WIDTH, n_lm, sums);
        if (m < 2 * l + 1) add_components<2>(n, rank, g_l + m * rank, radial, y_l + m * WIDTH, n_lm, sums);
        radial += n * WIDTH;
      }
      const Vec r = load(at), inverse = load(at + WIDTH);
      const Vec ux = load(at + 2 * WIDTH), uy = load(at + 3 * WIDTH), uz = load(at + 4 * WIDTH);
      const Vec along = sums.slope - (ux * sums.x + uy * sums.y + uz * sums.z) * inverse;
      const Vec fx = ux * along + sums.x * inverse, fy = uy * along + sums.y * inverse, fz = uz * along + sums.z * inverse;
      const Vec x = ux * r, ry = uy * r, z = uz * r;
      std::memcpy(&gx[slot], &fx, sizeof(Vec));
      std::memcpy(&gy[slot], &fy, sizeof(Vec));
      std::memcpy(&gz[slot], &fz, sizeof(Vec));
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

  // Eq. (1) for N channels.
  template <int N>
  void combine(const double *table, const double *phi, const double *dphi, double *radial, double *dradial) const
  {
    Vec sum[N], dsum[N];
    for (int c = 0; c < N; c++) sum[c] = dsum[c] = Vec{};
    for (int n = 0; n < model.n_radial; n++, table += model.n_channels) {
      const Vec p = load(phi + n * WIDTH), dp = load(dphi + n * WIDTH);
      for (int c = 0; c < N; c++) {
        const Vec t = splat(table[c]);
        sum[c] += t * p;
        dsum[c] += t * dp;
      }
    }
    for (int c = 0; c < N; c++) {
      store(radial + c * WIDTH, sum[c]);
      store(dradial + c * WIDTH, dsum[c]);
    }
  }

  void combine_radial(const double *table, const double *phi, const double *dphi, double *radial, double *dradial) const
  {
    for (int c = 0; c < model.n_channels;) {
      const int left = model.n_channels - c;
      double *const r = radial + c * WIDTH, *const d = dradial + c * WIDTH;
      if (left >= 5 || left == 4) {
        combine<4>(table + c, phi, dphi, r, d);
        c += 4;
      } else if (left == 3) {
        combine<3>(table + c, phi, dphi, r, d);
        c += 3;
      } else if (left == 2) {
        combine<2>(table + c, phi, dphi, r, d);
        c += 2;
      } else {
        combine<1>(table + c, phi, dphi, r, d);
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

  // Eq. (2) for M components and C channels over all groups: `v` is theirs in one lane of the block.
  template <int M, int C>
  void sum_features(int n_m, int n_c, int n_groups, const double *radial, const double *y, int y_stride, double *v,
                    int rank) const
  {
    if (n_m == M && n_c == C) {
      Vec sum[M][C];
      for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) sum[m][c] = Vec{};
      for (int group = 0; group < n_groups; group++, radial += stride_, y += y_stride)
        for (int c = 0; c < C; c++) {
          const Vec r = load(radial + c * WIDTH);
          for (int m = 0; m < M; m++) sum[m][c] += r * load(y + m * WIDTH);
        }
      for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) v[(m * rank + c) * LANES] = total(sum[m][c]);
    } else if constexpr (C > 1)
      sum_features<M, C - 1>(n_m, n_c, n_groups, radial, y, y_stride, v, rank);
    else if constexpr (M > 1)
      sum_features<M - 1, 3>(n_m, n_c, n_groups, radial, y, y_stride, v, rank);
  }

  // The sums of eq. (5) over the channels of l, for M components of one group.
  struct Sums {
    Vec slope, x, y, z;
  };
  template <int M>
  void add_components(int n, int rank, const double *g, const double *radial, const double *y, int n_lm, Sums &sums) const
  {
    const double *const dradial = radial + model.n_channels * WIDTH, *const dy = y + n_lm * WIDTH;
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
};

}    // namespace etnpot

#endif
