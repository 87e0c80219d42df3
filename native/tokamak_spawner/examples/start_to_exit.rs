// SPDX-License-Identifier: Apache-2.0
//! Times `true` from its start to its exit: by the spawner and by `std::process::Command`.
//!
//! `cargo run --release -p tokamak_spawner --example start_to_exit -- PATH_OF_THE_SPAWNER [CHILDREN]`

#[cfg(target_os = "linux")]
fn main() {
    bench::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod bench {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use tokamak_spawner::client::{Connection, Event};
    use tokamak_spawner::protocol::{Request, StartRequest};

    const DEADLINE: Duration = Duration::from_secs(60);
    const ROUNDS: usize = 5;

    pub fn main() {
        let mut arguments = std::env::args().skip(1);
        let program = arguments.next().expect("the path of the spawner");
        let children = arguments
            .next()
            .map_or(1000, |count| count.parse().expect("a count"));
        let connection = Connection::start(program.as_ref(), DEADLINE).expect("a spawner");
        let mut id = 0;
        let names = [
            "spawner, one at a time",
            "spawner, 100 at a time",
            "Command, one at a time",
        ];
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            times[0].push(time(children, || {
                by_spawner(&connection, &mut id, children, 1)
            }));
            times[1].push(time(children, || {
                by_spawner(&connection, &mut id, children, 100)
            }));
            times[2].push(time(children, || (0..children).for_each(|_| by_command())));
        }
        println!(
            "{:24} {:>10} {:>10}   ({children} x true, {ROUNDS} rounds)",
            "", "median µs", "best µs"
        );
        for (name, mut times) in names.into_iter().zip(times) {
            times.sort_by(f64::total_cmp);
            println!("{name:24} {:10.1} {:10.1}", times[ROUNDS / 2], times[0]);
        }
        connection.finish(DEADLINE).expect("an end");
    }

    /// Microseconds a child.
    fn time(children: u64, run: impl FnOnce()) -> f64 {
        let from = Instant::now();
        run();
        from.elapsed().as_secs_f64() * 1e6 / children as f64
    }

    fn by_command() {
        let mut child = Command::new("true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a child");
        assert!(child.wait().expect("an exit").success());
    }

    fn by_spawner(connection: &Connection, id: &mut u64, children: u64, at_a_time: u64) {
        let (mut started, mut exited, mut gone) = (0, 0, 0);
        while gone < children {
            while started < children && started - exited < at_a_time {
                *id += 1;
                let start = StartRequest::new(*id, vec![b"true".to_vec()]);
                connection
                    .send(&Request::Start(start), DEADLINE)
                    .expect("a spawner");
                started += 1;
            }
            match connection.recv(DEADLINE).expect("a spawner") {
                Some(Event::Exited { all_gone, .. }) => {
                    exited += 1;
                    gone += u64::from(all_gone);
                }
                Some(Event::Gone { .. }) => gone += 1,
                Some(Event::Started { .. }) => {}
                event => panic!("{event:?}"),
            }
        }
    }
}
