// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. Reads exported potentials from standard input, one after the other (eight bytes of length, little-endian, then
// the content), and answers each in one line: "correct" after energies and forces of a small cluster, or "refused: REASON".
// Anything else, such as another exception or a report of a sanitizer, is a failure of the reader.

#include "etn_kernel.h"

#include <cstdint>
#include <iostream>
#include <string>

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
      etnpot::Kernel kernel(etnpot::read_model(content));
      const int n = 5, n_species = static_cast<int>(kernel.model.species.size());
      for (int b = 0; b < 2; b++) {
        kernel.candidates.resize(n);
        int near = 0;
        for (int p = 0; p < n; p++) {
          const double x = 1.1 + 0.3 * p + 0.2 * b, y = 0.4 * p - 0.9, z = 0.7 - 0.25 * p;
          if (x * x + y * y + z * z >= kernel.model.cutoff * kernel.model.cutoff) continue;
          kernel.candidates.x[near] = x;
          kernel.candidates.y[near] = y;
          kernel.candidates.z[near] = z;
          kernel.candidates.type[near] = (p + b) % n_species;
          kernel.candidates.index[near] = p;
          near++;
        }
        kernel.set_lane(b, b % n_species, near);
      }
      double energy[etnpot::LANES];
      kernel.run(2, energy);
      for (int b = 0; b < 2; b++) kernel.gradient(b);
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
