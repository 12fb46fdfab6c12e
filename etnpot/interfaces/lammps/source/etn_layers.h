// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// Energies and forces of all atoms of a rank, for a potential with layers between the local features V^0 and the last train:
//
//     x^k_i = train_k(V^{k-1}_i),    V^k_i = V^{k-1}_i + u^k_i (appended),    E_i = train(V^L_i)              (6)
//     message   u_i[l' m' l c] = sum_{m mu} C A_i[l m, mu c],
//               A_i[l m, mu c] = sum_j alpha_ij R_lc(r_ij) Y_lm(u_ij) x_j[mu c]                              (7)
//     pool      u_i[mu c] = mean of x_j[mu c] over all atoms                                               (8)
//     alpha_ij  = 1, or s_ij = q_i . k_j / sqrt(D), or e_ij / (1 + sum_j' e_ij'),  e = (1 - r^2 / r_c^2)^3 exp(s)   (9)
//
// The coupling coefficients do not depend on the pair: the sum over the neighbours makes all products of harmonics and bonds,
// and an atom couples their sum once. Back, with G_i[l m, mu c] = sum C du_i, the derivative of E by u_i's sum,
//
//     D = sum_m G_i Y_lm,    dE/dR_lc += alpha D x_j,    dE/dx_j += alpha R_lc D,    dE/dalpha += R_lc D x_j,
//     dE/dY_lm += sum_{mu c} alpha R_lc x_j G_i,    dE/ds = dE/dalpha,  or  alpha (dE/dalpha - sum_j alpha dE/dalpha)   (10)
//
// and dE/dV^{k-1} from the train with dE/dx^k as its seed. x_j of ghosts come from the ranks that own them, dE/dx_j of ghosts go
// there, once for each layer of messages: ghosts reach as far as the cutoff. The same equations as
// etnpot/potential/layered.py, which tests/lammps holds this file to.

#ifndef ETN_LAYERS_H
#define ETN_LAYERS_H

#include "etn_grade.h"
#include "etn_model.h"
#include "etn_pairs.h"
#include "etn_train.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

namespace etnpot {

// How ranks speak with each other; rows are those of owned atoms, then of ghosts.
struct Exchange {
  virtual ~Exchange() = default;
  virtual void to_ghosts(double *rows, int width) = 0;      // of ghosts from those of their owners
  virtual void from_ghosts(double *rows, int width) = 0;    // of ghosts, added to those of their owners
  virtual void sum(double *numbers, int n) = 0;             // over all ranks
};

// For each step `begin`, `add` for every centre, `energies`, `derivatives`, then `take` for every centre.
class Layered : public PairStage {
 public:
  explicit Layered(const Model &model_in) : PairStage(model_in), grader_(model_in), x_(model_in.layers.size())
  {
    n_lm_ = (model.l_max + 1) * (model.l_max + 1);
    n_all_ = model.train.n_features;
    int n_channels = model.n_channels;
    int n_sums = 0, n_carried = 0;
    widest_ = 1;
    for (const Layer &layer : model.layers) {
      trains_.push_back(std::make_unique<Train>(layer.train));
      orders_.push_back(&layer.order);
      n_carried = std::max(n_carried, layer.n_carried);
      n_sums = std::max(n_sums, n_lm_ * layer.n_carried);
      n_channels = std::max(n_channels, (model.l_max + 1) * layer.n_copies);
      widest_ = std::max(widest_, layer.train.n_last);
    }
    trains_.push_back(std::make_unique<Train>(model.train));
    orders_.push_back(&model.order);
    phi_.grow(2 * model.n_radial * WIDTH);
    radial_.grow(2 * n_channels * WIDTH);
    carried_.grow(5 * n_carried * WIDTH);
    angular_.grow((4 * n_lm_ + (model.l_max + 1) * (model.l_max + 2) / 2) * WIDTH);
    sums_.grow(n_sums * LANES);
    u_.grow(n_all_ * LANES);
    nobody_.assign(widest_, 0.0);
    lane_.grow(std::max({n_sums, model.n_local, n_carried + 1}));
    set_harmonics<6>();
  }

  explicit Layered(Model &&) = delete;  // the model is referred to, not copied
  Layered(const Layered &) = delete;
  Layered &operator=(const Layered &) = delete;

  // Numbers of one atom that are exchanged at most.
  int widest() const { return widest_; }

  // No centres yet; owned atoms and ghosts together are called 0 .. n_sites - 1.
  void begin(int n_sites)
  {
    n_sites_ = n_sites;
    atom_.clear();
    type_.clear();
    first_.assign(1, 0);
    groups_.clear();
    table_.clear();
    index_.clear();
  }

