// SPDX-License-Identifier: Apache-2.0
//! What the VM asks of the spawner.

use super::wire::{Malformed, Reader, Writer};

const START: u8 = 1;
const SIGNAL: u8 = 2;
const STOP: u8 = 3;
const RELEASE: u8 = 4;
const ENVIRONMENT: u8 = 5;

/// How many bytes at the beginning of a request tell what it is about: its kind, and an id.
pub const HEAD: usize = 9;

/// One message to the spawner. Requests about an id that is unknown or already gone do nothing: they
/// may have crossed with the child's exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Start a child.
    Start(StartRequest),
    /// Send a signal, unless the child itself has exited.
    Signal {
        /// The id given to `Start`.
        id: u64,
        /// The number of the signal.
        signal: i32,
        /// To all of the child's process group, rather than to the child alone.
        group: bool,
    },
    /// End the child and all its descendants, daemons included.
    Stop {
        /// The id given to `Start`.
        id: u64,
        /// From TERM to KILL, in milliseconds; 0 sends KILL at once.
        kill_timeout: u32,
    },
    /// Report nothing more about this child. It and its descendants go on, until the spawner ends.
    Release {
        /// The id given to `Start`.
        id: u64,
    },
    /// Keep an environment for the starts to come, in place of the one that was kept before.
    Environment {
        /// Chosen by the client, used once.
        id: u64,
        /// `NAME=value`, each name once.
        variables: Vec<Vec<u8>>,
    },
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The child with this id.
    Child(u64),
    /// The environment with this id.
    Environment(u64),
}

/// A child to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRequest {
    /// Chosen by the client, used once.
    pub id: u64,
    /// The program and its arguments. A program without a slash is looked up in the child's PATH.
    pub argv: Vec<Vec<u8>>,
    /// The environment to start from.
    pub base: Base,
    /// Changes to it, in order.
    pub environment: Vec<EnvironmentChange>,
    /// The child's working directory; without it, the one the spawner was started in.
    pub directory: Option<Vec<u8>>,
    /// Where the child's stdin comes from.
    pub stdin: Input,
    /// Where the child's stdout goes.
    pub stdout: Output,
    /// Where the child's stderr goes.
    pub stderr: Output,
    /// From TERM to KILL when the connection closes, in milliseconds.
    pub kill_timeout: u32,
}

/// The environment that a child's changes are made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The one the spawner was started with.
    Spawner,
    /// None.
    Empty,
    /// That of the `Environment` with this id, which must be the latest. Where that one could not be read, the start
    /// fails with its error; with `ENOMEM`, where it is not the latest or was not sent.
    Kept(u64),
}

/// A variable to set, or with no value, to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentChange {
    /// The variable's name: not empty, without `=`.
    pub name: Vec<u8>,
    /// The new value.
    pub value: Option<Vec<u8>>,
}

/// Where a child's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `/dev/null`.
    Null,
    /// A pipe whose write end is passed back.
    Pipe,
}

/// Where a child's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `/dev/null`.
    Null,
    /// A pipe whose read end is passed back.
    Stream,
    /// To wherever the other output goes. Not for both of them.
    Merge,
    /// To this file, created or emptied. A relative path starts from the child's directory.
    File(Vec<u8>),
}

