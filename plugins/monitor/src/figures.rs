//! The figures of a task's cgroup as metrics. Source: features C39 and C40 for names; the original's units, which end the names.

use gantry_core::tasks::Metric;
use gantry_core::{Error, Result, wire_names};
use gantry_shim::wire::cgroups::{v1, v2};
use prost::Message;

use crate::prometheus::{MetricKind, Page};

/// Source: the original's namespace of task metrics.
const PREFIX: &str = "container_";

/// Where the samples of one task go.
struct Samples<'a> {
    page: &'a mut Page,
    labels: &'a [(&'a str, &'a str)],
    help: &'static str,
}

impl Samples<'_> {
    fn gauge(&mut self, name: &str, unit: &str, value: u64) {
        self.with(name, unit, &[], value);
    }

    fn with(&mut self, name: &str, unit: &str, more: &[(&str, &str)], value: u64) {
        self.add(MetricKind::Gauge, name, unit, more, value);
    }

    fn add(&mut self, kind: MetricKind, name: &str, unit: &str, more: &[(&str, &str)], value: u64) {
        let mut labels = [self.labels, more].concat();
        // Source: the original's pages, whose labels are in the order of their names.
        labels.sort_unstable();
        let full = format!("{PREFIX}{name}_{unit}");
        let help = format!("{}: {}", self.help, name.replace('_', " "));
        self.page.add((&full, kind, &help), &labels, value);
    }
}

/// Adds what `metric` holds, each sample with `labels`.
///
/// # Errors
/// `InvalidArgument` for figures that do not decode, or are of a kind that is not known.
pub(crate) fn add(page: &mut Page, labels: &[(&str, &str)], metric: Metric) -> Result<()> {
    let Some(data) = metric.data else { return Ok(()) };
    let wrong = |error| Error::invalid_argument(format!("figures of task {:?}: {error}", metric.id));
    match data.type_name() {
        wire_names::TYPE_CGROUP1_METRICS => {
            let figures = v1::Metrics::decode(data.value.clone()).map_err(wrong)?;
            first(&mut Samples { page, labels, help: "Figure of cgroup v1" }, &figures);
        }
        wire_names::TYPE_CGROUP2_METRICS => {
            let figures = v2::Metrics::decode(data.value.clone()).map_err(wrong)?;
            second(&mut Samples { page, labels, help: "Figure of cgroup v2" }, &figures);
        }
        other => {
            return Err(Error::invalid_argument(format!(
                "figures of task {:?} of type {other:?}",
                metric.id
            )));
        }
    }
    Ok(())
}

/// One gauge for each field, named as the field or otherwise.
macro_rules! gauges {
    ($samples:ident, $stats:expr, $unit:literal, $($name:literal = $field:ident),* $(,)?) => {
        $($samples.gauge($name, $unit, $stats.$field);)*
    };
}

fn first(samples: &mut Samples<'_>, figures: &v1::Metrics) {
    if let Some(pids) = &figures.pids {
        samples.gauge("pids", "limit", pids.limit);
        samples.gauge("pids", "current", pids.current);
    }
    if let Some(cpu) = &figures.cpu {
        if let Some(usage) = &cpu.usage {
            gauges!(
                samples,
                usage,
                "nanoseconds",
                "cpu_total" = total,
                "cpu_kernel" = kernel,
                "cpu_user" = user
            );
            for (number, time) in usage.per_cpu.iter().enumerate() {
                samples.with("per_cpu", "nanoseconds", &[("cpu", &number.to_string())], *time);
            }
        }
        if let Some(throttling) = &cpu.throttling {
            samples.gauge("cpu_throttle_periods", "total", throttling.periods);
            samples.gauge("cpu_throttled_periods", "total", throttling.throttled_periods);
            samples.gauge("cpu_throttled_time", "nanoseconds", throttling.throttled_time);
        }
    }
    if let Some(memory) = &figures.memory {
        first_memory(samples, memory);
    }
    if let Some(control) = &figures.memory_oom_control {
        samples.add(MetricKind::Counter, "memory_oom", "total", &[], control.oom_kill);
    }
    for page in &figures.hugetlb {
        let label = [("page", page.pagesize.as_str())];
        samples.with("hugetlb_usage", "bytes", &label, page.usage);
        samples.with("hugetlb_failcnt", "total", &label, page.failcnt);
        samples.with("hugetlb_max", "bytes", &label, page.max);
    }
    if let Some(blkio) = &figures.blkio {
        for (name, unit, entries) in [
            ("blkio_io_merged_recursive", "total", &blkio.io_merged_recursive),
            ("blkio_io_queued_recursive", "total", &blkio.io_queued_recursive),
            ("blkio_io_service_bytes_recursive", "bytes", &blkio.io_service_bytes_recursive),
            ("blkio_io_service_time_recursive", "total", &blkio.io_service_time_recursive),
            ("blkio_io_serviced_recursive", "total", &blkio.io_serviced_recursive),
            ("blkio_io_time_recursive", "total", &blkio.io_time_recursive),
            ("blkio_sectors_recursive", "total", &blkio.sectors_recursive),
        ] {
            for entry in entries {
                let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
                let labels = [
                    ("op", entry.op.as_str()),
                    ("device", entry.device.as_str()),
                    ("major", major.as_str()),
                    ("minor", minor.as_str()),
                ];
                samples.with(name, unit, &labels, entry.value);
            }
        }
    }
}

