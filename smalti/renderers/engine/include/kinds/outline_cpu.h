// Which blocks of a tile an outline reaches: the ellipse's rows are EWA's (gaussian.h), all slabs at once.
#pragma once
#include "gaussian_cpu.h"
#include "splat_pose.h"

namespace smalti {

// Bits of the blocks of the tile at (x0, y0); errs on yes by a few thousandths of a pixel.
SM_FN BlockMask outline_blocks(const Outline& o, int x0, int y0) {
    if (o.l11 == 0) return kAllBlocks;
    return GaussianKind<false, false>::blocks({o.x, o.y, o.l11, o.l21, o.l22, real(1) - kLog2Of255, o.inv_l11, o.y_right}, x0, y0);
}

}  // namespace smalti