impl Request {
    /// The request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(128);
        match self {
            Self::Start(start) => {
                message.push(START);
                start.encode(&mut message);
            }
            Self::Signal { id, signal, group } => {
                message.push(SIGNAL);
                message.put_u64(*id);
                message.put_i32(*signal);
                message.put_bool(*group);
            }
            Self::Stop { id, kill_timeout } => {
                message.push(STOP);
                message.put_u64(*id);
                message.put_u32(*kill_timeout);
            }
            Self::Release { id } => {
                message.push(RELEASE);
                message.put_u64(*id);
            }
            Self::Environment { id, variables } => {
                message.push(ENVIRONMENT);
                message.put_u64(*id);
                message.put_list(variables);
            }
        }
        message
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not exactly one request.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let request = match reader.u8()? {
            START => Self::Start(StartRequest::decode(&mut reader)?),
            SIGNAL => Self::Signal {
                id: reader.u64()?,
                signal: reader.i32()?,
                group: reader.bool()?,
            },
            STOP => Self::Stop {
                id: reader.u64()?,
                kill_timeout: reader.u32()?,
            },
            RELEASE => Self::Release { id: reader.u64()? },
            ENVIRONMENT => Self::Environment {
                id: reader.u64()?,
                variables: reader.list(Reader::bytes)?,
            },
            _ => return Err(Malformed("unknown request")),
        };
        reader.end()?;
        Ok(request)
    }

    /// Reads what a request is about.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not the first [`HEAD`] ones of a request.
    pub fn subject(head: &[u8]) -> Result<Subject, Malformed> {
        let mut reader = Reader::new(head);
        let kind = reader.u8()?;
        let id = reader.u64()?;
        reader.end()?;
        match kind {
            START | SIGNAL | STOP | RELEASE => Ok(Subject::Child(id)),
            ENVIRONMENT => Ok(Subject::Environment(id)),
            _ => Err(Malformed("unknown request")),
        }
    }

    /// The child or the environment this request is about.
    pub fn id(&self) -> u64 {
        match self {
            Self::Start(start) => start.id,
            Self::Signal { id, .. }
            | Self::Stop { id, .. }
            | Self::Release { id }
            | Self::Environment { id, .. } => *id,
        }
    }
}

impl StartRequest {
    /// A child with the spawner's environment and directory, all three streams as pipes, and 2 s from
    /// TERM to KILL.
    pub fn new(id: u64, argv: Vec<Vec<u8>>) -> Self {
        Self {
            id,
            argv,
            base: Base::Spawner,
            environment: Vec::new(),
            directory: None,
            stdin: Input::Pipe,
            stdout: Output::Stream,
            stderr: Output::Stream,
            kill_timeout: 2000,
        }
    }

    fn encode(&self, message: &mut Vec<u8>) {
        message.put_u64(self.id);
        message.put_u32(self.kill_timeout);
        message.put_list(&self.argv);
        self.base.encode(message);
        message.put_u32(self.environment.len() as u32);
        for EnvironmentChange { name, value } in &self.environment {
            message.put_bytes(name);
            message.put_optional_bytes(value.as_deref());
        }
        message.put_optional_bytes(self.directory.as_deref());
        message.put_bool(self.stdin == Input::Pipe);
        self.stdout.encode(message);
        self.stderr.encode(message);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: reader.u64()?,
            kill_timeout: reader.u32()?,
            argv: reader.list(Reader::bytes)?,
            base: Base::decode(reader)?,
            environment: reader.list(|reader| {
                Ok(EnvironmentChange {
                    name: reader.bytes()?,
                    value: reader.optional_bytes()?,
                })
            })?,
            directory: reader.optional_bytes()?,
            stdin: if reader.bool()? {
                Input::Pipe
            } else {
                Input::Null
            },
            stdout: Output::decode(reader)?,
            stderr: Output::decode(reader)?,
        })
    }
}

impl Base {
    fn encode(self, message: &mut Vec<u8>) {
        match self {
            Self::Spawner => message.push(0),
            Self::Empty => message.push(1),
            Self::Kept(id) => {
                message.push(2);
                message.put_u64(id);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            0 => Ok(Self::Spawner),
            1 => Ok(Self::Empty),
            2 => reader.u64().map(Self::Kept),
            _ => Err(Malformed("unknown environment")),
        }
    }
}

impl Output {
    fn encode(&self, message: &mut Vec<u8>) {
        match self {
            Self::Null => message.push(0),
            Self::Stream => message.push(1),
            Self::Merge => message.push(2),
            Self::File(path) => {
                message.push(3);
                message.put_bytes(path);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            0 => Ok(Self::Null),
            1 => Ok(Self::Stream),
            2 => Ok(Self::Merge),
            3 => reader.bytes().map(Self::File),
            _ => Err(Malformed("unknown output")),
        }
    }
}
