//! Batched receive calls: `recvmmsg`, with what GRO coalesced split up again, and control messages.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

/// Messages per system call, each of which may hold a whole GRO batch.
const MESSAGES: usize = 16;
/// Bytes of the largest GRO batch, and a little more, so that buffers do not share cache sets.
const STRIDE: usize = 65536 + 1536;
/// Room for pktinfo, traffic class, GRO size and queue overflow, with their headers.
const CONTROL: usize = 128;
const NAME: usize = size_of::<libc::sockaddr_in6>();

const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGNMENT: usize = size_of::<usize>();

/// What the control messages of a datagram say.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Control {
    marks: Marks,
    /// Bytes of each datagram that GRO coalesced; 0 when it did not.
    segment: usize,
}

/// Where a datagram was sent to, and its ECN mark.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Marks {
    /// A pktinfo message that makes replies leave from the address that the peer sent to.
    local: [u8; 20],
    local_length: usize,
    ecn: u8,
}

fn int_at(data: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// Reads control messages (cmsg(3)); what is cut short is left out.
fn read_control(mut data: &[u8]) -> Control {
    let mut control = Control::default();
    let marks = &mut control.marks;
    while let Some(length) = data.get(..size_of::<usize>()) {
        let length = usize::from_ne_bytes(length.try_into().unwrap_or_default());
        let (Some(level), Some(kind)) =
            (int_at(data, size_of::<usize>()), int_at(data, size_of::<usize>() + 4))
        else {
            break;
        };
        let Some(content) = data.get(HEADER..length) else { break };
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                control.segment =
                    int_at(content, 0).and_then(|size| size.try_into().ok()).unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if content.len() >= 12 => {
                // Any interface with a route: only the address is kept.
                marks.local = [0; 20];
                marks.local[4..8].copy_from_slice(&content[4..8]);
                marks.local_length = 12;
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                marks.ecn = content.first().map_or(0, |tos| tos & 3);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if content.len() >= 20 => {
                marks.local.copy_from_slice(&content[..20]);
                if content[0] != 0xfe {
                    // Only a link-local address needs its interface.
                    marks.local[16..].fill(0);
                }
                marks.local_length = 20;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                marks.ecn = int_at(content, 0).map_or(0, |class| (class & 3) as u8);
            }
            _ => {}
        }
        let next = length.div_ceil(ALIGNMENT) * ALIGNMENT;
        data = data.get(next..).unwrap_or_default();
    }
    control
}

/// An IPv6 address as inet_ntop(3) writes it.
fn ipv6_text(address: Ipv6Addr) -> String {
    let segments = address.segments();
    if segments[..6] == [0; 6] && segments[6] != 0 {
        let [.., a, b, c, d] = address.octets();
        return format!("::{}", Ipv4Addr::new(a, b, c, d));
    }
    address.to_string()
}

/// A socket address as Python's socket module has it.
fn address<'py>(py: Python<'py>, name: &[u8; NAME]) -> PyResult<Bound<'py, PyTuple>> {
    let family = i32::from(u16::from_ne_bytes([name[0], name[1]]));
    let port = u16::from_be_bytes([name[2], name[3]]);
    if family == libc::AF_INET {
        let host = Ipv4Addr::new(name[4], name[5], name[6], name[7]);
        return (host.to_string(), port).into_pyobject(py);
    }
    let [flow, scope] = [4, 24].map(|at| [name[at], name[at + 1], name[at + 2], name[at + 3]]);
    let host: [u8; 16] = std::array::from_fn(|index| name[8 + index]);
    let host = ipv6_text(host.into());
    (host, port, u32::from_be_bytes(flow), u32::from_ne_bytes(scope)).into_pyobject(py)
}

/// Buffers of one call.
struct Scratch {
    data: Vec<u8>,
    control: Vec<[u64; CONTROL / 8]>,
    names: [[u8; NAME]; MESSAGES],
}

/// A message that the kernel filled in.
struct Message {
    size: usize,
    flags: i32,
    control: usize,
}

impl Scratch {
    fn new() -> Self {
        Scratch {
            // Zeroed pages of the allocator are not touched before the kernel writes to them.
            data: vec![0; MESSAGES * STRIDE],
            control: vec![[0; CONTROL / 8]; MESSAGES],
            names: [[0; NAME]; MESSAGES],
        }
    }

    /// Up to `count` messages of a socket.
    fn receive(&mut self, fd: i32, count: usize) -> io::Result<Vec<Message>> {
        let count = count.min(MESSAGES);
        // SAFETY: both are plain C structs for which all zeroes are valid.
        let (mut vectors, mut headers): ([libc::iovec; MESSAGES], [libc::mmsghdr; MESSAGES]) =
            unsafe { (zeroed(), zeroed()) };
        // Each buffer is borrowed once, so that the pointers to the others stay valid.
        let buffers =
            self.data.chunks_exact_mut(STRIDE).zip(&mut self.control).zip(&mut self.names);
        for ((header, vector), ((data, control), name)) in
            headers[..count].iter_mut().zip(&mut vectors).zip(buffers)
        {
            vector.iov_base = data.as_mut_ptr().cast();
            vector.iov_len = STRIDE;
            let message = &mut header.msg_hdr;
            message.msg_iov = vector;
            message.msg_iovlen = 1;
            message.msg_name = name.as_mut_ptr().cast();
            message.msg_namelen = NAME as libc::socklen_t;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = CONTROL as _;
        }
        // SAFETY: every pointer in the first `count` headers is to a buffer of `self` or of this
        // frame that lives until the call returns, and each length is that of its buffer.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(headers[..received.min(count)]
            .iter()
            .map(|header| Message {
                size: (header.msg_len as usize).min(STRIDE),
                flags: header.msg_hdr.msg_flags,
                control: header.msg_hdr.msg_controllen.min(CONTROL),
            })
            .collect())
    }

    fn control(&self, index: usize, length: usize) -> Control {
        let mut bytes = [0u8; CONTROL];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(&self.control[index]) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        read_control(&bytes[..length])
    }

    fn data(&self, index: usize, size: usize) -> &[u8] {
        &self.data[index * STRIDE..index * STRIDE + size]
    }
}