  // One more centre, and its neighbours: the first n candidates, all within the cutoff.
  void add(int atom, int type, int n, const Candidates &near)
  {
    atom_.push_back(atom);
    type_.push_back(type);
    const std::size_t begin = groups_.size(), n_species = model.species.size();
    std::vector<int> &first = first_slots(n, near.type);
    const int size = first[n_species];
    groups_.resize(begin + size / WIDTH);
    index_.resize((begin + size / WIDTH) * WIDTH, -1);
    for (std::size_t z = 0; z < n_species; z++)
      for (int group = first[z] / WIDTH; group < first[z + 1] / WIDTH; group++)
        table_.push_back(static_cast<int>(type * n_species + z));
    // what is not filled lies at the cutoff, where everything vanishes
    for (std::size_t group = begin; group < groups_.size(); group++) groups_[group].u[2] = splat(model.cutoff);
    for (int p = 0; p < n; p++) {
      const int slot = first[near.type[p]]++;
      Group &group = groups_[begin + slot / WIDTH];
      group.u[0][slot % WIDTH] = near.x[p];
      group.u[1][slot % WIDTH] = near.y[p];
      group.u[2][slot % WIDTH] = near.z[p];
      index_[begin * WIDTH + slot] = near.index[p];
    }
    for (std::size_t at = begin; at < groups_.size(); at++) {
      Group &group = groups_[at];
      const Vec r2 = group.u[0] * group.u[0] + group.u[1] * group.u[1] + group.u[2] * group.u[2];
      for (int k = 0; k < WIDTH; k++) group.r[k] = std::sqrt(r2[k]);
      group.inverse = 1.0 / group.r;
      group.u[0] *= group.inverse;
      group.u[1] *= group.inverse;
      group.u[2] *= group.inverse;
    }
    first_.push_back(groups_.size());
  }

  // Eqs. (6) to (9). The last train goes both ways at once: `slope(centre, x)` takes the energy x of a centre, without its
  // reference energy, and gives the derivative of the whole by it. Where `grade` is not null, it takes the extrapolation grade of
  // every centre.
  template <class Slope> void energies(Exchange &exchange, Slope &&slope, double *grade = nullptr)
  {
    const std::size_t n = atom_.size();
    v_.grow(n * n_all_);
    g_.grow(n * n_all_);
    most_groups_ = 0;
    for (std::size_t i = 0; i < n; i++) most_groups_ = std::max(most_groups_, first_[i + 1] - first_[i]);
    for (std::size_t i = 0; i < n; i++) local(i);
    for (std::size_t k = 0; k < model.layers.size(); k++) {
      const Layer &layer = model.layers[k];
      bonds(k);
      if (layer.pool)
        append_pool(k, exchange);
      else {
        exchange.to_ghosts(x_[k].data(), layer.train.n_last);
        append_messages(k);
      }
    }
    Train &train = *trains_.back();
    for (std::size_t block = 0; block < n; block += LANES) {
      const int n_lanes = load_block(trains_.size() - 1, block);
      std::fill(train.seed(), train.seed() + LANES, 1.0);
      train.adjoint();
      if (grade) {
        int types[LANES] = {};
        std::copy_n(type_.begin() + block, n_lanes, types);
        grader_.grades(train, types, n_lanes, grade + block);
      }
      for (int b = 0; b < n_lanes; b++) {
        const double by_energy = slope(block + b, train.last()[b]);
        double *const g = g_.data() + (block + b) * n_all_;
        for (int f = 0; f < n_all_; f++) g[model.order[f]] = by_energy * train.g()[f * LANES + b];
      }
    }
  }

  // Eq. (10), and eq. (5) of the local features.
  void derivatives(Exchange &exchange)
  {
    slopes_.assign(groups_.size(), Slope{});
    for (std::size_t k = model.layers.size(); k-- > 0;) {
      const Layer &layer = model.layers[k];
      const std::size_t size = static_cast<std::size_t>(n_sites_) * layer.train.n_last;
      double *const bar = xbar_.grow(size);
      std::fill(bar, bar + size, 0.0);
      if (layer.pool)
        pool_adjoint(layer, exchange);
      else {
        messages_adjoint(k);
        exchange.from_ghosts(bar, layer.train.n_last);
      }
      bonds_adjoint(k);
    }
    for (std::size_t i = 0; i < atom_.size(); i++) local_adjoint(i);
  }

  int atom(std::size_t centre) const { return atom_[centre]; }
  int type(std::size_t centre) const { return type_[centre]; }
  std::size_t n_centres() const { return atom_.size(); }

