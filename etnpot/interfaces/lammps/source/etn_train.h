// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// A train on the features v of a block of atoms, and vectors.
//
//     x_k[l3 m3 a3] = sum_paths sum_{a1 a2} A[a1, a2, a3] t[m3, a1, a2],
//     t[m3, a1, a2] = sum_{m1 m2} C x_{k-1}[l1 m1 a1] v[l2 m2 a2]                                  (3)
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
// The cheapest is taken. The same equations as etnpot/kernels/train.py. The train carries `LANES` atoms, one row of lanes
// per component.

#ifndef ETN_TRAIN_H
#define ETN_TRAIN_H

#include "etn_model.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <new>
#include <utility>
#include <vector>

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
  const double *data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  double *data_ = nullptr;
  std::size_t size_ = 0;
};

// Copies are dealt out evenly: 4 as 2 + 2 where at most 3 fit.
inline int part(int left, int most) { return left <= most ? left : (left < 2 * most ? (left + 1) / 2 : most); }

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

// ------------------------------------------------------------------------------------------------ the train

// One train with room for LANES atoms: features into `v`, `forward`, dE/dx of the last bond into `seed`, `adjoint`.
class Train {
 public:
  explicit Train(const TrainModel &model) : model_(model)
  {
    v_.grow(model_.n_features * LANES);
    g_.grow(model_.n_features * LANES);
    x_.grow(model_.n_rows * LANES);
    y_.grow(model_.n_rows * LANES);
    for (const Path &path : model_.paths) add_tiles(path);
  }

  Train(const Train &) = delete;
  Train &operator=(const Train &) = delete;

  // Rows of lanes: features, all bonds, the last bond, and what `adjoint` makes of its seed.
  double *v() { return v_.data(); }
  const double *v() const { return v_.data(); }
  const double *x() const { return x_.data(); }
  const double *y() const { return y_.data(); }
  const double *g() const { return g_.data(); }
  const double *last() const { return x_.data() + (model_.n_rows - model_.n_last) * LANES; }
  double *seed() { return y_.data() + (model_.n_rows - model_.n_last) * LANES; }

  // Lanes beyond n_lanes repeat the first one.
  void fill_up(int n_lanes, int *type)
  {
    for (int b = n_lanes; b < LANES; b++) {
      type[b] = type[0];
      for (int f = 0; f < model_.n_features; f++) v_.data()[f * LANES + b] = v_.data()[f * LANES];
    }
  }

  // Eq. (3).
  void forward(const int *type)
  {
    double *const x = x_.data();
    for (int a = 0; a < model_.n_head; a++)
      for (int b = 0; b < LANES; b++) x[a * LANES + b] = model_.weights[type[b] * model_.n_head + a];
    std::fill(x + model_.n_head * LANES, x + model_.n_rows * LANES, 0.0);
    for (const Tile &tile : tiles_) tile.forward(tile, v_.data(), x);
  }

  // Eq. (4).
  void adjoint()
  {
    double *const y = y_.data(), *const g = g_.data();
    std::fill(y, y + (model_.n_rows - model_.n_last) * LANES, 0.0);
    std::fill(g, g + model_.n_features * LANES, 0.0);
    for (auto tile = tiles_.rbegin(); tile != tiles_.rend(); ++tile) tile->adjoint(*tile, v_.data(), x_.data(), y, g);
  }

  // Bytes held.
  double memory() const
  {
    return 8.0 * (v_.size() + g_.size() + x_.size() + y_.size() + model_.weights.size()) + sizeof(Tile) * tiles_.size();
  }

 private:
  const TrainModel &model_;
  std::vector<Tile> tiles_;
  Buffer v_, g_, x_, y_;

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
        components = std::max(components, 1 + (spectator == LEFT ? model_.couplings[z].m1 : model_.couplings[z].m2));
    }
    for (int m = 0; m < components; m++) {
      order.first.push_back(static_cast<int>(order.couplings.size()));
      for (int m3 = 0; m3 < path.components; m3++)
        for (int z = path.coupling + path.m3_first[m3]; z < path.coupling + path.m3_first[m3 + 1]; z++) {
          const Coupling &c = model_.couplings[z];
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
        tile.weight = &model_.weights[path.weight + (a1 * path.n2 + a2) * path.n3 + a3];
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
};

}    // namespace etnpot

#endif
