//! The advisories of runc and its likes, each against every runtime that works here: rows R01 to R18 of `docs/security.md`.
//!
//! Where a runtime by name is too old to be sound, the test says what it did and does not fail for it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
mod bundle;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bundle::{Bundle, World};
use gantry_core::ErrorKind;
use serde_json::{Value, json};

for_each_runtime! {
    r01_a_number_is_never_a_name => numbers;
    r02_an_exec_is_not_looked_into_until_it_is_the_program => looked_into;
    r03_the_runtime_is_no_program_of_the_image => own_program;
    r04_nothing_is_mounted_over_proc => over_proc;
    r05_r11_r12_procfs_goes_where_it_says => linked_proc;
    r07_a_destination_that_is_exchanged_meanwhile_stays_inside => exchanged;
    r08_a_text_that_does_not_fit_16_bits_is_refused => long_texts;
    r10_the_machines_cgroups_are_out_of_reach => cgroups;
    r14_what_a_mount_needs_is_made_inside => made_inside;
    r15_a_null_device_that_is_none_masks_nothing => false_null;
    r16_a_console_is_a_terminal_of_the_container => console;
    r17_sysctls_are_the_containers_own => sysctls;
}

/// Fails for the built-in runtime; says it for others.
fn hold(world: &World, good: bool, what: &str) {
    if world.runtime == "builtin" {
        assert!(good, "{what}");
    } else if !good {
        println!("{}: {what}", world.runtime);
    }
}

/// That `change` makes a container that is refused before anything is made.
async fn refused(world: &World, args: &[&str], change: impl FnOnce(&Bundle, &mut Value)) -> String {
    let bundle = world.bundle(args);
    world.edit(&bundle, change);
    let error = world.try_create("refused", &bundle).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(bundle::cgroups_named(&world.cgroup("refused")).is_empty());
    assert!(!world.path().join("state/ns/refused").exists());
    error.to_string()
}

fn mounts(spec: &mut Value) -> &mut Vec<Value> {
    spec["mounts"].as_array_mut().unwrap()
}

fn bind(source: &Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]})
}

async fn numbers(world: World) {
    let passwd = "1000:x:0:0::/root:/bin/sh\n4294967296:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n";
    let bundle =
        world.bundle_with(&["id", "-u"], |spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 7}));
    std::fs::write(bundle.dir.join("rootfs/etc/passwd"), passwd).unwrap();
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "1000\n");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
    let bundle = world.bundle(&["sleep", "1000"]);
    let mut running = world.start("a", &bundle).await;
    for id in [json!(4_294_967_295u32), json!(4_294_967_296u64), json!(-1), json!("0")] {
        for field in ["uid", "gid", "additionalGids"] {
            let mut user = json!({"uid": 5, "gid": 5});
            user[field] = if field == "additionalGids" { json!([id]) } else { id.clone() };
            let said = refused(&world, &["id", "-u"], |_, spec| spec["process"]["user"] = user.clone()).await;
            assert!(said.contains(&format!("process.user.{field}")), "{said}");
            let process = json!({"args": ["id", "-u"], "user": user});
            let error = world.exec("a", &bundle, &process).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
    }
    world.runtime(&bundle).await.delete("a", true).await.unwrap();
    running.ended().await;
}

