//! How long the built-in runtime takes: `cargo test -p gantry-runtime --test figures -- --ignored --nocapture`, and
//! `cargo xtask vm runtime figures --ignored --nocapture` on cgroup v2.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;

use std::time::{Duration, Instant};

use bundle::World;
use serde_json::json;

const ROUNDS: usize = 15;

/// How long the kernel needs to forget that processes were moved: an RCU grace period and more.
const PAUSE: Duration = Duration::from_millis(300);

#[test]
#[ignore = "a measurement"]
fn the_built_in_runtime_takes_this_long() {
    gantry_testkit::root!();
    bundle::run(async {
        let world = World::new("builtin");
        let names = ["create", "start", "exec", "a second exec at once", "delete"];
        let mut taken: [Vec<Duration>; 5] = Default::default();
        for _ in 0..ROUNDS {
            let bundle = world.bundle(&["sleep", "1000"]);
            let process = json!({"args": ["true"]});
            tokio::time::sleep(PAUSE).await;
            let began = Instant::now();
            let mut running = world.create("a", &bundle).await;
            taken[0].push(began.elapsed());
            let runtime = world.runtime(&bundle).await;
            let began = Instant::now();
            runtime.start("a").await.unwrap();
            taken[1].push(began.elapsed());
            tokio::time::sleep(PAUSE).await;
            for at in [2, 3] {
                let began = Instant::now();
                let mut exec = world.exec("a", &bundle, &process).await.unwrap();
                exec.ended().await;
                taken[at].push(began.elapsed());
            }
            let began = Instant::now();
            runtime.delete("a", true).await.unwrap();
            running.ended().await;
            taken[4].push(began.elapsed());
        }
        for (name, mut all) in names.into_iter().zip(taken) {
            all.sort();
            let ms = |at: usize| all[at].as_secs_f64() * 1000.0;
            println!("FIGURE {name}: median {:.1} ms, {:.1} to {:.1}", ms(ROUNDS / 2), ms(0), ms(ROUNDS - 1));
        }
    });
}