fn first_memory(samples: &mut Samples<'_>, memory: &v1::MemoryStat) {
    gauges!(
        samples,
        memory,
        "bytes",
        "memory_cache" = cache,
        "memory_rss" = rss,
        "memory_rss_huge" = rss_huge,
        "memory_mapped_file" = mapped_file,
        "memory_dirty" = dirty,
        "memory_writeback" = writeback,
        "memory_pgpgin" = pg_pg_in,
        "memory_pgpgout" = pg_pg_out,
        "memory_pgfault" = pg_fault,
        "memory_pgmajfault" = pg_maj_fault,
        "memory_inactive_anon" = inactive_anon,
        "memory_active_anon" = active_anon,
        "memory_inactive_file" = inactive_file,
        "memory_active_file" = active_file,
        "memory_unevictable" = unevictable,
        "memory_hierarchical_memory_limit" = hierarchical_memory_limit,
        "memory_hierarchical_memsw_limit" = hierarchical_swap_limit,
        "memory_total_cache" = total_cache,
        "memory_total_rss" = total_rss,
        "memory_total_rss_huge" = total_rss_huge,
        "memory_total_mapped_file" = total_mapped_file,
        "memory_total_dirty" = total_dirty,
        "memory_total_writeback" = total_writeback,
        "memory_total_pgpgin" = total_pg_pg_in,
        "memory_total_pgpgout" = total_pg_pg_out,
        "memory_total_pgfault" = total_pg_fault,
        "memory_total_pgmajfault" = total_pg_maj_fault,
        "memory_total_inactive_anon" = total_inactive_anon,
        "memory_total_active_anon" = total_active_anon,
        "memory_total_inactive_file" = total_inactive_file,
        "memory_total_active_file" = total_active_file,
        "memory_total_unevictable" = total_unevictable,
    );
    for (name, entry) in [
        ("usage", &memory.usage),
        ("swap", &memory.swap),
        ("kernel", &memory.kernel),
        ("kerneltcp", &memory.kernel_tcp),
    ] {
        let Some(entry) = entry else { continue };
        samples.gauge(&format!("memory_{name}_failcnt"), "total", entry.failcnt);
        samples.gauge(&format!("memory_{name}_limit"), "bytes", entry.limit);
        samples.gauge(&format!("memory_{name}_max"), "bytes", entry.max);
        samples.gauge(&format!("memory_{name}_usage"), "bytes", entry.usage);
    }
}

