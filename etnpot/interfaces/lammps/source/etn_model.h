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

// Files of versions between these two are read; version 2 has no layers.
constexpr int OLDEST_VERSION = 2, FORMAT_VERSION = 3;
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

// Cores between a bond of scalars and the last bond.
struct TrainModel {
  int n_features, n_rows, n_head, n_last;    // length of the features, rows of all bonds together, of bond 0, of the last one
  std::vector<Path> paths;
  std::vector<Coupling> couplings;
  std::vector<double> weights;    // head [z][a], then the cores
};

enum class Attention { NONE = 0, BILINEAR = 1, NORMALISED = 2 };

// One layer before the last train: see etn_layers.h. Components c are those that it passes on.
struct Layer {
  bool pool;
  Attention attention;
  int heads, width, queries;     // first row of the queries in the last bond of the train; keys come after them
  TrainModel train;
  std::vector<int> order;        // place of every feature of the train among all features
  int n_carried, n_copies;
  std::vector<int> row, copy, head;    // [c]: row in the last bond, copy of its irrep among all copies, head of attention
  // u[feature + a] += C A[lm, carried + a] for all a < count; of a pool, lm = 0 and A is the mean
  struct Term {
    int lm, carried, feature, count;
    double value;
  };
  std::vector<Term> terms;
  std::vector<double> radial_table;    // [z_i][z_j][n][l copy]; of messages
};

struct Model {
  std::vector<std::string> species;    // chemical symbols, in the order of the types
  std::vector<double> reference_energies;
  // radial functions, harmonics and features
  int l_max, n_radial, n_channels;
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
  TrainModel train;
  // layers, and where there are some, the length of the local features and the place of every feature of the last train
  // among all: local ones, then those of every layer
  std::vector<Layer> layers;
  int n_local = 0;
  std::vector<int> order;
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

namespace detail {

  inline void require(bool truth, const std::string &what)
  {
    if (!truth) Tables::damaged("its table '" + what + "' does not fit the others");
  }

  // The train in the tables of a prefix. `n_copies` bounds what is allocated: every copy of an irrep that the file claims has
  // an entry in one of its tables.
  inline TrainModel read_train(Tables &tables, const std::string &prefix, std::size_t n_species, int n_last, long n_copies)
  {
    TrainModel train;
    const std::string sizes_name = prefix + "train_sizes", paths_name = prefix + "paths", index_name = prefix + "coupling_index";
    const std::vector<int> &sizes = tables.integers(sizes_name);
    require(sizes.size() == 3, sizes_name);
    train.n_features = sizes[0];
    train.n_rows = sizes[1];
    train.n_head = sizes[2];
    train.n_last = n_last;
    train.weights = tables.reals(prefix + "weights");
    const long copies = static_cast<long>(train.weights.size()) + n_copies + 1;
    require(train.n_features > 0 && train.n_features <= 64 * copies && train.n_rows > 0 && train.n_rows <= 64 * copies, sizes_name);
    require(n_last > 0 && n_last <= train.n_rows, sizes_name);
    const std::vector<int> &index = tables.integers(index_name);
    const std::vector<double> &value = tables.reals(prefix + "coupling_value");
    require(index.size() == 3 * value.size(), index_name);
    for (std::size_t z = 0; z < value.size(); z++) train.couplings.push_back({index[3 * z], index[3 * z + 1], value[z]});

    const std::vector<int> &rows = tables.integers(paths_name);
    require(rows.size() % 10 == 0, paths_name);
    for (std::size_t p = 0; p < rows.size(); p += 10) {
      const int *row = &rows[p];
      Path path{row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[9], row[7], {}};
      const int stop = row[8];
      require(path.coupling >= 0 && stop >= path.coupling && static_cast<std::size_t>(stop) <= value.size(), paths_name);
      require(path.n1 > 0 && path.n2 > 0 && path.n3 > 0 && path.components > 0, paths_name);
      require(path.left >= 0 && path.feature >= 0 && path.right >= 0, paths_name);
      const long n1 = path.n1, n2 = path.n2, n3 = path.n3, n_weights = static_cast<long>(train.weights.size());
      require(path.right + path.components * n3 <= train.n_rows, paths_name);
      require(n1 * n2 <= n_weights && path.weight >= 0 && path.weight + n1 * n2 * n3 <= n_weights, paths_name);
      int z = path.coupling;
      for (int m3 = 0; m3 < path.components; m3++) {
        path.m3_first.push_back(z - path.coupling);
        for (; z < stop && index[3 * z + 2] == m3; z++) {
          require(index[3 * z] >= 0 && path.left + (index[3 * z] + 1) * n1 <= train.n_rows, index_name);
          require(index[3 * z + 1] >= 0 && path.feature + (index[3 * z + 1] + 1) * n2 <= train.n_features, index_name);
        }
      }
      path.m3_first.push_back(z - path.coupling);
      require(z == stop, index_name);
      train.paths.push_back(path);
    }
    require(train.n_head > 0 && train.n_head <= train.n_rows && n_species * train.n_head <= train.weights.size(), sizes_name);
    return train;
  }

