//! The options of a container's spec.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_core::{Error, Result, ResultExt};

use super::{capabilities, default, devices, environment, sysctl};
use crate::image_config::ImageConfig;
use crate::rootfs::Rootfs;
use crate::runtime::{
    Capability, LinuxCpu, LinuxIdMapping, LinuxMemory, LinuxNamespaceType, LinuxPids, LinuxSeccomp, Mount,
    PosixRlimitType, Spec,
};
use crate::user::{self, User};

/// What a container's spec is made from. Every field is optional; the default is the default spec.
#[derive(Clone, Debug, Default)]
pub struct SpecOptions {
    /// The image whose environment, command, directory and user are used.
    pub image: Option<ImageConfig>,
    /// Program and arguments, in place of the image's entrypoint and command.
    pub args: Vec<String>,
    /// In place of the image's command, behind its entrypoint. Not looked at if `args` are given.
    pub command: Vec<String>,
    /// `KEY=value` to add or replace, `KEY` to remove.
    pub env: Vec<String>,
    /// Where the process starts, in place of the image's directory.
    pub cwd: Option<String>,
    /// Who runs it, in place of the image's user: see [`crate::user`].
    pub user: Option<String>,
    /// Groups to add, names or numbers.
    pub additional_groups: Vec<String>,
    /// The process's file mode mask.
    pub umask: Option<u32>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The terminal's width and height.
    pub console_size: Option<(u64, u64)>,
    /// Whether it may gain privileges by executing set-user-id programs.
    pub allow_new_privileges: bool,
    /// Its limits: kind, soft, hard. Others of a kind are replaced.
    pub rlimits: Vec<(PosixRlimitType, u64, u64)>,
    /// How likely the kernel kills it for memory.
    pub oom_score_adj: Option<i32>,
    /// Its AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// Its SELinux label.
    pub selinux_label: Option<String>,
    /// Its capabilities before `added_capabilities` and `dropped_capabilities`.
    pub capabilities: CapabilityChoice,
    /// More capabilities.
    pub added_capabilities: Vec<Capability>,
    /// Fewer capabilities; dropping wins over adding.
    pub dropped_capabilities: Vec<Capability>,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Nearly everything the host's root may do, and all of its devices.
    pub privileged: bool,
    /// With `privileged`: not the devices.
    pub without_host_devices: bool,
    /// Devices to add.
    pub devices: Vec<devices::DeviceRequest>,
    /// An absolute path of a root file system that no snapshotter made.
    pub rootfs_path: Option<PathBuf>,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: bool,
    /// How mounts travel between the root file system and the host, for example `rslave`.
    pub rootfs_propagation: Option<String>,
    /// Default mounts to leave out, by destination.
    pub removed_mounts: Vec<PathBuf>,
    /// Mounts to add.
    pub mounts: Vec<Mount>,
    /// The size of `/dev/shm`, in bytes.
    pub shm_size_bytes: Option<u64>,
    /// Its host name.
    pub hostname: Option<String>,
    /// Its NIS domain name.
    pub domainname: Option<String>,
    /// Whether it shares the host's network.
    pub host_network: bool,
    /// Other namespaces that it shares with the host.
    pub host_namespaces: Vec<LinuxNamespaceType>,
    /// Namespaces to join or, without a path, to have besides the usual ones.
    pub namespaces: Vec<(LinuxNamespaceType, Option<PathBuf>)>,
    /// Its user namespace.
    pub user_namespace: Option<UserNamespace>,
    /// Kernel settings of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Its cgroup; an empty path means none. `/<namespace>/<id>` if absent.
    pub cgroup: Option<String>,
    /// Memory limits.
    pub memory: Memory,
    /// Processor limits.
    pub cpu: Cpu,
    /// How many processes it may have.
    pub pids_limit: Option<i64>,
    /// Notes for the runtime.
    pub annotations: BTreeMap<String, String>,
}

