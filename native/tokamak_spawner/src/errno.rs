// SPDX-License-Identifier: Apache-2.0
//! Error numbers by their POSIX names.

use rustix::io::Errno;

/// The lower-case POSIX name of an error number, such as `enoent`, or `unknown`.
pub fn name(errno: i32) -> &'static str {
    NAMES
        .iter()
        .find(|(known, _)| known.raw_os_error() == errno)
        .map_or("unknown", |(_, name)| name)
}

/// What starting a process, its files or its directory can fail with.
const NAMES: &[(Errno, &str)] = &[
    (Errno::TOOBIG, "e2big"),
    (Errno::ACCESS, "eacces"),
    (Errno::AGAIN, "eagain"),
    (Errno::BADF, "ebadf"),
    (Errno::BUSY, "ebusy"),
    (Errno::DQUOT, "edquot"),
    (Errno::EXIST, "eexist"),
    (Errno::FAULT, "efault"),
    (Errno::FBIG, "efbig"),
    (Errno::INTR, "eintr"),
    (Errno::INVAL, "einval"),
    (Errno::IO, "eio"),
    (Errno::ISDIR, "eisdir"),
    (Errno::LIBBAD, "elibbad"),
    (Errno::LOOP, "eloop"),
    (Errno::MFILE, "emfile"),
    (Errno::NAMETOOLONG, "enametoolong"),
    (Errno::NFILE, "enfile"),
    (Errno::NOBUFS, "enobufs"),
    (Errno::NODEV, "enodev"),
    (Errno::NOENT, "enoent"),
    (Errno::NOEXEC, "enoexec"),
    (Errno::NOMEM, "enomem"),
    (Errno::NOSPC, "enospc"),
    (Errno::NOSYS, "enosys"),
    (Errno::NOTDIR, "enotdir"),
    (Errno::NXIO, "enxio"),
    (Errno::OPNOTSUPP, "eopnotsupp"),
    (Errno::OVERFLOW, "eoverflow"),
    (Errno::PERM, "eperm"),
    (Errno::PIPE, "epipe"),
    (Errno::ROFS, "erofs"),
    (Errno::STALE, "estale"),
    (Errno::TIMEDOUT, "etimedout"),
    (Errno::TOOMANYREFS, "etoomanyrefs"),
    (Errno::TXTBSY, "etxtbsy"),
];
