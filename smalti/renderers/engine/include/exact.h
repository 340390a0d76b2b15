// The general compositor: any mix of thin and thick events of a block of pixels, in exact order, forward and back.
// docs/kinds.md, section 1, is the specification.
//
// A block is kLanes pixels (one on CUDA). Kinds append events; every event becomes one rank (thin) or two (a segment's begin and
// end) in a list that is kept sorted *per lane*. All lanes hold all events, also those they miss (with alpha or tau 0): so the order
// is mostly the same in all lanes, a rank has one code, and only where surfaces cross inside a block do lanes part.
// A rank is composited once nothing nearer can come: primitives arrive by their nearest z. The list grows without bound, so
// the order is exact; `widest` says how long it got.
//
// Going back, the block is composited anew with a log of (T, position, open density) per rank, and then walked from back to
// front: no division by 1 - alpha, and the same decisions, because it is the same code.
#pragma once
#include "kinds/kind.h"
#include "lane_math.h"

#ifdef SMALTI_CUDA
#include "fixed_sums_cuda.h"
#else
#include <cstdlib>
#include <new>
#endif

namespace smalti {

constexpr real kTie = real(1.9073486328125e-06);  // 2^-19: events nearer to one another than this share of z are one depth
constexpr int kWaiting = 16;                      // ranks that may wait before the list is looked through
constexpr int kNominalWindow = 64;                // longer lists are counted as fall-backs

#ifdef SMALTI_CUDA
#define SM_METHOD __device__
// A growing array in memory that was counted out beforehand. Past its end it only remembers that it was asked.
template <class T>
struct Store {
    T* values = nullptr;
    int count = 0, capacity = 0;
    bool overflown = false;
    SM_FN void clear() { count = 0; }
    SM_FN int size() const { return count; }
    SM_FN bool empty() const { return count == 0; }
    SM_FN void push_back(const T& x) {
        if (count < capacity)
            values[count++] = x;
        else
            overflown = true;
    }
    SM_FN void pop_back() { count--; }
    SM_FN void resize(int n) {
        if (n > capacity) overflown = true, n = capacity;
        for (; count < n; count++) values[count] = T();
        count = n;
    }
    // `n` more, not set to anything; their place. Past the end it is the first.
    SM_FN int add(int n) {
        const int at = count;
        if (n > capacity - count) return overflown = true, 0;
        count += n;
        return at;
    }
    SM_FN T& operator[](int k) { return values[k]; }
    SM_FN const T& operator[](int k) const { return values[k]; }
    SM_FN T& back() { return values[count - 1]; }
    SM_FN T* begin() { return values; }
    SM_FN T* end() { return values + count; }
};
#else
#define SM_METHOD inline
// A growing array of plain values. Unlike std::vector it sets nothing to zero that is written anyway, and a full one grows out of line.
template <class T>
class Store {
public:
    Store() = default;
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    ~Store() { std::free(values_); }
    SM_FN void clear() { count_ = 0; }
    SM_FN int size() const { return count_; }
    SM_FN bool empty() const { return count_ == 0; }
    SM_FN int add(int n) {
        const int at = count_;
        if (n > capacity_ - count_) grow(n);
        count_ += n;
        return at;
    }
    SM_FN void push_back(T x) {
        const int at = add(1);  // may move all
        values_[at] = x;
    }
    SM_FN void pop_back() { count_--; }
    SM_FN void resize(int n) {
        if (n <= count_) {
            count_ = n;
            return;
        }
        for (int k = add(n - count_); k < n; k++) values_[k] = T();
    }
    SM_FN T& operator[](int k) { return values_[k]; }
    SM_FN const T& operator[](int k) const { return values_[k]; }
    SM_FN T& back() { return values_[count_ - 1]; }
    SM_FN T* begin() { return values_; }
    SM_FN T* end() { return values_ + count_; }

private:
    __attribute__((noinline)) void grow(int n) {
        static_assert(__is_trivially_copyable(T), "values are moved as bytes");
        const long long wanted = (long long)count_ + n, doubled = 2ll * capacity_ + 64, next = wanted > doubled ? wanted : doubled;
        T* values = next < 1ll << 31 ? static_cast<T*>(std::aligned_alloc(64, (next * sizeof(T) + 63) / 64 * 64)) : nullptr;
        if (!values) throw std::bad_alloc();
        if (count_) std::memcpy(static_cast<void*>(values), values_, count_ * sizeof(T));
        std::free(values_);
        values_ = values, capacity_ = (int)next;
    }
    T* values_ = nullptr;
    int count_ = 0, capacity_ = 0;
};
#endif

enum RankType { kThin = 0, kBegin = 1, kEnd = 2, kChain = 3 };  // chain: the end of an event and the begin of the next

struct Event {
    F value;   // alpha of a thin event, tau of a segment
    F z0, z1;  // z of a thin event, or the segment's ends
    F density; // of a segment, per unit of z; a thin event's weight on the way back, where `weighs`
    F g_value, g_z0, g_z1;  // gradients; forward, `g_value` holds the running weight at the begin; g_z1 of segments alone
    const real* constant;   // channels where they are constant
    int id;
    int thick;
    int at;  // of its channels, if not constant, and their gradients, if logged
};

// What one primitive gave to the block.
struct Emission {
    int drawable, primitive, id, first, count;
};

struct Rank {
    F key;
    I codes;   // where lanes differ; else not set
    int code;  // where it is the same in all lanes, else -1
    int id;    // of the primitive, with `code`
};

// (1 - exp(-x)) / x and its derivative, (1 - (1 + x) exp(-x)) / x and its derivative, and exp(-x); x >= 0.
struct Absorption {
    F decay, phi, dphi, psi, dpsi;
};

SM_FN F polynomial(F x, const double* c, int n) {
    F sum = splat((real)c[n - 1]);
    for (int k = n - 2; k >= 0; k--) sum = fma(sum, x, splat((real)c[k]));
    return sum;
}

template <bool derivatives>
SM_FN Absorption absorption(F x, bool with_depth) {
    // Taylor below 0.2, where the closed forms cancel; the terms left out are below 1e-13.
    constexpr double phi[10] = {1., -1. / 2, 1. / 6, -1. / 24, 1. / 120, -1. / 720, 1. / 5040, -1. / 40320, 1. / 362880, -1. / 3628800};
    constexpr double dphi[9] = {-1. / 2, 1. / 3, -1. / 8, 1. / 30, -1. / 144, 1. / 840, -1. / 5760, 1. / 45360, -1. / 403200};
    // psi = sum_{k>=1} (-1)^(k+1) k x^k / (k+1)!
    constexpr double psi[10] = {0., 1. / 2, -1. / 3, 1. / 8, -1. / 30, 1. / 144, -1. / 840, 1. / 5760, -1. / 45360, 1. / 403200};
    constexpr double dpsi[9] = {1. / 2, -2. / 3, 3. / 8, -4. / 30, 5. / 144, -6. / 840, 7. / 5760, -8. / 45360, 9. / 403200};
    Absorption a = {};
    a.decay = exp_of(-x);
    const M small = lt(x, splat(real(0.2)));
    const F inverse = splat(1) / max_of(x, splat(real(0.1)));
    const F far_phi = (splat(1) - a.decay) * inverse;
    a.phi = select(small, polynomial(x, phi, 10), far_phi);
    a.dphi = a.psi = a.dpsi = F{};
    if (derivatives) a.dphi = select(small, polynomial(x, dphi, 9), (a.decay - far_phi) * inverse);
    if (with_depth) {
        const F far_psi = fnma(a.decay, splat(1) + x, splat(1)) * inverse;
        a.psi = select(small, polynomial(x, psi, 10), far_psi);
        if (derivatives) a.dpsi = select(small, polynomial(x, dpsi, 9), a.decay - far_psi * inverse);
    }
    return a;
}

// A sum kept in two parts, so that what was added and taken away again leaves nothing behind (Knuth's TwoSum).
struct LongSum {
    F high = F{}, low = F{};
    SM_FN void add(F x) {
        const F sum = high + x, part = sum - high;
        low = low + ((high - (sum - part)) + (x - part));
        high = sum;
    }
    SM_FN F value() const { return high + low; }
    SM_FN void clear_where(M m) {
        high = select(m, F{}, high);
        low = select(m, F{}, low);
    }
};

struct ExactOptions {
    int channels;      // without depth
    bool depth, centre, additive, logged, statistics;  // logged: for the way back; `sums` and `absorbed` are not kept then
    real transmittance_min;
};

// Answers about which primitive did what, per lane.
struct BlockStatistics {
    I first, median, dominant;
    F dominant_weight, depth_first, depth_median;
};

class ExactBlock {
public:
#ifdef SMALTI_CUDA
    // Bytes per event, with or without its local coordinates; what does not depend on their number is in `fixed_bytes`.
    static SM_FN long long event_bytes(int channels, bool locals) {
        const int numbers = 2 * channels + 2 * (5 + channels) + (locals ? 6 : 0);
        return sizeof(Event) + sizeof(Emission) + 2 * sizeof(Rank) + 2 * sizeof(int) + numbers * sizeof(F) + 2;
    }
    static SM_FN long long fixed_bytes(int channels) {
        return channels * sizeof(LongSum) + (4 * channels + 7) * sizeof(F) + sizeof(Event) + sizeof(Rank) + sizeof(Emission) + 13 * 16;
    }

