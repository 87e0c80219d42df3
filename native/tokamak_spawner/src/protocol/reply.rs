// SPDX-License-Identifier: Apache-2.0
//! What the spawner tells the VM.

use super::wire::{Malformed, Reader, Writer};

const HELLO: u8 = 1;
const STARTED: u8 = 2;
const START_FAILED: u8 = 3;
const EXITED: u8 = 4;
const GONE: u8 = 5;

/// One message from the spawner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The first message of a connection.
    Hello {
        /// The spawner's [`VERSION`](super::VERSION).
        version: u32,
        /// The family that all descendants of this spawner carry; see [`lineage`](crate::lineage).
        family: u32,
    },
    /// The child runs.
    Started {
        /// The id given to `Start`.
        id: u64,
        /// Its process id, which is also that of its process group.
        pid: u32,
        /// Which pipes travel with this message, in the order of the fields.
        streams: Streams,
    },
    /// No child was made, or an `Environment` could not be read.
    StartFailed {
        /// The id given to `Start`.
        id: u64,
        /// The number of the error; [`errno::name`](crate::errno::name) gives its name.
        errno: i32,
    },
    /// The child exited. Its descendants may still run and hold its pipes.
    Exited {
        /// The id given to `Start`.
        id: u64,
        /// How it ended.
        status: ExitStatus,
        /// No descendant is left, and the id is forgotten. Otherwise `Gone` follows.
        all_gone: bool,
    },
    /// After `Exited`: no descendant is left, and the id is forgotten.
    Gone {
        /// The id given to `Start`.
        id: u64,
    },
}

/// The pipes of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    /// The write end of its stdin.
    pub stdin: bool,
    /// The read end of its stdout.
    pub stdout: bool,
    /// The read end of its stderr.
    pub stderr: bool,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl Reply {
    /// The reply as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(16);
        match *self {
            Self::Hello { version, family } => {
                message.push(HELLO);
                message.put_u32(version);
                message.put_u32(family);
            }
            Self::Started { id, pid, streams } => {
                message.push(STARTED);
                message.put_u64(id);
                message.put_u32(pid);
                message.push(streams.bits());
            }
            Self::StartFailed { id, errno } => {
                message.push(START_FAILED);
                message.put_u64(id);
                message.put_i32(errno);
            }
            Self::Exited {
                id,
                status,
                all_gone,
            } => {
                message.push(EXITED);
                message.put_u64(id);
                message.extend_from_slice(&match status {
                    ExitStatus::Code(code) => [0, code],
                    ExitStatus::Signal(signal) => [1, signal],
                });
                message.put_bool(all_gone);
            }
            Self::Gone { id } => {
                message.push(GONE);
                message.put_u64(id);
            }
        }
        message
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not exactly one reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let reply = match reader.u8()? {
            HELLO => Self::Hello {
                version: reader.u32()?,
                family: reader.u32()?,
            },
            STARTED => Self::Started {
                id: reader.u64()?,
                pid: reader.u32()?,
                streams: Streams::from_bits(reader.u8()?)?,
            },
            START_FAILED => Self::StartFailed {
                id: reader.u64()?,
                errno: reader.i32()?,
            },
            EXITED => Self::Exited {
                id: reader.u64()?,
                status: ExitStatus::decode(&mut reader)?,
                all_gone: reader.bool()?,
            },
            GONE => Self::Gone { id: reader.u64()? },
            _ => return Err(Malformed("unknown reply")),
        };
        reader.end()?;
        Ok(reply)
    }

    /// The child this reply is about.
    pub fn id(&self) -> Option<u64> {
        match *self {
            Self::Hello { .. } => None,
            Self::Started { id, .. }
            | Self::StartFailed { id, .. }
            | Self::Exited { id, .. }
            | Self::Gone { id } => Some(id),
        }
    }
}

impl Streams {
    /// How many pipes these are.
    pub fn count(self) -> usize {
        [self.stdin, self.stdout, self.stderr]
            .into_iter()
            .filter(|present| *present)
            .count()
    }

    fn bits(self) -> u8 {
        u8::from(self.stdin) | u8::from(self.stdout) << 1 | u8::from(self.stderr) << 2
    }

    fn from_bits(bits: u8) -> Result<Self, Malformed> {
        if bits > 7 {
            return Err(Malformed("unknown stream"));
        }
        Ok(Self {
            stdin: bits & 1 != 0,
            stdout: bits & 2 != 0,
            stderr: bits & 4 != 0,
        })
    }
}

impl ExitStatus {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            0 => reader.u8().map(Self::Code),
            1 => reader.u8().map(Self::Signal),
            _ => Err(Malformed("unknown exit status")),
        }
    }
}
