// Entry points of the general compositor. Composed in Python (exact_source.py): the headers of the scene's kinds before this
// file, `SMALTI_EXACT_KINDS`, their structs, and what is to be drawn: `SMALTI_PICTURES`, `SMALTI_FRAGMENTS` or both.
#ifndef SMALTI_KERNEL
#define SMALTI_KERNEL(name, Parameters, threads, body) \
    extern "C" __global__ void __launch_bounds__(threads) name(const Parameters p) { body; }
#endif

namespace smalti {
typedef ExactKinds<SMALTI_EXACT_KINDS> SceneKinds;
}

SMALTI_KERNEL(exact_sizes, smalti::ExactSizesParameters, 256, (smalti::exact_sizes<smalti::SceneKinds>(p)))
SMALTI_KERNEL(exact_project, smalti::ExactProjectParameters, 256, (smalti::exact_project<smalti::SceneKinds>(p)))
SMALTI_KERNEL(exact_emit, smalti::ExactEmitParameters, 256, (smalti::exact_emit<smalti::SceneKinds>(p)))
SMALTI_KERNEL(tile_ranges, smalti::RangeParameters, 256, (smalti::tile_ranges(p)))
SMALTI_KERNEL(exact_count, smalti::ExactCountParameters, 256, (smalti::exact_count<smalti::SceneKinds>(p)))
#ifdef SMALTI_PICTURES
SMALTI_KERNEL(exact_forward, smalti::ExactForwardParameters, 256, (smalti::exact_forward<smalti::SceneKinds>(p)))
SMALTI_KERNEL(exact_backward, smalti::ExactBackwardParameters, 256, (smalti::exact_backward<smalti::SceneKinds>(p)))
#endif
#ifdef SMALTI_FRAGMENTS
SMALTI_KERNEL(exact_fragments, smalti::ExactFragmentsParameters, 256, (smalti::exact_fragments<smalti::SceneKinds>(p)))
SMALTI_KERNEL(exact_fragments_back, smalti::ExactFragmentsBackParameters, 256, (smalti::exact_fragments_back<smalti::SceneKinds>(p)))
#endif
SMALTI_KERNEL(exact_finish, smalti::ExactFinishParameters, 256, (smalti::exact_finish<smalti::SceneKinds>(p)))