    SM_METHOD ExactBlock(const ExactOptions& options, char* memory, int events, bool locals) : channels(options.channels), options_(options) {
        char* next = memory;
        take(next, events_, events + 1), take(next, emissions, events + 1), take(next, ranks_, 2 * events + 1), take(next, order_, 2 * events);
        take(next, density_colour_, channels);
        take(next, channels_, 2 * channels * events), take(next, log_, (2 * events + 1) * (5 + channels));
        take(next, sums, channels + 1), take(next, gradient_colour_, channels), take(next, log_codes_, 2 * events);
        take(next, cotangent, channels + 1), take(next, locals_, locals ? 6 * events : 0);
        cotangent.resize(channels + 1);
        // What the two functions above promise is what was taken; else this ray writes into its neighbour's memory.
        events_.overflown = next > memory + events * event_bytes(channels, locals) + fixed_bytes(channels);
        start();
    }
#else
    explicit ExactBlock(const ExactOptions& options) : channels(options.channels), options_(options) { start(); }
#endif

    // ---- what a kind's emit sees (kind.h)
    const int channels;
    bool wants_local = false;
    // Going back, thin events of constant channels keep their weight, of which the channels' gradients are multiples.
    bool weighs = false;
    SM_FN bool weighed(const Event& event) const { return weighs && event.constant && (!event.thick || options_.centre); }

