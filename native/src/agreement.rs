//! Key agreement on Curve25519 (RFC 7748), with a key that is used once.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::error::Unspecified;
use ring::rand::SystemRandom;

type Pair<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// Our key share and the shared secret, for the peer's key share; ValueError for one of the wrong
/// length or that leads to a secret of zeros (RFC 8446 section 7.4.2).
#[pyfunction]
pub fn agree_x25519<'py>(py: Python<'py>, theirs: &[u8]) -> PyResult<Pair<'py>> {
    agree(py, theirs).map_err(|Unspecified| PyValueError::new_err("no X25519 key share"))
}

fn agree<'py>(py: Python<'py>, theirs: &[u8]) -> Result<Pair<'py>, Unspecified> {
    let key = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())?;
    let ours = key.compute_public_key()?;
    let theirs = UnparsedPublicKey::new(&X25519, theirs);
    let secret = agree_ephemeral(key, &theirs, |secret| PyBytes::new(py, secret))?;
    Ok((PyBytes::new(py, ours.as_ref()), secret))
}
