// (1 - w) L1 + w (1 - SSIM) of two pictures and its gradient, in one pass over memory (Wang et al. 2004; Kerbl et al. 2023, eq. 7).
// Window 11 x 11, sigma 1.5, zeros beyond the border; separable, rows in lanes, bands of rows in parallel.
#pragma once
#include <cmath>

#include "plan.h"

namespace smalti {

struct ImageLossInput {
    const real* rendered;  // [h, w, 3] with pixel_stride reals from pixel to pixel
    const real* target;    // [h, w, 3]
    const real* mask;      // [h, w] or null: both pictures are multiplied by it, and means are weighted by it
    int width, height, pixel_stride;
    real dssim;
};

constexpr int kWindowRadius = 5, kWindow = 2 * kWindowRadius + 1;

struct GaussianWindow {
    real weight[kWindow];
    GaussianWindow() {
        double sum = 0, w[kWindow];
        for (int k = 0; k < kWindow; k++) sum += w[k] = std::exp(-(k - kWindowRadius) * (k - kWindowRadius) / (2 * 1.5 * 1.5));
        for (int k = 0; k < kWindow; k++) weight[k] = real(w[k] / sum);
    }
};

// A plane with enough zeros around it that the window and whole lanes never leave it.
struct PaddedPlane {
    int stride, height;
    Array<real> storage;
    PaddedPlane(int width, int height_) : stride((width + kLanes - 1) / kLanes * kLanes + 2 * kLanes), height(height_) {
        static_assert(kLanes >= 4, "");
        const size_t n = (size_t)stride * (height + 2 * kWindowRadius) + 2 * kLanes;
        std::memset(storage.resize(n), 0, n * sizeof(real));
    }
    // Row y in [-5, height + 5); column 0 is lane-aligned, columns -lanes .. exist.
    real* row(int y) { return storage.data() + (size_t)(y + kWindowRadius) * stride + kLanes; }
};

// Five or three rows of sources blurred along x into sums, where `source(q, x)` gives lanes of quantity q starting at column x.
template <int quantities, class Source>
SM_FN void blur_row(const GaussianWindow& window, int width, real* const* out, const Source& source) {
    for (int x = 0; x < width; x += kLanes) {
        F sum[quantities];
        for (int q = 0; q < quantities; q++) sum[q] = F{};
        for (int k = 0; k < kWindow; k++) {
            const F w = splat(window.weight[k]);
            F value[quantities];
            source(x + k - kWindowRadius, value);
            for (int q = 0; q < quantities; q++) sum[q] = fma(w, value[q], sum[q]);
        }
        for (int q = 0; q < quantities; q++) std::memcpy(out[q] + x, &sum[q], sizeof(F));
    }
}

// gradient [h, w, 3] contiguous, or null; returns the loss. The sums run in row order, so the value has the same bits for any
// number of threads.
inline double image_loss(const ImageLossInput& in, real* gradient) {
    static const GaussianWindow window;
    const int width = in.width, height = in.height, padded = (width + kLanes - 1) / kLanes * kLanes;
    const real c1 = real(0.01 * 0.01), c2 = real(0.03 * 0.03);
    double mass = 3.0 * width * height;
    if (in.mask) {
        double sum = 0;
        for (long long k = 0; k < (long long)width * height; k++) sum += in.mask[k];
        mass = 3 * (sum > 1e-6 ? sum : 1e-6);
    }
    const real share = real(1 / mass), l1_weight = (1 - in.dssim) * share, ssim_weight = in.dssim * share;
    PaddedPlane x(width, height), y(width, height), mean_gradient(width, height), square_gradient(width, height), product_gradient(width, height);
    std::vector<double> row_sums((size_t)3 * height, 0.0);
    constexpr int kBand = 32;
    for (int channel = 0; channel < 3; channel++) {
        parallel_ranges(height, kBand, [&](int begin, int end, int, int) {
            for (int r = begin; r < end; r++) {
                real *a = x.row(r), *b = y.row(r);
                double sum = 0;
                for (int c = 0; c < width; c++) {
                    const long long pixel = (long long)r * width + c;
                    const real m = in.mask ? in.mask[pixel] : real(1);
                    a[c] = in.rendered[pixel * in.pixel_stride + channel] * m;
                    b[c] = in.target[pixel * 3 + channel] * m;
                    sum += std::fabs(a[c] - b[c]) * m;
                }
                row_sums[(size_t)channel * height + r] = sum * l1_weight;
            }
        });
        parallel_ranges(height, kBand, [&](int begin, int end, int, int) {
            if (in.dssim <= 0) return;
            const int rows = end - begin + 2 * kWindowRadius;
            std::vector<real> blurred((size_t)rows * 5 * padded);
            for (int r = 0; r < rows; r++) {
                real* out[5];
                for (int q = 0; q < 5; q++) out[q] = &blurred[((size_t)r * 5 + q) * padded];
                const int source_row = begin + r - kWindowRadius;
                const real *a = x.row(source_row), *b = y.row(source_row);
                blur_row<5>(window, width, out, [&](int column, F* v) {
                    const F p = load_lanes(a + column), q = load_lanes(b + column);
                    v[0] = p, v[1] = q, v[2] = p * p, v[3] = q * q, v[4] = p * q;
                });
            }
            for (int r = begin; r < end; r++) {
                double sum = 0;
                for (int c = 0; c < width; c += kLanes) {
                    F s[5];
                    for (auto& v : s) v = F{};
                    for (int k = 0; k < kWindow; k++) {
                        const F w = splat(window.weight[k]);
                        const real* row = &blurred[(size_t)(r - begin + k) * 5 * padded + c];
                        for (int q = 0; q < 5; q++) s[q] = fma(w, load_lanes(row + (size_t)q * padded), s[q]);
                    }
                    const F two = splat(2), mx = s[0], my = s[1];
                    const F n1 = two * mx * my + splat(c1), n2 = two * (s[4] - mx * my) + splat(c2);
                    const F d1 = mx * mx + my * my + splat(c1), d2 = (s[2] - mx * mx) + (s[3] - my * my) + splat(c2);
                    const F inverse = splat(1) / (d1 * d2), value = n1 * n2 * inverse;
                    F weight = splat(-ssim_weight);
                    const int count = width - c < kLanes ? width - c : kLanes;
                    for (int k = 0; k < kLanes; k++) {
                        const real m = k >= count ? real(0) : in.mask ? in.mask[(long long)r * width + c + k] : real(1);
                        weight[k] *= m;
                        if (k < count) sum += double(m) * (1 - value[k]);
                    }
                    const F to_square = -(value / d2), to_product = two * n1 * inverse;
                    const F to_mean = two * my * (n2 - n1) * inverse + two * mx * value * (splat(1) / d2 - splat(1) / d1);
                    auto put = [&](PaddedPlane& plane, F v) {
                        v = v * weight;
                        std::memcpy(plane.row(r) + c, &v, sizeof v);
                    };
                    put(mean_gradient, to_mean), put(square_gradient, to_square), put(product_gradient, to_product);
                }
                row_sums[(size_t)channel * height + r] += sum * ssim_weight;
            }
        });
        if (!gradient) continue;
        parallel_ranges(height, kBand, [&](int begin, int end, int, int) {
            const int rows = end - begin + 2 * kWindowRadius;
            std::vector<real> blurred((size_t)rows * 3 * padded, real(0));
            if (in.dssim > 0)
                for (int r = 0; r < rows; r++) {
                    real* out[3];
                    for (int q = 0; q < 3; q++) out[q] = &blurred[((size_t)r * 3 + q) * padded];
                    const int source_row = begin + r - kWindowRadius;
                    const real *a = mean_gradient.row(source_row), *b = square_gradient.row(source_row), *c = product_gradient.row(source_row);
                    blur_row<3>(window, width, out, [&](int column, F* v) {
                        v[0] = load_lanes(a + column), v[1] = load_lanes(b + column), v[2] = load_lanes(c + column);
                    });
                }
            for (int r = begin; r < end; r++)
                for (int c = 0; c < width; c += kLanes) {
                    F s[3];
                    for (auto& v : s) v = F{};
                    for (int k = 0; k < kWindow; k++) {
                        const F w = splat(window.weight[k]);
                        const real* row = &blurred[(size_t)(r - begin + k) * 3 * padded + c];
                        for (int q = 0; q < 3; q++) s[q] = fma(w, load_lanes(row + (size_t)q * padded), s[q]);
                    }
                    const F a = load_lanes(x.row(r) + c), b = load_lanes(y.row(r) + c);
                    const F smooth = s[0] + splat(2) * a * s[1] + b * s[2];
                    for (int k = 0; k < kLanes && c + k < width; k++) {
                        const long long pixel = (long long)r * width + c + k;
                        const real m = in.mask ? in.mask[pixel] : real(1);
                        const real sign = a[k] > b[k] ? real(1) : a[k] < b[k] ? real(-1) : real(0);
                        gradient[pixel * 3 + channel] = m * (smooth[k] + sign * l1_weight * m);
                    }
                }
        });
    }
    double total = 0;
    for (double v : row_sums) total += v;
    return total;
}

}  // namespace smalti
