// The general compositor's way from front to back. Included by exact.h.
#pragma once

namespace smalti {

SM_METHOD void ExactBlock::open(int e, M mask) {
    const Event& event = events_[e];
    const F density = zero_unless(mask, event.density);
    density_.add(density);
    for (int c = 0; c < options_.channels; c++) density_colour_[c].add(density * channel(event, c));
    open_ = open_ + select_int(mask, splat_int(1), I{});
    any_open_ = true;
    if (options_.statistics) {
        events_[e].g_value = select(mask, running_, events_[e].g_value);
    }
}

SM_METHOD void ExactBlock::close(int e, M mask) {
    const Event& event = events_[e];
    const F density = zero_unless(mask, event.density);
    density_.add(-density);
    for (int c = 0; c < options_.channels; c++) density_colour_[c].add(-(density * channel(event, c)));
    open_ = open_ - select_int(mask, splat_int(1), I{});
    const M shut = le_int(open_, I{});
    density_.clear_where(shut);
    for (int c = 0; c < options_.channels; c++) density_colour_[c].clear_where(shut);
    any_open_ = !every(shut);
    if (options_.statistics) {
        const F weight = zero_unless(mask, density * (running_ - event.g_value));
        count(e, weight, splat(1), splat(1), event.z0);
    }
}

// Statistics of one event's weight; `before` and `after` are T around a thin event (1, 1 for a segment: its pieces tell).
SM_METHOD void ExactBlock::count(int e, F weight, F before, F after, F depth) {
    const Event& event = events_[e];
    BlockStatistics& s = answers;
    for (int k = 0; k < kLanes; k++) {
        const real w = at(weight, k), z = at(depth, k);
        if (!(w > 0)) continue;
        // Segments are counted where they end, so one that began sooner may come later; ties fall to the lower index.
        const int first = at(s.first, k);
        const real least = at(s.depth_first, k), margin = kTie * (least < 0 ? -least : least);
        const bool sooner = z < least - margin || (z < least + margin && event.id < first);
        if (first < 0 || (event.thick && !options_.centre && sooner)) put(s.first, k, event.id), put(s.depth_first, k, z);
        if (at(before, k) > real(0.5) && at(after, k) <= real(0.5)) put(s.median, k, event.id), put(s.depth_median, k, z);
        if (w > at(s.dominant_weight, k)) put(s.dominant_weight, k, w), put(s.dominant, k, event.id);
    }
#ifdef SMALTI_CUDA
    if (contributions.plain && weight > 0) {
        contributions.add(event.id, weight);
        atomic_max(contribution_max + event.id, weight);
    }
#else
    if (report) report(report_to, event.id, weight);
#endif
}

SM_METHOD void ExactBlock::composite(const Rank& rank) {
    const F tmin = splat(options_.transmittance_min);
    if (options_.logged) {
        const int at = log_.add(log_size(any_open_));
        log_codes_.push_back(any_open_);
        log_[at] = T;
        if (any_open_) {
            log_[at + 1] = z_, log_[at + 2] = met_;
            for (int k = 0; k < kLanes; k++) put(log_[at + 3], k, (real)smalti::at(open_, k));
            log_[at + 4] = density_.value();
            for (int c = 0; c < channels; c++) log_[at + 5 + c] = density_colour_[c].value();
        }
    }
    if (any_open_) {
        // Among ties lengths may be negative by a hair: signed, they leave every segment's tau whole.
        const F length = zero_unless(ge(met_, tmin), rank.key - z_);
        const F density = max_of(density_.value(), F{}), tau = density * length;
        F share = F{}, after;
        if (options_.additive) {
            const F weight = min_of(tau, max_of(T, F{}));  // T is -1 outside of the picture
            share = select(gt(density, F{}), weight / density, F{});
            after = T - weight;
            absorbed = absorbed + weight;
            if (options_.depth) sums[channels] = fma(weight, (z_ + rank.key) * splat(real(0.5)), sums[channels]);
        } else if (options_.logged) {
            after = T * exp_of(-tau);
        } else {
            const Absorption a = absorption<false>(tau, options_.depth);
            share = T * a.phi * length;
            after = T * a.decay;
            absorbed = fma(T, a.phi * tau, absorbed);
            if (options_.depth) sums[channels] = fma(T, fma(a.phi * tau, z_, length * a.psi), sums[channels]);
        }
        for (int c = 0; c < (options_.logged ? 0 : channels); c++) sums[c] = fma(share, density_colour_[c].value(), sums[c]);
        if (options_.statistics) {
            running_ = running_ + share;
            for (int k = 0; k < kLanes; k++) {
                const real before = smalti::at(T, k);
                if (!(before > real(0.5) && smalti::at(after, k) <= real(0.5) && smalti::at(length, k) > 0)) continue;
                put(answers.median, k, opened_last(k));
                const real need = options_.additive ? before - real(0.5) : real_log(2 * before);
                put(answers.depth_median, k, smalti::at(z_, k) + need / smalti::at(density, k));
            }
        }
        T = after;
    }
    z_ = rank.key;
    if (rank.code >= 0 && (rank.code & 3) == kThin) return composite_thin(rank.code >> 2, ge(T, tmin), ge(F{}, F{}));
    for_codes(rank, [&](int code, M mask) {
        const int e = code >> 2;
        switch (code & 3) {
            case kThin: composite_thin(e, both(mask, ge(T, tmin)), mask); break;
            case kBegin:
                open(e, mask);
                met_ = select(both(mask, gt(events_[e].value, F{})), T, met_);
                break;
            case kEnd:
                close(e, mask);
                met_ = select(both(mask, gt(events_[e].value, F{})), T, met_);
                break;
            default:
                // Open first: something stays open in between, and the exact zero at the end of all is kept.
                open(e + 1, mask);
                close(e, mask);
                met_ = select(both(mask, gt(max_of(events_[e].value, events_[e + 1].value), F{})), T, met_);
        }
    });
}

// `mask`: lanes whose event it is; `lit`: those of them that are not yet opaque.
SM_FN void ExactBlock::composite_thin(int e, M lit, M mask) {
    const Event& event = events_[e];
    const F alpha = zero_unless(lit, alpha_of(event)), before = T, weight = alpha * T;
    T = fnma(alpha, T, T);
    if (!options_.logged) {  // the picture is not wanted again
        absorbed = absorbed + weight;
        add_channels(event, weight);
        if (options_.depth) sums[channels] = fma(weight, z_of(event), sums[channels]);
    }
    if (options_.statistics) count(e, weight, before, T, z_of(event));
    met_ = select(both(mask, gt(event.value, F{})), T, met_);
}

}  // namespace smalti