  // Pairs of a centre after `derivatives`.
  void take(std::size_t centre, PairDerivatives &pairs) const
  {
    const std::size_t begin = first_[centre], stop = first_[centre + 1];
    pairs.resize(static_cast<int>((stop - begin) * WIDTH));
    pairs.index.assign(index_.begin() + begin * WIDTH, index_.begin() + stop * WIDTH);
    for (std::size_t at = begin; at < stop; at++) {
      const Group &group = groups_[at];
      const Vec x = group.u[0] * group.r, y = group.u[1] * group.r, z = group.u[2] * group.r;
      const std::size_t slot = (at - begin) * WIDTH;
      std::memcpy(&pairs.gx[slot], &slopes_[at].x, sizeof(Vec));
      std::memcpy(&pairs.gy[slot], &slopes_[at].y, sizeof(Vec));
      std::memcpy(&pairs.gz[slot], &slopes_[at].z, sizeof(Vec));
      std::memcpy(&pairs.px[slot], &x, sizeof(Vec));
      std::memcpy(&pairs.py[slot], &y, sizeof(Vec));
      std::memcpy(&pairs.pz[slot], &z, sizeof(Vec));
    }
  }

  // Bytes held.
  double memory() const
  {
    double bytes = sizeof(Group) * groups_.capacity() + sizeof(Slope) * slopes_.capacity() + 4.0 * index_.capacity() +
        4.0 * table_.capacity() + 16.0 * atom_.capacity() + 8.0 * (v_.size() + g_.size() + xbar_.size());
    for (const Buffer &rows : x_) bytes += 8.0 * rows.size();
    for (const auto &train : trains_) bytes += train->memory();
    return bytes + grader_.memory();
  }

 private:
  // WIDTH neighbours of one type: distances, their inverse, directions.
  struct Group {
    Vec r, inverse, u[3];
  };

  int n_lm_, n_all_, widest_, n_sites_ = 0;
  std::vector<std::unique_ptr<Train>> trains_;        // of every layer, and the last one
  std::vector<const std::vector<int> *> orders_;      // of their features
  Grader grader_;
  // centres, and the groups of each: `first_` [centre] and one more; of every group T[z_i, z_j] and names of its neighbours
  std::vector<int> atom_, type_;
  std::vector<std::size_t> first_;
  std::vector<Group> groups_;
  std::vector<int> table_, index_;
  std::vector<Slope> slopes_;    // dE/dr of every group
  std::size_t most_groups_ = 0;
  Buffer v_, g_;                 // all features of every centre, and the derivatives by them
  std::vector<Buffer> x_;        // last bonds of every layer, one row for each site
  Buffer xbar_;                  // dE/dx of one layer
  // of one group: radial functions, R and R', what is carried; harmonics; of one block: sums A, or G, and u
  Buffer phi_, radial_, carried_, angular_, sums_, u_, lane_;
  // of all groups of one centre: harmonics and products with x; attention: weights and their derivatives [group][head]
  Buffer harmonics_of_, products_, weight_, weight_bar_;
  std::vector<double> top_, total_, query_bar_, nobody_;    // the last one: a row of zeros
  void (Layered::*harmonics_)(const double *, double *) const;
  void (Layered::*harmonics_gradient_)(const double *, double *, double *, double *) const;

  template <int L> void set_harmonics()
  {
    if (L == -1 || L == model.l_max) {
      harmonics_ = &Layered::harmonics<L>;
      harmonics_gradient_ = &Layered::harmonics_gradient<L>;
    } else if constexpr (L >= 0)
      set_harmonics<L - 1>();
  }

  // R of one group, and R' after all R where SLOPES.
  template <bool SLOPES> void radial(std::size_t at, const std::vector<double> &table, int n_channels)
  {
    double *const phi = phi_.data(), *const dphi = phi + model.n_radial * WIDTH, *const r = radial_.data();
    radial_functions(groups_[at].r, phi, dphi);
    combine_radial<SLOPES>(n_channels, &table[static_cast<std::size_t>(table_[at]) * model.n_radial * n_channels], phi, dphi, r,
                           r + n_channels * WIDTH);
  }

  // Harmonics of all groups of a centre.
  void harmonics_of(std::size_t begin, std::size_t stop)
  {
    double *y = harmonics_of_.grow(most_groups_ * n_lm_ * WIDTH);
    for (std::size_t at = begin; at < stop; at++, y += n_lm_ * WIDTH)
      (this->*harmonics_)(reinterpret_cast<const double *>(groups_[at].u), y);
  }