async fn looked_into(world: World) {
    // Following a descriptor is what tracing is: allowed to root unless it has fewer capabilities, or the other is not
    // dumpable. Only what keeps its name during the look counts.
    let script = "echo ready; while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do \
                  c=; read -r c 2>/dev/null <$p/comm || continue; \
                  case $c in sh|touch|true|ls|'') continue;; esac; d=; \
                  if [ -e $p/fd/0 -o -e $p/cwd/. ] && read -r d <$p/comm && [ \"$c\" = \"$d\" ]; then echo open $c; \
                  else echo seen; fi; done; done 2>/dev/null; echo end";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID"]);
        }
    });
    let mut running = world.start("a", &bundle).await;
    running.wait_for("ready\n").await;
    for number in 0..30 {
        // As another user too: becoming one is a moment of its own.
        let process = json!({"args": ["true"], "user": {"uid": number % 2, "gid": 0}});
        if let Ok(mut exec) = world.exec("a", &bundle, &process).await {
            exec.ended().await;
        }
    }
    let mut stop = world.exec("a", &bundle, &json!({"args": ["touch", "/tmp/stop"]})).await.unwrap();
    stop.ended().await;
    let text = running.ended().await.1;
    assert!(text.contains("seen"), "no exec was seen: the test shows nothing");
    let open: Vec<&str> = text.lines().filter(|line| line.starts_with("open")).collect();
    assert!(open.is_empty(), "{open:?}");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn own_program(world: World) {
    let prepare = |bundle: &Bundle| {
        let bin = bundle.dir.join("rootfs/bin");
        std::os::unix::fs::symlink("/proc/self/exe", bin.join("evil")).unwrap();
        std::fs::write(bin.join("script"), "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(bin.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    };
    let names = ["/proc/self/exe", "/proc/1/exe", "/bin/evil", "evil", "/bin/script", "script"];
    for name in names {
        let said = refused(&world, &[name], |bundle, _| prepare(bundle)).await;
        assert!(said.contains("process.args[0]"), "{said}");
    }
    let bundle = world.bundle(&["sleep", "1000"]);
    prepare(&bundle);
    let mut running = world.start("a", &bundle).await;
    for name in names {
        let error = world.exec("a", &bundle, &json!({"args": [name]})).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    // A way there through a link of the image is refused for its directory too (CVE-2024-21626).
    std::os::unix::fs::symlink("/proc/self/fd/7", bundle.dir.join("rootfs/work")).unwrap();
    let error = world.exec("a", &bundle, &json!({"args": ["true"], "cwd": "/work"})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    world.runtime(&bundle).await.delete("a", true).await.unwrap();
    running.ended().await;
}

async fn over_proc(world: World) {
    let volume = world.path().join("volume");
    std::fs::create_dir_all(volume.join("self/attr")).unwrap();
    for destination in ["/proc", "/x/../proc", "/alias", "/proc/self/attr", "/alias/sys/kernel", "/"] {
        let said = refused(&world, &["true"], |bundle, spec| {
            std::os::unix::fs::symlink("/proc", bundle.dir.join("rootfs/alias")).unwrap();
            mounts(spec).push(bind(&volume, destination));
        })
        .await;
        assert!(said.starts_with("mounts["), "{said}");
    }
}

async fn linked_proc(world: World) {
    for name in ["proc", "sys"] {
        refused(&world, &["true"], |bundle, _| {
            let root = bundle.dir.join("rootfs");
            std::fs::create_dir(root.join("evil")).unwrap();
            std::fs::remove_dir(root.join(name)).unwrap();
            std::os::unix::fs::symlink("/evil", root.join(name)).unwrap();
        })
        .await;
    }
    refused(&world, &["true"], |bundle, spec| {
        let root = bundle.dir.join("rootfs");
        std::fs::create_dir_all(root.join("evil/proc")).unwrap();
        std::os::unix::fs::symlink("/evil", root.join("linked")).unwrap();
        mounts(spec).push(json!({"destination": "/linked/proc", "type": "proc", "source": "proc"}));
    })
    .await;
}

/// Exchanges a directory for a link, again and again, as another container with the same volume would.
struct Exchanger {
    end: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Exchanger {
    fn start(place: PathBuf, target: &Path) -> Exchanger {
        std::fs::create_dir_all(&place).unwrap();
        let aside = place.with_extension("link");
        std::os::unix::fs::symlink(target, &aside).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !ends.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(rustix::fs::CWD, &place, rustix::fs::CWD, &aside, flags).unwrap();
            }
        });
        Exchanger { end, thread: Some(thread) }
    }
}

impl Drop for Exchanger {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// Runs containers with `change` beside an exchanger of `shared/a` and a link to `target`; what each printed.
async fn race(world: &World, shared: &Path, target: &Path, change: impl Fn(&mut Value)) -> Vec<String> {
    let exchanger = Exchanger::start(shared.join("a"), target);
    let mut printed = Vec::new();
    for _ in 0..25 {
        let bundle = world.bundle_with(&["cat", "/second/marker"], |spec| change(spec));
        // It may find a link where it needs a directory.
        if let Ok(mut running) = world.try_create("a", &bundle).await {
            let runtime = world.runtime(&bundle).await;
            if runtime.start("a").await.is_ok() {
                printed.push(running.ended().await.1);
            }
            runtime.delete("a", true).await.unwrap();
        }
    }
    drop(exchanger);
    printed
}

async fn exchanged(world: World) {
    let (shared, volumes) = (world.path().join("shared"), world.path().join("volumes"));
    std::fs::create_dir_all(volumes.join("second")).unwrap();
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(volumes.join("second/marker"), "real\n").unwrap();
    // Mounted over `volumes`, the shared volume would say what the second volume is: all of the machine.
    std::os::unix::fs::symlink("/", shared.join("second")).unwrap();
    let printed = race(&world, &shared, &volumes, |spec| {
        mounts(spec).push(bind(&shared, "/vol"));
        mounts(spec).push(bind(&shared, "/vol/a"));
        mounts(spec).push(bind(&volumes.join("second"), "/second"));
    })
    .await;
    assert!(!printed.is_empty(), "no container was made");
    assert!(printed.iter().all(|text| text == "real\n"), "{printed:?}");
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!all.contains(volumes.to_str().unwrap()), "{all}");
}

async fn made_inside(world: World) {
    let (shared, outside) = (world.path().join("shared"), world.path().join("outside"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::write(world.path().join("marker"), "real\n").unwrap();
    let printed = race(&world, &shared, &outside, |spec| {
        mounts(spec).push(bind(&shared, "/vol"));
        mounts(spec).push(json!({"destination": "/vol/a/deep/er", "type": "tmpfs", "source": "tmpfs"}));
        mounts(spec).push(bind(&world.path().join("marker"), "/vol/a/file/marker"));
        mounts(spec).push(bind(&world.path().join("marker"), "/second/marker"));
    })
    .await;
    assert!(printed.iter().all(|text| text == "real\n"), "{printed:?}");
    let found = names(&outside);
    hold(&world, found.is_empty(), &format!("made outside: {found:?}"));
}

async fn long_texts(world: World) {
    let long = "x".repeat(70_000);
    let said = refused(&world, &["true"], |_, spec| spec["hostname"] = long.as_str().into()).await;
    assert!(said.contains("hostname: 70000 bytes"), "{said}");
    let said = refused(&world, &["true"], |_, spec| {
        spec["linux"]["namespaces"][4]["path"] = long.as_str().into();
    })
    .await;
    assert!(said.contains("linux.namespaces.path"), "{said}");
    let said =
        refused(&world, &["true"], |_, spec| spec["process"]["env"] = json!([format!("A={long}{long}")]))
            .await;
    assert!(said.contains("process.env[0]"), "{said}");
    // What the kernel takes arrives.
    let bundle = world.bundle_with(&["sh", "-c", "echo ${#A}"], |spec| {
        spec["process"]["env"] = json!(["PATH=/bin", format!("A={long}")]);
    });
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "70000\n");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn cgroups(world: World) {
    let name = format!("r10-{}", std::process::id());
    let script = format!(
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/{name} $d/../{name}; \
         echo /evil >$d/release_agent; echo 1 >$d/cgroup.procs; done 2>/dev/null; \
         ls /sys/fs/cgroup | wc -l | grep -vx 0 >/dev/null && echo mounted"
    );
    let bundle = world.bundle_with(&["sh", "-c", &script], |spec| {
        mounts(spec).push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev"],
        }));
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
        }
        // On version 2 a container without a cgroup namespace is shown all of the machine's, by every runtime; the
        // advisory is about those of users.
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            for map in ["uidMappings", "gidMappings"] {
                spec["linux"][map] = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
            }
        }
    });
    for dir in [world.path(), &bundle.dir] {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    }
    let mut running = world.start("a", &bundle).await;
    let (_, text) = running.ended().await;
    assert_eq!(text, "mounted\n");
    assert_eq!(bundle::cgroups_named(&name), Vec::<PathBuf>::new());
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let agent = std::fs::read_to_string(entry.unwrap().path().join("release_agent")).unwrap_or_default();
        assert!(!agent.contains("/evil"), "{agent}");
    }
    world.runtime(&bundle).await.delete("a", true).await.unwrap();
}