  // Places of the features of a train: each of those below `n_places` once.
  inline std::vector<int> read_order(Tables &tables, const std::string &name, std::size_t n_places)
  {
    const std::vector<int> &order = tables.integers(name);
    std::vector<bool> seen(n_places, false);
    require(order.size() == n_places, name);
    for (int place : order) {
      require(place >= 0 && static_cast<std::size_t>(place) < n_places && !seen[place], name);
      seen[place] = true;
    }
    return order;
  }

  // Layer k, counted from 1, on the first `n_features` of all features; adds those that it appends.
  inline Layer read_layer(Tables &tables, int k, const Model &model, std::size_t &n_features)
  {
    const std::string prefix = "layer_" + std::to_string(k) + "_";
    const std::size_t n_species = model.species.size(), n_l = model.channels.size();
    const std::vector<int> &kind = tables.integers(prefix + "kind");
    require(kind.size() == 8 && kind[0] / 2 == 0 && kind[0] >= 0 && kind[1] >= 0 && kind[1] < 3, prefix + "kind");
    Layer layer{};
    layer.pool = kind[0] == 1;
    layer.attention = static_cast<Attention>(kind[1]);
    layer.heads = kind[2];
    layer.width = kind[3];
    layer.queries = kind[4];
    layer.n_copies = kind[6];
    const int n_last = kind[5], n_new = kind[7];
    const bool attends = layer.attention != Attention::NONE;
    require(layer.heads >= attends && layer.width >= attends && layer.heads <= 1000 && layer.width <= 1000, prefix + "kind");
    layer.order = read_order(tables, prefix + "order", n_features);
    layer.train = read_train(tables, prefix, n_species, n_last, static_cast<long>(n_features));
    require(static_cast<std::size_t>(layer.train.n_features) == n_features, prefix + "train_sizes");
    require(layer.queries >= 0 && layer.queries <= n_last && layer.queries + 2L * layer.heads * layer.width <= n_last, prefix + "kind");
    const std::vector<int> &carried = tables.integers(prefix + "carried");
    require(!carried.empty() && carried.size() % 3 == 0, prefix + "carried");
    layer.n_carried = static_cast<int>(carried.size() / 3);
    require(layer.n_copies > 0 && layer.n_copies <= layer.n_carried, prefix + "kind");
    for (std::size_t c = 0; c < carried.size(); c += 3) {
      require(carried[c] >= 0 && carried[c] < n_last && carried[c + 1] >= 0 && carried[c + 1] < layer.n_copies && carried[c + 2] >= 0 &&
                  (carried[c + 2] < layer.heads || (!attends && carried[c + 2] == 0)),
              prefix + "carried");
      layer.row.push_back(carried[c]);
      layer.copy.push_back(carried[c + 1]);
      layer.head.push_back(carried[c + 2]);
    }
    const std::vector<int> &index = tables.integers(prefix + "terms");
    const std::vector<double> &value = tables.reals(prefix + "term_value");
    require(index.size() == 4 * value.size() && n_new >= 0 && static_cast<std::size_t>(n_new) <= 64 * (index.size() + n_features), prefix + "terms");
    const long n_lm = layer.pool ? 1 : static_cast<long>(n_l * n_l);
    for (std::size_t t = 0; t < value.size(); t++) {
      const int *row = &index[4 * t];
      require(row[0] >= 0 && row[0] < n_lm && row[1] >= 0 && row[2] >= 0 && row[3] > 0 && row[1] <= layer.n_carried - row[3] &&
                  row[2] <= n_new - row[3],
              prefix + "terms");
      layer.terms.push_back({row[0], row[1], static_cast<int>(n_features) + row[2], row[3], value[t]});
    }
    if (!layer.pool) {
      layer.radial_table = tables.reals(prefix + "radial_table");
      require(layer.radial_table.size() == n_species * n_species * model.n_radial * n_l * layer.n_copies, prefix + "radial_table");
    }
    n_features += n_new;
    return layer;
  }

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
  if (found >= 1 && (version < OLDEST_VERSION || version > FORMAT_VERSION))
    throw FileError("it has format version " + std::to_string(version) + ", but this plugin reads versions " +
                    std::to_string(OLDEST_VERSION) + " to " + std::to_string(FORMAT_VERSION) +
                    "; export the potential again, or rebuild the plugin ('etnpot lammps --build'), with the same etnpot");
  if (found != 3 || !body) Tables::damaged("its second line is '" + line + "'");
  if (content.size() - body != length)
    Tables::damaged("it has " + std::to_string(content.size() - body) + " bytes of tables instead of " +
                    std::to_string(length));
  if (detail::crc32(content.data() + body, length) != digest)
    Tables::damaged("its content does not have the digest that was stored with it");

