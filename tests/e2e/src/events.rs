//! `ctr events`.

use gantry_testkit::{Background, root};

use crate::stage::{BUSYBOX, Stage, same_on_both};

/// Topics in the order of their coming, `/tasks/delete` aside: the original loses it now and then.
fn topics(events: &Background) -> Vec<String> {
    let topic = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    events.stdout().lines().filter_map(topic).filter(|topic| topic != "/tasks/delete").collect()
}

/// Starts `ctr events` and waits until it hears something.
fn listen(s: &mut Stage, filters: &[&str]) -> Background {
    let mut events = s.spawn(&[&["events"], filters].concat());
    // A subscription that is not in place yet hears nothing: make noise until it does.
    let mut count = 0;
    gantry_testkit::eventually("the first event", || {
        count += 1;
        let name = format!("noise{count}");
        s.ctr.ok(&["namespaces", "create", &name]);
        s.ctr.ok(&["namespaces", "rm", &name]);
        assert!(events.try_wait().is_none(), "{}", events.stderr());
        events.stdout().contains("/namespaces/").then_some(())
    });
    events
}

#[test]
fn events_tell_the_life_of_a_container() {
    root!();
    same_on_both(|s, _| {
        let mut events = listen(s, &[]);
        s.import_busybox();
        s.ctr.ok(&["run", "-d", BUSYBOX, "c1", "/bin/sleep", "1000"]);
        s.ctr.ok(&["tasks", "exec", "--exec-id", "e1", "c1", "/bin/true"]);
        s.ctr.ok(&["tasks", "pause", "c1"]);
        s.ctr.ok(&["tasks", "resume", "c1"]);
        s.ctr.ok(&["tasks", "kill", "-s", "9", "c1"]);
        let exit = r#""container_id":"c1","id":"c1""#;
        events.wait_for_output(exit);
        s.ctr.ok(&["tasks", "rm", "c1"]);
        s.ctr.ok(&["containers", "rm", "c1"]);
        s.ctr.ok(&["images", "rm", "--sync", BUSYBOX]);
        events.wait_for_output("/images/delete");
        let all = topics(&events);
        let told: Vec<String> = all
            .into_iter()
            .filter(|topic| !topic.starts_with("/namespaces/") && !topic.starts_with("/snapshot/"))
            .collect();
        let wanted = [
            "/images/create",
            "/containers/create",
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/paused",
            "/tasks/resumed",
            "/tasks/exit",
            "/containers/delete",
            "/images/delete",
        ];
        let told: Vec<&str> =
            told.iter().map(String::as_str).filter(|topic| wanted.contains(topic)).collect();
        assert_eq!(told, wanted, "{}", events.stdout());
        let text = events.stdout();
        let line =
            |topic: &str| text.lines().find(|line| line.contains(topic)).unwrap_or_default().to_owned();
        let shown = [
            "/containers/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/paused",
            "/images/create",
            "/snapshot/prepare",
            "/snapshot/commit",
        ];
        for topic in shown {
            let line = line(topic);
            let stable: Vec<&str> = line.split_whitespace().skip(4).collect();
            s.record(&["events"], &gantry_testkit::normalise(&stable.join(" ")));
        }
    });
}

#[test]
fn events_pass_filters() {
    root!();
    same_on_both(|s, _| {
        let mut events = listen(s, &[r#"topic=="/images/create""#, r#"topic~="/namespaces/.*""#]);
        s.import_busybox();
        s.ctr.ok(&["images", "label", BUSYBOX, "a=b"]);
        s.ctr.ok(&["containers", "create", BUSYBOX, "c1"]);
        s.ctr.ok(&["namespaces", "create", "last"]);
        events.wait_for_output(r#""name":"last""#);
        let told = topics(&events);
        assert!(
            told.iter().all(|topic| topic == "/images/create" || topic.starts_with("/namespaces/")),
            "{told:?}"
        );
        assert!(told.iter().any(|topic| topic == "/images/create"), "{told:?}");
        s.ctr.ok(&["namespaces", "rm", "last"]);
    });
}
