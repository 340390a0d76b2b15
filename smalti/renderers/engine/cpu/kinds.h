// The kinds built into the engine's general compositor, by name.
#pragma once
#include "kinds/box.h"
#include "kinds/gaussian_exact.h"
#include "plan.h"

namespace smalti {

inline const ExactKind* find_kind(const char* name) {
    static const ExactKind* const kinds[] = {
        &exact_kind<GaussianExact>("gaussian"),
        &exact_kind<BoxKind>("box"),
    };
    for (const ExactKind* kind : kinds)
        if (std::strcmp(kind->name, name) == 0) return kind;
    return nullptr;
}

}  // namespace smalti
