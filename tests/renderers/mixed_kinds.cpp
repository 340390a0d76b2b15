// A list of one kind drawn as several: the runs that the tile loop makes of it, forward and backward, must not change a bit.
// Compiled and run by test_mixed_kinds.py.
#include <cstdio>
#include <random>

#include "engine.cpp"

namespace {

struct Answer {
    std::vector<real> picture, alpha, slots, sums;
};

Answer draw(Plan& plan, const std::vector<KindRange>& kinds, bool statistics) {
    const size_t pixels = (size_t)plan.width * plan.height;
    Answer a{std::vector<real>(pixels * plan.channels), std::vector<real>(pixels), {}, std::vector<real>(2 * plan.count)};
    std::vector<int> ids(3 * pixels);
    ForwardOutput out = {a.picture.data(), a.alpha.data(), nullptr, nullptr, nullptr, nullptr, nullptr};
    if (statistics) out = {a.picture.data(), a.alpha.data(), &ids[0], &ids[pixels], &ids[2 * pixels], &a.sums[0], &a.sums[plan.count]};
    composite_forward(plan, kinds, {nullptr, 0}, out);
    composite_backward(plan, kinds, kGaussianMoments, {nullptr, 0}, {a.picture.data(), a.alpha.data(), nullptr});
    const size_t stride = slot_stride(kGaussianMoments, plan.channels);
    a.slots.assign(plan.slot_values.data(), plan.slot_values.data() + plan.slots * stride);
    return a;
}

}  // namespace

int main() {
    constexpr int n = 400, width = 70, height = 45;
    std::mt19937 random(1);
    std::normal_distribution<real> normal;
    std::vector<real> means(3 * n), quaternions(4 * n), scales(3 * n), opacities(n), colours(3 * n);
    for (auto* values : {&means, &quaternions, &colours})
        for (real& v : *values) v = normal(random);
    for (real& v : scales) v = real(0.2) * std::exp(real(0.5) * normal(random));
    for (real& v : opacities) v = real(0.95) / (1 + std::exp(-2 * normal(random)));
    const GaussianInput in = {means.data(), quaternions.data(), scales.data(), opacities.data(), colours.data(), nullptr, nullptr,
                              n, 0, 0, 0, real(0.3), 0, 0};
    const CameraValues camera = {{1, 0, 0, 0, 1, 0, 0, 0, 1}, {0, 0, 5}, 60, 60, 35, 22, real(0.01), width, height};
    const Drawable drawable = {kGaussian, &in};
    const Options options = {real(1e-4), 0, 0};
    for (bool statistics : {false, true}) {
        Plan plan;
        Summary summary;
        if (smalti_prepare(&plan, &drawable, 1, &camera, &options, &summary)) return 1;
        const KindFunctions functions = gaussian_functions(3, statistics, false, false);
        const Answer one = draw(plan, {{functions, plan.screens.data(), 0, n}}, statistics);
        const Answer three = draw(plan,
                                  {{functions, plan.screens.data(), 0, 130},
                                   {functions, plan.screens.data() + 130, 130, 7},
                                   {functions, plan.screens.data() + 137, 137, n - 137}},
                                  statistics);
        bool lit = false;
        for (real v : one.alpha) lit = lit || v > real(0.9999);
        if (!lit || plan.slots < n / 2) return std::puts("the scene shows nothing: no ray ends"), 2;
        if (one.picture != three.picture || one.alpha != three.alpha) return std::puts("pictures differ"), 3;
        if (one.slots != three.slots) return std::puts("gradients differ"), 4;
        if (one.sums != three.sums) return std::puts("contributions differ"), 5;
    }
    return 0;
}