/// Where a container's capabilities start from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CapabilityChoice {
    /// [`capabilities::DEFAULT`].
    #[default]
    Default,
    /// Those of the calling process.
    Current,
    /// None.
    None,
    /// These.
    Only(Vec<Capability>),
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// All, as containerd's client has it unless asked.
    #[default]
    Unconfined,
    /// Those of [`super::seccomp::default_profile`].
    Default,
    /// Those of this profile.
    Profile(Box<LinuxSeccomp>),
}

/// Ids inside a user namespace and outside of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNamespace {
    /// (inside, outside, how many) of user ids.
    pub uids: Vec<(u32, u32, u32)>,
    /// (inside, outside, how many) of group ids.
    pub gids: Vec<(u32, u32, u32)>,
}

/// Memory limits, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// At most.
    pub limit_bytes: Option<i64>,
    /// When the host is short of it.
    pub reservation_bytes: Option<i64>,
    /// Memory and swap together; -1 for any.
    pub swap_bytes: Option<i64>,
}

/// Processor limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Relative weight.
    pub shares: Option<u64>,
    /// Time within a period, in microseconds.
    pub quota_us: Option<i64>,
    /// The period, in microseconds.
    pub period_us: Option<u64>,
    /// Time saved up for bursts, in microseconds.
    pub burst_us: Option<u64>,
    /// Which processors, for example `0-3,7`.
    pub cpus: Option<String>,
    /// Which memory nodes.
    pub mems: Option<String>,
}

impl Cpu {
    /// The time of `cpus` processors.
    ///
    /// Source: `ctr run --cpus`.
    ///
    /// # Errors
    /// `InvalidArgument` for a number that is not above 0 or too large.
    pub fn with_cpus(mut self, cpus: f64) -> Result<Self> {
        const PERIOD_US: f64 = 100_000.0;
        let quota = cpus * PERIOD_US;
        if !(1.0..1e15).contains(&quota) {
            return Err(Error::invalid_argument(format!("{cpus} cpus")));
        }
        // In range by the check above.
        self.quota_us = Some(quota as i64);
        self.period_us = Some(PERIOD_US as u64);
        Ok(self)
    }
}

impl SpecOptions {
    /// The options for a container of `image` that runs `command` in place of the image's, if there is one.
    pub fn from_image(image: ImageConfig) -> Self {
        SpecOptions { image: Some(image), ..Self::default() }
    }

    /// Builds the spec of container `id` in `namespace`. `rootfs` is where users and groups are looked up; without
    /// it, they must be numbers.
    ///
    /// # Errors
    /// `InvalidArgument` for options that can never be right; `FailedPrecondition` if a name is to be looked up and
    /// there is no `rootfs`; those of [`user::resolve`] and of looking at devices.
    pub fn build(&self, namespace: &str, id: &str, rootfs: Option<&Rootfs>) -> Result<Spec> {
        let mut spec = default::linux(namespace, id)?;
        devices::allow_default(&mut spec);
        self.set_process(&mut spec, rootfs)?;
        self.set_files(&mut spec)?;
        self.set_isolation(&mut spec)?;
        self.set_resources(&mut spec)?;
        self.set_privileges(&mut spec)?;
        for request in &self.devices {
            devices::add(&mut spec, request)?;
        }
        if !self.annotations.is_empty() {
            spec.annotations_mut().get_or_insert_default().extend(self.annotations.clone());
        }
        Ok(spec)
    }

    fn set_process(&self, spec: &mut Spec, rootfs: Option<&Rootfs>) -> Result<()> {
        let image = self.image.clone().unwrap_or_default();
        let mut defaults = image.execution.env.clone();
        if defaults.is_empty() {
            defaults.push(default::DEFAULT_PATH.to_owned());
        }
        let mut env = environment::merge(&defaults, &self.env)?;
        if self.host_network && !environment::has(&env, "HOSTNAME") {
            env.push(format!("HOSTNAME={}", rustix::system::uname().nodename().to_string_lossy()));
        }
        if self.terminal && !environment::has(&env, "TERM") {
            env.push("TERM=xterm".to_owned());
        }
        let args = if self.args.is_empty() { image.command(&self.command) } else { self.args.clone() };
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err(Error::invalid_argument("argument with a NUL byte"));
        }
        let cwd = self.cwd.clone().unwrap_or(image.execution.working_dir);
        if cwd.contains('\0') {
            return Err(Error::invalid_argument("working directory with a NUL byte"));
        }
        // Images name directories below the root without its slash; runtimes want it.
        let cwd = if cwd.starts_with('/') { cwd } else { format!("/{cwd}") };
        let who = self.user.as_deref().unwrap_or(&image.execution.user);
        let named_image = self.image.is_some() || self.user.is_some();
        let mut found = find_user(who, rootfs, named_image)?;
        let groups = find_groups(&self.additional_groups, rootfs)?;
        found.additional_gids.extend(groups);