    SM_FN void thin(F z, F alpha, const F* colours) {
        const int e = append(z, z, alpha, colours, false);
        insert(options_.centre ? splat(key_) : z, 4 * e + kThin);
    }

    SM_FN void thick(F z0, F z1, F tau, const F* colours, bool chained) {
        if (options_.centre) {
            const int e = append(z0, z1, tau, colours, true);
            insert(splat(key_), 4 * e + kThin);  // turned into a thin event where it is composited
            return;
        }
        // The density is that of the rounded ends, so that an uncut segment absorbs exactly tau.
        z1 = max_of(z1, fma(abs_of(z0), splat(kTie / 8), z0) + splat(real(1e-30)));
        const int e = append(z0, z1, tau, colours, true);
        events_[e].density = tau / (z1 - z0);
        if (!(chained && chain_end_ >= 0 && rechain(e))) insert(z0, 4 * e + kBegin);
        insert(z1, 4 * e + kEnd);
        chain_end_ = e;
    }

    SM_FN void local(const F* coordinates, const F* normal) {
        if (!wants_local) return;
        locals_.resize(6 * events_.size());
        F* own = &locals_[6 * (events_.size() - 1)];
        for (int k = 0; k < 3; k++) own[k] = coordinates[k], own[3 + k] = normal ? normal[k] : F{};
    }

