//! The central side of Holdfast: enrolment, releases, signing, status, web page.

fn main() {}