  // Sums over the groups of a centre of n products of one l with its harmonics: component m, product c at out[(m rank + c) STEP].
  template <int STEP> void sum_products(int l, int n, int n_groups, const double *product, int stride, double *out, int rank)
  {
    const double *const y = harmonics_of_.data() + l * l * WIDTH;
    for (int m = 0; m < 2 * l + 1;) {
      const int n_m = part(2 * l + 1 - m, 3);
      for (int c = 0; c < n;) {
        const int n_c = part(n - c, 3);
        sum_features<STEP>(n_m, n_c, n_groups, product + c * WIDTH, stride, y + m * WIDTH, n_lm_ * WIDTH,
                           out + (m * rank + c) * STEP, rank);
        c += n_c;
      }
      m += n_m;
    }
  }

  // ------------------------------------------------------------------------------------------- local features

  void local(std::size_t centre)
  {
    const std::size_t begin = first_[centre], stop = first_[centre + 1];
    const int stride = model.n_channels * WIDTH;
    double *const v = v_.data() + centre * n_all_, *product = products_.grow(most_groups_ * stride);
    for (std::size_t at = begin; at < stop; at++) {
      radial<false>(at, model.radial_table, model.n_channels);
      std::memcpy(product + (at - begin) * stride, radial_.data(), stride * sizeof(double));
    }
    harmonics_of(begin, stop);
    for (int l = 0; l <= model.l_max; l++) {
      sum_products<1>(l, model.channels[l], static_cast<int>(stop - begin), product, stride, v + model.feature_first[l],
                      model.feature_rank[l]);
      product += model.channels[l] * WIDTH;
    }
    v[0] = 1.0;
  }

  void local_adjoint(std::size_t centre)
  {
    const double *const g = g_.data() + centre * n_all_;
    double *const y = angular_.data(), *const dy = y + n_lm_ * WIDTH, *const scratch = dy + 3 * n_lm_ * WIDTH;
    for (std::size_t at = first_[centre]; at < first_[centre + 1]; at++) {
      radial<true>(at, model.radial_table, model.n_channels);
      (this->*harmonics_gradient_)(reinterpret_cast<const double *>(groups_[at].u), scratch, y, dy);
      const double *r = radial_.data();
      Sums sums{};
      for (int l = 0; l <= model.l_max; l++) {
        const int n = model.channels[l], rank = model.feature_rank[l];
        for (int m = 0; m < 2 * l + 1; m++)
          add_components<1>(n, rank, g + model.feature_first[l] + m * rank, r, model.n_channels, y + (l * l + m) * WIDTH, n_lm_,
                            sums);
        r += n * WIDTH;
      }
      add_slope(at, sums);
    }
  }

  void add_slope(std::size_t at, const Sums &sums)
  {
    const Group &group = groups_[at];
    const Slope more = slope(sums, group.inverse, group.u[0], group.u[1], group.u[2]);
    slopes_[at].x += more.x;
    slopes_[at].y += more.y;
    slopes_[at].z += more.z;
  }

  // ------------------------------------------------------------------------------------------------- trains

  // Features of a block of centres for train k, which goes forward; how many centres there are.
  int load_block(std::size_t k, std::size_t block)
  {
    Train &train = *trains_[k];
    const std::vector<int> &order = *orders_[k];
    const int n_lanes = static_cast<int>(std::min<std::size_t>(LANES, atom_.size() - block));
    int types[LANES];
    for (int b = 0; b < n_lanes; b++) {
      const double *const v = v_.data() + (block + b) * n_all_;
      types[b] = type_[block + b];
      for (std::size_t f = 0; f < order.size(); f++) train.v()[f * LANES + b] = v[order[f]];
    }
    train.fill_up(n_lanes, types);
    train.forward(types);
    return n_lanes;
  }

  // x^k of all centres; rows of what is no centre stay zero.
  void bonds(std::size_t k)
  {
    const int n_last = model.layers[k].train.n_last;
    const std::size_t size = static_cast<std::size_t>(n_sites_) * n_last;
    double *const x = x_[k].grow(size);
    std::fill(x, x + size, 0.0);
    for (std::size_t block = 0; block < atom_.size(); block += LANES) {
      const int n_lanes = load_block(k, block);
      const double *const last = trains_[k]->last();
      for (int b = 0; b < n_lanes; b++)
        for (int o = 0; o < n_last; o++) x[static_cast<std::size_t>(atom_[block + b]) * n_last + o] = last[o * LANES + b];
    }
  }

