// The pinhole camera as the kernels see it.
#pragma once
#include "lanes.h"

namespace smalti {

struct CameraValues {
    real rotation[9];      // world to camera, row major
    real translation[3];
    real fx, fy, cx, cy;   // pixels
    real near_plane;       // camera z
    int width, height;     // pixels
};

// Layout of the camera's gradient: rotation 9, translation 3, fx, fy, cx, cy.
constexpr int kCameraGradient = 16;

}  // namespace smalti
