// SPDX-License-Identifier: Apache-2.0
//! Signals by their names.

use rustix::process::Signal;
use rustler::{Atom, Term};

rustler::atoms! {
    sighup, sigint, sigquit, sigill, sigtrap, sigabrt, sigbus, sigfpe, sigkill, sigusr1, sigsegv, sigusr2,
    sigpipe, sigalrm, sigterm, sigchld, sigcont, sigstop, sigtstp, sigttin, sigttou, sigurg, sigxcpu,
    sigxfsz, sigvtalrm, sigprof, sigwinch, sigio, sigsys,
}

/// The highest number of a signal.
const HIGHEST: i32 = 64;

/// The number of a signal; `None`: it is no signal.
pub fn decode(term: Term) -> Option<i32> {
    if let Ok(number) = term.decode::<i32>() {
        return (1..=HIGHEST).contains(&number).then_some(number);
    }
    number(term.decode().ok()?)
}

fn number(name: Atom) -> Option<i32> {
    let signals = [
        (sighup(), Signal::HUP),
        (sigint(), Signal::INT),
        (sigquit(), Signal::QUIT),
        (sigill(), Signal::ILL),
        (sigtrap(), Signal::TRAP),
        (sigabrt(), Signal::ABORT),
        (sigbus(), Signal::BUS),
        (sigfpe(), Signal::FPE),
        (sigkill(), Signal::KILL),
        (sigusr1(), Signal::USR1),
        (sigsegv(), Signal::SEGV),
        (sigusr2(), Signal::USR2),
        (sigpipe(), Signal::PIPE),
        (sigalrm(), Signal::ALARM),
        (sigterm(), Signal::TERM),
        (sigchld(), Signal::CHILD),
        (sigcont(), Signal::CONT),
        (sigstop(), Signal::STOP),
        (sigtstp(), Signal::TSTP),
        (sigttin(), Signal::TTIN),
        (sigttou(), Signal::TTOU),
        (sigurg(), Signal::URG),
        (sigxcpu(), Signal::XCPU),
        (sigxfsz(), Signal::XFSZ),
        (sigvtalrm(), Signal::VTALARM),
        (sigprof(), Signal::PROF),
        (sigwinch(), Signal::WINCH),
        (sigio(), Signal::IO),
        (sigsys(), Signal::SYS),
    ];
    let (_, signal) = signals.into_iter().find(|(known, _)| *known == name)?;
    Some(signal.as_raw())
}