  // dE/dV^{k-1} of all centres from dE/dx^k; dE/dV^k, which it is added to, lies in the same places.
  void bonds_adjoint(std::size_t k)
  {
    Train &train = *trains_[k];
    const std::vector<int> &order = *orders_[k];
    const int n_last = model.layers[k].train.n_last;
    const double *const bar = xbar_.data();
    for (std::size_t block = 0; block < atom_.size(); block += LANES) {
      const int n_lanes = load_block(k, block);
      std::fill(train.seed(), train.seed() + n_last * LANES, 0.0);
      for (int b = 0; b < n_lanes; b++)
        for (int o = 0; o < n_last; o++)
          train.seed()[o * LANES + b] = bar[static_cast<std::size_t>(atom_[block + b]) * n_last + o];
      train.adjoint();
      for (int b = 0; b < n_lanes; b++)
        for (std::size_t f = 0; f < order.size(); f++)
          g_.data()[(block + b) * n_all_ + order[f]] += train.g()[f * LANES + b];
    }
  }

  // -------------------------------------------------------------------------------------------------- pools

  // Mean over all centres of all ranks of what `add` adds up, n numbers.
  template <class Add> const double *mean(int n, Exchange &exchange, Add &&add)
  {
    double *const sums = lane_.data();
    std::fill(sums, sums + n, 0.0);
    for (std::size_t i = 0; i < atom_.size(); i++) add(i, sums);
    sums[n] = static_cast<double>(atom_.size());
    exchange.sum(sums, n + 1);
    for (int c = 0; c < n; c++) sums[c] /= std::max(sums[n], 1.0);
    return sums;
  }

  // Eq. (8).
  void append_pool(std::size_t k, Exchange &exchange)
  {
    const Layer &layer = model.layers[k];
    const double *const x = x_[k].data();
    const double *const all = mean(layer.n_carried, exchange, [&](std::size_t i, double *sums) {
      const double *const row = x + static_cast<std::size_t>(atom_[i]) * layer.train.n_last;
      for (int c = 0; c < layer.n_carried; c++) sums[c] += row[layer.row[c]];
    });
    for (std::size_t i = 0; i < atom_.size(); i++)
      for (const Layer::Term &t : layer.terms)
        for (int a = 0; a < t.count; a++) v_.data()[i * n_all_ + t.feature + a] = t.value * all[t.carried + a];
  }

  void pool_adjoint(const Layer &layer, Exchange &exchange)
  {
    const double *const all = mean(layer.n_carried, exchange, [&](std::size_t i, double *sums) {
      const double *const g = g_.data() + i * n_all_;
      for (const Layer::Term &t : layer.terms)
        for (int a = 0; a < t.count; a++) sums[t.carried + a] += t.value * g[t.feature + a];
    });
    for (int atom : atom_)
      for (int c = 0; c < layer.n_carried; c++)
        xbar_.data()[static_cast<std::size_t>(atom) * layer.train.n_last + layer.row[c]] = all[c];
  }

  // ----------------------------------------------------------------------------------------------- messages

  // Eq. (7).
  void append_messages(std::size_t k)
  {
    const Layer &layer = model.layers[k];
    const int n_new = appended(k), n_sums = n_lm_ * layer.n_carried;
    const int begin = static_cast<int>(orders_[k]->size());
    double *const a = sums_.data(), *const u = u_.data();
    for (std::size_t block = 0; block < atom_.size(); block += LANES) {
      const int n_lanes = static_cast<int>(std::min<std::size_t>(LANES, atom_.size() - block));
      if (n_lanes < LANES) std::fill(a, a + n_sums * LANES, 0.0);
      for (int b = 0; b < n_lanes; b++) gather(k, block + b, a + b);
      std::fill(u, u + n_new * LANES, 0.0);
      for (const Layer::Term &t : layer.terms) {
        const double *from = a + (t.lm * layer.n_carried + t.carried) * LANES;
        double *to = u + (t.feature - begin) * LANES;
        const Vec value = splat(t.value);
        for (int at = 0; at < t.count * LANES; at += WIDTH) store(to + at, load(to + at) + value * load(from + at));
      }
      for (int b = 0; b < n_lanes; b++)
        for (int f = 0; f < n_new; f++) v_.data()[(block + b) * n_all_ + begin + f] = u[f * LANES + b];
    }
  }

  // Features that layer k appends.
  int appended(std::size_t k) const { return static_cast<int>(orders_[k + 1]->size() - orders_[k]->size()); }

