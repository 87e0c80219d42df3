// SPDX-License-Identifier: Apache-2.0
//! Children start as asked, or the start fails with the exact error.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, getpgid, getsid};

use support::{Ended, Spawner, field_of, shell, without_stdin};
use tokamak_spawner::protocol::{
    Base, EnvironmentChange, ExitStatus, Output, Request, StartRequest,
};

/// A new directory of this name, removed before and not after.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    directory
}

fn script(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set(name: &str, value: &str) -> EnvironmentChange {
    EnvironmentChange {
        name: name.into(),
        value: Some(value.into()),
    }
}

fn in_directory(start: StartRequest, directory: &Path) -> StartRequest {
    StartRequest {
        directory: Some(directory.to_str().unwrap().into()),
        ..start
    }
}

#[test]
fn status_and_both_outputs_are_exact() {
    let mut spawner = Spawner::start();
    let ended = spawner.shell(1, "printf out; printf err >&2; exit 42");
    let expected = Ended {
        status: ExitStatus::Code(42),
        stdout: "out".into(),
        stderr: "err".into(),
    };
    assert_eq!(ended, expected);
}

#[test]
fn every_exit_code_is_exact() {
    let mut spawner = Spawner::start();
    for code in 0..=255_u8 {
        let ended = spawner.shell(u64::from(code) + 1, &format!("exit {code}"));
        assert_eq!(ended.status, ExitStatus::Code(code));
    }
}

#[test]
fn an_end_by_a_signal_is_told_from_an_exit() {
    let mut spawner = Spawner::start();
    for (id, signal) in [(1, 1_u8), (2, 2), (3, 9), (4, 15), (5, 34), (6, 64)] {
        let ended = spawner.shell(id, &format!("kill -{signal} $$"));
        assert_eq!(ended.status, ExitStatus::Signal(signal));
    }
}

#[test]
fn a_signal_goes_to_the_child_or_to_its_group() {
    let mut spawner = Spawner::start();
    for (id, group) in [(1, false), (2, true)] {
        let command = shell(id, "sleep 1000 >/dev/null 2>&1 & echo $!; exec sleep 1000");
        let other = spawner.shell_pids(command, 1)[0];
        spawner.send(Request::Signal {
            id,
            signal: 15,
            group,
        });
        assert_eq!(spawner.status(id), ExitStatus::Signal(15));
        if group {
            spawner.gone(id);
        }
        assert_eq!(support::is_alive(other), !group);
    }
}

#[test]
fn a_signal_to_a_child_that_exited_does_nothing() {
    let mut spawner = Spawner::start();
    spawner.shell(1, "exit 0");
    spawner.send(Request::Signal {
        id: 1,
        signal: 9,
        group: true,
    });
    spawner.send(Request::Signal {
        id: 77,
        signal: 9,
        group: false,
    });
    assert_eq!(spawner.shell(2, "exit 3").status, ExitStatus::Code(3));
}

#[test]
fn what_is_written_to_stdin_arrives_and_its_close_is_the_end() {
    let mut spawner = Spawner::start();
    let cat = StartRequest::new(1, vec![b"cat".to_vec()]);
    spawner.started(cat);
    let text = "0123456789abcdef".repeat(20_000);
    support::blocking(spawner.take_stdin(1).into())
        .write_all(text.as_bytes())
        .unwrap();
    let ended = spawner.ended(1);
    assert_eq!(ended.status, ExitStatus::Code(0));
    assert!(
        ended.stdout == text,
        "{} of {} bytes",
        ended.stdout.len(),
        text.len()
    );
}

#[test]
fn the_pipes_of_the_owner_do_not_block() {
    let mut spawner = Spawner::start();
    spawner.started(StartRequest::new(
        1,
        vec![b"sleep".to_vec(), b"1000".to_vec()],
    ));
    let mut stdin = spawner.take_stdin(1);
    let error = std::iter::repeat_with(|| stdin.write(&[0; 65536]))
        .find_map(Result::err)
        .unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn stderr_merges_into_stdout_in_order() {
    let mut spawner = Spawner::start();
    let start = shell(1, "printf a; printf b >&2; printf c");
    let ended = spawner.run(StartRequest {
        stderr: Output::Merge,
        ..start
    });
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("abc", ""));
    let start = shell(2, "printf a; printf b >&2; printf c");
    let ended = spawner.run(StartRequest {
        stdout: Output::Merge,
        ..start
    });
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", "abc"));
}

#[test]
fn two_outputs_cannot_merge_into_each_other() {
    let mut spawner = Spawner::start();
    let start = shell(1, "");
    let start = StartRequest {
        stdout: Output::Merge,
        stderr: Output::Merge,
        ..start
    };
    assert_eq!(spawner.start_error(start), "einval");
}

#[test]
fn output_to_null_goes_nowhere() {
    let mut spawner = Spawner::start();
    let start = shell(
        1,
        "out=$(readlink /proc/$$/fd/1); echo $out >&2; echo nowhere; read line; echo $? >&2",
    );
    let ended = spawner.run(StartRequest {
        stdout: Output::Null,
        ..start
    });
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("", "/dev/null\n1\n")
    );
}

