// SPDX-License-Identifier: Apache-2.0
//! The built-in operations.

use crate::atoms;
use rustler::{Decoder, Encoder, Env, NifResult, NifUnitEnum, Term};
use sha2::{Digest, Sha256, Sha512};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;
use tokamak::{Ctx, Path, Value};

/// How much of a file is hashed between two looks at whether anybody still wants it.
const CHUNK: usize = 256 * 1024;

/// Gives its argument back.
#[tokamak::op(eager)]
async fn echo(value: Value) -> Value {
    value
}

/// Waits so many milliseconds.
#[tokamak::op]
async fn sleep(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// The numbers from 1 to `last`, one every so many milliseconds; 0: as fast as credit allows.
#[tokamak::op(stream)]
fn count(last: u64, milliseconds: u64) -> impl futures_core::Stream<Item = u64> {
    let interval = Duration::from_millis(milliseconds);
    futures_util::stream::unfold(1, move |next| async move {
        if next > last {
            return None;
        }
        if !interval.is_zero() {
            tokio::time::sleep(interval).await;
        }
        Some((next, next + 1))
    })
}

/// The digests that `hash_file` knows.
#[derive(Clone, Copy, NifUnitEnum)]
enum Algorithm {
    Sha256,
    Sha512,
    Blake3,
}

/// What to hash, and how: `[Path, Algorithm]`, in either order.
enum PathOrAlgorithm {
    Path(PathBuf),
    Algorithm(Algorithm),
}

impl<'a> Decoder<'a> for PathOrAlgorithm {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        match term.decode() {
            Ok(algorithm) => Ok(Self::Algorithm(algorithm)),
            Err(_) => Ok(Self::Path(term.decode::<Path>()?.0)),
        }
    }
}

/// The digest of a file in hexadecimal.
#[tokamak::op(blocking)]
fn hash_file(ctx: Ctx, path: PathOrAlgorithm, algorithm: PathOrAlgorithm) -> io::Result<String> {
    match (path, algorithm) {
        (PathOrAlgorithm::Path(path), PathOrAlgorithm::Algorithm(algorithm))
        | (PathOrAlgorithm::Algorithm(algorithm), PathOrAlgorithm::Path(path)) => {
            hash(&ctx, File::open(path)?, algorithm)
        }
        _ => Err(io::Error::from_raw_os_error(
            rustix::io::Errno::INVAL.raw_os_error(),
        )),
    }
}

fn hash(ctx: &Ctx, file: File, algorithm: Algorithm) -> io::Result<String> {
    match algorithm {
        Algorithm::Sha256 => {
            let mut digest = Sha256::new();
            each_chunk(ctx, file, |chunk| digest.update(chunk))?;
            Ok(hexadecimal(&digest.finalize()))
        }
        Algorithm::Sha512 => {
            let mut digest = Sha512::new();
            each_chunk(ctx, file, |chunk| digest.update(chunk))?;
            Ok(hexadecimal(&digest.finalize()))
        }
        Algorithm::Blake3 => {
            let mut digest = blake3::Hasher::new();
            each_chunk(ctx, file, |chunk| {
                digest.update(chunk);
            })?;
            Ok(digest.finalize().to_hex().to_string())
        }
    }
}

thread_local! {
    /// What a thread reads into: a new buffer for each file would cost more than a small file.
    static CHUNK_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn each_chunk(ctx: &Ctx, mut file: File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = CHUNK_BUFFER.take();
    chunk.resize(CHUNK, 0);
    let result = loop {
        if ctx.is_cancelled() {
            break Err(io::ErrorKind::Interrupted.into());
        }
        match file.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(count) => take(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    CHUNK_BUFFER.set(chunk);
    result
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The names in a directory, sorted, as binaries of their bytes.
#[tokamak::op(blocking)]
fn list_dir(path: Path) -> io::Result<Vec<Path>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path.0)? {
        names.push(PathBuf::from(entry?.file_name()));
    }
    names.sort();
    Ok(names.into_iter().map(Path).collect())
}

/// What is at a path.
enum Indexed {
    Directory,
    /// Its size in bytes and the SHA-256 of its content.
    File(u64, String),
    /// Another name of what is there.
    Link(PathBuf),
    /// A device, a socket, a FIFO.
    Other,
}

impl Encoder for Indexed {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Directory => atoms::directory().encode(env),
            Self::File(size, digest) => (atoms::file(), size, digest).encode(env),
            Self::Link(target) => (atoms::link(), Path(target.clone())).encode(env),
            Self::Other => atoms::other().encode(env),
        }
    }
}

/// What is at a path, and what that leads to: for a worker pool, which walks and hashes a tree.
/// A directory leads to its entries. A link, and a directory that is known by another name, lead to where
/// they are in truth: so nothing is visited under two names, and no circle is walked.
#[tokamak::op(blocking)]
fn index_file(ctx: Ctx, path: Path) -> io::Result<(Indexed, Vec<Path>)> {
    let Path(path) = path;
    let metadata = fs::symlink_metadata(&path)?;
    if metadata.is_file() {
        let digest = hash(&ctx, File::open(&path)?, Algorithm::Sha256)?;
        return Ok((Indexed::File(metadata.len(), digest), Vec::new()));
    }
    if metadata.is_symlink() {
        return lead_to(path.canonicalize()?);
    }
    if !metadata.is_dir() {
        return Ok((Indexed::Other, Vec::new()));
    }
    let real = path.canonicalize()?;
    // Paths compare by their parts: "a/./b" would be "a/b".
    if real.as_os_str() != path.as_os_str() {
        return lead_to(real);
    }
    let entries: io::Result<Vec<Path>> = fs::read_dir(&path)?
        .map(|entry| Ok(Path(entry?.path())))
        .collect();
    Ok((Indexed::Directory, entries?))
}

fn lead_to(target: PathBuf) -> io::Result<(Indexed, Vec<Path>)> {
    Ok((Indexed::Link(target.clone()), vec![Path(target)]))
}

/// A host name: a binary or a list of characters.
struct HostName(String);

impl<'a> Decoder<'a> for HostName {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let Path(name) = term.decode()?;
        let name = name.into_os_string().into_string();
        name.map(Self).map_err(|_| rustler::Error::BadArg)
    }
}

/// The addresses of a host name, as text.
#[tokamak::op(blocking)]
fn resolve_host(host: HostName) -> io::Result<Vec<String>> {
    let addresses = (host.0, 0).to_socket_addrs()?;
    let mut texts: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    texts.dedup();
    Ok(texts)
}
