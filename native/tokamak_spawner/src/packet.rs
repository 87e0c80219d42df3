// SPDX-License-Identifier: Apache-2.0
//! Packets with descriptors over a SOCK_SEQPACKET socket. Both sides work without blocking.
//!
//! One message is one packet, so it arrives whole or not at all and threads need no lock to send. A
//! request that is too long for a packet travels as an anonymous file (memfd) whose descriptor is
//! sent with a short packet in its place.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::protocol::{HEAD, MAX_REQUEST};

/// The longest packet in bytes, well below the default send buffer of a socket.
pub const MAX_PACKET: usize = 16 * 1024;

/// The longest reply in bytes.
pub const MAX_REPLY: usize = 64;

/// The most descriptors in one packet.
pub const MAX_DESCRIPTORS: usize = 3;

/// The first byte of a packet that stands for a request in a file; the head of that request follows.
const IN_FILE: u8 = 0;

/// What one receive gave.
#[derive(Debug)]
pub struct Packet<'buffer> {
    /// The message; empty when the other side has closed the connection.
    pub bytes: &'buffer [u8],
    /// The descriptors that came with it, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// This process had no room for some of the descriptors: the kernel closed those.
    pub lost_descriptors: bool,
}

/// Sends one packet.
///
/// # Errors
/// `AGAIN` when the socket is full, `PIPE` when the other side has closed, and what `sendmsg` gives.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags))?;
    Ok(())
}

/// Sends a request, in a file when it is longer than a packet.
///
/// # Errors
/// As [`send`]; `TOOBIG` for more than [`MAX_REQUEST`] bytes; what making the file gives.
pub fn send_request(socket: impl AsFd, request: &[u8]) -> Result<()> {
    if request.len() <= MAX_PACKET {
        return send(socket, request, &[]);
    }
    if request.len() > MAX_REQUEST {
        return Err(Errno::TOOBIG);
    }
    let mut file = File::from(memfd_create(c"tokamak_request", MemfdFlags::CLOEXEC)?);
    file.write_all(request).map_err(to_errno)?;
    let mut packet = vec![IN_FILE];
    packet.extend_from_slice(&request[..HEAD]);
    send(socket, &packet, &[file.as_fd()])
}

/// Receives one packet.
///
/// # Errors
/// `AGAIN` when there is none, `MSGSIZE` for one longer than the buffer, and what `recvmsg` gives.
pub fn receive<'buffer>(socket: impl AsFd, buffer: &'buffer mut [u8]) -> Result<Packet<'buffer>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received =
        retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok(Packet {
        bytes: &buffer[..received.bytes],
        descriptors,
        lost_descriptors: received.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// The head of the request that is in a file, where this packet stands for one.
pub fn head_of_request_in_file(packet: &[u8]) -> Option<&[u8]> {
    match packet.split_first()? {
        (&IN_FILE, head) => Some(head),
        _ => None,
    }
}

/// Reads the request from the file that came with a packet.
///
/// # Errors
/// `TOOBIG` for more than [`MAX_REQUEST`] bytes, and what reading gives.
pub fn read_request_file(descriptor: OwnedFd) -> Result<Vec<u8>> {
    let file = File::from(descriptor);
    let length = file.metadata().map_err(to_errno)?.len();
    if length > MAX_REQUEST as u64 {
        return Err(Errno::TOOBIG);
    }
    let mut request = vec![0; length as usize];
    file.read_exact_at(&mut request, 0).map_err(to_errno)?;
    Ok(request)
}

fn to_errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
