//! HMAC and the one block of HKDF that TLS 1.3 and QUIC derive keys with.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ring::hmac;

const PREFIX: &[u8] = b"tls13 ";
const IV_LENGTH: usize = 12;

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
    let block = expand(&key, &[label], context, length)?;
    Ok(PyBytes::new(py, &block.as_ref()[..length]))
}

type Keys<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// Key, IV and header protection key of a traffic secret (RFC 9001 section 5.1), which is as long
/// as its hash; `prefix` is that of the labels.
#[pyfunction]
pub fn packet_keys<'py>(
    py: Python<'py>,
    secret: &[u8],
    prefix: &[u8],
    length: usize,
) -> PyResult<Keys<'py>> {
    let key = hmac::Key::new(algorithm(secret.len())?, secret);
    let derive = |label: &[u8], length| -> PyResult<_> {
        let block = expand(&key, &[prefix, label], b"", length)?;
        Ok(PyBytes::new(py, &block.as_ref()[..length]))
    };
    Ok((derive(b"key", length)?, derive(b"iv", IV_LENGTH)?, derive(b"hp", length)?))
}

/// The block that HKDF-Expand-Label begins with; `label` in parts, `length` of what it is for.
fn expand(key: &hmac::Key, label: &[&[u8]], context: &[u8], length: usize) -> PyResult<hmac::Tag> {
    let name = PREFIX.len() + label.iter().map(|part| part.len()).sum::<usize>();
    let (Ok(name), Ok(size)) = (u8::try_from(name), u8::try_from(context.len())) else {
        return Err(PyValueError::new_err("label or context too long"));
    };
    if length > key.algorithm().digest_algorithm().output_len() {
        return Err(PyValueError::new_err("more than one block"));
    }
    let mut state = hmac::Context::with_key(key);
    // At most 48, so that it takes two bytes.
    state.update(&(length as u16).to_be_bytes());
    state.update(&[name]);
    state.update(PREFIX);
    for part in label {
        state.update(part);
    }
    state.update(&[size]);
    state.update(context);
    state.update(&[1]);
    Ok(state.sign())
}
