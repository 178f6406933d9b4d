//! Durable commits per second with one writer and with many: `cargo run --release -p gantry-store --example commits [DIR]`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use gantry_store::{Migration, Store, StoreOptions, params};

const STEPS: &[Migration] = &[Migration {
    name: "rows",
    sql: "CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB)",
}];

fn main() {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for writers in [1, 4, 16, 64] {
        let dir = tempfile::tempdir_in(&parent).unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store.db"), STEPS)).unwrap();
        let (count, mut times) = runtime.block_on(measure(&store, writers));
        times.sort();
        println!(
            "{writers:3} writers: {:7.0} commits/s, p50 {:?}, p99 {:?}",
            count,
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
        runtime.block_on(store.close(true)).unwrap();
    }
}

async fn measure(store: &Store, writers: usize) -> (f64, Vec<Duration>) {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(2);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let name = format!("{writer}/{}", times.len());
                let started = Instant::now();
                let write = move |db: &gantry_store::Writing<'_>| {
                    db.insert("INSERT INTO rows (name, data) VALUES (?1, zeroblob(200))", params![name])
                };
                store.write(write).await.unwrap();
                times.push(started.elapsed());
            }
            times
        });
    }
    let times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    (times.len() as f64 / begun.elapsed().as_secs_f64(), times)
}