fn second(samples: &mut Samples<'_>, figures: &v2::Metrics) {
    if let Some(pids) = &figures.pids {
        samples.gauge("pids", "limit", pids.limit);
        samples.gauge("pids", "current", pids.current);
    }
    if let Some(cpu) = &figures.cpu {
        gauges!(
            samples,
            cpu,
            "microseconds",
            "cpu_usage_usec" = usage_usec,
            "cpu_user_usec" = user_usec,
            "cpu_system_usec" = system_usec,
            "cpu_throttled_usec" = throttled_usec,
        );
        gauges!(samples, cpu, "total", "cpu_nr_periods" = nr_periods, "cpu_nr_throttled" = nr_throttled);
    }
    if let Some(memory) = &figures.memory {
        gauges!(
            samples,
            memory,
            "bytes",
            "memory_usage" = usage,
            "memory_usage_limit" = usage_limit,
            "memory_swap_usage" = swap_usage,
            "memory_swap_limit" = swap_limit,
            "memory_anon" = anon,
            "memory_file" = file,
            "memory_kernel_stack" = kernel_stack,
            "memory_slab" = slab,
            "memory_sock" = sock,
            "memory_shmem" = shmem,
            "memory_file_mapped" = file_mapped,
            "memory_file_dirty" = file_dirty,
            "memory_file_writeback" = file_writeback,
            "memory_anon_thp" = anon_thp,
            "memory_inactive_anon" = inactive_anon,
            "memory_active_anon" = active_anon,
            "memory_inactive_file" = inactive_file,
            "memory_active_file" = active_file,
            "memory_unevictable" = unevictable,
            "memory_slab_reclaimable" = slab_reclaimable,
            "memory_slab_unreclaimable" = slab_unreclaimable,
            "memory_pgfault" = pgfault,
            "memory_pgmajfault" = pgmajfault,
            "memory_workingset_refault" = workingset_refault,
            "memory_workingset_activate" = workingset_activate,
            "memory_workingset_nodereclaim" = workingset_nodereclaim,
            "memory_pgrefill" = pgrefill,
            "memory_pgscan" = pgscan,
            "memory_pgsteal" = pgsteal,
            "memory_pgactivate" = pgactivate,
            "memory_pgdeactivate" = pgdeactivate,
            "memory_pglazyfree" = pglazyfree,
            "memory_pglazyfreed" = pglazyfreed,
            "memory_thp_fault_alloc" = thp_fault_alloc,
            "memory_thp_collapse_alloc" = thp_collapse_alloc,
        );
    }
    if let Some(events) = &figures.memory_events {
        samples.gauge("memory_oom", "total", events.oom);
    }
    if let Some(io) = &figures.io {
        for entry in &io.usage {
            let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
            let labels = [("major", major.as_str()), ("minor", minor.as_str())];
            samples.with("io_rbytes", "bytes", &labels, entry.rbytes);
            samples.with("io_wbytes", "bytes", &labels, entry.wbytes);
            samples.with("io_rios", "total", &labels, entry.rios);
            samples.with("io_wios", "total", &labels, entry.wios);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_core::Any;
    use std::time::SystemTime;

    fn page(type_name: &str, value: Vec<u8>) -> Result<String> {
        let mut page = Page::default();
        let data = Some(Any::new(type_name, value));
        let labels = [("container_id", "c"), ("namespace", "n")];
        add(&mut page, &labels, Metric { timestamp: SystemTime::UNIX_EPOCH, id: "c".into(), data })?;
        Ok(page.text())
    }

    #[test]
    fn version_1_has_the_originals_names() {
        let figures = v1::Metrics {
            pids: Some(v1::PidsStat { current: 3, limit: 0 }),
            cpu: Some(v1::CpuStat {
                usage: Some(v1::CpuUsage { total: 9, kernel: 4, user: 5, per_cpu: vec![7, 2] }),
                throttling: None,
            }),
            memory: Some(v1::MemoryStat {
                usage: Some(v1::MemoryEntry { limit: 1, usage: 2, max: 3, failcnt: 4 }),
                ..Default::default()
            }),
            memory_oom_control: Some(v1::MemoryOomControl { oom_kill: 6, ..Default::default() }),
            blkio: Some(v1::BlkIoStat {
                io_service_bytes_recursive: vec![v1::BlkIoEntry {
                    op: "Read".into(),
                    device: "/dev/sda".into(),
                    major: 8,
                    minor: 0,
                    value: 11,
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = page(wire_names::TYPE_CGROUP1_METRICS, figures.encode_to_vec()).unwrap();
        for line in [
            "container_pids_current{container_id=\"c\",namespace=\"n\"} 3",
            "container_cpu_total_nanoseconds{container_id=\"c\",namespace=\"n\"} 9",
            "container_per_cpu_nanoseconds{container_id=\"c\",cpu=\"1\",namespace=\"n\"} 2",
            "container_memory_usage_usage_bytes{container_id=\"c\",namespace=\"n\"} 2",
            "container_memory_usage_failcnt_total{container_id=\"c\",namespace=\"n\"} 4",
            "container_memory_oom_total{container_id=\"c\",namespace=\"n\"} 6",
            "container_blkio_io_service_bytes_recursive_bytes{container_id=\"c\",device=\"/dev/sda\",major=\"8\",minor=\"0\",namespace=\"n\",op=\"Read\"} 11",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn version_2_has_the_originals_names() {
        let figures = v2::Metrics {
            cpu: Some(v2::CpuStat { usage_usec: 9, ..Default::default() }),
            memory: Some(v2::MemoryStat { usage: 5, ..Default::default() }),
            memory_events: Some(v2::MemoryEvents { oom: 1, ..Default::default() }),
            io: Some(v2::IoStat {
                usage: vec![v2::IoEntry { major: 8, minor: 1, rios: 3, ..Default::default() }],
                psi: None,
            }),
            ..Default::default()
        };
        let text = page(wire_names::TYPE_CGROUP2_METRICS, figures.encode_to_vec()).unwrap();
        for line in [
            "container_cpu_usage_usec_microseconds{container_id=\"c\",namespace=\"n\"} 9",
            "container_memory_usage_bytes{container_id=\"c\",namespace=\"n\"} 5",
            "container_memory_oom_total{container_id=\"c\",namespace=\"n\"} 1",
            "container_io_rios_total{container_id=\"c\",major=\"8\",minor=\"1\",namespace=\"n\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn what_is_no_figure_is_refused() {
        assert!(page("what.Ever", Vec::new()).is_err());
        assert!(page(wire_names::TYPE_CGROUP1_METRICS, vec![0xff]).is_err());
    }
}
