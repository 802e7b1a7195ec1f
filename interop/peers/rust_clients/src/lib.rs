//! What the harness says in the environment.

use std::{env, net::SocketAddr, process::exit, time::Duration};

/// How long a client waits for a session ticket after its handshake.
pub const TICKET_WAIT: Duration = Duration::from_millis(500);
const UNSUPPORTED: i32 = 127;

/// Reads the environment; exits with 127 for a case that is not in `supported`.
pub fn case(supported: &[&str]) -> String {
    let case = env::var("TESTCASE").unwrap_or_default();
    if env::var("ROLE").as_deref() != Ok("client") || !supported.contains(&case.as_str()) {
        exit(UNSUPPORTED);
    }
    case
}

pub fn server() -> SocketAddr {
    let port = env::var("PORT").ok().and_then(|text| text.parse().ok()).expect("PORT");
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub fn authority() -> String {
    format!("{}/ca.pem", env::var("CERTS").expect("CERTS"))
}