/// Runs of datagrams: remote address, local address, ECN mark, datagrams.
type Runs<'py> = Bound<'py, PyList>;

/// What a receiver delivered: runs, reads, bytes, truncated messages, GRO batches, and errors.
type Batch<'py> = (Runs<'py>, usize, usize, usize, usize, usize);

/// Receives from one socket; the buffers are allocated with the first read.
#[pyclass(module = "quicedge._native")]
pub struct DatagramReceiver {
    socket: Py<PyAny>,
    scratch: Option<Scratch>,
}

#[pymethods]
impl DatagramReceiver {
    #[new]
    fn new(socket: Py<PyAny>) -> Self {
        DatagramReceiver { socket, scratch: None }
    }

    /// Reads what has arrived: at most `max_reads` messages, and no more once `max_bytes` are read.
    fn receive<'py>(
        &mut self,
        py: Python<'py>,
        max_reads: usize,
        max_bytes: usize,
    ) -> PyResult<Batch<'py>> {
        // Asked each time: after `close` the number may be another file's.
        let fd: i32 = self.socket.call_method0(py, "fileno")?.extract(py)?;
        let scratch = self.scratch.get_or_insert_with(Scratch::new);
        let runs = PyList::empty(py);
        let (mut reads, mut nbytes, mut truncated, mut coalesced, mut errors) = (0, 0, 0, 0, 0);
        let mut last: Option<([u8; NAME], Marks)> = None;
        let mut datagrams = PyList::empty(py);
        let mut left = max_reads;
        while left > 0 && nbytes <= max_bytes {
            let asked = left.min(MESSAGES);
            let messages = match scratch.receive(fd, asked) {
                Ok(messages) => messages,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => break,
                    // An ICMP error of an earlier send; the next read continues.
                    _ => {
                        errors += 1;
                        left -= 1;
                        continue;
                    }
                },
            };
            let received = messages.len();
            left -= received;
            for (index, message) in messages.into_iter().enumerate() {
                reads += 1;
                if message.flags & libc::MSG_TRUNC != 0 {
                    truncated += 1;
                    continue;
                }
                let Control { marks, segment } = scratch.control(index, message.control);
                let name = scratch.names[index];
                if last != Some((name, marks)) {
                    // Most datagrams of a wake-up come from one peer.
                    datagrams = PyList::empty(py);
                    let local = PyBytes::new(py, &marks.local[..marks.local_length]);
                    runs.append((address(py, &name)?, local, marks.ecn, &datagrams))?;
                    last = Some((name, marks));
                }
                nbytes += message.size;
                let data = scratch.data(index, message.size);
                if segment == 0 || data.len() <= segment {
                    datagrams.append(PyBytes::new(py, data))?;
                } else {
                    coalesced += 1;
                    for segment in data.chunks(segment) {
                        datagrams.append(PyBytes::new(py, segment))?;
                    }
                }
            }
            if received < asked {
                break;
            }
        }
        Ok((runs, reads, nbytes, truncated, coalesced, errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, content: &[u8]) -> Vec<u8> {
        let length = HEADER + content.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(length.div_ceil(ALIGNMENT) * ALIGNMENT, 0);
        bytes
    }

    #[test]
    fn control_messages_are_read_in_any_order_and_up_to_a_cut() {
        let mut all = message(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes());
        all.extend(message(libc::IPPROTO_IP, libc::IP_TOS, &[0x2e | 1]));
        all.extend(message(
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            &[9, 9, 9, 9, 127, 0, 0, 1, 8, 8, 8, 8],
        ));
        let Control { marks, segment } = read_control(&all);
        assert_eq!((segment, marks.ecn, marks.local_length), (1200, 3, 12));
        assert_eq!(marks.local[..12], [0, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0]);
        for cut in 0..all.len() {
            read_control(&all[..cut]);
        }
        assert_eq!(read_control(&all[..23]).marks.ecn, 0);
    }

    #[test]
    fn only_a_link_local_address_keeps_its_interface() {
        let mut info = [1u8; 20];
        info[0] = 0x20;
        let read = |info: &[u8]| {
            read_control(&message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)).marks
        };
        assert_eq!(read(&info).local[16..], [0; 4]);
        info[0] = 0xfe;
        assert_eq!(read(&info).local[16..], [1; 4]);
    }

    #[test]
    fn addresses_are_written_as_the_c_library_writes_them() {
        for text in ["::", "::1", "::ffff:1.2.3.4", "::1.2.3.4", "2001:db8::1", "fe80::1:0:0:2"] {
            assert_eq!(ipv6_text(text.parse().unwrap()), text);
        }
    }

    #[test]
    fn a_length_beyond_any_bound_ends_the_reading() {
        for length in [0usize, 1, 15, 4096, usize::MAX] {
            let mut bytes = message(libc::IPPROTO_IP, libc::IP_TOS, &[1]);
            bytes[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(read_control(&bytes), Control::default());
        }
    }
}