#[test]
fn output_to_a_file_replaces_what_it_held() {
    let directory = directory("output_to_a_file");
    fs::write(directory.join("out"), "something longer").unwrap();
    let mut spawner = Spawner::start();
    let start = in_directory(shell(1, "printf new; printf merged >&2"), &directory);
    let file = Output::File(b"out".to_vec());
    let ended = spawner.run(StartRequest {
        stdout: file,
        stderr: Output::Merge,
        ..start
    });
    assert_eq!(ended.status, ExitStatus::Code(0));
    assert_eq!(fs::read(directory.join("out")).unwrap(), b"newmerged");
}

#[test]
fn a_file_that_cannot_be_opened_fails_the_start_by_name() {
    let directory = directory("files_that_cannot_be_opened");
    let fifo = directory.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let mut spawner = Spawner::start();
    let path = |name: &str| directory.join(name).to_str().unwrap().as_bytes().to_vec();
    let errors = [
        (path("no/file"), "enoent"),
        (path(""), "eisdir"),
        (path("fifo"), "enxio"),
        (b"a\0b".to_vec(), "einval"),
    ];
    for ((path, error), id) in errors.into_iter().zip(1..) {
        let start = shell(id, "echo never");
        let start = StartRequest {
            stdout: Output::File(path),
            ..start
        };
        assert_eq!(spawner.start_error(start), error);
    }
}

#[test]
fn a_start_that_fails_says_why() {
    let directory = directory("starts_that_fail");
    script(&directory.join("not_executable"), "#!/bin/sh\n", 0o600);
    script(&directory.join("no_format"), "echo run by a shell\n", 0o700);
    script(
        &directory.join("no_interpreter"),
        "#!/no/interpreter\n",
        0o700,
    );
    std::os::unix::fs::symlink("loop", directory.join("loop")).unwrap();
    let mut spawner = Spawner::start();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let errors = [
        ("no_such_program_anywhere".to_owned(), "enoent"),
        (String::new(), "enoent"),
        (path("missing"), "enoent"),
        (path("no_interpreter"), "enoent"),
        (path("not_executable"), "eacces"),
        (path(""), "eacces"),
        (path("no_format"), "enoexec"),
        (path("no_format/below"), "enotdir"),
        (path("loop"), "eloop"),
        ("/bin/".to_owned() + &"x".repeat(300), "enametoolong"),
        ("a\0b".to_owned(), "einval"),
    ];
    for ((program, error), id) in errors.into_iter().zip(1..) {
        let start = without_stdin(id, &[&program]);
        assert_eq!(spawner.start_error(start), error, "{program}");
    }
    assert_eq!(spawner.start_error(without_stdin(90, &[])), "einval");
    assert_eq!(spawner.shell(91, "exit 1").status, ExitStatus::Code(1));
}

#[test]
fn a_directory_that_is_none_fails_the_start() {
    let mut spawner = Spawner::start();
    let errors = [
        ("/no/such/directory", "enoent"),
        ("/dev/null", "enotdir"),
        ("", "enoent"),
    ];
    for ((directory, error), id) in errors.into_iter().zip(1..) {
        let start = in_directory(shell(id, "echo never"), Path::new(directory));
        assert_eq!(spawner.start_error(start), error, "{directory}");
    }
}

#[test]
fn a_child_starts_in_its_directory_and_finds_its_program_there() {
    let directory = directory("working_directory");
    script(&directory.join("here"), "#!/bin/sh\npwd -P\n", 0o700);
    let mut spawner = Spawner::start();
    let expected = format!("{}\n", directory.canonicalize().unwrap().display());
    let start = in_directory(without_stdin(1, &["./here"]), &directory);
    assert_eq!(spawner.run(start).stdout, expected);
    let mut start = in_directory(without_stdin(2, &["here"]), &directory);
    start.environment = vec![set("PATH", ":/bin:/usr/bin")];
    assert_eq!(spawner.run(start).stdout, expected);
}