async fn false_null(world: World) {
    let file = world.path().join("null");
    std::fs::write(&file, "not null\n").unwrap();
    let bundle =
        world.bundle_with(&["cat", "/proc/keys"], |spec| mounts(spec).push(bind(&file, "/dev/null")));
    match world.try_create("a", &bundle).await {
        Ok(mut running) => {
            let runtime = world.runtime(&bundle).await;
            runtime.start("a").await.unwrap();
            let text = running.ended().await.1;
            hold(&world, text.is_empty(), &format!("a masked file holds {text:?}"));
            runtime.delete("a", true).await.unwrap();
        }
        Err(error) => assert!(bundle::cgroups_named(&world.cgroup("a")).is_empty(), "{error}"),
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not null\n");
}

async fn console(world: World) {
    let outside = world.path().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    let bundle = world.bundle_with(&["sh"], |spec| {
        spec["process"]["terminal"] = true.into();
        mounts(spec).push(bind(&outside, "/dev/console"));
    });
    if let Ok(mut running) = world.try_create("a", &bundle).await {
        world.runtime(&bundle).await.start("a").await.unwrap();
        let terminal = running.console.take().unwrap();
        let typed = "echo x >/dev/console; exit\n".to_owned();
        tokio::task::spawn_blocking(move || bundle::talk(&terminal, &typed)).await.unwrap();
        running.ended().await;
        world.runtime(&bundle).await.delete("a", true).await.unwrap();
    }
    let left = std::fs::read_to_string(&outside).unwrap();
    hold(&world, left == "mine", &format!("a file mounted over /dev/console holds {left:?}"));
    // What a container puts in place of /dev/ptmx is not taken for a terminal.
    let script = "rm -f /dev/ptmx /dev/pts/ptmx; echo x >/tmp/false; ln -s /tmp/false /dev/ptmx; echo ready; sleep 1000";
    let bundle = world.bundle(&["sh", "-c", script]);
    let mut running = world.start("a", &bundle).await;
    running.wait_for("ready\n").await;
    let made = world.exec("a", &bundle, &json!({"args": ["true"], "terminal": true})).await;
    hold(&world, made.is_err(), "an exec took a file for its terminal");
    if let Ok(mut made) = made {
        drop(made.console.take());
        made.ended().await;
    }
    world.runtime(&bundle).await.delete("a", true).await.unwrap();
    running.ended().await;
}

async fn sysctls(world: World) {
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for key in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "kernel.hostname",
    ] {
        let bundle = world.bundle_with(&["true"], |spec| spec["linux"]["sysctl"] = json!({key: "|/evil"}));
        let made = world.try_create("a", &bundle).await;
        assert!(made.is_err(), "{key}");
        assert!(bundle::cgroups_named(&world.cgroup("a")).is_empty(), "{key}");
    }
    // With the machine's own namespace there is nothing that is the container's own.
    for (kind, key) in [("ipc", "kernel.shmmni"), ("network", "net.ipv4.ip_forward")] {
        let bundle = world.bundle_with(&["true"], |spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
            spec["linux"]["sysctl"] = json!({key: "1"});
            // The machine's own network cannot be shown.
            mounts(spec).retain(|mount| kind != "network" || mount["destination"] != "/sys");
        });
        assert!(world.try_create("a", &bundle).await.is_err(), "{key}");
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
    let bundle = world.bundle_with(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"], |spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7"});
    });
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "7\n");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