  // A of one centre: [lm][c], LANES apart.
  void gather(std::size_t k, std::size_t centre, double *sums)
  {
    const Layer &layer = model.layers[k];
    const std::size_t begin = first_[centre], stop = first_[centre + 1];
    const int n = layer.n_carried, n_channels = (model.l_max + 1) * layer.n_copies, stride = (model.l_max + 1) * n * WIDTH;
    double *const product = products_.grow(most_groups_ * stride), *const x = carried_.data();
    if (layer.attention != Attention::NONE) weigh(k, centre);
    for (std::size_t at = begin; at < stop; at++) {
      radial<false>(at, layer.radial_table, n_channels);
      carry(k, at, at - begin, x, nullptr);
      double *to = product + (at - begin) * stride;
      for (int l = 0; l <= model.l_max; l++) {
        const double *const r = radial_.data() + l * layer.n_copies * WIDTH;
        for (int c = 0; c < n; c++, to += WIDTH) store(to, load(r + layer.copy[c] * WIDTH) * load(x + c * WIDTH));
      }
    }
    harmonics_of(begin, stop);
    for (int l = 0; l <= model.l_max; l++)
      sum_products<LANES>(l, n, static_cast<int>(stop - begin), product + l * n * WIDTH, stride, sums + l * l * n * LANES, n);
  }

  // What the neighbours of a group pass on, times alpha, and without it where `plain` is given.
  void carry(std::size_t k, std::size_t at, std::size_t of_centre, double *x, double *plain)
  {
    const Layer &layer = model.layers[k];
    const int n = layer.n_carried;
    const double *rows[WIDTH];
    for (int b = 0; b < WIDTH; b++) {
      const int j = index_[at * WIDTH + b];
      rows[b] = j < 0 ? nobody_.data() : x_[k].data() + static_cast<std::size_t>(j) * layer.train.n_last;
    }
    for (int c = 0; c < n; c++) {
      Vec value;
      for (int b = 0; b < WIDTH; b++) value[b] = rows[b][layer.row[c]];
      store(x + c * WIDTH, value);
    }
    if (layer.attention == Attention::NONE) return;
    if (plain) std::memcpy(plain, x, n * WIDTH * sizeof(double));
    const double *const weight = weight_.data() + of_centre * layer.heads * WIDTH;
    for (int c = 0; c < n; c++) store(x + c * WIDTH, load(x + c * WIDTH) * load(weight + layer.head[c] * WIDTH));
  }

  // Eq. (9) for all groups of a centre.
  void weigh(std::size_t k, std::size_t centre)
  {
    const Layer &layer = model.layers[k];
    const std::size_t begin = first_[centre], stop = first_[centre + 1];
    const int heads = layer.heads, width = layer.width, n_last = layer.train.n_last;
    const double *const q = x_[k].data() + static_cast<std::size_t>(atom_[centre]) * n_last + layer.queries;
    const double scale = 1.0 / std::sqrt(static_cast<double>(width));
    double *const weight = weight_.grow(most_groups_ * heads * WIDTH);
    top_.assign(heads, 0.0);
    for (std::size_t at = begin; at < stop; at++)
      for (int b = 0; b < WIDTH; b++) {
        const int j = index_[at * WIDTH + b];
        const double *key = x_[k].data() + static_cast<std::size_t>(std::max(j, 0)) * n_last + layer.queries + heads * width;
        for (int h = 0; h < heads; h++) {
          double s = 0.0;
          for (int d = 0; d < width; d++) s += q[h * width + d] * *key++;
          s = j < 0 ? 0.0 : s * scale;
          weight[((at - begin) * heads + h) * WIDTH + b] = s;
          top_[h] = std::max(top_[h], s);
        }
      }
    if (layer.attention == Attention::BILINEAR) return;
    // numerator and denominator times exp(-top), a constant of all derivatives: no overflow
    total_.resize(heads);
    for (int h = 0; h < heads; h++) total_[h] = std::exp(-top_[h]);
    for (std::size_t at = begin; at < stop; at++) {
      const Vec rest = envelope_root(groups_[at]), envelope = rest * rest * rest;
      for (int h = 0; h < heads; h++) {
        double *const w = weight + ((at - begin) * heads + h) * WIDTH;
        for (int b = 0; b < WIDTH; b++) w[b] = envelope[b] * std::exp(w[b] - top_[h]);
        total_[h] += total(load(w));
      }
    }
    for (std::size_t at = 0; at < stop - begin; at++)
      for (int h = 0; h < heads; h++) {
        double *const w = weight + (at * heads + h) * WIDTH;
        store(w, load(w) / splat(total_[h]));
      }
  }

