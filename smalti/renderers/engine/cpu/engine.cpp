// The engine's C interface, as ctypes calls it (smalti/renderers/engine/library.py mirrors every struct and function here).
// Functions return 0, or a code that library.py turns into an error; nothing throws across this border.
#include "adam.h"
#include "composite_stage.h"
#include "exact_fragments.h"
#include "gaussian_stage.h"
#include "image_loss.h"
#include "kinds.h"
#include "kinds/outside_table.h"

using namespace smalti;

#define SMALTI_API extern "C" __attribute__((visibility("default")))

namespace {

enum Status { kFine = 0, kOutOfMemory = 1, kTooManyIntersections = 2, kUnknownKind = 3, kUnexpected = 4 };
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
    int skipped;
    long long intersections;
};

template <class Body>
int guarded(const Body& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    } catch (...) {
        return kUnexpected;
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

SMALTI_API int smalti_version() { return 5; }
SMALTI_API int smalti_real_size() { return (int)sizeof(real); }
SMALTI_API void smalti_set_threads(int n) { set_thread_count(n); }
SMALTI_API int smalti_get_threads() { return thread_count(); }
SMALTI_API long long smalti_arena_bytes() { return arena_bytes().load(); }
SMALTI_API long long smalti_plan_bytes(const Plan* plan) { return plan->bytes(); }
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
        const size_t n = plan->count;
        plan->screens.resize(n), plan->depths.resize(n), plan->radii.resize(n), plan->footprints.resize(n);
        plan->values.resize(n * plan->channels);
        int first = 0;
        for (int k = 0; k < count; k++) {
            const auto& in = *static_cast<const GaussianInput*>(drawables[k].input);
            gaussian_project_all(*plan, in, *camera, first);
            first += in.count;
        }
        if (!gaussian_spans(*plan)) return kTooManyIntersections;
        first = 0;
        for (int k = 0; k < count; k++) {
            const auto& in = *static_cast<const GaussianInput*>(drawables[k].input);
            gaussian_channels_all(*plan, in, *camera, first);
            first += in.count;
        }
        if (!number_slots(*plan) || !bin_primitives(*plan, plan->depths.data())) return kTooManyIntersections;
        *summary = {plan->skipped, plan->intersections};
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
        std::lock_guard<std::mutex> lock(plan->backward);
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

// ---------------------------------------------------------------- the general compositor
struct ExactItem {
    const ExactKind* kind;
    const KindInput* input;
};

struct ExactSettings {
    ViewOptions view;
    real transmittance_min;
    int additive, depth;
};

// The table of a built-in kind, or null.
SMALTI_API const ExactKind* smalti_exact_kind(const char* name) { return find_kind(name); }
SMALTI_API int smalti_exact_kind_version() { return kKindVersion; }
// What kinds that were compiled apart hand their events to.
SMALTI_API const OutsideCalls* smalti_outside_calls() { return &outside_calls(); }

SMALTI_API int smalti_exact_prepare(Plan* plan, const ExactItem* items, int count, const CameraValues* camera, const ExactSettings* settings,
                                    Summary* summary) {
    return guarded([&]() -> int {
        plan->camera = *camera, plan->view = settings->view;
        plan->width = camera->width, plan->height = camera->height;
        plan->tiles_x = (camera->width + kTile - 1) / kTile, plan->tiles_y = (camera->height + kTile - 1) / kTile;
        plan->transmittance_min = settings->transmittance_min, plan->additive = settings->additive != 0;
        plan->drawables.clear();
        plan->count = 0;
        for (int k = 0; k < count; k++) {
            if (!items[k].kind || items[k].kind->version != kKindVersion) return kUnknownKind;
            auto d = std::make_unique<ExactDrawable>();
            d->kind = items[k].kind, d->in = *items[k].input, d->first = plan->count;
            plan->count += d->in.count;
            plan->drawables.push_back(std::move(d));
        }
        if (!exact_prepare(*plan)) return kTooManyIntersections;
        *summary = {plan->skipped, plan->intersections};
        return kFine;
    });
}

// `counts`: pixels whose events outgrew the nominal window; voxel lookups of boxes.
SMALTI_API int smalti_exact_forward(Plan* plan, const ExactSettings* settings, const Background* background, const ExactOutput* out, long long* counts) {
    return guarded([&]() -> int {
        exact_forward(*plan, settings->depth != 0, *background, *out);
        counts[0] = plan->wide_pixels, counts[1] = plan->lookups;
        return kFine;
    });
}

// `items` again: their tensors may lie elsewhere by now.
SMALTI_API int smalti_exact_backward(Plan* plan, const ExactItem* items, const ExactSettings* settings, const Background* background,
                                     const BackwardInput* in, const KindGradient* gradients, double* camera_gradient) {
    return guarded([&]() -> int {
        std::lock_guard<std::mutex> lock(plan->backward);
        for (size_t k = 0; k < plan->drawables.size(); k++) plan->drawables[k]->in = *items[k].input;
        exact_backward(*plan, settings->depth != 0, *background, *in, gradients, camera_gradient);
        return kFine;
    });
}

// The `most` nearest events per pixel of a prepared plan, and the way back from them.
SMALTI_API int smalti_exact_fragments(Plan* plan, int most, const FragmentValues* out) {
    return guarded([&]() -> int {
        exact_fragments(*plan, most, *out);
        return kFine;
    });
}

SMALTI_API int smalti_exact_fragments_backward(Plan* plan, const ExactItem* items, int most, const FragmentValues* in,
                                               const KindGradient* gradients, double* camera_gradient) {
    return guarded([&]() -> int {
        std::lock_guard<std::mutex> lock(plan->backward);
        for (size_t k = 0; k < plan->drawables.size(); k++) plan->drawables[k]->in = *items[k].input;
        exact_fragments_back(*plan, most, *in, gradients, camera_gradient);
        return kFine;
    });
}

SMALTI_API int smalti_image_loss(const ImageLossInput* in, real* gradient, double* loss) {
    return guarded([&]() -> int {
        *loss = image_loss(*in, gradient);
        return kFine;
    });
}

SMALTI_API int smalti_adam(real* parameter, const real* gradient, real* first, real* second, long long count, const AdamStep* step) {
    return guarded([&]() -> int {
        adam_update(parameter, gradient, first, second, count, *step);
        return kFine;
    });
}

// Benchmarks only: a plan from finished 2D Gaussians and tile lists, so that the compositor alone can be timed on somebody
// else's lists. conic [n,3] (xx, xy, yy), start [tiles + 1]. Channels are three colours.
SMALTI_API int smalti_plan_from_lists(Plan* plan, int n, int width, int height, const real* mean, const real* conic, const real* opacity,
                                      const real* colour, const int* start, const int* ids) {
    return guarded([&]() -> int {
        plan->count = n, plan->channels = 3, plan->width = width, plan->height = height;
        plan->tiles_x = (width + kTile - 1) / kTile, plan->tiles_y = (height + kTile - 1) / kTile;
        plan->transmittance_min = real(1e-4);
        const int tiles = plan->tiles_x * plan->tiles_y;
        plan->screens.resize(n), plan->footprints.resize(n), plan->values.resize((size_t)n * 3);
        std::memcpy(plan->values.data(), colour, (size_t)n * 3 * sizeof(real));
        for (int k = 0; k < n; k++) {
            const real a = conic[3 * k], b = conic[3 * k + 1], c = conic[3 * k + 2], det = a * c - b * b;
            const real l11 = kFactorScale * real_sqrt(a), l21 = kFactorScale * b / real_sqrt(a), l22 = kFactorScale * real_sqrt(det / a);
            const real lo = std::log2(opacity[k]), height_log = lo + kLog2Of255;
            const real root_h = height_log > 0 ? real_sqrt(height_log) : 0;
            // covariance xx = c / det, xy = -b / det
            plan->screens[k] = {mean[2 * k], mean[2 * k + 1], l11, l21, l22, lo, 1 / l11, -root_h * b / (real_sqrt(det * c) * kFactorScale)};
            plan->footprints[k] = {0, 32767, 0, 32767, 0};
        }
        std::memcpy(plan->tile_start.resize(tiles + 1), start, (tiles + 1) * sizeof(int));
        std::memcpy(plan->ids.resize(start[tiles]), ids, start[tiles] * sizeof(int));
        for (int t = 0; t < tiles; t++)
            for (int k = start[t]; k < start[t + 1]; k++) {
                Footprint& f = plan->footprints[ids[k]];
                const short x = (short)(t % plan->tiles_x), y = (short)(t / plan->tiles_x);
                f.x0 = std::min(f.x0, x), f.x1 = std::max(f.x1, short(x + 1));
                f.y0 = std::min(f.y0, y), f.y1 = std::max(f.y1, short(y + 1));
            }
        for (int k = 0; k < n; k++)
            if (plan->footprints[k].x1 == 0) plan->footprints[k] = {0, 0, 0, 0, 0};
        if (!number_slots(*plan)) return kTooManyIntersections;
        plan->intersections = start[tiles];
        return kFine;
    });
}

// Its forward and backward; `slot_sums` [n, 12] (six moments, three colours, padding) or null to leave the slots unsummed.
SMALTI_API int smalti_lists_forward(Plan* plan, real* picture, real* alpha) {
    return guarded([&]() -> int {
        const std::vector<KindRange> kinds = {{gaussian_functions(3, false, false, false), plan->screens.data(), 0, plan->count}};
        composite_forward(*plan, kinds, {nullptr, 0}, {picture, alpha, nullptr, nullptr, nullptr, nullptr, nullptr});
        return kFine;
    });
}

SMALTI_API int smalti_lists_backward(Plan* plan, const real* picture, const real* alpha, real* slot_sums) {
    return guarded([&]() -> int {
        const std::vector<KindRange> kinds = {{gaussian_functions(3, false, false, false), plan->screens.data(), 0, plan->count}};
        composite_backward(*plan, kinds, kGaussianMoments, {nullptr, 0}, {picture, alpha, nullptr});
        const int stride = slot_stride(kGaussianMoments, 3);
        parallel_ranges(plan->count, 4096, [&](int begin, int end, int, int) {
            for (int k = begin; k < end; k++) {
                real* out = slot_sums + (size_t)k * stride;
                for (int j = 0; j < stride; j++) out[j] = 0;
                const Footprint& f = plan->footprints[k];
                const real* slot = plan->slot_values.data() + (size_t)f.slot * stride;
                for (int s = slot_count(f); s > 0; s--, slot += stride)
                    for (int j = 0; j < stride; j++) out[j] += slot[j];
            }
        });
        return kFine;
    });
}
