//! End-to-end scenarios of Holdfast on real parts.
