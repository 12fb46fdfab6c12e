// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. Reads exported potentials from standard input, one after the other (eight bytes of length, little-endian, then
// the content), and answers each in one line: "correct" after energies and forces of a small cluster, or "refused: REASON".
// Anything else, such as another exception or a report of a sanitizer, is a failure of the reader.

#include "etn_kernel.h"
#include "etn_layers.h"

#include <cstdint>
#include <iostream>
#include <string>

namespace {

constexpr int N_ATOMS = 5;

// A cluster without ghosts.
struct Alone : etnpot::Exchange {
  void to_ghosts(double *, int) override {}
  void from_ghosts(double *, int) override {}
  void sum(double *, int) override {}
};

int type_of(const etnpot::Model &model, int atom)
{
  return atom % static_cast<int>(model.species.size());
}

// Neighbours of an atom within the cutoff.
int neighbours(const etnpot::Model &model, int atom, etnpot::Candidates &near)
{
  near.resize(N_ATOMS);
  int n = 0;
  for (int p = 0; p < N_ATOMS; p++) {
    if (p == atom) continue;
    const double x = 1.1 * (p - atom), y = 0.4 * (p * p - atom * atom), z = 0.25 * (p % 2 - atom % 2);
    if (x * x + y * y + z * z >= model.cutoff * model.cutoff) continue;
    near.x[n] = x;
    near.y[n] = y;
    near.z[n] = z;
    near.type[n] = type_of(model, p);
    near.index[n] = p;
    n++;
  }
  return n;
}

void run(const etnpot::Model &model)
{
  etnpot::Kernel kernel(model);
  for (int i = 0; i < 2; i++) kernel.set_lane(i, type_of(model, i), neighbours(model, i, kernel.candidates));
  double energy[etnpot::LANES];
  kernel.run(2, energy);
  double grade[etnpot::LANES];
  if (model.grade_entries) kernel.grades(2, grade);
  for (int i = 0; i < 2; i++) kernel.gradient(i);
}

void run_layered(const etnpot::Model &model)
{
  etnpot::Layered layered(model);
  etnpot::Candidates near;
  etnpot::PairDerivatives pairs;
  Alone alone;
  layered.begin(N_ATOMS);
  for (int i = 0; i < N_ATOMS; i++) layered.add(i, type_of(model, i), neighbours(model, i, near), near);
  double grade[N_ATOMS];
  layered.energies(alone, [](std::size_t, double) { return 1.0; }, model.grade_entries ? grade : nullptr);
  layered.derivatives(alone);
  for (int i = 0; i < N_ATOMS; i++) layered.take(i, pairs);
}

}    // namespace

int main()
{
  unsigned char prefix[8];
  while (std::fread(prefix, 1, 8, stdin) == 8) {
    std::uint64_t length = 0;
    for (int k = 7; k >= 0; k--) length = length << 8 | prefix[k];
    std::string content(length, '\0');
    if (std::fread(&content[0], 1, length, stdin) != length) return 3;
    std::string answer = "correct";
    try {
      const etnpot::Model model = etnpot::read_model(content);
      if (model.layers.empty())
        run(model);
      else
        run_layered(model);
    } catch (const etnpot::FileError &fault) {
      answer = std::string("refused: ") + fault.what();
    } catch (const std::exception &fault) {
      answer = std::string("exception: ") + fault.what();
    }
    for (char &c : answer)
      if (c == '\n' || c == '\r') c = ' ';
    std::cout << answer << std::endl;
    if (answer.compare(0, 10, "exception:") == 0) return 4;
  }
  return 0;
}
