// SPDX-License-Identifier: BSD-3-Clause
// Part of etnpot: makes the pair style etn loadable by 'plugin load'. See docs/lammps.md.
//
// The binary interface of C++ classes follows the version of LAMMPS. ETN_LAMMPS_VERSION (a date, YYYYMMDD) and
// ETN_LAMMPS_DATE (as LAMMPS writes it) are those of the LAMMPS whose headers this was compiled with. Before anything else
// they are compared with the running LAMMPS, through its C interface, which does not change.

#include "pair_etn.h"

#include "library.h"
#include "lmptype.h"

#include <string>

#if __has_include("lammpsplugin.h")
#include "lammpsplugin.h"
#else
// The wheel has no such header: the same layout, declared here.
extern "C" {
typedef struct {
  const char *version, *style, *name, *info, *author;
  union {
    void *(*v1)(void *);
    void *(*v2)(void *, int, char **);
  } creator;
  void *handle;
} lammpsplugin_t;
typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);
}
#endif

static LAMMPS_NS::Pair *make_pair_etn(LAMMPS_NS::LAMMPS *lmp)
{
  return new LAMMPS_NS::PairETN(lmp);
}

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  const int running = lammps_version(lmp);
  if (running != ETN_LAMMPS_VERSION) {
    const std::string message = "The plugin of pair style etn was built for LAMMPS " + std::to_string(ETN_LAMMPS_VERSION) +
        ", but this is LAMMPS " + std::to_string(running) + "; build it again for this one: 'etnpot lammps --build'";
    lammps_error(lmp, LMP_ERROR_ALL, message.c_str());
    return;
  }
  if (lammps_extract_setting(lmp, "tagint") != static_cast<int>(sizeof(LAMMPS_NS::tagint)) ||
      lammps_extract_setting(lmp, "imageint") != static_cast<int>(sizeof(LAMMPS_NS::imageint)) ||
      lammps_extract_setting(lmp, "bigint") != static_cast<int>(sizeof(LAMMPS_NS::bigint))) {
    lammps_error(lmp, LMP_ERROR_ALL,
                 "The plugin of pair style etn was built for other sizes of integers than this LAMMPS has; build it again with "
                 "the same one of -DLAMMPS_SMALLBIG, -DLAMMPS_BIGBIG: 'etnpot lammps --build --flags ...'");
    return;
  }
  lammpsplugin_t plugin;
  plugin.version = ETN_LAMMPS_DATE;
  plugin.style = "pair";
  plugin.name = "etn";
  plugin.info = "equivariant tensor network potentials of etnpot";
  plugin.author = "etnpot developers";
  plugin.creator.v1 = reinterpret_cast<decltype(plugin.creator.v1)>(&make_pair_etn);
  plugin.handle = handle;
  reinterpret_cast<lammpsplugin_regfunc>(regfunc)(&plugin, lmp);
}
