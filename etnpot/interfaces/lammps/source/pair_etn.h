/* -*- c++ -*- SPDX-License-Identifier: BSD-3-Clause */
// Part of etnpot: the LAMMPS pair style etn. See docs/lammps.md, also about the licence of what is compiled from it.

#ifdef PAIR_CLASS
// clang-format off
PairStyle(etn,PairETN);
// clang-format on
#else

#ifndef LMP_PAIR_ETN_H
#define LMP_PAIR_ETN_H

#include "pair.h"

#include <memory>
#include <string>
#include <vector>

namespace etnpot {
struct Candidates;
class Kernel;
class Layered;
struct Model;
struct PairDerivatives;
class ShortRange;
}

namespace LAMMPS_NS {

// pair_style etn
// pair_coeff * * FILE SYMBOL|NULL ...       (one per atom type)
class PairETN : public Pair {
 public:
  explicit PairETN(class LAMMPS *);
  ~PairETN() override;
  void compute(int, int) override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void setup() override;
  double memory_usage() override;
  void *extract(const char *, int &) override;
  void *extract_peratom(const char *, int &) override;
  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

 private:
  struct Ghosts;    // how ranks exchange what layers need

  std::unique_ptr<const etnpot::Model> model;
  std::unique_ptr<etnpot::Kernel> kernel;      // of a potential without layers
  std::unique_ptr<etnpot::Layered> layered;    // of one with layers
  std::unique_ptr<etnpot::ShortRange> short_range;
  double cutoff;
  int grade_flag;               // whether grades are wanted: set by 'fix pair'
  std::vector<double> grade;    // of every owned atom
  double *exchanged;           // rows of atoms that are sent or received, and how long each is
  int exchanged_width;
  std::vector<int> species;    // of every atom type, 1-based: index in the potential, -1 for NULL

  void allocate();
  std::string read_file(const char *name);
  int find_neighbours(int ii, etnpot::Candidates &near, double &closest) const;
  void compute_layered(bool pair_virial);
  void add_energy(int i, double energy);
  void scatter(int i, const etnpot::PairDerivatives &pairs, bool pair_virial);
};

}    // namespace LAMMPS_NS

#endif
#endif