  // 1 - r^2 / r_c^2, not below zero.
  Vec envelope_root(const Group &group) const
  {
    return max(1.0 - group.r * group.r / (model.cutoff * model.cutoff), Vec{});
  }

  // Eq. (10): dE/dr of all pairs is added to, dE/dx of the layer as well.
  void messages_adjoint(std::size_t k)
  {
    const Layer &layer = model.layers[k];
    const int n_new = appended(k), n_sums = n_lm_ * layer.n_carried;
    const int begin = static_cast<int>(orders_[k]->size());
    double *const a = sums_.data(), *const u = u_.data();
    for (std::size_t block = 0; block < atom_.size(); block += LANES) {
      const int n_lanes = static_cast<int>(std::min<std::size_t>(LANES, atom_.size() - block));
      for (int b = 0; b < LANES; b++) {
        const double *const g = g_.data() + (block + std::min(b, n_lanes - 1)) * n_all_ + begin;
        for (int f = 0; f < n_new; f++) u[f * LANES + b] = g[f];
      }
      std::fill(a, a + n_sums * LANES, 0.0);
      for (const Layer::Term &t : layer.terms) {
        double *to = a + (t.lm * layer.n_carried + t.carried) * LANES;
        const double *from = u + (t.feature - begin) * LANES;
        const Vec value = splat(t.value);
        for (int at = 0; at < t.count * LANES; at += WIDTH) store(to + at, load(to + at) + value * load(from + at));
      }
      for (int b = 0; b < n_lanes; b++) {
        for (int s = 0; s < n_sums; s++) lane_.data()[s] = a[s * LANES + b];
        gather_adjoint(k, block + b, lane_.data());
      }
    }
  }

  void gather_adjoint(std::size_t k, std::size_t centre, const double *g)
  {
    const Layer &layer = model.layers[k];
    const std::size_t begin = first_[centre], stop = first_[centre + 1];
    const int n = layer.n_carried, n_copies = layer.n_copies, n_channels = (model.l_max + 1) * n_copies, heads = layer.heads;
    const bool attends = layer.attention != Attention::NONE;
    double *const x = carried_.data(), *const plain = x + n * WIDTH, *const bar = plain + n * WIDTH, *const d = bar + n * WIDTH;
    double *const product = d + n * WIDTH;
    double *const y = angular_.data(), *const dy = y + n_lm_ * WIDTH, *const scratch = dy + 3 * n_lm_ * WIDTH;
    double *const weight_bar = weight_bar_.grow(most_groups_ * heads * WIDTH);
    if (attends) {
      weigh(k, centre);
      std::fill(weight_bar, weight_bar + (stop - begin) * heads * WIDTH, 0.0);
    }
    for (std::size_t at = begin; at < stop; at++) {
      radial<true>(at, layer.radial_table, n_channels);
      carry(k, at, at - begin, x, plain);
      (this->*harmonics_gradient_)(reinterpret_cast<const double *>(groups_[at].u), scratch, y, dy);
      std::fill(bar, bar + n * WIDTH, 0.0);
      Sums sums{};
      for (int l = 0; l <= model.l_max; l++) {
        const double *const r = radial_.data() + l * n_copies * WIDTH, *const dr = r + n_channels * WIDTH;
        for (int c = 0; c < n; c++) store(product + c * WIDTH, load(r + layer.copy[c] * WIDTH) * load(x + c * WIDTH));
        for (int m = 0; m < 2 * l + 1;) {
          const int lm = l * l + m, n_m = std::min(2 * l + 1 - m, 5);
          add_products<5>(n_m, n, g + lm * n, product, y + lm * WIDTH, m == 0, d, sums);
          m += n_m;
        }
        Vec along{};
        for (int c = 0; c < n; c++) {
          const Vec dc = load(d + c * WIDTH);
          along += dc * load(dr + layer.copy[c] * WIDTH) * load(x + c * WIDTH);
          store(bar + c * WIDTH, load(bar + c * WIDTH) + dc * load(r + layer.copy[c] * WIDTH));
        }
        sums.slope += along;
      }
      if (attends) {
        const double *const weight = weight_.data() + (at - begin) * heads * WIDTH;
        double *const to = weight_bar + (at - begin) * heads * WIDTH;
        for (int c = 0; c < n; c++) {
          double *const sum = to + layer.head[c] * WIDTH;
          const Vec b = load(bar + c * WIDTH);
          store(sum, load(sum) + b * load(plain + c * WIDTH));
          store(bar + c * WIDTH, b * load(weight + layer.head[c] * WIDTH));
        }
      }
      for (int b = 0; b < WIDTH; b++) {
        const int j = index_[at * WIDTH + b];
        if (j < 0) continue;
        double *const row = xbar_.data() + static_cast<std::size_t>(j) * layer.train.n_last;
        for (int c = 0; c < n; c++) row[layer.row[c]] += bar[c * WIDTH + b];
      }
      add_slope(at, sums);
    }
    if (attends) weigh_adjoint(k, centre);
  }

