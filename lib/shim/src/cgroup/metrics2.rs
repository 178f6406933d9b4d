//! The figures of cgroup version 2.

use std::path::Path;

use gantry_api::io::containerd::cgroups::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats,
    RdmaEntry, RdmaStat,
};
use gantry_core::{Any, Error, Result, wire_names};
use prost::Message;

use super::file::{number, page_sizes, parse, text, value};

pub(super) fn read(dir: &Path) -> Result<Any> {
    if !dir.is_dir() {
        return Err(Error::not_found("cgroup"));
    }
    let metrics = Metrics {
        pids: Some(pids(dir)),
        cpu: Some(cpu(dir)),
        memory: Some(memory(dir)),
        rdma: Some(RdmaStat {
            current: rdma_entries(&text(dir, "rdma.current")),
            limit: rdma_entries(&text(dir, "rdma.max")),
        }),
        io: Some(IoStat { usage: io_entries(&text(dir, "io.stat")), psi: psi(dir, "io.pressure") }),
        hugetlb: hugetlb(dir),
        memory_events: Some(events(dir)),
        ..Default::default()
    };
    Ok(Any::new(wire_names::TYPE_CGROUP2_METRICS, metrics.encode_to_vec()))
}

fn pids(dir: &Path) -> PidsStat {
    let limit = text(dir, "pids.max");
    // Source: the original reports no limit as 0.
    let limit = if limit.trim() == "max" { 0 } else { parse(limit.trim()) };
    PidsStat { current: number(dir, "pids.current"), limit }
}

fn cpu(dir: &Path) -> CpuStat {
    let stat = text(dir, "cpu.stat");
    let of = |key: &str| value(&stat, key);
    CpuStat {
        usage_usec: of("usage_usec"),
        user_usec: of("user_usec"),
        system_usec: of("system_usec"),
        nr_periods: of("nr_periods"),
        nr_throttled: of("nr_throttled"),
        throttled_usec: of("throttled_usec"),
        psi: psi(dir, "cpu.pressure"),
        nr_bursts: of("nr_bursts"),
        burst_usec: of("burst_usec"),
    }
}

fn memory(dir: &Path) -> MemoryStat {
    let stat = text(dir, "memory.stat");
    let of = |key: &str| value(&stat, key);
    MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        // Newer kernels count these for anonymous memory and files apart.
        workingset_refault: of("workingset_refault")
            + of("workingset_refault_anon")
            + of("workingset_refault_file"),
        workingset_activate: of("workingset_activate")
            + of("workingset_activate_anon")
            + of("workingset_activate_file"),
        workingset_nodereclaim: of("workingset_nodereclaim"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        usage: number(dir, "memory.current"),
        usage_limit: number(dir, "memory.max"),
        swap_usage: number(dir, "memory.swap.current"),
        swap_limit: number(dir, "memory.swap.max"),
        max_usage: number(dir, "memory.peak"),
        swap_max_usage: number(dir, "memory.swap.peak"),
        psi: psi(dir, "memory.pressure"),
    }
}

fn events(dir: &Path) -> MemoryEvents {
    let events = text(dir, "memory.events");
    let of = |key: &str| value(&events, key);
    MemoryEvents {
        low: of("low"),
        high: of("high"),
        max: of("max"),
        oom: of("oom"),
        oom_kill: of("oom_kill"),
        oom_group_kill: of("oom_group_kill"),
    }
}

fn psi(dir: &Path, name: &str) -> Option<PsiStats> {
    let text = text(dir, name);
    let line = |kind: &str| {
        let fields = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let field = |key: &str| fields.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let share = |key: &str| field(key).and_then(|value| value.parse().ok()).unwrap_or(0.0);
        Some(PsiData {
            avg10: share("avg10"),
            avg60: share("avg60"),
            avg300: share("avg300"),
            total: field("total").map_or(0, parse),
        })
    };
    let (some, full) = (line("some"), line("full"));
    (some.is_some() || full.is_some()).then_some(PsiStats { some, full })
}

fn io_entries(text: &str) -> Vec<IoEntry> {
    let of = |line: &str| {
        let (device, fields) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let field = |key: &str| {
            fields.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).map_or(0, parse)
        };
        Some(IoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            rbytes: field("rbytes"),
            wbytes: field("wbytes"),
            rios: field("rios"),
            wios: field("wios"),
        })
    };
    text.lines().filter_map(of).collect()
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

fn hugetlb(dir: &Path) -> Vec<HugeTlbStat> {
    let of = |size: String| HugeTlbStat {
        current: number(dir, &format!("hugetlb.{size}.current")),
        max: number(dir, &format!("hugetlb.{size}.max")),
        failcnt: value(&text(dir, &format!("hugetlb.{size}.events")), "max"),
        pagesize: size,
    };
    page_sizes(dir, ".current").into_iter().map(of).collect()
}
