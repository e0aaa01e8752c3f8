// How kernels whose invocations or groups own items one for one are spread over a grid
// (shaders/grid.glsl, group_index() of shaders/each.glsl).
#ifndef QN_GRID_H
#define QN_GRID_H

#include "op.h"

// Invocations per group of a kernel that has both forms and no wish of its own.
static inline uint32_t qn_grid_lanes(const qn_device_info *dev)
{
    return dev->kernel_class == QN_CLASS_FLAT ? dev->subgroup_size : 64;
}

// At least this many groups, over x and then y.
static inline void qn_grid_spread(const qn_device_info *dev, uint64_t groups, uint32_t out[3])
{
    out[0] = groups < dev->max_groups ? (uint32_t)groups : dev->max_groups;
    out[1] = qn_div_up(groups, out[0]);
    out[2] = 1;
}

// Lanes with four columns each over x, blocks of `block` rows over y; *block is made larger where
// the device would not take as many groups.
static inline void qn_grid_columns(const qn_device_info *dev, uint64_t columns, uint64_t rows,
                                   uint32_t *block, uint32_t out[3])
{
    uint64_t most = dev->max_groups < 65535 ? dev->max_groups : 65535;
    if (qn_div_up(rows, *block) > most) *block = qn_div_up(rows, most);
    out[0] = qn_div_up(columns, (uint64_t)qn_grid_lanes(dev) * 4);
    out[1] = qn_div_up(rows, *block);
    out[2] = 1;
}

// One invocation for each item.
static inline void qn_grid_items(const qn_device_info *dev, uint64_t items, uint32_t out[3])
{
    qn_grid_spread(dev, qn_div_up(items, qn_grid_lanes(dev)), out);
}

#endif