    // ---- what the tile loop does
    SM_METHOD void begin(F T) {
        events_.clear(), channels_.clear(), ranks_.clear(), order_.clear(), log_.clear(), log_codes_.clear(), emissions.clear(), locals_.clear();
        head_ = 0;
        widest = 0;
        this->T = met_ = T, absorbed = F{};
        z_ = F{};
        open_ = I{};
        any_open_ = false;
        density_ = LongSum();
        for (auto& c : density_colour_) c = LongSum();
        for (auto& c : sums) c = F{};
        running_ = F{};
        if (options_.statistics) {
            answers.first = answers.median = answers.dominant = splat_int(-1);
            answers.dominant_weight = answers.depth_first = answers.depth_median = F{};
        }
    }

    SM_FN void begin_emission(int drawable, int primitive, int id, real key, const real* constant) {
        key_ = key, id_ = id, constant_ = constant, chain_end_ = -1;
        emission_ = {drawable, primitive, id, (int)events_.size(), 0};
    }
    SM_FN void end_emission() {
        emission_.count = (int)events_.size() - emission_.first;
        if (emission_.count == 0) return;
        emissions.push_back(emission_);
        widest = ((int)ranks_.size() - head_) > widest ? ((int)ranks_.size() - head_) : widest;
    }

    SM_FN bool crowded() const { return ((int)ranks_.size() - head_) > kWaiting; }
    SM_FN bool alive() const { return any(ge(met_, splat(options_.transmittance_min))); }

    // Composites every rank that lies before `limit` in all lanes.
    SM_METHOD void composite_until(real limit) {
        const F until = splat(limit - 2 * kTie * (limit < 0 ? -limit : limit));
        while (head_ < (int)order_.size() && !any(ge(rank_at(head_).key, until))) composite(rank_at(head_++));
    }
    SM_METHOD void composite_rest() {
        while (head_ < (int)order_.size()) composite(rank_at(head_++));
    }

    // ---- runs of events that need not wait (exact_run.h)
    SM_FN bool idle() const { return !any_open_; }
    SM_FN int composited() const { return head_; }
    // What waits lies behind this z in all lanes, ties included; nothing waits: a very large number.
    SM_METHOD real horizon() const {
        real least = real(1e30);
        if (head_ < (int)ranks_.size()) {
            const F key = rank_at(head_).key, before = key - abs_of(key) * splat(2 * kTie);
            for (int k = 0; k < kLanes; k++) least = smalti::at(before, k) < least ? smalti::at(before, k) : least;
        }
        return least;
    }
    // T is that of every lane's own ray, because nothing is open.
    SM_FN void after_run(F T, F absorbed, F z) { this->T = met_ = T, this->absorbed = absorbed, z_ = z; }

    // Walks back over the log. `cotangent` [channels + depth]; `behind`: d loss / d T at the ray's end.
    SM_METHOD void back(const F* cotangent, F behind) {
        begin_back(behind);
        back_until(cotangent, 0);
    }
    // The same in parts, `behind` being that of the rank at hand: down to rank `end`.
    SM_METHOD void begin_back(F behind_all) {
        behind = behind_all;
        gradient_density_ = pending_ = F{};
        was_open_ = false;
        for (auto& g : gradient_colour_) g = F{};
        back_at_ = (int)ranks_.size(), back_log_ = (int)log_.size();
    }
    SM_METHOD void back_until(const F* cotangent, int end);
    F behind;

    SM_METHOD const Event& event(int e) const { return events_[e]; }
    SM_METHOD F* channel_gradient(int e) {
        const Event& event = events_[e];
        return &channels_[event.at + (event.constant ? 0 : options_.channels)];
    }
    SM_METHOD Event& event(int e) { return events_[e]; }
    SM_METHOD int event_count() const { return (int)events_.size(); }
    SM_METHOD F* locals(int e) {
        locals_.resize(6 * events_.size());  // kinds without local coordinates gave none
        return &locals_[(size_t)6 * e];
    }
    // Calls body(lane, event) for the events that a lane's ray met, in their order (segments at their begin). Needs the log.
    template <class Body>
    SM_METHOD void for_events(const Body& body) const {
        for (int r = 0, from = 0; r < (int)ranks_.size(); from += log_size(log_codes_[r] != 0), r++) {
            const F T = log_codes_[r] ? log_[from + 2] : log_[from];  // T is met_ where nothing is open
            const I codes = codes_of(rank_at(r));
            for (int k = 0; k < kLanes; k++) {
                const int code = at(codes, k), type = code & 3;
                if (type == kEnd || !(at(T, k) >= options_.transmittance_min)) continue;
                const int e = (code >> 2) + (type == kChain ? 1 : 0);
                if (at(events_[e].value, k) > 0) body(k, e);
            }
        }
    }
    SM_METHOD F channel_of(int e, int c) const { return channel(events_[e], c); }

