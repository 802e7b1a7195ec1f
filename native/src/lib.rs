//! The compiled core of quicedge: runs of packets sealed and opened, what was sent and is not
//! acknowledged, and batched receive calls.
//!
//! Each class and function here has a twin of the same name and behaviour in Python, which is the
//! reference (`quicedge/native.py` says which of the two runs). Nothing here decides:
//! policy is Python's.

#![deny(clippy::undocumented_unsafe_blocks)]

mod agreement;
mod cipher;
mod frames;
mod keys;
mod lost_packets;
mod ranges;
#[cfg(target_os = "linux")]
mod receiver;
mod run_log;
mod send_buffer;

use pyo3::prelude::*;

/// Version of the interface; `quicedge/native.py` uses no other.
const INTERFACE: u32 = 4;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add_class::<cipher::PacketCipher>()?;
    module.add_class::<lost_packets::LostPackets>()?;
    module.add_class::<run_log::RunLog>()?;
    module.add_class::<send_buffer::SendBuffer>()?;
    module.add_function(wrap_pyfunction!(frames::parse_ack, module)?)?;
    module.add_function(wrap_pyfunction!(agreement::agree_x25519, module)?)?;
    module.add_function(wrap_pyfunction!(keys::expand_block, module)?)?;
    module.add_function(wrap_pyfunction!(keys::packet_keys, module)?)?;
    module.add_function(wrap_pyfunction!(keys::hmac_sha2, module)?)?;
    #[cfg(target_os = "linux")]
    module.add_class::<receiver::DatagramReceiver>()?;
    Ok(())
}
