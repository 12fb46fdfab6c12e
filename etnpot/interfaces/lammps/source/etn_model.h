// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot. This file needs nothing of LAMMPS.
//
// A potential as `etnpot lammps` exports it: a text file of named tables, checked to the last byte.
//
//     # UNITS: metal  ...
//     etnpot-lammps VERSION crc32 DIGEST bytes LENGTH
//     NAME integer|real|text COUNT
//     value value ...
//     ...
//     end
//
// DIGEST (CRC-32) and LENGTH are those of everything after the second line. docs/lammps.md lists the tables.

#ifndef ETN_MODEL_H
#define ETN_MODEL_H

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace etnpot {

constexpr int FORMAT_VERSION = 2;
// No integer of a file is larger; products of two such fit into 64 bits.
constexpr long LARGEST = 100000000;

// What is wrong with a file and what to do about it.
struct FileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One non-zero Clebsch-Gordan coefficient; which m3 it belongs to, `Path::m3_first` says.
struct Coupling {
  int m1, m2;
  double value;
};

// One block of one core: x[l3 m3 a3] += A[a1 a2 a3] C x[l1 m1 a1] v[l2 m2 a2].
struct Path {
  int left, n1;        // first row of the left irrep in the bond vectors, its rank
  int feature, n2;     // first row of the irrep in the features, its rank
  int right, n3;       // first row of the right irrep in the bond vectors, its rank
  int weight;          // first entry of the block in the weights
  int components;      // 2 l3 + 1
  int coupling;        // first coefficient
  std::vector<int> m3_first;    // of every m3, counted from `coupling`; one more at the end
};

struct Model {
  std::vector<std::string> species;    // chemical symbols, in the order of the types
  std::vector<double> reference_energies;
  // radial functions, harmonics and features
  int l_max, n_radial, n_channels, n_features;
  bool cosine, envelope;    // coordinate, cutoff function
  double r_min, cutoff, width, p0;
  int power;
  std::vector<double> recurrence;    // [3][n]
  std::vector<double> norms;         // [lm]
  std::vector<int> channels;         // [l]
  std::vector<int> feature_first, feature_rank;    // [l]
  std::vector<double> radial_table;                // [z_i][z_j][n][lc]
  // short range
  std::vector<int> charges;                      // [z]
  std::vector<double> inner, outer, repulsion;    // [z_i][z_j], [z_i][z_j], 11 constants; empty without a repulsion
  bool bounded;
  double low, high, bound_width;
  // train
  int n_rows, n_head;    // rows of all bonds together, rank of bond 0
  std::vector<Path> paths;
  std::vector<Coupling> couplings;
  std::vector<double> weights;
  // extrapolation grades, where the file has them: paths of the core, first entry of it, G [q][r], m G [z][r]
  int grade_begin = 0, grade_end = 0, grade_entries = 0, grade_directions = 0;
  std::vector<double> grade, grade_center;

  int type_of(const std::string &symbol) const
  {
    for (std::size_t z = 0; z < species.size(); z++)
      if (species[z] == symbol) return static_cast<int>(z);
    return -1;
  }
};

namespace detail {

  inline std::uint32_t crc32(const char *bytes, std::size_t n)
  {
    std::uint32_t crc = 0xFFFFFFFFu;
    for (std::size_t i = 0; i < n; i++) {
      crc ^= static_cast<unsigned char>(bytes[i]);
      for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return ~crc;
  }

  // The named tables of a file whose digest has been checked.
  class Tables {
   public:
    Tables(const char *begin, const char *end) : at_(begin), end_(end)
    {
      for (std::string name = word(); name != "end"; name = word()) {
        const std::string kind = word();
        const long count = integer();
        if (count < 0 || count > end_ - begin)
          damaged("table '" + name + "' cannot have " + std::to_string(count) + " entries");
        if (kind == "text") {
          std::vector<std::string> &values = texts_[name];    // there even when it is empty
          for (long i = 0; i < count; i++) values.push_back(word());
        } else if (kind == "integer") {
          std::vector<int> &values = integers_[name];
          for (long i = 0; i < count; i++) {
            const long value = integer();
            if (value < -LARGEST || value > LARGEST) damaged("'" + std::to_string(value) + "' is larger than any of its integers");
            values.push_back(static_cast<int>(value));
          }
        } else if (kind == "real") {
          std::vector<double> &values = reals_[name];
          for (long i = 0; i < count; i++) values.push_back(real());
        } else
          damaged("table '" + name + "' is of the unknown kind '" + kind + "'");
      }
    }

    const std::vector<std::string> &texts(const std::string &name) { return entry(texts_, name); }
    const std::vector<int> &integers(const std::string &name) { return entry(integers_, name); }
    const std::vector<double> &reals(const std::string &name) { return entry(reals_, name); }
    bool has_reals(const std::string &name) const { return reals_.count(name) > 0; }

    [[noreturn]] static void damaged(const std::string &reason)
    {
      throw FileError("it is damaged: " + reason + "; write it again with 'etnpot lammps'");
    }

   private:
    const char *at_, *end_;
    std::map<std::string, std::vector<std::string>> texts_;
    std::map<std::string, std::vector<int>> integers_;
    std::map<std::string, std::vector<double>> reals_;

    template <class T> const T &entry(const std::map<std::string, T> &tables, const std::string &name)
    {
      auto found = tables.find(name);
      if (found == tables.end()) damaged("there is no table '" + name + "'");
      return found->second;
    }

    static bool blank(char c) { return c == ' ' || c == '\n'; }

    std::string word()
    {
      while (at_ < end_ && blank(*at_)) at_++;
      const char *begin = at_;
      while (at_ < end_ && !blank(*at_)) at_++;
      if (begin == at_) damaged("it ends too early");
      return std::string(begin, at_);
    }

    long integer()
    {
      const std::string text = word();
      char *stop;
      const long value = std::strtol(text.c_str(), &stop, 10);
      if (*stop) damaged("'" + text + "' is no integer");
      return value;
    }

    double real()
    {
      const std::string text = word();
      char *stop;
      const double value = std::strtod(text.c_str(), &stop);
      if (*stop || !(value - value == 0.0)) damaged("'" + text + "' is no finite number");
      return value;
    }
  };

}    // namespace detail

// The model in the content of a file; throws FileError.
inline Model read_model(const std::string &content)
{
  using detail::Tables;
  const std::string magic = "etnpot-lammps ";
  if (content.size() > 16 && content.find("etnpot-potential") != std::string::npos && content.compare(0, 1, "#") != 0)
    throw FileError("it is a potential file of etnpot itself, which LAMMPS does not read; export it with "
                    "'etnpot lammps POTENTIAL --out DIR' and give the exported file");
  const std::size_t second = content.find('\n') + 1;    // 0 without a line end
  const std::size_t body = content.find('\n', second) + 1;
  if (!second || content[0] != '#' || content.compare(second, magic.size(), magic) != 0)
    throw FileError("it is not a potential exported by 'etnpot lammps POTENTIAL --out DIR'");
  int version = 0;
  unsigned int digest = 0;
  unsigned long length = 0;
  const std::string line = content.substr(second, (body ? body - 1 : content.size()) - second);
  const int found = std::sscanf(line.c_str() + magic.size(), "%d crc32 %x bytes %lu", &version, &digest, &length);
  if (found >= 1 && version != FORMAT_VERSION)
    throw FileError("it has format version " + std::to_string(version) + ", but this plugin reads version " +
                    std::to_string(FORMAT_VERSION) +
                    "; export the potential again, or rebuild the plugin ('etnpot lammps --build'), with the same etnpot");
  if (found != 3 || !body) Tables::damaged("its second line is '" + line + "'");
  if (content.size() - body != length)
    Tables::damaged("it has " + std::to_string(content.size() - body) + " bytes of tables instead of " +
                    std::to_string(length));
  if (detail::crc32(content.data() + body, length) != digest)
    Tables::damaged("its content does not have the digest that was stored with it");

  Tables tables(content.data() + body, content.data() + content.size());
  const auto require = [](bool truth, const char *what) {
    if (!truth) Tables::damaged(std::string("its table '") + what + "' does not fit the others");
  };
  Model model;
  model.species = tables.texts("species");
  model.reference_energies = tables.reals("reference_energies");
  const std::size_t n_species = model.species.size();
  require(n_species > 0 && model.reference_energies.size() == n_species, "reference_energies");

  const std::vector<int> &codes = tables.integers("radial_codes");
  require(codes.size() == 3, "radial_codes");
  model.cosine = codes[0] == 1;
  model.envelope = codes[1] == 1;
  model.power = codes[2];
  const std::vector<double> &constants = tables.reals("radial_constants");
  require(constants.size() == 4, "radial_constants");
  model.r_min = constants[0];
  model.cutoff = constants[1];
  model.width = constants[2];
  model.p0 = constants[3];
  require(codes[0] / 2 == 0 && codes[1] / 2 == 0 && model.power >= 2 && model.power <= 1000 && model.cutoff > model.r_min, "radial_codes");
  model.recurrence = tables.reals("radial_recurrence");
  model.n_radial = static_cast<int>(model.recurrence.size() / 3);
  model.channels = tables.integers("channels");
  model.l_max = static_cast<int>(model.channels.size()) - 1;
  model.n_channels = 0;
  for (int c : model.channels) {
    require(c >= 0 && c <= LARGEST - model.n_channels, "channels");
    model.n_channels += c;
  }
  model.norms = tables.reals("harmonics_norms");
  const std::size_t n_l = model.channels.size();
  require(n_l > 0 && model.norms.size() == n_l * n_l, "harmonics_norms");
  model.feature_first = tables.integers("feature_first");
  model.feature_rank = tables.integers("feature_rank");
  require(model.feature_first.size() == n_l && model.feature_rank.size() == n_l, "feature_first");
  model.radial_table = tables.reals("radial_table");
  require(model.n_radial > 0 && model.recurrence.size() % 3 == 0 &&
              model.n_channels <= static_cast<long>(model.radial_table.size()) && model.radial_table.size() == n_species * n_species * model.n_radial * model.n_channels,
          "radial_table");

  model.charges = tables.integers("repulsion_charges");
  model.inner = tables.reals("repulsion_inner");
  model.outer = tables.reals("repulsion_outer");
  model.repulsion = tables.reals("repulsion_constants");
  require(model.charges.size() == n_species && model.repulsion.size() == 11, "repulsion_constants");
  require(model.outer.size() == n_species * n_species || model.outer.empty(), "repulsion_outer");
  require(model.inner.size() == model.outer.size(), "repulsion_inner");
  for (std::size_t pair = 0; pair < model.outer.size(); pair++)
    require(0.0 < model.inner[pair] && model.inner[pair] < model.outer[pair] && model.outer[pair] <= model.cutoff,
            "repulsion_outer");
  const std::vector<double> &bounds = tables.reals("energy_bounds");
  model.bounded = !bounds.empty();
  require(!model.bounded || (bounds.size() == 3 && bounds[0] < bounds[1] && bounds[2] > 0.0), "energy_bounds");
  model.low = model.bounded ? bounds[0] : 0.0;
  model.high = model.bounded ? bounds[1] : 0.0;
  model.bound_width = model.bounded ? bounds[2] : 1.0;

  const std::vector<int> &sizes = tables.integers("train_sizes");
  require(sizes.size() == 3, "train_sizes");
  model.n_features = sizes[0];
  model.n_rows = sizes[1];
  model.n_head = sizes[2];
  for (long l = 0; l <= model.l_max; l++)
    require(model.feature_first[l] >= 0 && model.channels[l] <= model.feature_rank[l] &&
                model.feature_first[l] + 2 * l * model.feature_rank[l] + model.channels[l] <= model.n_features,
            "feature_first");
  model.weights = tables.reals("weights");
  // every copy of an irrep has a weight or a channel, so that a file of this length bounds what is allocated for it
  const long copies = static_cast<long>(model.weights.size() + model.radial_table.size()) + 1;
  require(model.n_features > 0 && model.n_features <= 64 * copies && model.n_rows > 0 && model.n_rows <= 64 * copies, "train_sizes");
  const std::vector<int> &index = tables.integers("coupling_index");
  const std::vector<double> &value = tables.reals("coupling_value");
  require(index.size() == 3 * value.size(), "coupling_index");
  for (std::size_t z = 0; z < value.size(); z++) model.couplings.push_back({index[3 * z], index[3 * z + 1], value[z]});

  const std::vector<int> &rows = tables.integers("paths");
  require(rows.size() % 10 == 0, "paths");
  for (std::size_t p = 0; p < rows.size(); p += 10) {
    const int *row = &rows[p];
    Path path{row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[9], row[7], {}};
    const int stop = row[8];
    require(path.coupling >= 0 && stop >= path.coupling && static_cast<std::size_t>(stop) <= value.size(), "paths");
    require(path.n1 > 0 && path.n2 > 0 && path.n3 > 0 && path.components > 0, "paths");
    require(path.left >= 0 && path.feature >= 0 && path.right >= 0, "paths");
    const long n1 = path.n1, n2 = path.n2, n3 = path.n3, n_weights = static_cast<long>(model.weights.size());
    require(path.right + path.components * n3 <= model.n_rows, "paths");
    require(n1 * n2 <= n_weights && path.weight >= 0 && path.weight + n1 * n2 * n3 <= n_weights, "paths");
    int z = path.coupling;
    for (int m3 = 0; m3 < path.components; m3++) {
      path.m3_first.push_back(z - path.coupling);
      for (; z < stop && index[3 * z + 2] == m3; z++) {
        require(index[3 * z] >= 0 && path.left + (index[3 * z] + 1) * n1 <= model.n_rows, "coupling_index");
        require(index[3 * z + 1] >= 0 && path.feature + (index[3 * z + 1] + 1) * n2 <= model.n_features, "coupling_index");
      }
    }
    path.m3_first.push_back(z - path.coupling);
    require(z == stop, "coupling_index");
    model.paths.push_back(path);
  }
  require(model.n_head > 0 && model.n_head <= model.n_rows && n_species * model.n_head <= model.weights.size(), "train_sizes");
  if (tables.has_reals("grade")) {
    const std::vector<int> &range = tables.integers("grade_paths");
    require(range.size() == 2 && range[0] >= 0 && range[0] < range[1] &&
                static_cast<std::size_t>(range[1]) <= model.paths.size(),
            "grade_paths");
    model.grade_begin = range[0];
    model.grade_end = range[1];
    const int first = model.paths[range[0]].weight;
    for (int p = range[0]; p < range[1]; p++) {
      const Path &path = model.paths[p];
      require(path.weight == first + model.grade_entries, "grade_paths");
      model.grade_entries += path.n1 * path.n2 * path.n3;
    }
    model.grade = tables.reals("grade");
    model.grade_center = tables.reals("grade_center");
    model.grade_directions = static_cast<int>(model.grade_center.size() / n_species);
    require(model.grade_directions > 0 && model.grade_center.size() == n_species * model.grade_directions, "grade_center");
    require(model.grade.size() == static_cast<std::size_t>(model.grade_entries) * model.grade_directions, "grade");
  }
  return model;
}

}    // namespace etnpot

#endif
