//! The figures of cgroup version 1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_api::io::containerd::cgroups::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use gantry_core::{Any, Error, Result, wire_names};
use prost::Message;

use super::file::{number, page_sizes, parse, text, value};

/// What the clock of `cpuacct.stat` ticks in. Source: `USER_HZ` is 100 on every architecture Linux runs containers on.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

pub(super) fn read(dirs: &BTreeMap<String, PathBuf>) -> Result<Any> {
    if !dirs.values().any(|dir| dir.is_dir()) {
        return Err(Error::not_found("cgroup"));
    }
    let dir = |name: &str| dirs.get(name).map(PathBuf::as_path);
    let metrics = Metrics {
        hugetlb: dir("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: dir("pids").map(pids),
        cpu: dir("cpuacct").map(|acct| cpu(acct, dir("cpu").unwrap_or(acct))),
        memory: dir("memory").map(memory),
        blkio: dir("blkio").map(blkio),
        rdma: dir("rdma").map(rdma),
        memory_oom_control: dir("memory").map(oom_control),
        ..Default::default()
    };
    Ok(Any::new(wire_names::TYPE_CGROUP1_METRICS, metrics.encode_to_vec()))
}

fn hugetlb(dir: &Path) -> Vec<HugetlbStat> {
    let of = |size: String| HugetlbStat {
        usage: number(dir, &format!("hugetlb.{size}.usage_in_bytes")),
        max: number(dir, &format!("hugetlb.{size}.max_usage_in_bytes")),
        failcnt: number(dir, &format!("hugetlb.{size}.failcnt")),
        pagesize: size,
    };
    page_sizes(dir, ".usage_in_bytes").into_iter().map(of).collect()
}

fn pids(dir: &Path) -> PidsStat {
    let limit = text(dir, "pids.max");
    // Source: the original reports no limit as 0.
    let limit = if limit.trim() == "max" { 0 } else { parse(limit.trim()) };
    PidsStat { current: number(dir, "pids.current"), limit }
}

fn cpu(acct: &Path, cpu: &Path) -> CpuStat {
    let ticks = text(acct, "cpuacct.stat");
    let per_cpu = text(acct, "cpuacct.usage_percpu");
    let throttle = text(cpu, "cpu.stat");
    CpuStat {
        usage: Some(CpuUsage {
            total: number(acct, "cpuacct.usage"),
            kernel: value(&ticks, "system").saturating_mul(NANOSECONDS_A_TICK),
            user: value(&ticks, "user").saturating_mul(NANOSECONDS_A_TICK),
            per_cpu: per_cpu.split_whitespace().map(parse).collect(),
        }),
        throttling: Some(Throttle {
            periods: value(&throttle, "nr_periods"),
            throttled_periods: value(&throttle, "nr_throttled"),
            throttled_time: value(&throttle, "throttled_time"),
        }),
    }
}

fn memory(dir: &Path) -> MemoryStat {
    let stat = text(dir, "memory.stat");
    let of = |key: &str| value(&stat, key);
    MemoryStat {
        cache: of("cache"),
        rss: of("rss"),
        rss_huge: of("rss_huge"),
        mapped_file: of("mapped_file"),
        dirty: of("dirty"),
        writeback: of("writeback"),
        pg_pg_in: of("pgpgin"),
        pg_pg_out: of("pgpgout"),
        pg_fault: of("pgfault"),
        pg_maj_fault: of("pgmajfault"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        hierarchical_memory_limit: of("hierarchical_memory_limit"),
        hierarchical_swap_limit: of("hierarchical_memsw_limit"),
        total_cache: of("total_cache"),
        total_rss: of("total_rss"),
        total_rss_huge: of("total_rss_huge"),
        total_mapped_file: of("total_mapped_file"),
        total_dirty: of("total_dirty"),
        total_writeback: of("total_writeback"),
        total_pg_pg_in: of("total_pgpgin"),
        total_pg_pg_out: of("total_pgpgout"),
        total_pg_fault: of("total_pgfault"),
        total_pg_maj_fault: of("total_pgmajfault"),
        total_inactive_anon: of("total_inactive_anon"),
        total_active_anon: of("total_active_anon"),
        total_inactive_file: of("total_inactive_file"),
        total_active_file: of("total_active_file"),
        total_unevictable: of("total_unevictable"),
        usage: Some(entry(dir, "memory")),
        swap: Some(entry(dir, "memory.memsw")),
        kernel: Some(entry(dir, "memory.kmem")),
        kernel_tcp: Some(entry(dir, "memory.kmem.tcp")),
    }
}

fn entry(dir: &Path, prefix: &str) -> MemoryEntry {
    MemoryEntry {
        limit: number(dir, &format!("{prefix}.limit_in_bytes")),
        usage: number(dir, &format!("{prefix}.usage_in_bytes")),
        max: number(dir, &format!("{prefix}.max_usage_in_bytes")),
        failcnt: number(dir, &format!("{prefix}.failcnt")),
    }
}

fn oom_control(dir: &Path) -> MemoryOomControl {
    let control = text(dir, "memory.oom_control");
    MemoryOomControl {
        oom_kill_disable: value(&control, "oom_kill_disable"),
        under_oom: value(&control, "under_oom"),
        oom_kill: value(&control, "oom_kill"),
    }
}

fn blkio(dir: &Path) -> BlkIoStat {
    // Schedulers that keep figures of their own count them in the first kind of file, others in the second.
    let of = |scheduler: &str, throttle: &str| match entries(&text(dir, scheduler)) {
        found if found.is_empty() && !throttle.is_empty() => entries(&text(dir, throttle)),
        found => found,
    };
    BlkIoStat {
        io_service_bytes_recursive: of(
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ),
        io_serviced_recursive: of("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"),
        io_queued_recursive: of("blkio.bfq.io_queued_recursive", ""),
        io_service_time_recursive: of("blkio.bfq.io_service_time_recursive", ""),
        io_wait_time_recursive: of("blkio.bfq.io_wait_time_recursive", ""),
        io_merged_recursive: of("blkio.bfq.io_merged_recursive", ""),
        io_time_recursive: of("blkio.bfq.time_recursive", ""),
        sectors_recursive: of("blkio.bfq.sectors_recursive", ""),
    }
}

/// Lines of `major:minor Operation value` or `major:minor value`; the last, a total over all, has no device.
fn entries(text: &str) -> Vec<BlkIoEntry> {
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let (op, value) = match (fields.next()?, fields.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        let device = device_name(major, minor).unwrap_or_default();
        Some(BlkIoEntry { op: op.to_owned(), device, major, minor, value: parse(value) })
    };
    text.lines().filter_map(of).collect()
}

/// The path of a block device, as in `/dev/sda`.
fn device_name(major: u64, minor: u64) -> Option<String> {
    let target = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(format!("/dev/{}", target.file_name()?.to_str()?))
}

fn rdma(dir: &Path) -> RdmaStat {
    RdmaStat {
        current: rdma_entries(&text(dir, "rdma.current")),
        limit: rdma_entries(&text(dir, "rdma.max")),
    }
}

fn rdma_entries(text: &str) -> Vec<RdmaEntry> {
    let of = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let field = |key: &str| {
            let found = rest.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            found.map_or(0, |value| u32::try_from(parse(value)).unwrap_or(u32::MAX))
        };
        Some(RdmaEntry {
            device: device.to_owned(),
            hca_handles: field("hca_handle"),
            hca_objects: field("hca_object"),
        })
    };
    text.lines().filter_map(of).collect()
}
