//! Names that other programs rely on. They are copied, never improved.
//!
//! Source, unless a name says otherwise: containerd's documentation and features.md sections A, C, E and I.

/// The daemon's main socket.
pub const DEFAULT_ADDRESS: &str = "/run/containerd/containerd.sock";
/// The daemon's state directory.
pub const DEFAULT_STATE: &str = "/run/containerd";
/// The daemon's root directory.
pub const DEFAULT_ROOT: &str = "/var/lib/containerd";
/// The daemon's configuration file.
pub const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";
/// Where registry hosts are configured.
pub const DEFAULT_HOSTS_DIR: &str = "/etc/containerd/certs.d";
/// Where shims put their sockets.
pub const DEFAULT_SHIM_SOCKET_DIR: &str = "/run/containerd/s";
/// What is appended to the main socket's path for the ttrpc socket.
pub const TTRPC_SUFFIX: &str = ".ttrpc";
/// The namespace of clients that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The runtime of clients that name none.
pub const DEFAULT_RUNTIME: &str = "io.containerd.runc.v2";
/// The snapshotter of clients that name none.
pub const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// gRPC metadata key of the namespace.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// ttrpc metadata key of the namespace.
pub const TTRPC_NAMESPACE_HEADER: &str = "containerd-namespace-ttrpc";
/// gRPC metadata key of the lease.
pub const LEASE_HEADER: &str = "containerd-lease";

/// How large a container's log file may become, in bytes. Ours.
pub const LABEL_LOG_MAX_SIZE: &str = "gantry.io/log-max-size";
/// How many log files a container may have. Ours.
pub const LABEL_LOG_MAX_FILES: &str = "gantry.io/log-max-files";
/// Keeps an object from collection.
pub const LABEL_GC_ROOT: &str = "containerd.io/gc.root";
/// References from an object to content, with an optional suffix behind `.` or `/`.
pub const LABEL_GC_REF_CONTENT: &str = "containerd.io/gc.ref.content";
/// References from an object to a snapshot: followed by `.`, the snapshotter and an optional suffix.
pub const LABEL_GC_REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
/// References from an object to an image.
pub const LABEL_GC_REF_IMAGE: &str = "containerd.io/gc.ref.image";
/// Back references: the object lives as long as the named one.
pub const LABEL_GC_BREF: &str = "containerd.io/gc.bref";
/// When an object expires, RFC 3339.
pub const LABEL_GC_EXPIRE: &str = "containerd.io/gc.expire";
/// A lease with it keeps only what it names.
pub const LABEL_GC_FLAT: &str = "containerd.io/gc.flat";
/// The diff id of a compressed layer.
pub const LABEL_UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Followed by the registry's host: the repositories a blob came from.
pub const LABEL_DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source";
/// The chain id that an unpacker gives to prepare.
pub const LABEL_SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Labels with this prefix are inherited by snapshots from images.
pub const LABEL_SNAPSHOT_PREFIX: &str = "containerd.io/snapshot/";
/// The signal that stops a container, from its image.
pub const LABEL_STOP_SIGNAL: &str = "io.containerd.image.config.stop-signal";
/// Default runtime of a namespace.
pub const LABEL_DEFAULT_RUNTIME: &str = "containerd.io/defaults/runtime";
/// Default snapshotter of a namespace.
pub const LABEL_DEFAULT_SNAPSHOTTER: &str = "containerd.io/defaults/snapshotter";

/// Type URL of an OCI runtime specification (JSON).
pub const TYPE_SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Type URL of an OCI process (JSON), for execs.
pub const TYPE_PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Type URL of OCI Linux resources (JSON), for updates.
pub const TYPE_LINUX_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// Type URL of the runc shim's options (protocol buffers).
pub const TYPE_RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Type URL of cgroup v1 metrics.
pub const TYPE_CGROUP1_METRICS: &str = "io.containerd.cgroups.v1.Metrics";
/// Type URL of cgroup v2 metrics.
pub const TYPE_CGROUP2_METRICS: &str = "io.containerd.cgroups.v2.Metrics";

/// The shim that answers to [`DEFAULT_RUNTIME`].
pub const SHIM_RUNC_BINARY: &str = "containerd-shim-runc-v2";
/// OCI annotation: containers with the same value share a shim.
pub const ANNOTATION_SHIM_GROUP: &str = "io.containerd.runc.v2.group";
/// What a shim says about itself: the types of mounts that it performs, separated by commas. Source: features E47.
pub const ANNOTATION_ALLOW_MOUNTS: &str = "containerd.io/runtime-allow-mounts";
/// OCI annotation of CRI: the pod's sandbox, which groups shims too.
pub const ANNOTATION_SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// Label: the state that the restart monitor keeps a container's task in. Source: features E45, as for the following.
pub const LABEL_RESTART_STATUS: &str = "containerd.io/restart.status";
/// Label: `no`, `always`, `on-failure[:N]` or `unless-stopped`.
pub const LABEL_RESTART_POLICY: &str = "containerd.io/restart.policy";
/// Label: where the output of a task that was started again goes.
pub const LABEL_RESTART_LOG_URI: &str = "containerd.io/restart.loguri";
/// Label: how many times it was started again.
pub const LABEL_RESTART_COUNT: &str = "containerd.io/restart.count";
/// Label: somebody stopped it who wants it to stay so.
pub const LABEL_RESTART_EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";
