//! Starts the real parts of Holdfast for tests, the demo and the benchmarks.
