//! Tasks of the project: demo, test, bench, docs, cluster.

fn main() {}
