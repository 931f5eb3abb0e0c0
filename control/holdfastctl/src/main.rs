//! Fleet command line of Holdfast.

fn main() {}
