// The general compositor's way back over its log. Included by exact.h.
#pragma once

namespace smalti {

SM_METHOD void ExactBlock::back_until(const F* cotangent, int end) {
    if (overflown()) return;  // an error on the host: the log may be shorter than the ranks
    const F tmin = splat(options_.transmittance_min), depth_cotangent = options_.depth ? cotangent[channels] : F{};
    F &gradient_density = gradient_density_, &pending = pending_;
    bool& was_open = was_open_;
    Store<F>& gradient_colour = gradient_colour_;
    while (back_at_ > end) {
        const int r = --back_at_;
        const Rank& rank = rank_at(r);
        back_log_ -= log_size(log_codes_[r] != 0);
        const F* log = &log_[back_log_];
        const bool opened = log_codes_[r] != 0;
        const F T0 = log[0], z = opened ? log[1] : F{};
        F T1 = T0, length = F{}, density = F{}, tau = F{};
        Absorption a = {};
        if (opened) {
            length = zero_unless(ge(log[2], tmin), rank.key - z);
            density = max_of(log[4], F{});
            tau = density * length;
            if (options_.additive) {
                T1 = T0 - min_of(tau, T0);
            } else {
                a = absorption<true>(tau, options_.depth);
                T1 = T0 * a.decay;
            }
        }
        // ---- the events of this rank
        bool has_z = false;
        auto take_begin = [&](int e, M mask) {
            Event& event = events_[e];
            F* g = channel_gradient(e);
            F g_density = gradient_density - event.g_value;
            for (int c = 0; c < channels; c++) {
                const F difference = gradient_colour[c] - g[c];
                g_density = fma(channel(event, c), difference, g_density);
                g[c] = select(mask, event.density * difference, g[c]);
            }
            const F inverse = splat(1) / (event.z1 - event.z0), g_tau = g_density * inverse;
            event.g_value = select(mask, g_tau, event.g_value);
            event.g_z0 = event.g_z0 + zero_unless(mask, g_tau * event.density);
            event.g_z1 = event.g_z1 - zero_unless(mask, g_tau * event.density);
        };
        auto take_end = [&](int e, M mask) {
            Event& event = events_[e];
            F* g = channel_gradient(e);
            event.g_value = select(mask, gradient_density, event.g_value);
            for (int c = 0; c < channels; c++) g[c] = select(mask, gradient_colour[c], g[c]);
        };
        for_codes(rank, [&](int code, M mask) {
            const int e = code >> 2;
            switch (code & 3) {
                case kThin: {
                    Event& event = events_[e];
                    const M hit = both(mask, ge(T1, tmin));
                    const F alpha = zero_unless(hit, alpha_of(event));
                    F along = options_.depth ? z_of(event) * depth_cotangent : F{};
                    const F weight = alpha * T1;
                    for (int c = 0; c < channels; c++) along = fma(channel(event, c), cotangent[c], along);
                    if (weighed(event)) {
                        event.density = event.density + weight;
                    } else {
                        F* g = channel_gradient(e);
                        for (int c = 0; c < channels; c++) g[c] = fma(weight, cotangent[c], g[c]);
                    }
                    F g_alpha = zero_unless(hit, T1 * (along - behind));
                    behind = fma(alpha, along - behind, behind);
                    if (event.thick) {
                        g_alpha = g_alpha * exp_of(-event.value);
                        event.g_z0 = fma(splat(real(0.5)) * weight, depth_cotangent, event.g_z0);
                        event.g_z1 = fma(splat(real(0.5)) * weight, depth_cotangent, event.g_z1);
                    } else {
                        event.g_z0 = fma(weight, depth_cotangent, event.g_z0);
                    }
                    event.g_value = event.g_value + g_alpha;
                    break;
                }
                case kBegin: take_begin(e, mask); break;
                case kEnd: take_end(e, mask); break;
                default:
                    take_begin(e + 1, mask);
                    take_end(e, mask);
            }
        });
        F at_rank = pending;
        pending = F{};
        has_z = any(not_zero(at_rank));
        if (opened) {
            // Where nothing is open, what later segments felt has no business with earlier ones: start anew, free of rounding.
            const M shut = lt(log[3], splat(real(0.5)));
            gradient_density = select(shut, F{}, gradient_density);
            F along = F{};
            for (int c = 0; c < channels; c++) {
                gradient_colour[c] = select(shut, F{}, gradient_colour[c]);
                along = fma(log[5 + c], cotangent[c], along);
            }
            const M inside = ge(log[2], tmin);
            if (options_.additive) {
                // Lombardi et al. 2021: `behind` is d loss / d T of what follows: the colour that saturates the ray, or its end.
                const F mean = select(gt(density, F{}), along / max_of(density, splat(real(1e-30))), F{}) +
                               (z + rank.key) * splat(real(0.5)) * depth_cotangent;
                const M full = both(inside, both(ge(tau, T0), gt(T0, F{})));
                const F weight = min_of(tau, T0), share = select(gt(density, F{}), weight / density, F{});
                const F g_tau = zero_unless(both(inside, not_of(full)), mean - behind);
                const F colour_part = select(gt(density, F{}), -share * (along / density), F{});
                gradient_density = gradient_density + zero_unless(inside, fma(g_tau, length, colour_part));
                // w (along / density): the weight's own part is in g_tau; along / density loses by density.
                for (int c = 0; c < channels; c++) gradient_colour[c] = fma(zero_unless(inside, share), cotangent[c], gradient_colour[c]);
                behind = select(full, mean, behind);
                const F g_length = g_tau * density, g_ends = zero_unless(inside, weight * depth_cotangent) * splat(real(0.5));
                at_rank = at_rank + (g_ends + g_length);
                pending = g_ends - g_length;
                has_z = true;
            } else {
                const F share = T0 * a.phi * length;
                F g_tau = fma(length * along, a.dphi, -(a.decay * behind)), g_length = a.phi * along;
                F g_start = F{};
                F relative = length * a.phi * along;
                if (options_.depth) {
                    g_tau = fma(depth_cotangent, fma(a.decay, z, length * a.dpsi), g_tau);
                    g_length = fma(depth_cotangent, a.psi, g_length);
                    g_start = depth_cotangent * (a.phi * tau);
                    relative = fma(depth_cotangent, fma(a.phi * tau, z, length * a.psi), relative);
                }
                g_tau = zero_unless(inside, T0 * g_tau);
                g_length = zero_unless(inside, fma(T0, g_length, g_tau * density));
                g_start = zero_unless(inside, T0 * g_start);
                gradient_density = fma(g_tau, length, gradient_density);
                for (int c = 0; c < channels; c++) gradient_colour[c] = fma(zero_unless(inside, share), cotangent[c], gradient_colour[c]);
                behind = select(inside, fma(a.decay, behind, relative), behind);
                at_rank = at_rank + g_length;
                pending = g_start - g_length;
                has_z = true;
            }
        }
        if (!opened) gradient_density = F{};
        if (!opened && was_open)
            for (auto& g : gradient_colour) g = F{};
        was_open = opened;
        if (!has_z) continue;
        for_codes(rank, [&](int code, M mask) {
            Event& event = events_[code >> 2];
            const F g = zero_unless(mask, at_rank);
            if ((code & 3) >= kEnd)
                event.g_z1 = event.g_z1 + g;
            else
                event.g_z0 = event.g_z0 + g;
        });
    }
}

}  // namespace smalti