#[test]
fn s21_the_images_users_are_read_with_bounds_and_by_nobody_else() {
    gantry_testkit::root!();
    bundle::run(async {
        let world = World { timeout: Duration::from_secs(20), ..World::new("builtin") };
        // The C library would wait for the pipe's other side, read all of the file, or load the library.
        let kinds: [fn(&Path); 3] = [
            |etc| {
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                rustix::fs::mkfifoat(rustix::fs::CWD, etc.join("passwd"), mode).unwrap();
            },
            |etc| std::fs::File::create(etc.join("passwd")).unwrap().set_len(4 << 30).unwrap(),
            |etc| {
                std::os::unix::fs::symlink("/proc/kcore", etc.join("passwd")).unwrap();
                std::fs::write(etc.join("nsswitch.conf"), "passwd: evil\n").unwrap();
            },
        ];
        for prepare in kinds {
            let bundle = world.bundle(&["sh", "-c", "echo $HOME"]);
            let etc = bundle.dir.join("rootfs/etc");
            std::fs::remove_file(etc.join("passwd")).unwrap();
            prepare(&etc);
            let config = std::fs::read(bundle.dir.join("config.json")).unwrap();
            let mut running = world.start("a", &bundle).await;
            assert_eq!(running.ended().await.1, "/\n");
            world.runtime(&bundle).await.delete("a", false).await.unwrap();
            // What the library was told is not left for others to read.
            let after = std::fs::read(bundle.dir.join("config.json")).unwrap();
            assert!(!String::from_utf8(after).unwrap().contains("HOME="), "{:?}", config.len());
        }
    });
}
