// Fragments on CUDA: the nearest events of every pixel, and the way back from them (fragments.py says what they are).
#pragma once
#include "exact_back_cuda.h"

namespace smalti {

// The `most` nearest events of every pixel, [h, w, most, ...]; the CPU's are the same (cpu/exact_fragments.h).
struct ExactFragmentValues {
    int *primitive, *count;  // -1 at first; count [h, w]: all events that the ray met
    unsigned char* thick;
    real *z0, *z1, *value, *channels, *local, *normal;
    real* left;              // [h, w] transmittance behind all events
};

struct ExactFragmentsParameters {
    ExactScene scene;
    ExactTiles tiles;
    ExactFragmentValues out;
    int most;
    int* overflown;
};

struct ExactFragmentsBackParameters {
    ExactScene scene;
    ExactTiles tiles;
    ExactFragmentValues in;  // cotangents of z0, z1, value, channels and local; null where there are none
    ExactSums sums;
    int most;
    int* overflown;
};

template <class Kinds>
SM_FN void exact_fragments(const ExactFragmentsParameters& p) {
    const ExactPixel at(p.scene, p.tiles);
    if (!at.pixel.inside) return;
    const ExactMemory own(p.tiles, at);
    const int channels = p.scene.view.channels;
    const ExactFragmentValues& out = p.out;
    ExactBlock block(exact_options(p.scene, true, false), own.memory, own.events, true);
    block.wants_local = true;
    exact_composite<Kinds>(p.scene, p.tiles, at, block);
    int met = 0;
    block.for_events([&](int, int e) {
        const int j = met++;
        if (j >= p.most) return;
        const Event& event = block.event(e);
        const long long place = at.pixel.index * p.most + j;
        out.primitive[place] = event.id, out.thick[place] = event.thick != 0;
        out.z0[place] = event.z0, out.z1[place] = event.z1, out.value[place] = event.value;
        const F* local = block.locals(e);
        for (int c = 0; c < 3; c++) out.local[3 * place + c] = local[c], out.normal[3 * place + c] = local[3 + c];
        for (int c = 0; c < channels; c++) out.channels[channels * place + c] = block.channel_of(e, c);
    });
    out.count[at.pixel.index] = met, out.left[at.pixel.index] = block.T;
    if (block.overflown()) *p.overflown = 1;
}

template <class Kinds>
SM_FN void exact_fragments_back(const ExactFragmentsBackParameters& p) {
    const ExactPixel at(p.scene, p.tiles);
    const ExactMemory own(p.tiles, at);
    const int channels = p.scene.view.channels;
    const ExactFragmentValues& in = p.in;
    ExactBlock block(exact_options(p.scene, true, false), own.memory, own.events, true);
    block.begin(-1);
    if (at.pixel.inside && own.events) {
        exact_composite<Kinds>(p.scene, p.tiles, at, block);
        int met = 0;
        block.for_events([&](int, int e) {
            const int j = met++;
            if (j >= p.most) return;
            const long long place = at.pixel.index * p.most + j;
            Event& event = block.event(e);
            if (in.value) event.g_value = in.value[place];
            if (in.z0) event.g_z0 = in.z0[place];
            if (in.z1) (event.thick ? event.g_z1 : event.g_z0) += in.z1[place];
            if (in.channels)
                for (int c = 0; c < channels; c++) block.channel_gradient(e)[c] = in.channels[channels * place + c];
            // The coordinates themselves were not asked for this time: their place holds what they feel.
            if (in.local)
                for (int c = 0; c < 3; c++) block.locals(e)[c] = in.local[3 * place + c];
        });
        if (block.overflown()) *p.overflown = 1;
    }
    exact_tile_back<Kinds>(p.scene, p.tiles, p.sums, at, block, true);
}

}  // namespace smalti
