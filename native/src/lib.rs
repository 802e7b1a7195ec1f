//! The compiled core of quicedge: runs of packets sealed and opened, and batched receive calls.
//!
//! Each class and function here has a twin of the same name and behaviour in Python, which is the
//! reference (`quicedge/native.py` says which of the two runs). Nothing here keeps state but keys
//! and scratch buffers, and nothing decides: policy is Python's.

#![deny(clippy::undocumented_unsafe_blocks)]

mod cipher;
mod frames;
mod keys;
#[cfg(target_os = "linux")]
mod receiver;

use pyo3::prelude::*;

/// Version of the interface; `quicedge/native.py` uses no other.
const INTERFACE: u32 = 1;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add_class::<cipher::PacketCipher>()?;
    module.add_function(wrap_pyfunction!(frames::parse_ack, module)?)?;
    module.add_function(wrap_pyfunction!(keys::expand_block, module)?)?;
    module.add_function(wrap_pyfunction!(keys::hmac_sha2, module)?)?;
    #[cfg(target_os = "linux")]
    module.add_class::<receiver::DatagramReceiver>()?;
    Ok(())
}
