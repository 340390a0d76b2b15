// The general compositor's order: where a rank is put among those that wait. Included by exact.h.
#pragma once

namespace smalti {

// Makes the end of event e - 1, which is where e begins, a chain; false if lanes have parted there.
SM_FN bool ExactBlock::rechain(int e) {
    const int end = 4 * (e - 1) + kEnd;
    if (ranks_.empty()) return false;
    Rank* found = &ranks_.back();  // there it is, unless lanes have parted since
    for (int k = (int)order_.size(); found->code != end && k-- > head_;) found = &rank_at(k);
    if (found->code != end) return false;
    found->code = 4 * (e - 1) + kChain;
    return true;
}

SM_FN M ExactBlock::precedes(const Rank& b, const Rank& a) const {
    const F margin = abs_of(a.key) * splat(kTie);
    const M close = lt(b.key, a.key + margin);
    if (!any(close)) return close;
    const M sooner = lt(b.key, a.key - margin);
    if (a.code >= 0 && b.code >= 0) return b.id < a.id ? close : sooner;
    if (!any(both(close, not_of(sooner)))) return sooner;
    I of_a = codes_of(a), of_b = codes_of(b);
    for (int k = 0; k < kLanes; k++) put(of_a, k, id_of(smalti::at(of_a, k))), put(of_b, k, id_of(smalti::at(of_b, k)));
    return either(sooner, both(close, not_of(le_int(of_a, of_b))));
}

SM_FN void ExactBlock::insert(F key, int code) {
    int at = ranks_.add(1), to = at;
    Rank& own = ranks_[at];
    own.key = key, own.code = code, own.id = id_;
    order_.push_back(at);
    if (options_.centre) return;  // the list comes by key already, and an event's order among its own is kept
    // Far behind are those that it certainly precedes in all lanes: halving finds them, for the rest every tie is looked at.
    if (to - head_ > 8) {
        const F margin = abs_of(key) * splat(16 * kTie) + key;
        int from = head_;
        while (from < to) {
            const int middle = (from + to) / 2;
            if (every(lt(margin, rank_at(middle).key)))
                to = middle;
            else
                from = middle + 1;
        }
    }
    M swap = ge(F{}, F{});
    while (to > head_ && every(swap = precedes(own, rank_at(to - 1)))) to--;
    if (to < at) {
        for (; at > to; at--) order_[at] = order_[at - 1];
        order_[to] = (int)ranks_.size() - 1;
    }
    // From here on lanes part: `swap` says which of them go on.
    for (; at > head_ && any(swap); swap = --at > head_ ? precedes(rank_at(at), rank_at(at - 1)) : swap) {
        Rank &a = rank_at(at - 1), &b = rank_at(at);
        if (every(swap)) {
            const int kept = order_[at];
            order_[at] = order_[at - 1], order_[at - 1] = kept;
        } else {
            const F key_a = a.key, key_b = b.key;
            const I codes_a = codes_of(a), codes_b = codes_of(b);
            a.key = select(swap, key_b, key_a), b.key = select(swap, key_a, key_b);
            a.codes = select_int(swap, codes_b, codes_a), b.codes = select_int(swap, codes_a, codes_b);
            a.code = uniform_code(a.codes), b.code = uniform_code(b.codes);
            if (a.code >= 0) a.id = id_of(a.code);
            if (b.code >= 0) b.id = id_of(b.code);
        }
    }
}

}  // namespace smalti
