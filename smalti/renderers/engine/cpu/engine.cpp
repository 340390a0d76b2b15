// The engine's C interface, as ctypes calls it (smalti/renderers/engine/library.py mirrors every struct and function here).
// Functions return 0, or a code that library.py turns into an error; nothing throws across this border.
#include "composite_stage.h"
#include "gaussian_stage.h"

using namespace smalti;

#define SMALTI_API extern "C" __attribute__((visibility("default")))

namespace {

enum Status { kFine = 0, kOutOfMemory = 1, kTooManyIntersections = 2, kUnknownKind = 3 };
enum Kind { kGaussian = 0 };

struct Drawable {
    int kind;
    const void* input;  // GaussianInput
};

struct Options {
    real transmittance_min;
    int smooth, absolute;
};

struct Summary {
    int skipped, slots, tiles_x, tiles_y;
    long long intersections;
};

template <class Body>
int guarded(const Body& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

std::vector<KindRange> kind_ranges(const Plan& plan, const Drawable* drawables, int count, bool statistics, const Options& options) {
    std::vector<KindRange> ranges;
    int first = 0;
    for (int k = 0; k < count; k++) {
        const auto& in = *static_cast<const GaussianInput*>(drawables[k].input);
        KindFunctions functions = gaussian_functions(plan.channels, statistics, options.smooth != 0, options.absolute != 0);
        // Neighbouring drawables of one kind are one range: their records lie in one array.
        if (ranges.empty())
            ranges.push_back({functions, plan.screens.data(), first, in.count});
        else
            ranges.back().count += in.count;
        first += in.count;
    }
    return ranges;
}

}  // namespace

SMALTI_API int smalti_version() { return 1; }
SMALTI_API int smalti_real_size() { return (int)sizeof(real); }
SMALTI_API int smalti_lanes() { return kLanes; }
SMALTI_API void smalti_set_threads(int n) { set_thread_count(n); }
SMALTI_API int smalti_get_threads() { return thread_count(); }
SMALTI_API long long smalti_arena_bytes() { return arena_bytes().load(); }
SMALTI_API Plan* smalti_plan_new() { return new (std::nothrow) Plan; }
SMALTI_API void smalti_plan_free(Plan* plan) { delete plan; }

// Project, cull, colour, sort and bin all drawables; ids run over them in order.
SMALTI_API int smalti_prepare(Plan* plan, const Drawable* drawables, int count, const CameraValues* camera, const Options* options, Summary* summary) {
    return guarded([&]() -> int {
        plan->count = plan->skipped = 0;
        for (int k = 0; k < count; k++) {
            if (drawables[k].kind != kGaussian) return kUnknownKind;
            const auto& in = *static_cast<const GaussianInput*>(drawables[k].input);
            plan->count += in.count;
            plan->channels = gaussian_channels(in);
        }
        plan->width = camera->width, plan->height = camera->height;
        plan->tiles_x = (camera->width + kTile - 1) / kTile, plan->tiles_y = (camera->height + kTile - 1) / kTile;
        plan->transmittance_min = options->transmittance_min;
        plan->smooth = options->smooth != 0;
        const size_t n = plan->count;
        plan->screens.resize(n), plan->depths.resize(n), plan->radii.resize(n), plan->footprints.resize(n);
        plan->values.resize(n * plan->channels);
        int first = 0;
        for (int k = 0; k < count; k++) {
            const auto& in = *static_cast<const GaussianInput*>(drawables[k].input);
            gaussian_project_all(*plan, in, *camera, first);
            first += in.count;
        }
        gaussian_spans(*plan);
        first = 0;
        for (int k = 0; k < count; k++) {
            const auto& in = *static_cast<const GaussianInput*>(drawables[k].input);
            gaussian_channels_all(*plan, in, *camera, first);
            first += in.count;
        }
        number_slots(*plan);
        if (!bin_primitives(*plan)) return kTooManyIntersections;
        *summary = {plan->skipped, plan->slots, plan->tiles_x, plan->tiles_y, plan->intersections};
        return kFine;
    });
}

// Copies of what the projection decided: visible, radii, depths [n].
SMALTI_API void smalti_visibility(const Plan* plan, unsigned char* visible, real* radii, real* depths) {
    for (int k = 0; k < plan->count; k++) {
        visible[k] = plan->footprints[k].x0 < plan->footprints[k].x1;
        radii[k] = plan->radii[k];
        depths[k] = plan->depths[k];
    }
}

SMALTI_API int smalti_forward(Plan* plan, const Drawable* drawables, int count, const Options* options, const Background* background, const ForwardOutput* out) {
    return guarded([&]() -> int {
        composite_forward(*plan, kind_ranges(*plan, drawables, count, out->first != nullptr, *options), *background, *out);
        return kFine;
    });
}

// `gradients[k]` belongs to drawable k; `absolute` [n, 2] or null; `camera` [kCameraGradient] doubles, added to, or null.
SMALTI_API int smalti_backward(Plan* plan, const Drawable* drawables, int count, const CameraValues* camera, const Options* options,
                               const Background* background, const BackwardInput* in, const GaussianGradient* gradients, real* absolute,
                               double* camera_gradient) {
    return guarded([&]() -> int {
        const auto ranges = kind_ranges(*plan, drawables, count, false, *options);
        const int moments = gaussian_functions(plan->channels, false, options->smooth != 0, options->absolute != 0).moments;
        composite_backward(*plan, ranges, moments, *background, *in);
        int first = 0;
        for (int k = 0; k < count; k++) {
            const auto& input = *static_cast<const GaussianInput*>(drawables[k].input);
            gaussian_backward_all(*plan, input, *camera, first, moments, gradients[k], absolute ? absolute + 2 * (long long)first : nullptr, camera_gradient);
            first += input.count;
        }
        return kFine;
    });
}
