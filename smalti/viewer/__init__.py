"""The browser viewer: our own renderer's pictures, streamed to a page that can look around, edit and steer a training."""