    F T, absorbed;  // absorbed: the sum of all weights, 1 - T without its rounding
    Store<F> sums;  // [channels + 1], depth last
    int widest = 0;
    long long lookups = 0;  // voxel lookups of boxes since this was made (kinds/box.h counts)
    Store<Emission> emissions;
    BlockStatistics answers;
    // With statistics: told (emission's id, weight per lane) of every event that contributed.
#ifdef SMALTI_CUDA
    Store<F> cotangent;  // [channels + 1]
    FixedSums contributions = {};
    real* contribution_max = nullptr;
#else
    void (*report)(void* to, int id, F weight) = nullptr;
    void* report_to = nullptr;
#endif
    SM_FN bool overflown() const {
#ifdef SMALTI_CUDA
        return events_.overflown || channels_.overflown || ranks_.overflown || log_.overflown || emissions.overflown || locals_.overflown;
#else
        return false;
#endif
    }

private:
    SM_METHOD void start() {
        density_colour_.resize(channels);
        sums.resize(channels + 1);
        gradient_colour_.resize(channels);
        log_stride_ = 5 + channels;
    }
#ifdef SMALTI_CUDA
    template <class T>
    SM_FN static void take(char*& next, Store<T>& store, int capacity) {
        next = reinterpret_cast<char*>((reinterpret_cast<unsigned long long>(next) + 15) / 16 * 16);
        store.values = reinterpret_cast<T*>(next), store.capacity = capacity;
        next += capacity * sizeof(T);
    }
#endif
    SM_FN int append(F z0, F z1, F value, const F* colours, bool thick) {
        const int e = events_.add(1);
        Event& event = events_[e];
        event.value = value, event.z0 = z0, event.z1 = z1;
        if (options_.logged || options_.statistics) {
            event.g_value = event.g_z0 = F{};
            if (thick) event.g_z1 = F{};
            if (weighs) event.density = F{};
        }
        event.constant = colours ? nullptr : constant_;
        event.id = id_, event.thick = thick;
        event.at = (int)channels_.size();
        for (int c = 0; c < (colours ? channels : 0); c++) channels_.push_back(colours[c]);
        if (options_.logged && !weighed(event)) channels_.resize(channels_.size() + channels);  // zeros
        return e;
    }

    SM_FN F channel(const Event& event, int c) const {
        return event.constant ? splat(event.constant[c]) : channels_[event.at + c];
    }
    SM_FN void add_channels(const Event& event, F weight) {
        if (event.constant && channels == 3) {
            const real* own = event.constant;
            sums[0] = fma(weight, splat(own[0]), sums[0]);
            sums[1] = fma(weight, splat(own[1]), sums[1]);
            sums[2] = fma(weight, splat(own[2]), sums[2]);
            return;
        }
        for (int c = 0; c < channels; c++) sums[c] = fma(weight, channel(event, c), sums[c]);
    }

    // Makes the end of event e - 1, which is where e begins, a chain; false if lanes have parted there.
    SM_FN bool rechain(int e) {
        const int end = 4 * (e - 1) + kEnd;
        if (ranks_.empty()) return false;
        Rank* found = &ranks_.back();  // there it is, unless lanes have parted since
        for (int k = (int)order_.size(); found->code != end && k-- > head_;) found = &rank_at(k);
        if (found->code != end) return false;
        found->code = 4 * (e - 1) + kChain;
        return true;
    }

    SM_FN Rank& rank_at(int k) { return ranks_[order_[k]]; }
    SM_FN const Rank& rank_at(int k) const { return ranks_[order_[k]]; }
    SM_FN int log_size(bool opened) const { return opened ? log_stride_ : 1; }
    SM_FN static I codes_of(const Rank& rank) { return rank.code >= 0 ? splat_int(rank.code) : rank.codes; }

