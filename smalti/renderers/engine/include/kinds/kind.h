// What a kind is to the general compositor (docs/kinds.md): a struct of static functions, written once for CPU and CUDA.
//
//   struct SomeKind {
//       struct Record { ... };                          // plain numbers: one primitive as seen by this camera
//       static constexpr bool kConstantChannels;        // one colour per primitive: `project` fills `values` and the
//                                                       // compositor sums its gradient; else the kind emits channels
//       static constexpr int kTableTensors;             // bits of the tensors whose gradient goes through bilinear or trilinear
//       static int moments(const KindInput&, const ViewOptions&);   // reals that emit_back sums per primitive
//       static void project(const KindInput&, const CameraValues&, const ViewOptions&, int k, Record&, Bounds&, real* values);
//       static bool touches(const Record&, real x0, real y0, real x1, real y1);  // pixel centres in the rectangle; may err on yes
//       template <class Sink> static void emit(const KindInput&, const CameraValues&, const Record&, int k, const Rays&, Sink&);
//       template <class Back> static void emit_back(const KindInput&, const CameraValues&, const Record&, int k, const Rays&, Back&, F* sums);
//       static void finish(const KindInput&, const CameraValues&, const ViewOptions&, int k, const Record&, const real* sums,
//                          const real* values_gradient, const KindGradient&, double* camera);
//   };
//
// A kind may have more, for the CPU alone (table.h): `kRuns`, if a primitive has one thin event at most and its channels are
// constant, and `kAtKey`, if events lie at Bounds::nearest, whatever the order (exact_run.h); `blocks`, faster than to ask `touches`
// block by block; `project_lanes` and `finish_lanes`, a primitive per lane (gaussian_exact.h).
//
// `project` and `finish` are scalar, one primitive at a time. `emit` and `emit_back` see a block of pixels in lanes; emit_back calls
// the same mathematics and takes the gradient of its events in the order in which emit gave them.
// A Sink has:   int channels;  bool wants_local;  const real* (none)
//               void thin(F z, F alpha, const F* channels);                 // alpha 0 where the ray misses; channels null if constant
//               void thick(F z0, F z1, F tau, const F* channels, bool chained);  // tau 0 where it misses; chained: begins where the
//                                                                             // event before it (of this primitive) ended
//               void local(const F* coordinates3, const F* normal3);          // about the event just given, if wants_local
// Gradients of lanes that missed are to be ignored. Lanes that miss still give finite z's, near to where the neighbours' hits are: they keep the order of a block the same in all lanes.
// A Back has:   const EventGradient& next();                                  // of the next event
//               void bilinear(int tensor, const int* base, const int* step_x, const int* step_y, F fx, F fy, const F* gradient, int channels);
//               void trilinear(int tensor, const long long* base, const int* step_x, step_y, step_z, F fx, F fy, F fz, const F* gradient, int channels);
//               // adds gradient x weights to KindGradient::tensors[tensor]; `base` counts reals, < 0: this lane adds nothing;
//               // corner (i, j) lies at base + i step_x + j step_y and has weight (i ? fx : 1 - fx) (j ? fy : 1 - fy)
#pragma once
#include "../camera.h"

namespace smalti {

constexpr int kKindTensors = 16, kKindIndices = 4, kKindIntegers = 16, kKindNumbers = 8;

// One drawable as Python hands it over (Drawable.inputs(); mirrored in library.py).
struct KindInput {
    const real* tensors[kKindTensors];  // null where absent
    const int* indices[kKindIndices];
    real numbers[kKindNumbers];
    long long sizes[kKindTensors];      // in reals
    int integers[kKindIntegers];
    int count;
};

// Where gradients go; null where not wanted. Zero before `finish`, which writes the rows of drawn primitives.
struct KindGradient {
    real* tensors[kKindTensors];
    real *screen, *absolute;  // [n, 2] of projected centres, pixels (sum; sum of absolute values); kinds with a centre write them
};

struct ViewOptions {
    int channels;  // colour 3, features, normal 3: all but depth
    int features;  // of the picture; a kind with fewer leaves the rest at 0
    int normals;   // offset of the normal among the channels, or 0: not asked for
    int centre;    // order = centre
    int smooth;    // test mode: thresholds as ramps
    int absolute;  // KindGradient::absolute is wanted
};

// Where a primitive can be seen.
struct Bounds {
    bool usable = true;   // false: skipped and counted
    bool drawn = false;   // false: culled
    real depth = 0;       // camera z of its centre: the key of order = centre
    real nearest = 0;     // no event has a smaller z (widened against rounding)
    real left = 0, top = 0, right = 0, bottom = 0;  // pixels, of all pixel centres it can touch
};

// A block of pixels: their centres, and the ray (u, v, 1) through each in camera axes.
struct Rays {
    F x, y, u, v;
};

// d loss / d event, per lane.
struct EventGradient {
    F value;          // alpha of a thin, tau of a thick event
    F z0, z1;         // thin: z0 alone
    const F* channels;  // null if the kind's channels are constant
    const F* local;   // 3, or null (fragments only)
};

constexpr real kAlphaMin = real(1.0 / 255.0), kAlphaMax = real(0.99);

}  // namespace smalti