  // Of eq. (10) for M components of one l and all n that is carried: D is added to `d`, or begins there; dE/dY meets dY/du.
  template <int M>
  void add_products(int n_m, int n, const double *g, const double *product, const double *y, bool begins, double *d,
                    Sums &sums) const
  {
    if (n_m == M) {
      const double *const dy = y + n_lm_ * WIDTH;
      Vec harmonic[M], slope[M];
      for (int m = 0; m < M; m++) {
        harmonic[m] = load(y + m * WIDTH);
        slope[m] = Vec{};
      }
      for (int c = 0; c < n; c++) {
        const Vec z = load(product + c * WIDTH);
        Vec sum = begins ? Vec{} : load(d + c * WIDTH);
        for (int m = 0; m < M; m++) {
          const Vec w = splat(g[m * n + c]);
          sum += w * harmonic[m];
          slope[m] += w * z;
        }
        store(d + c * WIDTH, sum);
      }
      for (int m = 0; m < M; m++) {
        sums.x += slope[m] * load(dy + m * WIDTH);
        sums.y += slope[m] * load(dy + (n_lm_ + m) * WIDTH);
        sums.z += slope[m] * load(dy + (2 * n_lm_ + m) * WIDTH);
      }
    } else if constexpr (M > 1)
      add_products<M - 1>(n_m, n, g, product, y, begins, d, sums);
  }

  // From dE/dalpha of all groups of a centre to queries, keys and, through the envelope, to dE/dr.
  void weigh_adjoint(std::size_t k, std::size_t centre)
  {
    const Layer &layer = model.layers[k];
    const std::size_t begin = first_[centre], n_groups = first_[centre + 1] - begin;
    const int heads = layer.heads, width = layer.width, n_last = layer.train.n_last, n_query = heads * width;
    const double *const weight = weight_.data(), scale = 1.0 / std::sqrt(static_cast<double>(width));
    double *const bar = weight_bar_.data();
    if (layer.attention == Attention::NORMALISED)
      for (int h = 0; h < heads; h++) {
        Vec sum{};
        for (std::size_t at = h; at < n_groups * heads; at += heads) sum += load(weight + at * WIDTH) * load(bar + at * WIDTH);
        const Vec mean = splat(total(sum));
        for (std::size_t at = h; at < n_groups * heads; at += heads)
          store(bar + at * WIDTH, load(weight + at * WIDTH) * (load(bar + at * WIDTH) - mean));
      }
    const std::size_t own = static_cast<std::size_t>(atom_[centre]) * n_last + layer.queries;
    const double *const q = x_[k].data() + own;
    query_bar_.assign(n_query, 0.0);
    for (std::size_t at = 0; at < n_groups; at++)
      for (int b = 0; b < WIDTH; b++) {
        const int j = index_[(begin + at) * WIDTH + b];
        if (j < 0) continue;
        const std::size_t keys = static_cast<std::size_t>(j) * n_last + layer.queries + n_query;
        for (int h = 0; h < heads; h++) {
          const double s = scale * bar[(at * heads + h) * WIDTH + b];
          for (int e = h * width; e < (h + 1) * width; e++) {
            query_bar_[e] += s * x_[k].data()[keys + e];
            xbar_.data()[keys + e] += s * q[e];
          }
        }
      }
    for (int e = 0; e < n_query; e++) xbar_.data()[own + e] += query_bar_[e];
    if (layer.attention == Attention::BILINEAR) return;
    // e = f exp(s): dE/dlog f = dE/ds, d log f / dr = -6 r / (r_c^2 (1 - r^2 / r_c^2))
    const double reach = model.cutoff * model.cutoff;
    for (std::size_t at = 0; at < n_groups; at++) {
      Vec sum{};
      for (int h = 0; h < heads; h++) sum += load(bar + (at * heads + h) * WIDTH);
      const Group &group = groups_[begin + at];
      const Vec rest = envelope_root(group), along = select(Vec{}, rest, -6.0 * sum * group.r / (reach * rest), Vec{});
      slopes_[begin + at].x += along * group.u[0];
      slopes_[begin + at].y += along * group.u[1];
      slopes_[begin + at].z += along * group.u[2];
    }
  }
};

}    // namespace etnpot

#endif
