// The kinds built into the engine's general compositor, by name.
#pragma once
#include "kinds/box.h"
#include "kinds/gaussian_exact.h"
#include "kinds/gaussian_ray.h"
#include "kinds/neural.h"
#include "kinds/surfel.h"
#include "kinds/triangle.h"
#include "plan.h"

namespace smalti {

inline const ExactKind* find_kind(const char* name) {
    static const ExactKind* const kinds[] = {
        &exact_kind<GaussianExact>("gaussian"),
        &exact_kind<GaussianRayKind>("gaussian_ray"),
        &exact_kind<SurfelKind>("surfel"),
        &exact_kind<NeuralKind>("neural"),
        &exact_kind<TriangleKind>("triangle"),
        &exact_kind<BoxKind>("box"),
    };
    for (const ExactKind* kind : kinds)
        if (std::strcmp(kind->name, name) == 0) return kind;
    return nullptr;
}

}  // namespace smalti