#[test]
fn a_program_is_looked_up_in_the_path_of_the_child() {
    let directory = directory("path_of_the_child");
    for part in ["denied", "found"] {
        fs::create_dir(directory.join(part)).unwrap();
    }
    script(&directory.join("denied/program"), "#!/bin/sh\n", 0o600);
    script(
        &directory.join("found/program"),
        "#!/bin/sh\necho found\n",
        0o700,
    );
    let mut spawner = Spawner::start();
    let with_path = |id, parts: &[&str]| {
        let parts = parts
            .iter()
            .map(|part| directory.join(part).to_str().unwrap().to_owned());
        let mut start = without_stdin(id, &["program"]);
        start.environment = vec![set("PATH", &parts.collect::<Vec<_>>().join(":"))];
        start
    };
    assert_eq!(
        spawner
            .run(with_path(1, &["missing", "denied", "found"]))
            .stdout,
        "found\n"
    );
    assert_eq!(
        spawner.start_error(with_path(2, &["denied", "missing"])),
        "eacces"
    );
    assert_eq!(
        spawner.start_error(with_path(3, &["missing", "denied/program"])),
        "enoent"
    );
    assert_eq!(
        spawner.start_error(without_stdin(4, &["program"])),
        "enoent"
    );
}

#[test]
fn without_a_path_the_usual_places_are_searched() {
    let mut spawner = Spawner::start();
    let start = StartRequest {
        base: Base::Empty,
        ..without_stdin(1, &["env"])
    };
    let ended = spawner.run(start);
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (ExitStatus::Code(0), "")
    );
}

#[test]
fn arguments_and_environment_are_any_bytes() {
    let mut spawner = Spawner::start();
    let odd = b"\xff\xfe \n'\"$HOME*".to_vec();
    let mut start = without_stdin(1, &["sh", "-c", "printf %s \"$1$ODD\" | od -An -tx1", "sh"]);
    start.argv.push(odd.clone());
    start.environment.push(EnvironmentChange {
        name: b"ODD".to_vec(),
        value: Some(odd.clone()),
    });
    let hex: String = odd.iter().map(|byte| format!("{byte:02x}")).collect();
    let shown: String = spawner.run(start).stdout.split_whitespace().collect();
    assert_eq!(shown, hex.repeat(2));
}

#[test]
fn the_environment_is_the_spawners_with_the_changes() {
    let mut spawner = Spawner::start();
    let mut start = without_stdin(1, &["env"]);
    start.environment = vec![
        set("TOKAMAK_TEST", "set"),
        EnvironmentChange {
            name: b"PATH".to_vec(),
            value: None,
        },
    ];
    let stdout = spawner.run(start).stdout;
    let variables: Vec<_> = stdout.lines().collect();
    assert!(variables.contains(&"TOKAMAK_TEST=set"));
    assert!(
        variables
            .iter()
            .any(|variable| variable.starts_with("CARGO_")),
        "{variables:?}"
    );
    assert!(
        !variables
            .iter()
            .any(|variable| variable.starts_with("PATH=")),
        "{variables:?}"
    );
}

#[test]
fn a_kept_environment_holds_until_the_next_one() {
    let mut spawner = Spawner::start();
    let environment = |id, base, changes: &[EnvironmentChange]| StartRequest {
        base,
        environment: changes.to_vec(),
        ..without_stdin(id, &["/usr/bin/env"])
    };
    let keep = |id, variables: &[&str]| Request::Environment {
        id,
        variables: variables
            .iter()
            .map(|variable| (*variable).into())
            .collect(),
    };
    assert_eq!(
        spawner.start_error(environment(1, Base::Kept(2), &[])),
        "enomem"
    );
    spawner.send(keep(2, &["A=1", "B=2"]));
    let ended = spawner.run(environment(3, Base::Kept(2), &[]));
    assert_eq!(ended.stdout, "A=1\nB=2\n");
    let ended = spawner.run(environment(4, Base::Kept(2), &[set("A", "3")]));
    assert_eq!(ended.stdout, "A=3\nB=2\n");
    let ended = spawner.run(environment(5, Base::Kept(2), &[]));
    assert_eq!(ended.stdout, "A=1\nB=2\n");
    spawner.send(keep(6, &[]));
    let ended = spawner.run(environment(7, Base::Kept(6), &[]));
    assert_eq!(ended.stdout, "");
    assert_eq!(
        spawner.start_error(environment(8, Base::Kept(2), &[])),
        "enomem"
    );
}

