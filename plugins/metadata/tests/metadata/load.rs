use crate::snapshots::{committed, new};
use crate::support::{World, all, cx, labels};
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::snapshots::Snapshotter;
use gantry_core::{ContainerId, Labels};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn load() {
    let dir = tempfile::tempdir_in("/work/main/target/tmp").unwrap();
    let world = World::open(dir.path()).await;
    let s = world.metadata.snapshotter("plain").unwrap();
    committed(&s, &cx("n"), "base", None).await;
    for clients in [1, 16] {
        let begun = Instant::now();
        let mut set = tokio::task::JoinSet::new();
        for client in 0..clients {
            let containers = world.metadata.containers();
            set.spawn(async move {
                for i in 0..(4800 / clients) {
                    let mut c =
                        Container::new(ContainerId::parse(format!("c{clients}-{client}-{i}")).unwrap(), "r");
                    c.spec = Some(gantry_core::Any::new("spec", vec![b'x'; 8000]));
                    c.snapshotter = "plain".into();
                    c.snapshot_key = format!("s{clients}-{client}-{i}");
                    c.labels = labels(&[("a", "1"), ("b", "2"), ("c", "3")]);
                    containers.create(&cx("n"), c).await.unwrap();
                }
            });
        }
        set.join_all().await;
        eprintln!("create {clients}: {:.0}/s", 4800.0 / begun.elapsed().as_secs_f64());
    }
    let begun = Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for client in 0..16 {
        let s = s.clone();
        set.spawn(async move {
            for i in 0..300 {
                s.prepare(&cx("n"), new(&format!("s16-{client}-{i}"), Some("base"))).await.unwrap();
            }
        });
    }
    set.join_all().await;
    eprintln!("prepare 16: {:.0}/s", 4800.0 / begun.elapsed().as_secs_f64());
    for n in 0..2000 {
        world.blob(&cx("n"), format!("{n}").as_bytes(), labels(&[("containerd.io/gc.root", "x")])).await;
    }
    let _ = Labels::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let stats = world.metadata.collect().await.unwrap();
        eprintln!("collect {:?} {stats:?}", begun.elapsed());
    }
    let begun = Instant::now();
    let n = all(world.metadata.containers().list(&cx("n"), &[]).await.unwrap()).await.len();
    eprintln!("list {n} {:?}", begun.elapsed());
    let begun = Instant::now();
    for i in 0..1000 {
        world.metadata.containers().get(&cx("n"), &format!("c16-1-{}", i % 300)).await.unwrap();
    }
    eprintln!("get {:?}", begun.elapsed() / 1000);
    world.metadata.close(std::time::Duration::from_secs(5)).await.unwrap();
    drop((world, s));
    let begun = Instant::now();
    let _world = World::open(dir.path()).await;
    eprintln!("open {:?}", begun.elapsed());
}
