// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot: the LAMMPS pair style etn. See docs/lammps.md, also about the licence of what is compiled from it.
//
//     E = sum_i ( E0[z_i] + f(train(v_i)) + u_i ),    f_i += dE_i/dr_ij,   f_j -= dE_i/dr_ij
//
// with dE_i/dr_ij from etn_kernel.h and etn_short_range.h (f, and the nuclear repulsion u_i), i an owned atom and j owned or ghost: forces on ghosts go home by LAMMPS' reverse
// communication, so that newton must be on. The virial of the pair (i, j) is -r_ij (x) dE_i/dr_ij. Of it, vatom gives one
// half to i and one to j; cvatom gives all of it to j, which is what the heat flux of a many-body potential takes.
//
// A potential with layers (etn_layers.h) has dE/dr_ij of the whole energy in place of dE_i/dr_ij. What layers pass on goes to
// ghosts by a forward communication of this pair style for each layer of messages, derivatives by it go home by a reverse one; sums
// over all atoms by MPI_Allreduce. No heat flux follows from pairs then, and there is no cvatom.

#include "pair_etn.h"

#include "etn_kernel.h"
#include "etn_layers.h"
#include "etn_model.h"
#include "etn_short_range.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include <cerrno>
#include <cstring>

using namespace LAMMPS_NS;

// Rows of atoms, through the pack and unpack functions of the pair style.
struct PairETN::Ghosts : etnpot::Exchange {
  PairETN &pair;
  explicit Ghosts(PairETN &pair_in) : pair(pair_in) {}
  void to_ghosts(double *rows, int width) override
  {
    set(rows, width);
    pair.comm->forward_comm(&pair, width);
  }
  void from_ghosts(double *rows, int width) override
  {
    set(rows, width);
    pair.comm->reverse_comm(&pair, width);
  }
  void sum(double *numbers, int n) override
  {
    const std::vector<double> own(numbers, numbers + n);
    MPI_Allreduce(own.data(), numbers, n, MPI_DOUBLE, MPI_SUM, pair.world);
  }

 private:
  void set(double *rows, int width)
  {
    pair.exchanged = rows;
    pair.exchanged_width = width;
  }
};

PairETN::PairETN(LAMMPS *lmp) : Pair(lmp), cutoff(0.0), grade_flag(0), exchanged(nullptr), exchanged_width(0)
{
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  single_enable = 0;
  centroidstressflag = CENTROID_AVAIL;
}

PairETN::~PairETN()
{
  if (copymode) return;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

void PairETN::settings(int narg, char ** /*arg*/)
{
  if (narg != 0)
    error->all(FLERR, "pair_style etn takes no arguments; got {}. The file and the elements go to pair_coeff", narg);
}

void PairETN::allocate()
{
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 1; i < n; i++)
    for (int j = 1; j < n; j++) setflag[i][j] = 0;
  map = new int[n];
  allocated = 1;
}

// The content of a file, read by the first rank for all.
std::string PairETN::read_file(const char *name)
{
  std::string content;
  std::string reason;
  if (comm->me == 0) {
    errno = 0;
    FILE *stream = utils::open_potential(name, lmp, nullptr);
    if (!stream)
      reason = errno ? std::strerror(errno) : "no such file";
    else {
      char piece[65536];
      std::size_t n;
      while ((n = std::fread(piece, 1, sizeof(piece), stream)) > 0) content.append(piece, n);
      if (std::ferror(stream)) reason = "it cannot be read to its end";
      std::fclose(stream);
    }
  }
  bigint sizes[2] = {static_cast<bigint>(content.size()), static_cast<bigint>(reason.size())};
  MPI_Bcast(sizes, 2, MPI_LMP_BIGINT, 0, world);
  content.resize(sizes[0]);
  reason.resize(sizes[1]);
  if (sizes[1]) {
    MPI_Bcast(&reason[0], static_cast<int>(sizes[1]), MPI_CHAR, 0, world);
    error->all(FLERR,
               "pair_coeff etn: cannot open the potential file {}: {}. Check the path, which starts from the directory where "
               "LAMMPS runs; 'etnpot lammps POTENTIAL --out DIR' writes the file",
               name, reason);
  }
  if (sizes[0] > MAXSMALLINT) error->all(FLERR, "pair_coeff etn: {} is too large to be a potential", name);
  if (sizes[0]) MPI_Bcast(&content[0], static_cast<int>(sizes[0]), MPI_CHAR, 0, world);
  return content;
}