#[test]
fn a_megabyte_of_arguments_and_environment_arrives() {
    let mut spawner = Spawner::start();
    let argument = "a".repeat(100_000);
    let mut start = without_stdin(
        1,
        &["sh", "-c", "printf '%s' \"$@\" \"$BIG\" | wc -c", "sh"],
    );
    start
        .argv
        .extend(std::iter::repeat_n(argument.clone().into_bytes(), 9));
    start.environment.push(set("BIG", &argument));
    assert_eq!(spawner.run(start).stdout.trim(), "1000000");
}

#[test]
fn more_arguments_than_the_system_takes_are_e2big() {
    let mut spawner = Spawner::start();
    let long = "a".repeat(200_000);
    assert_eq!(
        spawner.start_error(without_stdin(1, &["true", &long])),
        "e2big"
    );
    let many = vec!["a".repeat(100_000); 70];
    let mut argv = vec!["true"];
    argv.extend(many.iter().map(String::as_str));
    assert_eq!(spawner.start_error(without_stdin(2, &argv)), "e2big");
    let request = Request::Start(without_stdin(3, &["true", &"a".repeat(9_000_000)]));
    let error = spawner.connection.try_send(&request).unwrap_err();
    assert_eq!(error, tokamak_spawner::client::SendError::TooLong);
    assert_eq!(spawner.shell(4, "exit 4").status, ExitStatus::Code(4));
}

#[test]
fn a_child_has_three_descriptors_and_no_more() {
    let mut spawner = Spawner::start();
    let start = StartRequest::new(1, ["sh", "-c", "ls /proc/$$/fd"].map(Into::into).to_vec());
    assert_eq!(spawner.run(start).stdout, "0\n1\n2\n");
}

#[test]
fn a_child_has_no_signal_blocked_ignored_or_caught() {
    // What the VM ignores must not reach a child: the BEAM ignores SIGCHLD.
    // SAFETY: SIG_IGN runs no code. Nothing in this test program waits for children by itself.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    }
    let mut spawner = Spawner::start();
    let status = spawner
        .run(without_stdin(1, &["cat", "/proc/self/status"]))
        .stdout;
    for field in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
        let signals = field_of(&status, field);
        assert!(signals.trim_matches('0').is_empty(), "{field} is {signals}");
    }
    assert_eq!(spawner.finish(), 0);
}

/// Policy, flags, nice value, priority and time slice.
fn scheduling_of(pid: i32) -> (u32, u64, i32, u32, u64) {
    // SAFETY: zero is a value of every field; the kernel writes at most as many bytes as it is told.
    let own = unsafe {
        let mut own: libc::sched_attr = std::mem::zeroed();
        let size = size_of::<libc::sched_attr>();
        assert_eq!(
            libc::syscall(libc::SYS_sched_getattr, pid, &raw mut own, size, 0),
            0
        );
        own
    };
    (
        own.sched_policy,
        own.sched_flags,
        own.sched_nice,
        own.sched_priority,
        own.sched_runtime,
    )
}

#[test]
fn a_child_is_scheduled_as_we_are_whatever_the_spawner_asked_for() {
    let mut spawner = Spawner::start();
    let own = scheduling_of(0);
    let child = spawner.started(without_stdin(1, &["sleep", "1000"]));
    assert_eq!(own, scheduling_of(child.as_raw_nonzero().get()));
    let (policy, flags, nice, priority, _) = scheduling_of(spawner.pid().as_raw_nonzero().get());
    assert_eq!(
        (own.0, own.1, own.2, own.3),
        (policy, flags, nice, priority)
    );
}

#[test]
fn a_child_leads_a_process_group_of_its_own() {
    let mut spawner = Spawner::start();
    let child = spawner.started(without_stdin(1, &["sleep", "1000"]));
    assert_eq!(getpgid(Some(child)), Ok(child));
    let session = |pid: Pid| getsid(Some(pid)).unwrap();
    assert_eq!(session(child), spawner.pid());
    assert_eq!(session(spawner.pid()), spawner.pid());
    assert_eq!(getpgid(Some(spawner.pid())), Ok(spawner.pid()));
}