        let process = super::process(spec);
        process.set_args((!args.is_empty()).then_some(args));
        process.set_env(Some(env));
        process.set_cwd(PathBuf::from(cwd));
        process.set_terminal(self.terminal.then_some(true));
        if let Some((width, height)) = self.console_size {
            let size = serde_json::from_value(serde_json::json!({ "width": width, "height": height }))
                .map_err(|error| Error::internal(format!("console size: {error}")))?;
            process.set_console_size(Some(size));
        }
        if self.allow_new_privileges {
            // Absent rather than false: some runtimes load the seccomp filter at another moment for false.
            process.set_no_new_privileges(None);
        }
        process.set_oom_score_adj(self.oom_score_adj);
        process.set_apparmor_profile(self.apparmor_profile.clone());
        process.set_selinux_label(self.selinux_label.clone());
        let user = process.user_mut();
        user.set_uid(found.uid);
        user.set_gid(found.gid);
        user.set_additional_gids((!found.additional_gids.is_empty()).then_some(found.additional_gids));
        user.set_umask(self.umask);
        for (kind, soft, hard) in &self.rlimits {
            super::set_rlimit(spec, *kind, *soft, *hard)?;
        }
        Ok(())
    }

    fn set_files(&self, spec: &mut Spec) -> Result<()> {
        let root = super::root(spec);
        if let Some(path) = &self.rootfs_path {
            if !path.is_absolute() {
                return Err(Error::invalid_argument("rootfs absolute path is required"));
            }
            root.set_path(path.clone());
        }
        if self.readonly_rootfs {
            root.set_readonly(Some(true));
        }
        super::remove_mounts(spec, &self.removed_mounts);
        if let Some(size) = self.shm_size_bytes {
            super::set_shm_size(spec, size)?;
        }
        for mount in &self.mounts {
            if !mount.destination().is_absolute() {
                return Err(Error::invalid_argument(format!(
                    "mount destination {} is not absolute",
                    mount.destination().display()
                )));
            }
        }
        spec.mounts_mut().get_or_insert_default().extend(self.mounts.iter().cloned());
        if let Some(propagation) = &self.rootfs_propagation {
            super::linux(spec).set_rootfs_propagation(Some(propagation.clone()));
        }
        Ok(())
    }

    fn set_isolation(&self, spec: &mut Spec) -> Result<()> {
        if self.host_network {
            super::share_host_network(spec);
        }
        for kind in &self.host_namespaces {
            super::share_host_namespace(spec, *kind);
        }
        for (kind, path) in &self.namespaces {
            super::set_namespace(spec, *kind, path.clone());
        }
        if let Some(user_namespace) = &self.user_namespace {
            super::set_namespace(spec, LinuxNamespaceType::User, None);
            let linux = super::linux(spec);
            linux.set_uid_mappings(Some(mappings(&user_namespace.uids)?));
            linux.set_gid_mappings(Some(mappings(&user_namespace.gids)?));
        }
        spec.set_hostname(self.hostname.clone());
        spec.set_domainname(self.domainname.clone());
        for (key, value) in &self.sysctls {
            sysctl::set(spec, key, value)?;
        }
        Ok(())
    }

    fn set_resources(&self, spec: &mut Spec) -> Result<()> {
        match self.cgroup.as_deref() {
            None => {}
            Some("") => {
                super::linux(spec).set_cgroups_path(None);
            }
            Some(path) => {
                super::linux(spec).set_cgroups_path(Some(PathBuf::from(path)));
            }
        }
        let resources = super::resources(spec);
        if self.memory != Memory::default() {
            let mut memory = LinuxMemory::default();
            memory.set_limit(self.memory.limit_bytes);
            memory.set_reservation(self.memory.reservation_bytes);
            memory.set_swap(self.memory.swap_bytes);
            resources.set_memory(Some(memory));
        }
        if self.cpu != Cpu::default() {
            let mut cpu = LinuxCpu::default();
            cpu.set_shares(self.cpu.shares);
            cpu.set_quota(self.cpu.quota_us);
            cpu.set_period(self.cpu.period_us);
            cpu.set_burst(self.cpu.burst_us);
            cpu.set_cpus(self.cpu.cpus.clone());
            cpu.set_mems(self.cpu.mems.clone());
            resources.set_cpu(Some(cpu));
        }
        if let Some(limit) = self.pids_limit {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
        Ok(())
    }

    fn set_privileges(&self, spec: &mut Spec) -> Result<()> {
        match &self.capabilities {
            CapabilityChoice::Default => {}
            CapabilityChoice::Current => capabilities::set(spec, capabilities::current()?),
            CapabilityChoice::None => capabilities::set(spec, []),
            CapabilityChoice::Only(these) => capabilities::set(spec, these.iter().copied()),
        }
        if self.privileged {
            super::make_privileged(spec)?;
            if !self.without_host_devices {
                devices::allow_all(spec);
                devices::add_host(spec)?;
            }
        } else if self.without_host_devices {
            return Err(Error::invalid_argument("without_host_devices needs privileged"));
        }
        if !self.added_capabilities.is_empty() {
            capabilities::add(spec, self.added_capabilities.iter().copied());
        }
        if !self.dropped_capabilities.is_empty() {
            capabilities::drop(spec, self.dropped_capabilities.iter().copied());
        }
        // Last, since the default profile depends on the capabilities; and even if privileged, when asked for.
        let profile = match &self.seccomp {
            Seccomp::Unconfined => None,
            Seccomp::Default => Some(super::seccomp::default_profile(spec)?),
            Seccomp::Profile(profile) => Some((**profile).clone()),
        };
        super::linux(spec).set_seccomp(profile);
        if self.privileged {
            // The label and profile that the caller named still hold.
            let process = super::process(spec);
            process.set_apparmor_profile(self.apparmor_profile.clone());
            process.set_selinux_label(self.selinux_label.clone());
        }
        Ok(())
    }
}

