// The general compositor: any mix of thin and thick events of a block of pixels, in exact order, forward and back.
// docs/kinds.md, section 1, is the specification.
//
// A block is kLanes pixels (one on CUDA). Kinds append events; every event becomes one rank (thin) or two (a segment's begin and
// end) in a list that is kept sorted *per lane*. All lanes hold all events, also those they miss (with alpha or tau 0): so the order
// is mostly the same in all lanes, a rank has one code, and only where surfaces cross inside a block do lanes part.
// A rank is composited once nothing nearer can come: primitives arrive by their nearest z. The list grows without bound, so
// the order is exact; `widest` says how long it got.
//
// Going back, the block is composited anew with a log of T (with position and open density inside segments) per rank, and then walked from back to
// front: no division by 1 - alpha, and the same decisions, because it is the same code.
#pragma once
#include "absorption.h"
#include "exact_store.h"
#include "kinds/kind.h"
#ifdef SMALTI_CUDA
#include "fixed_sums_cuda.h"
#endif

namespace smalti {

constexpr real kTie = real(1.9073486328125e-06);  // 2^-19: events nearer to one another than this share of z are one depth
constexpr int kWaiting = 16;                      // ranks that may wait before the list is looked through
constexpr int kNominalWindow = 64;                // longer lists are counted as fall-backs

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
        if (overflown()) return;
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
        return events_.overflown || channels_.overflown || ranks_.overflown || order_.overflown || log_.overflown || log_codes_.overflown ||
               emissions.overflown || locals_.overflown;
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
        event.value = value, event.z0 = z0;
        if (thick || wants_local) event.z1 = z1;  // fragments tell it of thin events, too
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

    SM_FN Rank& rank_at(int k) { return ranks_[order_[k]]; }
    SM_FN const Rank& rank_at(int k) const { return ranks_[order_[k]]; }
    SM_FN int log_size(bool opened) const { return opened ? log_stride_ : 1; }
    SM_FN static I codes_of(const Rank& rank) { return rank.code >= 0 ? splat_int(rank.code) : rank.codes; }

    SM_FN int id_of(int code) const { return events_[code >> 2].id; }

    SM_FN bool rechain(int e);
    SM_FN M precedes(const Rank& b, const Rank& a) const;
    SM_FN void insert(F key, int code);

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

}  // namespace smalti

#include "exact_order.h"
#include "exact_sweep.h"
#include "exact_sweep_back.h"