  Tables tables(content.data() + body, content.data() + content.size());
  using detail::require;
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

  model.train = detail::read_train(tables, "", n_species, 1, static_cast<long>(model.radial_table.size()));
  const int n_layers = version < 3 ? 0 : tables.integers("layers").size() == 1 ? tables.integers("layers")[0] : -1;
  require(n_layers >= 0 && n_layers <= 1000, "layers");
  model.n_local = n_layers ? tables.integers("layers_local").size() == 1 ? tables.integers("layers_local")[0] : 0 : model.train.n_features;
  require(model.n_local > 0 && model.n_local <= model.train.n_features, "layers_local");
  for (long l = 0; l <= model.l_max; l++)
    require(model.feature_first[l] >= 0 && model.channels[l] <= model.feature_rank[l] &&
                model.feature_first[l] + 2 * l * model.feature_rank[l] + model.channels[l] <= model.n_local,
            "feature_first");
  std::size_t n_features = model.n_local;
  for (int k = 1; k <= n_layers; k++) model.layers.push_back(detail::read_layer(tables, k, model, n_features));
  if (n_layers) {
    require(static_cast<std::size_t>(model.train.n_features) == n_features, "train_sizes");
    model.order = detail::read_order(tables, "order", n_features);
  }
  if (tables.has_reals("grade")) {
    const std::vector<int> &range = tables.integers("grade_paths");
    require(range.size() == 2 && range[0] >= 0 && range[0] < range[1] &&
                static_cast<std::size_t>(range[1]) <= model.train.paths.size(),
            "grade_paths");
    model.grade_begin = range[0];
    model.grade_end = range[1];
    const int first = model.train.paths[range[0]].weight;
    for (int p = range[0]; p < range[1]; p++) {
      const Path &path = model.train.paths[p];
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