void PairETN::coeff(int narg, char **arg)
{
  if (!allocated) allocate();
  if (narg != 3 + atom->ntypes)
    error->all(FLERR,
               "pair_coeff etn: expected '* * FILE' and one element (or NULL) for each of the {} atom types, got {} words after "
               "the file",
               atom->ntypes, narg > 3 ? narg - 3 : 0);
  if (std::strcmp(arg[0], "*") != 0 || std::strcmp(arg[1], "*") != 0)
    error->all(FLERR, "pair_coeff etn: the first two words must be * *, got {} {}", arg[0], arg[1]);
  if (std::strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, "pair style etn works in units metal (eV, Angstrom); this input has units {}", update->unit_style);

  const std::string content = read_file(arg[2]);
  try {
    auto next = std::make_unique<const etnpot::Model>(etnpot::read_model(content));
    kernel.reset();
    layered.reset();
    short_range.reset();
    model = std::move(next);
  } catch (const etnpot::FileError &fault) {
    error->all(FLERR, "pair_coeff etn: cannot use {}: {}", arg[2], fault.what());
  }
  if (model->layers.empty())
    kernel = std::make_unique<etnpot::Kernel>(*model);
  else
    layered = std::make_unique<etnpot::Layered>(*model);
  short_range = std::make_unique<etnpot::ShortRange>(*model);
  cutoff = model->cutoff;
  comm_forward = comm_reverse = layered ? layered->widest() : 0;
  centroidstressflag = layered ? CENTROID_NOTAVAIL : CENTROID_AVAIL;

  map_element2type(narg - 3, arg + 3);
  species.assign(atom->ntypes + 1, -1);
  for (int type = 1; type <= atom->ntypes; type++) {
    const char *const symbol = arg[2 + type];
    if (std::strcmp(symbol, "NULL") == 0) continue;
    species[type] = model->type_of(symbol);
    if (species[type] < 0) {
      std::string known;
      for (const std::string &name : model->species) known += " " + name;
      error->all(FLERR, "pair_coeff etn: atom type {} is mapped to {}, which {} does not know; its elements are{}", type, symbol,
                 arg[2], known);
    }
  }
}

void PairETN::init_style()
{
  if (!force->newton_pair)
    error->all(FLERR, "pair style etn needs forces on ghost atoms: say 'newton on' before the box is made");
  neighbor->add_request(this, NeighConst::REQ_FULL);
  // a hybrid style asked its parts before they knew their files
  Pair *const whole = force->pair;
  if (layered && whole && whole != this) {
    whole->comm_forward = MAX(whole->comm_forward, comm_forward);
    whole->comm_reverse = MAX(whole->comm_reverse, comm_reverse);
    whole->centroidstressflag = MAX(whole->centroidstressflag, centroidstressflag);
  }
}

double PairETN::init_one(int i, int j)
{
  if (setflag[i][j] == 0)
    error->all(FLERR, "pair style etn: atom types {} and {} have no coefficients; pair_coeff * * names all types", i, j);
  return cutoff;
}

// The region of ghost atoms is known now.
void PairETN::setup()
{
  const double ghosts = comm->get_comm_cutoff();
  if (ghosts < cutoff)
    error->all(FLERR,
               "pair style etn: the potential reaches {} Angstrom, but ghost atoms only {}; say 'comm_modify cutoff {}' or more",
               cutoff, ghosts, cutoff + neighbor->skin);
}