    SM_FN int id_of(int code) const { return events_[code >> 2].id; }

    SM_FN M precedes(const Rank& b, const Rank& a) const {
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

    SM_FN void insert(F key, int code) {
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
        while (to > head_ && every(precedes(own, rank_at(to - 1)))) to--;
        if (to < at) {
            for (; at > to; at--) order_[at] = order_[at - 1];
            order_[to] = (int)ranks_.size() - 1;
        }
        while (at > head_) {
            Rank &a = rank_at(at - 1), &b = rank_at(at);
            const M swap = precedes(b, a);
            if (!any(swap)) break;
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
            at--;
        }
    }

    SM_FN static M same_code(I codes, int code) { return eq_int(codes, splat_int(code)); }
    SM_FN static int uniform_code(I codes) {
        const int first = smalti::at(codes, 0);
        return every(same_code(codes, first)) ? first : -1;
    }

    // Calls body(code, mask) for every code of the rank.
    template <class Body>
    SM_FN static void for_codes(const Rank& rank, const Body& body) {
        if (rank.code >= 0) return body(rank.code, ge(splat(0), splat(0)));
        M left = ge(splat(0), splat(0));
        for (int k = 0; k < kLanes; k = first_lane(left)) {
            const int code = smalti::at(rank.codes, k);
            const M mask = same_code(rank.codes, code);
            left = both(left, not_of(mask));
            body(code, mask);
        }
    }

    // Event as it is composited under order = centre: thin, whatever it was.
    SM_FN F alpha_of(const Event& e) const { return e.thick ? splat(1) - exp_of(-e.value) : e.value; }
    SM_FN F z_of(const Event& e) const { return e.thick ? (e.z0 + e.z1) * splat(real(0.5)) : e.z0; }

    // Id of the segment that is open in lane k and began last.
    SM_METHOD int opened_last(int k) const {
        int id = -1;
        real begin = 0;
        const real here = smalti::at(z_, k);
        for (int e = 0; e < (int)events_.size(); e++) {
            const Event& event = events_[e];
            const real z0 = smalti::at(event.z0, k);
            if (!event.thick || !(smalti::at(event.value, k) > 0) || z0 > here || smalti::at(event.z1, k) <= here) continue;
            const real margin = kTie * (begin < 0 ? -begin : begin);  // of those that begin together the lower id came first
            if (id < 0 || z0 > begin + margin || (z0 >= begin - margin && event.id >= id)) id = event.id, begin = z0;
        }
        return id;
    }
    SM_METHOD void composite(const Rank& rank);
    SM_FN void composite_thin(int e, M lit, M mask);
    SM_METHOD void open(int e, M mask);
    SM_METHOD void close(int e, M mask);
    SM_METHOD void count(int e, F weight, F before, F after, F depth);

    ExactOptions options_;
    int log_stride_;
    Store<Event> events_;
    Store<F> channels_;  // by event: channels unless constant, their gradients if logged
    Store<F> locals_;    // [event][coordinates 3, normal 3]
    Store<Rank> ranks_;
    Store<int> order_;  // of the ranks, nearest first: those before `head_` are composited
    int head_ = 0;
    real key_ = 0;
    int id_ = 0, chain_end_ = -1;
    const real* constant_ = nullptr;
    Emission emission_;
    // the sweep
    F z_, running_;
    F met_;  // T at the last event that the lane's own ray met: other lanes' events cut its pieces, but do not end it
    I open_;
    bool any_open_ = false;
    LongSum density_;
    // the way back
    F gradient_density_, pending_;
    bool was_open_;
    int back_at_, back_log_;
    Store<LongSum> density_colour_;
    Store<F> gradient_colour_;
    Store<F> log_;  // per rank: T; where something is open: z, met_, how many, density, density times colour
    Store<char> log_codes_;  // per rank: something was open
};

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

SM_METHOD void ExactBlock::back_until(const F* cotangent, int end) {
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
        has_z = any(gt(abs_of(at_rank), F{}));
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