fn find_user(who: &str, rootfs: Option<&Rootfs>, look: bool) -> Result<User> {
    match rootfs {
        Some(rootfs) if look => user::resolve(rootfs, who),
        Some(_) => Ok(User::default()),
        None if who.is_empty() => Ok(User::default()),
        None => user::find(who, None),
    }
}

fn find_groups(groups: &[String], rootfs: Option<&Rootfs>) -> Result<Vec<u32>> {
    match rootfs {
        _ if groups.is_empty() => Ok(Vec::new()),
        Some(rootfs) => user::resolve_groups(rootfs, groups),
        None => groups
            .iter()
            .map(|group| {
                group.parse().ok().filter(|id| *id <= user::MAX_ID).ok_or_else(|| {
                    Error::failed_precondition(format!(
                        "group {group:?} cannot be looked up without a root file system"
                    ))
                })
            })
            .collect::<Result<_>>()
            .context("additional groups"),
    }
}

fn mappings(ranges: &[(u32, u32, u32)]) -> Result<Vec<LinuxIdMapping>> {
    ranges
        .iter()
        .map(|(inside, outside, size)| {
            if *size == 0 || inside.checked_add(size - 1).is_none() || outside.checked_add(size - 1).is_none()
            {
                return Err(Error::invalid_argument(format!("id mapping {inside}:{outside}:{size}")));
            }
            let mapping = serde_json::json!({ "containerID": inside, "hostID": outside, "size": size });
            serde_json::from_value(mapping).map_err(|error| Error::internal(format!("id mapping: {error}")))
        })
        .collect()
}