// The neighbours of atom ii of the list within the cutoff: how many, and the smallest squared distance where it is below that of
// the cutoff.
inline int PairETN::find_neighbours(int ii, etnpot::Candidates &near, double &closest) const
{
  const int *const type = atom->type;
  const double *const *const x = atom->x;
  const double cutoff2 = cutoff * cutoff;
  const int i = list->ilist[ii];
  const int *const neighbours = list->firstneigh[i];
  const int n_neighbours = list->numneigh[i];
  const double xi = x[i][0], yi = x[i][1], zi = x[i][2];
  near.resize(n_neighbours + 1);
  closest = cutoff2;
  int n = 0;
  for (int jj = 0; jj < n_neighbours; jj++) {    // every one is written, those within the cutoff stay
    const int j = neighbours[jj] & NEIGHMASK;
    const double dx = x[j][0] - xi, dy = x[j][1] - yi, dz = x[j][2] - zi;
    const int s = species[type[j]];
    near.x[n] = dx;
    near.y[n] = dy;
    near.z[n] = dz;
    near.type[n] = s;
    near.index[n] = j;
    const double r2 = dx * dx + dy * dy + dz * dz;
    closest = r2 < closest ? r2 : closest;
    n += (r2 < cutoff2) & (s >= 0);
  }
  return n;
}

void PairETN::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);

  using etnpot::LANES;
  const int *const type = atom->type;
  const bool pair_virial = vflag_atom || cvflag_atom || (vflag_global && !vflag_fdotr);
  if (grade_flag) grade.assign(atom->nmax, 0.0);
  if (layered) {
    compute_layered(pair_virial);
    if (vflag_fdotr) virial_fdotr_compute();
    return;
  }

  int centres[LANES];
  int n_lanes = 0;
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii];
    if (species[type[i]] >= 0) {
      double closest;
      const int n = find_neighbours(ii, kernel->candidates, closest);
      short_range->clear(n_lanes);
      if (closest < short_range->reach2()) short_range->hold(n_lanes, species[type[i]], n, kernel->candidates);
      kernel->set_lane(n_lanes, species[type[i]], n);
      centres[n_lanes++] = i;
    }
    if (n_lanes == LANES || (n_lanes > 0 && ii == list->inum - 1)) {
      double energy[LANES];
      kernel->run(n_lanes, energy);
      if (grade_flag) {
        double grades[LANES];
        kernel->grades(n_lanes, grades);
        for (int b = 0; b < n_lanes; b++) grade[centres[b]] = grades[b];
      }
      for (int b = 0; b < n_lanes; b++) {
        const int centre = centres[b];
        const double own = short_range->energy(b, energy[b]);
        add_energy(centre, own + model->reference_energies[species[type[centre]]]);
        kernel->gradient(b);
        short_range->finish(b, *kernel);
        scatter(centre, *kernel, pair_virial);
      }
      n_lanes = 0;
    }
  }

  if (vflag_fdotr) virial_fdotr_compute();
}

// All atoms in one go. Every rank takes part in every exchange, also one without atoms.
void PairETN::compute_layered(bool pair_virial)
{
  const int *const type = atom->type;
  const double reach2 = short_range->reach2();
  etnpot::Candidates near;
  etnpot::PairDerivatives pairs;
  Ghosts ghosts(*this);
  double closest;
  layered->begin(atom->nlocal + atom->nghost);
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii], z = species[type[i]];
    if (z < 0) continue;
    const int n = find_neighbours(ii, near, closest);
    short_range->clear(0);
    if (closest < reach2) short_range->hold(0, z, n, near);
    layered->add(i, z, n, near);
  }
  short_range->clear(0);
  std::vector<double> grades(grade_flag ? layered->n_centres() : 0);
  const auto take_energy = [&](std::size_t centre, double x) {
    const double own = short_range->energy(0, x);
    add_energy(layered->atom(centre), own + model->reference_energies[layered->type(centre)]);
    return short_range->slope(0);
  };
  layered->energies(ghosts, take_energy, grade_flag ? grades.data() : nullptr);
  for (std::size_t centre = 0; centre < grades.size(); centre++) grade[layered->atom(centre)] = grades[centre];
  layered->derivatives(ghosts);
  std::size_t centre = 0;
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii], z = species[type[i]];
    if (z < 0) continue;
    layered->take(centre++, pairs);
    if (reach2 > 0.0) {
      const int n = find_neighbours(ii, near, closest);
      if (closest < reach2) {
        short_range->clear(0);
        short_range->hold(0, z, n, near);
        add_energy(i, short_range->repulsion(0));
        short_range->finish(0, pairs);
      }
    }
    scatter(i, pairs, pair_virial);
  }
}

