//! Filtered back-projection on the GPU.
