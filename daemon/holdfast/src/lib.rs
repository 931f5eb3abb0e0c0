//! The Holdfast node: one binary that runs Kubernetes on a box nobody can walk up to.