void PairETN::add_energy(int i, double energy)
{
  if (!eflag_either) return;
  if (eflag_global) eng_vdwl += energy;
  if (eflag_atom) eatom[i] += energy;
}

// Forces, and where it is asked for the virial, of the pairs of centre i.
void PairETN::scatter(int i, const etnpot::PairDerivatives &k, bool pair_virial)
{
  double **const f = atom->f;
  double fx = 0.0, fy = 0.0, fz = 0.0;
  for (int s = 0; s < k.n_slots; s++) {
    const int j = k.index[s];
    if (j < 0) continue;
    const double gx = k.gx[s], gy = k.gy[s], gz = k.gz[s];
    fx += gx;
    fy += gy;
    fz += gz;
    f[j][0] -= gx;
    f[j][1] -= gy;
    f[j][2] -= gz;
    if (!pair_virial) continue;
    const double rx = k.px[s], ry = k.py[s], rz = k.pz[s];
    // xx yy zz xy xz yz, then yx zx zy: r first, force second
    const double w[9] = {-rx * gx, -ry * gy, -rz * gz, -rx * gy, -rx * gz, -ry * gz, -ry * gx, -rz * gx, -rz * gy};
    if (vflag_global && !vflag_fdotr)
      for (int c = 0; c < 6; c++) virial[c] += w[c];
    if (vflag_atom)
      for (int c = 0; c < 6; c++) {
        const double half = c < 3 ? 0.5 * w[c] : 0.25 * (w[c] + w[c + 3]);
        vatom[i][c] += half;
        vatom[j][c] += half;
      }
    if (cvflag_atom)
      for (int c = 0; c < 9; c++) cvatom[j][c] += w[c];
  }
  f[i][0] += fx;
  f[i][1] += fy;
  f[i][2] += fz;
}

// 'fix ID all pair N etn grade 1' asks for grades in the steps that it needs them.
void *PairETN::extract(const char *name, int &dim)
{
  dim = 0;
  if (std::strcmp(name, "grade_flag") != 0) return nullptr;
  if (!model || !model->grade_entries)
    error->all(FLERR,
               "pair style etn: the potential has no extrapolation grades (or pair_coeff comes after this command); add them with "
               "'etnpot calibrate POTENTIAL --train DATA' and export it again");
  return &grade_flag;
}

void *PairETN::extract_peratom(const char *name, int &ncol)
{
  ncol = 0;
  if (std::strcmp(name, "grade") != 0) return nullptr;
  if (static_cast<int>(grade.size()) < atom->nmax) grade.resize(atom->nmax, 0.0);
  return grade.data();
}

double PairETN::memory_usage()
{
  double bytes = Pair::memory_usage();
  if (kernel) bytes += kernel->memory();
  if (layered) bytes += layered->memory();
  return bytes;
}

int PairETN::pack_forward_comm(int n, int *list, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  const std::size_t width = exchanged_width;
  for (int k = 0; k < n; k++) std::memcpy(buf + k * width, exchanged + list[k] * width, width * sizeof(double));
  return static_cast<int>(n * width);
}

void PairETN::unpack_forward_comm(int n, int first, double *buf)
{
  const std::size_t width = exchanged_width;
  std::memcpy(exchanged + first * width, buf, n * width * sizeof(double));
}

int PairETN::pack_reverse_comm(int n, int first, double *buf)
{
  const std::size_t width = exchanged_width;
  std::memcpy(buf, exchanged + first * width, n * width * sizeof(double));
  return static_cast<int>(n * width);
}

void PairETN::unpack_reverse_comm(int n, int *list, double *buf)
{
  const std::size_t width = exchanged_width;
  for (int k = 0; k < n; k++)
    for (std::size_t c = 0; c < width; c++) exchanged[list[k] * width + c] += buf[k * width + c];
}
