//! HMAC and the one block of HKDF that TLS 1.3 and QUIC derive keys with.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ring::hmac;

const PREFIX: &[u8] = b"tls13 ";

fn algorithm(digest_size: usize) -> PyResult<hmac::Algorithm> {
    match digest_size {
        32 => Ok(hmac::HMAC_SHA256),
        48 => Ok(hmac::HMAC_SHA384),
        _ => Err(PyValueError::new_err("unknown hash")),
    }
}

/// HMAC (RFC 2104) with the SHA-2 hash of this size.
#[pyfunction]
pub fn hmac_sha2<'py>(
    py: Python<'py>,
    digest_size: usize,
    key: &[u8],
    message: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let key = hmac::Key::new(algorithm(digest_size)?, key);
    Ok(PyBytes::new(py, hmac::sign(&key, message).as_ref()))
}

/// HKDF-Expand-Label (RFC 8446 section 7.1) of at most one block.
#[pyfunction]
pub fn expand_block<'py>(
    py: Python<'py>,
    digest_size: usize,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    length: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let key = hmac::Key::new(algorithm(digest_size)?, secret);
    let name = u8::try_from(PREFIX.len() + label.len());
    let (Ok(name), Ok(size)) = (name, u8::try_from(context.len())) else {
        return Err(PyValueError::new_err("label or context too long"));
    };
    if length > digest_size {
        return Err(PyValueError::new_err("more than one block"));
    }
    let mut state = hmac::Context::with_key(&key);
    // At most 48, so that it takes two bytes.
    state.update(&(length as u16).to_be_bytes());
    state.update(&[name]);
    state.update(PREFIX);
    state.update(label);
    state.update(&[size]);
    state.update(context);
    state.update(&[1]);
    Ok(PyBytes::new(py, &state.sign().as_ref()[..length]))
}
