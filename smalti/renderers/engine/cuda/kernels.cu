// Entry points of the CUDA engine. The text before this file is composed in Python (kernel_source.py): the headers of the
// scene's kinds, `SMALTI_KIND_LIST` (their structs, instantiated for `smooth` and `absolute`), `SMALTI_KIND_KERNELS` (their own
// kernels) and `SMALTI_VARIANTS` (X(name, channels, smooth) for each tile kernel that is wanted).
// Every kernel takes one struct by value, so that launching needs no list of argument types.
#ifndef SMALTI_KERNEL
#define SMALTI_KERNEL(name, Parameters, threads, body) \
    extern "C" __global__ void __launch_bounds__(threads) name(const Parameters p) { body; }
#endif

namespace smalti {
template <bool smooth, bool absolute>
struct Scene {
    typedef KindList<SMALTI_KIND_LIST> Kinds;
};
typedef Scene<false, false>::Kinds PlainKinds;
static_assert(sizeof(PlainKinds::Record) == SMALTI_RECORD_BYTES, "kernel_source.py knows another record");
static_assert(PlainKinds::kMoments == SMALTI_MOMENTS, "kernel_source.py knows another number of moments");
static_assert(Scene<false, true>::Kinds::kMoments == SMALTI_MOMENTS_ABSOLUTE, "kernel_source.py knows another number of moments");
}  // namespace smalti

SMALTI_KIND_KERNELS

SMALTI_KERNEL(emit_entries, smalti::EmitParameters, 256, (smalti::emit_entries<smalti::PlainKinds>(p)))
SMALTI_KERNEL(tile_ranges, smalti::RangeParameters, 256, (smalti::tile_ranges(p)))
SMALTI_KERNEL(sum_entries, smalti::SumParameters, 256, (smalti::sum_entries(p)))

#define SMALTI_TILE_KERNELS(name, channels, smooth)                                                                           \
    SMALTI_KERNEL(tile_forward_##name, smalti::TileForwardParameters, 256,                                                    \
                  (smalti::tile_forward<smalti::Scene<smooth, false>::Kinds, channels, false>(p)))                            \
    SMALTI_KERNEL(tile_statistics_##name, smalti::TileForwardParameters, 256,                                                 \
                  (smalti::tile_forward<smalti::Scene<smooth, false>::Kinds, channels, true>(p)))                             \
    SMALTI_KERNEL(tile_backward_##name, smalti::TileBackwardParameters, 256,                                                  \
                  (smalti::tile_backward<smalti::Scene<smooth, false>::Kinds, channels>(p)))                                  \
    SMALTI_KERNEL(tile_backward_absolute_##name, smalti::TileBackwardParameters, 256,                                         \
                  (smalti::tile_backward<smalti::Scene<smooth, true>::Kinds, channels>(p)))
SMALTI_VARIANTS(SMALTI_TILE_KERNELS)
