//! How a box becomes a node, and stays one: tokens, the enrolment request, renewal of the certificate.

pub mod tls;
