"""Camera values, lens models, undistortion and trajectories."""
